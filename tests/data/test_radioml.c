/* RadioML's pickles: conformance in every protocol and as Python 2 wrote them, the split form, and what is wrong.
 * The files are made by make_pickles.py. */
#define _GNU_SOURCE
#include "conformance.h"

static const char *file(const char *name)
{
    static char paths[8][1024];
    static int next;
    char *p = paths[next++ % 8];
    const char *source = getenv("FEDSTILL_SOURCE");
    snprintf(p, sizeof paths[0], "%s/tests/data/pickles/%s.pkl", source ? source : ".", name);
    return p;
}

static fst_status open_radioml(fst_source **s, const char *name, const char *split, fst_error *err)
{
    return fst_source_open(s, &(fst_source_spec){.format = "radioml", .path = file(name), .split = split}, err);
}

/* make_pickles.py's block(first, n) */
static void block(float *x, float first, size_t n)
{
    for (size_t i = 0; i < n * 8; i++)
        x[i] = first + 0.5f * (float)i;
}

static void every_protocol_conforms(void **state)
{
    static const char *const names[] = {"radioml0", "radioml1", "radioml2", "radioml3",
                                        "radioml4", "radioml5", "python2"};
    static const int32_t labels[6] = {0, 0, 0, 1, 1, 1};
    static const float snr[6] = {-4, 10, 10, -20, 10, 10};
    float x[6 * 8];
    (void)state;
    /* by label, then SNR */
    block(x, 100, 1);
    block(x + 8, 300, 2);
    block(x + 24, 100, 1);
    block(x + 32, 0, 2);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct expected want = {FST_F32, FST_SHAPE(2, 4), 6, 2, x, labels};
        fst_source *s = NULL;
        conformance(&(fst_source_spec){.format = "radioml", .path = file(names[i])}, &want);
        assert_ok(open_radioml(&s, names[i], NULL, err));
        assert_string_equal(s->class_names[0], "8PSK");
        assert_string_equal(s->class_names[1], "QPSK");
        assert_memory_equal(s->snr, snr, sizeof snr);
        assert_null(s->group);
        fst_source_close(s);
    }
}

static void splits_are_read(void **state)
{
    static const char *const splits[] = {"train", "val", "test"};
    static const size_t counts[] = {3, 1, 2};
    static const float firsts[] = {0, 50, 70};
    static const int32_t labels[][3] = {{2, 0, 1}, {1}, {0, 2}};
    (void)state;
    for (int i = 0; i < 3; i++) {
        fst_source *s = NULL;
        float want[24], got[8];
        block(want, firsts[i], counts[i]);
        assert_ok(open_radioml(&s, "splits", splits[i], err));
        assert_int_equal(s->count, counts[i]);
        assert_memory_equal(s->labels, labels[i], counts[i] * sizeof **labels);
        assert_null(s->class_names);
        assert_null(s->snr);
        for (size_t k = 0; k < counts[i]; k++) {
            assert_ok(s->v->get(s, k, got, err));
            assert_memory_equal(got, want + 8 * k, sizeof got);
        }
        fst_source_close(s);
    }
}

static void doubles_numbers_and_latin1(void **state)
{
    fst_source *s = NULL;
    float x[8];
    (void)state;
    assert_ok(open_radioml(&s, "doubles", NULL, err));
    assert_int_equal(s->count, 2);
    assert_string_equal(s->class_names[1], "\xC3\xBC"); /* bytes are Latin-1 */
    assert_true(s->snr[0] == 3 && s->snr[1] == 2.5f);
    assert_ok(s->v->get(s, 0, x, err));
    for (int i = 0; i < 8; i++)
        assert_true(x[i] == 0.25f);
    fst_source_close(s);
}

/* 2016.10b calls its pickle .dat, as others call other things. */
static void dat_files_are_looked_into(void **state)
{
    static const char *const names[] = {"radioml0", "radioml1", "radioml4", "python2"};
    fst_source *s = NULL;
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        fst_buf b = {0};
        assert_ok(fst_file_read(file(names[i]), 1 << 20, &b, err));
        put_file("RML2016.10b.dat", b.data, b.len);
        fst_buf_release(&b);
        assert_ok(fst_source_open(&s, &(fst_source_spec){.path = in_work("RML2016.10b.dat")}, err));
        assert_string_equal(s->v->format, "radioml");
        assert_int_equal(s->count, 6);
        fst_source_close(s);
        s = NULL;
    }
    put_file("other.dat", "0.5 0.25\n", 9);
    assert_fails(fst_source_open(&s, &(fst_source_spec){.path = in_work("other.dat")}, err), FST_E_FORMAT,
                 "holds no data set");
}

/* ---- RadioML 2018's HDF5, made by make_hdf5.py ------------------------------------------------ */

static const char *hdf5(const char *name)
{
    static char paths[4][1024];
    static int next;
    char *p = paths[next++ % 4];
    const char *source = getenv("FEDSTILL_SOURCE");
    snprintf(p, sizeof paths[0], "%s/tests/data/hdf5/%s.hdf5", source ? source : ".", name);
    return p;
}

/* False in a build without libhdf5, which says so. */
static bool reads_hdf5(void)
{
    fst_source *s = NULL;
    fst_error e;
    fst_status st = fst_source_open(&s, &(fst_source_spec){.path = hdf5("gold")}, &e);
    if (st == FST_E_UNSUPPORTED)
        assert_non_null(strstr(e.message, "without libhdf5"));
    fst_source_close(s);
    return st != FST_E_UNSUPPORTED;
}

static void radioml_2018_is_read(void **state)
{
    static const char *const names[] = {"gold", "chunks", "doubles"};
    static const int32_t many[6] = {0, 3, 23, 4, 0, 7}, few[6] = {0, 0, 2, 1, 0, 1};
    static const float snr[6] = {-20, -18, -16, -14, -12, -10};
    float x[6 * 8];
    (void)state;
    if (!reads_hdf5())
        return;
    for (int k = 0; k < 6; k++)
        for (int i = 0; i < 4; i++) {
            x[8 * k + i] = (float)(10 * (k == 3 ? 0 : k) + i);
            x[8 * k + 4 + i] = -(x[8 * k + i] + 0.5f);
        }
    for (int f = 0; f < 3; f++) {
        struct expected want = {FST_F32, FST_SHAPE(2, 4), 6, f < 2 ? 24 : 3, x, f < 2 ? many : few};
        fst_source *s = NULL;
        conformance(&(fst_source_spec){.format = "radioml", .path = hdf5(names[f])}, &want);
        assert_ok(fst_source_open(&s, &(fst_source_spec){.path = hdf5(names[f])}, err)); /* known by its first bytes */
        assert_string_equal(s->v->format, "radioml");
        assert_memory_equal(s->snr, snr, sizeof snr);
        assert_true((s->class_names != NULL) == (f < 2));
        if (f < 2) {
            assert_string_equal(s->class_names[3], "BPSK");
            assert_string_equal(s->class_names[23], "OQPSK");
        }
        fst_source_close(s);
    }
}

static void damaged_hdf5_is_refused(void **state)
{
    static const struct {
        const char *name;
        fst_status want;
        const char *says;
    } cases[] = {
        {"no_y", FST_E_FORMAT, "Y is not there"},
        {"rows", FST_E_MISMATCH, "X has 6 rows, Y 5 and Z 6"},
        {"shape", FST_E_FORMAT, "X has another shape"},
        {"two_ones", FST_E_FORMAT, "row 1 of Y is not one 1 and zeros"},
        {"nan", FST_E_NUMERIC, "sample 0, element 0 is nan"},
        {"texts", FST_E_FORMAT, "X holds no numbers"},
        {"group", FST_E_FORMAT, "X is damaged, or no data set"},
        {"claims", FST_E_FORMAT, "X claims more values than are in the file"},
        {"chunk", FST_E_LIMIT, "X has chunks of more than 64 MB"},
        {"outside", FST_E_UNSUPPORTED, "the values of X are not in the file itself"},
        {"virtual", FST_E_UNSUPPORTED, "the values of X are not in the file itself"},
        {"link", FST_E_UNSUPPORTED, "X is a link to another place"},
    };
    fst_source *s = NULL;
    fst_buf b = {0};
    (void)state;
    if (!reads_hdf5())
        return;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_fails(fst_source_open(&s, &(fst_source_spec){.path = hdf5(cases[i].name)}, err), cases[i].want,
                     cases[i].says);
    assert_fails(fst_source_open(&s, &(fst_source_spec){.path = hdf5("gold"), .split = "test"}, err), FST_E_ABSENT,
                 "has no test split");
    assert_fails(fst_source_open(&s, &(fst_source_spec){.path = hdf5("gold"), .classes = 7}, err), FST_E_CONFIG,
                 "Y has 24 columns, but 7 classes");
    assert_ok(fst_file_read(hdf5("gold"), 1 << 20, &b, err));
    for (size_t n = 8; n < b.len; n += 101) {
        put_file("cut.hdf5", b.data, n);
        assert_fails(fst_source_open(&s, &(fst_source_spec){.path = in_work("cut.hdf5")}, err), FST_E_FORMAT, "cut");
    }
    for (size_t i = 8; i < b.len; i += 31) { /* whatever it becomes: an error or samples */
        fst_error why;
        char was = b.data[i];
        b.data[i] = (char)~was;
        put_file("bent.hdf5", b.data, b.len);
        fst_status st = fst_source_open(&s, &(fst_source_spec){.path = in_work("bent.hdf5"), .limit = 100}, &why);
        assert_true((st == FST_OK) == (s != NULL));
        fst_source_close(s);
        s = NULL;
        b.data[i] = was;
    }
    fst_buf_release(&b);
}

/* libhdf5 1.10.8 dies of the first two, and takes all memory for the third. */
static void what_kills_libhdf5_is_an_error(void **state)
{
    static const char *const names[] = {"dies-1", "dies-2", "grows"};
    const char *source = getenv("FEDSTILL_SOURCE");
    (void)state;
    if (!reads_hdf5())
        return;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (size_t limit = 0; limit < 4; limit += 3) {
            char path[1024];
            fst_source *s = NULL;
            snprintf(path, sizeof path, "%s/fuzz/corpus/hdf5/%s.hdf5", source ? source : ".", names[i]);
            assert_fails(fst_source_open(&s, &(fst_source_spec){.path = path, .limit = limit}, err), FST_E_FORMAT,
                         names[i]);
        }
}

static void what_is_wrong_is_said(void **state)
{
    static const struct {
        const char *name, *split;
        fst_status want;
        const char *says;
    } cases[] = {
        {"radioml4", "test", FST_E_ABSENT, "has no test split"},
        {"wrong_split", "train", FST_E_MISMATCH, "'train' has 2 samples and 3 labels"},
        {"wrong_split", "test", FST_E_FORMAT, "'test' is not there, or not a pair"},
        {"wrong_split", "val", FST_E_ABSENT, "'val' is not there"},
        {"wrong_shape", NULL, FST_E_MISMATCH, "b has shape (2, 2, 5), others have 4"},
        {"wrong_key", NULL, FST_E_FORMAT, "entry 1 of the dictionary is not (label, snr in dB)"},
        {"wrong_type", NULL, FST_E_FORMAT, "entry 0 of the dictionary is not"},
        {"wrong_nan", NULL, FST_E_NUMERIC, "sample 1, element 0 is nan"},
        {"none", NULL, FST_E_FORMAT, "holds no dictionary"},
        {"evil4", NULL, FST_E_FORMAT, "posix.system is not allowed"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fst_source *s = NULL;
        assert_fails(open_radioml(&s, cases[i].name, cases[i].split, err), cases[i].want, cases[i].says);
        assert_null(s);
    }
    fst_source *s = NULL;
    assert_fails(fst_source_open(&s, &(fst_source_spec){.path = file("radioml4"), .classes = 3}, err), FST_E_CONFIG,
                 "has 2 labels, but 3 classes");
    assert_fails(fst_source_open(&s, &(fst_source_spec){.path = file("splits"), .classes = 2}, err), FST_E_FORMAT,
                 "sample 0 has label 2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_protocol_conforms),        cmocka_unit_test(splits_are_read),
        cmocka_unit_test(doubles_numbers_and_latin1),     cmocka_unit_test(dat_files_are_looked_into),
        cmocka_unit_test(radioml_2018_is_read),           cmocka_unit_test(damaged_hdf5_is_refused),
        cmocka_unit_test(what_kills_libhdf5_is_an_error), cmocka_unit_test(what_is_wrong_is_said),
    };
    return cmocka_run_group_tests(tests, make_work_folder, remove_work_folder);
}
