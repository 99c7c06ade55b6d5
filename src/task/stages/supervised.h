/* supervised.h - what the kinds share that train one model on labels or soft labels (cloud_pretrain, edge_kd and its
 * baseline). Their settings begin with a struct training. */
#ifndef FST_TASK_SUPERVISED_H
#define FST_TASK_SUPERVISED_H

#include "session.h"

/* The cross entropy of hard labels as a stage's settings say it. */
fst_loss fst__hard_loss(const struct training *t);
/* Trains a new model as the lesson says, and saves it. */
fst_status fst__learn(struct session *s, const struct lesson *l, struct record *r, fst_error *err);

/* Members of kinds. */
const char *fst__training_network(const struct stage *own);
int64_t fst__training_total(const struct stage *own);
bool fst__training_extendable(const struct stage *own);
/* Early stopping needs samples to judge epochs by. */
bool fst__training_complains(const struct task_file *f, const struct stage *own, fst__complaint *c);
/* Has the network a layer that int8 has a form of? The key is `quantise`. */
fst_status fst__check_learns_int8(const struct step *own, const fst_graph *network, fst_error *err);
fst_status fst__training_check(const struct session *s, const struct step *own, fst_error *err);
/* What a network is and starts from, as far as the settings do not say it. */
fst_status fst__training_inputs(const struct session *s, const struct step *own, fst_buf *text, fst_error *err);
/* bytes_down: what the stage fetches over the network. */
fst_status fst__training_tell(const struct session *s, const struct step *own, double bytes_down, fst_buf *out,
                              fst_error *err);

/* ---- edge_kd.c: for stages that learn from soft labels ---- */
extern const char *const fst__kd_losses[]; /* as fst_kd_form */
extern const fst__schema fst__dkd_schema;
/* Do temperature and loss of a student fit the soft labels? key: before the names of its settings, "" or "map.". */
bool fst__soft_complains(const struct stage *own, const char *key, int kd_loss, double temperature,
                         const struct stage *labels, fst__complaint *c);
/* What a student's loss expects the soft labels to be: its own settings, not the labels'. */
fst_soft_spec fst__expected_labels(const struct session *s, const struct step *own, int kd_loss, double temperature,
                                   const struct step *labels);
/* The labels that a stage left, checked against what is wanted, and the row of each of `count` training samples; rows:
 * as many as there are training samples. *bytes: of the file. Release the labels in any case. */
fst_status fst__fetch_labels(const struct session *s, const struct step *from, const fst_soft_spec *want,
                             const uint32_t *index, size_t count, uint32_t *rows, fst_soft_labels *labels,
                             size_t *bytes, fst_error *err);

/* ---- cloud_kd.c ---- */
/* What the soft labels of a stage of the kind cloud_kd are. */
fst_soft_spec fst__soft_spec(const struct session *s, const struct step *own);
/* Makes them with these teachers' models, in their order, for `count` training samples. */
fst_status fst__soften(struct session *s, const struct step *own, const fst_model *teacher, size_t teachers,
                       const uint32_t *index, size_t count, fst_soft_labels *labels, fst_error *err);
/* Of one teacher's digest, or of several and how they are weighed. */
void fst__teachers_digest(const struct stage *own, const char (*digest)[FST_DIGEST_HEX], size_t n,
                          char out[FST_DIGEST_HEX]);
/* Bytes of their file, about. */
double fst__soft_bytes(const struct session *s, const struct stage *own);

/* ---- cloud_kd_sites.c: labels at the clients of a fleet ---- */
#define FST__SOFT_LABELS "soft_labels.safetensors"
/* The bytes that are sent: of each teacher the length of its file, u64 little-endian, the file, and zeroes up to a
 * multiple of 8. split: FST_E_FORMAT when they are not those of so many; views of `given`, which is aligned to 8. */
struct teacher_file {
    const void *data;
    size_t len;
};
fst_status fst__teachers_add(const void *file, size_t len, fst_buf *out, fst_error *err);
fst_status fst__teachers_split(const void *given, size_t len, size_t wanted, struct teacher_file *out, fst_error *err);
/* At the cloud: sends the teachers to all clients, which make labels of their own samples and keep them, once in the
 * life of this process. each: [clients], what came of it; may be NULL. *bytes: that were sent. */
fst_status fst__teach_clients(struct session *s, struct step *own, fst_client_figures *each, uint64_t *bytes,
                              fst_error *err);
/* The stage's run at the cloud. */
fst_status fst__label_elsewhere(struct session *s, struct step *own, struct record *r, fst_error *err);
/* At a site: makes the labels of a client's samples with the teachers that were sent, unless they are there. */
fst_status fst__label_own(struct session *s, struct step *own, uint32_t client, const void *given, size_t len,
                          fst_client_figures *out, fst_error *err);
/* At a site: that they were made, by this process or one before it. FST_E_CONFIG when they are gone. */
fst_status fst__recall_labels(struct session *s, struct step *own, fst_error *err);

#endif
