/* distiller.h - steps of a model at a strategy's server, on public samples, towards targets that the server has for
 * them. Which model and which targets is the strategy's matter. */
#ifndef FST_FED_DISTILLER_H
#define FST_FED_DISTILLER_H

#include "fed_private.h"

struct fst__distiller_spec {
    size_t rows;      /* public samples a round */
    size_t apart;     /* of these, the first ones, which no step learns from */
    size_t batch;     /* samples a step; fewer when there are fewer */
    double rate;      /* of Adam, falling along a cosine to 0 */
    fst_kd_form form; /* of the loss, at temperature 1 */
    uint64_t seed;    /* of the order of the batches */
};

struct fst__distiller {
    const fst_server_env *env;
    struct fst__distiller_spec spec;
    size_t classes;
    uint32_t *index;                       /* rows: their positions in the source */
    uint32_t *row_at;                      /* by position in the source: which row */
    float *soft;                           /* batch x classes */
    fst_loader *all, *learning, *checking; /* over all of index, those that are learnt, those apart */
    fst_trainer *trainer;
    fst_runner *runner;
    fst_optim optim;
    bool has_optim;
    uint64_t round, epoch, done, steps; /* of the open training */
};

/* Of env's network; env must live as long. After a failure fst__distiller_release frees what is there. */
FST_MUST fst_status fst__distiller_init(struct fst__distiller *d, const fst_server_env *env,
                                        const struct fst__distiller_spec *spec, fst_error *err);
void fst__distiller_release(struct fst__distiller *d);
/* The samples of a round: [rows] of the public samples. */
void fst__distiller_draw(struct fst__distiller *d, const uint32_t *row);
/* Opens a training of so many steps, with a fresh optimiser; an epoch is all that are learnt, in a new order. */
FST_MUST fst_status fst__distiller_begin(struct fst__distiller *d, uint64_t round, uint64_t steps, fst_error *err);
/* The next step. target: rows x classes, probabilities. FST_E_CANCELLED when work is stopped. */
FST_MUST fst_status fst__distiller_step(struct fst__distiller *d, fst_fed_state *model, const float *target,
                                        const fst_work *work, fst_error *err);
/* The model's logits of the round's samples, in their order; of those apart alone, if there are any. */
FST_MUST fst_status fst__distiller_logits(struct fst__distiller *d, bool apart, const fst_fed_state *model,
                                          float *logits, fst_error *err);

#endif
