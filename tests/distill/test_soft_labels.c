/* Soft labels: what the teacher said comes back for each sample, and for no other teacher, data or use. */
#define _GNU_SOURCE
#include <unistd.h>

#include "fedstill/distill.h"
#include "fedstill/models.h"
#include "nn/support.h"

enum { N = 40, PIXELS = 16, K = 5, TWIN = 3, OTHER_TWIN = 17 };

static char folder[] = "/tmp/fedstill-soft-XXXXXX";
static char path[128];

/* A teacher, its data, and what it says of each sample. */
static struct world {
    float x[N * PIXELS], logits[N * K];
    int32_t labels[N];
    fst_source *source;
    fst_graph *graph;
    fst_state state;
    fst_runner *teacher;
} w;

static int set_up(void **state)
{
    const fst_model_config c = {.classes = K, .input = FST_SHAPE(1, 4, 4)};
    const fst_trainer_options o = {.batch_size = 16, .threads = 2, .shard_size = 4};
    const fst_shape shape = FST_SHAPE(1, 4, 4);
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/soft.safetensors", folder);
    fill_normal(w.x, N * PIXELS, 1, "test.x", 1);
    memcpy(w.x + OTHER_TWIN * PIXELS, w.x + TWIN * PIXELS, PIXELS * sizeof *w.x);
    fill_labels(w.labels, N, K, 2);
    w.labels[OTHER_TWIN] = (w.labels[TWIN] + 1) % K;
    assert_ok(fst_source_from_memory(&w.source, "digits", FST_F32, &shape, N, w.x, w.labels, K, err));
    assert_ok(fst_model_graph(&w.graph, "logistic_regression", &c, err));
    assert_ok(fst_state_init(&w.state, w.graph, err));
    fill_normal(w.state.params, w.state.param_count, 3, "test.teacher", 2);
    assert_ok(fst_runner_new(&w.teacher, w.graph, &o, err));
    assert_ok(fst_runner_logits(w.teacher, &w.state, w.x, N, w.logits, err));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    fst_runner_free(w.teacher);
    fst_state_release(&w.state);
    fst_graph_free(w.graph);
    fst_source_close(w.source);
    (void)unlink(path);
    return rmdir(folder);
}

static fst_soft_make how(void)
{
    return (fst_soft_make){.source = w.source, .teacher = w.teacher, .teacher_state = &w.state, .classes = K};
}

static fst_soft_spec spec_of(fst_soft_content content, fst_soft_encoding encoding, int k)
{
    fst_soft_spec s = {.content = content, .temperature = 4, .encoding = encoding, .top_k = k};
    memset(s.teacher_digest, 'a', FST_DIGEST_HEX - 1);
    return s;
}

static void make(fst_soft_labels *s, fst_soft_content content, fst_soft_encoding encoding, int k)
{
    fst_soft_spec spec = spec_of(content, encoding, k);
    fst_soft_make h = how();
    assert_ok(fst_soft_labels_make(s, &spec, &h, err));
}

/* What the teacher says of sample i, by the definition. */
static void truth(size_t i, bool probabilities, double *out)
{
    const float *z = w.logits + i * K;
    double sum = 0;
    for (int j = 0; j < K; j++)
        sum += exp((double)z[j] / 4);
    for (int j = 0; j < K; j++)
        out[j] = probabilities ? exp((double)z[j] / 4) / sum : (double)z[j];
}

static void check_row(const fst_soft_labels *s, size_t sample, uint32_t row, double relative)
{
    double want[K];
    float got[K];
    truth(sample, s->spec.content == FST_SOFT_PROBABILITIES, want);
    fst_soft_labels_row(s, row, got);
    for (int j = 0; j < K; j++)
        if (!(fabs((double)got[j] - want[j]) <= relative * fabs(want[j]) + 1e-6))
            fail_msg("%s, sample %zu: [%d] is %g, not %g", fst_soft_encoding_name(s->spec.encoding), sample, j,
                     (double)got[j], want[j]);
}

static void check_all(const fst_soft_labels *s, double relative)
{
    uint32_t rows[N];
    assert_int_equal(s->samples, N - 1);
    assert_int_equal(s->classes, K);
    assert_ok(fst_soft_labels_bind(s, &s->spec, w.source, NULL, 0, rows, err));
    assert_int_equal(rows[TWIN], rows[OTHER_TWIN]);
    for (size_t i = 0; i < N; i++) {
        assert_true(rows[i] < s->samples);
        for (size_t k = 0; k < i; k++)
            assert_true(rows[k] != rows[i] || (k == TWIN && i == OTHER_TWIN));
        check_row(s, i, rows[i], relative);
    }
}

/* ---- making and keeping --------------------------------------------------------------------------------- */

static void same_labels(const fst_soft_labels *a, const fst_soft_labels *b)
{
    float x[K], y[K];
    assert_int_equal(a->samples, b->samples);
    assert_memory_equal(a->keys, b->keys, a->samples * sizeof *a->keys);
    for (uint32_t i = 0; i < a->samples; i++) {
        fst_soft_labels_row(a, i, x);
        fst_soft_labels_row(b, i, y);
        assert_memory_equal(x, y, sizeof x);
    }
    assert_int_equal(a->spec.content, b->spec.content);
    assert_int_equal(a->spec.encoding, b->spec.encoding);
    assert_true(a->spec.temperature == b->spec.temperature);
    assert_string_equal(a->spec.teacher_digest, b->spec.teacher_digest);
    assert_string_equal(a->spec.data_digest, b->spec.data_digest);
}

static void all_encodings_come_back(void **state)
{
    static const struct {
        fst_soft_content content;
        fst_soft_encoding encoding;
        double relative;
    } cases[] = {{FST_SOFT_PROBABILITIES, FST_SOFT_F32, 1e-5},
                 {FST_SOFT_LOGITS, FST_SOFT_F32, 1e-5},
                 {FST_SOFT_PROBABILITIES, FST_SOFT_F16, 1.0 / 2048},
                 {FST_SOFT_LOGITS, FST_SOFT_F16, 1.0 / 2048},
                 {FST_SOFT_PROBABILITIES, FST_SOFT_TOP_K, 2.0 / 2048}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fst_soft_labels s = {0}, r = {0};
        char digest[FST_DIGEST_HEX], again[FST_DIGEST_HEX];
        make(&s, cases[i].content, cases[i].encoding, cases[i].encoding == FST_SOFT_TOP_K ? K : 0);
        assert_string_equal(s.spec.data_digest, w.source->digest);
        check_all(&s, cases[i].relative + 1e-6);
        assert_ok(fst_soft_labels_write(&s, path, digest, err));
        assert_ok(fst_sha256_file(path, again, err));
        assert_string_equal(digest, again);
        assert_ok(fst_soft_labels_read(&r, path, err));
        same_labels(&s, &r);
        check_all(&r, cases[i].relative + 1e-6);
        fst_soft_labels_release(&r);
        fst_soft_labels_release(&s);
    }
}

/* The k largest stay, the rest of the mass goes evenly to the others, and nothing is lost. */
static void tails_keep_their_mass(void **state)
{
    (void)state;
    for (int k = 1; k <= K; k++) {
        fst_soft_labels s = {0};
        uint32_t rows[N];
        make(&s, FST_SOFT_PROBABILITIES, FST_SOFT_TOP_K, k);
        assert_ok(fst_soft_labels_bind(&s, &s.spec, w.source, NULL, 0, rows, err));
        for (size_t i = 0; i < N; i++) {
            double want[K], sum = 0, rest = 1;
            float got[K];
            truth(i, true, want);
            fst_soft_labels_row(&s, rows[i], got);
            int above[K] = {0}; /* how many are larger */
            for (int j = 0; j < K; j++) {
                sum += (double)got[j];
                for (int m = 0; m < K; m++)
                    above[j] += want[m] > want[j];
                if (above[j] < k)
                    rest -= want[j];
            }
            assert_true(fabs(sum - 1) < 1e-6);
            for (int j = 0; j < K; j++)
                assert_true(fabs((double)got[j] - (above[j] < k ? want[j] : rest / (K - k))) < 1e-3);
        }
        fst_soft_labels_release(&s);
    }
}

static size_t reported, reported_total;

static void progress(void *ctx, size_t done, size_t total)
{
    assert_ptr_equal(ctx, &w);
    assert_true(done > reported && done <= total);
    reported = done;
    reported_total = total;
}

static void subsets(void **state)
{
    static const uint32_t subset[] = {30, TWIN, 5, OTHER_TWIN, 30}, reach[] = {5, OTHER_TWIN}, beyond[] = {5, 6};
    static const uint32_t wrong[] = {3, N};
    (void)state;
    fst_soft_labels s = {0};
    fst_soft_spec spec = spec_of(FST_SOFT_PROBABILITIES, FST_SOFT_F32, 0);
    fst_soft_make h = how();
    uint32_t rows[N];
    h.subset = subset;
    h.subset_count = 5;
    h.progress = progress;
    h.ctx = &w;
    assert_ok(fst_soft_labels_make(&s, &spec, &h, err));
    assert_int_equal(reported, 3);
    assert_int_equal(reported_total, 3);
    assert_int_equal(s.samples, 3);
    assert_ok(fst_soft_labels_bind(&s, &spec, w.source, reach, 2, rows, err));
    for (uint32_t i = 0; i < N; i++)
        assert_true((rows[i] != FST_SOFT_NONE) == (i == 5 || i == OTHER_TWIN));
    check_row(&s, TWIN, rows[OTHER_TWIN], 1e-5);
    check_row(&s, 5, rows[5], 1e-5);
    assert_fails(fst_soft_labels_bind(&s, &spec, w.source, beyond, 2, rows, err), FST_E_MISMATCH,
                 "sample 6 of digits has no soft label");
    assert_fails(fst_soft_labels_bind(&s, &spec, w.source, wrong, 2, rows, err), FST_E_ARGUMENT, "no sample 40");
    fst_soft_labels t = {0};
    h.subset = wrong;
    h.subset_count = 2;
    assert_fails(fst_soft_labels_make(&t, &spec, &h, err), FST_E_ARGUMENT, "no sample 40");
    h.subset_count = 0;
    assert_fails(fst_soft_labels_make(&t, &spec, &h, err), FST_E_ARGUMENT, "no samples");
    assert_null(t.keys);
    fst_soft_labels_release(&s);
}

/* ---- who may use them ------------------------------------------------------------------------------------- */

static void others_are_refused(void **state)
{
    (void)state;
    fst_soft_labels s = {0};
    uint32_t rows[N];
    make(&s, FST_SOFT_PROBABILITIES, FST_SOFT_F16, 0);
    fst_soft_spec e = s.spec;
    e.temperature = 3;
    assert_fails(fst_soft_labels_bind(&s, &e, w.source, NULL, 0, rows, err), FST_E_MISMATCH,
                 "made at temperature 4, the student is to learn at 3");
    e = s.spec;
    e.teacher_digest[0] = 'b';
    assert_fails(fst_soft_labels_bind(&s, &e, w.source, NULL, 0, rows, err), FST_E_MISMATCH, "another teacher's");
    e.teacher_digest[0] = 0; /* not compared */
    assert_ok(fst_soft_labels_bind(&s, &e, w.source, NULL, 0, rows, err));
    e = s.spec;
    e.content = FST_SOFT_LOGITS;
    assert_fails(fst_soft_labels_bind(&s, &e, w.source, NULL, 0, rows, err), FST_E_MISMATCH,
                 "hold probabilities, this loss needs logits");
    fst_soft_labels_release(&s);
    make(&s, FST_SOFT_LOGITS, FST_SOFT_F32, 0);
    e = s.spec;
    e.temperature = 1; /* logits have none */
    assert_ok(fst_soft_labels_bind(&s, &e, w.source, NULL, 0, rows, err));
    e.content = FST_SOFT_PROBABILITIES;
    assert_fails(fst_soft_labels_bind(&s, &e, w.source, NULL, 0, rows, err), FST_E_MISMATCH,
                 "hold logits, this loss needs probabilities");
    fst_soft_labels_release(&s);
}

/* Another order is other data, and says so; but rows are found by what a sample is, not where it stands. */
static void order_does_not_matter(void **state)
{
    (void)state;
    fst_soft_labels s = {0};
    fst_source *shuffled = NULL;
    uint32_t order[N], rows[N];
    float x[N * PIXELS];
    int32_t labels[N];
    fst_rng r;
    const fst_shape shape = FST_SHAPE(1, 4, 4);
    for (uint32_t i = 0; i < N; i++)
        order[i] = i;
    fst_rng_init(&r, 5, "test.order", 0);
    fst_rng_shuffle_u32(&r, order, N);
    for (size_t i = 0; i < N; i++) {
        memcpy(x + i * PIXELS, w.x + order[i] * PIXELS, PIXELS * sizeof *x);
        labels[i] = w.labels[order[i]];
    }
    assert_ok(fst_source_from_memory(&shuffled, "shuffled", FST_F32, &shape, N, x, labels, K, err));
    make(&s, FST_SOFT_PROBABILITIES, FST_SOFT_F32, 0);
    assert_fails(fst_soft_labels_bind(&s, &s.spec, shuffled, NULL, 0, rows, err), FST_E_MISMATCH,
                 "made for other data");
    memcpy(s.spec.data_digest, shuffled->digest, sizeof s.spec.data_digest);
    assert_ok(fst_soft_labels_bind(&s, &s.spec, shuffled, NULL, 0, rows, err));
    for (size_t i = 0; i < N; i++)
        check_row(&s, order[i], rows[i], 1e-5);
    x[9 * PIXELS + 1] += 1e-3f; /* one value of one sample */
    assert_fails(fst_soft_labels_bind(&s, &s.spec, shuffled, NULL, 0, rows, err), FST_E_MISMATCH,
                 "sample 9 of shuffled has no soft label");
    fst_source_close(shuffled);
    fst_soft_labels_release(&s);
}

static void wrong_makings_are_refused(void **state)
{
    (void)state;
    fst_soft_labels s = {0};
    fst_soft_make h = how();
    fst_soft_spec spec = spec_of(FST_SOFT_PROBABILITIES, FST_SOFT_F32, 0);
    spec.temperature = 0;
    assert_fails(fst_soft_labels_make(&s, &spec, &h, err), FST_E_CONFIG, "temperature");
    spec.temperature = NAN;
    assert_fails(fst_soft_labels_make(&s, &spec, &h, err), FST_E_CONFIG, "temperature");
    spec = spec_of(FST_SOFT_PROBABILITIES, FST_SOFT_TOP_K, K + 1);
    assert_fails(fst_soft_labels_make(&s, &spec, &h, err), FST_E_CONFIG, "top_k must be 1 to 5");
    spec.top_k = 0;
    assert_fails(fst_soft_labels_make(&s, &spec, &h, err), FST_E_CONFIG, "top_k");
    spec = spec_of(FST_SOFT_LOGITS, FST_SOFT_TOP_K, 2);
    assert_fails(fst_soft_labels_make(&s, &spec, &h, err), FST_E_CONFIG, "use f16");
    spec = spec_of(FST_SOFT_PROBABILITIES, FST_SOFT_F32, 0);
    h.classes = K - 1;
    assert_fails(fst_soft_labels_make(&s, &spec, &h, err), FST_E_MISMATCH, "has 5 classes, not 4");
    h = how();
    const fst_shape flat = FST_SHAPE(PIXELS);
    fst_source *other = NULL;
    assert_ok(fst_source_from_memory(&other, "flat", FST_F32, &flat, N, w.x, w.labels, K, err));
    h.source = other;
    assert_fails(fst_soft_labels_make(&s, &spec, &h, err), FST_E_MISMATCH, "takes (1, 4, 4)");
    fst_source_close(other);
    h = how();
    float was = w.state.params[0];
    w.state.params[0] = NAN;
    assert_fails(fst_soft_labels_make(&s, &spec, &h, err), FST_E_NUMERIC, "not finite");
    w.state.params[0] = was;
    assert_null(s.keys);
}

/* A loader fills in each batch's own soft targets. */
static void loaders_fetch_them(void **state)
{
    (void)state;
    fst_soft_labels s = {0};
    uint32_t rows[N];
    fst_loader *l = NULL;
    fst_batch b;
    size_t seen = 0;
    make(&s, FST_SOFT_PROBABILITIES, FST_SOFT_F32, 0);
    assert_ok(fst_soft_labels_bind(&s, &s.spec, w.source, NULL, 0, rows, err));
    fst_soft_binding binding = {&s, rows};
    fst_loader_spec ls = {.source = w.source,
                          .batch_size = 7,
                          .shuffle = true,
                          .seed = 3,
                          .background = true,
                          .soft = fst_soft_fetch,
                          .soft_ctx = &binding,
                          .soft_width = K};
    assert_ok(fst_loader_new(&l, &ls, err));
    assert_ok(fst_loader_start(l, 0, 0, err));
    for (;;) {
        assert_ok(fst_loader_next(l, &b, err));
        if (!b.rows)
            break;
        for (size_t r = 0; r < b.rows; r++, seen++) {
            double want[K];
            truth(b.index[r], true, want);
            for (int j = 0; j < K; j++)
                assert_true(fabs((double)b.soft[r * K + (size_t)j] - want[j]) < 1e-5);
        }
    }
    assert_int_equal(seen, N);
    fst_loader_free(l);
    rows[11] = FST_SOFT_NONE;
    const uint32_t index[] = {10, 11};
    float soft[2 * K];
    assert_fails(fst_soft_fetch(&binding, index, 2, soft, err), FST_E_MISMATCH, "sample 11");
    fst_soft_labels_release(&s);
}

/* ---- files that are wrong ----------------------------------------------------------------------------------- */

enum { ROWS = 3, WIDTH = 2 };

struct file { /* a small good file of each encoding, to be changed */
    fst_pair meta[8];
    fst_tensor t[3];
    size_t nt;
    uint64_t key[2 * ROWS];
    float f32[ROWS * K];
    uint16_t f16[ROWS * WIDTH], top[ROWS * WIDTH];
};

static void good_file(struct file *f, bool top_k)
{
    *f = (struct file){.meta = {{"format", "fedstill-soft-labels-1"},
                                {"content", "probabilities"},
                                {"encoding", top_k ? "top_k" : "f32"},
                                {"temperature", "4"},
                                {"classes", "5"},
                                {"top_k", top_k ? "2" : "0"},
                                {"teacher_digest", "aa"},
                                {"data_digest", "bb"}},
                       .key = {1, 1, 0, 2, 7, 2},
                       .top = {0, 4, 2, 1, 3, 0}};
    for (int i = 0; i < ROWS * K; i++)
        f->f32[i] = 0.2f;
    for (int i = 0; i < ROWS * WIDTH; i++)
        f->f16[i] = fst_f16_from_f32(0.25f);
    f->t[f->nt++] = (fst_tensor){"key", FST_U64, FST_SHAPE(ROWS, 2), f->key};
    if (top_k) {
        f->t[f->nt++] = (fst_tensor){"value", FST_F16, FST_SHAPE(ROWS, WIDTH), f->f16};
        f->t[f->nt++] = (fst_tensor){"class", FST_U16, FST_SHAPE(ROWS, WIDTH), f->top};
    } else {
        f->t[f->nt++] = (fst_tensor){"value", FST_F32, FST_SHAPE(ROWS, K), f->f32};
    }
}

static void refused(const struct file *f, const char *text)
{
    fst_soft_labels s, was;
    memset(&s, 0x5a, sizeof s);
    memcpy(&was, &s, sizeof s);
    assert_ok(fst_safetensors_write(path, f->meta, 8, f->t, f->nt, NULL, err));
    assert_fails(fst_soft_labels_read(&s, path, err), FST_E_FORMAT, text);
    assert_fails(fst_soft_labels_read(&s, path, err), FST_E_FORMAT, path);
    assert_memory_equal(&s, &was, sizeof s);
}

static void metadata_is_checked(void **state)
{
    static const struct {
        int key;
        const char *value, *text;
    } cases[] = {{0, "fedstill-model-1", "\"fedstill-soft-labels-1\" is needed"},
                 {1, "opinions", "cannot have"},
                 {2, "f64", "cannot have"},
                 {3, "", "cannot have"},
                 {3, "4 degrees", "cannot have"},
                 {3, "-4", "temperature"},
                 {3, "nan", "temperature"},
                 {3, "inf", "temperature"},
                 {4, "0", "cannot have"},
                 {4, "-5", "cannot have"},
                 {4, "1000000000", "cannot have"},
                 {4, "6", "row of 6"},
                 {4, "65536", "row of 65536"},
                 {5, "99999999", "cannot have"},
                 {6, "0123456789012345678901234567890123456789012345678901234567890123456", "cannot have"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct file f;
        good_file(&f, false);
        f.meta[cases[i].key].value = cases[i].value;
        refused(&f, cases[i].text);
    }
    struct file f;
    for (int i = 0; i < 8; i++) {
        char text[64];
        good_file(&f, false);
        snprintf(text, sizeof text, "no \"%s\"", f.meta[i].key);
        f.meta[i].key = "something";
        refused(&f, text);
    }
    good_file(&f, true);
    f.meta[5].value = "6";
    refused(&f, "top_k must be 1 to 5");
    f.meta[5].value = "0";
    refused(&f, "top_k");
    good_file(&f, true);
    f.meta[1].value = "logits";
    refused(&f, "top_k");
}

static void contents_are_checked(void **state)
{
    (void)state;
    struct file f;
    fst_soft_labels s = {0};
    for (int top = 0; top < 2; top++) {
        good_file(&f, top);
        assert_ok(fst_safetensors_write(path, f.meta, 8, f.t, f.nt, NULL, err));
        assert_ok(fst_soft_labels_read(&s, path, err));
        assert_int_equal(s.samples, ROWS);
        fst_soft_labels_release(&s);
        good_file(&f, top);
        f.key[1] = 3; /* not rising */
        refused(&f, "rising order");
        good_file(&f, top);
        memcpy(f.key + 2, f.key, 2 * sizeof *f.key); /* twice the same */
        refused(&f, "rising order");
        good_file(&f, top);
        f.t[0].shape = FST_SHAPE(2 * ROWS);
        refused(&f, "(samples, 2)");
        good_file(&f, top);
        f.t[0].dtype = FST_I64;
        refused(&f, "\"key\" is I64");
        good_file(&f, top);
        f.t[0].name = "keys";
        refused(&f, "no tensor \"key\"");
        good_file(&f, top);
        f.t[1].name = "values";
        refused(&f, "does not have a row");
        good_file(&f, top);
        f.t[1].shape = FST_SHAPE(ROWS, 0);
        refused(&f, "does not have a row");
        good_file(&f, top);
        f.t[1].shape = FST_SHAPE(ROWS - 1, top ? WIDTH : K);
        refused(&f, "does not have a row");
        good_file(&f, top);
        f.t[1].dtype = top ? FST_BF16 : FST_I32;
        refused(&f, top ? "is BF16" : "is I32");
    }
    static const float wrong[] = {NAN, INFINITY, -0.1f, 1.5f};
    for (size_t i = 0; i < 4; i++) {
        good_file(&f, false);
        f.f32[ROWS * K - 1] = wrong[i];
        refused(&f, "sample 2 holds");
        good_file(&f, true);
        f.f16[1] = fst_f16_from_f32(wrong[i]);
        refused(&f, "sample 0 holds");
    }
    good_file(&f, true);
    f.top[3] = K;
    refused(&f, "class 5 of 5");
    good_file(&f, true);
    f.top[3] = f.top[2];
    refused(&f, "sample 1 names class 2 twice");
    good_file(&f, true);
    f.nt = 2;
    refused(&f, "no tensor \"class\"");
    good_file(&f, true);
    f.t[2].shape = FST_SHAPE(ROWS * WIDTH);
    refused(&f, "\"class\" is");
}

static void every_prefix_is_refused(void **state)
{
    (void)state;
    for (int top = 0; top < 2; top++) {
        struct file f;
        fst_buf b = {0};
        fst_soft_labels s = {0};
        good_file(&f, top);
        assert_ok(fst_safetensors_write(path, f.meta, 8, f.t, f.nt, NULL, err));
        assert_ok(fst_file_read(path, 1 << 20, &b, err));
        for (size_t n = 0; n < b.len; n++) {
            char *copy = malloc(n ? n : 1);
            assert_non_null(copy);
            memcpy(copy, b.data, n);
            if (fst_soft_labels_parse(&s, "prefix", copy, n, NULL) == FST_OK)
                fail_msg("%zu of %zu bytes are read as a whole file", n, b.len);
            assert_null(s.keys);
            free(copy);
        }
        assert_ok(fst_soft_labels_parse(&s, "whole", b.data, b.len, err));
        fst_soft_labels_release(&s);
        fst_buf_release(&b);
    }
}

static void any_allocation_may_fail(void **state)
{
    (void)state;
    for (uint64_t n = 1;; n++) {
        fst_soft_labels s = {0}, r = {0};
        fst_soft_spec spec = spec_of(FST_SOFT_PROBABILITIES, FST_SOFT_TOP_K, 2);
        fst_soft_make h = how();
        assert_true(n < 500);
        (void)unlink(path);
        fst_alloc_fail_at(n);
        fst_status st = fst_soft_labels_make(&s, &spec, &h, NULL);
        if (!st)
            st = fst_soft_labels_write(&s, path, NULL, NULL);
        if (!st)
            st = fst_soft_labels_read(&r, path, NULL);
        fst_alloc_fail_at(0);
        fst_soft_labels_release(&s);
        fst_soft_labels_release(&r);
        if (!st)
            break;
        assert_int_equal(st, FST_E_MEMORY);
    }
}

/* Two teachers and three: what is kept of a sample is the target of their logits. */
static void several_teachers_make_one_target(void **state)
{
    fst_state other[2] = {{0}};
    float logits[3][N * K], target[N * K], row[K];
    const float *all[3] = {w.logits, logits[1], logits[2]};
    fst_soft_teacher more[2];
    (void)state;
    for (int k = 0; k < 2; k++) {
        assert_ok(fst_state_init(&other[k], w.graph, err));
        fill_normal(other[k].params, other[k].param_count, 30 + (uint64_t)k, "test.teacher", 2);
        more[k] = (fst_soft_teacher){.runner = w.teacher, .state = &other[k]};
        assert_ok(fst_runner_logits(w.teacher, &other[k], w.x, N, logits[1 + k], err));
    }
    for (int e = FST_ENSEMBLE_MEAN_PROBABILITIES; e <= FST_ENSEMBLE_CONFIDENCE; e++)
        for (size_t count = 2; count <= 3; count++) {
            fst_soft_labels s = {0};
            fst_soft_spec spec = spec_of(FST_SOFT_PROBABILITIES, FST_SOFT_F32, 0);
            fst_soft_make h = how();
            uint32_t rows[N];
            fst_teachers t = {all, count, N, K, w.labels};
            h.more = more;
            h.more_count = count - 1;
            h.weights = (fst_ensemble)e;
            assert_ok(fst_soft_labels_make(&s, &spec, &h, err));
            assert_ok(fst_soft_labels_bind(&s, &spec, w.source, NULL, 0, rows, err));
            assert_ok(fst_teachers_target((fst_ensemble)e, &t, 4, target, NULL, err));
            for (size_t i = 0; i < N; i++) {
                fst_soft_labels_row(&s, rows[i], row);
                if (i != OTHER_TWIN) /* has a label of its own, but the row of the first */
                    assert_true(distance(row, target + i * K, K) < 1e-6);
            }
            fst_soft_labels_release(&s);
        }
    for (int k = 0; k < 2; k++)
        fst_state_release(&other[k]);
}

/* Of logits only the mean is one. */
static void several_teachers_have_mean_logits(void **state)
{
    fst_soft_labels s = {0};
    fst_soft_spec spec = spec_of(FST_SOFT_LOGITS, FST_SOFT_F32, 0);
    fst_soft_teacher same = {.runner = w.teacher, .state = &w.state};
    fst_soft_make h = how();
    (void)state;
    h.more = &same;
    h.more_count = 1;
    assert_fails(fst_soft_labels_make(&s, &spec, &h, err), FST_E_CONFIG, "are their mean");
    h.weights = FST_ENSEMBLE_MEAN_LOGITS;
    assert_ok(fst_soft_labels_make(&s, &spec, &h, err));
    check_all(&s, 1e-5);
    fst_soft_labels_release(&s);
    h.more_count = FST_MAX_TEACHERS;
    assert_fails(fst_soft_labels_make(&s, &spec, &h, err), FST_E_LIMIT, "16 at most");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_encodings_come_back),
        cmocka_unit_test(tails_keep_their_mass),
        cmocka_unit_test(subsets),
        cmocka_unit_test(others_are_refused),
        cmocka_unit_test(order_does_not_matter),
        cmocka_unit_test(wrong_makings_are_refused),
        cmocka_unit_test(loaders_fetch_them),
        cmocka_unit_test(metadata_is_checked),
        cmocka_unit_test(contents_are_checked),
        cmocka_unit_test(every_prefix_is_refused),
        cmocka_unit_test(any_allocation_may_fail),
        cmocka_unit_test(several_teachers_make_one_target),
        cmocka_unit_test(several_teachers_have_mean_logits),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
