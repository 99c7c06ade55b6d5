/*
 * Why a finished step is done again: the text of its inputs, which its record keeps, is compared with that of now, line
 * by line, and settings key by key. It only tells; what is up to date is decided by fingerprints (record.c).
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "session.h"

enum { MAX_CAUSES = 400, MAX_VALUE = 60, MAX_RECORD = 1 << 20 };

struct causes {
    const struct step *step;
    char text[MAX_CAUSES];
    size_t used;
};

static void add(struct causes *c, const char *text)
{
    int n = snprintf(c->text + c->used, sizeof c->text - c->used, "%s%s", c->used ? "; " : "", text);
    c->used += n < 0 ? 0 : (size_t)n < sizeof c->text - c->used ? (size_t)n : sizeof c->text - c->used - 1;
}

static void value_text(json_t *j, char out[MAX_VALUE])
{
    char *text = j ? json_dumps(j, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(12)) : NULL;
    snprintf(out, MAX_VALUE, "%s", text ? text : "not set");
    free(text);
}

/* The keys of both maps whose values differ. */
static void compare_maps(struct causes *c, const char *path, json_t *was, json_t *now)
{
    json_t *both = json_copy(was), *value;
    const char *key;
    json_object_update_missing(both, now);
    json_object_foreach(both, key, value)
    {
        json_t *a = json_object_get(was, key), *b = json_object_get(now, key);
        char name[200], before[MAX_VALUE], after[MAX_VALUE], text[400];
        if (a && b && json_equal(a, b))
            continue;
        snprintf(name, sizeof name, "%s.%s", path, key);
        if (json_is_object(a) && json_is_object(b)) {
            compare_maps(c, name, a, b);
            continue;
        }
        value_text(a, before);
        value_text(b, after);
        snprintf(text, sizeof text, "%s was %s and is %s", name, before, after);
        add(c, text);
    }
    json_decref(both);
}

/* Whether the line says which samples a place has. Lines of steps (edge_kd) and of the cloud's settings (128 0 5) are
 * called alike. */
static bool is_share(const char *key, const char *value)
{
    if (!strncmp(key, "edge_", 5))
        return key[5] >= '0' && key[5] <= '9';
    return !strcmp(key, "clients") || (!strcmp(key, "cloud") && !strchr(value, ' '));
}

/* What an input is called, which is no setting of the task file; it is number `nth` of those with its key. */
static void name_input(struct causes *c, const char *key, size_t nth, const char *was, const char *now)
{
    static const char *const links[] = {"device_edge", "edge_cloud", "device_cloud"};
    char text[200];
    if (!strcmp(key, "link") && nth < sizeof links / sizeof *links)
        snprintf(text, sizeof text, "topology.links.%s (rate, latency) was %.40s and is %.40s", links[nth], was, now);
    else if (!strcmp(key, "cloud") && !is_share(key, *was ? was : now))
        snprintf(text, sizeof text,
                 "the settings of cloud_infer (batch_size, threads, repeats) were %.40s and are %.40s",
                 *was ? was : "not there", *now ? now : "not there");
    else if (!strcmp(key, "threads"))
        snprintf(text, sizeof text, "it was made with --threads %.20s and now it is --threads %.20s", was, now);
    else if (!strcmp(key, "train") || !strcmp(key, "test"))
        snprintf(text, sizeof text, "the %s samples are others", key);
    else if (is_share(key, *was ? was : now))
        snprintf(text, sizeof text, "its samples (%.40s) are others", key);
    else if (strlen(was) < 40 && strlen(now) < 40)
        snprintf(text, sizeof text, "%.40s was %.40s and is %.40s", key, *was ? was : "not there",
                 *now ? now : "not there");
    else
        snprintf(text, sizeof text, "its input %.40s is another", key);
    add(c, text);
}

/* How many lines "KEY=..." there are before `end`. */
static size_t count_before(const char *text, const char *end, const char *key)
{
    size_t n = strlen(key), count = 0;
    for (const char *at = text; at < end; at += strcspn(at, "\n") + 1)
        count += !strncmp(at, key, n) && at[n] == '=';
    return count;
}

/* Line `nth` of those that are "KEY=..." in a text; the value, or NULL. */
static char *value_of(const char *text, const char *key, size_t nth)
{
    size_t n = strlen(key);
    for (const char *at = text; at; at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL)
        if (!strncmp(at, key, n) && at[n] == '=' && !nth--) {
            char *value = fst_strdup(at + n + 1);
            if (value)
                value[strcspn(value, "\n")] = 0;
            return value;
        }
    return NULL;
}

/* Lines of `from`; those that `other` has too are told once, with from_now false. */
static void compare(struct causes *c, const char *from, const char *other, bool from_now)
{
    for (const char *at = from; *at; at += strcspn(at, "\n") + (at[strcspn(at, "\n")] != 0)) {
        char key[64], name[80];
        size_t n = strcspn(at, "=\n");
        if (at[n] != '=' || n >= sizeof key)
            continue;
        memcpy(key, at, n);
        key[n] = 0;
        size_t nth = count_before(from, at, key);
        char *mine = value_of(at, key, 0), *theirs = value_of(other, key, nth);
        json_t *a = mine && *mine == '{' ? json_loads(mine, 0, NULL) : NULL;
        json_t *b = theirs && *theirs == '{' ? json_loads(theirs, 0, NULL) : NULL;
        if (!mine || (theirs && (from_now || !strcmp(mine, theirs))))
            ;
        else if (a && b)
            compare_maps(c, !strncmp(key, "stages.", 7) ? fst__stage_key(c->step->stage, NULL, name, sizeof name) : key,
                         a, b);
        else
            name_input(c, key, nth, from_now ? "" : mine, from_now ? mine : theirs ? theirs : "");
        json_decref(a);
        json_decref(b);
        fst_free(mine);
        fst_free(theirs);
    }
}

/* More epochs begin anew where the learning rate of the first one depends on how many there are. */
static void add_schedule(struct causes *c, const struct step *step)
{
    const struct stage_kind *k = step->stage->kind;
    const fst__field *f = k->counts ? fst__find_field(k->schema, "schedule") : NULL;
    char text[200], changed[32];
    snprintf(changed, sizeof changed, ".%ss was", k->counts ? k->counts : "");
    if (!f || fst__extendable(step) || !strstr(c->text, changed))
        return;
    const struct schedule_section *s =
        (const struct schedule_section *)(const void *)((const char *)step->stage->settings + f->offset);
    snprintf(text, sizeof text, "it begins anew, since the learning rate of %s depends on the number of %ss",
             fst__schedule_names[s->name], k->counts);
    add(c, text);
}

void fst__tell_causes(const struct session *s, const struct step *step)
{
    fst_buf text = {0};
    struct causes c = {.step = step};
    char *path = fst__step_path(s, step, "stage.json");
    bool there = path && fst_file_exists(path) && !fst_file_read(path, MAX_RECORD, &text, NULL);
    json_t *j = there ? json_loadb(text.data, text.len, 0, NULL) : NULL;
    const char *was = json_string_value(json_object_get(j, "inputs"));
    if (was && step->inputs && strcmp(was, step->inputs)) {
        compare(&c, was, step->inputs, false);
        compare(&c, step->inputs, was, true);
        add_schedule(&c, step);
    }
    if (c.used)
        fst_log(FST_LOG_INFO, "%s is done again: %s", step->stage->name, c.text);
    json_decref(j);
    fst_buf_release(&text);
    fst_free(path);
}
