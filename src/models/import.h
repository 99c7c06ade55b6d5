/* Between import.c, which decides, and import_report.c, which remembers. */
#ifndef FST_MODELS_IMPORT_H
#define FST_MODELS_IMPORT_H

#include "fedstill/models.h"

/* ours, theirs: NULL where there is none. Copies the names. */
fst_status fst__report_add(fst_import_report *r, fst_import_kind kind, const fst_tensor *ours, const fst_tensor *theirs,
                           fst_error *err);
/* How many items stand in the way. */
size_t fst__report_wrong(const fst_import_report *r, bool allow_nonfinite);
/* FST_E_MISMATCH, or FST_E_NUMERIC when only values are wrong, with the first few of them named. */
fst_status fst__report_fail(const fst_import_report *r, const char *path, const char *arch, const char *hint,
                            fst_error *err);

#endif
