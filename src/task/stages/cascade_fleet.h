/* cascade_fleet.h - edge_infer, cloud_infer and cloud_direct_infer with devices and edges in other processes. */
#ifndef FST_TASK_CASCADE_FLEET_H
#define FST_TASK_CASCADE_FLEET_H

#include "cascade.h"
#include "fedstill/cascade_run.h"

enum { FST__BUNDLE_SETTINGS = 8 };
void fst__bundle_settings(const fst_tier_spec *t, double ask_timeout, double out[FST__BUNDLE_SETTINGS]);

/* What the fleet answered. */
struct fleet_answers {
    fst_cascade_answers all; /* in the order of the batches */
    uint8_t *by_cloud;       /* [windows] */
    fst_cascade_fleet figures;
};
void fst__fleet_release(struct fleet_answers *f);
/* Has the devices' windows answered by their edges and by `teacher` at the cloud: one round of the stage. edge NULL: by
 * the teacher alone; teacher NULL: by the edges alone. */
fst_status fst__fleet_ask(struct session *s, const struct step *own, const struct batches *b,
                          const struct edge_result *edge, const struct tier_model *teacher, struct fleet_answers *out,
                          fst_error *err);
/* Compares with what the cloud's own copy of the samples gives; cloud: logits, known: of which (NULL: all). */
void fst__fleet_compare(struct fleet_answers *f, const fst_cascade *c, double threshold, const float *cloud,
                        const uint8_t *known);

#endif
