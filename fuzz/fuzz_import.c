/* Weights from anywhere: a byte of choices, a byte with the length of a map, the map, the file. Either a whole model
 * whose tensors the report accounts for, or nothing. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "fedstill/models.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void check(fst_status s, const fst_model *m, const fst_import_report *r, const fst_error *err)
{
    size_t sum = 0, ours = 0;
    for (size_t k = 0; k < FST_IMPORT_KINDS; k++)
        sum += r->of[k];
    for (size_t i = 0; i < r->count; i++)
        if (r->items[i].kind <= FST_IMPORT_PADDED)
            ours++;
    if (sum != r->count)
        abort();
    if (s ? m->graph != NULL || err->status != s || !err->message[0]
          : ours != fst_graph_params(m->graph) + fst_graph_buffers(m->graph) + fst_graph_counters(m->graph) ||
                !r->of[FST_IMPORT_TAKEN])
        abort();
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    static const char *const networks[] = {"logistic_regression", "resnet8", "mnist_student", "fedgen_mnist"};
    static const char *const small[] = {"input=1,2,2"};
    fst_model m = {0};
    fst_import_report r = {0};
    fst_error err = {0};
    char map[256] = "";
    if (size < 2 || size - 2 < data[1])
        return 0;
    memcpy(map, data + 2, data[1]);
    fst_import_options o = {
        .arch = networks[data[0] & 3],
        .settings = small,
        .setting_count = (data[0] & 3) == 0,
        .head = data[0] & 4 ? FST_HEAD_FRESH : FST_HEAD_KEEP,
        .pad_shortcuts = (data[0] & 3) == 1 && data[0] & 8,
        .allow_nonfinite = data[0] & 16,
        .prefix = data[0] & 32 ? "a." : NULL,
        .suffix = data[0] & 64 ? "_ema" : NULL,
        .map = map,
    };
    fst_status s = fst_model_import_memory(&m, "fuzz", data + 2 + data[1], size - 2 - data[1], &o, &r, &err);
    check(s, &m, &r, &err);
    fst_import_report_release(&r);
    fst_model_release(&m);
    return 0;
}
