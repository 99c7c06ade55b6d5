/* The kind fusion_train: a small model from labels, with a matrix of it fused every few batches with one of a large
 * model that trains on the same batches (MergeNet on one machine). */
#include <string.h>

#include "fusion.h"
#include "supervised.h"
#include "training_file.h"

static const fst__field fields[] = {
    TRAINING_FIELDS("5"),
    FST__F_MAP(struct fusion_train_section, fusion, &fst__local_fusion_schema,
               "the large model, which trains along with the same optimizer, and how both are joined"),
};
_Static_assert(offsetof(struct fusion_train_section, training) == 0, "training comes first");
static const fst__schema schema = FST__SCHEMA(struct fusion_train_section, fields);

static const struct stage_ref refs[] = {
    {.key = "init", .what = FST__LEAVES_MODEL, .file = true, .learns = true},
    {.key = FST__FUSION_TEACHER, .what = FST__LEAVES_MODEL, .file = true, .learns = true, .word = "random"},
};

static const struct fusion_section *fusion_of(const struct step *own)
{
    return &((const struct fusion_train_section *)own->stage->settings)->fusion.fusion;
}

static bool complains(const struct task_file *f, const struct stage_list *all, const struct stage *own,
                      fst__complaint *c)
{
    (void)all;
    return fst__training_complains(f, own, c);
}

static bool extendable(const struct stage *own)
{
    const struct fusion_train_section *t = own->settings;
    return t->fusion.fusion.schedule != FST__FUSION_COSINE && fst__training_extendable(own);
}

static fst_status check(const struct session *s, const struct step *own, fst_error *err)
{
    const struct fusion_train_section *t = own->stage->settings;
    int64_t learn = (int64_t)s->data.cloud.learn, batch = t->training.batch_size;
    int64_t steps = t->training.epochs * (t->training.drop_last ? learn / batch : (learn + batch - 1) / batch);
    fst_fusion_size size;
    fst_status st = fst__training_check(s, own, err);
    if (!st)
        st = fst__fusion_check(s, own, fusion_of(own), fst__training_network(own->stage), &size, err);
    if (!st)
        fst__fusion_warn_idle(own, fusion_of(own), (steps + t->fusion.every - 1) / t->fusion.every);
    return st;
}

static fst_status inputs(const struct session *s, const struct step *own, fst_buf *text, fst_error *err)
{
    fst_status st = fst__add_settings(own, text, err);
    if (!st)
        st = fst__training_inputs(s, own, text, err);
    return st ? st : fst__add_reads(s, own, FST__FUSION_TEACHER, text, err);
}

static fst_status tell(const struct session *s, const struct step *own, fst_buf *out, fst_error *err)
{
    const struct training *t = own->stage->settings;
    fst_fusion_size size;
    fst_graph *large = NULL;
    fst_status st = fst__training_tell(s, own, 0, out, err);
    if (!st)
        st = fst__fusion_graph(s, own, fusion_of(own), &large, err);
    const char *network = fst__fusion_network(own, fusion_of(own));
    const struct work w = {.network = network ? network : fusion_of(own)->teacher,
                           .graph = large,
                           .samples = (double)s->data.cloud.learn * (double)t->epochs,
                           .training = true,
                           .batch = (size_t)t->batch_size,
                           .plans = s->machine.threads};
    if (!st)
        st = fst__tell_work(s, own, &w, out, err);
    if (!st)
        st = fst__fusion_check(s, own, fusion_of(own), t->model, &size, err);
    fst_graph_free(large);
    return st ? st : fst__tell_fusion(&size, out, err);
}

static fst_status run(struct session *s, struct step *own, struct record *r, fst_error *err)
{
    const struct fusion_train_section *t = own->stage->settings;
    struct lesson l = {
        .step = own, .training = &t->training, .loss = fst__hard_loss(&t->training), .fusion = &t->fusion};
    return fst__learn(s, &l, r, err);
}

/* Its small model starts from the weights and sees the batches of edge_alone's: comparisons are paired. */
const struct stage_kind fst__fusion_train = {
    .name = "fusion_train",
    .help = "a small model on labels, fused every few batches with a large one that trains along (MergeNet)",
    .schema = &schema,
    .modes = FST__IN_FULL_TRAIN | FST__IN_PRETRAIN,
    .leaves = FST__LEAVES_MODEL,
    .trained = true,
    .streams = "edge_kd",
    .counts = "epoch",
    .refs = refs,
    .ref_count = sizeof refs / sizeof *refs,
    .network = fst__training_network,
    .total = fst__training_total,
    .extendable = extendable,
    .complains = complains,
    .check = check,
    .inputs = inputs,
    .tell = tell,
    .run = FST__TRAINS ? run : NULL,
};
