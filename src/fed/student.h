/* student.h - a model that a strategy's server trains on public samples, from targets that it has for them. */
#ifndef FST_FED_STUDENT_H
#define FST_FED_STUDENT_H

#include "distiller.h"

struct fst__student {
    struct fst__distiller by;
    fst_fed_state model, before; /* before: the round, for when it fails */
};

/* Of env's network, random from stream (seed, stream, 0); `rows` public samples a round. The caller's env must live as
 * long. After a failure fst__student_release frees what is there. */
FST_MUST fst_status fst__student_init(struct fst__student *s, const fst_server_env *env, const char *stream,
                                      size_t rows, fst_error *err);
void fst__student_release(struct fst__student *s);
/* Learns H(p, its own) for `epochs` epochs and says what it then takes the samples for. row: of the round's public
 * samples; p: rows x classes probabilities, first the targets, then its own. Adam from 0.001 along a cosine to 0,
 * batches of 32. A failure (FST_E_CANCELLED when it is stopped) leaves the model what it was. */
FST_MUST fst_status fst__student_round(struct fst__student *s, uint64_t round, const uint32_t *row, float *p,
                                       int64_t epochs, const fst_work *work, fst_error *err);

/* Appends the model: fst_fed_size_bytes(s->model.size) bytes, and back; FST_E_FORMAT for what is no model, which
 * changes nothing. */
FST_MUST fst_status fst__student_save(const struct fst__student *s, fst_buf *out, fst_error *err);
FST_MUST fst_status fst__student_load(struct fst__student *s, const void *data, fst_error *err);

#endif
