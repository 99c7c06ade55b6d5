/*
 * Writes every network of the zoo, with made weights, as ONNX files into FOLDER, and beside each NAME.npz, samples "x"
 * and the "logits" that the engine computes for them, for tests/models/check_onnx.py, which runs them elsewhere.
 *
 *   onnx_zoo FOLDER
 */
#include "fedstill/models.h"
#include "nn/support.h"

enum { ROWS = 3 };

static const struct {
    const char *file, *arch, *settings[3];
} networks[] = {
    {"logistic_regression", "logistic_regression", {NULL}},
    {"mnist_teacher", "mnist_teacher", {NULL}},
    {"mnist_student", "mnist_student", {NULL}},
    {"cifar_teacher", "cifar_teacher", {NULL}},
    {"cifar_student", "cifar_student", {NULL}},
    {"fedgen_mnist", "fedgen_mnist", {NULL}},
    {"pfl_cifar", "pfl_cifar", {NULL}},
    {"resnet8", "resnet8", {NULL}},
    {"resnet8_odd", "resnet8", {"input=1,27,33", "classes=3"}},
    {"resnet20", "resnet20", {NULL}},
    {"resnet56", "resnet56", {NULL}},
    {"resnet50", "resnet50", {NULL}},
    {"resnet50_cifar", "resnet50", {"stem=cifar", "input=3,32,32", "classes=10"}},
    {"mobilenet_v2", "mobilenet_v2", {NULL}},
    {"mobilenet_v2_cifar", "mobilenet_v2", {"width=0.5", "input=3,32,32", "stem_stride=1"}},
    {"real_resnet20", "real_resnet20_link11_h", {NULL}},
    {"real_resnet20_small", "real_resnet20_link11_h", {"width=0.25", "hidden=60"}},
    {"complex_resnet50", "complex_resnet50_link11_with_attention", {NULL}},
    {"complex_resnet50_small", "complex_resnet50_link11_with_attention", {"width=0.25", "hidden=60"}},
};
enum { NETWORKS = sizeof networks / sizeof *networks };

/* Every network of the registry stands above. */
static bool complete(void)
{
    for (size_t i = 0; i < fst_models(); i++) {
        bool found = false;
        for (size_t k = 0; k < NETWORKS; k++)
            found = found || !strcmp(networks[k].arch, fst_model_at(i).name);
        if (!found)
            return fprintf(stderr, "onnx_zoo: %s is missing\n", fst_model_at(i).name), false;
    }
    return true;
}

/* A norm's 2x2 matrix that mixes the parts. */
static void mix(const fst_model *m)
{
    for (size_t i = 0; i < fst_graph_params(m->graph); i++) {
        fst_param_info p = fst_graph_param(m->graph, i);
        for (size_t k = 2; p.shape.rank == 2 && p.shape.dim[1] == 3 && k < p.count; k += 3)
            m->state.params[p.offset + k] = k % 2 ? 0.25F : -0.125F;
    }
}

static fst_status write_one(const char *folder, size_t i, fst_error *err)
{
    char path[512];
    fst_model_config c = {0};
    fst_model m = {0};
    fst_plan *plan = NULL;
    fst_status s = FST_OK;
    for (int k = 0; !s && k < 3 && networks[i].settings[k]; k++)
        s = fst_model_config_set(&c, networks[i].arch, networks[i].settings[k], err);
    if (!s)
        s = fst_model_init(&m, networks[i].arch, &c, err);
    if (s)
        return s;
    fill_state(&m.state, m.graph, 7 + i);
    mix(&m);
    size_t each = sample_floats(m.graph), classes = output_floats(m.graph);
    float *x = new_floats(ROWS * each);
    const float *logits = NULL;
    fill_normal(x, ROWS * each, 3 + i, "test.x", 1);
    fst_plan_options o = {.batch = ROWS, .threads = 1};
    s = fst_plan_new(&plan, m.graph, &o, err);
    if (!s)
        s = fst_plan_forward(plan, &m.state, x, NULL, &logits, err);
    for (int fold = 0; !s && fold < 2; fold++) {
        snprintf(path, sizeof path, "%s/%s%s.onnx", folder, networks[i].file, fold ? "-folded" : "");
        s = fst_model_export_onnx(&m, path, &(fst_onnx_options){.fold = fold}, NULL, 0, NULL, err);
    }
    fst_shape in = fst_graph_input_shape(m.graph), all = {.rank = 1 + in.rank, .dim = {ROWS}};
    memcpy(all.dim + 1, in.dim, (size_t)in.rank * sizeof *in.dim);
    fst_tensor list[2] = {{"x", FST_F32, all, x},
                          {"logits", FST_F32, FST_SHAPE(ROWS, (int64_t)classes), (void *)logits}};
    snprintf(path, sizeof path, "%s/%s.npz", folder, networks[i].file);
    if (!s)
        s = fst_npz_write(path, list, 2, NULL, NULL, 0, NULL, err);
    free(x);
    fst_plan_free(plan);
    fst_model_release(&m);
    return s;
}

int main(int argc, char **argv)
{
    fst_error e = {0};
    if (argc != 2)
        return fprintf(stderr, "usage: onnx_zoo FOLDER\n"), 2;
    if (!complete())
        return 1;
    for (size_t i = 0; i < NETWORKS; i++)
        if (write_one(argv[1], i, &e))
            return fprintf(stderr, "onnx_zoo: %s: %s\n", networks[i].file, e.message), 1;
    return 0;
}
