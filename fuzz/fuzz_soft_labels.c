/* A file of soft labels from anywhere: every row of what is read is made of probabilities or finite
 * numbers, or the file is refused. */
#include <math.h>
#include <stddef.h>
#include <stdlib.h>

#include "fedstill/distill.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void check(const fst_soft_labels *s)
{
    float *row = fst_calloc((size_t)s->classes, sizeof *row);
    for (size_t i = 0; row && i < s->samples && i < 64; i++) {
        fst_soft_labels_row(s, (uint32_t)i, row);
        for (int j = 0; j < s->classes; j++)
            if (!isfinite(row[j]) || (s->spec.content == FST_SOFT_PROBABILITIES && !(row[j] >= 0 && row[j] <= 1)))
                abort();
    }
    fst_free(row);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    fst_soft_labels s = {0};
    fst_error err = {0};
    fst_status st = fst_soft_labels_parse(&s, "fuzz", data, size, &err);
    if (st ? s.keys != NULL || err.status != st || !err.message[0] : s.samples > size || s.classes < 1)
        abort();
    if (!st)
        check(&s);
    fst_soft_labels_release(&s);
    return 0;
}
