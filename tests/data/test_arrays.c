/* Arrays of samples: names, splits, types, and labels that are none. */
#define _GNU_SOURCE
#include <math.h>
#include <zip.h>

#include "files.h"

enum { N = 4 };

static const float values[N * 2] = {0, 1, -2, 0.5f, 4, -0.25f, 1, 3};
static const unsigned char bytes[N * 2] = {0, 1, 2, 3, 4, 5, 6, 255};
static const int64_t classes[N] = {0, 2, 1, 0};

static fst_tensor samples(const char *name)
{
    return (fst_tensor){name, FST_F32, FST_SHAPE(N, 2), (void *)(uintptr_t)values};
}

static fst_tensor labels(const char *name)
{
    return (fst_tensor){name, FST_I64, FST_SHAPE(N), (void *)(uintptr_t)classes};
}

static void put_tensors(const char *name, const fst_tensor *t, size_t n)
{
    assert_ok(fst_safetensors_write(in_work(name), NULL, 0, t, n, NULL, err));
}

/* An npz of the npy files named, with `deflate` or stored. */
static void put_npz(const char *name, const char *const *members, size_t n)
{
    int code;
    zip_t *z = zip_open(in_work(name), ZIP_CREATE | ZIP_TRUNCATE, &code);
    assert_non_null(z);
    for (size_t i = 0; i < n; i++) {
        zip_source_t *f = zip_source_file(z, in_work(members[i]), 0, -1);
        zip_int64_t at = zip_file_add(z, members[i], f, 0);
        assert_true(at >= 0);
        assert_int_equal(zip_set_file_compression(z, (zip_uint64_t)at, i % 2 ? ZIP_CM_STORE : ZIP_CM_DEFLATE, 9), 0);
    }
    assert_int_equal(zip_close(z), 0);
}

static fst_status open_array(fst_source **s, const char *name, const char *split, fst_error *err)
{
    return fst_source_open(s, &(fst_source_spec){.format = "array", .path = in_work(name), .split = split}, err);
}

static void check_values(const char *name, const fst_tensor *x)
{
    fst_source *s = NULL;
    put_tensors(name, (fst_tensor[]){*x, labels("y")}, 2);
    assert_ok(open_array(&s, name, NULL, err));
    assert_int_equal(s->dtype, FST_F32);
    for (size_t i = 0; i < N; i++) {
        float raw[2];
        assert_ok(s->v->get(s, i, raw, err));
        assert_memory_equal(raw, values + 2 * i, sizeof raw);
    }
    fst_source_close(s);
}

static void other_floats_are_converted(void **state)
{
    double wide[N * 2];
    uint16_t half[N * 2], brain[N * 2];
    (void)state;
    for (size_t i = 0; i < N * 2; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], 4);
        wide[i] = (double)values[i];
        half[i] = fst_f16_from_f32(values[i]);
        brain[i] = (uint16_t)(bits >> 16); /* these values have few bits: nothing is cut */
    }
    check_values("f64.safetensors", &(fst_tensor){"x", FST_F64, FST_SHAPE(N, 2), wide});
    check_values("f16.safetensors", &(fst_tensor){"x", FST_F16, FST_SHAPE(N, 2), half});
    check_values("bf16.safetensors", &(fst_tensor){"x", FST_BF16, FST_SHAPE(N, 2), brain});
}

static void npz_and_npy_convert_too(void **state)
{
    static const char *const members[] = {"x.npy", "y.npy"};
    double wide[N * 2];
    uint16_t half[N * 2];
    fst_source *s = NULL;
    (void)state;
    for (size_t i = 0; i < N * 2; i++) {
        wide[i] = (double)values[i];
        half[i] = fst_f16_from_f32(values[i]);
    }
    fst_tensor y = labels("y"), x[2] = {{"x", FST_F64, FST_SHAPE(N, 2), wide}, {"x", FST_F16, FST_SHAPE(N, 2), half}};
    assert_ok(fst_npy_write(in_work("y.npy"), &y, err));
    for (int i = 0; i < 2; i++) {
        assert_ok(fst_npy_write(in_work("x.npy"), &x[i], err));
        put_npz("both.npz", members, 2);
        assert_ok(open_array(&s, "both.npz", NULL, err));
        float raw[2];
        assert_ok(s->v->get(s, 3, raw, err));
        assert_memory_equal(raw, values + 6, sizeof raw);
        fst_source_close(s);
        s = NULL;
        assert_fails(open_array(&s, "both.npz", "test", err), FST_E_ABSENT, "no array \"x_test\" in it");
    }
}

static void every_integer_is_a_label(void **state)
{
    static const fst_dtype types[] = {FST_U8, FST_I8, FST_U16, FST_I16, FST_U32, FST_I32, FST_U64, FST_I64, FST_BOOL};
    (void)state;
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        unsigned char raw[N * 8] = {0};
        fst_source *s = NULL;
        size_t size = fst_dtype_size(types[t]);
        for (size_t i = 0; i < N; i++)
            raw[i * size] = i == 2; /* little-endian: the first byte carries the value */
        fst_tensor y = {"y", types[t], t % 2 ? FST_SHAPE(N, 1) : FST_SHAPE(N), raw};
        put_tensors("int.safetensors", (fst_tensor[]){samples("x"), y}, 2);
        assert_ok(open_array(&s, "int.safetensors", NULL, err));
        assert_int_equal(s->classes, 2);
        assert_int_equal(s->labels[1], 0);
        assert_int_equal(s->labels[2], 1);
        fst_source_close(s);
    }
}

static void splits_and_names(void **state)
{
    fst_source *s = NULL;
    (void)state;
    put_tensors("one.safetensors", (fst_tensor[]){samples("x"), labels("y")}, 2);
    assert_fails(open_array(&s, "one.safetensors", "test", err), FST_E_ABSENT, "no array \"x_test\" in it");
    put_tensors("two.safetensors",
                (fst_tensor[]){samples("x_train"),
                               labels("y_train"),
                               {"x_test", FST_U8, FST_SHAPE(N, 2), (void *)(uintptr_t)bytes},
                               labels("y_test")},
                4);
    assert_ok(open_array(&s, "two.safetensors", "train", err));
    assert_int_equal(s->dtype, FST_F32);
    fst_source_close(s);
    assert_ok(open_array(&s, "two.safetensors", "test", err));
    assert_int_equal(s->dtype, FST_U8);
    fst_source_close(s);
    assert_ok(fst_make_folders(in_work("dir"), err));
    put_tensors("dir/train.safetensors", (fst_tensor[]){samples("x"), labels("y")}, 2);
    put_tensors("dir/test.safetensors", (fst_tensor[]){samples("x"), labels("y")}, 2);
    assert_ok(open_array(&s, "dir", "test", err));
    fst_source_close(s);
    put_tensors("own.safetensors", (fst_tensor[]){samples("signal"), labels("kind")}, 2);
    assert_ok(
        fst_source_open(&s, &(fst_source_spec){.path = in_work("own.safetensors"), .x = "signal", .y = "kind"}, err));
    fst_source_close(s);
    s = NULL;
    assert_fails(fst_source_open(&s, &(fst_source_spec){.path = in_work("own.safetensors"), .x = "signal"}, err),
                 FST_E_FORMAT, "\"y_train\" or \"y\"");
    put_file("own.hdf5", "x", 1);
    assert_fails(open_array(&s, "own.hdf5", NULL, err), FST_E_FORMAT, ".safetensors, .npz or .npy");
}

static void numbers_have_one_element(void **state)
{
    fst_tensor x = {"x", FST_F32, FST_SHAPE(N), (void *)(uintptr_t)values};
    fst_source *s = NULL;
    (void)state;
    put_tensors("flat.safetensors", (fst_tensor[]){x, labels("y")}, 2);
    assert_ok(open_array(&s, "flat.safetensors", NULL, err));
    assert_true(fst_shape_equal(&s->shape, &FST_SHAPE(1)));
    fst_source_close(s);
}

static void check_refused(const fst_tensor *x, const fst_tensor *y, fst_status want, const char *text)
{
    fst_source *s = NULL;
    put_tensors("bad.safetensors", (fst_tensor[]){*x, *y}, 2);
    assert_fails(open_array(&s, "bad.safetensors", NULL, err), want, text);
    assert_null(s);
}

/* Bursts of several sources are numbered one after the other, which must not overflow. */
static void numbers_of_bursts_have_limits(void **state)
{
    static const int64_t wide[N] = {0, 1, INT64_MIN, 2};
    fst_source *s = NULL;
    (void)state;
    const fst_tensor burst = {"burst", FST_I64, FST_SHAPE(N), (void *)(uintptr_t)wide};
    put_tensors("wide.safetensors", (fst_tensor[]){samples("x"), labels("y"), burst}, 3);
    assert_fails(open_array(&s, "wide.safetensors", NULL, err), FST_E_LIMIT,
                 "sample 2 is of burst -9223372036854775808");
    assert_null(s);
}

/* Texts of no bytes fit any file, however many its header promises. */
static void empty_texts_take_no_time(void **state)
{
    static const char *const members[] = {"x.npy", "y.npy", "classes.npy"};
    const fst_tensor x = samples("x"), y = labels("y");
    char header[128] = "\x93NUMPY\x01\x00\x76";
    fst_source *s = NULL;
    (void)state;
    assert_ok(fst_npy_write(in_work("x.npy"), &x, err));
    assert_ok(fst_npy_write(in_work("y.npy"), &y, err));
    const char *text = "{'descr': '|S0', 'fortran_order': False, 'shape': (1152921504606846976,), }";
    memset(header + 10, ' ', sizeof header - 11);
    memcpy(header + 10, text, strlen(text));
    header[127] = '\n';
    put_file("classes.npy", header, sizeof header);
    put_npz("empty.npz", members, 3);
    assert_fails(open_array(&s, "empty.npz", NULL, err), FST_E_LIMIT, "texts of 0 characters");
    assert_null(s);
}

static void bad_arrays_are_refused(void **state)
{
    static const int64_t low[N] = {0, -1, 0, 0}, high[N] = {0, 0, 0, FST_MAX_CLASSES};
    static const uint64_t vast[N] = {0, UINT64_MAX, 0, 0};
    static const float bad[N * 2] = {0, 0, 0, NAN};
    fst_tensor x = samples("x"), y = labels("y"), t;
    (void)state;
    t = (fst_tensor){"y", FST_I64, FST_SHAPE(N), (void *)(uintptr_t)low};
    check_refused(&x, &t, FST_E_FORMAT, "sample 1 has label -1, labels must be 0 ... 65535");
    t.data = (void *)(uintptr_t)high;
    check_refused(&x, &t, FST_E_FORMAT, "sample 3 has label 65536");
    t = (fst_tensor){"y", FST_U64, FST_SHAPE(N), (void *)(uintptr_t)vast};
    check_refused(&x, &t, FST_E_FORMAT, "sample 1 has label 9223372036854775807");
    t = (fst_tensor){"y", FST_F32, FST_SHAPE(N), (void *)(uintptr_t)values};
    check_refused(&x, &t, FST_E_FORMAT, "sample 2 has label -2, labels must be whole numbers 0 ... 65535");
    t.data = (void *)(uintptr_t)(values + 3);
    check_refused(&x, &t, FST_E_FORMAT, "sample 0 has label 0.5, labels must be whole numbers");
    t.data = (void *)(uintptr_t)bad;
    check_refused(&x, &t, FST_E_FORMAT, "sample 3 has label nan, labels must be whole numbers");
    t = (fst_tensor){"y", FST_I64, FST_SHAPE(2, 2), (void *)(uintptr_t)classes};
    check_refused(&x, &t, FST_E_FORMAT, "labels of shape (2, 2), and row 0 is not one 1 among zeros");
    t = (fst_tensor){"y", FST_I64, FST_SHAPE(1, 2, 2), (void *)(uintptr_t)classes};
    check_refused(&x, &t, FST_E_FORMAT, "labels of shape (1, 2, 2); a list (N,) or one-hot rows");
    t = (fst_tensor){"y", FST_I64, FST_SHAPE(0), (void *)(uintptr_t)classes};
    check_refused(&x, &t, FST_E_FORMAT, "no samples: its labels have shape (0,)");
    t = (fst_tensor){"y", FST_I64, FST_SHAPE(N - 1), (void *)(uintptr_t)classes};
    check_refused(&x, &t, FST_E_MISMATCH, "do not fit 3 labels");
    t = (fst_tensor){"x", FST_I16, FST_SHAPE(N, 2), (void *)(uintptr_t)values};
    check_refused(&t, &y, FST_E_FORMAT, "samples are I16");
    t = (fst_tensor){"x", FST_F32, FST_SHAPE(N, 2), (void *)(uintptr_t)bad};
    check_refused(&t, &y, FST_E_NUMERIC, "sample 1, element 1 is");
    t = (fst_tensor){"x", FST_F32, FST_SHAPE(N, 0), (void *)(uintptr_t)values};
    check_refused(&t, &y, FST_E_FORMAT, "holds nothing");
    t = (fst_tensor){"x", FST_F32, (fst_shape){0}, (void *)(uintptr_t)values};
    check_refused(&t, &y, FST_E_MISMATCH, "do not fit");
}

/* Labels of any type and in rows are the same labels. */
static void labels_of_all_types_are_read(void **state)
{
    static const double f64[N] = {0, 2, 1, 0};
    static const float f32[N] = {0, 2, 1, 0};
    static const uint16_t f16[N] = {0, 0x4000, 0x3c00, 0x8000}, bf16[N] = {0, 0x4000, 0x3f80, 0};
    static const uint8_t hot[N * 4] = {1, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 0};
    static const float hotf[N * 3] = {1, 0, 0, 0, 0, 1, 0, 1, 0, 1, 0, 0}, two[N * 3] = {1, 0, 0, 0, 0, 1, 1, 1, 0};
    const struct {
        fst_tensor y;
        int classes;
    } cases[] = {{{"y", FST_F64, FST_SHAPE(N), (void *)(uintptr_t)f64}, 3},
                 {{"y", FST_F32, FST_SHAPE(N, 1), (void *)(uintptr_t)f32}, 3},
                 {{"y", FST_F16, FST_SHAPE(N), (void *)(uintptr_t)f16}, 3},
                 {{"y", FST_BF16, FST_SHAPE(N), (void *)(uintptr_t)bf16}, 3},
                 {{"y", FST_BOOL, FST_SHAPE(N, 4), (void *)(uintptr_t)hot}, 4}, /* the last one without a sample */
                 {{"y", FST_F32, FST_SHAPE(N, 3), (void *)(uintptr_t)hotf}, 3}};
    fst_source *s = NULL;
    fst_tensor x = samples("x"), t = {"y", FST_F32, FST_SHAPE(N, 3), (void *)(uintptr_t)two};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_tensors("labels.safetensors", (fst_tensor[]){x, cases[i].y}, 2);
        assert_ok(open_array(&s, "labels.safetensors", NULL, err));
        assert_int_equal(s->classes, cases[i].classes);
        for (size_t k = 0; k < N; k++)
            assert_int_equal(s->labels[k], classes[k]);
        fst_source_close(s);
    }
    check_refused(&x, &t, FST_E_FORMAT, "row 2 is not one 1 among zeros");
    put_tensors("labels.safetensors", (fst_tensor[]){x, cases[4].y}, 2);
    fst_source_spec spec = {.path = in_work("labels.safetensors"), .classes = 3};
    assert_fails(fst_source_open(&s, &spec, err), FST_E_CONFIG, "its one-hot labels have 4 classes, not 3");
}

/* ---- names by split ----------------------------------------------------------------------------- */

static fst_status open_named(fst_source **s, const char *name, const char *x, const char *y, const char *split,
                             fst_error *err)
{
    return fst_source_open(s, &(fst_source_spec){.path = in_work(name), .x = x, .y = y, .split = split}, err);
}

/* The first element of a split's first sample. */
static void check_first(const char *name, const char *x, const char *y, const char *split, int first)
{
    fst_source *s = NULL;
    unsigned char raw[2];
    assert_ok(open_named(&s, name, x, y, split, err));
    assert_ok(s->v->get(s, 0, raw, err));
    assert_int_equal(raw[0], first);
    fst_source_close(s);
}

static fst_tensor marked(const char *name, unsigned char first)
{
    static unsigned char block[8][N * 2];
    block[first][0] = first;
    return (fst_tensor){name, FST_U8, FST_SHAPE(N, 2), block[first]};
}

static void a_name_of_one_split_stands_for_all(void **state)
{
    static const char *const sets[][6] = {
        {"train_images", "test_images", "val_images", "train_labels", "test_labels", "val_labels"},
        {"x_train", "x_test", "x_valid", "y_train", "y_test", "y_valid"},
        {"a/training", "a/testing", "a/validation", "b/training", "b/testing", "b/validation"},
        {"pixels-train", "pixels-test", "pixels-val", "kind.train", "kind.test", "kind.val"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        fst_tensor all[6];
        for (unsigned k = 0; k < 3; k++) {
            all[k] = marked(sets[i][k], (unsigned char)(k + 1));
            all[k + 3] = labels(sets[i][k + 3]);
        }
        put_tensors("sets.safetensors", all, 6);
        for (int named = 0; named < 3; named++) { /* whichever split the names are of */
            check_first("sets.safetensors", sets[i][named], sets[i][named + 3], "train", 1);
            check_first("sets.safetensors", sets[i][named], sets[i][named + 3], "test", 2);
            check_first("sets.safetensors", sets[i][named], sets[i][named + 3], "val", 3);
        }
        if (i < 2) { /* usual names are found without being given */
            check_first("sets.safetensors", NULL, NULL, "train", 1);
            check_first("sets.safetensors", NULL, NULL, "test", 2);
        }
    }
}

/* Names given or not, what serves training never serves the test. */
static void training_samples_never_test(void **state)
{
    static const char *const splits[] = {"test", "val"};
    fst_source *s = NULL;
    (void)state;
    put_tensors("plain.safetensors", (fst_tensor[]){marked("images", 1), labels("labels")}, 2);
    put_tensors("train-only.safetensors", (fst_tensor[]){marked("train_images", 1), labels("train_labels")}, 2);
    put_tensors("no-labels.safetensors", (fst_tensor[]){marked("x_train", 1), marked("x_test", 2), labels("y")}, 3);
    /* half of a split is no absent one */
    put_tensors("half.safetensors", (fst_tensor[]){marked("x", 1), labels("y"), labels("y_val")}, 3);
    assert_fails(open_named(&s, "half.safetensors", NULL, NULL, "val", err), FST_E_FORMAT, "labels without samples: ");
    put_tensors("half.safetensors", (fst_tensor[]){marked("x", 1), labels("y"), marked("x_val", 1)}, 3);
    assert_fails(open_named(&s, "half.safetensors", NULL, NULL, "val", err), FST_E_FORMAT, "samples without labels: ");
    check_first("plain.safetensors", NULL, NULL, "train", 1);
    check_first("plain.safetensors", "images", "labels", "train", 1);
    check_first("no-labels.safetensors", "x_train", "y", "train", 1);
    for (int i = 0; i < 2; i++) {
        assert_fails(open_named(&s, "plain.safetensors", "images", "labels", splits[i], err), FST_E_ABSENT,
                     "and \"images\" holds training samples");
        assert_fails(open_named(&s, "plain.safetensors", NULL, NULL, splits[i], err), FST_E_ABSENT,
                     "and \"images\" holds training samples");
        assert_fails(open_named(&s, "train-only.safetensors", "train_images", "train_labels", splits[i], err),
                     FST_E_ABSENT, "there is no array");
    }
    assert_fails(open_named(&s, "no-labels.safetensors", "x_train", "y", "test", err), FST_E_FORMAT,
                 "no array \"y_test\" in it");
    assert_fails(open_named(&s, "plain.safetensors", "pictures", "labels", "train", err), FST_E_FORMAT,
                 "\"pictures_train\" or \"pictures\" in it; it holds labels, images");
    put_tensors("others.safetensors", (fst_tensor[]){marked("data_train", 1), labels("labels_train")}, 2);
    assert_fails(open_named(&s, "others.safetensors", NULL, NULL, "train", err), FST_E_FORMAT,
                 "it holds labels_train, data_train; other names are x and y in the task file's data");
    assert_null(s);
}

static void a_named_file_is_its_own_split(void **state)
{
    fst_source *s = NULL;
    fst_tensor x = marked("x", 1), x_test = marked("x", 2), y = labels("y");
    (void)state;
    assert_ok(fst_make_folders(in_work("pair"), err));
    assert_ok(fst_npy_write(in_work("pair/a.npy"), &x, err));
    assert_ok(fst_npy_write(in_work("pair/y.npy"), &y, err));
    check_first("pair/a.npy", NULL, NULL, "train", 1);
    assert_fails(open_named(&s, "pair/a.npy", NULL, NULL, "test", err), FST_E_ABSENT, "no array \"a_test\" in it");
    assert_ok(fst_npy_write(in_work("pair/a_test.npy"), &x_test, err));
    assert_fails(open_named(&s, "pair/a.npy", NULL, NULL, "test", err), FST_E_FORMAT, "no array \"y_test\" in it");
    assert_ok(fst_npy_write(in_work("pair/y_test.npy"), &y, err));
    check_first("pair/a.npy", NULL, NULL, "test", 2);
    check_first("pair/a_test.npy", NULL, NULL, "test", 2);
    assert_fails(open_named(&s, "pair/a_test.npy", NULL, NULL, "train", err), FST_E_FORMAT,
                 "its name says test samples");
    assert_fails(open_named(&s, "pair/none.npy", NULL, NULL, "train", err), FST_E_IO, "no such file");
    assert_fails(open_named(&s, "nowhere", NULL, NULL, "train", err), FST_E_IO, "no such file or folder");
    assert_null(s);
}

/* ---- channels ------------------------------------------------------------------------------------- */

static void check_layout(const fst_shape *file, fst_layout layout, const fst_shape *want)
{
    unsigned char raw[2 * 6 * 5 * 3];
    fst_source *s = NULL;
    size_t count = (size_t)fst_shape_count(file);
    for (size_t i = 0; i < count; i++)
        raw[i] = (unsigned char)i;
    const fst_tensor x = {"x", FST_U8, *file, raw}, y = {"y", FST_U8, FST_SHAPE(2), (unsigned char[2]){0, 1}};
    put_tensors("layout.safetensors", (fst_tensor[]){x, y}, 2);
    fst_source_spec spec = {.path = in_work("layout.safetensors"), .layout = layout};
    if (!want) {
        assert_fails(fst_source_open(&s, &spec, err), FST_E_FORMAT, "layout nhwc turns them");
        assert_null(s);
        return;
    }
    assert_ok(fst_source_open(&s, &spec, err));
    assert_true(fst_shape_equal(&s->shape, want));
    /* element (c, i) of sample 1 is value (i, c) of the file when that has its channels last */
    size_t channels = (size_t)want->dim[0], inner = count / 2 / channels;
    unsigned char sample[sizeof raw];
    assert_ok(s->v->get(s, 1, sample, err));
    for (size_t c = 0; c < channels; c++)
        for (size_t i = 0; i < inner; i++)
            assert_int_equal(
                sample[c * inner + i],
                (unsigned char)(count / 2 + (layout == FST_LAYOUT_NHWC ? i * channels + c : c * inner + i)));
    fst_source_close(s);
}

static void channels_come_first(void **state)
{
    (void)state;
    check_layout(&FST_SHAPE(2, 6, 5), FST_LAYOUT_AUTO, &FST_SHAPE(1, 6, 5));
    check_layout(&FST_SHAPE(2, 6, 5), FST_LAYOUT_NCHW, &FST_SHAPE(6, 5));
    check_layout(&FST_SHAPE(2, 2, 7), FST_LAYOUT_AUTO, &FST_SHAPE(2, 7)); /* I and Q */
    check_layout(&FST_SHAPE(2, 7, 2), FST_LAYOUT_AUTO, NULL);
    check_layout(&FST_SHAPE(2, 7, 2), FST_LAYOUT_NHWC, &FST_SHAPE(2, 7));
    check_layout(&FST_SHAPE(2, 3, 6, 5), FST_LAYOUT_AUTO, &FST_SHAPE(3, 6, 5));
    check_layout(&FST_SHAPE(2, 6, 5, 3), FST_LAYOUT_AUTO, NULL);
    check_layout(&FST_SHAPE(2, 6, 5, 1), FST_LAYOUT_AUTO, NULL);
    check_layout(&FST_SHAPE(2, 6, 5, 3), FST_LAYOUT_NCHW, &FST_SHAPE(6, 5, 3));
    check_layout(&FST_SHAPE(2, 6, 5, 3), FST_LAYOUT_NHWC, &FST_SHAPE(3, 6, 5));
    check_layout(&FST_SHAPE(2, 6, 5, 1), FST_LAYOUT_NHWC, &FST_SHAPE(1, 6, 5));
    check_layout(&FST_SHAPE(2, 6, 5), FST_LAYOUT_NHWC, &FST_SHAPE(1, 6, 5)); /* grey: nothing to turn */
}

/* (N, 2, L) is channels first, as complex arrays become: turning it would make an image of two rows. */
static void what_is_channels_first_is_not_turned(void **state)
{
    static float parts[2 * 2 * 7];
    fst_source *s = NULL;
    fst_tensor x = {"x", FST_F32, FST_SHAPE(2, 2, 7), parts}, y = {"y", FST_U8, FST_SHAPE(2), (unsigned char[2]){0, 1}};
    (void)state;
    put_tensors("first.safetensors", (fst_tensor[]){x, y}, 2);
    assert_fails(
        fst_source_open(&s, &(fst_source_spec){.path = in_work("first.safetensors"), .layout = FST_LAYOUT_NHWC}, err),
        FST_E_CONFIG, "(2, 7) are channels first already");
    assert_null(s);
}

/* A folder of npy files under the names that people give them needs no setting. */
static void folders_of_npy_are_recognised(void **state)
{
    static const char *const pairs[][2] = {
        {"X_%s", "y_%s"}, {"x_%s", "y_%s"}, {"%s_images", "%s_labels"}, {"x_%s", "labels_%s"}, {"X-%s", "Y-%s"}};
    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        for (int test = 0; test < 2; test++) {
            char folder[32], name[2][64], path[96];
            fst_source *s = NULL;
            const fst_tensor both[] = {
                {"x", FST_U8, FST_SHAPE(2, 3), (unsigned char[6]){(unsigned char)(i + 7 * test)}},
                {"y", FST_U8, FST_SHAPE(2), (unsigned char[2]){0, 1}}};
            snprintf(folder, sizeof folder, "npy%zu", i);
            assert_ok(fst_make_folders(in_work(folder), err));
            for (int k = 0; k < 2; k++) {
                snprintf(name[k], sizeof name[k], "%s", pairs[i][k]);
                char *at = strstr(name[k], "%s");
                snprintf(path, sizeof path, "%s/%.*s%s%s.npy", folder, (int)(at - name[k]), name[k],
                         test ? "test" : "train", at + 2);
                assert_ok(fst_npy_write(in_work(path), &both[k], err));
            }
            const fst_source_spec spec = {.path = in_work(folder), .split = test ? "test" : "train"};
            unsigned char first[3];
            assert_ok(fst_source_open(&s, &spec, err));
            assert_string_equal(s->v->format, "array");
            assert_ok(s->v->get(s, 0, first, err));
            assert_int_equal(first[0], i + 7 * (size_t)test);
            fst_source_close(s);
        }
}

/* What fedstill wrote has its channels first, whatever it looks like. */
static void own_files_keep_their_shape(void **state)
{
    static unsigned char raw[2 * 7 * 5 * 3];
    fst_source *s = NULL, *again = NULL;
    const fst_tensor x = {"x", FST_U8, FST_SHAPE(2, 7, 5, 3), raw}, y = {"y", FST_U8, FST_SHAPE(2), raw};
    (void)state;
    put_tensors("odd.safetensors", (fst_tensor[]){x, y}, 2);
    assert_ok(
        fst_source_open(&s, &(fst_source_spec){.path = in_work("odd.safetensors"), .layout = FST_LAYOUT_NCHW}, err));
    assert_ok(fst_source_write(s, NULL, 0, in_work("own-odd.safetensors"), NULL, err));
    assert_ok(open_array(&again, "own-odd.safetensors", NULL, err));
    assert_string_equal(s->digest, again->digest);
    fst_source_close(s);
    fst_source_close(again);
}

/* ---- what users are told ------------------------------------------------------------------------------ */

static char said[2000];

static void listen(void *ctx, fst_log_level level, const char *message)
{
    (void)ctx;
    if (level == FST_LOG_WARN)
        snprintf(said + strlen(said), sizeof said - strlen(said), "%s\n", message);
}

static void check_warning(const char *file, const uint8_t *values_of, int classes_wanted, const char *text)
{
    fst_source *s = NULL;
    const fst_tensor y = {"y", FST_U8, FST_SHAPE(N), (void *)(uintptr_t)values_of};
    fst_source_spec spec = {.path = in_work(file), .classes = classes_wanted};
    put_tensors(file, (fst_tensor[]){samples("x"), y}, 2);
    said[0] = 0;
    fst_log_set(listen, NULL);
    for (int i = 0; i < 2; i++) { /* once, however often it is opened */
        assert_ok(fst_source_open(&s, &spec, err));
        fst_source_close(s);
    }
    fst_log_set(NULL, NULL);
    if (!text)
        assert_string_equal(said, "");
    else if (!strstr(said, text) || strchr(said, '\n') != said + strlen(said) - 1)
        fail_msg("\"%s\" instead of one warning with \"%s\"", said, text);
}

static void classes_without_samples_are_named(void **state)
{
    (void)state;
    check_warning("w1.safetensors", (uint8_t[N]){0, 1, 2, 1}, 0, NULL);
    check_warning("w2.safetensors", (uint8_t[N]){3, 1, 2, 1}, 0, "labels begin at 1, so class 0 has no samples");
    check_warning("w3.safetensors", (uint8_t[N]){0, 1, 5, 3}, 0, "2 of 6 classes have no samples: 2, 4");
    check_warning("w4.safetensors", (uint8_t[N]){0, 1, 5, 3}, 6, NULL); /* six were asked for */
}

static void foreign_files_are_named(void **state)
{
    static const char lfs[] = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n";
    static const char html[] = "\n<!DOCTYPE html><html><body>404</body></html>";
    static const char *const files[] = {"f.safetensors", "f.npz", "f/x.npy"};
    fst_source *s = NULL;
    (void)state;
    put_file("f/y.npy", lfs, sizeof lfs - 1);
    for (int i = 0; i < 3; i++) {
        put_file(files[i], lfs, sizeof lfs - 1);
        assert_fails(open_array(&s, files[i], NULL, err), FST_E_FORMAT, "a pointer of Git LFS");
        put_file(files[i], html, sizeof html - 1);
        if (i < 2)
            assert_fails(open_array(&s, files[i], NULL, err), FST_E_FORMAT, "an HTML page");
        put_file(files[i], "", 0);
        if (i < 2)
            assert_fails(open_array(&s, files[i], NULL, err), FST_E_FORMAT, "the file is empty");
    }
    assert_null(s);
}

/* NumPy's np.exp(1j * phase): I and Q become channels. The file: 6 windows of 64, x[0,1] is 0.015625 - 0.03125j. */
static void complex_arrays_are_signals(void **state)
{
    char path[1024];
    const char *source = getenv("FEDSTILL_SOURCE");
    fst_source *s = NULL;
    float x[128];
    (void)state;
    snprintf(path, sizeof path, "%s/tests/data/complex64.npz", source ? source : ".");
    assert_ok(fst_source_open(&s, &(fst_source_spec){.path = path}, err));
    assert_int_equal(s->count, 6);
    assert_true(s->dtype == FST_F32 && fst_shape_equal(&s->shape, &FST_SHAPE(2, 64)));
    assert_ok(s->v->get(s, 0, x, err));
    assert_true(x[1] == 0.015625f && x[65] == -0.03125f);
    fst_source_close(s);
}

/* Names of classes go to terminals, tables and pages. */
static void names_of_classes_are_plain(void **state)
{
    static char control[] = "b\x1B[31m", latin[] = "\xFC", c1[] = "\xC2\x9B", right_to_left[] = "\xE2\x80\xAE",
                empty[] = "";
    char most[256], more[257], *const bad[] = {control, latin, c1, right_to_left, empty, more};
    float x[2] = {0, 1};
    uint8_t y[2] = {0, 1};
    const fst_tensor arrays[] = {{"x", FST_F32, FST_SHAPE(2, 1), x}, {"y", FST_U8, FST_SHAPE(2), y}};
    fst_source *s = NULL;
    (void)state;
    memset(more, 'a', sizeof more - 1);
    memset(most, 'a', sizeof most - 1);
    more[sizeof more - 1] = most[sizeof most - 1] = 0;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char *names[] = {"a", bad[i]};
        assert_ok(fst_npz_write(in_work("n.npz"), arrays, 2, "classes", names, 2, NULL, err));
        assert_fails(open_array(&s, "n.npz", NULL, err), FST_E_FORMAT, "n.npz: the name of class 1 ");
        assert_null(s);
    }
    char *names[] = {"gr\xC3\xBC\xC3\x9F", most};
    assert_ok(fst_npz_write(in_work("n.npz"), arrays, 2, "classes", names, 2, NULL, err));
    assert_ok(open_array(&s, "n.npz", NULL, err));
    fst_source_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(other_floats_are_converted),
        cmocka_unit_test(folders_of_npy_are_recognised),
        cmocka_unit_test(npz_and_npy_convert_too),
        cmocka_unit_test(every_integer_is_a_label),
        cmocka_unit_test(splits_and_names),
        cmocka_unit_test(numbers_have_one_element),
        cmocka_unit_test(bad_arrays_are_refused),
        cmocka_unit_test(labels_of_all_types_are_read),
        cmocka_unit_test(empty_texts_take_no_time),
        cmocka_unit_test(numbers_of_bursts_have_limits),
        cmocka_unit_test(a_name_of_one_split_stands_for_all),
        cmocka_unit_test(training_samples_never_test),
        cmocka_unit_test(a_named_file_is_its_own_split),
        cmocka_unit_test(channels_come_first),
        cmocka_unit_test(what_is_channels_first_is_not_turned),
        cmocka_unit_test(own_files_keep_their_shape),
        cmocka_unit_test(classes_without_samples_are_named),
        cmocka_unit_test(foreign_files_are_named),
        cmocka_unit_test(names_of_classes_are_plain),
        cmocka_unit_test(complex_arrays_are_signals),
    };
    return cmocka_run_group_tests(tests, make_work_folder, remove_work_folder);
}
