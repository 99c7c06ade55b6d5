/* WINDOWS (an even first byte) and ANSWERS of a stream: what is read must be what is written. */
#include <string.h>

#include "stream.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void same(fst_status written, const fst_buf *b, const void *p, size_t n)
{
    if (written || b->len != n || memcmp(b->data, p, n) != 0)
        __builtin_trap();
}

static void try_windows(const void *p, size_t n)
{
    struct windows m;
    fst_buf b = {0};
    if (!fst__windows_read(&m, p, n))
        return;
    if (m.count > fst__windows_most(&m))
        __builtin_trap();
    fst_status st = fst__windows_head(&m, &b, NULL);
    if (!st)
        st = fst_buf_append(&b, m.data, (size_t)m.count * m.bytes, NULL);
    same(st, &b, p, n);
    fst_buf_release(&b);
}

/* Bytes that mean nothing are written as 0, so what was written is what is compared. */
static void try_answers(const void *p, size_t n)
{
    struct answers m, again;
    fst_buf b = {0}, c = {0};
    if (!fst__answers_read(&m, p, n))
        return;
    fst_status st = fst__answers_head(&m, &b, NULL);
    for (uint32_t i = 0; !st && i < m.count; i++) {
        const struct stream_answer a = fst__answers_at(&m, i);
        st = fst__answer_write(&a, &b, NULL);
    }
    if (st || !fst__answers_read(&again, b.data, b.len))
        __builtin_trap();
    st = fst__answers_head(&again, &c, NULL);
    for (uint32_t i = 0; !st && i < again.count; i++) {
        const struct stream_answer a = fst__answers_at(&again, i);
        st = fst__answer_write(&a, &c, NULL);
    }
    same(st, &c, b.data, b.len);
    fst_buf_release(&b);
    fst_buf_release(&c);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    if (size < 1)
        return 0;
    if (data[0] % 2)
        try_answers(data + 1, size - 1);
    else
        try_windows(data + 1, size - 1);
    return 0;
}
