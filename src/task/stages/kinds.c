/* All kinds of stages. Each stands beside the code that does its work. */
#include "stages.h"

extern const struct stage_kind fst__cloud_pretrain, fst__cloud_kd, fst__edge_kd, fst__federated_train, fst__device_load,
    fst__edge_infer, fst__cloud_infer, fst__cloud_direct_infer, fst__fusion_train, fst__quantise, fst__prune;

const struct stage_kind *const fst__stage_kinds[] = {&fst__cloud_pretrain, &fst__cloud_kd,           &fst__edge_kd,
                                                     &fst__fusion_train,   &fst__federated_train,    &fst__prune,
                                                     &fst__quantise,       &fst__device_load,        &fst__edge_infer,
                                                     &fst__cloud_infer,    &fst__cloud_direct_infer, NULL};
