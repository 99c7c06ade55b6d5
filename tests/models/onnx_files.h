/* onnx_files.h - a folder with room for one ONNX file, for a test program, and how protobuf-c alone reads such a file.
 */
#ifndef FEDSTILL_TESTS_MODELS_ONNX_FILES_H
#define FEDSTILL_TESTS_MODELS_ONNX_FILES_H

#include <stdlib.h>
#include <unistd.h>

#include <onnx.pb-c.h>

#include "fedstill/models.h"
#include "nn/support.h"

static char folder[] = "/tmp/fedstill-onnx-XXXXXX";
static char path[128]; /* of the file */

static inline int set_up(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/out.onnx", folder);
    return 0;
}

static inline int tear_down(void **state)
{
    (void)state;
    (void)unlink(path);
    return rmdir(folder);
}

static inline Onnx__Model *onnx_read(const char *file)
{
    fst_buf b = {0};
    assert_ok(fst_file_read(file, 1 << 28, &b, err));
    Onnx__Model *m = onnx__model__unpack(NULL, b.len, (const uint8_t *)b.data);
    assert_non_null(m);
    fst_buf_release(&b);
    return m;
}

#endif
