/*
 * The cloud's books, see books.h:
 *
 *   {"task": HEX, "run": HEX16, "epoch": N, "stages": {NAME: {"round": N, "counted": [N ...], "before": [N ...]}},
 *    "places": [{"data": HEX, "learn": N, "validate": N, "classes": N, "missing": TEXT} ...]}
 *
 * A round's line is written before the task's checkpoint says that the round is done. If the process dies in between,
 * the round is played again, and what counted is what counted before it.
 */
#include "books.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_NAME "run"

static fst_status write_books(struct fleet_books *b, fst_error *err)
{
    char *text = json_dumps(b->root, JSON_INDENT(1));
    fst_status st =
        text ? b->store.put(b->store.ctx, FILE_NAME, NULL, text, strlen(text), err) : fst_fail_memory(err, 4096);
    free(text);
    return st;
}

static fst_status read_books(struct fleet_books *b, fst_error *err)
{
    fst_buf text = {0};
    bool found = false;
    fst_status st = b->store.get(b->store.ctx, FILE_NAME, &text, &found, err);
    if (!st && found && !(b->root = json_loadb(text.data, text.len, JSON_REJECT_DUPLICATES, NULL)))
        st = fst_fail(err, FST_E_FORMAT, "fleet/cloud/" FILE_NAME " was damaged; --fresh begins another run");
    fst_buf_release(&text);
    return st;
}

fst_status fst__books_open_fleet(struct fleet_books *b, struct store store, const char *task, uint32_t clients,
                                 bool fresh, fst_error *err)
{
    char run[FST__INSTANCE];
    int64_t epoch = 0;
    *b = (struct fleet_books){.store = store, .clients = clients};
    fst_status st = fresh ? FST_OK : read_books(b, err);
    if (st)
        return st;
    const char *known = json_string_value(json_object_get(b->root, "task"));
    const char *old = json_string_value(json_object_get(b->root, "run"));
    bool same = known && !strcmp(known, task) && old && strlen(old) == FST__INSTANCE - 1 &&
                fst_json_is_whole(json_object_get(b->root, "epoch"), &epoch) && epoch > 0;
    if (same) {
        memcpy(run, old, sizeof run);
    } else {
        fst__draw_name(run);
        epoch = 0;
        json_decref(b->root);
        b->root = json_pack("{s:s, s:s, s:{}}", "task", task, "run", run, "stages");
    }
    b->run = strtoull(run, NULL, 16);
    b->epoch = (uint64_t)epoch + 1;
    if (!b->root || json_object_set_new(b->root, "epoch", json_integer((json_int_t)b->epoch)))
        return fst_fail_memory(err, 4096);
    return write_books(b, err);
}

void fst__books_close_fleet(struct fleet_books *b)
{
    json_decref(b->root);
}

static bool read_place(const json_t *j, fst_task_identity *out)
{
    int64_t learn, validate, classes;
    const char *data = json_string_value(json_object_get(j, "data"));
    const char *missing = json_string_value(json_object_get(j, "missing"));
    if (!data || strlen(data) != FST_DIGEST_HEX - 1 || !missing || strlen(missing) >= sizeof out->missing ||
        !fst_json_is_whole(json_object_get(j, "learn"), &learn) || learn < 0 ||
        !fst_json_is_whole(json_object_get(j, "validate"), &validate) || validate < 0 ||
        !fst_json_is_whole(json_object_get(j, "classes"), &classes) || classes < 1 || classes > FST_MAX_CLASSES)
        return false;
    *out = (fst_task_identity){.learn = (uint64_t)learn, .validate = (uint64_t)validate, .classes = (int)classes};
    memcpy(out->data, data, sizeof out->data);
    memcpy(out->missing, missing, strlen(missing) + 1);
    return true;
}

bool fst__books_places(const struct fleet_books *b, fst_task_identity *each)
{
    const json_t *list = json_object_get(b->root, "places");
    bool good = json_array_size(list) == b->clients;
    for (uint32_t k = 0; good && k < b->clients; k++) {
        good = read_place(json_array_get(list, k), &each[k]);
        each[k].client = k;
    }
    return good;
}

fst_status fst__books_note_places(struct fleet_books *b, const fst_task_identity *each, fst_error *err)
{
    json_t *list = json_array();
    for (uint32_t k = 0; list && k < b->clients; k++)
        json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:i, s:s}", "data", each[k].data, "learn",
                                              (json_int_t)each[k].learn, "validate", (json_int_t)each[k].validate,
                                              "classes", each[k].classes, "missing", each[k].missing));
    if (!list || json_object_set_new(b->root, "places", list))
        return fst_fail_memory(err, 4096);
    return write_books(b, err);
}

fst_status fst__books_counted(const struct fleet_books *b, const char *stage, uint64_t first, bool keeps,
                              int64_t *counted, fst_error *err)
{
    const json_t *s = json_object_get(json_object_get(b->root, "stages"), stage);
    int64_t round;
    for (uint32_t k = 0; k < b->clients; k++)
        counted[k] = -1;
    if (!first)
        return FST_OK;
    bool known = fst_json_is_whole(json_object_get(s, "round"), &round);
    const json_t *list = known && round == (int64_t)first - 1 ? json_object_get(s, "counted")
                         : known && round == (int64_t)first   ? json_object_get(s, "before")
                                                              : NULL;
    bool good = json_array_size(list) == b->clients;
    for (uint32_t k = 0; good && k < b->clients; k++)
        good = fst_json_is_whole(json_array_get(list, k), &counted[k]);
    for (uint32_t k = 0; !good && k < b->clients; k++)
        counted[k] = -1;
    return good || !keeps
               ? FST_OK
               : fst_fail(err, FST_E_CONFIG,
                          "%s: %llu rounds are done in another run (the task has changed since), and what clients kept "
                          "of them is of that run: --fresh begins anew",
                          stage, (unsigned long long)first);
}

static json_t *list_of(const int64_t *values, uint32_t n)
{
    json_t *list = json_array();
    for (uint32_t k = 0; list && k < n; k++)
        json_array_append_new(list, json_integer(values[k]));
    return list;
}

fst_status fst__books_round(struct fleet_books *b, const char *stage, uint64_t round, const int64_t *counted,
                            fst_error *err)
{
    json_t *stages = json_object_get(b->root, "stages"), *old = json_object_get(stages, stage);
    int64_t at;
    /* a round that is played again replaces its own line, not the one before it */
    bool again = fst_json_is_whole(json_object_get(old, "round"), &at) && at == (int64_t)round;
    json_t *before = json_incref(json_object_get(old, again ? "before" : "counted"));
    int64_t *none = before ? NULL : fst_calloc(b->clients, sizeof *none);
    for (uint32_t k = 0; none && k < b->clients; k++)
        none[k] = -1;
    if (!before && none)
        before = list_of(none, b->clients);
    fst_free(none);
    json_t *entry = json_pack("{s:I, s:o, s:o}", "round", (json_int_t)round, "counted", list_of(counted, b->clients),
                              "before", before);
    if (!entry || json_object_set_new(stages, stage, entry))
        return fst_fail_memory(err, 4096);
    return write_books(b, err);
}
