/* The other form of a task: a folder with input/STAGE.json, one file a stage, and no task.yaml. */
#ifndef FST_TASK_STAGE_FILES_H
#define FST_TASK_STAGE_FILES_H

#include "task_file.h"

/* Is there any input/STAGE.json in the folder? */
bool fst__stage_files_there(const char *folder);
/* Reads and checks them, and appends the same task as the text of a task file. Says once when a device other than the
 * CPU is asked for. FST_E_CONFIG names file, line and key. */
FST_MUST fst_status fst__stage_files_read(const char *folder, fst_buf *text, fst_error *err);

#endif
