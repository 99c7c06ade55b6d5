/* Bytes as a file of parameters. What is accepted must survive being written and read again, and a generator made of
 * it must give finite numbers. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fedstill/synth.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void must(bool fine)
{
    if (!fine)
        abort();
}

static void there_and_back(const fst_synth_params *p, fst_synth_kind kind)
{
    fst_synth_params q;
    fst_buf a = {0}, b = {0};
    fst_synth_params_default(&q, kind);
    must(!fst_synth_params_json(p, kind, &a, NULL));
    must(!fst_synth_params_parse(&q, kind, "again", a.data, a.len, NULL));
    must(!fst_synth_params_json(&q, kind, &b, NULL));
    must(a.len == b.len && !memcmp(a.data, b.data, a.len));
    fst_buf_release(&a);
    fst_buf_release(&b);
}

static void one_window(const fst_synth_params *p, fst_synth_kind kind)
{
    fst_synth_spec spec = {.kind = kind, .params = *p, .seed = 1, .snr_min = 0, .snr_max = 10};
    fst_synth *g = NULL;
    spec.params.burst.window = p->burst.window % 512 + 64;
    must(!fst_synth_new(&g, &spec, NULL));
    size_t n = 2 * (size_t)spec.params.burst.window;
    float *x = malloc(n * sizeof *x);
    must(x != NULL);
    must(!fst_synth_fill(g, NULL, 3, 1, x, NULL, NULL, NULL, NULL));
    for (size_t i = 0; i < n; i++)
        must(isfinite(x[i]));
    free(x);
    fst_synth_free(g);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    for (int k = 0; k < 2; k++) {
        fst_synth_kind kind = k ? FST_SYNTH_MODULATION : FST_SYNTH_LINK11;
        fst_synth_params p;
        fst_synth_params_default(&p, kind);
        if (fst_synth_params_parse(&p, kind, "fuzz", (const char *)data, size, NULL))
            continue;
        there_and_back(&p, kind);
        one_window(&p, kind);
    }
    return 0;
}
