/*
 * Every sample has one use: training, validation or test. Tried over sources with and without bursts, ways to keep
 * samples apart, topologies and partitions: the sets are disjoint, nothing is lost, no burst is cut, and clients have
 * samples to learn from and no others.
 */
#define _XOPEN_SOURCE 700 /* nftw */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "session_fixture.h"

enum { CLASSES = 3, TRAIN = 120, OTHER = 36, BURST = 4, SIGNALS = 480 };
enum use { NOBODY, LEARN, VALIDATE, TEST };

#define must(call)                                                \
    do {                                                          \
        why = (fst_error){0};                                     \
        if (call)                                                 \
            fail_msg("%s: %s: %s", #call, settings, why.message); \
    } while (0)

#define STAGES "stages: {federated_train: {model: logistic_regression, init: random}}"
static char settings[512];

/* Samples of values that no other sample has: first, first + 1, ... */
static void write_split(const char *name, const char *split, int count, int first, bool bursts)
{
    static float x[2 * TRAIN];
    static int64_t y[TRAIN], burst[TRAIN];
    char file[128];
    for (int i = 0; i < count; i++) {
        x[2 * i] = (float)(first + i);
        x[2 * i + 1] = 1;
        y[i] = i / BURST * 7 % CLASSES;
        burst[i] = i / BURST;
    }
    const fst_tensor t[] = {
        {"x", FST_F32, {2, {count, 2}}, x}, {"y", FST_I64, {1, {count}}, y}, {"burst", FST_I64, {1, {count}}, burst}};
    must(fst_make_folders(path_in(name), &why));
    snprintf(file, sizeof file, "%s/%s.safetensors", name, split);
    must(fst_safetensors_write(path_in(file), NULL, 0, t, bursts ? 3 : 2, NULL, &why));
}

static int set_up(void **state)
{
    static const char *const places[] = {"cloud", "e1", "e2"};
    static const char params[] = "{\"burst\": {\"window\": 64}}"; /* quick to make */
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    for (int bursts = 0; bursts < 2; bursts++)
        for (int p = 0; p < 3; p++) {
            char name[32];
            snprintf(name, sizeof name, "%s%s", places[p], bursts ? "_bursts" : "");
            write_split(name, "train", TRAIN, 1000 * p, bursts);
            write_split(name, "val", OTHER, 1000 * p + 300, bursts);
            write_split(name, "test", OTHER, 1000 * p + 600, bursts);
        }
    return fst_file_write(path_in("params.json"), params, strlen(params), &why) ? -1 : 0;
}

static fst_status open_session(struct session *s, fst_task **task, const char *text)
{
    return open_session_with(s, task, text, NULL);
}

/* ---- what must hold of every session --------------------------------------------------------------------- */

/* What each sample is used for, found again by its key. */
struct ledger {
    struct entry {
        fst_hash128 key;
        enum use use;
        int place;
    } at[4 * TRAIN + 8 * OTHER + SIGNALS];
    size_t n;
};

static struct entry *find(struct ledger *l, const fst_source *s, size_t i)
{
    fst_hash128 key;
    must(fst_source_key(s, i, &key, &why));
    for (size_t k = 0; k < l->n; k++)
        if (l->at[k].key.lo == key.lo && l->at[k].key.hi == key.hi)
            return &l->at[k];
    l->at[l->n] = (struct entry){key, NOBODY, -1};
    return &l->at[l->n++];
}

static void put(struct ledger *l, const fst_source *s, size_t i, enum use use, int place)
{
    struct entry *e = find(l, s, i);
    if (e->use != NOBODY)
        fail_msg("%s: a sample has two uses: %d at %d, %d at %d", settings, e->use, e->place, use, place);
    e->use = use;
    e->place = place;
}

/* One burst, one use at one place. */
static void check_bursts(const struct session *s, struct ledger *l)
{
    const fst_source *t = s->data.train;
    for (size_t i = 0; t->group && i < t->count; i++)
        for (size_t k = 0; k < i; k++)
            if (t->group[i] == t->group[k]) {
                struct entry *a = find(l, t, i), *b = find(l, t, k);
                if (a->use != b->use || a->place != b->place)
                    fail_msg("%s: a burst is cut", settings);
            }
}

static void check_clients(const struct session *s, struct ledger *l)
{
    fst_partition p = {0};
    size_t learn = s->data.cloud.learn;
    must(fst__clients(&s->data, s->task, &p, &why));
    for (size_t k = 0; k < s->data.edges; k++)
        learn = (k ? learn : 0) + s->data.edge[k].learn;
    if (p.begin[p.clients] != learn && !s->task->file.clients.partition_file)
        fail_msg("%s: the clients have %zu samples, not %zu", settings, p.begin[p.clients], learn);
    for (int k = 0; k < p.clients; k++) {
        assert_true(p.begin[k + 1] > p.begin[k]);
        for (size_t i = p.begin[k]; i < p.begin[k + 1]; i++) {
            struct entry *e = find(l, s->data.train, p.index[i]);
            if (e->use != LEARN)
                fail_msg("%s: client %d has a sample of use %d", settings, k, e->use);
            assert_int_equal(e->place, s->data.edges ? k + 1 : 0);
            e->use = NOBODY; /* a second client would find it so */
        }
    }
    fst_partition_release(&p);
}

static void check_session(const struct session *s, size_t total)
{
    struct ledger *l = fst_calloc(1, sizeof *l);
    assert_non_null(l);
    for (size_t i = 0; i < s->data.test->count; i++)
        put(l, s->data.test, i, TEST, -1);
    for (size_t k = 0; k <= s->data.edges; k++) {
        const struct share *h = k ? &s->data.edge[k - 1] : &s->data.cloud;
        for (size_t i = 0; i < h->learn + h->validate; i++)
            put(l, s->data.train, h->index[i], i < h->learn ? LEARN : VALIDATE, (int)k);
    }
    if (l->n != total || s->data.train->count + s->data.test->count != total)
        fail_msg("%s: %zu samples are used, of %zu", settings, l->n, total);
    check_bursts(s, l);
    check_clients(s, l);
    fst_free(l);
}

/* ---- all settings ---------------------------------------------------------------------------------------- */

static const char *const partitions[] = {"{count: 4}", "{count: 4, partition: dirichlet, alpha: 0.3}",
                                         "{count: 4, partition: shards, classes_per_client: 2}",
                                         "{count: 4, partition: quantity, alpha: 0.5, min_samples: 4}"};
/* Ways to keep samples apart, and how many samples one place then brings; all edges' places bring `edge`. */
static const struct {
    const char *text;
    size_t own, edge;
    bool synth, own_validation;
} splits[] = {
    {"", TRAIN + OTHER, TRAIN, false, false},
    {", validation: 0.25", TRAIN + OTHER, TRAIN, false, false},
    {", own_validation: true", TRAIN + 2 * OTHER, TRAIN + OTHER, false, true},
    {", test: 0.2", TRAIN, TRAIN, true, false},
    {", test: 0.2, validation: 0.25", TRAIN, TRAIN, true, false},
    {", test: 0.2, own_validation: true", TRAIN + OTHER, TRAIN + OTHER, false, true},
    {", limit: 61, test_limit: 20", 61 + 20, 61, false, false},
    {", limit: 61, validation: 0.25, test: 0.2", 61, 61, false, false},
};
enum { SPLITS = sizeof splits / sizeof *splits };

static void try_one(const char *data, const char *topology, int split, int partition, size_t total)
{
    char text[1024];
    struct session s;
    fst_task *task = NULL;
    snprintf(settings, sizeof settings, "data: {%s%s}\n%s%s%s\n", data, splits[split].text, topology,
             *topology ? "" : "clients: ", *topology ? "" : partitions[partition]);
    snprintf(text, sizeof text, "name: own\nseed: 7\n%s" STAGES "\n", settings);
    must(open_session(&s, &task, text));
    check_session(&s, total);
    close_session(&s, task);
}

static void test_every_sample_has_one_use(void **state)
{
    (void)state;
    for (int bursts = 0; bursts < 2; bursts++)
        for (int split = 0; split < SPLITS; split++)
            for (int partition = 0; partition < 4; partition++) {
                const char *b = bursts ? "_bursts" : "";
                char data[200];
                snprintf(data, sizeof data, "source: array, path: cloud%s", b);
                try_one(data, "", split, partition, splits[split].own);
                if (partition == 0 && !splits[split].own_validation)
                    try_one(data, "topology: {edges: 3, cloud_share: 0.4, alpha: 0.7}\n", split, 0, splits[split].own);
                snprintf(data, sizeof data, "source: array, path: cloud%s, edge_paths: [e1%s, e2%s]", b, b, b);
                if (partition == 0)
                    try_one(data, "topology: {edges: 2}\n", split, 0, splits[split].own + 2 * splits[split].edge);
            }
}

static void test_made_signals(void **state)
{
    static const char data[] = "source: synth, synth: {windows: 480, windows_per_burst: 4, params: params.json}";
    (void)state;
    for (int split = 0; split < SPLITS; split++)
        for (int partition = 0; splits[split].synth && partition < 4; partition++) {
            try_one(data, "", split, partition, SIGNALS);
            try_one(data, "topology: {edges: 3, cloud_share: 0.4, alpha: 0.7}\n", split, partition, SIGNALS);
        }
}

/* ---- validation ------------------------------------------------------------------------------------------ */

static void open_one(struct session *s, fst_task **task, const char *data)
{
    char text[1024];
    snprintf(settings, sizeof settings, "%s", data);
    snprintf(text, sizeof text, "name: own\nseed: 7\n%s\n" STAGES "\n", data);
    must(open_session(s, task, text));
}

/* 40 samples of each class; 0.29 of 120 is 34.8. */
static void test_validation_is_dealt_by_class(void **state)
{
    (void)state;
    for (int seed = 0; seed < 20; seed++) {
        char data[200];
        struct session s;
        fst_task *task = NULL;
        size_t of[CLASSES] = {0};
        snprintf(data, sizeof data, "data: {path: cloud, validation: 0.29}\nseed: %d", seed);
        snprintf(settings, sizeof settings, "%s", data);
        char text[400];
        snprintf(text, sizeof text, "name: own\n%s\n" STAGES "\n", data);
        must(open_session(&s, &task, text));
        assert_int_equal(s.data.cloud.validate, 35);
        assert_int_equal(s.data.cloud.learn, TRAIN - 35);
        for (size_t i = 0; i < s.data.cloud.validate; i++)
            of[s.data.train->labels[s.data.cloud.index[s.data.cloud.learn + i]]]++;
        for (int c = 0; c < CLASSES; c++)
            assert_in_range(of[c], 11, 12);
        close_session(&s, task);
    }
}

static void test_limits_leave_every_class(void **state)
{
    struct session s;
    fst_task *task = NULL;
    char missing[100];
    (void)state;
    open_one(&s, &task, "data: {path: cloud, limit: 3, test_limit: 3}"); /* the first three are of one class */
    assert_int_equal(fst__missing_of(s.data.train, NULL, s.data.train->count, missing, sizeof missing), 0);
    assert_int_equal(fst__missing_of(s.data.test, NULL, s.data.test->count, missing, sizeof missing), 0);
    close_session(&s, task);
}

/* ---- a partition of one's own ---------------------------------------------------------------------------- */

static void write_partition(const struct session *s, const int32_t *owner, int clients)
{
    fst_partition p = {0};
    must(fst_partition_from_owners(&p, s->data.train, owner, clients, &why));
    snprintf(p.method, sizeof p.method, "by hand");
    must(fst_partition_write(&p, path_in("mine.safetensors"), NULL, &why));
    fst_partition_release(&p);
}

static void refuse_partition(const char *data, fst_status status, const char *message)
{
    struct session s;
    fst_task *task = NULL;
    fst_partition p = {0};
    open_one(&s, &task, data);
    why = (fst_error){0};
    fst_status st = fst__clients(&s.data, s.task, &p, &why);
    if (st != status || !strstr(why.message, message))
        fail_msg("%s: status %s, \"%s\"; wanted \"%s\"", data, fst_status_name(st), why.message, message);
    close_session(&s, task);
}

#define MINE "\nclients: {partition_file: mine.safetensors}"

static void test_partitions_from_files(void **state)
{
    static int32_t owner[2 * TRAIN];
    struct session s;
    fst_task *task = NULL;
    fst_partition p = {0};
    (void)state;
    for (int i = 0; i < 2 * TRAIN; i++)
        owner[i] = i % 5 == 4 ? -1 : i % 5 % 3;
    open_one(&s, &task, "data: {path: cloud}" MINE);
    write_partition(&s, owner, 3);
    must(fst__clients(&s.data, s.task, &p, &why));
    assert_int_equal(p.clients, 3);
    assert_string_equal(p.method, "by hand");
    assert_int_equal(p.begin[3], TRAIN * 4 / 5);
    for (int k = 0; k < 3; k++)
        for (size_t i = p.begin[k]; i < p.begin[k + 1]; i++)
            assert_int_equal(owner[p.index[i]], k);
    fst_partition_release(&p);
    close_session(&s, task);

    /* the split val added: still those of the training split */
    open_one(&s, &task, "data: {path: cloud, own_validation: true}" MINE);
    must(fst__clients(&s.data, s.task, &p, &why));
    assert_int_equal(p.samples, TRAIN + OTHER);
    assert_int_equal(p.begin[3], TRAIN * 4 / 5);
    fst_partition_release(&p);
    close_session(&s, task);

    refuse_partition("data: {path: cloud, validation: 0.25}" MINE, FST_E_CONFIG, "of the 30 validation samples");
    refuse_partition("data: {path: cloud, test: 0.25}" MINE, FST_E_CONFIG, "keeps for testing");
    refuse_partition("data: {path: cloud, limit: 60}" MINE, FST_E_MISMATCH, "splits 120 samples");
    refuse_partition("data: {path: e1}" MINE, FST_E_MISMATCH, "make it of these data");
    refuse_partition("data: {path: cloud}\nclients: {partition_file: none.safetensors}", FST_E_IO, "none.safetensors");

    /* as a run with validation writes it */
    open_one(&s, &task, "data: {path: cloud, validation: 0.25}" MINE);
    for (size_t i = 0; i < s.data.cloud.validate; i++)
        owner[s.data.cloud.index[s.data.cloud.learn + i]] = -1;
    write_partition(&s, owner, 3);
    must(fst__clients(&s.data, s.task, &p, &why));
    check_session(&s, TRAIN + OTHER);
    fst_partition_release(&p);

    for (int i = 0; i < TRAIN; i++)
        owner[i] = owner[i] == 1 ? 2 : owner[i];
    write_partition(&s, owner, 3);
    close_session(&s, task);
    refuse_partition("data: {path: cloud}" MINE, FST_E_CONFIG, "client 1 has no samples");
}

/* ---- what cannot be ---------------------------------------------------------------------------------------- */

static void refuse(const char *data, const char *message)
{
    struct session s;
    fst_task *task = NULL;
    char text[1024];
    snprintf(text, sizeof text, "name: own\n%s\n" STAGES "\n", data);
    why = (fst_error){0};
    fst_status st = open_session(&s, &task, text);
    if (st != FST_E_CONFIG || !strstr(why.message, message))
        fail_msg("%s: status %s, \"%s\"; wanted \"%s\"", data, fst_status_name(st), why.message, message);
    close_session(&s, task);
}

static void test_splits_with_one_content_are_refused(void **state)
{
    static const char edges[] = "\ntopology: {edges: 2}";
    char data[200];
    (void)state;
    write_split("twice", "train", TRAIN, 0, false);
    write_split("twice", "val", TRAIN, 0, false);
    write_split("twice", "test", OTHER, 5000, false);
    write_split("same", "train", OTHER, 5000, false);
    write_split("same", "val", OTHER, 5500, false);
    write_split("same", "test", OTHER, 5000, false);
    write_split("late", "train", TRAIN, 6000, false);
    write_split("late", "val", OTHER, 5000, false);
    write_split("late", "test", OTHER, 5000, false);
    refuse("data: {path: same}", "the test samples are the training samples over again");
    refuse("data: {path: twice, own_validation: true}", "the validation samples are the training samples over again");
    refuse("data: {path: late, own_validation: true}", "the test samples are the validation samples over again");
    snprintf(data, sizeof data, "data: {path: late, edge_paths: [e1, same]}%s", edges);
    refuse(data, "the test samples are the training samples of edge 2 over again");
    snprintf(data, sizeof data, "data: {path: cloud, edge_paths: [e1, e1]}%s", edges);
    refuse(data, "the training samples of edge 2 are the training samples of edge 1 over again");
    refuse("data: {path: cloud, validation: 0.004}", "data.validation: 0.004 of 120 samples leaves none");
    refuse("data: {path: cloud, test: 0.004}", "data.test: 0.004 of 120 samples");
    snprintf(data, sizeof data, "data: {path: cloud, edge_paths: [e1, e2]}%s" MINE, edges);
    refuse(data, "clients");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_sample_has_one_use),     cmocka_unit_test(test_made_signals),
        cmocka_unit_test(test_validation_is_dealt_by_class), cmocka_unit_test(test_limits_leave_every_class),
        cmocka_unit_test(test_partitions_from_files),        cmocka_unit_test(test_splits_with_one_content_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
