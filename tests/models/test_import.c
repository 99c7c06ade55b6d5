/* Weights from elsewhere: other people's names, types and logits (make_state_dicts.py has them from PyTorch), and what
 * does not fit is named and leaves everything as it was. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <unistd.h>

#include "fedstill/models.h"
#include "nn/support.h"

static char folder[] = "/tmp/fedstill-import-XXXXXX";
static char path[128];

static int set_up(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/in.safetensors", folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    (void)unlink(path);
    return rmdir(folder);
}

static const char *source_file(const char *name)
{
    static char full[512];
    const char *root = getenv("FEDSTILL_SOURCE");
    assert_non_null(root);
    snprintf(full, sizeof full, "%s/tests/models/%s", root, name);
    return full;
}

static size_t of_kind(const fst_import_report *r, fst_import_kind kind)
{
    size_t n = 0;
    for (size_t i = 0; i < r->count; i++)
        n += r->items[i].kind == kind;
    assert_int_equal(n, r->of[kind]);
    return n;
}

static const fst_import_item *item_of(const fst_import_report *r, fst_import_kind kind, const char *name)
{
    for (size_t i = 0; i < r->count; i++) {
        const fst_import_item *it = &r->items[i];
        if (it->kind == kind && ((it->ours && !strcmp(it->ours, name)) || (it->theirs && !strcmp(it->theirs, name))))
            return it;
    }
    fail_msg("%s is not among what is %s", name, fst_import_kind_name(kind));
    return NULL;
}

/* ---- torchvision's networks ---------------------------------------------------------------------------- */

struct line {
    char name[96];
    fst_shape shape;
};

static size_t read_listing(const char *file, struct line *lines, size_t room)
{
    char text[256];
    size_t n = 0;
    FILE *f = fopen(source_file(file), "r");
    assert_non_null(f);
    while (fgets(text, sizeof text, f)) {
        char *save = NULL, *word = strtok_r(text, " \n", &save);
        assert_true(n < room && strlen(word) < sizeof lines->name);
        lines[n] = (struct line){.shape = {0}};
        strcpy(lines[n].name, word);
        while ((word = strtok_r(NULL, " \n", &save)))
            lines[n].shape.dim[lines[n].shape.rank++] = atoll(word);
        n++;
    }
    fclose(f);
    return n;
}

static void find_line(const struct line *lines, size_t n, const char *name, const fst_shape *shape)
{
    size_t i = 0;
    while (i < n && strcmp(lines[i].name, name))
        i++;
    if (i == n)
        fail_msg("torchvision has no %s", name);
    if (!fst_shape_equal(&lines[i].shape, shape))
        fail_msg("%s has another shape in torchvision", name);
}

static void torchvision_has_the_same_tensors(void **state)
{
    static const char *const networks[] = {"resnet50", "mobilenet_v2"};
    static struct line lines[400];
    static const fst_shape scalar = {0};
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        char file[64];
        fst_graph *g = NULL;
        snprintf(file, sizeof file, "torchvision-%s.txt", networks[k]);
        size_t n = read_listing(file, lines, sizeof lines / sizeof *lines);
        assert_ok(fst_model_graph(&g, networks[k], NULL, err));
        assert_int_equal(n, fst_graph_params(g) + fst_graph_buffers(g) + fst_graph_counters(g));
        for (size_t i = 0; i < fst_graph_params(g); i++) {
            fst_param_info p = fst_graph_param(g, i);
            find_line(lines, n, p.name, &p.shape);
        }
        for (size_t i = 0; i < fst_graph_buffers(g); i++) {
            fst_param_info p = fst_graph_buffer(g, i);
            find_line(lines, n, p.name, &p.shape);
        }
        for (size_t i = 0; i < fst_graph_counters(g); i++)
            find_line(lines, n, fst_graph_counter(g, i), &scalar);
        fst_graph_free(g);
    }
}

/* ---- PyTorch's logits ------------------------------------------------------------------------------------ */

static void read_floats(const char *file, const char *name, float *out, size_t n)
{
    fst_safetensors *f = NULL;
    size_t i;
    assert_ok(fst_safetensors_open(&f, file, err));
    assert_true(fst_safetensors_find(f, name, &i));
    assert_ok(fst_safetensors_read_f32(f, i, out, n, err));
    fst_safetensors_free(f);
}

static void same_logits(const fst_model *m, const char *file)
{
    static float x[2 * 3 * 32 * 32];
    float wanted[20], got[20];
    fst_runner *r = NULL;
    fst_trainer_options o = {.batch_size = 2, .threads = 1};
    double largest = 0;
    read_floats(file, "test.x", x, sizeof x / sizeof *x);
    read_floats(file, "test.logits", wanted, 20);
    assert_ok(fst_runner_new(&r, m->graph, &o, err));
    assert_ok(fst_runner_logits(r, &m->state, x, 2, got, err));
    fst_runner_free(r);
    for (int i = 0; i < 20; i++)
        largest = fmax(largest, fabs((double)wanted[i]));
    assert_true(largest > 1);
    for (int i = 0; i < 20; i++)
        if (!(fabs((double)got[i] - (double)wanted[i]) <= 2e-5 * largest))
            fail_msg("logit %d is %.9g, PyTorch has %.9g", i, (double)got[i], (double)wanted[i]);
}

static void half_weights_with_padded_shortcuts(void **state)
{
    (void)state;
    const char *file = source_file("resnet8-akamaster.safetensors");
    fst_model m = {0};
    fst_import_report r = {0};
    fst_import_options o = {.arch = "resnet8", .prefix = "state_dict."};
    assert_fails(fst_model_import(&m, file, &o, &r, err), FST_E_MISMATCH, "missing layer2.0.downsample.0.weight");
    assert_fails(fst_model_import(&m, file, &o, NULL, err), FST_E_MISMATCH, "can be padded");
    assert_null(m.graph);
    assert_int_equal(of_kind(&r, FST_IMPORT_MISSING), 10);
    fst_import_report_release(&r);
    o.pad_shortcuts = true;
    assert_ok(fst_model_import(&m, file, &o, &r, err));
    assert_int_equal(of_kind(&r, FST_IMPORT_PADDED), 10);
    assert_int_equal(of_kind(&r, FST_IMPORT_ZERO), 9); /* the file has no counters */
    assert_int_equal(of_kind(&r, FST_IMPORT_LEFT_OUT), 2);
    assert_int_equal(item_of(&r, FST_IMPORT_TAKEN, "state_dict.module.linear.weight")->dtype, FST_F16);
    assert_string_equal(r.format, "safetensors");
    same_logits(&m, file);
    fst_import_report_release(&r);
    fst_model_release(&m);
    o.arch = "resnet50";
    assert_fails(fst_model_import(&m, file, &o, NULL, err), FST_E_CONFIG, "shortcuts to pad");
}

static void brain_floats_with_other_shortcuts(void **state)
{
    (void)state;
    const char *file = source_file("resnet8-kuangliu.safetensors");
    fst_model m = {0};
    fst_import_report r = {0};
    fst_import_options o = {.arch = "resnet8", .map = "test.* -\n"};
    assert_ok(fst_model_import(&m, file, &o, &r, err));
    assert_int_equal(of_kind(&r, FST_IMPORT_TAKEN), r.count - 2);
    assert_int_equal(m.state.counters[0], 391);
    assert_int_equal(m.classes, 10);
    same_logits(&m, file);
    fst_import_report_release(&r);
    fst_model_release(&m);
}

/* ---- names --------------------------------------------------------------------------------------------------- */

/* A file with the tensors of m under the names that `rename` makes (out is empty: left away). */
static void write_renamed(const fst_model *m, void (*rename)(const char *ours, char out[128]))
{
    static char names[1024][128];
    fst_tensor t[1024];
    size_t n = 0;
    for (size_t i = 0; i < fst_graph_params(m->graph); i++) {
        fst_param_info p = fst_graph_param(m->graph, i);
        t[n++] = (fst_tensor){p.name, FST_F32, p.shape, m->state.params + p.offset};
    }
    for (size_t i = 0; i < fst_graph_buffers(m->graph); i++) {
        fst_param_info p = fst_graph_buffer(m->graph, i);
        t[n++] = (fst_tensor){p.name, FST_F32, p.shape, m->state.buffers + p.offset};
    }
    for (size_t i = 0; i < fst_graph_counters(m->graph); i++)
        t[n++] = (fst_tensor){fst_graph_counter(m->graph, i), FST_I64, {0}, m->state.counters + i};
    for (size_t i = 0; i < n; i++) {
        rename(t[i].name, names[i]);
        t[i].name = names[i];
    }
    assert_ok(fst_safetensors_write(path, NULL, 0, t, n, NULL, err));
}

static void comes_back(const char *arch, const fst_model_config *c, const char *const *settings, size_t n,
                       void (*rename)(const char *ours, char out[128]))
{
    fst_model m, r = {0};
    assert_ok(fst_model_init(&m, arch, c, err));
    fill_state(&m.state, m.graph, 5);
    for (size_t i = 0; i < m.state.counter_count; i++)
        m.state.counters[i] = (int64_t)i + 1;
    write_renamed(&m, rename);
    fst_import_options o = {.arch = arch, .settings = settings, .setting_count = n};
    assert_ok(fst_model_import(&r, path, &o, NULL, err));
    assert_int_equal(r.classes, m.classes); /* read off the head */
    assert_memory_equal(r.state.params, m.state.params, m.state.param_count * sizeof(float));
    assert_memory_equal(r.state.buffers, m.state.buffers, m.state.buffer_count * sizeof(float));
    assert_memory_equal(r.state.counters, m.state.counters, m.state.counter_count * sizeof(int64_t));
    fst_model_release(&r);
    fst_model_release(&m);
}

/* timm: which stage and block features.N is, and what its children are called. */
static void timm_name(const char *ours, char out[128])
{
    static const int counts[] = {1, 2, 3, 4, 3, 3, 1};
    int number, at = 0, stage = 0;
    char rest[100];
    if (!strncmp(ours, "features.0.", 11) || !strncmp(ours, "features.18.", 12)) {
        bool stem = ours[10] == '.';
        const char *child = ours + (stem ? 11 : 12);
        snprintf(out, 128, "%s%s", *child == '0' ? (stem ? "conv_stem" : "conv_head") : (stem ? "bn1" : "bn2"),
                 child + 1);
        return;
    }
    if (sscanf(ours, "features.%d.conv.%n%99s", &number, &at, rest) != 2) {
        snprintf(out, 128, "classifier%s", strrchr(ours, '.'));
        return;
    }
    static const struct {
        const char *ours, *theirs;
    } first[] = {{"0.0.", "conv_dw."}, {"0.1.", "bn1."}, {"1.", "conv_pw."}, {"2.", "bn2."}},
      other[] = {{"0.0.", "conv_pw."}, {"0.1.", "bn1."},    {"1.0.", "conv_dw."},
                 {"1.1.", "bn2."},     {"2.", "conv_pwl."}, {"3.", "bn3."}};
    for (number--; number >= counts[stage]; stage++)
        number -= counts[stage];
    for (size_t i = 0; i < (stage ? 6 : 4); i++) {
        const char *from = stage ? other[i].ours : first[i].ours;
        if (!strncmp(rest, from, strlen(from))) {
            snprintf(out, 128, "blocks.%d.%d.%s%s", stage, number, stage ? other[i].theirs : first[i].theirs,
                     rest + strlen(from));
            return;
        }
    }
    fail_msg("no name for %s", ours);
}

/* weiaicunzai's CIFAR networks of either kind of block, inside torch.compile and DistributedDataParallel. */
static void residual_function_name(const char *ours, char out[128])
{
    static const char *const inside[] = {"conv1.", "bn1.", "", "conv2.", "bn2.", "", "conv3.", "bn3."};
    int layer, block, at = 0;
    if (sscanf(ours, "layer%d.%d.%n", &layer, &block, &at) == 2 && at) {
        for (size_t i = 0; i < 8; i++)
            if (inside[i][0] && !strncmp(ours + at, inside[i], strlen(inside[i]))) {
                snprintf(out, 128, "_orig_mod.module.conv%d_x.%d.residual_function.%zu.%s", layer + 1, block, i,
                         ours + at + strlen(inside[i]));
                return;
            }
        assert_true(!strncmp(ours + at, "downsample.", 11));
        snprintf(out, 128, "_orig_mod.module.conv%d_x.%d.shortcut.%s", layer + 1, block, ours + at + 11);
    } else if (!strncmp(ours, "conv1.", 6) || !strncmp(ours, "bn1.", 4)) {
        snprintf(out, 128, "_orig_mod.module.conv1.%d%s", ours[0] == 'b', strchr(ours, '.'));
    } else {
        snprintf(out, 128, "_orig_mod.module.%s", ours);
    }
}

static void same_name(const char *ours, char out[128])
{
    snprintf(out, 128, "model.%s", ours);
}

static void names_of_others(void **state)
{
    static const char *const narrow[] = {"width=0.25", "stem_stride=1"}, *const short_head[] = {"hidden=10"};
    (void)state;
    fst_model_config c = {.classes = 4, .width = 0.25, .stem_stride = 1};
    comes_back("mobilenet_v2", &c, narrow, 2, timm_name);
    comes_back("mobilenet_v2", &c, narrow, 2, same_name);
    c = (fst_model_config){.classes = 3};
    comes_back("resnet20", &c, NULL, 0, residual_function_name);
    c.hidden = 10;
    comes_back("real_resnet20_link11_h", &c, short_head, 1, residual_function_name);
    c.hidden = 0;
    comes_back("resnet8", &c, NULL, 0, same_name);
    comes_back("mnist_student", &c, NULL, 0, same_name);
}

/* ---- small files, changed ----------------------------------------------------------------------------------- */

struct file { /* logistic_regression on (1, 2, 2), 3 classes */
    fst_pair meta[12];
    size_t nmeta;
    fst_tensor t[8];
    size_t n;
    float weight[12], bias[3];
};

static const char *const tiny[] = {"input=1,2,2"};

static void good_file(struct file *f)
{
    *f = (struct file){.n = 2};
    fill_normal(f->weight, 12, 3, "test.weight", 1);
    fill_normal(f->bias, 3, 3, "test.bias", 1);
    f->t[0] = (fst_tensor){"module.fc.weight", FST_F32, FST_SHAPE(3, 4), f->weight};
    f->t[1] = (fst_tensor){"module.fc.bias", FST_F32, FST_SHAPE(3), f->bias};
}

static void put(const struct file *f)
{
    assert_ok(fst_safetensors_write(path, f->meta, f->nmeta, f->t, f->n, NULL, err));
}

static fst_import_options plain(void)
{
    return (fst_import_options){.arch = "logistic_regression", .settings = tiny, .setting_count = 1};
}

static void taken(const struct file *f, const fst_import_options *o)
{
    fst_model m = {0};
    put(f);
    assert_ok(fst_model_import(&m, path, o, NULL, err));
    assert_memory_equal(m.state.params, f->weight, sizeof f->weight);
    assert_memory_equal(m.state.params + 12, f->bias, sizeof f->bias);
    fst_model_release(&m);
}

static void refused(const struct file *f, const fst_import_options *o, fst_status status, const char *text)
{
    fst_model m, was;
    memset(&m, 0x5a, sizeof m);
    memcpy(&was, &m, sizeof m);
    put(f);
    assert_fails(fst_model_import(&m, path, o, NULL, err), status, text);
    assert_memory_equal(&m, &was, sizeof m);
}

static void what_does_not_fit_is_named(void **state)
{
    (void)state;
    struct file f;
    fst_import_options o = plain();
    fst_import_report r = {0};
    fst_model m = {0};
    good_file(&f);
    taken(&f, &o);
    f.t[1].name = "module.fc.bais";
    refused(&f, &o, FST_E_MISMATCH, "missing fc.bias (3,)");
    good_file(&f);
    f.t[1].name = "module.fc.bais";
    f.t[0].shape = FST_SHAPE(4, 3);
    o.classes = 3;
    refused(&f, &o, FST_E_MISMATCH,
            "3 tensors do not fit logistic_regression: fc.weight is F32 (4, 3), not (3, 4); "
            "missing fc.bias (3,); extra module.fc.bais (3,)");
    assert_int_equal(fst_model_import(&m, path, &o, &r, NULL), FST_E_MISMATCH);
    const fst_import_item *item = item_of(&r, FST_IMPORT_MISSHAPED, "fc.weight");
    assert_string_equal(item->theirs, "module.fc.weight");
    assert_true(fst_shape_equal(&item->our_shape, &FST_SHAPE(3, 4)));
    assert_true(fst_shape_equal(&item->their_shape, &FST_SHAPE(4, 3)));
    assert_int_equal(of_kind(&r, FST_IMPORT_MISSING), 1);
    assert_int_equal(of_kind(&r, FST_IMPORT_EXTRA), 1);
    fst_import_report_release(&r);
    good_file(&f); /* numbers that need a scale to mean something */
    f.t[0].dtype = FST_I8;
    refused(&f, &o, FST_E_MISMATCH, "fc.weight is of I8, not of floats");
    good_file(&f);
    f.n = 0;
    refused(&f, &o, FST_E_MISMATCH, "missing fc.weight (3, 4)");
    good_file(&f);
    o.head = FST_HEAD_FRESH;
    refused(&f, &o, FST_E_MISMATCH, "nothing of it");
    o = plain();
    o.arch = "perceptron";
    o.setting_count = 0;
    refused(&f, &o, FST_E_CONFIG, "no model \"perceptron\"");
}

static void one_of_two_sets_is_chosen(void **state)
{
    (void)state;
    struct file f;
    fst_import_options o = plain();
    fst_import_report r = {0};
    fst_model m = {0};
    float other[12] = {0}, zero[3] = {0};
    int64_t averaged = 9;
    good_file(&f);
    f.t[2] = (fst_tensor){"model_ema.module.fc.weight", FST_F32, FST_SHAPE(3, 4), other};
    f.t[3] = (fst_tensor){"model_ema.module.fc.bias", FST_F32, FST_SHAPE(3), zero};
    f.t[4] = (fst_tensor){"n_averaged", FST_I64, {0}, &averaged};
    f.n = 5;
    refused(&f, &o, FST_E_MISMATCH, "model_ema.module.fc.weight is fc.weight too");
    refused(&f, &o, FST_E_MISMATCH, "module.fc.weight is fc.weight too");
    refused(&f, &o, FST_E_MISMATCH, "a prefix or a suffix");
    refused(&f, &o, FST_E_MISMATCH, "such as the prefix model_ema.");
    o.prefix = "module.";
    taken(&f, &o);
    o.prefix = NULL;
    f.t[2].name = "module.fc.weight_ema";
    f.t[3].name = "module.fc.bias_ema";
    o.suffix = "_ema";
    put(&f);
    assert_ok(fst_model_import(&m, path, &o, &r, err));
    assert_memory_equal(m.state.params, other, sizeof other);
    assert_int_equal(of_kind(&r, FST_IMPORT_LEFT_OUT), 3);
    fst_import_report_release(&r);
    fst_model_release(&m);
    o.suffix = NULL;
    refused(&f, &o, FST_E_MISMATCH, "extra module.fc.bias_ema");
}

static void maps_go_first(void **state)
{
    static const struct {
        const char *map, *error;
    } bad[] = {
        {"fc.weight", "m:1: a line is THEIRS OURS"},
        {"# fine\n\na b c\n", "m:3: "},
        {"a *", "m:1: "},
        {"********* x", "m:1: "},
    };
    (void)state;
    struct file f;
    fst_import_options o = plain();
    fst_import_report r = {0};
    fst_model m = {0};
    good_file(&f);
    f.t[0].name = "net.0.kernel.last";
    f.t[1].name = "net.0.offset.last";
    f.t[2] = (fst_tensor){"other.thing", FST_F32, FST_SHAPE(3), f.bias};
    f.n = 3;
    o.map = "  # ours\r\n*.kernel.* fc.weight # one\nnet.*.offset.la*t\tfc.bias\nother.* -\nnever.* -";
    o.map_name = "m";
    taken(&f, &o);
    assert_ok(fst_model_import(&m, path, &o, &r, err));
    assert_int_equal(of_kind(&r, FST_IMPORT_UNUSED), 1);
    (void)item_of(&r, FST_IMPORT_UNUSED, "never.*");
    (void)item_of(&r, FST_IMPORT_LEFT_OUT, "other.thing");
    fst_import_report_release(&r);
    fst_model_release(&m);
    f.t[0].name = "a.b.weight.b.c"; /* stars bring back what they stood for */
    f.t[1].name = "a.b.bias.b.c";
    o.map = "a.*.*.b.* fc.*\nother.* -"; /* as many stars as brought back, from the first on */
    refused(&f, &o, FST_E_MISMATCH, "extra a.b.bias.b.c");
    o.map = "a.b.*.*.c fc.*\nother.* -";
    taken(&f, &o);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        o.map = bad[i].map;
        refused(&f, &o, FST_E_CONFIG, bad[i].error);
    }
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

static void values_that_are_none(void **state)
{
    (void)state;
    struct file f;
    fst_import_options o = plain();
    fst_import_report r = {0};
    fst_model m = {0};
    double wide[3] = {1, 1e300, -INFINITY};
    good_file(&f);
    f.weight[5] = NAN;
    refused(&f, &o, FST_E_NUMERIC, "fc.weight has 1 values that are no number or infinite");
    good_file(&f);
    f.t[1].dtype = FST_F64; /* one is infinite, one becomes so */
    f.t[1].data = wide;
    refused(&f, &o, FST_E_NUMERIC, "fc.bias has 2 values");
    o.allow_nonfinite = true;
    put(&f);
    assert_ok(fst_model_import(&m, path, &o, &r, err));
    assert_int_equal(item_of(&r, FST_IMPORT_NONFINITE, "fc.bias")->nonfinite, 2);
    assert_true(m.state.params[12] == 1.0f && isinf(m.state.params[13]) && isinf(m.state.params[14]));
    fst_import_report_release(&r);
    fst_model_release(&m);
}

static void counters_of_any_type(void **state)
{
    (void)state;
    const char *file = source_file("resnet8-kuangliu.safetensors");
    fst_safetensors *in = NULL;
    fst_tensor t[64];
    float count = 7;
    size_t n = 0;
    assert_ok(fst_safetensors_open(&in, file, err));
    for (size_t i = 0; i < fst_safetensors_count(in); i++) {
        fst_tensor x = fst_safetensors_at(in, i);
        size_t bytes = (size_t)fst_shape_count(&x.shape) * fst_dtype_size(x.dtype);
        x.data = malloc(bytes);
        assert_non_null(x.data);
        assert_ok(fst_safetensors_read(in, i, x.data, bytes, err));
        if (!strcmp(x.name, "state_dict._orig_mod.module.bn1.num_batches_tracked")) {
            free(x.data);
            x = (fst_tensor){x.name, FST_F32, FST_SHAPE(1), &count};
        }
        t[n++] = x;
    }
    fst_model m = {0};
    fst_import_options o = {.arch = "resnet8", .prefix = "state_dict."};
    assert_ok(fst_safetensors_write(path, NULL, 0, t, n, NULL, err));
    assert_ok(fst_model_import(&m, path, &o, NULL, err));
    assert_int_equal(m.state.counters[0], 7);
    fst_model_release(&m);
    count = 7.5f;
    assert_ok(fst_safetensors_write(path, NULL, 0, t, n, NULL, err));
    assert_fails(fst_model_import(&m, path, &o, NULL, err), FST_E_NUMERIC, "bn1.num_batches_tracked");
    for (size_t i = 0; i < n; i++)
        if (t[i].data != &count)
            free(t[i].data);
    fst_safetensors_free(in);
}

/* ---- heads ---------------------------------------------------------------------------------------------------- */

static void a_fresh_head_comes_from_the_seed(void **state)
{
    (void)state;
    const char *file = source_file("resnet8-kuangliu.safetensors");
    fst_model kept = {0}, fresh = {0}, again = {0}, random = {0};
    fst_import_report r = {0};
    fst_import_options o = {.arch = "resnet8", .prefix = "state_dict.", .seed = 11};
    assert_ok(fst_model_import(&kept, file, &o, NULL, err));
    o.classes = 4;
    assert_fails(fst_model_import(&fresh, file, &o, NULL, err), FST_E_MISMATCH, "a fresh head");
    assert_fails(fst_model_import(&fresh, file, &o, NULL, err), FST_E_MISMATCH,
                 "fc.weight is BF16 (10, 64), not (4, 64)");
    o.head = FST_HEAD_FRESH;
    assert_ok(fst_model_import(&fresh, file, &o, &r, err));
    assert_int_equal(fresh.classes, 4);
    assert_int_equal(of_kind(&r, FST_IMPORT_FRESH), 2);
    (void)item_of(&r, FST_IMPORT_LEFT_OUT, "state_dict._orig_mod.module.linear.weight");
    fst_model_config c = {.classes = 4};
    assert_ok(fst_model_init(&random, "resnet8", &c, err));
    fst_state_randomise(&random.state, random.graph, 11);
    size_t body = fresh.state.param_count - 4 * 65;
    assert_memory_equal(fresh.state.params, kept.state.params, body * sizeof(float));
    assert_memory_equal(fresh.state.params + body, random.state.params + body, 4 * 65 * sizeof(float));
    o.seed = 12;
    assert_ok(fst_model_import(&again, file, &o, NULL, err));
    assert_memory_not_equal(fresh.state.params + body, again.state.params + body, 4 * 65 * sizeof(float));
    fst_import_report_release(&r);
    fst_model_release(&kept);
    fst_model_release(&fresh);
    fst_model_release(&again);
    fst_model_release(&random);
}

/* The network's head has two layers, the file's one; and where the first of the two fits it is kept. */
static void heads_of_two_layers(void **state)
{
    (void)state;
    fst_model m, r = {0};
    fst_import_report report = {0};
    float weight[5 * 8] = {0}, bias[5] = {0};
    fst_import_options o = {.arch = "mnist_student", .classes = 6};
    assert_ok(fst_model_init(&m, "mnist_student", NULL, err));
    fill_state(&m.state, m.graph, 2);
    fst_tensor t[8];
    size_t n = 0;
    for (size_t i = 0; i < fst_graph_params(m.graph); i++) {
        fst_param_info p = fst_graph_param(m.graph, i);
        t[n++] = (fst_tensor){p.name, FST_F32, p.shape, m.state.params + p.offset};
    }
    assert_int_equal(n, 8);
    assert_ok(fst_safetensors_write(path, NULL, 0, t, n, NULL, err));
    o.head = FST_HEAD_FRESH;
    assert_ok(fst_model_import(&r, path, &o, &report, err));
    assert_int_equal(of_kind(&report, FST_IMPORT_FRESH), 2); /* fc1 fits and stays */
    (void)item_of(&report, FST_IMPORT_TAKEN, "fc1.weight");
    assert_int_equal(r.classes, 6);
    fst_import_report_release(&report);
    fst_model_release(&r);
    t[4] = (fst_tensor){"fc.weight", FST_F32, FST_SHAPE(5, 8), weight};
    t[5] = (fst_tensor){"fc.bias", FST_F32, FST_SHAPE(5), bias};
    assert_ok(fst_safetensors_write(path, NULL, 0, t, 6, NULL, err));
    assert_ok(fst_model_import(&r, path, &o, &report, err));
    assert_int_equal(of_kind(&report, FST_IMPORT_FRESH), 4);
    assert_int_equal(of_kind(&report, FST_IMPORT_LEFT_OUT), 2);
    fst_import_report_release(&report);
    fst_model_release(&r);
    o.head = FST_HEAD_KEEP;
    assert_fails(fst_model_import(&r, path, &o, NULL, err), FST_E_MISMATCH, "missing fc1.weight (64, 1568)");
    fst_model_release(&m);
}

/* ---- files ------------------------------------------------------------------------------------------------------ */

static void files_of_fedstill(void **state)
{
    static char *names[] = {"a", "b", "c"};
    (void)state;
    fst_model m, r = {0};
    fst_model_config c = {.classes = 3, .stem = FST_STEM_IMAGENET, .dropout1 = 0.5, .input = FST_SHAPE(3, 12, 10)};
    fst_import_options o = {.arch = "pfl_cifar"};
    assert_ok(fst_model_init(&m, "pfl_cifar", &c, err));
    fill_state(&m.state, m.graph, 4);
    m.channels = 1;
    m.mean[0] = 0.25f;
    m.std[0] = 0.5f;
    m.fingerprint = true;
    assert_ok(fst_model_set_class_names(&m, names, 3, err));
    assert_ok(fst_model_save(&m, path, NULL, 0, NULL, err));
    assert_ok(fst_model_import(&r, path, &o, NULL, err));
    assert_true(r.channels == 1 && r.std[0] == 0.5f && r.config.dropout1 == 0.5 && r.fingerprint);
    assert_true(fst_shape_equal(&r.config.input, &c.input));
    assert_string_equal(r.class_names[2], "c");
    fst_model_release(&r);
    o.head = FST_HEAD_FRESH;
    o.classes = 5;
    assert_ok(fst_model_import(&r, path, &o, NULL, err));
    assert_true(r.classes == 5 && !r.class_names && r.channels == 1 && r.fingerprint); /* a head sees nothing else */
    fst_model_release(&r);
    /* exported under either names and imported: the network still sees fingerprints, not samples */
    o = (fst_import_options){.arch = "pfl_cifar"};
    for (int ours = 0; ours < 2; ours++)
        for (int kept = 0; kept < 2; kept++) {
            m.fingerprint = kept;
            assert_ok(
                fst_model_export(&m, path, ours ? FST_NAMES_OURS : FST_NAMES_TORCHVISION, FST_F32, NULL, 0, NULL, err));
            assert_ok(fst_model_import(&r, path, &o, NULL, err));
            assert_int_equal(r.fingerprint, kept);
            fst_model_release(&r);
        }
    assert_ok(fst_model_save(&m, path, NULL, 0, NULL, err));
    o = (fst_import_options){.arch = "pfl_cifar", .head = FST_HEAD_FRESH, .classes = 5};
    o.arch = "cifar_student";
    assert_fails(fst_model_import(&r, path, &o, NULL, err), FST_E_MISMATCH, "a pfl_cifar, not a cifar_student");
    fst_model_release(&m);
}

static void damaged_and_other_files(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
        fst_status status;
        const char *text;
    } other[] = {
        {"PK\3\4........", 12, FST_E_FORMAT, "not a readable PyTorch (zip) file"},
        {"\x80\x02}q.......", 11, FST_E_UNSUPPORTED, "pickle"},
        {"\x89HDF\r\n\x1a\n", 8, FST_E_UNSUPPORTED, "HDF5"},
        {"", 0, FST_E_UNSUPPORTED, "is empty"},
        {"hello, world, here I am", 23, FST_E_UNSUPPORTED, "is a text, not weights"},
        {"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", 56, FST_E_UNSUPPORTED, "run git lfs pull"},
        {"\n <!DOCTYPE HTML><html>", 23, FST_E_UNSUPPORTED, "an HTML page, not weights"},
        {"<?xml version=\"1.0\"?><Error>", 28, FST_E_UNSUPPORTED, "an XML document"},
        {"{\"message\": \"Not Found\"}", 24, FST_E_UNSUPPORTED, "a JSON text"},
        {"\x08\x07\x12\x07pytorch\x1a\x05", 13, FST_E_FORMAT, "not a sound ONNX file"},
        {"\x1c\0\0\0TFL3\0\0", 10, FST_E_UNSUPPORTED, "a TensorFlow Lite model"},
        {"\x1f\x8b\x08\0", 4, FST_E_UNSUPPORTED, "compressed by gzip; unpack it"},
        {"\x93NUMPY\1\0", 8, FST_E_UNSUPPORTED, "one NumPy array without a name"},
        {"\1\2\3\4\5\6\7\10\11\12", 10, FST_E_FORMAT, "neither safetensors nor a file of torch.save"},
    };
    (void)state;
    struct file f;
    fst_buf b = {0};
    fst_model m = {0};
    fst_import_options o = plain();
    good_file(&f);
    put(&f);
    assert_ok(fst_file_read(path, 1 << 20, &b, err));
    for (size_t n = 0; n < b.len; n++)
        if (fst_model_import_memory(&m, "cut", b.data, n, &o, NULL, NULL) == FST_OK)
            fail_msg("%zu of %zu bytes are read as a whole", n, b.len);
    assert_ok(fst_model_import_memory(&m, "whole", b.data, b.len, &o, NULL, err));
    fst_model_release(&m);
    fst_buf_release(&b);
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        assert_ok(fst_file_write(path, other[i].bytes, other[i].len, err));
        assert_fails(fst_model_import(&m, path, &o, NULL, err), other[i].status, other[i].text);
    }
    (void)unlink(path);
    assert_fails(fst_model_import(&m, path, &o, NULL, err), FST_E_IO, path);
    assert_fails(fst_model_import(&m, folder, &o, NULL, err), FST_E_IO, "is a folder");
}

/* ---- memory ---------------------------------------------------------------------------------------------------- */

/* Whichever allocation fails, nothing leaks or is half there (run under the address sanitizer). */
static void memory_runs_out(void **state)
{
    (void)state;
    struct file f;
    fst_import_options o = plain();
    good_file(&f);
    o.map = "never.* -";
    put(&f);
    for (uint64_t n = 1;; n++) {
        fst_model m = {0};
        fst_import_report r = {0};
        fst_alloc_fail_at(n);
        fst_status s = fst_model_import(&m, path, &o, &r, NULL);
        fst_alloc_fail_at(0);
        fst_import_report_release(&r);
        if (s == FST_OK) {
            assert_true(n > 10);
            fst_model_release(&m);
            return;
        }
        assert_int_equal(s, FST_E_MEMORY);
        assert_null(m.graph);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(torchvision_has_the_same_tensors),
        cmocka_unit_test(half_weights_with_padded_shortcuts),
        cmocka_unit_test(brain_floats_with_other_shortcuts),
        cmocka_unit_test(names_of_others),
        cmocka_unit_test(what_does_not_fit_is_named),
        cmocka_unit_test(one_of_two_sets_is_chosen),
        cmocka_unit_test(maps_go_first),
        cmocka_unit_test(values_that_are_none),
        cmocka_unit_test(counters_of_any_type),
        cmocka_unit_test(a_fresh_head_comes_from_the_seed),
        cmocka_unit_test(heads_of_two_layers),
        cmocka_unit_test(files_of_fedstill),
        cmocka_unit_test(damaged_and_other_files),
        cmocka_unit_test(memory_runs_out),
    };
    return cmocka_run_group_tests_name("import", tests, set_up, tear_down);
}
