/* fusion.h - what stages with a fusion share: the large model, and whether both matrices are there and fit. */
#ifndef FST_TASK_FUSION_H
#define FST_TASK_FUSION_H

#include "fusion_file.h"
#include "session.h"

/* The reference to the large model. */
#define FST__FUSION_TEACHER "fusion.teacher"

/* The network of the large model, as far as the task says it; NULL: only its file does. */
const char *fst__fusion_network(const struct step *own, const struct fusion_section *f);
/* The graph of that network: of the task, or of the file. */
fst_status fst__fusion_graph(const struct session *s, const struct step *own, const struct fusion_section *f,
                             fst_graph **out, fst_error *err);
/* The large model; a random one is drawn by a stream of the step. */
fst_status fst__fusion_teacher(const struct session *s, const struct step *own, const struct fusion_section *f,
                               fst_model *out, fst_error *err);
/* Before any work: what the adapter takes. FST_E_CONFIG with the full key when something is missing or does not fit. */
fst_status fst__fusion_check(const struct session *s, const struct step *own, const struct fusion_section *f,
                             const char *network, fst_fusion_size *out, fst_error *err);
/* Warns where so many fusions in a stage, none of which the adapter learns before, leave the small model as it is. */
void fst__fusion_warn_idle(const struct step *own, const struct fusion_section *f, int64_t fusions);

#endif
