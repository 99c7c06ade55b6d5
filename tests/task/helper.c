/*
 * What the scripts of this folder need and a bare system may lack: makes small data sets, reads JSON and
 * event files. A tool of the tests, not a test.
 *
 *   task_helper data FOLDER TRAIN TEST [SEED]   MNIST's four files: ten patterns in noise, which can be learned
 *   task_helper array FILE SAMPLES BAD          one .safetensors, as many test samples; training sample BAD holds a NaN
 *                                               (-1: none)
 *   task_helper named FILE SAMPLES A,B,C SCALE SEED
 *                                               one .safetensors of 4x4 samples of these classes: a pattern each, drawn
 *                                               from its name, in noise; all values times SCALE. A class that stands
 *                                               there twice has twice the samples
 *   task_helper json FILE [KEY.KEY...]          fails when FILE is no JSON; prints what stands at the keys
 *                                               (of a list: at the index)
 *   task_helper events FILE                     fails when a line is no event; prints how many there are
 *   task_helper peak FILE COMMAND...            runs it, ends with its status, and writes its largest resident memory
 * in KiB to FILE task_helper port                            a port of this host that nobody listens on task_helper xml
 * FILE                        fails when FILE is no well-formed XML, and says where
 */
#define _GNU_SOURCE
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fedstill/fleet.h"
#include "fedstill/store.h"
#include "fedstill/tensor.h"
#include "xml_check.h"

enum { SIDE = 28, PIXELS = SIDE * SIDE, CLASSES = 10 };

static int failed(const fst_error *e)
{
    fprintf(stderr, "task_helper: %s\n", e->message);
    return 1;
}

/* ---- data ------------------------------------------------------------------------------------------ */

/* A bright square whose place is the class, moved by up to two pixels, in noise. */
static void draw(unsigned char *image, int label, fst_rng *r)
{
    int top = 3 + label / 5 * 12 + (int)fst_rng_below(r, 3), left = 1 + label % 5 * 5 + (int)fst_rng_below(r, 3);
    for (int i = 0; i < PIXELS; i++)
        image[i] = (unsigned char)fst_rng_below(r, 60);
    for (int y = top; y < top + 7; y++)
        for (int x = left; x < left + 4; x++)
            image[y * SIDE + x] = (unsigned char)(150 + fst_rng_below(r, 100));
}

static fst_status put_number(fst_buf *b, uint32_t v, fst_error *err)
{
    unsigned char be[4] = {(unsigned char)(v >> 24), (unsigned char)(v >> 16), (unsigned char)(v >> 8),
                           (unsigned char)v};
    return fst_buf_append(b, be, 4, err);
}

static fst_status write_idx(const char *folder, const char *name, const fst_buf *b, fst_error *err)
{
    char *path = fst_path_join(folder, name);
    fst_status st = path ? fst_file_write(path, b->data, b->len, err) : fst_fail_memory(err, 256);
    fst_free(path);
    return st;
}

static fst_status make_split(const char *folder, const char *prefix, uint32_t count, uint64_t seed, fst_error *err)
{
    fst_buf images = {0}, labels = {0};
    char name[64];
    fst_rng r;
    fst_rng_init(&r, seed, prefix, 0);
    fst_status st = put_number(&images, 0x803, err);
    const uint32_t dims[] = {count, SIDE, SIDE};
    for (int i = 0; !st && i < 3; i++)
        st = put_number(&images, dims[i], err);
    if (!st)
        st = put_number(&labels, 0x801, err);
    if (!st)
        st = put_number(&labels, count, err);
    for (uint32_t i = 0; !st && i < count; i++) {
        unsigned char image[PIXELS], label = (unsigned char)(i % CLASSES);
        draw(image, label, &r);
        st = fst_buf_append(&images, image, PIXELS, err);
        if (!st)
            st = fst_buf_append(&labels, &label, 1, err);
    }
    snprintf(name, sizeof name, "%s-images-idx3-ubyte", prefix);
    if (!st)
        st = write_idx(folder, name, &images, err);
    snprintf(name, sizeof name, "%s-labels-idx1-ubyte", prefix);
    if (!st)
        st = write_idx(folder, name, &labels, err);
    fst_buf_release(&images);
    fst_buf_release(&labels);
    return st;
}

static int make_data(const char *folder, const char *train, const char *test, const char *seed)
{
    fst_error e = {0};
    uint64_t s = strtoull(seed, NULL, 10);
    fst_status st = fst_make_folders(folder, &e);
    if (!st)
        st = make_split(folder, "train", (uint32_t)strtoul(train, NULL, 10), s, &e);
    if (!st)
        st = make_split(folder, "t10k", (uint32_t)strtoul(test, NULL, 10), s, &e);
    return st ? failed(&e) : 0;
}

static int make_array(const char *path, int64_t count, int64_t bad)
{
    fst_error e = {0};
    fst_rng r;
    float *x = fst_calloc((size_t)count * 2 * PIXELS, sizeof *x), *test = x + count * PIXELS;
    int64_t *y = fst_calloc((size_t)count, sizeof *y);
    if (!x || !y)
        return 1;
    fst_rng_init(&r, 1, "array", 0);
    for (int64_t i = 0; i < 2 * count; i++) {
        unsigned char image[PIXELS];
        y[i % count] = i % count % CLASSES;
        draw(image, (int)y[i % count], &r);
        for (int k = 0; k < PIXELS; k++)
            x[i * PIXELS + k] = (float)image[k] / 255;
    }
    if (bad >= 0 && bad < count)
        x[bad * PIXELS + 400] = NAN;
    fst_tensor t[] = {{"x", FST_F32, {4, {count, 1, SIDE, SIDE}}, x},
                      {"y", FST_I64, {1, {count}}, y},
                      {"x_test", FST_F32, {4, {count, 1, SIDE, SIDE}}, test},
                      {"y_test", FST_I64, {1, {count}}, y}};
    fst_status st = fst_safetensors_write(path, NULL, 0, t, 4, NULL, &e);
    fst_free(x);
    fst_free(y);
    return st ? failed(&e) : 0;
}

static int make_named(const char *path, int64_t count, char *list, double scale, uint64_t seed)
{
    enum { SIDE_NAMED = 4, N = SIDE_NAMED * SIDE_NAMED, MOST = 16 };
    char *names[MOST], json[400] = "[";
    int n = 0, turn[MOST], turns = 0;
    for (char *k = strtok(list, ","); k && turns < MOST; k = strtok(NULL, ",")) {
        int c = 0;
        while (c < n && strcmp(names[c], k))
            c++;
        if (c == n)
            names[n++] = k;
        turn[turns++] = c;
    }
    for (int c = 0; c < n; c++)
        snprintf(json + strlen(json), sizeof json - strlen(json), "%s\"%s\"", c ? "," : "", names[c]);
    snprintf(json + strlen(json), sizeof json - strlen(json), "]");
    float *x = fst_calloc((size_t)count * N, sizeof *x);
    int64_t *y = fst_calloc((size_t)count, sizeof *y);
    fst_error e = {0};
    if (!x || !y)
        return 1;
    for (int64_t i = 0; i < count; i++) {
        fst_rng pattern, noise;
        y[i] = turn[i % turns];
        fst_rng_init(&pattern, 7, names[y[i]], 0);
        fst_rng_init(&noise, seed, "noise", (uint64_t)i);
        for (int k = 0; k < N; k++)
            x[i * N + k] = (float)(scale * (fst_rng_normal(&pattern) + 0.8 * fst_rng_normal(&noise)));
    }
    fst_tensor t[] = {{"x", FST_F32, {4, {count, 1, SIDE_NAMED, SIDE_NAMED}}, x}, {"y", FST_I64, {1, {count}}, y}};
    fst_pair meta = {"classes", json};
    fst_status st = fst_safetensors_write(path, &meta, 1, t, 2, NULL, &e);
    fst_free(x);
    fst_free(y);
    return st ? failed(&e) : 0;
}

/* ---- reading --------------------------------------------------------------------------------------- */

static int read_json(const char *path, char *keys)
{
    json_error_t e;
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &e), *j = root;
    if (!root) {
        fprintf(stderr, "task_helper: %s:%d: %s\n", path, e.line, e.text);
        return 1;
    }
    for (char *k = keys ? strtok(keys, ".") : NULL; j && k; k = strtok(NULL, "."))
        j = json_is_array(j) ? json_array_get(j, (size_t)strtoul(k, NULL, 10)) : json_object_get(j, k);
    char *text = j ? json_dumps(j, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
    if (!j)
        fprintf(stderr, "task_helper: %s: no such key\n", path);
    else if (json_is_string(j))
        puts(json_string_value(j));
    else if (text)
        puts(text);
    free(text);
    json_decref(root);
    return j ? 0 : 1;
}

static bool count_event(void *ctx, const fst_event *event)
{
    (void)event;
    ++*(size_t *)ctx;
    return true;
}

static int read_events(const char *path)
{
    fst_error e = {0};
    size_t count = 0, skipped = 0;
    if (fst_events_read(path, count_event, &count, &skipped, &e))
        return failed(&e);
    printf("%zu\n", count);
    if (skipped)
        fprintf(stderr, "task_helper: %s: %zu lines are no events\n", path, skipped);
    return skipped > 0;
}

static int check_xml(const char *path)
{
    fst_buf text = {0};
    fst_error e = {0};
    char why[200];
    size_t at;
    if (fst_file_read(path, 64 << 20, &text, &e))
        return failed(&e);
    bool ok = xml_check(text.data ? text.data : "", text.len, &at, why, sizeof why);
    if (!ok)
        fprintf(stderr, "task_helper: %s: byte %zu: %s\n", path, at, why);
    fst_buf_release(&text);
    return !ok;
}

static int find_port(void)
{
    fst_error err;
    int port;
    if (fst_free_port(&port, &err))
        return failed(&err);
    printf("%d\n", port);
    return 0;
}

static int run_for_peak(const char *file, char **command)
{
    fst_error e = {0};
    fst_buf text = {0};
    struct rusage used;
    int status;
    pid_t child = fork();
    if (child == 0) {
        execv(command[0], command);
        _exit(127);
    }
    if (child < 0 || wait4(child, &status, 0, &used) != child)
        return 1;
    fst_status st = fst_buf_printf(&text, &e, "%ld\n", used.ru_maxrss);
    if (!st)
        st = fst_file_write(file, text.data, text.len, &e);
    fst_buf_release(&text);
    return st ? failed(&e) : WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "port"))
        return find_port();
    const char *verb = argc > 2 ? argv[1] : "";
    if (!strcmp(verb, "data") && (argc == 5 || argc == 6))
        return make_data(argv[2], argv[3], argv[4], argc == 6 ? argv[5] : "1");
    if (!strcmp(verb, "array") && argc == 5)
        return make_array(argv[2], strtoll(argv[3], NULL, 10), strtoll(argv[4], NULL, 10));
    if (!strcmp(verb, "named") && argc == 7)
        return make_named(argv[2], strtoll(argv[3], NULL, 10), argv[4], strtod(argv[5], NULL),
                          strtoull(argv[6], NULL, 10));
    if (!strcmp(verb, "json") && argc <= 4)
        return read_json(argv[2], argc == 4 ? argv[3] : NULL);
    if (!strcmp(verb, "events") && argc == 3)
        return read_events(argv[2]);
    if (!strcmp(verb, "peak") && argc > 3)
        return run_for_peak(argv[2], argv + 3);
    if (!strcmp(verb, "xml") && argc == 3)
        return check_xml(argv[2]);
    fprintf(stderr, "task_helper: wrong usage; see the head of tests/task/helper.c\n");
    return 2;
}
