/* Models in int8: scales that calibration finds, files that come back bit by bit and are a quarter of the size, what
 * does not fit named, and what cannot use them refusing. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fedstill/models.h"
#include "models/two_files.h"
#include "nn/support.h"

/* A network whose state is filled, and its form in int8 after a calibration with `rows` samples. */
static void new_models(fst_model *m, fst_model *q, const char *arch, const fst_model_config *c, size_t rows)
{
    fst_calibration *cal;
    fst_model_config none = {0};
    assert_ok(fst_model_init(m, arch, c ? c : &none, err));
    fill_state(&m->state, m->graph, 5);
    m->channels = 1;
    m->mean[0] = 0.25F;
    m->std[0] = 0.5F;
    float *x = new_floats(rows * sample_floats(m->graph));
    fill_normal(x, rows * sample_floats(m->graph), 3, "test.int8", 1);
    assert_ok(fst_calibration_new(&cal, m, rows, 1, err));
    assert_ok(fst_calibration_add(cal, x, rows, err));
    assert_ok(fst_model_int8(q, m, cal, err));
    fst_calibration_free(cal);
    free(x);
}

static void logits(const fst_model *m, const float *x, size_t rows, float *out)
{
    fst_runner *r;
    fst_trainer_options o = {.batch_size = rows, .threads = 1};
    assert_ok(fst_runner_new(&r, m->graph, &o, err));
    assert_ok(fst_runner_logits(r, &m->state, x, rows, out, err));
    fst_runner_free(r);
}

/* ---- calibration ------------------------------------------------------------------------------------------ */

static size_t layer_named(const fst_graph *g, const char *name)
{
    for (size_t i = 0; i < fst_graph_layers(g); i++)
        if (!strcmp(fst_graph_layer(g, i).name, name))
            return i;
    fail_msg("no layer %s", name);
    return 0;
}

/* The mean over two batches of the largest magnitude in each. */
static void scales_come_from_batches(void **state)
{
    (void)state;
    fst_model m, q;
    fst_calibration *cal;
    float x[3 * 784] = {0};
    bool is_unsigned = true;
    assert_ok(fst_model_init(&m, "mnist_student", NULL, err));
    fill_state(&m.state, m.graph, 5);
    x[5] = 1.5F, x[784 + 700] = -2.54F, x[2 * 784] = 2;
    assert_ok(fst_calibration_new(&cal, &m, 2, 1, err));
    assert_fails(fst_model_int8(&q, &m, cal, err), FST_E_ARGUMENT, "with samples");
    assert_fails(fst_calibration_add(cal, x, 3, err), FST_E_ARGUMENT, "2 samples at a time");
    assert_ok(fst_calibration_add(cal, x, 2, err));
    assert_ok(fst_calibration_add(cal, x + 2 * 784, 1, err));
    assert_ok(fst_model_int8(&q, &m, cal, err));
    assert_float_equal(fst_graph_int8_scale(q.graph, (fst_value)layer_named(q.graph, "conv1"), &is_unsigned),
                       (2.54F + 2) / 2 / 127, 1e-9);
    assert_false(is_unsigned);
    /* what fc2 reads: fc1's output, after a ReLU */
    fst_graph *g;
    fst_value out;
    assert_ok(fst_graph_copy(&g, m.graph, &out, err));
    fst_value tap = fst_graph_feature(g, "fc1");
    assert_ok(fst_graph_finish_tapped(g, out, &tap, 1, err));
    fst_model tapped = {.graph = g, .state = m.state};
    float row[3 * (10 + 64)], largest[2] = {0}, most;
    logits(&tapped, x, 3, row);
    for (size_t i = 0; i < 3 * 74; i++)
        if (i % 74 >= 10 && row[i] > largest[i / 74 / 2])
            largest[i / 74 / 2] = row[i];
    most = (largest[0] + largest[1]) / 2;
    assert_true(largest[0] > 0 && largest[1] > 0 && largest[0] != largest[1]);
    assert_float_equal(fst_graph_int8_scale(q.graph, (fst_value)layer_named(q.graph, "fc2"), &is_unsigned), most / 255,
                       1e-6 * (double)most);
    assert_true(is_unsigned);
    x[3] = NAN;
    assert_fails(fst_calibration_add(cal, x, 1, err), FST_E_NUMERIC, "not a number");
    fst_calibration_free(cal);
    assert_fails(fst_calibration_new(&cal, &q, 2, 1, err), FST_E_ARGUMENT, "already");
    fst_graph_free(g);
    fst_model_release(&m);
    fst_model_release(&q);
}

/* A zoo of networks: more layers than a look has taps, groups, sums, complex numbers beside real ones. */
static void networks_of_the_zoo(void **state)
{
    (void)state;
    static const struct {
        const char *arch;
        fst_model_config config;
        int f32; /* layers that stay so */
    } zoo[] = {
        {"mnist_student", {0}, 0},
        {"fedgen_mnist", {0}, 0},
        {"resnet20", {.input = {3, {3, 16, 16}}}, 0},
        {"mobilenet_v2", {.width = 0.25, .input = {3, {3, 32, 32}}, .classes = 10}, 0},
        {"real_resnet20_link11_h", {.width = 0.125, .hidden = 32}, 0},
    };
    for (size_t i = 0; i < sizeof zoo / sizeof *zoo; i++) {
        fst_model m, q, r;
        enum { ROWS = 8 };
        new_models(&m, &q, zoo[i].arch, &zoo[i].config, ROWS);
        size_t n = sample_floats(m.graph), classes = (size_t)m.classes, same = 0;
        float *x = new_floats(ROWS * n), *f32 = new_floats(ROWS * classes), *int8 = new_floats(ROWS * classes),
              *back = new_floats(ROWS * classes);
        fill_normal(x, ROWS * n, 3, "test.int8", 1);
        logits(&m, x, ROWS, f32);
        logits(&q, x, ROWS, int8);
        double off = distance(f32, int8, ROWS * classes) / distance(f32, NULL, ROWS * classes);
        if (off > 0.15 || off == 0)
            fail_msg("%s: int8 is %.4f of its size away from f32", zoo[i].arch, off);
        assert_ok(fst_model_save(&m, other, NULL, 0, NULL, err));
        assert_ok(fst_model_save(&q, path, NULL, 0, NULL, err));
        assert_ok(fst_model_load(&r, path, err));
        assert_true(fst_model_is_int8(&r));
        assert_string_equal(r.arch, m.arch);
        assert_int_equal(r.channels, 1);
        assert_float_equal(r.std[0], 0.5F, 0);
        logits(&r, x, ROWS, back);
        assert_memory_equal(back, int8, ROWS * classes * sizeof *back);
        struct stat a, b;
        assert_int_equal(stat(path, &a) + stat(other, &b), 0);
        for (size_t k = 0; k < fst_graph_layers(r.graph); k++)
            same +=
                !strcmp(fst_graph_layer(r.graph, k).op, "conv2d") || !strcmp(fst_graph_layer(r.graph, k).op, "linear");
        assert_int_equal(same, zoo[i].f32);
        if (m.state.param_count > 100000 && a.st_size > 0.3 * (double)b.st_size)
            fail_msg("%s: %ld bytes in int8, %ld in f32", zoo[i].arch, (long)a.st_size, (long)b.st_size);
        free(x);
        free(f32);
        free(int8);
        free(back);
        fst_model_release(&m);
        fst_model_release(&q);
        fst_model_release(&r);
    }
}

/* ---- files that are wrong ----------------------------------------------------------------------------------- */

struct file { /* a file whose bytes are changed */
    fst_buf bytes;
};

static void read_file(struct file *f)
{
    assert_ok(fst_file_read(path, 1 << 24, &f->bytes, err));
}

/* Where `text` first stands. */
static char *find(struct file *f, const char *text)
{
    char *at = memmem(f->bytes.data, f->bytes.len, text, strlen(text));
    assert_non_null(at);
    return at;
}

/* The bytes of a tensor's data, by its place in the file. */
static char *data_of(struct file *f, const char *name)
{
    char key[128];
    uint64_t header, from;
    memcpy(&header, f->bytes.data, 8);
    snprintf(key, sizeof key, "\"%s\":", name);
    const char *offsets = strstr(find(f, key), "\"data_offsets\":[");
    assert_non_null(offsets);
    from = strtoull(offsets + strlen("\"data_offsets\":["), NULL, 10);
    return f->bytes.data + 8 + header + from;
}

static void refused(struct file *f, fst_status s, const char *why)
{
    fst_model m = {0};
    assert_fails(fst_model_load_memory(&m, "changed", f->bytes.data, f->bytes.len, err), s, why);
    assert_null(m.graph);
}

static void wrong_files_are_refused(void **state)
{
    (void)state;
    fst_model m, q, r;
    struct file f = {{0}};
    float keep, bad[] = {0, -1, NAN, INFINITY, 1e-45F};
    char byte;
    new_models(&m, &q, "mnist_student", NULL, 4);
    assert_ok(fst_model_save(&q, path, NULL, 0, NULL, err));
    read_file(&f);
    assert_ok(fst_model_load_memory(&r, "as it is", f.bytes.data, f.bytes.len, err));
    fst_model_release(&r);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char *at = data_of(&f, "conv2.input_scale");
        memcpy(&keep, at, sizeof keep);
        memcpy(at, &bad[i], sizeof keep);
        refused(&f, FST_E_FORMAT, "conv2.input_scale is");
        memcpy(at, &keep, sizeof keep);
        at = data_of(&f, "fc1.weight_scale") + 4;
        memcpy(&keep, at, sizeof keep);
        memcpy(at, &bad[i], sizeof keep);
        if (i < 4)
            refused(&f, FST_E_FORMAT, "fc1.weight_scale has the value");
        memcpy(at, &keep, sizeof keep);
    }
    char *at = data_of(&f, "conv1.bias");
    memcpy(&keep, at, sizeof keep);
    memcpy(at, &bad[2], sizeof keep);
    refused(&f, FST_E_FORMAT, "conv1.bias");
    memcpy(at, &keep, sizeof keep);
    at = data_of(&f, "fc1.weight");
    byte = *at;
    *at = -128;
    refused(&f, FST_E_FORMAT, "fc1.weight has the value -128");
    *at = byte;
    memcpy(find(&f, "fc2.input_scale"), "fc2.xnput", 9);
    refused(&f, FST_E_FORMAT, "layer fc2 has weights of I8, but no fc2.input_scale");
    memcpy(find(&f, "fc2.xnput"), "fc2.input", 9);
    memcpy(find(&f, "fc2.weight_scale"), "fc2.weight_scalf", 16);
    refused(&f, FST_E_MISMATCH, "missing fc2.weight_scale");
    memcpy(find(&f, "fc2.weight_scalf"), "fc2.weight_scale", 16);
    memcpy(find(&f, "fedstill-int8-1"), "fedstill-int8-2", 15);
    refused(&f, FST_E_FORMAT, "fedstill-int8-2");
    fst_buf_release(&f.bytes);
    /* an f32 model that says it is int8 */
    assert_ok(fst_model_save(&m, path, NULL, 0, NULL, err));
    read_file(&f);
    char *format = find(&f, "\"fedstill-model-1\"");
    memcpy(format, "\"fedstill-int8-1\" ", 18);
    refused(&f, FST_E_FORMAT, "no layer has weights of I8");
    fst_buf_release(&f.bytes);
    fst_model_release(&m);
    fst_model_release(&q);
}

/* ---- who cannot use it ------------------------------------------------------------------------------------------ */

static void what_cannot_use_it_says_so(void **state)
{
    (void)state;
    fst_model m, q, r = {0};
    fst_trainer *t;
    fst_import_options o = {.arch = "mnist_student"};
    fst_trainer_options to = {.batch_size = 4, .threads = 1};
    new_models(&m, &q, "mnist_student", NULL, 4);
    assert_fails(fst_model_export(&q, other, FST_NAMES_TORCHVISION, FST_F32, NULL, 0, NULL, err), FST_E_UNSUPPORTED,
                 "cannot be exported: take the f32 model");
    assert_fails(fst_model_export_onnx(&q, other, NULL, NULL, 0, NULL, err), FST_E_UNSUPPORTED, "f32 model");
    assert_fails(fst_trainer_new(&t, q.graph, &to, err), FST_E_UNSUPPORTED, "train the f32 model");
    assert_fails(fst_model_need_f32(&q, "q.safetensors", "cannot be trained", err), FST_E_UNSUPPORTED,
                 "q.safetensors is an int8 model, which cannot be trained");
    assert_ok(fst_model_need_f32(&m, "m", "cannot be trained", err));
    assert_ok(fst_model_save(&q, path, NULL, 0, NULL, err));
    assert_fails(fst_model_import(&r, path, &o, NULL, err), FST_E_UNSUPPORTED, "take the f32 model");
    fst_model_release(&m);
    fst_model_release(&q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scales_come_from_batches),
        cmocka_unit_test(networks_of_the_zoo),
        cmocka_unit_test(wrong_files_are_refused),
        cmocka_unit_test(what_cannot_use_it_says_so),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
