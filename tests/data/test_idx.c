/* IDX: spellings, shapes, and every way in which a file can be wrong. */
#define _GNU_SOURCE
#include "files.h"
#include "formats.h"

enum { N = 3, BYTES = 4 };
static const unsigned char pixels[N * BYTES] = {0, 1, 2, 3, 10, 11, 12, 13, 255, 254, 253, 252};
static const unsigned char classes[N] = {1, 0, 2};

struct pair {
    unsigned char x[512], y[512];
    size_t nx, ny;
};

static struct pair good(void)
{
    struct pair p;
    p.nx = idx_bytes(p.x, 3, (uint32_t[]){N, 2, 2}, pixels, sizeof pixels);
    p.ny = idx_bytes(p.y, 1, (uint32_t[]){N}, classes, sizeof classes);
    return p;
}

static struct pair zipped(void)
{
    struct pair p = good(), z;
    z.nx = gzip_bytes(z.x, sizeof z.x, p.x, p.nx);
    z.ny = gzip_bytes(z.y, sizeof z.y, p.y, p.ny);
    return z;
}

static fst_status parse(fst_source **out, const struct pair *p, int nclasses, size_t limit, fst_error *err)
{
    fst__reader x = {.fd = -1}, y = {.fd = -1};
    fst_status s = fst__reader_open_memory(&x, "images", p->x, p->nx, err);
    if (!s)
        s = fst__reader_open_memory(&y, "labels", p->y, p->ny, err);
    if (!s)
        s = fst__idx_read(out, "set", &x, &y, &(fst__idx_how){.classes = nclasses, .limit = limit}, err);
    fst__reader_close(&x);
    fst__reader_close(&y);
    return s;
}

static void reads_both_kinds(void **state)
{
    (void)state;
    for (int zip = 0; zip < 2; zip++) {
        struct pair p = zip ? zipped() : good();
        unsigned char raw[BYTES];
        fst_source *s = NULL;
        assert_ok(parse(&s, &p, 0, 0, err));
        assert_int_equal(s->count, N);
        assert_int_equal(s->classes, 3);
        assert_ok(s->v->get(s, 2, raw, err));
        assert_memory_equal(raw, pixels + 8, BYTES);
        fst_source_close(s);
    }
}

static void every_prefix_is_refused(void **state)
{
    (void)state;
    for (int zip = 0; zip < 2; zip++) {
        struct pair p = zip ? zipped() : good(), q;
        fst_source *s = NULL;
        for (size_t n = 0; n < p.nx; n++) {
            q = p;
            q.nx = n;
            assert_int_not_equal(parse(&s, &q, 0, 0, NULL), FST_OK);
        }
        for (size_t n = 0; n < p.ny; n++) {
            q = p;
            q.ny = n;
            assert_int_not_equal(parse(&s, &q, 0, 0, NULL), FST_OK);
        }
        assert_null(s);
    }
}

static void bytes_behind_the_end_are_refused(void **state)
{
    fst_source *s = NULL;
    (void)state;
    struct pair p = good();
    p.x[p.nx++] = 0;
    assert_fails(parse(&s, &p, 0, 0, err), FST_E_FORMAT, "its header asks for 28");
    p = good();
    p.y[p.ny++] = 0;
    assert_fails(parse(&s, &p, 0, 0, err), FST_E_FORMAT, "bytes follow");
    p = zipped();
    memcpy(p.x + p.nx, "xyz", 3);
    p.nx += 3;
    assert_fails(parse(&s, &p, 0, 0, err), FST_E_FORMAT, "gzip data is damaged");
    /* a second gzip stream is legal, but here it is too much */
    p = zipped();
    p.nx += gzip_bytes(p.x + p.nx, sizeof p.x - p.nx, "abc", 3);
    assert_fails(parse(&s, &p, 0, 0, err), FST_E_FORMAT, "bytes follow");
}

static void streams_in_a_row_are_one(void **state)
{
    struct pair p = good(), z = p;
    fst_source *s = NULL;
    (void)state;
    z.nx = gzip_bytes(z.x, sizeof z.x, p.x, 9);
    z.nx += gzip_bytes(z.x + z.nx, sizeof z.x - z.nx, p.x + 9, p.nx - 9);
    assert_ok(parse(&s, &z, 0, 0, err));
    assert_int_equal(s->count, N);
    fst_source_close(s);
}

static void damaged_gzip_is_refused(void **state)
{
    fst_source *s = NULL;
    (void)state;
    struct pair p = zipped();
    p.x[p.nx - 8] ^= 1; /* the checksum */
    assert_fails(parse(&s, &p, 0, 0, err), FST_E_FORMAT, "gzip data is damaged");
    p = zipped();
    memset(p.x + 2, 0xFF, p.nx - 2);
    assert_fails(parse(&s, &p, 0, 0, err), FST_E_FORMAT, "gzip data is damaged");
}

static void lying_headers_are_refused(void **state)
{
    fst_source *s = NULL;
    (void)state;
    struct pair p = good();
    p.x[0] = 'P';
    assert_fails(parse(&s, &p, 0, 0, err), FST_E_FORMAT, "not IDX");
    p = good();
    p.x[2] = 13;
    assert_fails(parse(&s, &p, 0, 0, err), FST_E_UNSUPPORTED, "floats");
    p = good();
    p.y[3] = 3;
    assert_fails(parse(&s, &p, 0, 0, err), FST_E_FORMAT, "3 dimensions");
    p = good();
    p.x[3] = 200;
    assert_fails(parse(&s, &p, 0, 0, err), FST_E_FORMAT, "200 dimensions");
    p = good();
    memset(p.x + 4, 0xFF, 12); /* 2^96 bytes */
    assert_fails(parse(&s, &p, 0, 0, err), FST_E_FORMAT, "hold nothing");
    p = good();
    memset(p.x + 8, 0x7F, 2); /* 3 x 2139029506 x 2: overflows nothing, but is not there */
    assert_fails(parse(&s, &p, 0, 0, err), FST_E_FORMAT, "promise more");
    p = good();
    p.x[11] = 0;
    assert_fails(parse(&s, &p, 0, 0, err), FST_E_FORMAT, "hold nothing");
}

/* A gzip file can promise a lot with few bytes: refused by arithmetic, before memory is asked for. */
static void gzip_bombs_are_refused(void **state)
{
    struct pair p = good(), z = zipped();
    fst_source *s = NULL;
    (void)state;
    p.y[4] = p.x[4] = 0x7F;
    z.nx = gzip_bytes(z.x, sizeof z.x, p.x, p.nx);
    z.ny = gzip_bytes(z.y, sizeof z.y, p.y, p.ny);
    assert_fails(parse(&s, &z, 0, 0, err), FST_E_FORMAT, "promise more");
}

static void counts_must_agree(void **state)
{
    struct pair p = good();
    fst_source *s = NULL;
    (void)state;
    p.ny = idx_bytes(p.y, 1, (uint32_t[]){2}, classes, 2);
    assert_fails(parse(&s, &p, 0, 0, err), FST_E_MISMATCH, "3 images, but there are 2 labels");
}

static void labels_must_be_classes(void **state)
{
    struct pair p = good();
    fst_source *s = NULL;
    (void)state;
    assert_fails(parse(&s, &p, 2, 0, err), FST_E_FORMAT, "sample 2 has label 2, labels must be 0 ... 1");
    assert_ok(parse(&s, &p, 40, 0, err));
    assert_int_equal(s->classes, 40);
    fst_source_close(s);
}

static void ranks_become_channels(void **state)
{
    static const struct {
        int rank;
        uint32_t dim[4];
        fst_shape want;
    } cases[] = {{2, {3, 4}, {1, {4}}}, {3, {3, 4, 1}, {3, {1, 4, 1}}}, {4, {3, 2, 1, 2}, {3, {2, 1, 2}}}};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct pair p = good();
        fst_source *s = NULL;
        p.nx = idx_bytes(p.x, cases[i].rank, cases[i].dim, pixels, sizeof pixels);
        assert_ok(parse(&s, &p, 0, 0, err));
        assert_true(fst_shape_equal(&s->shape, &cases[i].want));
        fst_source_close(s);
    }
}

static void files_are_found(void **state)
{
    struct pair p = good(), z = zipped();
    fst_source *s = NULL;
    (void)state;
    put_file("dots/train-images.idx3-ubyte", p.x, p.nx);
    put_file("dots/train-labels.idx1-ubyte.gz", z.y, z.ny);
    put_file("dots/t10k-images-idx3-ubyte.gz", z.x, z.nx);
    assert_ok(fst_source_open(&s, &(fst_source_spec){.path = in_work("dots")}, err));
    assert_int_equal(s->count, N);
    fst_source_close(s);
    fst_source_spec test = {.path = in_work("dots"), .split = "test"};
    assert_fails(fst_source_open(&s, &test, err), FST_E_IO, "no t10k-labels-idx1-ubyte, plain or .gz");
    put_file("dots/t10k-labels-idx1-ubyte", p.y, p.ny);
    assert_ok(fst_source_open(&s, &test, err));
    fst_source_close(s);
    assert_ok(fst_make_folders(in_work("odd/train-images-idx3-ubyte"), err));
    put_file("odd/train-labels-idx1-ubyte", p.y, p.ny);
    assert_fails(fst_source_open(&s, &(fst_source_spec){.path = in_work("odd")}, err), FST_E_IO, "not a file");
    put_file("empty/train-images-idx3-ubyte", "", 0);
    put_file("empty/train-labels-idx1-ubyte", "", 0);
    assert_fails(fst_source_open(&s, &(fst_source_spec){.path = in_work("empty")}, err), FST_E_FORMAT,
                 "the file is empty");
}

/* ---- other names and places ---------------------------------------------------------------------- */

static void check_open(const char *path, const char *split, size_t count, int first_pixel)
{
    fst_source *s = NULL;
    unsigned char raw[BYTES];
    assert_ok(fst_source_open(&s, &(fst_source_spec){.path = in_work(path), .split = split}, err));
    assert_int_equal(s->count, count);
    assert_ok(s->v->get(s, 0, raw, err));
    assert_int_equal(raw[0], first_pixel);
    fst_source_close(s);
}

static void put_set(const char *folder, const char *train, const char *what, int first_pixel)
{
    struct pair p = good();
    char name[256];
    p.x[16] = (unsigned char)first_pixel;
    snprintf(name, sizeof name, "%s/%s-images-idx3-ubyte%s", folder, train, what);
    put_file(name, p.x, p.nx);
    snprintf(name, sizeof name, "%s/%s-labels-idx1-ubyte%s", folder, train, what);
    put_file(name, p.y, p.ny);
}

static void files_are_found_below(void **state)
{
    fst_source *s = NULL;
    (void)state;
    put_set("torch/FashionMNIST/raw", "train", "", 7);
    put_set("torch/FashionMNIST/raw", "t10k", "", 8);
    check_open("torch/FashionMNIST/raw", NULL, N, 7);
    check_open("torch/FashionMNIST", NULL, N, 7);
    check_open("torch", "test", N, 8);
    put_set("torch/MNIST/raw", "train", "", 9);
    check_open("torch/MNIST", NULL, N, 9);
    assert_fails(fst_source_open(&s, &(fst_source_spec){.format = "idx", .path = in_work("torch")}, err), FST_E_CONFIG,
                 "holds 2 data sets");
    assert_fails(
        fst_source_open(&s, &(fst_source_spec){.path = in_work("torch/MNIST/raw/train-images-idx3-ubyte")}, err),
        FST_E_FORMAT, "read by their folder");
    assert_null(s);
}

/* EMNIST: images are turned, and letters begin at 1. */
static void emnist_stands_upright(void **state)
{
    static const unsigned char wide[N * 6] = {1, 2, 3, 4, 5, 6}, turned[6] = {1, 4, 2, 5, 3, 6};
    static const unsigned char letters[N] = {1, 3, 2}, wrong[N] = {1, 0, 2};
    unsigned char x[128], y[64], raw[6];
    fst_source *s = NULL;
    fst_source_spec spec = {.path = in_work("emnist")};
    (void)state;
    /* 2 rows of 3 in the file are 3 rows of 2 upright */
    put_file("emnist/gzip/emnist-letters-train-images-idx3-ubyte", x,
             idx_bytes(x, 3, (uint32_t[]){N, 2, 3}, wide, sizeof wide));
    put_file("emnist/gzip/emnist-letters-train-labels-idx1-ubyte", y, idx_bytes(y, 1, (uint32_t[]){N}, letters, N));
    assert_ok(fst_source_open(&s, &spec, err));
    assert_true(fst_shape_equal(&s->shape, &FST_SHAPE(1, 3, 2)));
    assert_int_equal(s->classes, 3);
    for (int i = 0; i < N; i++)
        assert_int_equal(s->labels[i], letters[i] - 1);
    assert_ok(s->v->get(s, 0, raw, err));
    assert_memory_equal(raw, turned, sizeof raw);
    fst_source_close(s);
    s = NULL;
    put_file("emnist/gzip/emnist-letters-train-labels-idx1-ubyte", y, idx_bytes(y, 1, (uint32_t[]){N}, wrong, N));
    assert_fails(fst_source_open(&s, &spec, err), FST_E_FORMAT, "sample 1 has label 0, labels must be 1 ...");
    put_set("emnist/gzip", "emnist-digits-train", "", 7);
    put_set("emnist/gzip", "emnist-digits-test", "", 8);
    assert_fails(fst_source_open(&s, &spec, err), FST_E_CONFIG, "holds 2 data sets");
    check_open("emnist/gzip/emnist-digits", NULL, N, 7); /* digits begin at 0 */
    check_open("emnist/gzip/emnist-digits", "test", N, 8);
    assert_null(s);
}

/* With a limit no more labels are kept, but all say how many classes there are. */
static void limits_hold_for_labels(void **state)
{
    struct pair p = good();
    fst_source *s = NULL;
    (void)state;
    assert_ok(parse(&s, &p, 0, 1, err));
    assert_int_equal(s->count, 1);
    assert_int_equal(s->classes, 3);
    fst_source_close(s);
    s = NULL;
    assert_fails(parse(&s, &p, 2, 1, err), FST_E_FORMAT, "sample 2 has label 2");
    assert_null(s);
}

static char said[1000];

static void listen(void *ctx, fst_log_level level, const char *message)
{
    (void)ctx;
    if (level == FST_LOG_WARN)
        snprintf(said, sizeof said, "%s", message);
}

static void labels_from_1_are_reported(void **state)
{
    static const unsigned char from_1[N] = {1, 3, 2};
    struct pair p = good();
    fst_source *s = NULL;
    (void)state;
    put_file("one/train-images-idx3-ubyte", p.x, p.nx);
    put_file("one/train-labels-idx1-ubyte", p.y, idx_bytes(p.y, 1, (uint32_t[]){N}, from_1, N));
    fst_log_set(listen, NULL);
    assert_ok(fst_source_open(&s, &(fst_source_spec){.path = in_work("one")}, err));
    fst_log_set(NULL, NULL);
    assert_non_null(strstr(said, "labels begin at 1, so class 0 has no samples"));
    assert_int_equal(s->classes, 4);
    fst_source_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_both_kinds),
        cmocka_unit_test(every_prefix_is_refused),
        cmocka_unit_test(bytes_behind_the_end_are_refused),
        cmocka_unit_test(streams_in_a_row_are_one),
        cmocka_unit_test(damaged_gzip_is_refused),
        cmocka_unit_test(lying_headers_are_refused),
        cmocka_unit_test(gzip_bombs_are_refused),
        cmocka_unit_test(counts_must_agree),
        cmocka_unit_test(labels_must_be_classes),
        cmocka_unit_test(ranks_become_channels),
        cmocka_unit_test(files_are_found),
        cmocka_unit_test(files_are_found_below),
        cmocka_unit_test(emnist_stands_upright),
        cmocka_unit_test(limits_hold_for_labels),
        cmocka_unit_test(labels_from_1_are_reported),
    };
    return cmocka_run_group_tests(tests, make_work_folder, remove_work_folder);
}
