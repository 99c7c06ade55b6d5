/* Settings of distillation that are maps of their own. */
#ifndef FST_TASK_DISTIL_FILE_H
#define FST_TASK_DISTIL_FILE_H

#include "fedstill/distill.h"
#include "schema.h"

/* A value that moves over the epochs to the one that the setting beside it has. */
struct ramp_section {
    int name; /* fst_ramp_kind */
    double from, low, high;
    int64_t over; /* 0: all epochs of the stage */
    int64_t milestones[FST_MAX_MILESTONES];
    size_t milestone_count;
};
/* A temperature that is learnt (fst_curriculum). */
struct curriculum_section {
    double t_start, t_end;
    int64_t over;
};
/* A feature map of the student against one of the teacher's, by the names of layers. */
struct fitnet_section {
    char *student, *teacher;
    double weight;
};
enum { FST__ATTENTION_LAYERS = 6 };
struct attention_section {
    char **student, **teacher; /* as many of both */
    size_t student_count, teacher_count;
    double weight;
};
extern const fst__schema fst__ramp_schema, fst__curriculum_schema, fst__fitnet_schema, fst__attention_schema;

#endif
