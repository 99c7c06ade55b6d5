/* The kind cloud_pretrain: a teacher (or any other model) from the labels of the cloud's samples. With a topology it
 * learns at the cloud, on its samples: nothing travels before the rounds. */
#include "supervised.h"

static const struct stage_ref refs[] = {{.key = "init", .what = FST__LEAVES_MODEL, .file = true, .learns = true}};

static bool complains(const struct task_file *f, const struct stage_list *all, const struct stage *own,
                      fst__complaint *c)
{
    (void)all;
    return fst__training_complains(f, own, c);
}

static fst_status inputs(const struct session *s, const struct step *own, fst_buf *text, fst_error *err)
{
    fst_status st = fst__add_settings(own, text, err);
    return st ? st : fst__training_inputs(s, own, text, err);
}

static fst_status tell(const struct session *s, const struct step *own, fst_buf *out, fst_error *err)
{
    return fst__training_tell(s, own, 0, out, err);
}

static fst_status run(struct session *s, struct step *own, struct record *r, fst_error *err)
{
    const struct training *t = own->stage->settings;
    struct lesson l = {.step = own, .training = t, .loss = fst__hard_loss(t)};
    return fst__learn(s, &l, r, err);
}

const struct stage_kind fst__cloud_pretrain = {
    .name = "cloud_pretrain",
    .help = "the teacher, on all training data",
    .schema = &fst__training_schema,
    .modes = FST__IN_FULL_TRAIN | FST__IN_PRETRAIN | FST__IN_PIPELINE,
    .leaves = FST__LEAVES_MODEL,
    .trained = true,
    .counts = "epoch",
    .refs = refs,
    .ref_count = sizeof refs / sizeof *refs,
    .network = fst__training_network,
    .total = fst__training_total,
    .extendable = fst__training_extendable,
    .complains = complains,
    .check = fst__training_check,
    .inputs = inputs,
    .tell = tell,
    .run = FST__TRAINS ? run : NULL,
};
