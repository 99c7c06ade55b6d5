/* Structured pruning: a network without some channels computes what the whole one does with zeroes in their place,
 * whatever couples them; the least important go, by hand-made weights; files of pruned models are models like others.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <unistd.h>

#include "fedstill/models.h"
#include "models/two_files.h"
#include "nn/support.h"

/* ---- networks ------------------------------------------------------------------------------------------------- */

struct small { /* a network of the zoo, as small as it can be */
    const char *arch;
    fst_model_config config;
};
#define PICTURE(channels, side) .input = {3, {channels, side, side}}
static const struct small zoo[] = {
    {"mnist_teacher", {PICTURE(1, 8)}},
    {"mnist_student", {PICTURE(1, 8)}},
    {"cifar_teacher", {PICTURE(3, 8)}},
    {"cifar_student", {PICTURE(3, 8)}},
    {"fedgen_mnist", {PICTURE(1, 12)}},
    {"pfl_cifar", {PICTURE(3, 10)}},
    {"resnet8", {PICTURE(3, 8)}},
    {"resnet20", {PICTURE(3, 8)}},
    {"resnet56", {PICTURE(3, 8)}},
    {"resnet50", {PICTURE(3, 8), .stem = FST_STEM_CIFAR, .classes = 10}},
    {"real_resnet20_link11_h", {.width = 0.125, .hidden = 32}},
    {"mobilenet_v2", {PICTURE(3, 32), .width = 0.25, .classes = 10}},
    {"complex_resnet50_link11_with_attention", {.width = 0.25, .hidden = 24}},
};
enum { NETWORKS = sizeof zoo / sizeof *zoo, ROWS = 2 };

static void new_model(fst_model *m, const struct small *of)
{
    assert_ok(fst_model_init(m, of->arch, &of->config, err));
    fill_state(&m->state, m->graph, 5);
}

static float *new_samples(const fst_model *m)
{
    size_t n = ROWS * sample_floats(m->graph);
    float *x = new_floats(n);
    fill_normal(x, n, 3, "test.prune", 1);
    return x;
}

static float *new_logits(const fst_model *m, const float *x, int threads)
{
    fst_runner *r;
    fst_trainer_options o = {.batch_size = ROWS, .threads = threads};
    float *out = new_floats(ROWS * (size_t)m->classes);
    assert_ok(fst_runner_new(&r, m->graph, &o, err));
    assert_ok(fst_runner_logits(r, &m->state, x, ROWS, out, err));
    fst_runner_free(r);
    return out;
}

/* By rounding alone, of the largest logit. */
static void same_logits(const char *what, const fst_model *a, const fst_model *b)
{
    float *x = new_samples(a), *p = new_logits(a, x, 1), *q = new_logits(b, x, 1), most = 0;
    size_t n = ROWS * (size_t)a->classes;
    for (size_t i = 0; i < n; i++)
        most = fmaxf(most, fabsf(p[i]));
    assert_true(most > 0);
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(p[i] - q[i]) <= 1e-5F * most))
            fail_msg("%s: logit %zu is %.9g and %.9g (largest %g)", what, i, (double)p[i], (double)q[i], (double)most);
    free(x);
    free(p);
    free(q);
}

/* Zeroes what makes and shifts a channel of group k, wherever its group is. */
static void silence(fst_model *m, const fst_channels *c, size_t k, int64_t channel)
{
    for (size_t v = 0; v < fst_graph_layers(m->graph); v++) {
        fst_node_info n = fst_graph_node(m->graph, (fst_value)v);
        if (fst_channels_of(c, (fst_value)v) != (int)k)
            continue;
        for (size_t i = n.first_param; i < n.first_param + n.params; i++) {
            fst_param_info p = fst_graph_param(m->graph, i);
            size_t row = p.count / (size_t)p.shape.dim[0];
            memset(m->state.params + p.offset + (size_t)channel * row, 0, row * sizeof(float));
        }
    }
}

/* ---- channels ------------------------------------------------------------------------------------------------- */

/* Any channels, of every group another number. */
static void removed_is_zero(void **state)
{
    (void)state;
    for (size_t a = 0; a < NETWORKS; a++) {
        fst_model m, p;
        fst_channels *c;
        fst_rng r;
        int widths[FST_MODEL_WIDTHS];
        fst_channel_pick keep[FST_MODEL_WIDTHS];
        new_model(&m, &zoo[a]);
        assert_ok(fst_channels_new(&c, m.graph, err));
        size_t groups = fst_channels_groups(c);
        assert_in_range(groups, 1, FST_MODEL_WIDTHS);
        fst_rng_init(&r, 7, "test.prune.keep", a);
        for (size_t k = 0; k < groups; k++) {
            fst_channel_group g = fst_channels_group(c, k);
            int *list = calloc((size_t)g.channels, sizeof *list), n = 0;
            assert_non_null(list);
            int64_t want = g.least + (int64_t)fst_rng_below(&r, (uint64_t)(g.channels - g.least + 1)), left = want;
            for (int i = 0; i < g.channels; i++) { /* each subset of that size is as likely */
                if ((int64_t)fst_rng_below(&r, (uint64_t)(g.channels - i)) < left) {
                    list[n++] = i;
                    left--;
                } else {
                    silence(&m, c, k, i);
                }
            }
            widths[k] = n;
            keep[k] = (fst_channel_pick){list, n};
        }
        fst_model_config narrow = m.config;
        memcpy(narrow.widths, widths, groups * sizeof *widths);
        assert_ok(fst_model_init(&p, m.arch, &narrow, err));
        fst_state_narrow(&p.state, p.graph, &m.state, c, keep);
        same_logits(m.arch, &m, &p);
        for (size_t k = 0; k < groups; k++)
            free((void *)keep[k].channel);
        fst_channels_free(c);
        fst_model_release(&m);
        fst_model_release(&p);
    }
}

/* What a network couples is of one group, and only that. */
static void groups_are_those_of_the_network(void **state)
{
    (void)state;
    static const struct {
        const char *arch, *names; /* of its groups */
    } known[] = {
        {"mnist_student", "conv1 conv2 fc1"},
        {"logistic_regression", ""},
        /* the stem is added to layer1, the shortcuts to the blocks after them */
        {"resnet8", "conv1 layer1.0.conv1 layer2.0.conv1 layer2.0.conv2 layer3.0.conv1 layer3.0.conv2"},
    };
    for (size_t a = 0; a < sizeof known / sizeof *known; a++) {
        char names[256] = "";
        fst_graph *g;
        fst_channels *c;
        assert_ok(fst_model_graph(&g, known[a].arch, NULL, err));
        assert_ok(fst_channels_new(&c, g, err));
        for (size_t k = 0; k < fst_channels_groups(c); k++) {
            strcat(names, k ? " " : "");
            strcat(names, fst_channels_group(c, k).name);
        }
        assert_string_equal(names, known[a].names);
        fst_channels_free(c);
        fst_graph_free(g);
    }
}

/* Norms over several channels, concatenations, and what is added to the input keep theirs. */
static void what_reads_several_keeps_all(void **state)
{
    (void)state;
    fst_graph *g;
    fst_channels *c;
    fst_conv2d two = {.out_channels = 4, .kernel = {3, 3}, .padding = {1, 1}, .stride = {1, 1}};
    assert_ok(fst_graph_new(&g, err));
    fst_value x = fst_graph_input(g, &FST_SHAPE(4, 6, 6)), in = x;
    fst_value added = fst_graph_conv2d(g, x, "added", &two);
    x = fst_graph_add(g, added, in);
    fst_value normed = fst_graph_conv2d(g, x, "normed", &two);
    x = fst_graph_groupnorm(g, normed, "norm", 2, 1e-5);
    fst_value joined = fst_graph_conv2d(g, x, "joined", &two);
    x = fst_graph_concat(g, (fst_value[]){joined, x}, 2);
    fst_value squashed = fst_graph_conv2d(g, x, "squashed", &two);
    x = fst_graph_sigmoid(g, squashed); /* of 0 is 1/2 */
    fst_value own = fst_graph_conv2d(g, x, "own", &two);
    x = fst_graph_linear(g, fst_graph_flatten(g, own), "fc", 3, true);
    assert_ok(fst_graph_finish(g, x, err));
    assert_ok(fst_channels_new(&c, g, err));
    assert_int_equal(fst_channels_groups(c), 1);
    assert_int_equal(fst_channels_of(c, own), 0);
    const fst_value stay[] = {in, added, normed, joined, squashed, x};
    for (size_t i = 0; i < sizeof stay / sizeof *stay; i++)
        assert_int_equal(fst_channels_of(c, stay[i]), -1);
    fst_channels_free(c);
    fst_graph_free(g);
}

/* ---- the choice ------------------------------------------------------------------------------------------------- */

static fst_param_info param(const fst_model *m, const char *name)
{
    for (size_t i = 0; i < fst_graph_params(m->graph); i++)
        if (!strcmp(fst_graph_param(m->graph, i).name, name))
            return fst_graph_param(m->graph, i);
    fail_msg("no parameter %s", name);
    return (fst_param_info){0};
}

/* Row i of the parameter becomes values[i], and its sign changes along the row. */
static void set_rows(fst_model *m, const char *name, const float *values)
{
    fst_param_info p = param(m, name);
    size_t row = p.count / (size_t)p.shape.dim[0];
    for (size_t i = 0; i < p.count; i++)
        m->state.params[p.offset + i] = (i % 2 ? -1 : 1) * values[i / row];
}

static void has_values(const fst_model *m, const char *name, const float *values, size_t n)
{
    fst_param_info p = param(m, name);
    assert_int_equal(p.count, n);
    for (size_t i = 0; i < n; i++)
        assert_float_equal(m->state.params[p.offset + i], values[i], 0);
}

/* Filters of one magnitude throughout: the sums are 9 times these. A quarter of 16 are 4: 0.1, 0.2, 0.3, and of the
 * two that are 0.4 the last. */
static void least_magnitudes_go(void **state)
{
    (void)state;
    static const float magnitude[] = {0.9F, 0.1F, 0.8F, 0.4F, 0.7F, 0.2F, 0.6F, 0.5F,
                                      1.0F, 1.1F, 0.3F, 1.2F, 0.4F, 1.3F, 1.4F, 1.5F};
    static const float left[] = {0, 2, 3, 4, 6, 7, 8, 9, 11, 13, 14, 15};
    float number[16];
    fst_model m, p;
    assert_ok(fst_model_init(&m, "mnist_student", NULL, err));
    fill_state(&m.state, m.graph, 5);
    for (int i = 0; i < 16; i++)
        number[i] = (float)i;
    set_rows(&m, "conv1.weight", magnitude);
    memcpy(m.state.params + param(&m, "conv1.bias").offset, number, sizeof number);
    fst_prune o = {.ratio = 0.25};
    assert_ok(fst_model_prune(&p, &m, &o, err));
    has_values(&p, "conv1.bias", left, 12);
    const int widths[] = {12, 24, 48, 0};
    assert_memory_equal(p.config.widths, widths, sizeof widths);
    assert_int_equal(param(&p, "fc1.weight").shape.dim[1], 24 * 49);
    fst_model_release(&p);
    fst_model_release(&m);
}

/* |gamma|, whatever the filters: 6 times 1/2 are 3 of conv1. fc1 has no norm, and stays. */
static void least_scales_go(void **state)
{
    (void)state;
    static const float gamma[] = {0.5F, -0.9F, 0.1F, -0.2F, 0.6F, 0.3F}, shift[] = {0, 1, 2, 3, 4, 5},
                       left[] = {0, 1, 4};
    fst_model m, p;
    assert_ok(fst_model_init(&m, "fedgen_mnist", NULL, err));
    fill_state(&m.state, m.graph, 5);
    memcpy(m.state.params + param(&m, "bn1.weight").offset, gamma, sizeof gamma);
    memcpy(m.state.params + param(&m, "bn1.bias").offset, shift, sizeof shift);
    fst_prune o = {.ratio = 0.5, .importance = FST_IMPORTANCE_BATCHNORM};
    assert_ok(fst_model_prune(&p, &m, &o, err));
    has_values(&p, "bn1.bias", left, 3);
    assert_int_equal(param(&p, "fc1.bias").count, 32);
    fst_model_release(&p);
    fst_model_release(&m);
}

/* Of all groups together: conv1's scales are a hundredth of conv2's, so that it loses all but a tenth, one, and conv2
 * the other 6 of half of 22. */
static void global_ratio_takes_where_least_is_lost(void **state)
{
    (void)state;
    fst_model m, p;
    assert_ok(fst_model_init(&m, "fedgen_mnist", NULL, err));
    fill_state(&m.state, m.graph, 5);
    for (int i = 0; i < 6; i++)
        m.state.params[param(&m, "bn1.weight").offset + (size_t)i] = 0.01F * (float)(i + 1);
    for (int i = 0; i < 16; i++)
        m.state.params[param(&m, "bn2.weight").offset + (size_t)i] = (float)(i + 1);
    fst_prune o = {.ratio = 0.5, .importance = FST_IMPORTANCE_BATCHNORM, .global = true};
    assert_ok(fst_model_prune(&p, &m, &o, err));
    static const float first[] = {0.06F}, second[] = {7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
    has_values(&p, "bn1.weight", first, 1);
    has_values(&p, "bn2.weight", second, 10);
    fst_model_release(&p);
    fst_model_release(&m);
}

/* Channels of zeroes, half of each group, are the least important by either measure: what is left computes the same. */
static void zeroes_go_first(void **state)
{
    (void)state;
    for (size_t a = 0; a < NETWORKS; a++)
        for (int i = 0; i < 2; i++) {
            fst_prune o = {.ratio = 0.5, .importance = (fst_importance)i};
            fst_model m, p;
            fst_channels *c;
            new_model(&m, &zoo[a]);
            assert_ok(fst_channels_new(&c, m.graph, err));
            for (size_t k = 0; k < fst_channels_groups(c); k++)
                for (int64_t n = 0; n < fst_channels_group(c, k).channels; n += 2)
                    silence(&m, c, k, n);
            fst_error none = {0};
            fst_status s = fst_model_prune(&p, &m, &o, &none);
            if (s == FST_OK) {
                assert_true(fst_graph_param_count(p.graph) < fst_graph_param_count(m.graph));
                same_logits(m.arch, &m, &p);
                fst_model_release(&p);
            } else {
                assert_int_equal(s, FST_E_UNSUPPORTED); /* no norms */
                assert_int_equal(o.importance, FST_IMPORTANCE_BATCHNORM);
                assert_int_equal(fst_graph_counters(m.graph), 0);
            }
            fst_channels_free(c);
            fst_model_release(&m);
        }
}

/* ---- models ------------------------------------------------------------------------------------------------------ */

static void same_files(const char *a, const char *b)
{
    fst_buf x = {0}, y = {0};
    assert_ok(fst_file_read(a, 1 << 24, &x, err));
    assert_ok(fst_file_read(b, 1 << 24, &y, err));
    assert_int_equal(x.len, y.len);
    assert_memory_equal(x.data, y.data, x.len);
    fst_buf_release(&x);
    fst_buf_release(&y);
}

static void ratio_0_changes_nothing(void **state)
{
    (void)state;
    fst_model m, p;
    fst_prune none = {.ratio = 0}, tenth = {.ratio = 0.1, .global = true};
    new_model(&m, &zoo[6]);
    for (int turn = 0; turn < 2; turn++) { /* of a whole model, and of one that was pruned before */
        assert_ok(fst_model_prune(&p, &m, &none, err));
        assert_ok(fst_model_save(&m, path, NULL, 0, NULL, err));
        assert_ok(fst_model_save(&p, other, NULL, 0, NULL, err));
        same_files(path, other);
        fst_model_release(&p);
        assert_ok(fst_model_prune(&p, &m, &tenth, err));
        assert_true(fst_graph_param_count(p.graph) < fst_graph_param_count(m.graph));
        fst_model_release(&m);
        m = p;
    }
    fst_model_release(&m);
}

/* Its file opens, and so do what it is exported to and its form in int8; threads change no bits. */
static void pruned_models_are_models(void **state)
{
    (void)state;
    static const size_t some[] = {1, 6, 11}; /* plain, residual, depthwise */
    for (size_t a = 0; a < sizeof some / sizeof *some; a++) {
        fst_model m, p, back, q;
        fst_calibration *cal;
        fst_prune o = {.ratio = 0.5};
        new_model(&m, &zoo[some[a]]);
        assert_ok(fst_model_prune(&p, &m, &o, err));
        assert_ok(fst_model_save(&p, path, NULL, 0, NULL, err));
        assert_ok(fst_model_load(&back, path, err));
        assert_ok(fst_model_save(&back, other, NULL, 0, NULL, err));
        same_files(path, other);
        float *x = new_samples(&p), *one = new_logits(&p, x, 1), *two = new_logits(&back, x, 2);
        assert_memory_equal(one, two, ROWS * (size_t)p.classes * sizeof *one);
        fst_model_release(&back);

        fst_import_options import = {.arch = p.arch};
        assert_ok(fst_model_export(&p, path, FST_NAMES_TORCHVISION, FST_F32, NULL, 0, NULL, err));
        assert_ok(fst_model_import(&back, path, &import, NULL, err));
        same_logits(m.arch, &p, &back);
        fst_model_release(&back);
        if (fst_onnx_is_built()) {
            assert_ok(fst_model_export_onnx(&p, path, NULL, NULL, 0, NULL, err));
            assert_ok(fst_model_import(&back, path, &import, NULL, err));
            same_logits(m.arch, &p, &back);
            fst_model_release(&back);
        }
        assert_ok(fst_calibration_new(&cal, &p, ROWS, 1, err));
        assert_ok(fst_calibration_add(cal, x, ROWS, err));
        assert_ok(fst_model_int8(&q, &p, cal, err));
        fst_calibration_free(cal);
        assert_ok(fst_model_save(&q, path, NULL, 0, NULL, err));
        assert_ok(fst_model_load(&back, path, err));
        assert_memory_equal(back.config.widths, p.config.widths, sizeof p.config.widths);
        assert_fails(fst_model_prune(&m, &q, &o, err), FST_E_UNSUPPORTED, "cannot be pruned: take the f32 model");
        free(x);
        free(one);
        free(two);
        fst_model_release(&q);
        fst_model_release(&back);
        fst_model_release(&p);
        fst_model_release(&m);
    }
}

/* Nearly all, again and again: something is left of every group, and the file is still read. */
static void something_stays(void **state)
{
    (void)state;
    fst_model m, p;
    fst_prune o = {.ratio = 0.999};
    new_model(&m, &zoo[11]);
    for (int turn = 0; turn < 2; turn++) {
        assert_ok(fst_model_prune(&p, &m, &o, err));
        fst_model_release(&m);
        assert_ok(fst_model_save(&p, path, NULL, 0, NULL, err));
        fst_model_release(&p);
        assert_ok(fst_model_load(&m, path, err));
    }
    for (size_t k = 0; k < FST_MODEL_WIDTHS && m.config.widths[k]; k++)
        assert_in_range(m.config.widths[k], 1, 2);
    fst_model_release(&m);
}

/* ---- refusals ------------------------------------------------------------------------------------------------------
 */

static void wrong_requests_are_refused(void **state)
{
    (void)state;
    fst_model m, line, p;
    static const double wrong[] = {-0.1, 1, 1.5, NAN, INFINITY};
    new_model(&m, &zoo[1]);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        fst_prune o = {.ratio = wrong[i]};
        assert_fails(fst_model_prune(&p, &m, &o, err), FST_E_CONFIG, "0 to below 1");
    }
    fst_prune norms = {.ratio = 0.5, .importance = FST_IMPORTANCE_BATCHNORM}, l1 = {.ratio = 0.5};
    assert_fails(fst_model_prune(&p, &m, &norms, err), FST_E_UNSUPPORTED, "that have: fedgen_mnist, resnet8");
    m.state.params[3] = NAN;
    assert_fails(fst_model_prune(&p, &m, &l1, err), FST_E_NUMERIC, "conv1: a weight");
    assert_ok(fst_model_init(&line, "logistic_regression", NULL, err));
    assert_fails(fst_model_prune(&p, &line, &l1, err), FST_E_UNSUPPORTED,
                 "logistic_regression has no channels that can be removed; networks that have: mnist_teacher");
    fst_model_release(&m);
    fst_model_release(&line);
}

static void wrong_widths_are_refused(void **state)
{
    (void)state;
    fst_model_config c = {0};
    fst_graph *g;
    static const char *const texts[] = {"widths=", "widths=0,1,1", "widths=1.5,2,2", "widths=8,", "widths=8;9"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_fails(fst_model_config_set(&c, "mnist_student", texts[i], err), FST_E_CONFIG, "write widths=");
    assert_ok(fst_model_config_set(&c, "mnist_student", "widths=8,16", err));
    assert_fails(fst_model_graph(&g, "mnist_student", &c, err), FST_E_CONFIG, "2 widths for 3 groups");
    assert_ok(fst_model_config_set(&c, "mnist_student", "widths=8,33,64", err));
    assert_fails(fst_model_graph(&g, "mnist_student", &c, err), FST_E_CONFIG,
                 "width 2 (conv2) is 33; 1 to 32 are possible");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(removed_is_zero),
        cmocka_unit_test(groups_are_those_of_the_network),
        cmocka_unit_test(what_reads_several_keeps_all),
        cmocka_unit_test(least_magnitudes_go),
        cmocka_unit_test(least_scales_go),
        cmocka_unit_test(global_ratio_takes_where_least_is_lost),
        cmocka_unit_test(zeroes_go_first),
        cmocka_unit_test(ratio_0_changes_nothing),
        cmocka_unit_test(pruned_models_are_models),
        cmocka_unit_test(something_stays),
        cmocka_unit_test(wrong_requests_are_refused),
        cmocka_unit_test(wrong_widths_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
