/* The schema engine: what it reads, what it refuses and in which words, overrides, the environment,
 * and that writing and reading again changes nothing. */
#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "schema.h"

struct optimizer {
    int name;
    double learning_rate;
    bool nesterov;
};

struct stage {
    char *model;
    int64_t epochs;
    double temperature, ce_weight;
    struct optimizer optimizer;
    double betas[2];
    size_t nbetas;
};

struct task {
    char *name, *comment;
    int64_t seed, workers, clip_at;
    bool has_clip_at, has_edge_kd, has_cloud;
    int64_t *hidden;
    size_t nhidden;
    char **paths;
    size_t npaths;
    struct optimizer *ladder;
    size_t nladder;
    struct stage edge_kd, cloud;
    struct optimizer server;
    unsigned partition;
};

static bool check_optimizer(const void *object, fst__complaint *c)
{
    const struct optimizer *o = object;
    if (!o->nesterov || o->name == 0)
        return true;
    c->key = "nesterov";
    snprintf(c->text, sizeof c->text, "only sgd knows it");
    return false;
}

static const char *const optimizers[] = {"sgd", "adam", "adamw", NULL};
static const fst__field optimizer_fields[] = {
    FST__F_ENUM(struct optimizer, name, optimizers, "adam", "update rule"),
    FST__F_ABOVE(struct optimizer, learning_rate, 0, INFINITY, "1e-3", "step size"),
    FST__F_BOOL(struct optimizer, nesterov, "false", "momentum | looked ahead"),
};
static const fst__schema optimizer_schema =
    FST__SCHEMA(struct optimizer, optimizer_fields, .shorthand = "name", .check = check_optimizer);

static const fst__field stage_fields[] = {
    FST__F_STRING(struct stage, model, NULL, "architecture", .required = true),
    FST__F_INT(struct stage, epochs, 1, 1000, "5", "passes over the data"),
    FST__F_ABOVE(struct stage, temperature, 0, 100, "4", "softens both sides"),
    FST__F_DOUBLE(struct stage, ce_weight, 0, 1, "0.3", "weight of the hard labels"),
    FST__F_MAP(struct stage, optimizer, &optimizer_schema, "how to learn"),
    FST__F_DOUBLES(struct stage, betas, nbetas, 2, 0, 1, "[0.9, 0.999]", "decay rates", .count_min = 2),
};
static const fst__schema stage_schema = FST__SCHEMA(struct stage, stage_fields);

static const char *const partitions[] = {"iid", "dirichlet", NULL};
static const fst__field task_fields[] = {
    FST__F_STRING(struct task, name, NULL, "of the task", .required = true),
    FST__F_STRING(struct task, comment, NULL, "anything"),
    FST__F_INT(struct task, seed, 0, INT64_MAX, "42", "of every random stream"),
    FST__F_INT(struct task, workers, 1, 256, "2", "threads", .aside = true),
    FST__F_INT(struct task, clip_at, INT64_MIN, 10, NULL, "largest norm", FST__PRESENT(struct task, has_clip_at)),
    FST__F_INTS(struct task, hidden, nhidden, 4, 1, 4096, "[64, 32]", "widths"),
    FST__F_STRINGS(struct task, paths, npaths, 3, NULL, "where the data are"),
    FST__F_MAPS(struct task, ladder, struct optimizer, nladder, 3, &optimizer_schema, NULL, "one after the other"),
    FST__F_OPTIONAL(struct task, edge_kd, has_edge_kd, &stage_schema, "distillation at the edge"),
    FST__F_OPTIONAL(struct task, cloud, has_cloud, &stage_schema, "training in the cloud"),
    FST__F_MAP(struct task, server, &optimizer_schema, "the server's own step",
               .fallback = "{name: sgd, learning_rate: 1}"),
    FST__F_ENUM(struct task, partition, partitions, "iid", "who gets what"),
};
static const fst__schema schema = FST__SCHEMA(struct task, task_fields);

static fst_status load_with(const char *text, const char *const *sets, size_t nsets, struct task *t, fst_error *err)
{
    return fst__schema_load(&schema, "t.yaml", text, strlen(text), sets, nsets, t, err);
}

static struct task load(const char *text, const char *set)
{
    struct task t;
    fst_error err = {0};
    if (load_with(text, &set, set ? 1 : 0, &t, &err))
        fail_msg("%s", err.message);
    return t;
}

/* The whole message that a text (and an override) brings. */
static void assert_refused(const char *text, const char *set, fst_status status, const char *message)
{
    struct task t;
    fst_error err = {0};
    memset(&t, 0x5a, sizeof t);
    struct task before = t;
    assert_int_equal(load_with(text, &set, set ? 1 : 0, &t, &err), status);
    assert_string_equal(err.message, message);
    assert_int_equal(err.status, status);
    assert_memory_equal(&t, &before, sizeof t);
}

static char *json_of(const struct task *t)
{
    fst_buf b = {0};
    fst_error err = {0};
    if (fst__schema_json(&schema, t, &b, &err))
        fail_msg("%s", err.message);
    return b.data;
}

static const char full[] = "name: mnist\n"
                           "comment: 'a: \"b\" $$5'\n"
                           "_note: {epochs: '${NOT_LOOKED_AT}', epochs: twice}\n"
                           "seed: 9223372036854775807\n"
                           "clip_at: -3\n"
                           "hidden: [128, 1]\n"
                           "paths: [./a, 'null', \"tab\\there\"]\n"
                           "ladder:\n"
                           "  - adamw\n"
                           "  - {name: sgd, nesterov: true}\n"
                           "edge_kd:\n"
                           "  model: student\n"
                           "  temperature: 2.5\n"
                           "  optimizer: sgd\n"
                           "partition: \"dirichlet\"\n";

static void test_reads_every_type(void **state)
{
    (void)state;
    struct task t = load(full, NULL);
    assert_string_equal(t.name, "mnist");
    assert_string_equal(t.comment, "a: \"b\" $5");
    assert_true(t.seed == INT64_MAX);
    assert_true(t.has_clip_at && t.clip_at == -3);
    assert_int_equal(t.nhidden, 2);
    assert_int_equal(t.hidden[0], 128);
    assert_int_equal(t.hidden[1], 1);
    assert_int_equal(t.npaths, 3);
    assert_string_equal(t.paths[0], "./a");
    assert_string_equal(t.paths[1], "null");
    assert_string_equal(t.paths[2], "tab\there");
    assert_int_equal(t.nladder, 2);
    assert_int_equal(t.ladder[0].name, 2);
    assert_true(t.ladder[0].learning_rate == 0.001);
    assert_int_equal(t.ladder[1].name, 0);
    assert_true(t.ladder[1].nesterov && !t.ladder[0].nesterov);
    assert_true(t.has_edge_kd && !t.has_cloud);
    assert_string_equal(t.edge_kd.model, "student");
    assert_true(t.edge_kd.temperature == 2.5);
    assert_int_equal(t.edge_kd.optimizer.name, 0);
    assert_int_equal(t.partition, 1);
    fst__schema_release(&schema, &t);
    assert_null(t.name);
    fst__schema_release(&schema, &t);
    fst__schema_release(&schema, NULL);
}

/* JSON's writers put points into whole numbers. */
static void test_whole_numbers_may_have_a_point(void **state)
{
    (void)state;
    struct task t =
        load("{\"name\": \"x\", \"seed\": 7.0, \"workers\": 1.6E+1, \"hidden\": [1e2, 20e-1], \"clip_at\": -3.}", NULL);
    assert_int_equal(t.seed, 7);
    assert_int_equal(t.workers, 16);
    assert_int_equal(t.hidden[0], 100);
    assert_int_equal(t.hidden[1], 2);
    assert_int_equal(t.clip_at, -3);
    fst__schema_release(&schema, &t);
}

static void test_fills_in_defaults(void **state)
{
    (void)state;
    struct task t = load("{\"name\":\"json\",\"edge_kd\":{\"model\":\"m\",\"epochs\":null},\"cloud\":null}", NULL);
    assert_null(t.comment);
    assert_int_equal(t.seed, 42);
    assert_int_equal(t.workers, 2);
    assert_true(!t.has_clip_at && t.clip_at == 0);
    assert_int_equal(t.nhidden, 2);
    assert_int_equal(t.hidden[0], 64);
    assert_int_equal(t.hidden[1], 32);
    assert_int_equal(t.npaths, 0);
    assert_null(t.paths);
    assert_true(t.has_edge_kd && !t.has_cloud);
    assert_null(t.cloud.model);
    assert_int_equal(t.cloud.epochs, 0);
    assert_int_equal(t.edge_kd.epochs, 5);
    assert_true(t.edge_kd.ce_weight == 0.3);
    assert_int_equal(t.edge_kd.optimizer.name, 1);
    assert_int_equal(t.edge_kd.nbetas, 2);
    assert_true(t.edge_kd.betas[1] == 0.999);
    assert_true(t.server.name == 0 && t.server.learning_rate == 1);
    assert_int_equal(t.partition, 0);
    fst__schema_release(&schema, &t);
}

static void test_unknown_keys(void **state)
{
    (void)state;
    assert_refused(
        "name: x\nedge_kd:\n  model: m\n  temprature: 4\n", NULL, FST_E_CONFIG,
        "t.yaml:4:3: edge_kd.temprature: unknown key; did you mean \"temperature\"? accepted: model, epochs, "
        "temperature, ce_weight, optimizer, betas");
    assert_refused("name: x\nedge_kd: {model: m, fancy: 4}\n", NULL, FST_E_CONFIG,
                   "t.yaml:2:21: edge_kd.fancy: unknown key; accepted: model, epochs, temperature, ce_weight, "
                   "optimizer, betas");
    /* neighbours swapped; a terminal's escape codes do not get through */
    assert_refused("name: x\nserver: {nmae: sgd}\nladder: [sgd, {\"\\e[2J\": 1}]\n", NULL, FST_E_CONFIG,
                   "t.yaml:2:10: server.nmae: unknown key; did you mean \"name\"? accepted: name, learning_rate, "
                   "nesterov\nt.yaml:3:16: ladder[1].?[2J: unknown key; accepted: name, learning_rate, nesterov");
}

static void test_wrong_types(void **state)
{
    (void)state;
    assert_refused("name: x\nedge_kd: {model: m, epochs: fast}", NULL, FST_E_CONFIG,
                   "t.yaml:2:29: edge_kd.epochs: \"fast\" is not a whole number from 1 to 1000");
    assert_refused("name: x\nseed: 1.5", NULL, FST_E_CONFIG, "t.yaml:2:7: seed: \"1.5\" is not a whole number >= 0");
    assert_refused("name: x\nseed: 1e16", NULL, FST_E_CONFIG, "t.yaml:2:7: seed: \"1e16\" is not a whole number >= 0");
    assert_refused("{\"name\": \"x\", \"seed\": true}", NULL, FST_E_CONFIG,
                   "t.yaml:1:23: seed: \"true\" is not a whole number >= 0");
    assert_refused("name: x\nseed: \"5\"", NULL, FST_E_CONFIG,
                   "t.yaml:2:7: seed: \"5\" in quotes is a text, it is not a whole number >= 0");
    assert_refused("name: x\nserver: {learning_rate: fast}", NULL, FST_E_CONFIG,
                   "t.yaml:2:25: server.learning_rate: \"fast\" is not a number > 0");
    assert_refused("name: x\nserver: {nesterov: yes}", NULL, FST_E_CONFIG,
                   "t.yaml:2:20: server.nesterov: \"yes\" is not true or false");
    assert_refused("name: x\nserver: [1]", NULL, FST_E_CONFIG,
                   "t.yaml:2:9: server: a list is not a map or a bare name");
    assert_refused("name: x\nedge_kd: student", NULL, FST_E_CONFIG, "t.yaml:2:10: edge_kd: \"student\" is not a map");
    assert_refused("name: {a: 1}", NULL, FST_E_CONFIG, "t.yaml:1:7: name: a map is not a text");
    assert_refused("name:\n", NULL, FST_E_CONFIG, "t.yaml:1:6: name: the value is missing; expected a text");
    assert_refused("name: ''", NULL, FST_E_CONFIG, "t.yaml:1:7: name: the value is missing; expected a text");
    assert_refused("[1]", NULL, FST_E_CONFIG, "t.yaml:1:1: a list is not a map");
    assert_refused("name: x\npartition: dirichelt", NULL, FST_E_CONFIG,
                   "t.yaml:2:12: partition: \"dirichelt\" is not one of iid, dirichlet; did you mean \"dirichlet\"?");
    assert_refused("name: x\nserver: rmsprop", NULL, FST_E_CONFIG,
                   "t.yaml:2:9: server.name: \"rmsprop\" is not one of sgd, adam, adamw");
}

static void test_out_of_range(void **state)
{
    (void)state;
    assert_refused("name: x\nworkers: 0", NULL, FST_E_CONFIG,
                   "t.yaml:2:10: workers: \"0\" is not a whole number from 1 to 256");
    assert_refused("name: x\nclip_at: 11", NULL, FST_E_CONFIG,
                   "t.yaml:2:10: clip_at: \"11\" is not a whole number <= 10");
    assert_refused("name: x\nseed: 9223372036854775808", NULL, FST_E_CONFIG,
                   "t.yaml:2:7: seed: \"9223372036854775808\" is not a whole number >= 0");
    assert_refused("name: x\nedge_kd: {model: m, temperature: 0}", NULL, FST_E_CONFIG,
                   "t.yaml:2:34: edge_kd.temperature: \"0\" is not a number > 0 and <= 100");
    assert_refused("name: x\nedge_kd: {model: m, ce_weight: 1.01}", NULL, FST_E_CONFIG,
                   "t.yaml:2:32: edge_kd.ce_weight: \"1.01\" is not a number from 0 to 1");
    const char *const not_numbers[] = {"1e999", "nan", ".inf", "0x10", "1_000", "1e", "1,5"};
    for (size_t i = 0; i < sizeof not_numbers / sizeof *not_numbers; i++) {
        char text[100], message[200];
        snprintf(text, sizeof text, "name: x\nserver:\n  learning_rate: %s\n", not_numbers[i]);
        snprintf(message, sizeof message, "t.yaml:3:18: server.learning_rate: \"%s\" is not a number > 0",
                 not_numbers[i]);
        assert_refused(text, NULL, FST_E_CONFIG, message);
    }
}

static void test_lists(void **state)
{
    (void)state;
    assert_refused("name: x\nhidden: [1, 2, 3, 4, 5]", NULL, FST_E_CONFIG,
                   "t.yaml:2:9: hidden: 5 entries are not a list of at most 4 entries, each a whole number from 1 to "
                   "4096");
    assert_refused("name: x\nhidden: many", NULL, FST_E_CONFIG,
                   "t.yaml:2:9: hidden: \"many\" is not a whole number from 1 to 4096");
    assert_refused("name: x\nhidden: {a: 3}", NULL, FST_E_CONFIG,
                   "t.yaml:2:9: hidden: a map is not a list of at most 4 entries, each a whole number from 1 to 4096");
    assert_refused("name: x\nhidden: [1, x]", NULL, FST_E_CONFIG,
                   "t.yaml:2:13: hidden[1]: \"x\" is not a whole number from 1 to 4096");
    assert_refused("name: x\nedge_kd: {model: m, betas: [0.5]}", NULL, FST_E_CONFIG,
                   "t.yaml:2:28: edge_kd.betas: 1 entry is not a list of 2 entries, each a number from 0 to 1");
    assert_refused("name: x\npaths: [a, null]", NULL, FST_E_CONFIG, "t.yaml:2:12: paths[1]: \"null\" is not a text");
    assert_refused("name: x\nladder:\n- sgd\n- learning_rate: -1\n", NULL, FST_E_CONFIG,
                   "t.yaml:4:18: ladder[1].learning_rate: \"-1\" is not a number > 0");
    struct task t = load("name: x\nhidden: []\n", NULL);
    assert_int_equal(t.nhidden, 0);
    fst__schema_release(&schema, &t);
    t = load("name: x\nhidden: 3\n", NULL); /* one number stands for the list that holds it */
    assert_int_equal(t.nhidden, 1);
    assert_int_equal(t.hidden[0], 3);
    fst__schema_release(&schema, &t);
}

static void test_missing_and_inconsistent(void **state)
{
    (void)state;
    assert_refused("seed: 1", NULL, FST_E_CONFIG, "t.yaml:1:1: name: this key is required; expected a text");
    assert_refused("name: x\nedge_kd: {epochs: 2}", NULL, FST_E_CONFIG,
                   "t.yaml:2:1: edge_kd.model: this key is required; expected a text");
    assert_refused("name: x\nedge_kd: {model: null}", NULL, FST_E_CONFIG,
                   "t.yaml:2:1: edge_kd.model: this key is required; expected a text");
    assert_refused("name: x\nserver: {name: adam, nesterov: true}", NULL, FST_E_CONFIG,
                   "t.yaml:2:32: server.nesterov: only sgd knows it");
}

static void test_several_errors(void **state)
{
    (void)state;
    assert_refused("name: x\nseed: a\nworkers: b\n", NULL, FST_E_CONFIG,
                   "t.yaml:2:7: seed: \"a\" is not a whole number >= 0\n"
                   "t.yaml:3:10: workers: \"b\" is not a whole number from 1 to 256");
    struct task t;
    fst_error err;
    assert_int_equal(load_with("a1: 1\na2: 1\na3: 1\na4: 1\na5: 1\na6: 1\na7: 1\nname: x\n", NULL, 0, &t, &err),
                     FST_E_CONFIG);
    assert_non_null(strstr(err.message, "t.yaml:5:1: a5: unknown key"));
    assert_null(strstr(err.message, "a6"));
    assert_non_null(strstr(err.message, "partition\n(and 2 more)"));
}

static void test_yaml_errors(void **state)
{
    (void)state;
    struct task t;
    fst_error err;
    assert_refused("name: x\nseed: 1\nname: y\n", NULL, FST_E_CONFIG,
                   "t.yaml:3:1: the key \"name\" is given twice, in line 1 and in line 3");
    assert_refused("name: &n x\n", NULL, FST_E_CONFIG,
                   "t.yaml:1:7: anchors (&name) are not accepted; write the value itself, or quote the text");
    assert_refused("name: *n\n", NULL, FST_E_CONFIG,
                   "t.yaml:1:7: aliases (*name) are not accepted; write the value itself, or quote the text");
    assert_refused("name: !!str x\n", NULL, FST_E_CONFIG,
                   "t.yaml:1:7: tags (!name) are not accepted; leave it out, or quote the text");
    assert_refused("name: x\n---\nname: y\n", NULL, FST_E_CONFIG,
                   "t.yaml:2:1: a second document begins here; only one is accepted");
    assert_refused("", NULL, FST_E_CONFIG, "t.yaml: there is nothing in it; at least {} is needed");
    assert_refused("# only a comment\n", NULL, FST_E_CONFIG, "t.yaml: there is nothing in it; at least {} is needed");
    assert_refused("name: \"a\\0b\"\n", NULL, FST_E_CONFIG, "t.yaml:1:7: a text may not hold a NUL character");
    assert_refused("? [a, b]\n: 1\n", NULL, FST_E_CONFIG, "t.yaml:1:3: a key must be a text");
    assert_int_equal(load_with("name: x\nhidden: [1, 2\nseed: 3\n", NULL, 0, &t, &err), FST_E_CONFIG);
    assert_non_null(strstr(err.message, "t.yaml:3:"));
    assert_non_null(strstr(err.message, "not valid YAML: "));
    assert_non_null(strstr(err.message, "line 2"));
    assert_int_equal(load_with("name: \xff\xfe\n", NULL, 0, &t, &err), FST_E_CONFIG);
    assert_non_null(strstr(err.message, "at byte 6"));
}

static void test_environment(void **state)
{
    (void)state;
    setenv("FST_TEST_DIR", "/data", 1);
    setenv("FST_TEST_N", "7", 1);
    setenv("FST_TEST_EMPTY", "", 1);
    setenv("FST_TEST_BAD", "\xff", 1);
    unsetenv("FST_TEST_UNSET");
    struct task t = load("name: ${FST_TEST_DIR}/x${FST_TEST_N}\n"
                         "comment: '$${FST_TEST_N} $5 $$$ ${FST_TEST_EMPTY}${FST_TEST_EMPTY:-e:-}'\n"
                         "seed: ${FST_TEST_N}\n"
                         "workers: ${FST_TEST_UNSET:-3}\n",
                         NULL);
    assert_string_equal(t.name, "/data/x7");
    assert_string_equal(t.comment, "${FST_TEST_N} $5 $$ e:-");
    assert_int_equal(t.seed, 7);
    assert_int_equal(t.workers, 3);
    fst__schema_release(&schema, &t);
    t = load("{name: x, seed: \"${FST_TEST_N}\", comment: \"${FST_TEST_EMPTY}\"}", NULL);
    assert_int_equal(t.seed, 7);
    assert_string_equal(t.comment, "");
    fst__schema_release(&schema, &t);
    assert_refused("name: x\ncomment: a ${FST_TEST_UNSET}\n", NULL, FST_E_CONFIG,
                   "t.yaml:2:10: the environment variable FST_TEST_UNSET is not set; set it or write "
                   "${FST_TEST_UNSET:-default}");
    assert_refused("name: ${FST_TEST_N\n", NULL, FST_E_CONFIG,
                   "t.yaml:1:7: \"${\" without a \"}\"; a dollar sign is written $$");
    const char *const bad[] = {"${}", "${:-x}", "${1A}", "${A B}", "${A:+b}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[100];
        snprintf(text, sizeof text, "name: '%s'\n", bad[i]);
        assert_refused(text, NULL, FST_E_CONFIG,
                       "t.yaml:1:7: \"${...}\" must be ${NAME} or ${NAME:-text}; a dollar sign is written $$");
    }
    assert_refused("name: ${FST_TEST_BAD}\n", NULL, FST_E_CONFIG,
                   "t.yaml:1:7: the environment variable FST_TEST_BAD is not valid UTF-8");
    assert_refused("name: ${FST_TEST_EMPTY}\n", NULL, FST_E_CONFIG,
                   "t.yaml:1:7: name: the value is missing; expected a text");
}

static void test_overrides(void **state)
{
    (void)state;
    const char *const sets[] = {"edge_kd.epochs=7",      "cloud.model=big", "cloud.optimizer.learning_rate=0.5",
                                "hidden=[9, 8]",         "hidden.1=3",      "ladder.0.learning_rate=2",
                                "ladder.1=adam",         "comment=",        "edge_kd.optimizer.learning_rate=0.25",
                                "cloud.optimizer=adamw", "name=a=b",        "clip_at=null"};
    struct task t;
    fst_error err = {0};
    if (load_with(full, sets, sizeof sets / sizeof *sets, &t, &err))
        fail_msg("%s", err.message);
    assert_int_equal(t.edge_kd.epochs, 7);
    assert_string_equal(t.edge_kd.model, "student");
    assert_true(t.has_cloud);
    assert_string_equal(t.cloud.model, "big");
    assert_int_equal(t.cloud.epochs, 5);
    /* later overrides win, whole */
    assert_int_equal(t.cloud.optimizer.name, 2);
    assert_true(t.cloud.optimizer.learning_rate == 0.001);
    assert_int_equal(t.nhidden, 2);
    assert_int_equal(t.hidden[0], 9);
    assert_int_equal(t.hidden[1], 3);
    /* `adamw` and `sgd` were bare names and stay so */
    assert_int_equal(t.ladder[0].name, 2);
    assert_true(t.ladder[0].learning_rate == 2);
    assert_int_equal(t.ladder[1].name, 1);
    assert_int_equal(t.edge_kd.optimizer.name, 0);
    assert_true(t.edge_kd.optimizer.learning_rate == 0.25);
    assert_string_equal(t.comment, "");
    assert_string_equal(t.name, "a=b");
    assert_false(t.has_clip_at);
    fst__schema_release(&schema, &t);
    t = load("name: x", "server.name=adam");
    assert_true(t.server.name == 1 && t.server.learning_rate == 0.001);
    fst__schema_release(&schema, &t);
}

static void test_override_errors(void **state)
{
    (void)state;
    const char *text = "name: x\nhidden: [1, 2]\nseed: 5\npaths: []\n";
    assert_refused(text, "seed=fast", FST_E_CONFIG, "--set seed=fast: seed: \"fast\" is not a whole number >= 0");
    assert_refused(
        text, "edge_kd.temprature=4", FST_E_CONFIG,
        "--set edge_kd.temprature=4: edge_kd.temprature: unknown key; did you mean \"temperature\"? accepted: "
        "model, epochs, temperature, ce_weight, optimizer, betas\n"
        "--set edge_kd.temprature=4: edge_kd.model: this key is required; expected a text");
    assert_refused(text, "seed", FST_E_CONFIG, "--set seed: expected KEY=VALUE or KEY.KEY=VALUE");
    assert_refused(text, "=5", FST_E_CONFIG, "--set =5: an empty key; expected KEY=VALUE or KEY.KEY=VALUE");
    assert_refused(text, "a..b=5", FST_E_CONFIG, "--set a..b=5: an empty key; expected KEY=VALUE or KEY.KEY=VALUE");
    assert_refused(text, "_a=5", FST_E_CONFIG, "--set _a=5: keys that begin with \"_\" are comments and cannot be set");
    assert_refused(text, "hidden.2=5", FST_E_CONFIG,
                   "--set hidden.2=5: \"2\" is not an entry of the list; entries are 0 to 1");
    assert_refused(text, "hidden.x=5", FST_E_CONFIG,
                   "--set hidden.x=5: \"x\" is not an entry of the list; entries are 0 to 1");
    assert_refused(text, "paths.0=a", FST_E_CONFIG,
                   "--set paths.0=a: \"0\" is not an entry of the list, which is empty");
    assert_refused(text, "hidden.1=0", FST_E_CONFIG,
                   "--set hidden.1=0: hidden[1]: \"0\" is not a whole number from 1 to 4096");
    assert_refused(text, "seed.a=1", FST_E_CONFIG, "--set seed.a=1: seed: a map is not a whole number >= 0");
    assert_refused("name: x\nedge_kd: 5\n", "edge_kd.model=m", FST_E_CONFIG,
                   "t.yaml:2:10: edge_kd: \"5\" is not a map");
    assert_refused(text, "seed=[1", FST_E_CONFIG, "--set seed=[1: not valid YAML: did not find expected ',' or ']'");
    assert_refused(text, "name=${FST_TEST_UNSET}", FST_E_CONFIG,
                   "--set name=${FST_TEST_UNSET}: the environment variable FST_TEST_UNSET is not set; set it or write "
                   "${FST_TEST_UNSET:-default}");
}

static void test_there_and_back(void **state)
{
    (void)state;
    struct task t = load(full, "comment=\"\\u4e2d \\U0001f600 \\u2028 \\e \\\\ $$ \\n \\ufeff ~\"");
    fst_buf dump = {0}, second = {0};
    assert_int_equal(fst__schema_dump(&schema, &t, &dump, NULL), FST_OK);
    struct task again = load(dump.data, NULL);
    assert_string_equal(again.comment, "\xe4\xb8\xad \xf0\x9f\x98\x80 \xe2\x80\xa8 \x1b \\ $ \n \xef\xbb\xbf ~");
    assert_string_equal(again.paths[1], "null");
    char *a = json_of(&t), *b = json_of(&again);
    assert_string_equal(a, b);
    assert_true(again.has_clip_at && again.has_edge_kd && !again.has_cloud);
    assert_int_equal(fst__schema_dump(&schema, &again, &second, NULL), FST_OK);
    assert_string_equal(dump.data, second.data);
    fst_free(a);
    fst_free(b);
    fst_buf_release(&dump);
    fst_buf_release(&second);
    fst__schema_release(&schema, &t);
    fst__schema_release(&schema, &again);
}

static void test_dump_text(void **state)
{
    (void)state;
    struct task t =
        load("name: 'yes'\nladder: [sgd, {learning_rate: 0.1}]\nedge_kd: {model: a/b}\npaths: [/x, 5 m, '']\n", NULL);
    fst_buf dump = {0};
    assert_int_equal(fst_buf_append(&dump, "# head\n", 7, NULL), FST_OK);
    assert_int_equal(fst__schema_dump(&schema, &t, &dump, NULL), FST_OK);
    assert_string_equal(dump.data, "# head\n"
                                   "name: \"yes\"\n"
                                   "seed: 42\n"
                                   "workers: 2\n"
                                   "hidden: [64, 32]\n"
                                   "paths: [/x, \"5 m\", \"\"]\n"
                                   "ladder:\n"
                                   "  - name: sgd\n"
                                   "    learning_rate: 0.001\n"
                                   "    nesterov: false\n"
                                   "  - name: adam\n"
                                   "    learning_rate: 0.1\n"
                                   "    nesterov: false\n"
                                   "edge_kd:\n"
                                   "  model: a/b\n"
                                   "  epochs: 5\n"
                                   "  temperature: 4\n"
                                   "  ce_weight: 0.3\n"
                                   "  optimizer:\n"
                                   "    name: adam\n"
                                   "    learning_rate: 0.001\n"
                                   "    nesterov: false\n"
                                   "  betas: [0.9, 0.999]\n"
                                   "server:\n"
                                   "  name: sgd\n"
                                   "  learning_rate: 1\n"
                                   "  nesterov: false\n"
                                   "partition: iid\n");
    fst_buf_release(&dump);
    fst__schema_release(&schema, &t);
}

static void test_same_meaning_same_bytes(void **state)
{
    (void)state;
    struct task a = load("name: x\nserver: {learning_rate: 0.0001, name: sgd}\nedge_kd: {model: m, ce_weight: -0.0}\n"
                         "workers: 9\n",
                         NULL);
    struct task b = load("partition: iid\nedge_kd:\n  optimizer: adam\n  betas: [9e-1, 0.99900]\n  ce_weight: 0\n"
                         "  model: 'm'\nseed: 42\nserver:\n  name: sgd\n  learning_rate: 1.0e-4\nname: \"x\"\n",
                         NULL);
    char *ja = json_of(&a), *jb = json_of(&b);
    assert_string_equal(
        ja, "{\"edge_kd\":{\"betas\":[0.9,0.999],\"ce_weight\":0,\"epochs\":5,\"model\":\"m\",\"optimizer\":{"
            "\"learning_rate\":0.001,\"name\":\"adam\",\"nesterov\":false},\"temperature\":4},\"hidden\":[64,32],"
            "\"ladder\":[],\"name\":\"x\",\"partition\":\"iid\",\"paths\":[],\"seed\":42,\"server\":{\"learning_rate\":"
            "0.0001,\"name\":\"sgd\",\"nesterov\":false}}");
    assert_string_equal(ja, jb);
    b.seed++;
    char *jc = json_of(&b);
    assert_string_not_equal(ja, jc);
    fst_free(ja);
    fst_free(jb);
    fst_free(jc);
    fst__schema_release(&schema, &a);
    fst__schema_release(&schema, &b);
}

static void test_numbers(void **state)
{
    (void)state;
    char text[40];
    assert_string_equal(fst__number_text(0.1, text, sizeof text), "0.1");
    assert_string_equal(fst__number_text(-0.0, text, sizeof text), "0");
    assert_string_equal(fst__number_text(100, text, sizeof text), "100");
    assert_string_equal(fst__number_text(-1e15, text, sizeof text), "-1000000000000000");
    assert_string_equal(fst__number_text(1e16, text, sizeof text), "1e+16");
    assert_string_equal(fst__number_text(0.00001, text, sizeof text), "1e-05");
    assert_string_equal(fst__number_text(1.0 / 3, text, sizeof text), "0.3333333333333333");
    fst_rng r;
    fst_rng_init(&r, 1, "test.numbers", 0);
    for (int i = 0; i < 20000; i++) {
        uint64_t bits = fst_rng_u64(&r);
        double x;
        memcpy(&x, &bits, sizeof x);
        if (isfinite(x))
            assert_true(strtod(fst__number_text(x, text, sizeof text), NULL) == x);
    }
}

static void test_finds_parts(void **state)
{
    (void)state;
    struct task t = load(full, NULL);
    const fst__schema *s = NULL;
    const void *at = NULL;
    fst_error err;
    assert_int_equal(fst__schema_find(&schema, &t, "", &s, &at, &err), FST_OK);
    assert_true(s == &schema && at == &t);
    assert_int_equal(fst__schema_find(&schema, &t, "edge_kd.optimizer", &s, &at, &err), FST_OK);
    assert_true(s == &optimizer_schema && at == &t.edge_kd.optimizer);
    assert_int_equal(fst__schema_find(&schema, &t, "ladder.1", &s, &at, &err), FST_OK);
    assert_true(at == &t.ladder[1]);
    const char *const wrong[] = {"cloud", "edge_kd.model", "nothing", "ladder", "ladder.2", "ladder.x", "edge_kd..a"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(fst__schema_find(&schema, &t, wrong[i], &s, &at, &err), FST_E_ARGUMENT);
    assert_true(at == &t.ladder[1]);
    fst__schema_release(&schema, &t);
}

static void test_refuses_to_write_nonsense(void **state)
{
    (void)state;
    struct task t = load("name: x", NULL);
    fst_buf b = {0};
    fst_error err;
    assert_int_equal(fst_buf_append(&b, "kept", 4, NULL), FST_OK);
    t.server.learning_rate = NAN;
    assert_int_equal(fst__schema_json(&schema, &t, &b, &err), FST_E_NUMERIC);
    assert_int_equal(fst__schema_dump(&schema, &t, &b, &err), FST_E_NUMERIC);
    t.server.learning_rate = 1;
    t.server.name = 3;
    assert_int_equal(fst__schema_dump(&schema, &t, &b, &err), FST_E_ARGUMENT);
    t.server.name = 0;
    memcpy(t.name, "\xff", 1);
    assert_int_equal(fst__schema_dump(&schema, &t, &b, &err), FST_E_ARGUMENT);
    assert_string_equal(b.data, "kept");
    fst_buf_release(&b);
    fst__schema_release(&schema, &t);
}

static void test_reference(void **state)
{
    (void)state;
    fst_buf b = {0};
    assert_int_equal(fst__schema_reference(&schema, "Task file", 2, &b, NULL), FST_OK);
    const char *const lines[] = {
        "## Task file\n\n| key | accepts | default | meaning |\n|---|---|---|---|\n",
        "\n| `name` | a text | required | of the task |\n",
        "\n| `seed` | a whole number >= 0 | `42` | of every random stream |\n",
        "\n| `clip_at` | a whole number \\<= 10 | not set | largest norm |\n",
        "\n| `hidden` | a list of at most 4 entries, each a whole number from 1 to 4096 | `[64, 32]` | widths |\n",
        "\n| `edge_kd` | a map | not set | distillation at the edge |\n",
        "\n### `ladder[]`\n\none after the other.\n\nA bare value stands for `name`.\n\n",
        "\n### `edge_kd`\n\n",
        "\n| `optimizer` | a map or a bare name | its own defaults | how to learn |\n",
        "\n### `edge_kd.optimizer`\n\n",
        "\n| `name` | one of sgd, adam, adamw | `adam` | update rule |\n",
        "\n| `nesterov` | true or false | `false` | momentum \\| looked ahead |\n",
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        if (!strstr(b.data, lines[i]))
            fail_msg("missing: %s", lines[i]);
    fst_buf_release(&b);
}

static void assert_bad_table(fst__field f, const char *message)
{
    const fst__field fields[] = {f};
    const fst__schema s = FST__SCHEMA(struct task, fields);
    fst_error err = {0};
    assert_int_equal(fst__schema_verify(&s, &err), FST_E_ARGUMENT);
    if (!strstr(err.message, message))
        fail_msg("\"%s\" does not say \"%s\"", err.message, message);
}

static void test_verifies_tables(void **state)
{
    (void)state;
    fst_error err = {0};
    if (fst__schema_verify(&schema, &err))
        fail_msg("%s", err.message);
    assert_bad_table((fst__field)FST__F_INT(struct task, seed, 1, 5, "6", "x"),
                     "\"6\" is not a whole number from 1 to 5");
    assert_bad_table((fst__field)FST__F_INT(struct task, seed, 1, 5, NULL, "x"), "needs a default");
    assert_bad_table((fst__field)FST__F_INT(struct task, seed, 5, 1, "3", "x"), "larger than the maximum");
    assert_bad_table((fst__field)FST__F_INT(struct task, seed, 1, 5, "3", ""), "help");
    assert_bad_table((fst__field)FST__F_INT(struct task, seed, 1, 5, "3", "x", .required = true), "required and has");
    assert_bad_table((fst__field)FST__F_STRINGS(struct task, paths, npaths, 3, "[", "x"), "not valid YAML");
    assert_bad_table((fst__field)FST__F_MAP(struct task, edge_kd, &optimizer_schema, "x"), "not of the struct");
    assert_bad_table((fst__field)FST__F_ENUM(struct task, partition, optimizers, "adma", "x"),
                     "did you mean \"adam\"?");
}

/* Every allocation in turn fails: an error, nothing leaked, nothing touched. */
static void test_out_of_memory(void **state)
{
    (void)state;
    const char *const sets[] = {"cloud.model=m", "cloud.optimizer.name=sgd", "ladder.0.learning_rate=2"};
    fst_status s = FST_E_MEMORY;
    int failures = 0;
    for (uint64_t n = 1; s; n++) {
        struct task t = {0};
        fst_error err = {0};
        fst_buf b = {0};
        fst_alloc_fail_at(n);
        s = load_with(full, sets, 3, &t, &err);
        if (!s)
            s = fst__schema_dump(&schema, &t, &b, &err);
        fst_alloc_fail_at(0);
        failures += s != FST_OK;
        fst__schema_release(&schema, &t);
        fst_buf_release(&b);
        assert_true(s == FST_OK || s == FST_E_MEMORY);
    }
    assert_true(failures > 10);
}

/* In a locale with decimal commas the files stay the same. */
static void test_locale(void **state)
{
    (void)state;
    /* where neither is installed, the C locale must pass as well */
    if (!setlocale(LC_NUMERIC, "de_DE.UTF-8"))
        (void)setlocale(LC_NUMERIC, "fr_FR.UTF-8");
    char text[40];
    struct task t = load("name: x\nserver: {learning_rate: 0.25}", NULL);
    assert_true(t.server.learning_rate == 0.25);
    assert_string_equal(fst__number_text(0.25, text, sizeof text), "0.25");
    setlocale(LC_NUMERIC, "C");
    fst__schema_release(&schema, &t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_every_type),
        cmocka_unit_test(test_whole_numbers_may_have_a_point),
        cmocka_unit_test(test_fills_in_defaults),
        cmocka_unit_test(test_unknown_keys),
        cmocka_unit_test(test_wrong_types),
        cmocka_unit_test(test_out_of_range),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_missing_and_inconsistent),
        cmocka_unit_test(test_several_errors),
        cmocka_unit_test(test_yaml_errors),
        cmocka_unit_test(test_environment),
        cmocka_unit_test(test_overrides),
        cmocka_unit_test(test_override_errors),
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_dump_text),
        cmocka_unit_test(test_same_meaning_same_bytes),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_finds_parts),
        cmocka_unit_test(test_refuses_to_write_nonsense),
        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_verifies_tables),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_locale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
