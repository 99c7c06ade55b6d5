/* Files of synthetic signals hold what the generator makes, and appear whole or not at all. */
#define _GNU_SOURCE
#include <jansson.h>

#include "synth.h"

enum { COUNT = 30, FIRST = 8, N = 256 };

struct made {
    fst_synth *g;
    float x[COUNT * 2 * N], snr[COUNT];
    int32_t labels[COUNT];
    int64_t burst[COUNT];
};
static struct made made;

static int set_up(void **state)
{
    static const int classes[] = {3, 0, 5};
    fst_synth_spec spec = {.kind = FST_SYNTH_LINK11, .seed = 1ull << 60, .snr_min = 0, .snr_max = 20};
    fst_synth_params_default(&spec.params, FST_SYNTH_LINK11);
    spec.params.burst.window = N;
    spec.classes = classes;
    spec.class_count = 3;
    made.g = make(&spec);
    assert_ok(fst_synth_fill(made.g, NULL, FIRST, COUNT, made.x, made.labels, made.snr, made.burst, err));
    return make_work_folder(state);
}

static int tear_down(void **state)
{
    fst_synth_free(made.g);
    return remove_work_folder(state);
}

static const char *put(const char *name, fst_synth_format format)
{
    const char *path = in_work(name);
    assert_ok(fst_synth_write(made.g, NULL, FIRST, COUNT, path, format, NULL, NULL, err));
    return path;
}

static void check_tensor(const fst_safetensors *f, const char *name, fst_dtype type, const void *data, size_t bytes)
{
    size_t i;
    unsigned char *got = malloc(bytes);
    assert_true(fst_safetensors_find(f, name, &i));
    assert_int_equal(fst_safetensors_at(f, i).dtype, type);
    assert_ok(fst_safetensors_read(f, i, got, bytes, err));
    assert_memory_equal(got, data, bytes);
    free(got);
}

static void safetensors_hold_everything(void **state)
{
    fst_safetensors *f = NULL;
    size_t i;
    (void)state;
    assert_ok(fst_safetensors_open(&f, put("a.safetensors", FST_SYNTH_SAFETENSORS), err));
    check_tensor(f, "x", FST_F32, made.x, sizeof made.x);
    check_tensor(f, "y", FST_I32, made.labels, sizeof made.labels);
    check_tensor(f, "snr", FST_F32, made.snr, sizeof made.snr);
    check_tensor(f, "burst", FST_I64, made.burst, sizeof made.burst);
    assert_true(fst_safetensors_find(f, "x", &i));
    fst_tensor x = fst_safetensors_at(f, i);
    assert_true(fst_shape_equal(&x.shape, &FST_SHAPE(COUNT, 2, N)));
    assert_string_equal(fst_safetensors_meta(f, "format"), "fedstill-data-1");
    assert_string_equal(fst_safetensors_meta(f, "classes"), "[\"P-3C_2\",\"E-2D_1\",\"P-8A_2\"]");
    assert_string_equal(fst_safetensors_meta(f, "sample_rate"), "9600");
    assert_string_equal(fst_safetensors_meta(f, "generator"), "link11");
    assert_string_equal(fst_safetensors_meta(f, "seed"), "1152921504606846976");
    json_t *p = json_loads(fst_safetensors_meta(f, "parameters"), 0, NULL);
    assert_true(json_integer_value(json_object_get(p, "first")) == FIRST);
    assert_true(json_real_value(json_array_get(json_object_get(p, "snr_db"), 1)) == 20 ||
                json_integer_value(json_array_get(json_object_get(p, "snr_db"), 1)) == 20);
    assert_true(json_integer_value(json_object_get(json_object_get(p, "burst"), "window")) == N);
    json_decref(p);
    fst_safetensors_free(f);
}

static void check_array(const char *path, const char *name, fst_dtype type, const void *data, size_t bytes)
{
    fst_array a = {0};
    assert_ok(fst_npz_read(&a, path, name, 1 << 20, err));
    assert_int_equal(a.dtype, type);
    assert_int_equal((size_t)fst_shape_count(&a.shape) * fst_dtype_size(type), bytes);
    assert_memory_equal(a.data, data, bytes);
    fst_array_release(&a);
}

static void npz_holds_everything(void **state)
{
    const char *path = put("a.npz", FST_SYNTH_NPZ);
    fst_buf bytes = {0};
    (void)state;
    check_array(path, "x", FST_F32, made.x, sizeof made.x);
    check_array(path, "y", FST_I32, made.labels, sizeof made.labels);
    check_array(path, "snr", FST_F32, made.snr, sizeof made.snr);
    check_array(path, "burst", FST_I64, made.burst, sizeof made.burst);
    /* names are texts, which this library does not read: 32 bytes each behind their header */
    assert_ok(fst_file_read(path, 1 << 20, &bytes, err));
    char *names = memmem(bytes.data, bytes.len, "classes.npy\x93NUMPY", 17);
    assert_non_null(names);
    assert_non_null(strstr(names + 21, "{'descr': '|S32', 'fortran_order': False, 'shape': (3,), }"));
    names = strchr(names + 21, '\n') + 1;
    assert_string_equal(names, "P-3C_2");
    assert_string_equal(names + 32, "E-2D_1");
    assert_string_equal(names + 64, "P-8A_2");
    fst_buf_release(&bytes);
}

static double number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    assert_true(json_is_number(v));
    return json_number_value(v);
}

static void sigmf_is_a_recording(void **state)
{
    fst_buf data = {0};
    put("b.sigmf", FST_SYNTH_SIGMF);
    (void)state;
    assert_ok(fst_file_read(in_work("b.sigmf-data"), 1 << 20, &data, err));
    assert_int_equal(data.len, sizeof made.x);
    for (size_t w = 0; w < COUNT; w++)
        for (size_t i = 0; i < N; i++) {
            float pair[2];
            memcpy(pair, data.data + (w * N + i) * sizeof pair, sizeof pair);
            assert_true(pair[0] == made.x[w * 2 * N + i] && pair[1] == made.x[w * 2 * N + N + i]);
        }
    fst_buf_release(&data);
    json_t *meta = json_load_file(in_work("b.sigmf-meta"), 0, NULL), *global = json_object_get(meta, "global");
    assert_string_equal(json_string_value(json_object_get(global, "core:datatype")), "cf32_le");
    assert_true(number(global, "core:sample_rate") == 9600);
    json_t *extension = json_array_get(json_object_get(global, "core:extensions"), 0);
    assert_string_equal(json_string_value(json_object_get(extension, "name")), "fedstill");
    assert_true(number(json_array_get(json_object_get(meta, "captures"), 0), "core:sample_start") == 0);
    json_t *annotations = json_object_get(meta, "annotations");
    assert_int_equal(json_array_size(annotations), COUNT);
    for (size_t w = 0; w < COUNT; w++) {
        json_t *a = json_array_get(annotations, w);
        assert_true(number(a, "core:sample_start") == w * N && number(a, "core:sample_count") == N);
        assert_string_equal(json_string_value(json_object_get(a, "core:label")),
                            fst_synth_class_name(made.g, made.labels[w]));
        assert_true((float)number(a, "fedstill:snr_db") == made.snr[w]);
        assert_true((int64_t)number(a, "fedstill:burst") == made.burst[w]);
    }
    json_decref(meta);
}

static void formats_are_known_by_their_endings(void **state)
{
    fst_synth_format f;
    (void)state;
    assert_true(fst_synth_format_guess("a/b.SafeTensors", &f) && f == FST_SYNTH_SAFETENSORS);
    assert_true(fst_synth_format_guess("b.npz", &f) && f == FST_SYNTH_NPZ);
    assert_true(fst_synth_format_guess("b.sigmf-meta", &f) && f == FST_SYNTH_SIGMF);
    assert_false(fst_synth_format_guess("b.npy", &f));
    assert_true(fst_synth_format_parse("sigmf", &f) && f == FST_SYNTH_SIGMF);
    assert_false(fst_synth_format_parse("npy", &f));
    assert_false(fst_synth_exists(in_work("c.sigmf"), FST_SYNTH_SIGMF));
    put("c", FST_SYNTH_SIGMF);
    assert_true(fst_synth_exists(in_work("c.sigmf-meta"), FST_SYNTH_SIGMF));
}

static bool stop(void *ctx, uint64_t done, uint64_t total)
{
    (void)ctx;
    (void)total;
    return done < COUNT;
}

static bool nothing_left_of(const char *name)
{
    char command[2048];
    snprintf(command, sizeof command, "ls %s* >/dev/null 2>&1", in_work(name));
    return system(command) != 0;
}

static void half_files_do_not_stay(void **state)
{
    (void)state;
    for (int f = 0; f < 3; f++) {
        assert_fails(fst_synth_write(made.g, NULL, FIRST, COUNT, in_work("half"), (fst_synth_format)f, stop, NULL, err),
                     FST_E_CANCELLED, "half");
        fst_status s = FST_E_MEMORY;
        for (uint64_t n = 1; s; n++) { /* out of memory at every allocation */
            assert_true(nothing_left_of("oom"));
            fst_alloc_fail_at(n);
            s = fst_synth_write(made.g, NULL, FIRST, COUNT, in_work("oom"), (fst_synth_format)f, NULL, NULL, NULL);
            fst_alloc_fail_at(0);
            assert_true(s == FST_E_MEMORY || (!s && n > 6));
        }
        assert_int_equal(remove(in_work(f == FST_SYNTH_SIGMF ? "oom.sigmf-meta" : "oom")), 0);
        remove(in_work("oom.sigmf-data"));
        assert_true(nothing_left_of("half"));
        assert_fails(fst_synth_write(made.g, NULL, 0, 0, in_work("half"), (fst_synth_format)f, NULL, NULL, err),
                     FST_E_CONFIG, "at least one");
        assert_fails(fst_synth_write(made.g, NULL, 0, COUNT, "/nowhere/at/all", (fst_synth_format)f, NULL, NULL, err),
                     FST_E_IO, "/nowhere/at/all");
    }
    assert_fails(fst_synth_write(made.g, NULL, 0, 3000000, in_work("half"), FST_SYNTH_NPZ, NULL, NULL, err),
                 FST_E_LIMIT, "safetensors");
    assert_true(nothing_left_of("half"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(safetensors_hold_everything), cmocka_unit_test(npz_holds_everything),
        cmocka_unit_test(sigmf_is_a_recording),        cmocka_unit_test(formats_are_known_by_their_endings),
        cmocka_unit_test(half_files_do_not_stay),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
