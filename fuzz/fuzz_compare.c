/* Comparisons and exports from any bytes in a run's files. Pieces are split at lines "===": for each run settings,
 * summary.json, events.jsonl. Whatever they say, the page is well-formed and nothing of theirs becomes a tag, the JSON
 * is JSON, and the other formats are written. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "compare.h"
#include "export.h"
#include "xml_check.h"

enum { RUNS = 8 };

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static const unsigned char *next_cut(const unsigned char *p, const unsigned char *end)
{
    for (; end - p >= 5; p++)
        if (!memcmp(p, "\n===\n", 5))
            return p;
    return end;
}

static fst_status ignore(void *ctx, const char *name, const fst_buf *text, fst_error *err)
{
    (void)name;
    (void)err;
    *(size_t *)ctx += text->len;
    return FST_OK;
}

static void write_all(fst_compare *c)
{
    char why[200];
    size_t at, sum = 0;
    for (int f = FST_COMPARE_TEXT; f <= FST_COMPARE_HTML; f++) {
        fst_buf out = {0};
        if (fst_compare_write(c, (fst_compare_format)f, 0, f % 2, &out, NULL))
            abort();
        if (f == FST_COMPARE_HTML && !xml_check(out.data, out.len, &at, why, sizeof why))
            abort();
        json_t *j = f == FST_COMPARE_JSON ? json_loadb(out.data, out.len, 0, NULL) : NULL;
        if (f == FST_COMPARE_JSON && !j)
            abort();
        json_decref(j);
        fst_buf_release(&out);
    }
    if (fst_compare_csv(c, ignore, &sum, NULL))
        abort();
}

static void export_run(fst_buf *summary, fst_buf *events)
{
    struct fst__export x;
    fst_buf out = {0};
    char name[FST_EXPORT_NAME];
    size_t scalars = 0;
    if (!fst__export_parse(&x, summary, events, NULL)) {
        if (fst__export_tensorboard(&x, &out, name, &scalars, NULL))
            abort();
        (void)!fst__export_csv(&x, ignore, &scalars, NULL); /* events of too many fields are refused */
    }
    fst__export_release(&x);
    fst_buf_release(&out);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    const unsigned char *p = data, *end = data + size;
    const fst_compare_options o = {.targets = NULL};
    fst_compare *c = fst_calloc(1, sizeof *c);
    for (int run = 0; run < RUNS && p < end; run++) {
        fst_buf piece[3] = {{0}};
        for (int i = 0; i < 3 && p < end; i++) {
            const unsigned char *cut = next_cut(p, end);
            if (fst_buf_append(&piece[i], p, (size_t)(cut - p), NULL))
                abort();
            p = cut < end ? cut + 5 : end;
        }
        const fst_compare_run r = {"a run", "output", piece[0].data ? piece[0].data : ""};
        if (fst__compare_take(c, &r, &piece[1], &piece[2], &o, NULL))
            abort();
        export_run(&piece[1], &piece[2]);
        fst_buf_release(&piece[0]);
    }
    fst_status st = fst__compare_finish(c, &o, NULL);
    if (st && st != FST_E_CONFIG)
        abort();
    if (!st)
        write_all(c);
    fst_compare_free(c);
    return 0;
}
