/*
 * ONNX files become models. Files of PyTorch's exporter must give PyTorch's logits, files of our own the same bits; and
 * files that were changed on the way (tests/models/onnx_change.h) must do so too, or be refused by name.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <unistd.h>

#include "fedstill/models.h"
#include "models/onnx_change.h"
#include "nn/support.h"

static float *logits_of(const fst_model *m, const float *x, int64_t rows)
{
    fst_plan *plan = NULL;
    const float *out = NULL;
    float *copy = new_floats((size_t)rows * (size_t)m->classes);
    assert_ok(fst_plan_new(&plan, m->graph, &(fst_plan_options){.batch = rows, .threads = 1}, err));
    assert_ok(fst_plan_forward(plan, (fst_state *)&m->state, x, NULL, &out, err));
    memcpy(copy, out, (size_t)rows * (size_t)m->classes * sizeof *copy);
    fst_plan_free(plan);
    return copy;
}

/* Within `tolerance` of the largest. */
static void assert_near(const float *got, const float *want, size_t n, double tolerance)
{
    double most = 1;
    for (size_t i = 0; i < n; i++)
        most = fmax(most, fabs((double)want[i]));
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - (double)want[i]) <= tolerance * most))
            fail_msg("logit %zu is %.9g, wanted %.9g", i, (double)got[i], (double)want[i]);
}

/* ---- PyTorch's files ---------------------------------------------------------------------------------------- */

static void pytorch_gives_the_same_logits(void **state)
{
    static const struct {
        const char *name, *arch;
        int made; /* of a folded norm three tensors, of its shift the convolution's bias is taken */
        double width;
        int hidden, classes;
    } cases[] = {
        {"fedgen_mnist", "fedgen_mnist", 0, 0, 0, 10},
        {"resnet8", "resnet8", 3 * 9, 0, 0, 10},
        {"mobilenet_v2", "mobilenet_v2", 3 * 52, 0.1, 0, 4},
        {"real_resnet20", "real_resnet20_link11_h", 3 * 22, 0.125, 20, 5},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[512];
        fst_array x = {0}, want = {0};
        fst_model m = {0};
        fst_import_options o = {0};
        fst_import_report r = {0};
        snprintf(name, sizeof name, "%s/tests/models/onnx-%s.npz", getenv("FEDSTILL_SOURCE"), cases[i].name);
        assert_ok(fst_npz_read(&x, name, "x", 1 << 20, err));
        assert_ok(fst_npz_read(&want, name, "logits", 1 << 20, err));
        snprintf(name, sizeof name, "%s/tests/models/onnx-%s.onnx", getenv("FEDSTILL_SOURCE"), cases[i].name);
        assert_ok(fst_model_import(&m, name, &o, &r, err));
        assert_string_equal(m.arch, cases[i].arch);
        assert_string_equal(r.format, "ONNX");
        assert_int_equal(r.of[FST_IMPORT_MADE], cases[i].made);
        assert_int_equal(r.of[FST_IMPORT_TAKEN] + r.of[FST_IMPORT_MADE],
                         fst_graph_params(m.graph) + fst_graph_buffers(m.graph));
        assert_true(m.config.width == cases[i].width);
        assert_int_equal(m.config.hidden, cases[i].hidden);
        assert_int_equal(m.classes, cases[i].classes);
        float *got = logits_of(&m, x.data, 2);
        assert_near(got, want.data, 2 * (size_t)m.classes, 2e-6);
        free(got);
        fst_import_report_release(&r);
        fst_model_release(&m);
        fst_array_release(&x);
        fst_array_release(&want);
    }
}

/* ---- and back ------------------------------------------------------------------------------------------------- */

static void assert_same_state(const fst_model *a, const fst_model *b)
{
    assert_int_equal(a->state.param_count, b->state.param_count);
    assert_memory_equal(a->state.params, b->state.params, a->state.param_count * sizeof(float));
    assert_memory_equal(a->state.buffers, b->state.buffers, a->state.buffer_count * sizeof(float));
}

/* Drops what the file says of itself: its layers must be enough. */
static void forget(Onnx__Model *m)
{
    while (m->n_metadata_props)
        onnx__pair__free_unpacked(m->metadata_props[--m->n_metadata_props], NULL);
}

static void the_zoo_comes_back(void **state)
{
    static const struct {
        const char *arch, *settings[3];
    } cases[] = {
        {"logistic_regression", {"input=1,7,5"}},
        {"mnist_teacher", {"classes=3"}},
        {"mnist_student", {"classes=3"}},
        {"cifar_teacher", {"input=3,8,8"}},
        {"cifar_student", {NULL}},
        {"fedgen_mnist", {"input=3,8,12"}},
        {"pfl_cifar", {"input=1,12,12"}},
        {"resnet8", {"input=3,9,9", "classes=3"}},
        {"resnet20", {"input=1,8,8"}},
        {"resnet56", {"input=1,8,8"}},
        {"resnet50", {"stem=cifar", "input=3,8,8", "classes=2"}},
        {"mobilenet_v2", {"input=3,33,33", "width=0.25", "classes=4"}},
        {"mobilenet_v2", {"input=3,16,16", "stem_stride=1", "stage_strides=1,1,2,2,1,2,1"}},
        {"real_resnet20_link11_h", {"width=0.25", "hidden=20"}},
        {"real_resnet20_link11_h", {"input=2,16,16", "width=0.125"}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fst_model m = {0}, back = {0};
        fst_model_config c = {0};
        for (int k = 0; k < 3 && cases[i].settings[k]; k++)
            assert_ok(fst_model_config_set(&c, cases[i].arch, cases[i].settings[k], err));
        assert_ok(fst_model_init(&m, cases[i].arch, &c, err));
        fill_state(&m.state, m.graph, 3 + i);
        float *x = new_floats(2 * sample_floats(m.graph));
        fill_normal(x, 2 * sample_floats(m.graph), 5, "test.x", 1);
        float *want = logits_of(&m, x, 2);
        for (int fold = 0; fold < 2; fold++)
            for (int known = 0; known < 2; known++) {
                if (m.state.param_count > 1 << 23 && (fold || known))
                    continue; /* of a hundred megabytes, once */
                assert_ok(fst_model_export_onnx(&m, path, &(fst_onnx_options){.fold = fold}, NULL, 0, NULL, err));
                Onnx__Model *f = onnx_read(path);
                if (!known)
                    forget(f);
                assert_ok(onnx_import(&back, f, NULL, err));
                assert_string_equal(back.arch, m.arch);
                assert_true(fst_shape_equal(&back.config.input, &m.config.input));
                assert_int_equal(back.classes, m.classes);
                if (!fold)
                    assert_same_state(&m, &back);
                float *got = logits_of(&back, x, 2);
                assert_near(got, want, 2 * (size_t)m.classes, fold ? 2e-6 : 0);
                free(got);
                onnx__model__free_unpacked(f, NULL);
                fst_model_release(&back);
            }
        free(x);
        free(want);
        fst_model_release(&m);
    }
}

static void what_the_file_says_comes_along(void **state)
{
    (void)state;
    char *names[] = {"a", "b", "c"};
    fst_model m = {0}, back = {0};
    fst_model_config c = {.classes = 3, .input = FST_SHAPE(1, 12, 12), .dropout1 = 0.125};
    fst_import_options fresh = {.head = FST_HEAD_FRESH, .classes = 5, .seed = 3}, other = {.arch = "resnet8"};
    fst_import_report r = {0};
    assert_ok(fst_model_init(&m, "pfl_cifar", &c, err));
    fill_state(&m.state, m.graph, 6);
    m.channels = 1;
    m.mean[0] = 0.5F;
    m.std[0] = 0.25F;
    m.fingerprint = true;
    assert_ok(fst_model_set_class_names(&m, names, 3, err));
    assert_ok(fst_model_export_onnx(&m, path, NULL, NULL, 0, NULL, err));
    assert_ok(fst_model_import(&back, path, &(fst_import_options){0}, NULL, err));
    assert_true(back.channels == 1 && back.mean[0] == 0.5F && back.std[0] == 0.25F && back.fingerprint);
    assert_string_equal(back.class_names[2], "c");
    assert_true(back.config.dropout1 == 0.125);
    fst_model_release(&back);
    assert_fails(fst_model_import(&back, path, &other, NULL, err), FST_E_MISMATCH,
                 "that it is a pfl_cifar, not a resnet8");
    assert_ok(fst_model_import(&back, path, &fresh, &r, err));
    assert_int_equal(back.classes, 5);
    assert_null(back.class_names);
    assert_int_equal(r.of[FST_IMPORT_FRESH], 2);
    assert_memory_equal(back.state.params, m.state.params,
                        288); /* the first convolution: 32 kernels of 3x3, 1 channel */
    fst_import_report_release(&r);
    fst_model_release(&back);
    assert_fails(fst_model_import(&back, path, &(fst_import_options){.prefix = "module."}, NULL, err), FST_E_CONFIG,
                 "are of a state_dict");
    assert_fails(fst_model_import(&back, path, &(fst_import_options){.classes = 4}, NULL, err), FST_E_MISMATCH,
                 "pfl_cifar");
    fst_model_release(&m);
    c = (fst_model_config){.width = 0.25, .hidden = 20};
    assert_ok(fst_model_init(&m, "complex_resnet50_link11_with_attention", &c, err));
    assert_ok(fst_model_export_onnx(&m, path, NULL, NULL, 0, NULL, err));
    assert_fails(fst_model_import(&back, path, &(fst_import_options){0}, NULL, err), FST_E_UNSUPPORTED,
                 "layers of complex values");
    fst_model_release(&m);
}

/* ---- other people's ways ------------------------------------------------------------------------------------------
 */

/* fedgen_mnist over (1, 9, 9): conv1, bn1, relu, conv2, bn2, relu, flatten, fc1, relu, fc2. */
static Onnx__Model *small(fst_model *m)
{
    fst_model_config c = {.classes = 3, .input = FST_SHAPE(1, 9, 9)};
    assert_ok(fst_model_init(m, "fedgen_mnist", &c, err));
    fill_state(&m->state, m->graph, 9);
    assert_ok(fst_model_export_onnx(m, path, NULL, NULL, 0, NULL, err));
    Onnx__Model *f = onnx_read(path);
    forget(f);
    return f;
}

/* Each changes how the file says the same; NULL: all before it did. */
static void (*const same[])(Onnx__Model *) = {
    as_float_data,     as_double,      as_constants,   as_matmul,        with_identities, with_softmax,
    with_log_softmax,  with_transpose, batch_of_seven, reshape_by_shape, pad_before,      auto_pad_upper,
    initialiser_input, by_mean_shift,  by_epsilon,     squeezed,         turned_weights,  clip_is_relu,
};

static void the_same_in_other_words(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        fst_model m = {0}, back = {0};
        Onnx__Model *f = small(&m);
        float *x = new_floats(2 * sample_floats(m.graph));
        fill_normal(x, 2 * sample_floats(m.graph), 5, "test.x", 1);
        same[i](f);
        fst_error e = {0};
        if (onnx_import(&back, f, NULL, &e))
            fail_msg("change %zu: %s", i, e.message);
        float *got = logits_of(&back, x, 2), *want = logits_of(&m, x, 2);
        assert_near(got, want, 2 * 3, 2e-6);
        free(got);
        free(want);
        free(x);
        onnx__model__free_unpacked(f, NULL);
        fst_model_release(&back);
        fst_model_release(&m);
    }
}

/* A bias that our convolution has no place for goes into the mean of the norm after it. */
static void a_bias_before_a_norm(void **state)
{
    (void)state;
    fst_model m = {0}, back = {0};
    fst_import_report r = {0};
    fst_model_config c = {.classes = 3, .input = FST_SHAPE(1, 8, 8)};
    assert_ok(fst_model_init(&m, "resnet8", &c, err));
    fill_state(&m.state, m.graph, 9);
    assert_ok(fst_model_export_onnx(&m, path, NULL, NULL, 0, NULL, err));
    Onnx__Model *f = onnx_read(path);
    forget(f);
    Onnx__Node *n = node_of(f, "conv1");
    insert((void ***)&n->input, &n->n_input, 2, strdup("bn1.bias")); /* of the right size */
    for (size_t i = 0; i < 16; i++)
        floats_of(f, "bn1.running_mean")[i] += floats_of(f, "bn1.bias")[i];
    size_t len = onnx__model__get_packed_size(f);
    uint8_t *bytes = malloc(len);
    onnx__model__pack(f, bytes);
    assert_ok(fst_model_import_memory(&back, "biased", bytes, len, &(fst_import_options){0}, &r, err));
    assert_int_equal(r.of[FST_IMPORT_MADE], 1);
    assert_memory_equal(m.state.params, back.state.params, m.state.param_count * sizeof(float));
    for (size_t i = 0; i < m.state.buffer_count; i++)
        assert_true(fabs((double)m.state.buffers[i] - (double)back.state.buffers[i]) < 1e-6);
    free(bytes);
    fst_import_report_release(&r);
    onnx__model__free_unpacked(f, NULL);
    fst_model_release(&back);
    fst_model_release(&m);
}

static void halves_are_halves(void **state)
{
    (void)state;
    for (int raw = 0; raw < 2; raw++) {
        fst_model m = {0}, back = {0};
        Onnx__Model *f = small(&m);
        as_half(f, raw);
        assert_ok(onnx_import(&back, f, NULL, err));
        for (size_t i = 0; i < m.state.param_count; i++)
            assert_true(back.state.params[i] == fst_f32_from_f16(fst_f16_from_f32(m.state.params[i])));
        onnx__model__free_unpacked(f, NULL);
        fst_model_release(&back);
        fst_model_release(&m);
    }
}

static void what_is_not_here_is_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < onnx_refusals; i++) {
        fst_model m = {0}, back = {0};
        fst_error e = {0};
        Onnx__Model *f = small(&m);
        onnx_refused[i].change(f);
        fst_status s = onnx_import(&back, f, NULL, &e);
        if (s != onnx_refused[i].status || !strstr(e.message, onnx_refused[i].says))
            fail_msg("change %zu (\"%s\"): %s: %s", i, onnx_refused[i].says, fst_status_name(s), e.message);
        assert_null(back.graph);
        onnx__model__free_unpacked(f, NULL);
        fst_model_release(&m);
    }
}

static void open_sizes_are_asked_for(void **state)
{
    (void)state;
    fst_model m = {0}, back = {0};
    fst_import_options o = {.input = FST_SHAPE(1, 9, 9)}, wrong = {.input = FST_SHAPE(1, 5, 5)};
    Onnx__Model *f = small(&m);
    for (size_t i = 1; i < 4; i++)
        f->graph->input[0]->type->tensor_type->shape->dim[i]->has_dim_value = false;
    assert_fails(onnx_import(&back, f, NULL, err), FST_E_CONFIG, "leaves sizes of its input open");
    assert_ok(onnx_import(&back, f, &o, err));
    assert_same_state(&m, &back);
    fst_model_release(&back);
    assert_fails(onnx_import(&back, f, &wrong, err), FST_E_UNSUPPORTED, "do not fit");
    onnx__model__free_unpacked(f, NULL);
    fst_model_release(&m);
}

/* ---- hostile files
 * ---------------------------------------------------------------------------------------------------- */

static void every_prefix_is_refused(void **state)
{
    (void)state;
    fst_model m = {0}, back = {0};
    fst_buf b = {0};
    fst_model_config c = {.classes = 2, .input = FST_SHAPE(1, 2, 2)};
    assert_ok(fst_model_init(&m, "logistic_regression", &c, err));
    assert_ok(fst_model_export_onnx(&m, path, NULL, NULL, 0, NULL, err));
    assert_ok(fst_file_read(path, 1 << 20, &b, err));
    for (size_t n = 4; n < b.len; n++) {
        fst_error e = {0};
        fst_status s = fst_model_import_memory(&back, "cut", b.data, n, &(fst_import_options){0}, NULL, &e);
        if (!s) { /* all that is missing then is metadata */
            assert_true(n + 400 > b.len);
            fst_model_release(&back);
        } else {
            assert_true(s == FST_E_FORMAT || s == FST_E_UNSUPPORTED || s == FST_E_CONFIG || s == FST_E_MISMATCH);
        }
    }
    fst_buf_release(&b);
    fst_model_release(&m);
}

/* Two bytes a node; unpacked, a node takes some 300. */
static void empty_messages_take_no_memory(void **state)
{
    enum { NODES = 1 << 20 };
    (void)state;
    fst_model back = {0};
    fst_buf b = {0};
    unsigned char head[] = {0x08, 0x08, 0x3a, 0, 0, 0, 0}; /* ir_version 8; a graph of so many bytes */
    for (int i = 0; i < 4; i++)
        head[3 + i] = (unsigned char)((uint32_t)(2 * NODES) >> (7 * i) & 127) | (i < 3 ? 128 : 0);
    assert_ok(fst_buf_append(&b, head, sizeof head, err));
    for (int i = 0; i < NODES; i++)
        assert_ok(fst_buf_append(&b, "\x0a", 2, err));
    assert_fails(fst_model_import_memory(&back, "nodes", b.data, b.len, &(fst_import_options){0}, NULL, err),
                 FST_E_LIMIT, "more memory than a file of its size may");
    fst_buf_release(&b);
}

static void without_memory_nothing_is_read(void **state)
{
    (void)state;
    fst_model m = {0}, back = {0};
    Onnx__Model *f = small(&m);
    uint64_t before = fst_alloc_count();
    assert_ok(onnx_import(&back, f, NULL, err));
    uint64_t needed = fst_alloc_count() - before;
    fst_model_release(&back);
    for (uint64_t n = 1; n <= needed; n += 1 + needed / 400) {
        fst_error e = {0};
        onnx_fail_at = n;
        fst_status s = onnx_import(&back, f, NULL, &e);
        onnx_fail_at = 0;
        if (s != FST_E_MEMORY)
            fail_msg("allocation %d failed: %s: %s", (int)n, fst_status_name(s), e.message);
        assert_null(back.graph);
    }
    onnx__model__free_unpacked(f, NULL);
    fst_model_release(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pytorch_gives_the_same_logits),  cmocka_unit_test(the_zoo_comes_back),
        cmocka_unit_test(what_the_file_says_comes_along), cmocka_unit_test(the_same_in_other_words),
        cmocka_unit_test(a_bias_before_a_norm),           cmocka_unit_test(halves_are_halves),
        cmocka_unit_test(what_is_not_here_is_named),      cmocka_unit_test(open_sizes_are_asked_for),
        cmocka_unit_test(every_prefix_is_refused),        cmocka_unit_test(empty_messages_take_no_memory),
        cmocka_unit_test(without_memory_nothing_is_read),
    };
    return cmocka_run_group_tests_name("onnx import", tests, set_up, tear_down);
}
