/* Partitions: every sample to one client, the shape that each kind promises, and files that lie. */
#define _GNU_SOURCE
#include <math.h>

#include "files.h"
#include "partition.h"

enum { N = 2000, CLASSES = 10 };

static unsigned char pixels[N];
static int32_t labels[N];
static fst_source *source;

static int set_up(void **state)
{
    for (int i = 0; i < N; i++) {
        pixels[i] = (unsigned char)i;
        labels[i] = (i * 7 + i / 13) % CLASSES;
    }
    if (fst_source_from_memory(&source, "samples", FST_U8, &FST_SHAPE(1), N, pixels, labels, CLASSES, NULL))
        return -1;
    return make_work_folder(state);
}

static int tear_down(void **state)
{
    fst_source_close(source);
    return remove_work_folder(state);
}

static void make(fst_partition *p, fst_partition_spec spec)
{
    assert_ok(fst_partition_make(p, source, &spec, err));
}

/* What every partition owes, whatever its kind. */
static void check(const fst_partition *p, int clients, size_t least)
{
    int owners[N] = {0};
    assert_int_equal(p->clients, clients);
    assert_int_equal(p->classes, CLASSES);
    assert_int_equal(p->samples, N);
    assert_int_equal(p->begin[0], 0);
    assert_int_equal(p->begin[clients], N);
    for (int k = 0; k < clients; k++) {
        int64_t counts[CLASSES] = {0};
        assert_true(p->begin[k + 1] >= p->begin[k] + least);
        for (size_t i = p->begin[k]; i < p->begin[k + 1]; i++) {
            assert_true(p->index[i] < N);
            assert_true(i == p->begin[k] || p->index[i] > p->index[i - 1]);
            owners[p->index[i]]++;
            counts[labels[p->index[i]]]++;
        }
        assert_memory_equal(counts, p->counts + k * CLASSES, sizeof counts);
    }
    for (int i = 0; i < N; i++)
        assert_int_equal(owners[i], 1);
    assert_string_equal(p->data_digest, source->digest);
}

static size_t size_of(const fst_partition *p, int k)
{
    return p->begin[k + 1] - p->begin[k];
}

static void all_kinds_cover_all_samples(void **state)
{
    (void)state;
    for (int kind = 0; kind < 4; kind++)
        for (int clients = 1; clients <= 40; clients += 13)
            for (uint64_t seed = 0; seed < 4; seed++) {
                fst_partition p = {0};
                make(&p, (fst_partition_spec){.kind = (fst_partition_kind)kind,
                                              .clients = clients,
                                              .alpha = 0.1,
                                              .classes_per_client = 3,
                                              .seed = seed});
                check(&p, clients, 1);
                assert_int_equal(p.seed, seed);
                fst_partition_release(&p);
            }
}

static bool same(const fst_partition *a, const fst_partition *b)
{
    return !memcmp(a->index, b->index, N * sizeof *a->index) &&
           !memcmp(a->begin, b->begin, ((size_t)a->clients + 1) * sizeof *a->begin);
}

static void seeds_decide(void **state)
{
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        fst_partition a = {0}, b = {0}, c = {0};
        fst_partition_spec spec = {
            .kind = (fst_partition_kind)kind, .clients = 10, .alpha = 0.5, .classes_per_client = 2, .seed = 1};
        make(&a, spec);
        make(&b, spec);
        spec.seed = 2;
        make(&c, spec);
        assert_true(same(&a, &b));
        assert_false(same(&a, &c));
        fst_partition_release(&a);
        fst_partition_release(&b);
        fst_partition_release(&c);
    }
}

static void iid_shares_are_equal(void **state)
{
    fst_partition p = {0};
    (void)state;
    make(&p, (fst_partition_spec){.kind = FST_PARTITION_IID, .clients = 7});
    assert_string_equal(p.method, "iid");
    for (int k = 0; k < 7; k++) {
        assert_in_range(size_of(&p, k), N / 7, N / 7 + 1);
        /* about 28 of each class */
        for (int c = 0; c < CLASSES; c++)
            assert_in_range(p.counts[k * CLASSES + c], 10, 50);
    }
    fst_partition_release(&p);
}

/* Mean over clients of the largest share that one class has of a client. */
static double concentration(double alpha)
{
    fst_partition p = {0};
    double sum = 0;
    make(&p, (fst_partition_spec){.kind = FST_PARTITION_DIRICHLET, .clients = 10, .alpha = alpha, .seed = 9});
    for (int k = 0; k < 10; k++) {
        int64_t most = 0;
        for (int c = 0; c < CLASSES; c++)
            most = p.counts[k * CLASSES + c] > most ? p.counts[k * CLASSES + c] : most;
        sum += (double)most / (double)size_of(&p, k);
    }
    fst_partition_release(&p);
    return sum / 10;
}

static void dirichlet_follows_alpha(void **state)
{
    fst_partition p = {0};
    double skewed = concentration(0.05), medium = concentration(0.5), flat = concentration(1000);
    (void)state;
    assert_true(skewed > 0.6);
    assert_true(medium < skewed && medium > flat);
    assert_true(flat < 0.16);
    make(&p, (fst_partition_spec){.kind = FST_PARTITION_DIRICHLET, .clients = 10, .alpha = 0.3, .seed = 9});
    assert_string_equal(p.method, "dirichlet(0.3)");
    for (int k = 1; k < 10; k++) /* no two clients have the same mixture */
        assert_memory_not_equal(p.counts + k * CLASSES, p.counts, CLASSES * sizeof *p.counts);
    fst_partition_release(&p);
}

static void shards_have_few_classes(void **state)
{
    fst_partition p = {0};
    (void)state;
    make(&p, (fst_partition_spec){.kind = FST_PARTITION_SHARDS, .clients = 20, .classes_per_client = 2, .seed = 5});
    assert_string_equal(p.method, "shards(2)");
    for (int k = 0; k < 20; k++) {
        int present = 0;
        for (int c = 0; c < CLASSES; c++)
            present += p.counts[k * CLASSES + c] > 0;
        /* a shard that lies across a border has two classes */
        assert_in_range(present, 1, 4);
        assert_int_equal(size_of(&p, k), N / 20);
    }
    fst_partition_release(&p);
}

static void quantity_differs_but_labels_do_not(void **state)
{
    fst_partition p = {0};
    size_t least = N, most = 0;
    (void)state;
    make(&p, (fst_partition_spec){.kind = FST_PARTITION_QUANTITY, .clients = 5, .alpha = 0.5, .seed = 2});
    assert_string_equal(p.method, "quantity(0.5)");
    for (int k = 0; k < 5; k++) {
        size_t n = size_of(&p, k);
        least = n < least ? n : least;
        most = n > most ? n : most;
        for (int c = 0; n > 300 && c < CLASSES; c++)
            assert_in_range(p.counts[k * CLASSES + c] * 1000 / (int64_t)n, 50, 150);
    }
    assert_true(most > 3 * least);
    fst_partition_release(&p);
}

/* With an alpha this small no draw leaves everybody enough: samples have to be moved. */
static void the_minimum_is_kept(void **state)
{
    static const fst_partition_kind kinds[] = {FST_PARTITION_DIRICHLET, FST_PARTITION_QUANTITY};
    (void)state;
    for (int i = 0; i < 2; i++)
        for (size_t least = 1; least <= 100; least += 33) {
            fst_partition p = {0};
            make(&p, (fst_partition_spec){.kind = kinds[i], .clients = 20, .alpha = 1e-6, .min_samples = least});
            check(&p, 20, least);
            fst_partition_release(&p);
        }
}

/* Only the samples of a subset are dealt, and the same ones whether or not they are named. */
static void a_subset_is_dealt(void **state)
{
    uint32_t all[N], odd[N / 2];
    (void)state;
    for (uint32_t i = 0; i < N; i++) {
        all[i] = i;
        odd[i / 2] = i | 1;
    }
    for (int kind = 0; kind < 4; kind++) {
        fst_partition a = {0}, b = {0};
        fst_partition_spec spec = {
            .kind = (fst_partition_kind)kind, .clients = 10, .alpha = 0.5, .classes_per_client = 2, .seed = 1};
        make(&a, spec);
        spec.subset = all;
        spec.subset_count = N;
        make(&b, spec);
        assert_true(same(&a, &b));
        fst_partition_release(&b);
        spec.subset = odd;
        spec.subset_count = N / 2;
        make(&b, spec);
        assert_int_equal(b.begin[10], N / 2);
        assert_int_equal(b.samples, N);
        for (size_t i = 0; i < N / 2; i++)
            assert_true(b.index[i] & 1);
        fst_partition_release(&a);
        fst_partition_release(&b);
    }
    fst_partition p = {0};
    const fst_partition_spec none = {.subset = all, .clients = 2};
    assert_fails(fst_partition_make(&p, source, &none, err), FST_E_ARGUMENT, "no samples");
}

/* The minimum counts samples where bursts are dealt, whatever their sizes. */
static void the_minimum_counts_samples_of_bursts(void **state)
{
    static int64_t even[N], uneven[N];
    (void)state;
    for (int i = 0, burst = 0, left = 1; i < N; i++, left--) {
        even[i] = i / 4;
        if (left == 0)
            left = 1 + ++burst * 7 % 13; /* 1 to 13 samples */
        uneven[i] = burst;
    }
    for (int kind = 0; kind < 4; kind++)
        for (int sizes = 0; sizes < 2; sizes++) {
            fst_partition p = {0};
            source->group = sizes ? uneven : even;
            fst_partition_spec spec = {.kind = (fst_partition_kind)kind,
                                       .clients = 20,
                                       .alpha = 0.1,
                                       .classes_per_client = 4,
                                       .min_samples = kind == FST_PARTITION_SHARDS ? 30 : 90,
                                       .seed = 3};
            make(&p, spec);
            check(&p, 20, spec.min_samples);
            fst_partition_release(&p);
            spec.min_samples = N / 20 + 1;
            assert_fails(fst_partition_make(&p, source, &spec, err), FST_E_CONFIG, "are too few to give each of");
        }
    source->group = even; /* 500 bursts: 3 each for 10 samples, and 4 for 13 */
    fst_partition p = {0};
    make(&p, (fst_partition_spec){.kind = FST_PARTITION_IID, .clients = 166, .min_samples = 10});
    check(&p, 166, 12);
    fst_partition_release(&p);
    const fst_partition_spec more = {.kind = FST_PARTITION_IID, .clients = 126, .min_samples = 13};
    assert_fails(fst_partition_make(&p, source, &more, err), FST_E_CONFIG, "2000 samples in 500 bursts are too few");
    source->group = NULL;
}

static void impossible_wishes_are_refused(void **state)
{
    static const struct {
        fst_partition_spec spec;
        const char *text;
    } cases[] = {
        {{.clients = 0}, "0 clients"},
        {{.clients = -3}, "-3 clients"},
        {{.clients = 2000000}, "2000000 clients"},
        {{.clients = N + 1}, "2000 samples are too few to give each of 2001 clients 1"},
        {{.clients = 10, .min_samples = 201}, "too few to give each of 10 clients 201"},
        {{.clients = 10, .min_samples = SIZE_MAX}, "too few"},
        {{.kind = FST_PARTITION_DIRICHLET, .clients = 10}, "alpha must be"},
        {{.kind = FST_PARTITION_DIRICHLET, .clients = 10, .alpha = -1}, "alpha must be"},
        {{.kind = FST_PARTITION_QUANTITY, .clients = 10, .alpha = INFINITY}, "alpha must be"},
        {{.kind = FST_PARTITION_QUANTITY, .clients = 10, .alpha = NAN}, "alpha must be"},
        {{.kind = FST_PARTITION_SHARDS, .clients = 10}, "classes_per_client must be"},
        {{.kind = FST_PARTITION_SHARDS, .clients = 10, .classes_per_client = CLASSES + 1}, "as many as there are, not"},
        {{.kind = FST_PARTITION_SHARDS, .clients = N / 3, .classes_per_client = 4}, "cannot be cut"},
        {{.kind = FST_PARTITION_SHARDS, .clients = 30, .classes_per_client = 1, .min_samples = 66}, NULL},
        {{.kind = FST_PARTITION_SHARDS, .clients = 300, .classes_per_client = 4, .min_samples = 6},
         "shards leave client"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fst_partition p = {.clients = 77};
        if (!cases[i].text) {
            assert_ok(fst_partition_make(&p, source, &cases[i].spec, err));
            fst_partition_release(&p);
            continue;
        }
        assert_fails(fst_partition_make(&p, source, &cases[i].spec, err), FST_E_CONFIG, cases[i].text);
        assert_int_equal(p.clients, 77);
    }
    fst_partition p = {0};
    assert_fails(
        fst_partition_make(&p, source, &(fst_partition_spec){.kind = (fst_partition_kind)9, .clients = 1}, err),
        FST_E_ARGUMENT, "unknown kind");
}

static void kinds_have_names(void **state)
{
    fst_partition_kind k;
    (void)state;
    for (int i = 0; i < 4; i++) {
        assert_true(fst_partition_kind_parse(fst_partition_kind_name((fst_partition_kind)i), &k));
        assert_int_equal(k, i);
    }
    assert_false(fst_partition_kind_parse("random", &k));
    assert_string_equal(fst_partition_kind_name((fst_partition_kind)17), "?");
}

/* ---- files ---------------------------------------------------------------------------------- */

static void files_come_back(void **state)
{
    fst_partition a = {0}, b = {0};
    char first[FST_DIGEST_HEX], second[FST_DIGEST_HEX];
    (void)state;
    make(&a, (fst_partition_spec){.kind = FST_PARTITION_DIRICHLET, .clients = 10, .alpha = 0.3, .seed = UINT64_MAX});
    assert_ok(fst_partition_write(&a, in_work("p.safetensors"), first, err));
    assert_ok(fst_partition_read(&b, in_work("p.safetensors"), err));
    check(&b, 10, 1);
    assert_true(same(&a, &b));
    assert_string_equal(b.method, a.method);
    assert_true(b.seed == UINT64_MAX);
    assert_ok(fst_partition_write(&b, in_work("q.safetensors"), second, err));
    assert_string_equal(first, second);
    fst_partition_release(&a);
    fst_partition_release(&b);
    fst_partition_release(NULL);
}

static void samples_may_belong_to_nobody(void **state)
{
    static uint32_t index[2] = {1, 3};
    static size_t begin[3] = {0, 1, 2};
    static int64_t counts[4] = {1, 0, 0, 1};
    fst_partition p = {.clients = 2,
                       .classes = 2,
                       .samples = 5,
                       .index = index,
                       .begin = begin,
                       .counts = counts,
                       .method = "by hand",
                       .seed = 1},
                  back = {0};
    (void)state;
    memset(p.data_digest, 'a', 64);
    assert_ok(fst_partition_write(&p, in_work("part.safetensors"), NULL, err));
    assert_ok(fst_partition_read(&back, in_work("part.safetensors"), err));
    assert_int_equal(back.samples, 5);
    assert_memory_equal(back.begin, begin, sizeof begin);
    assert_memory_equal(back.index, index, sizeof index);
    fst_partition_release(&back);
}

static const char digest[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

struct lie {
    const char *format, *method, *seed, *digest, *text;
    int32_t client[4];
    int64_t counts[4];
};

static void lies_are_refused(void **state)
{
    static const char ok[] = "fedstill-partition-1";
    static const char longest[] = "a method whose name is far too long for the sixty-four bytes that it may have";
    static const struct lie lies[] = {
        {"other", "iid", "1", digest, "not a partition", {0, 0, 1, 1}, {1, 1, 1, 1}},
        {NULL, "iid", "1", digest, "not a partition", {0, 0, 1, 1}, {1, 1, 1, 1}},
        {ok, NULL, "1", digest, "\"method\"", {0, 0, 1, 1}, {1, 1, 1, 1}},
        {ok, longest, "1", digest, "\"method\"", {0, 0, 1, 1}, {1, 1, 1, 1}},
        {ok, "iid", "-1", digest, "\"seed\"", {0, 0, 1, 1}, {1, 1, 1, 1}},
        {ok, "iid", "18446744073709551616", digest, "\"seed\"", {0, 0, 1, 1}, {1, 1, 1, 1}},
        {ok, "iid", "1x", digest, "\"seed\"", {0, 0, 1, 1}, {1, 1, 1, 1}},
        {ok, "iid", "1", "abc", "\"data_digest\"", {0, 0, 1, 1}, {1, 1, 1, 1}},
        {ok, "iid", "1", digest, "sample 2 belongs to client 2", {0, 0, 2, 1}, {1, 1, 1, 1}},
        {ok, "iid", "1", digest, "sample 1 belongs to client -2", {0, -2, 1, 1}, {1, 1, 1, 1}},
        {ok, "iid", "1", digest, "counts of client 0", {0, 0, 1, 1}, {3, -1, 1, 1}},
        {ok, "iid", "1", digest, "counts of client 1 add up to 1", {0, 0, 1, 1}, {1, 1, 1, 0}},
        {ok, "iid", "1", digest, "counts of client 0", {0, 0, 1, 1}, {INT64_MAX, INT64_MAX, 1, 1}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        const struct lie *l = &lies[i];
        fst_pair all[] = {{"format", l->format}, {"method", l->method}, {"seed", l->seed}, {"data_digest", l->digest}};
        fst_pair meta[4];
        size_t n = 0;
        for (int k = 0; k < 4; k++)
            if (all[k].value)
                meta[n++] = all[k];
        fst_tensor t[] = {{"client", FST_I32, FST_SHAPE(4), (void *)(uintptr_t)l->client},
                          {"counts", FST_I64, FST_SHAPE(2, 2), (void *)(uintptr_t)l->counts}};
        fst_partition p = {.clients = 77};
        assert_ok(fst_safetensors_write(in_work("lie.safetensors"), meta, n, t, 2, NULL, err));
        assert_fails(fst_partition_read(&p, in_work("lie.safetensors"), err), FST_E_FORMAT, l->text);
        assert_int_equal(p.clients, 77);
    }
}

static void wrong_tensors_are_refused(void **state)
{
    static const int64_t zeros[8];
    static const fst_pair meta[] = {
        {"format", "fedstill-partition-1"}, {"method", "iid"}, {"seed", "1"}, {"data_digest", digest}};
    void *z = (void *)(uintptr_t)zeros;
    const struct {
        fst_tensor t[2];
        fst_status status;
        const char *text;
    } cases[] = {
        {{{"client", FST_I32, FST_SHAPE(4), z}, {"sums", FST_I64, FST_SHAPE(2, 2), z}}, FST_E_FORMAT, "needs tensors"},
        {{{"client", FST_I64, FST_SHAPE(4), z}, {"counts", FST_I64, FST_SHAPE(2, 2), z}}, FST_E_FORMAT, "must be I32"},
        {{{"client", FST_I32, FST_SHAPE(0), z}, {"counts", FST_I64, FST_SHAPE(2, 2), z}}, FST_E_FORMAT, "must be I32"},
        {{{"client", FST_I32, FST_SHAPE(4), z}, {"counts", FST_I64, FST_SHAPE(4), z}}, FST_E_FORMAT, "must be I64"},
        {{{"client", FST_I32, FST_SHAPE(4), z}, {"counts", FST_I64, FST_SHAPE(0, 2), z}}, FST_E_FORMAT, "must be I64"},
    };
    fst_partition p = {0};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_ok(fst_safetensors_write(in_work("wrong.safetensors"), meta, 4, cases[i].t, 2, NULL, err));
        assert_fails(fst_partition_read(&p, in_work("wrong.safetensors"), err), cases[i].status, cases[i].text);
    }
    assert_fails(fst_partition_read(&p, in_work("absent.safetensors"), err), FST_E_IO, "absent");
}

/* Any byte may rot: the reader refuses or gives a partition that is sound, but never falls over. */
static void rotten_bytes_do_no_harm(void **state)
{
    fst_partition p = {0};
    fst_buf file = {0};
    (void)state;
    make(&p, (fst_partition_spec){.clients = 3});
    assert_ok(fst_partition_write(&p, in_work("rot.safetensors"), NULL, err));
    fst_partition_release(&p);
    assert_ok(fst_file_read(in_work("rot.safetensors"), 1 << 20, &file, err));
    for (size_t i = 0; i < file.len; i += i < 600 ? 1 : 41) {
        file.data[i] ^= 0x10;
        if (!fst__partition_read_memory(&p, "rot", file.data, file.len, NULL)) {
            assert_true(p.begin[p.clients] <= p.samples);
            fst_partition_release(&p);
        }
        file.data[i] ^= 0x10;
    }
    for (size_t n = 0; n < file.len; n += 97)
        assert_int_not_equal(fst__partition_read_memory(&p, "cut", file.data, n, NULL), FST_OK);
    fst_buf_release(&file);
}

static void memory_may_run_out(void **state)
{
    (void)state;
    for (int kind = 0; kind < 4; kind++)
        for (uint64_t n = 1;; n++) {
            fst_partition p = {0};
            fst_partition_spec spec = {
                .kind = (fst_partition_kind)kind, .clients = 3, .alpha = 1, .classes_per_client = 2};
            fst_alloc_fail_at(n);
            fst_status s = fst_partition_make(&p, source, &spec, NULL);
            fst_alloc_fail_at(0);
            if (!s) {
                fst_partition_release(&p);
                break;
            }
            assert_int_equal(s, FST_E_MEMORY);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_kinds_cover_all_samples),
        cmocka_unit_test(seeds_decide),
        cmocka_unit_test(iid_shares_are_equal),
        cmocka_unit_test(dirichlet_follows_alpha),
        cmocka_unit_test(shards_have_few_classes),
        cmocka_unit_test(quantity_differs_but_labels_do_not),
        cmocka_unit_test(the_minimum_is_kept),
        cmocka_unit_test(a_subset_is_dealt),
        cmocka_unit_test(the_minimum_counts_samples_of_bursts),
        cmocka_unit_test(impossible_wishes_are_refused),
        cmocka_unit_test(kinds_have_names),
        cmocka_unit_test(files_come_back),
        cmocka_unit_test(samples_may_belong_to_nobody),
        cmocka_unit_test(lies_are_refused),
        cmocka_unit_test(wrong_tensors_are_refused),
        cmocka_unit_test(rotten_bytes_do_no_harm),
        cmocka_unit_test(memory_may_run_out),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
