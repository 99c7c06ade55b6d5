/* The HTML report from any bytes in its files: whatever they say, the page is well-formed and nothing of theirs becomes
 * a tag. Pieces are split at lines "===": summary.json, the three reports, events.jsonl, settings. */
#include <stdlib.h>
#include <string.h>

#include "html.h"
#include "xml_check.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static const unsigned char *next_cut(const unsigned char *p, const unsigned char *end)
{
    for (; end - p >= 5; p++)
        if (!memcmp(p, "\n===\n", 5))
            return p;
    return end;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    fst_buf settings = {0}, out = {0};
    fst_html_report r = {.output = "output"};
    struct fst__html h = {.r = &r};
    const unsigned char *p = data, *end = data + size;
    char why[200];
    size_t at;
    for (int i = 0; i <= PIECES && p < end; i++) {
        const unsigned char *cut = next_cut(p, end);
        fst_buf *to = i < PIECES ? &h.piece[i].text : &settings;
        if (i < PIECES)
            h.piece[i].there = true;
        if (fst_buf_append(to, p, (size_t)(cut - p), NULL))
            abort();
        p = cut < end ? cut + 5 : end;
    }
    r.settings = settings.data;
    if (fst__html_write(&h, &out, NULL) || !xml_check(out.data, out.len, &at, why, sizeof why))
        abort();
    fst__html_release(&h);
    fst_buf_release(&settings);
    fst_buf_release(&out);
    return 0;
}
