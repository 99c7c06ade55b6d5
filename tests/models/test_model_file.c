/* Model files: what is written comes back bit by bit; what does not fit is named; nothing is half loaded. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <unistd.h>

#include "fedstill/models.h"
#include "nn/support.h"

static char folder[] = "/tmp/fedstill-models-XXXXXX";
static char path[128];

static int set_up(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    (void)unlink(path);
    return rmdir(folder);
}

static void new_model(fst_model *m, const char *arch, const fst_model_config *c)
{
    assert_ok(fst_model_init(m, arch, c, err));
    fill_state(&m->state, m->graph, 21);
    for (size_t i = 0; i < m->state.counter_count; i++)
        m->state.counters[i] = (int64_t)1 << (33 + i % 29);
}

static void same_state(const fst_model *a, const fst_model *b)
{
    assert_int_equal(a->state.param_count, b->state.param_count);
    assert_int_equal(a->state.buffer_count, b->state.buffer_count);
    assert_int_equal(a->state.counter_count, b->state.counter_count);
    assert_memory_equal(a->state.params, b->state.params, a->state.param_count * sizeof(float));
    assert_memory_equal(a->state.buffers, b->state.buffers, a->state.buffer_count * sizeof(float));
    assert_memory_equal(a->state.counters, b->state.counters, a->state.counter_count * sizeof(int64_t));
}

/* ---- round trips ---------------------------------------------------------------------------------------- */

static void every_network_comes_back(void **state)
{
    (void)state;
    for (size_t i = 0; i < fst_models(); i++) {
        fst_model m, r = {0};
        char digest[FST_DIGEST_HEX], again[FST_DIGEST_HEX];
        fst_model_info info = fst_model_at(i);
        fst_model_config c = {.classes = info.classes == 10 ? 7 : 0};
        if (!strncmp(info.name, "complex_", 8)) /* 52 million parameters otherwise */
            c.width = 0.25;
        new_model(&m, info.name, &c);
        assert_ok(fst_model_save(&m, path, NULL, 0, digest, err));
        assert_ok(fst_sha256_file(path, again, err));
        assert_string_equal(digest, again);
        assert_ok(fst_model_load(&r, path, err));
        assert_string_equal(r.arch, info.name);
        assert_int_equal(r.classes, m.classes);
        assert_int_equal(r.config.classes, m.classes);
        assert_true(fst_shape_equal(&r.config.input, &m.config.input));
        assert_int_equal(r.channels, 0);
        assert_null(r.class_names);
        same_state(&m, &r);
        /* and what came back is written as the same bytes */
        assert_ok(fst_model_save(&r, path, NULL, 0, again, err));
        assert_string_equal(digest, again);
        fst_model_release(&r);
        fst_model_release(&m);
    }
}

static void everything_else_comes_back(void **state)
{
    static char *names[] = {"cat \"x\"", "d\xc3\xb6g", "", "a,b\n"};
    static const fst_pair more[] = {{"stage", "cloud_pretrain"}, {"note", "seed 7"}};
    (void)state;
    fst_model m, r = {0};
    fst_safetensors *f = NULL;
    fst_model_config c = {.classes = 4, .input = FST_SHAPE(3, 12, 10), .dropout1 = 0.125, .dropout2 = -1};
    new_model(&m, "pfl_cifar", &c);
    m.channels = 3;
    for (int i = 0; i < 3; i++) {
        m.mean[i] = 0.1307f + 0.1f * (float)i;
        m.std[i] = 1e-7f * (float)(i + 1) / 3;
    }
    assert_ok(fst_model_set_class_names(&m, names, 4, err));
    m.state.params[0] = -0.0f;
    m.state.params[1] = 1e-45f;
    assert_ok(fst_model_save(&m, path, more, 2, NULL, err));
    assert_ok(fst_model_load(&r, path, err));
    same_state(&m, &r);
    assert_true(r.config.dropout1 == 0.125 && r.config.dropout2 == -1);
    assert_int_equal(r.channels, 3);
    assert_memory_equal(r.mean, m.mean, sizeof m.mean);
    assert_memory_equal(r.std, m.std, sizeof m.std);
    for (int i = 0; i < 4; i++)
        assert_string_equal(r.class_names[i], names[i]);
    assert_ok(fst_safetensors_open(&f, path, err));
    assert_string_equal(fst_safetensors_meta(f, "stage"), "cloud_pretrain");
    assert_string_equal(fst_safetensors_meta(f, "note"), "seed 7");
    assert_string_equal(fst_safetensors_meta(f, "input"), "3,12,10");
    fst_safetensors_free(f);
    fst_model_release(&r);
    fst_model_release(&m);
}

static void class_names_are_checked(void **state)
{
    static char *names[] = {"a", "b\xff", "c"};
    (void)state;
    fst_model m;
    fst_model_config c = {.classes = 3, .input = FST_SHAPE(4)};
    new_model(&m, "logistic_regression", &c);
    assert_fails(fst_model_set_class_names(&m, names, 2, err), FST_E_MISMATCH, "2 class names for 3 classes");
    assert_null(m.class_names);
    assert_ok(fst_model_set_class_names(&m, names, 3, err));
    assert_ok(fst_model_set_class_names(&m, m.class_names, 3, err)); /* from itself */
    assert_string_equal(m.class_names[0], "a");
    (void)unlink(path);
    assert_fails(fst_model_save(&m, path, NULL, 0, NULL, err), FST_E_ARGUMENT, "class 1 is not UTF-8");
    assert_false(fst_file_exists(path));
    fst_model_release(&m);
}

static void names_of_networks(void **state)
{
    (void)state;
    fst_model m = {0};
    char name[200];
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = 0;
    assert_fails(fst_model_init(&m, "resnet_of_dreams", NULL, err), FST_E_CONFIG, "mnist_teacher");
    assert_fails(fst_model_init(&m, name, NULL, err), FST_E_CONFIG, "too long");
    fst_model_config c = {.classes = 70000};
    assert_fails(fst_model_init(&m, "mnist_student", &c, err), FST_E_CONFIG, "70000");
    c = (fst_model_config){.input = FST_SHAPE(1, 2, 2)};
    assert_fails(fst_model_init(&m, "mnist_student", &c, err), FST_E_ARGUMENT, "input (1, 2, 2)");
    assert_null(m.graph);
}

/* ---- tensors that do not fit --------------------------------------------------------------------------- */

struct file { /* what a test writes: the tensors and metadata of a small good file, to be changed */
    fst_pair meta[16];
    size_t nmeta;
    fst_tensor tensors[16];
    size_t ntensors;
    float weight[12], bias[3];
    double wide[12];
};

static void good_file(struct file *f)
{
    static const fst_pair meta[] = {{"format", FST_MODEL_FORMAT},
                                    {"arch", "logistic_regression"},
                                    {"classes", "3"},
                                    {"input", "1,2,2"},
                                    {"dropout", "0,0"},
                                    {"normalise_mean", "0.5"},
                                    {"normalise_std", "0.25"},
                                    {"class_names", "[\"a\",\"b\",\"c\"]"}};
    *f = (struct file){.nmeta = sizeof meta / sizeof *meta, .ntensors = 2};
    memcpy(f->meta, meta, sizeof meta);
    fill_normal(f->weight, 12, 1, "test.weight", 1);
    f->tensors[0] = (fst_tensor){"fc.weight", FST_F32, FST_SHAPE(3, 4), f->weight};
    f->tensors[1] = (fst_tensor){"fc.bias", FST_F32, FST_SHAPE(3), f->bias};
}

static void put(const struct file *f)
{
    assert_ok(fst_safetensors_write(path, f->meta, f->nmeta, f->tensors, f->ntensors, NULL, err));
}

static void set_meta(struct file *f, const char *key, const char *value)
{
    for (size_t i = 0; i < f->nmeta; i++)
        if (!strcmp(f->meta[i].key, key)) {
            f->meta[i].value = value;
            if (!value)
                f->meta[i] = f->meta[--f->nmeta];
            return;
        }
    f->meta[f->nmeta++] = (fst_pair){key, value};
}

static void refused(const struct file *f, fst_status status, const char *text)
{
    fst_model m, was;
    memset(&m, 0x5a, sizeof m);
    memcpy(&was, &m, sizeof m);
    put(f);
    assert_fails(fst_model_load(&m, path, err), status, text);
    assert_fails(fst_model_load(&m, path, err), status, path);
    assert_memory_equal(&m, &was, sizeof m);
}

static void foreign_files_are_read(void **state)
{
    (void)state;
    struct file f;
    fst_model m = {0};
    good_file(&f);
    put(&f);
    assert_ok(fst_model_load(&m, path, err));
    assert_int_equal(m.channels, 1);
    assert_true(m.mean[0] == 0.5f && m.std[0] == 0.25f);
    assert_false(m.fingerprint);
    assert_memory_equal(m.state.params, f.weight, sizeof f.weight);
    fst_model_release(&m);
    for (int i = 0; i < 12; i++)
        f.wide[i] = (double)f.weight[i];
    f.tensors[0].dtype = FST_F64;
    f.tensors[0].data = f.wide;
    const char *optional[] = {"dropout", "normalise_mean", "normalise_std", "class_names"};
    for (size_t i = 0; i < 4; i++)
        set_meta(&f, optional[i], NULL);
    put(&f);
    assert_ok(fst_model_load(&m, path, err));
    assert_int_equal(m.channels, 0);
    assert_null(m.class_names);
    assert_memory_equal(m.state.params, f.weight, sizeof f.weight);
    fst_model_release(&m);
}

static void what_the_network_sees_is_kept(void **state)
{
    (void)state;
    struct file f;
    fst_model m = {0}, again = {0};
    good_file(&f);
    set_meta(&f, "features", "fingerprint");
    put(&f);
    assert_ok(fst_model_load(&m, path, err));
    assert_true(m.fingerprint);
    assert_ok(fst_model_save(&m, path, NULL, 0, NULL, err));
    assert_ok(fst_model_load(&again, path, err));
    assert_true(again.fingerprint);
    fst_model_release(&m);
    fst_model_release(&again);
}

static void tensors_that_do_not_fit_are_named(void **state)
{
    (void)state;
    struct file f;
    good_file(&f);
    f.tensors[1].name = "fc.bais";
    refused(&f, FST_E_MISMATCH, "missing fc.bias (3,)");
    refused(&f, FST_E_MISMATCH, "extra fc.bais");
    refused(&f, FST_E_MISMATCH, "2 tensors do not fit");
    good_file(&f);
    f.tensors[0].shape = FST_SHAPE(4, 3);
    refused(&f, FST_E_MISMATCH, "fc.weight is (4, 3), not (3, 4)");
    f.tensors[1].shape = FST_SHAPE(1, 3);
    refused(&f, FST_E_MISMATCH, "fc.weight is (4, 3), not (3, 4); fc.bias is (1, 3), not (3,)");
    good_file(&f);
    f.ntensors = 1;
    refused(&f, FST_E_MISMATCH, "missing fc.bias");
    f.ntensors = 0;
    refused(&f, FST_E_MISMATCH, "missing fc.weight (3, 4); missing fc.bias (3,)");
    good_file(&f);
    static char long_names[12][300];
    for (int i = 0; i < 12; i++) { /* the message holds, whatever the names */
        memset(long_names[i], 'a' + i, sizeof long_names[i] - 1);
        f.tensors[2 + i] = (fst_tensor){long_names[i], FST_F32, FST_SHAPE(3), f.bias};
        f.ntensors++;
    }
    refused(&f, FST_E_MISMATCH, "12 tensors do not fit");
    refused(&f, FST_E_MISMATCH, "...");
}

static void counters_are_whole_numbers(void **state)
{
    (void)state;
    fst_model m, r = {0};
    fst_model_config c = {.classes = 3};
    fst_tensor t[40];
    fst_pair meta[] = {{"format", FST_MODEL_FORMAT}, {"arch", "fedgen_mnist"}, {"classes", "3"}, {"input", "1,28,28"}};
    double count = 4;
    size_t n = 0;
    new_model(&m, "fedgen_mnist", &c);
    for (size_t i = 0; i < fst_graph_params(m.graph); i++) {
        fst_param_info p = fst_graph_param(m.graph, i);
        t[n++] = (fst_tensor){p.name, FST_F32, p.shape, m.state.params + p.offset};
    }
    for (size_t i = 0; i < fst_graph_buffers(m.graph); i++) {
        fst_param_info p = fst_graph_buffer(m.graph, i);
        t[n++] = (fst_tensor){p.name, FST_F32, p.shape, m.state.buffers + p.offset};
    }
    t[n++] = (fst_tensor){fst_graph_counter(m.graph, 0), FST_I64, FST_SHAPE(1), m.state.counters};
    t[n++] = (fst_tensor){fst_graph_counter(m.graph, 1), FST_I64, {0}, m.state.counters + 1};
    assert_ok(fst_safetensors_write(path, meta, 4, t, n, NULL, err));
    assert_ok(fst_model_load(&r, path, err));
    same_state(&m, &r);
    fst_model_release(&r);
    t[n - 1].dtype = FST_F64;
    t[n - 1].data = &count;
    assert_ok(fst_safetensors_write(path, meta, 4, t, n, NULL, err));
    assert_fails(fst_model_load(&r, path, err), FST_E_MISMATCH, "num_batches_tracked is F64, not I64");
    fst_model_release(&m);
}

/* ---- metadata that lies ----------------------------------------------------------------------------------- */

static void metadata_is_checked(void **state)
{
    static const struct {
        const char *key, *value;
        fst_status status;
        const char *text;
    } cases[] = {
        {"format", NULL, FST_E_FORMAT, "no \"format\""},
        {"format", "fedstill-model-9", FST_E_FORMAT, "\"fedstill-model-1\" is needed"},
        {"arch", NULL, FST_E_FORMAT, "no \"arch\""},
        {"arch", "perceptron", FST_E_CONFIG, "no model \"perceptron\""},
        {"arch", "mnist_student", FST_E_ARGUMENT, "mnist_student"},
        {"classes", NULL, FST_E_FORMAT, "no \"classes\""},
        {"classes", "", FST_E_FORMAT, "1 to 65536"},
        {"classes", "1000000000", FST_E_FORMAT, "1 to 65536"},
        {"classes", "99999999999999999999", FST_E_FORMAT, "1 to 65536"},
        {"classes", "-3", FST_E_FORMAT, "1 to 65536"},
        {"classes", "3x", FST_E_FORMAT, "1 to 65536"},
        {"classes", "4", FST_E_MISMATCH, "fc.bias is (3,), not (4,)"},
        {"input", NULL, FST_E_FORMAT, "no \"input\""},
        {"input", "", FST_E_FORMAT, "not a shape"},
        {"input", "1,2,x", FST_E_FORMAT, "not a shape"},
        {"input", "1,2,2,1,1", FST_E_FORMAT, "not a shape"},
        {"input", "0,2,2", FST_E_FORMAT, "not a shape"},
        {"input", "1,-2,-2", FST_E_FORMAT, "not a shape"},
        {"input", "1099511627776", FST_E_FORMAT, "not a shape"},
        {"input", "1048576,1048576", FST_E_LIMIT, "more than"},
        {"input", "16777216,16777216,16777216", FST_E_ARGUMENT, "logistic_regression"},
        {"input", "1,65536,65536", FST_E_LIMIT, "fc"},
        {"input", "1,2,3", FST_E_MISMATCH, "fc.weight is (3, 4), not (3, 6)"},
        {"normalise_mean", NULL, FST_E_FORMAT, "do not go together"},
        {"normalise_mean", "0.5,0.5", FST_E_FORMAT, "do not go together"},
        {"normalise_mean", "nan", FST_E_FORMAT, "do not go together"},
        {"normalise_std", "inf", FST_E_FORMAT, "do not go together"},
        {"normalise_std", "0", FST_E_FORMAT, "above 0"},
        {"normalise_std", "-1", FST_E_FORMAT, "above 0"},
        {"normalise_std", "one", FST_E_FORMAT, "do not go together"},
        {"features", "", FST_E_FORMAT, "\"fingerprint\" is"},
        {"features", "spectrum", FST_E_FORMAT, "\"spectrum\" are not known"},
        {"dropout", "0.5", FST_E_FORMAT, "two numbers"},
        {"dropout", "1,0", FST_E_FORMAT, "below 1"},
        {"dropout", "nan,0", FST_E_FORMAT, "below 1"},
        {"class_names", "", FST_E_FORMAT, "not a list"},
        {"class_names", "{}", FST_E_FORMAT, "not a list"},
        {"class_names", "[\"a\",\"b\"]", FST_E_FORMAT, "list of 3 names"},
        {"class_names", "[\"a\",\"b\",3]", FST_E_FORMAT, "list of 3 names"},
        {"class_names", "[\"a\",\"b\",", FST_E_FORMAT, "not a list"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct file f;
        good_file(&f);
        set_meta(&f, cases[i].key, cases[i].value);
        refused(&f, cases[i].status, cases[i].text);
    }
    struct file f;
    good_file(&f);
    set_meta(&f, "normalise_mean", "0,0,0");
    set_meta(&f, "normalise_std", "1,1,1");
    refused(&f, FST_E_FORMAT, "3 entries for an input of 1 channels");
    char many[65 * 2 + 1] = "0";
    for (int i = 0; i < 64; i++)
        strcat(many, ",1");
    set_meta(&f, "normalise_mean", many);
    refused(&f, FST_E_FORMAT, "do not go together");
}

/* A small file that asks for gigabytes is refused for what it holds, before they are taken. */
static void promises_take_no_memory(void **state)
{
    (void)state;
    struct file f;
    fst_model m = {0};
    good_file(&f);
    set_meta(&f, "class_names", NULL);
    set_meta(&f, "classes", "60000");
    set_meta(&f, "input", "1,250,250"); /* 15 GB of weights, within every single limit */
    put(&f);
    double start = fst_clock_seconds();
    assert_fails(fst_model_load(&m, path, err), FST_E_MISMATCH, "fc.weight is (3, 4), not (60000, 62500)");
    assert_true(fst_clock_seconds() - start < 1);
}

/* ---- damage ------------------------------------------------------------------------------------------------ */

static void read_file(fst_buf *b)
{
    assert_ok(fst_file_read(path, 1 << 24, b, err));
}

static void every_prefix_is_refused(void **state)
{
    (void)state;
    struct file f;
    fst_buf b = {0};
    good_file(&f);
    put(&f);
    read_file(&b);
    for (size_t n = 0; n < b.len; n++) {
        fst_model m = {0};
        assert_ok(fst_file_write(path, b.data, n, err));
        fst_status s = fst_model_load(&m, path, NULL);
        if (s == FST_OK)
            fail_msg("%zu of %zu bytes are read as a whole model", n, b.len);
        assert_null(m.graph);
    }
    fst_buf_release(&b);
}

/* Whatever byte changes, the file is read whole or refused. */
static void changed_bytes_do_no_harm(void **state)
{
    (void)state;
    struct file f;
    fst_buf b = {0};
    size_t read = 0, refused_files = 0;
    good_file(&f);
    put(&f);
    read_file(&b);
    for (size_t i = 0; i < b.len; i++)
        for (unsigned bit = 1; bit < 256; bit <<= 2) {
            fst_model m = {0};
            char *copy = malloc(b.len);
            assert_non_null(copy);
            memcpy(copy, b.data, b.len);
            copy[i] = (char)((unsigned char)copy[i] ^ bit);
            if (fst_model_load_memory(&m, "changed", copy, b.len, NULL) == FST_OK) {
                assert_int_equal(m.state.param_count, fst_graph_param_count(m.graph));
                read++;
            } else {
                assert_null(m.graph);
                refused_files++;
            }
            fst_model_release(&m);
            free(copy);
        }
    assert_true(read > 0 && refused_files > read);
    fst_buf_release(&b);
}

static void failed_saves_leave_the_old_file(void **state)
{
    (void)state;
    fst_model m, r = {0};
    fst_model_config c = {.classes = 3, .input = FST_SHAPE(4)};
    char digest[FST_DIGEST_HEX], again[FST_DIGEST_HEX];
    new_model(&m, "logistic_regression", &c);
    assert_ok(fst_model_save(&m, path, NULL, 0, digest, err));
    m.state.params[0] += 1;
    for (uint64_t n = 1; n < 100; n++) {
        fst_alloc_fail_at(n);
        fst_status s = fst_model_save(&m, path, NULL, 0, NULL, NULL);
        fst_alloc_fail_at(0);
        if (!s)
            break;
        assert_int_equal(s, FST_E_MEMORY);
        assert_ok(fst_sha256_file(path, again, err));
        assert_string_equal(digest, again);
        assert_true(n < 99);
    }
    for (uint64_t n = 1; n < 100; n++) {
        fst_alloc_fail_at(n);
        fst_status s = fst_model_load(&r, path, NULL);
        fst_alloc_fail_at(0);
        if (!s)
            break;
        assert_int_equal(s, FST_E_MEMORY);
        assert_null(r.graph);
        assert_true(n < 99);
    }
    same_state(&m, &r);
    fst_model_release(&r);
    fst_model_release(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_network_comes_back),
        cmocka_unit_test(everything_else_comes_back),
        cmocka_unit_test(class_names_are_checked),
        cmocka_unit_test(names_of_networks),
        cmocka_unit_test(foreign_files_are_read),
        cmocka_unit_test(what_the_network_sees_is_kept),
        cmocka_unit_test(tensors_that_do_not_fit_are_named),
        cmocka_unit_test(counters_are_whole_numbers),
        cmocka_unit_test(metadata_is_checked),
        cmocka_unit_test(promises_take_no_memory),
        cmocka_unit_test(every_prefix_is_refused),
        cmocka_unit_test(changed_bytes_do_no_harm),
        cmocka_unit_test(failed_saves_leave_the_old_file),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
