/* Control messages of a fleet, of every kind (the first byte says which), and the heads of a site's files. */
#include <string.h>

#include "lines.h"
#include "wire.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void expect_again(fst_status written, fst_status read)
{
    if (written || read)
        __builtin_trap();
}

static void try_hello(const void *p, size_t n)
{
    struct hello h, again;
    fst_buf b = {0};
    if (fst__read_hello(&h, p, n, NULL))
        return;
    fst_status st = fst__write_hello(&h, &b, NULL);
    expect_again(st, fst__read_hello(&again, b.data, b.len, NULL));
    fst__hello_release(&again);
    fst__hello_release(&h);
    fst_buf_release(&b);
}

static void try_line(const void *p, size_t n)
{
    struct line_of_file l, again;
    fst_buf b = {0};
    size_t at = 0;
    if (fst__line_read(&l, p, n, &at, NULL))
        return;
    if (at > n)
        __builtin_trap();
    fst_status st = fst__line_write(&l, &b, NULL);
    expect_again(st, fst__line_read(&again, b.data, b.len, &at, NULL));
    fst_buf_release(&b);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct beat beat;
    struct welcome welcome;
    struct refusal refusal;
    struct order order;
    struct result result;
    struct cannot cannot;
    struct receipt receipt;
    struct figures figures;
    fst_buf b = {0};
    if (size < 1)
        return 0;
    const void *p = data + 1;
    size_t n = size - 1;
    switch (data[0] % 10) {
    case 0:
        try_hello(p, n);
        break;
    case 1:
        if (!fst__read_beat(&beat, p, n, NULL))
            expect_again(fst__write_beat(&beat, &b, NULL), FST_OK);
        break;
    case 2:
        (void)!fst__read_welcome(&welcome, p, n, NULL);
        break;
    case 3:
        (void)!fst__read_refusal(&refusal, p, n, NULL);
        break;
    case 4:
        if (!fst__read_order(&order, 0, p, n, NULL))
            expect_again(fst__write_order(&order, &b, NULL), FST_OK);
        break;
    case 5:
        if (!fst__read_result(&result, 0, p, n, NULL))
            expect_again(fst__write_result(&result, &b, NULL), FST_OK);
        break;
    case 6:
        (void)!fst__read_cannot(&cannot, p, n, NULL);
        break;
    case 7:
        (void)!fst__read_receipt(&receipt, p, n, NULL);
        break;
    case 8:
        if (!fst__read_figures(&figures, p, n, NULL))
            expect_again(fst__write_figures(&figures, &b, NULL), FST_OK);
        break;
    default:
        try_line(p, n);
        break;
    }
    fst_buf_release(&b);
    return 0;
}
