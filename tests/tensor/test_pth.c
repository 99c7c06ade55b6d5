/* PyTorch's files, new and old: every tensor as it was saved, and what is refused. Made by make_pth.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fedstill/tensor.h"

static const char *file(const char *name)
{
    static char path[1024];
    const char *source = getenv("FEDSTILL_SOURCE");
    snprintf(path, sizeof path, "%s/tests/tensor/pth/%s.pth", source ? source : ".", name);
    return path;
}

static fst_pth *load(const char *name)
{
    fst_pth *p = NULL;
    fst_error err = {0};
    if (fst_pth_read(&p, file(name), NULL, 1 << 20, &err))
        fail_msg("%s: %s", name, err.message);
    return p;
}

static void check(const fst_pth *p, size_t i, const char *name, fst_dtype dtype, const fst_shape *shape,
                  const void *want)
{
    assert_true(i < fst_pth_count(p));
    fst_tensor t = fst_pth_at(p, i);
    assert_string_equal(t.name, name);
    assert_int_equal(t.dtype, dtype);
    assert_true(fst_shape_equal(&t.shape, shape));
    assert_non_null(t.data);
    size_t bytes = (size_t)fst_shape_count(shape) * fst_dtype_size(dtype);
    if (bytes)
        assert_memory_equal(t.data, want, bytes);
}

static void every_tensor_is_as_saved(void **state)
{
    static const float base[12] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    static const float turned[12] = {0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11};
    static const float part[4] = {5, 6, 9, 10}, spread[6] = {5, 5, 5, 5, 5, 5}, parameter = 1.5f;
    static const int64_t seven = 7;
    static const uint16_t half[2] = {0x3800, 0xC000}, brain[2] = {0x3F80, 0xC040};
    static const double quarter = 0.25;
    static const uint8_t bytes[2] = {0, 255}, flags[2] = {1, 0};
    static const char *const names[] = {"dict", "legacy"};
    (void)state;
    for (int i = 0; i < 2; i++) {
        fst_pth *p = load(names[i]);
        assert_int_equal(fst_pth_count(p), 12);
        check(p, 0, "conv.weight", FST_F32, &FST_SHAPE(3, 4), base);
        check(p, 1, "conv.turned", FST_F32, &FST_SHAPE(4, 3), turned);
        check(p, 2, "conv.part", FST_F32, &FST_SHAPE(2, 2), part);
        check(p, 3, "bn.num_batches_tracked", FST_I64, &(fst_shape){0}, &seven);
        check(p, 4, "half", FST_F16, &FST_SHAPE(2), half);
        check(p, 5, "brain", FST_BF16, &FST_SHAPE(2), brain);
        check(p, 6, "double", FST_F64, &FST_SHAPE(1, 1), &quarter);
        check(p, 7, "bytes", FST_U8, &FST_SHAPE(2), bytes);
        check(p, 8, "flags", FST_BOOL, &FST_SHAPE(2), flags);
        check(p, 9, "empty", FST_F32, &FST_SHAPE(0, 3), NULL);
        check(p, 10, "spread", FST_F32, &FST_SHAPE(2, 3), spread);
        check(p, 11, "parameter", FST_F32, &FST_SHAPE(1), &parameter);
        fst_pth_free(p);
    }
}

/* Of a checkpoint the model alone, without the optimiser's momentum. */
static void a_checkpoint_gives_its_model(void **state)
{
    static const float weight[2] = {1, 2}, bias = 3;
    static const char *const names[] = {"checkpoint", "checkpoint_legacy"};
    (void)state;
    for (int i = 0; i < 2; i++) {
        fst_pth *p = load(names[i]);
        assert_int_equal(fst_pth_count(p), 2);
        check(p, 0, "weight", FST_F32, &FST_SHAPE(1, 2), weight);
        check(p, 1, "bias", FST_F32, &FST_SHAPE(1), &bias);
        fst_pth_free(p);
    }
}

static void other_nests_are_joined_by_points(void **state)
{
    static const float ones[2] = {1, 1}, zeros[2] = {0, 0};
    fst_pth *p = load("nested");
    (void)state;
    assert_int_equal(fst_pth_count(p), 3);
    check(p, 0, "a.w", FST_F32, &FST_SHAPE(1), ones);
    check(p, 1, "list.0", FST_F32, &FST_SHAPE(2), zeros);
    check(p, 2, "list.1.x", FST_F32, &FST_SHAPE(2), ones);
    fst_pth_free(p);
}

/* Every file holds the same logistic regression, made and placed in another way. */
static void the_model_is_found_wherever_it_stands(void **state)
{
    static const float weight[4] = {1, -1, 0.5f, 2}, bias[2] = {0, 0.25f};
    static const struct {
        const char *name, *prefix, *before;
        size_t more; /* tensors after the model's */
    } files[] = {
        {"best_acc", NULL, "", 0},   {"best_acc", "state_dict.", "state_dict.", 0},
        {"inner", NULL, "", 0},      {"inner", "fc", "", 0},
        {"deep", NULL, "", 0},       {"two_deep", "generator.state_dict.", "generator.state_dict.", 0},
        {"averaged", NULL, "", 0},   {"with_ema", "ema.", "ema.", 0},
        {"params", NULL, "", 0},     {"pair", NULL, "", 0},
        {"counter", NULL, "", 0},    {"plain_objects", NULL, "", 0},
        {"objects", NULL, "", 0},    {"arrays", NULL, "", 0},
        {"odd_beside", NULL, "", 0}, {"negative_beside", NULL, "", 0},
        {"subclass", NULL, "", 0},   {"prefix_fsdp", NULL, "_fsdp_wrapped_module.", 0},
        {"zip1", NULL, "", 0},       {"zip2", NULL, "", 0},
        {"zip3", NULL, "", 0},       {"zip4", NULL, "", 0},
        {"zip5", NULL, "", 0},       {"stream1", NULL, "", 0},
        {"stream2", NULL, "", 0},    {"stream3", NULL, "", 0},
        {"stream4", NULL, "", 0},    {"stream5", NULL, "", 0},
        {"python2_1", NULL, "", 0},  {"python2_2", NULL, "", 0},
        {"version1", NULL, "", 0},   {"version3", NULL, "", 1},
        {"views", NULL, "", 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        fst_pth *p = NULL;
        fst_error err = {0};
        char name[64];
        size_t found = 0;
        if (fst_pth_read(&p, file(files[i].name), files[i].prefix, 1 << 20, &err))
            fail_msg("%s: %s", files[i].name, err.message);
        for (size_t k = 0; k < fst_pth_count(p); k++) {
            const char *is = fst_pth_at(p, k).name;
            snprintf(name, sizeof name, "%sfc.weight", files[i].before);
            if (!strcmp(is, name))
                check(p, k, name, FST_F32, &FST_SHAPE(2, 2), weight), found++;
            snprintf(name, sizeof name, "%sfc.bias", files[i].before);
            if (!strcmp(is, name))
                check(p, k, name, FST_F32, &FST_SHAPE(2), bias), found++;
        }
        if (found != 2 || (!files[i].prefix && fst_pth_count(p) != 2 + files[i].more))
            fail_msg("%s: %zu of %zu tensors are the model's", files[i].name, found, fst_pth_count(p));
        fst_pth_free(p);
    }
}

/* Averages of the weights come after the weights, unless they are asked for. */
static void the_weights_come_before_their_average(void **state)
{
    static const float nine[4] = {9, 9, 9, 9};
    fst_pth *p = load("with_ema");
    (void)state;
    assert_int_equal(fst_pth_count(p), 2);
    check(p, 0, "fc.weight", FST_F32, &FST_SHAPE(2, 2), nine);
    fst_pth_free(p);
}

static void what_is_wrong_is_said(void **state)
{
    static const struct {
        const char *name;
        fst_status want;
        const char *says;
    } cases[] = {
        {"evil", FST_E_FORMAT, "posix.system is not allowed: the pickle wants to run code"},
        {"module", FST_E_UNSUPPORTED, "holds a whole module (torch.nn.modules.linear.Linear)"},
        {"module_legacy", FST_E_UNSUPPORTED, "holds a whole module (torch.nn.modules.container.Sequential)"},
        {"module_inside", FST_E_UNSUPPORTED, "torch.save(model.state_dict(), NEW)"},
        {"object", FST_E_FORMAT, "holds an object (argparse.Namespace) where weights should be"},
        {"script", FST_E_UNSUPPORTED, "TorchScript, a compiled program"},
        {"npz", FST_E_UNSUPPORTED, "an npz of NumPy arrays"},
        {"keras", FST_E_UNSUPPORTED, "a Keras model"},
        {"sparse", FST_E_UNSUPPORTED, "fc.weight is made by torch._utils._rebuild_sparse_tensor"},
        {"negative", FST_E_UNSUPPORTED, "fc.weight is made by torch._utils._rebuild_tensor_v2(neg=True)"},
        {"views_past", FST_E_FORMAT, "a view that reaches past its storage"},
        {"zip0", FST_E_FORMAT, "protocol 0 cannot hold the storages of PyTorch"},
        {"stream0", FST_E_FORMAT, "protocol 0 cannot hold the storages of PyTorch"},
        {"bare", FST_E_FORMAT, "no dictionary of tensors"},
        {"nothing", FST_E_FORMAT, "no tensor in it"},
        {"complex", FST_E_UNSUPPORTED, "w has elements of type ComplexFloatStorage"},
        {"missing", FST_E_FORMAT, "member data/0 is missing"},
        {"short", FST_E_FORMAT, "data/0 has 44 bytes, its pickle says 48"},
        {"no_pickle", FST_E_FORMAT, "without data.pkl"},
        {"big", FST_E_UNSUPPORTED, "byte order is \"big\""},
        {"legacy_cut", FST_E_FORMAT, "cut off: storage"},
        {"not-there", FST_E_IO, "not-there"},
    };
    char sentinel;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fst_pth *p = (fst_pth *)(void *)&sentinel;
        fst_error err = {0};
        fst_status s = fst_pth_read(&p, file(cases[i].name), NULL, 1 << 20, &err);
        if (s != cases[i].want || !strstr(err.message, cases[i].says))
            fail_msg("%s: status %s, \"%s\"", cases[i].name, fst_status_name(s), err.message);
        assert_ptr_equal(p, &sentinel);
    }
    assert_int_not_equal(access("/tmp/fedstill-was-here", F_OK), 0);
}

static void every_cut_is_an_error(void **state)
{
    static const char *const names[] = {"dict", "legacy"};
    (void)state;
    for (int k = 0; k < 2; k++) {
        fst_buf b = {0};
        assert_int_equal(fst_file_read(file(names[k]), 1 << 20, &b, NULL), FST_OK);
        for (size_t n = 0; n < b.len; n++) {
            fst_pth *p = NULL;
            unsigned char *exact = malloc(n ? n : 1);
            memcpy(exact, b.data, n);
            if (!fst_pth_parse(&p, "cut", exact, n, NULL, 1 << 20, NULL))
                fail_msg("%s cut to %zu bytes was read", names[k], n);
            free(exact);
        }
        fst_buf_release(&b);
    }
}

/* For the file itself, and for what its pickle and tensors take. */
static void the_limit_holds(void **state)
{
    fst_pth *p = NULL;
    fst_error err = {0};
    fst_buf b = {0};
    (void)state;
    assert_int_equal(fst_pth_read(&p, file("dict"), NULL, 1000, &err), FST_E_LIMIT);
    assert_int_equal(fst_file_read(file("dict"), 1 << 20, &b, NULL), FST_OK);
    assert_int_equal(fst_pth_parse(&p, "dict", b.data, b.len, NULL, 1000, &err), FST_E_LIMIT);
    assert_null(p);
    fst_buf_release(&b);
}

static void memory_may_run_out(void **state)
{
    static const char *const names[] = {"dict", "legacy"};
    (void)state;
    for (int k = 0; k < 2; k++)
        for (uint64_t n = 1;; n++) {
            fst_pth *p = NULL;
            assert_true(n < 1000);
            fst_alloc_fail_at(n);
            fst_status s = fst_pth_read(&p, file(names[k]), NULL, 1 << 20, NULL);
            fst_alloc_fail_at(0);
            fst_pth_free(p);
            if (!s)
                break;
            assert_int_equal(s, FST_E_MEMORY);
        }
}

static void elements_become_floats(void **state)
{
    static const uint16_t brain[2] = {0x3F80, 0xC040};
    static const int8_t small[3] = {-1, 0, 127};
    float x[3];
    (void)state;
    fst_f32_from(x, FST_BF16, brain, 2);
    assert_true(x[0] == 1 && x[1] == -3);
    fst_f32_from(x, FST_I8, small, 3);
    assert_true(x[0] == -1 && x[1] == 0 && x[2] == 127);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_tensor_is_as_saved),
        cmocka_unit_test(a_checkpoint_gives_its_model),
        cmocka_unit_test(other_nests_are_joined_by_points),
        cmocka_unit_test(the_model_is_found_wherever_it_stands),
        cmocka_unit_test(the_weights_come_before_their_average),
        cmocka_unit_test(what_is_wrong_is_said),
        cmocka_unit_test(every_cut_is_an_error),
        cmocka_unit_test(the_limit_holds),
        cmocka_unit_test(memory_may_run_out),
        cmocka_unit_test(elements_become_floats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
