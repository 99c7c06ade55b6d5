/* What an import did with every tensor, and the message that sums it up. */
#include <stdio.h>
#include <string.h>

#include "import.h"

const char *fst_import_kind_name(fst_import_kind k)
{
    static const char *const names[FST_IMPORT_KINDS] = {
        "taken",  "fresh",   "zero",  "padded",    "made",  "left out",
        "unused", "missing", "extra", "misshaped", "twice", "nonfinite",
    };
    return k < FST_IMPORT_KINDS ? names[k] : "";
}

void fst_import_report_release(fst_import_report *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < r->count; i++) {
        fst_free(r->items[i].ours);
        fst_free(r->items[i].theirs);
    }
    fst_free(r->items);
    *r = (fst_import_report){0};
}

fst_status fst__report_add(fst_import_report *r, fst_import_kind kind, const fst_tensor *ours, const fst_tensor *theirs,
                           fst_error *err)
{
    if ((r->count & (r->count - 1)) == 0) { /* room doubles at every power of two */
        size_t room = r->count ? r->count * 2 : 1;
        fst_import_item *more = fst_realloc(r->items, r->count * sizeof *more, room * sizeof *more);
        if (!more)
            return fst_fail_memory(err, room * sizeof *more);
        r->items = more;
    }
    fst_import_item item = {.kind = kind};
    if (ours) {
        item.ours = fst_strdup(ours->name);
        item.our_shape = ours->shape;
    }
    if (theirs) {
        item.theirs = fst_strdup(theirs->name);
        item.their_shape = theirs->shape;
        item.dtype = theirs->dtype;
    }
    if ((ours && !item.ours) || (theirs && !item.theirs)) {
        fst_free(item.ours);
        fst_free(item.theirs);
        return fst_fail_memory(err, 64);
    }
    r->items[r->count++] = item;
    r->of[kind]++;
    return FST_OK;
}

static void describe(const fst_import_item *i, char *out, size_t size)
{
    char a[80], b[80];
    const char *ours = i->ours ? i->ours : "", *theirs = i->theirs ? i->theirs : "";
    fst_shape_text(&i->our_shape, a, sizeof a);
    fst_shape_text(&i->their_shape, b, sizeof b);
    if (i->kind == FST_IMPORT_MISSING)
        snprintf(out, size, "missing %s %s", ours, a);
    else if (i->kind == FST_IMPORT_EXTRA)
        snprintf(out, size, "extra %.100s %s", theirs, b);
    else if (i->kind == FST_IMPORT_MISSHAPED && fst_shape_equal(&i->our_shape, &i->their_shape))
        snprintf(out, size, "%s is of %s, not of floats", ours, fst_dtype_name(i->dtype));
    else if (i->kind == FST_IMPORT_MISSHAPED)
        snprintf(out, size, "%s is %s %s, not %s", ours, fst_dtype_name(i->dtype), b, a);
    else if (i->kind == FST_IMPORT_TWICE)
        snprintf(out, size, "%.100s is %s too", theirs, ours);
    else
        snprintf(out, size, "%s has %zu values that are no number or infinite", ours, i->nonfinite);
}

size_t fst__report_wrong(const fst_import_report *r, bool allow_nonfinite)
{
    return r->of[FST_IMPORT_MISSING] + r->of[FST_IMPORT_EXTRA] + r->of[FST_IMPORT_MISSHAPED] + r->of[FST_IMPORT_TWICE] +
           (allow_nonfinite ? 0 : r->of[FST_IMPORT_NONFINITE]);
}

fst_status fst__report_fail(const fst_import_report *r, const char *path, const char *arch, const char *hint,
                            fst_error *err)
{
    enum { SHOWN = 5 };
    char text[640] = "";
    size_t wrong = 0, at = 0;
    for (size_t i = 0; i < r->count; i++) {
        char line[400];
        if (r->items[i].kind < FST_IMPORT_MISSING)
            continue;
        describe(&r->items[i], line, sizeof line);
        if (wrong++ < SHOWN && at < sizeof text)
            at += (size_t)snprintf(text + at, sizeof text - at, wrong > 1 ? "; %s" : "%s", line);
    }
    bool only_values = wrong == r->of[FST_IMPORT_NONFINITE];
    return fst_fail(err, only_values ? FST_E_NUMERIC : FST_E_MISMATCH, "%.200s: %zu tensors do not fit %s: %s%s%s",
                    path, wrong, arch, text, wrong > SHOWN ? "; ..." : "", hint);
}
