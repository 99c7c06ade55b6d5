/* Between the files of an export: what was read of a run's folder. */
#ifndef FST_REPORT_EXPORT_H
#define FST_REPORT_EXPORT_H

#include <jansson.h>

#include "fedstill/export.h"
#include "run_log.h"

struct fst__export {
    json_t *summary; /* NULL: there is none */
    fst_buf events;
    struct fst__log log;
};

/* From the texts of summary.json and events.jsonl (moved into *out, also on failure). A summary that is none is left
 * out. */
FST_MUST fst_status fst__export_parse(struct fst__export *out, fst_buf *summary, fst_buf *events, fst_error *err);
void fst__export_release(struct fst__export *x);

/* tensorboard.c */
FST_MUST fst_status fst__export_tensorboard(const struct fst__export *x, fst_buf *out, char name[FST_EXPORT_NAME],
                                            size_t *scalars, fst_error *err);
/* export_csv.c */
FST_MUST fst_status fst__export_csv(const struct fst__export *x, fst_csv_fn table, void *ctx, fst_error *err);

#endif
