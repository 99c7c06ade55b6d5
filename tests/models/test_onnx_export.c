/* What is in exported ONNX files, read by protobuf-c alone: the graph is whole, weights are the model's bits. That they
 * compute the same is seen by importing them (test_onnx_import.c) and by ONNX Runtime (check_onnx.py). */
#define _GNU_SOURCE
#include "models/onnx_files.h"

static const Onnx__Tensor *find_tensor(const Onnx__Graph *g, const char *name)
{
    for (size_t i = 0; i < g->n_initializer; i++)
        if (!strcmp(g->initializer[i]->name, name))
            return g->initializer[i];
    return NULL;
}

static const Onnx__Node *find_node(const Onnx__Graph *g, const char *name)
{
    for (size_t i = 0; i < g->n_node; i++)
        if (!strcmp(g->node[i]->name, name))
            return g->node[i];
    fail_msg("no node %s", name);
    return NULL;
}

static const Onnx__Attribute *find_attribute(const Onnx__Node *n, const char *name)
{
    for (size_t i = 0; i < n->n_attribute; i++)
        if (!strcmp(n->attribute[i]->name, name))
            return n->attribute[i];
    fail_msg("%s has no %s", n->name, name);
    return NULL;
}

static const char *find_pair(const Onnx__Model *m, const char *key)
{
    for (size_t i = 0; i < m->n_metadata_props; i++)
        if (!strcmp(m->metadata_props[i]->key, key))
            return m->metadata_props[i]->value;
    return NULL;
}

static void assert_ints(const Onnx__Node *n, const char *name, const int64_t *want, size_t count)
{
    const Onnx__Attribute *a = find_attribute(n, name);
    assert_int_equal(a->n_ints, count);
    assert_memory_equal(a->ints, want, count * sizeof *want);
}

/* Whether a value is there before node `before`. */
static bool is_made(const Onnx__Graph *g, const char *name, size_t before)
{
    bool found = !strcmp(name, g->input[0]->name) || find_tensor(g, name);
    for (size_t i = 0; !found && i < before; i++)
        found = !strcmp(g->node[i]->output[0], name);
    return found;
}

static void assert_whole(const Onnx__Graph *g)
{
    for (size_t i = 0; i < g->n_node; i++) {
        for (size_t k = 0; k < g->node[i]->n_input; k++)
            if (!is_made(g, g->node[i]->input[k], i))
                fail_msg("%s reads %s, which nothing makes", g->node[i]->name, g->node[i]->input[k]);
        if (is_made(g, g->node[i]->output[0], i))
            fail_msg("%s is made twice", g->node[i]->output[0]);
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(g->node[k]->name, g->node[i]->name);
    }
    assert_true(is_made(g, g->output[0]->name, g->n_node));
}

/* Every float tensor that the file has of the model, bit for bit; how many it has not. */
static size_t missing_tensors(const Onnx__Graph *g, const fst_model *m)
{
    size_t missing = 0;
    for (size_t i = 0; i < fst_graph_params(m->graph) + fst_graph_buffers(m->graph); i++) {
        bool param = i < fst_graph_params(m->graph);
        fst_param_info p =
            param ? fst_graph_param(m->graph, i) : fst_graph_buffer(m->graph, i - fst_graph_params(m->graph));
        const Onnx__Tensor *t = find_tensor(g, p.name);
        if (!t) {
            missing++;
            continue;
        }
        assert_int_equal(t->data_type, 1);
        assert_int_equal(t->n_dims, p.shape.rank);
        assert_memory_equal(t->dims, p.shape.dim, (size_t)p.shape.rank * sizeof *t->dims);
        assert_int_equal(t->raw_data.len, p.count * sizeof(float));
        assert_memory_equal(t->raw_data.data, (param ? m->state.params : m->state.buffers) + p.offset, t->raw_data.len);
    }
    return missing;
}

static void the_zoo_is_whole(void **state)
{
    static const struct {
        const char *arch, *settings[3];
        size_t missing; /* norms of complex values are written as what they do: four tensors each */
    } cases[] = {
        {"logistic_regression", {NULL}, 0},
        {"mnist_student", {NULL}, 0},
        {"fedgen_mnist", {NULL}, 0},
        {"pfl_cifar", {"input=1,12,12"}, 0},
        {"resnet8", {"input=3,9,9", "classes=3"}, 0},
        {"resnet56", {"input=1,8,8"}, 0},
        {"mobilenet_v2", {"input=3,33,33", "width=0.25", "classes=4"}, 0},
        {"real_resnet20_link11_h", {"width=0.25", "hidden=20"}, 0},
        {"complex_resnet50_link11_with_attention", {"width=0.25", "hidden=20"}, 53 * 4},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fst_model m = {0};
        fst_model_config c = {0};
        for (int k = 0; k < 3 && cases[i].settings[k]; k++)
            assert_ok(fst_model_config_set(&c, cases[i].arch, cases[i].settings[k], err));
        assert_ok(fst_model_init(&m, cases[i].arch, &c, err));
        fill_state(&m.state, m.graph, 3);
        assert_ok(fst_model_export_onnx(&m, path, NULL, NULL, 0, NULL, err));
        Onnx__Model *f = onnx_read(path);
        assert_whole(f->graph);
        assert_int_equal(missing_tensors(f->graph, &m), cases[i].missing);
        assert_string_equal(find_pair(f, "arch"), cases[i].arch);
        onnx__model__free_unpacked(f, NULL);
        assert_ok(fst_model_export_onnx(&m, path, &(fst_onnx_options){.fold = true}, NULL, 0, NULL, err));
        f = onnx_read(path);
        assert_whole(f->graph);
        for (size_t k = 0; k < f->graph->n_node; k++)
            assert_string_not_equal(f->graph->node[k]->op_type, "BatchNormalization");
        onnx__model__free_unpacked(f, NULL);
        fst_model_release(&m);
    }
}

static void nodes_say_what_the_layers_are(void **state)
{
    (void)state;
    char *names[] = {"ant", "b\"ee"};
    fst_model m = {0};
    fst_model_config c = {0};
    fst_pair more = {"task", "t"};
    char digest[FST_DIGEST_HEX], again[FST_DIGEST_HEX];
    assert_ok(fst_model_config_set(&c, "mobilenet_v2", "input=3,32,64", err));
    assert_ok(fst_model_config_set(&c, "mobilenet_v2", "width=0.25", err));
    c.classes = 2;
    assert_ok(fst_model_init(&m, "mobilenet_v2", &c, err));
    fill_state(&m.state, m.graph, 4);
    m.channels = 1;
    m.mean[0] = 0.5F;
    m.std[0] = 0.25F;
    assert_ok(fst_model_set_class_names(&m, names, 2, err));
    assert_ok(fst_model_export_onnx(&m, path, NULL, &more, 1, digest, err));
    assert_ok(fst_sha256_file(path, again, err));
    assert_string_equal(digest, again);
    Onnx__Model *f = onnx_read(path);
    const Onnx__Graph *g = f->graph;
    assert_int_equal(f->opset_import[0]->version, 17);
    assert_string_equal(find_pair(f, "class_names"), "[\"ant\",\"b\\\"ee\"]");
    assert_string_equal(find_pair(f, "normalise_mean"), "0.5");
    assert_string_equal(find_pair(f, "normalise_std"), "0.25");
    assert_string_equal(find_pair(f, "fedstill"), FST_MODEL_FORMAT);
    assert_string_equal(find_pair(f, "task"), "t");
    const Onnx__Shape *in = g->input[0]->type->tensor_type->shape;
    assert_string_equal(in->dim[0]->dim_param, "batch");
    assert_true(in->dim[1]->dim_value == 3 && in->dim[2]->dim_value == 32 && in->dim[3]->dim_value == 64);
    const Onnx__Node *stem = find_node(g, "features.0.0"), *deep = find_node(g, "features.2.conv.1.0");
    assert_string_equal(stem->op_type, "Conv");
    assert_string_equal(stem->input[0], "input");
    assert_string_equal(stem->input[1], "features.0.0.weight");
    assert_ints(stem, "kernel_shape", (const int64_t[]){3, 3}, 2);
    assert_ints(stem, "strides", (const int64_t[]){2, 2}, 2);
    assert_ints(stem, "pads", (const int64_t[]){1, 1, 1, 1}, 4);
    assert_int_equal(find_attribute(deep, "group")->i, find_tensor(g, "features.2.conv.1.0.weight")->dims[0]);
    const Onnx__Node *norm = find_node(g, "features.0.1");
    assert_true(find_attribute(norm, "epsilon")->f == 1e-5F && find_attribute(norm, "momentum")->f == 0.9F);
    assert_string_equal(norm->input[4], "features.0.1.running_var");
    const Onnx__Node *head = find_node(g, "classifier.1");
    assert_int_equal(find_attribute(head, "transB")->i, 1);
    assert_string_equal(head->output[0], "logits");
    onnx__model__free_unpacked(f, NULL);
    fst_model_release(&m);
}

static void what_has_no_counterpart_is_named(void **state)
{
    (void)state;
    fst_model m = {.arch = "made"};
    (void)unlink(path);
    assert_ok(fst_graph_new(&m.graph, err));
    fst_value x = fst_graph_linear(m.graph, fst_graph_input(m.graph, &FST_SHAPE(4)), "fc", 3, true);
    assert_ok(fst_graph_finish(m.graph, fst_graph_softmax(m.graph, x), err));
    assert_ok(fst_state_init(&m.state, m.graph, err));
    assert_fails(fst_model_export_onnx(&m, path, NULL, NULL, 0, NULL, err), FST_E_UNSUPPORTED, "(softmax) is not");
    assert_true(access(path, F_OK));
    fst_model_release(&m);
    m = (fst_model){.arch = "made"};
    assert_ok(fst_graph_new(&m.graph, err));
    x = fst_graph_linear(m.graph, fst_graph_input(m.graph, &FST_SHAPE(2, 4)), "tokens", 3, true);
    assert_ok(fst_graph_finish(m.graph, x, err));
    assert_ok(fst_state_init(&m.state, m.graph, err));
    assert_fails(fst_model_export_onnx(&m, path, NULL, NULL, 0, NULL, err), FST_E_UNSUPPORTED,
                 "\"tokens\" (linear over");
    assert_fails(fst_model_export_onnx(&m, "/nowhere/x.onnx", NULL, NULL, 0, NULL, err), FST_E_UNSUPPORTED, "tokens");
    fst_model_release(&m);
    assert_ok(fst_model_init(&m, "logistic_regression", NULL, err));
    assert_fails(fst_model_export_onnx(&m, "/nowhere/x.onnx", NULL, NULL, 0, NULL, err), FST_E_IO, "/nowhere/");
    fst_model_release(&m);
}

/* Whichever allocation fails: an error, and no file. */
static void without_memory_nothing_is_written(void **state)
{
    (void)state;
    fst_model m = {0};
    fst_model_config c = {.classes = 3, .input = FST_SHAPE(1, 8, 8)};
    (void)unlink(path);
    assert_ok(fst_model_init(&m, "fedgen_mnist", &c, err));
    uint64_t before = fst_alloc_count();
    assert_ok(fst_model_export_onnx(&m, path, &(fst_onnx_options){.fold = true}, NULL, 0, NULL, err));
    uint64_t needed = fst_alloc_count() - before;
    assert_true(needed > 50);
    (void)unlink(path);
    for (uint64_t n = 1; n <= needed; n++) {
        fst_error e = {0};
        fst_alloc_fail_at(n);
        fst_status s = fst_model_export_onnx(&m, path, &(fst_onnx_options){.fold = true}, NULL, 0, NULL, &e);
        fst_alloc_fail_at(0);
        assert_int_equal(s, FST_E_MEMORY);
        assert_true(access(path, F_OK));
    }
    fst_model_release(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_zoo_is_whole),
        cmocka_unit_test(nodes_say_what_the_layers_are),
        cmocka_unit_test(what_has_no_counterpart_is_named),
        cmocka_unit_test(without_memory_nothing_is_written),
    };
    return cmocka_run_group_tests_name("onnx export", tests, set_up, tear_down);
}
