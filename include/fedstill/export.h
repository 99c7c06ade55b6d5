/*
 * fedstill/export.h - what a run wrote down, for other programs: TensorBoard's event files, and CSV of everything.
 *
 * Both read summary.json and events.jsonl of an output folder. Of events.jsonl, which grows over all runs of a folder,
 * only those lines count that are about what the folder shows now: not the rounds of other settings, not those that
 * were played again after a crash.
 */
#ifndef FEDSTILL_EXPORT_H
#define FEDSTILL_EXPORT_H

#include "fedstill/report.h"

FST_BEGIN_DECLS

/*
 * Appends a TensorBoard event file: TFRecords with masked CRC-32C, each a protocol buffer `Event`, the first with
 * file_version "brain.Event:2", the others with a `Summary` of scalars (simple_value, 32 bits). A step is an epoch or a
 * round. Tags are STAGE/KEY of epochs and rounds, STAGE/client N/KEY and STAGE/peer N/KEY, STAGE/fusion/KEY, and
 * resources/KEY, whose steps are seconds. Numbers that are not finite are left out. name: what the file is to be
 * called, the same for the same run each time. scalars (may be NULL): how many were written; FST_E_CONFIG when there
 * are none.
 */
#define FST_EXPORT_NAME 96
FST_MUST FST_API fst_status fst_export_tensorboard(const char *output, fst_buf *out, char name[FST_EXPORT_NAME],
                                                   size_t *scalars, fst_error *err);

/*
 * Calls table with every table: "stages" from the summary, and of the events "epochs", "rounds", "clients",
 * "lost_clients", "client_models", "edges", "peers", "fusions", "results", "early_stopping", "resources", "states" (of
 * stages), "processes" (that worked on it) and "ends" (of these). A row is an event, a column a field, after time and
 * stage. RFC 4180, all digits. What there is none of has no table. The first error of table ends it and is returned.
 */
FST_MUST FST_API fst_status fst_export_csv(const char *output, fst_csv_fn table, void *ctx, fst_error *err);

FST_END_DECLS

#endif
