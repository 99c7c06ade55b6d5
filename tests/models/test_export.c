/* Options as people write them, and models written for other programs. */
#define _GNU_SOURCE
#include <float.h>
#include <stdlib.h>
#include <unistd.h>

#include "fedstill/models.h"
#include "nn/support.h"

static char folder[] = "/tmp/fedstill-export-XXXXXX";
static char path[128];

static int set_up(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/out.safetensors", folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    (void)unlink(path);
    return rmdir(folder);
}

/* ---- options ---------------------------------------------------------------------------------------------------- */

static void options_by_text(void **state)
{
    static const struct {
        const char *network, *setting, *error; /* NULL: taken */
    } cases[] = {
        {"resnet50", "stem=cifar", NULL},
        {"resnet50", "stem=imagenet", NULL},
        {"resnet50", "stem=vit", "imagenet or cifar"},
        {"resnet50", "width=2", "no option \"width\"; it has classes, input, stem"},
        {"mobilenet_v2", "width=0.25", NULL},
        {"mobilenet_v2", "width=", "0.01 to 16"},
        {"mobilenet_v2", "width", "width=0.01"},
        {"mobilenet_v2", "width=1 stem_stride=2", "0.01 to 16"},
        {"mobilenet_v2", "stage_strides=1,2,2,2,1,1,1", NULL},
        {"mobilenet_v2", "stage_strides=1,2", "seven numbers"},
        {"pfl_cifar", "dropout2=0", NULL},
        {"pfl_cifar", "dropout2=1", "below 1"},
        {"resnet8", "classes=0", "1 to 65536"},
        {"resnet8", "classes=7x", "1 to 65536"},
        {"resnet8", "input=3;32", "3,32,32"},
        {"real_resnet20_link11_h", "hidden=500", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fst_model_config c = {.hidden = 3}, was = c;
        if (cases[i].error) {
            assert_fails(fst_model_config_set(&c, cases[i].network, cases[i].setting, err), FST_E_CONFIG,
                         cases[i].error);
            assert_memory_equal(&c, &was, sizeof c);
        } else {
            assert_ok(fst_model_config_set(&c, cases[i].network, cases[i].setting, err));
        }
    }
    fst_model_config c = {0};
    assert_ok(fst_model_config_set(&c, "pfl_cifar", "dropout2=0", err));
    assert_true(c.dropout2 < 0); /* none, not the default */
    assert_ok(fst_model_config_set(&c, "mobilenet_v2", "stage_strides=1,2,2,2,1,3,1", err));
    assert_true(c.stage_strides[5] == 3 && c.stage_strides[6] == 1);
}

/* ---- the other way round ------------------------------------------------------------------------------------------
 */

static void exports_are_rounded_to_even(void **state)
{
    (void)state;
    fst_model m = {0}, r = {0};
    fst_model_config c = {.classes = 3, .input = FST_SHAPE(1, 2, 2)};
    fst_import_options o = {.arch = "logistic_regression", .input = FST_SHAPE(1, 2, 2)};
    fst_safetensors *out = NULL;
    fst_pair pair, more = {"task", "t"};
    assert_ok(fst_model_init(&m, "logistic_regression", &c, err));
    fill_state(&m.state, m.graph, 3);
    m.state.params[0] = 1 + 0x1p-8f; /* between two, the even one is 1 */
    m.state.params[1] = 1 + 0x3p-8f;
    m.state.params[2] = 1 + 0x1p-8f + 0x1p-20f;
    m.state.params[3] = -0.0f;
    assert_ok(fst_model_export(&m, path, FST_NAMES_OURS, FST_BF16, &more, 1, NULL, err));
    assert_ok(fst_safetensors_open(&out, path, err));
    assert_string_equal(fst_safetensors_meta(out, "task"), "t");
    assert_int_equal(fst_safetensors_at(out, 0).dtype, FST_BF16);
    fst_safetensors_free(out);
    assert_ok(fst_model_load(&r, path, err));
    assert_true(r.state.params[0] == 1 && r.state.params[1] == 1 + 0x1p-6f && r.state.params[2] == 1 + 0x1p-7f);
    assert_true(signbit(r.state.params[3]));
    fst_model_release(&r);
    assert_ok(fst_model_export(&m, path, FST_NAMES_TORCHVISION, FST_F32, &more, 1, NULL, err));
    assert_ok(fst_safetensors_open(&out, path, err));
    assert_true(fst_safetensors_meta_at(out, 0, &pair) && !fst_safetensors_meta(out, "task"));
    assert_string_equal(fst_safetensors_meta(out, "format"), "pt");
    assert_string_equal(fst_safetensors_meta(out, "fedstill"), FST_MODEL_FORMAT);
    fst_safetensors_free(out);
    assert_ok(fst_model_import(&r, path, &o, NULL, err));
    assert_memory_equal(r.state.params, m.state.params, m.state.param_count * sizeof(float));
    fst_model_release(&r);
    (void)unlink(path);
    m.state.params[5] = 65520; /* f16's largest is 65504; from here on it rounds up */
    assert_fails(fst_model_export(&m, path, FST_NAMES_OURS, FST_F16, NULL, 0, NULL, err), FST_E_NUMERIC,
                 "fc.weight has a value too large for F16");
    m.state.params[5] = 65519;
    assert_ok(fst_model_export(&m, path, FST_NAMES_OURS, FST_F16, NULL, 0, NULL, err));
    assert_ok(fst_model_load(&r, path, err));
    assert_true(r.state.params[5] == 65504);
    fst_model_release(&r);
    m.state.params[5] = FLT_MAX;
    assert_fails(fst_model_export(&m, path, FST_NAMES_OURS, FST_BF16, NULL, 0, NULL, err), FST_E_NUMERIC, "BF16");
    assert_fails(fst_model_export(&m, path, FST_NAMES_OURS, FST_F64, NULL, 0, NULL, err), FST_E_ARGUMENT, "F64");
    m.state.params[5] = INFINITY; /* is one already */
    assert_ok(fst_model_export(&m, path, FST_NAMES_OURS, FST_BF16, NULL, 0, NULL, err));
    fst_model_release(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_by_text),
        cmocka_unit_test(exports_are_rounded_to_even),
    };
    return cmocka_run_group_tests_name("export", tests, set_up, tear_down);
}
