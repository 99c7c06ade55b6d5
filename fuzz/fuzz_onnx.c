/* An ONNX file from anywhere: a byte of choices, then the file. Either a whole model, or nothing and a reason. */
#include <stdlib.h>
#include <string.h>

#include "fedstill/models.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    static const char *const networks[] = {NULL, "logistic_regression", "fedgen_mnist", "real_resnet20_link11_h"};
    fst_model m = {0};
    fst_import_report r = {0};
    fst_error err = {0};
    if (size < 5 || !fst_onnx_probe(data + 1, size - 1))
        return 0;
    fst_import_options o = {
        .arch = networks[data[0] & 3],
        .head = data[0] & 4 ? FST_HEAD_FRESH : FST_HEAD_KEEP,
        .input = data[0] & 8 ? FST_SHAPE(1, 9, 9) : (fst_shape){0},
        .classes = data[0] & 16 ? 3 : 0,
        .allow_nonfinite = data[0] & 32,
    };
    fst_status s = fst_model_import_memory(&m, "fuzz", data + 1, size - 1, &o, &r, &err);
    size_t ours = r.of[FST_IMPORT_TAKEN] + r.of[FST_IMPORT_MADE] + r.of[FST_IMPORT_FRESH] + r.of[FST_IMPORT_ZERO];
    if (s ? m.graph != NULL || err.status != s || !err.message[0]
          : ours != fst_graph_params(m.graph) + fst_graph_buffers(m.graph) + fst_graph_counters(m.graph))
        abort();
    fst_import_report_release(&r);
    fst_model_release(&m);
    return 0;
}
