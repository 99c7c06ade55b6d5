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
/* Networks that are trained along with the student, and are its teachers. */
enum { FST__MAX_PEERS = 7 };
enum { FST__PEERS_ALONE = 1 };
struct online_section {
    char **peers; /* networks */
    size_t peer_count;
    int learn; /* 0 mutual, FST__PEERS_ALONE */
};
/* Iterated soft targets (fst_parts). */
struct iterated_section {
    double part_a, part_b;
    int64_t rounds, patience;
};
extern const fst__schema fst__online_schema, fst__iterated_schema;
extern const fst__schema fst__ramp_schema, fst__curriculum_schema, fst__fitnet_schema, fst__attention_schema;

#endif
