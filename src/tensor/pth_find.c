/*
 * Which tensors a file of torch.save names: the state_dict of the model, wherever a training script has put it, or all
 * there are. Names are the dictionaries' keys joined by ".". Dictionaries may be shared and, in a hostile
 * file, hold themselves: depth is limited, and how much is visited grows with the pickle's size.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pth_private.h"

enum { MAX_TENSORS = 1 << 20, MIN_VISITS = 1024, MAX_DEPTH = 16, MAX_NAME = 512, MODEL_DEPTH = 4 };

/* ---- names ---------------------------------------------------------------------------------- */

static fst_status add_tensor(struct fst__pth_job *j, const char *name, const fst__torch_tensor *t)
{
    if (j->count == MAX_TENSORS)
        return fst_fail(j->err, FST_E_LIMIT, "%s: more than %d tensors", j->name, MAX_TENSORS);
    char *own = NULL;
    if (t->storage->type->dtype == FST_DTYPE_COUNT)
        return fst_fail(j->err, FST_E_UNSUPPORTED, "%s: %.128s has elements of type %s; bool, int and float are read",
                        j->name, name, t->storage->type->name);
    fst_status s = fst__pth_charge(j, 2 * sizeof *j->entries + strlen(name) + 64);
    if (s)
        return s;
    if (j->count == j->room) {
        size_t room = j->room ? 2 * j->room : 64;
        struct fst__pth_entry *more = fst_realloc(j->entries, j->count * sizeof *more, room * sizeof *more);
        if (!more)
            return fst_fail_memory(j->err, room * sizeof *more);
        j->entries = more;
        j->room = room;
    }
    own = fst_strdup(name);
    if (!own)
        return fst_fail_memory(j->err, strlen(name));
    j->entries[j->count] = (struct fst__pth_entry){{own, t->storage->type->dtype, t->shape, NULL}, t, j->count};
    j->count++;
    return FST_OK;
}

/* Appends ".key" to the name; the new length, 0 when it is too long or no text. */
static size_t append_key(char *name, size_t at, const fst_pickle_value *key)
{
    char digits[24];
    const char *text = digits;
    size_t n;
    if (key->kind == FST_PICKLE_TEXT || key->kind == FST_PICKLE_BYTES) {
        text = key->text.data;
        n = key->text.length;
    } else if (key->kind == FST_PICKLE_INT) {
        n = (size_t)snprintf(digits, sizeof digits, "%lld", (long long)key->integer);
    } else {
        return 0;
    }
    if (n == 0 || at + n + 2 > MAX_NAME || memchr(text, 0, n))
        return 0;
    if (at)
        name[at++] = '.';
    memcpy(name + at, text, n);
    name[at + n] = 0;
    return at + n;
}

static bool is_utf8(const char *text)
{
    json_t *s = json_string(text);
    bool yes = s != NULL;
    json_decref(s);
    return yes;
}

/* Whether tensors may stand below it. */
static bool is_inner(const fst_pickle_value *v)
{
    return v->kind == FST_PICKLE_DICT || v->kind == FST_PICKLE_LIST || v->kind == FST_PICKLE_TUPLE;
}

static fst_status walk(struct fst__pth_job *j, const fst_pickle_value *v, char *name, size_t at, int depth);

static bool begins_with(const fst_pickle_value *v, const char *word)
{
    size_t n = strlen(word);
    return v->text.length >= n && !memcmp(v->text.data, word, n);
}

/* Objects beside tensors are nobody's business; a tensor of a kind that is not read is. */
static fst_status check_object(struct fst__pth_job *j, const fst_pickle_value *key, const fst_pickle_value *v)
{
    char a[64] = "?", b[64];
    if (!begins_with(v, "torch._utils._rebuild_") && !begins_with(v, "torch._tensor._rebuild_"))
        return FST_OK;
    if (fst__pickle_is_words(key))
        (void)fst__pickle_printable(key->text.data, key->text.length, a);
    return fst_fail(j->err, FST_E_UNSUPPORTED, "%s: %s is made by %s; dense tensors of bool, int and float are read",
                    j->name, a, fst__pickle_printable(v->text.data, v->text.length, b));
}

static fst_status walk_item(struct fst__pth_job *j, const fst_pickle_value *key, const fst_pickle_value *v, char *name,
                            size_t at, int depth)
{
    if (v->kind == FST__PICKLE_OBJECT)
        return check_object(j, key, v);
    if (v->kind != FST__PICKLE_TENSOR && !is_inner(v))
        return FST_OK;
    size_t len = append_key(name, at, key);
    if (!len || !is_utf8(name))
        return v->kind == FST__PICKLE_TENSOR
                   ? fst_fail(j->err, FST_E_FORMAT, "%s: a tensor whose name is no text of 1 to %d letters", j->name,
                              MAX_NAME)
                   : FST_OK;
    fst_status s =
        v->kind == FST__PICKLE_TENSOR ? add_tensor(j, name, fst__pickle_tensor(v)) : walk(j, v, name, len, depth + 1);
    name[at] = 0;
    return s;
}

static fst_status walk(struct fst__pth_job *j, const fst_pickle_value *v, char *name, size_t at, int depth)
{
    fst_status s = FST_OK;
    fst_pickle_value index = {.kind = FST_PICKLE_INT};
    bool dict = v->kind == FST_PICKLE_DICT;
    if (depth > MAX_DEPTH)
        return fst_fail(j->err, FST_E_LIMIT, "%s: dictionaries nested more than %d deep", j->name, MAX_DEPTH);
    for (size_t i = 0; !s && i < v->list.count; i += dict ? 2 : 1) {
        if (++j->visits > MIN_VISITS + 4 * j->pickle->len)
            return fst_fail(j->err, FST_E_LIMIT, "%s: its dictionaries hold one another too often", j->name);
        index.integer = (int64_t)i;
        s = dict ? walk_item(j, v->list.items[i], v->list.items[i + 1], name, at, depth)
                 : walk_item(j, &index, v->list.items[i], name, at, depth);
    }
    return s;
}

/* ---- the model ------------------------------------------------------------------------------ */

/* Where training scripts keep the model's state_dict; what they train comes before averages of it. */
static const char *const usual[] = {
    "state_dict",     "model_state_dict", "model_state", "model",     "net",
    "net_state_dict", "network",          "module",      "params",    "weights",
    "ema_state_dict", "state_dict_ema",   "model_ema",   "ema_model", "ema",
    "params_ema",
};
enum { USUAL = sizeof usual / sizeof *usual };

/* Whether a tensor stands in it, or in a dictionary in it. */
static bool has_tensors(struct fst__pth_job *j, const fst_pickle_value *v, int depth)
{
    for (size_t i = 1; v->kind == FST_PICKLE_DICT && i < v->list.count; i += 2) {
        const fst_pickle_value *item = v->list.items[i];
        if (++j->visits > MIN_VISITS + 4 * j->pickle->len)
            return false; /* the walk then says so */
        if (item->kind == FST__PICKLE_TENSOR || (depth < MODEL_DEPTH && has_tensors(j, item, depth + 1)))
            return true;
    }
    return false;
}

/* The one entry of a dictionary, list or tuple that has tensors; NULL when it is none, or not the only one. */
static const fst_pickle_value *only_dictionary(struct fst__pth_job *j, const fst_pickle_value *v)
{
    const fst_pickle_value *found = NULL;
    size_t step = v->kind == FST_PICKLE_DICT ? 2 : 1;
    for (size_t i = step - 1; i < v->list.count; i += step) {
        if (v->list.items[i]->kind == FST__PICKLE_TENSOR || (found && has_tensors(j, v->list.items[i], 0)))
            return NULL;
        if (!found && has_tensors(j, v->list.items[i], 0))
            found = v->list.items[i];
    }
    return found;
}

/* The dictionary that holds the model: of the usual names below v, also where v holds nothing but another dictionary
 * with tensors that has one; or v. */
static const fst_pickle_value *model_of(struct fst__pth_job *j, const fst_pickle_value *v, int depth)
{
    for (size_t i = 0; i < USUAL && depth < MODEL_DEPTH; i++) {
        const fst_pickle_value *inner = fst_pickle_find(v, usual[i]);
        if (inner && has_tensors(j, inner, 0))
            return model_of(j, inner, depth + 1);
    }
    const fst_pickle_value *only = v->kind == FST_PICKLE_DICT && depth < MODEL_DEPTH ? only_dictionary(j, v) : NULL;
    const fst_pickle_value *model = only ? model_of(j, only, depth + 1) : NULL;
    return model != only ? model : v;
}

/* What stands where the weights should be, if it is an object: v itself, an entry of a usual name, or any module. */
static const fst_pickle_value *object_of(const fst_pickle_value *v)
{
    if (fst__pickle_is_object(v))
        return v;
    for (size_t i = 0; i < USUAL; i++) {
        const fst_pickle_value *inner = fst_pickle_find(v, usual[i]);
        if (inner && fst__pickle_is_object(inner))
            return inner;
    }
    for (size_t i = 1; v->kind == FST_PICKLE_DICT && i < v->list.count; i += 2)
        if (v->list.items[i]->kind == FST__PICKLE_MODULE)
            return v->list.items[i];
    return NULL;
}

static fst_status fail_object(struct fst__pth_job *j, const fst_pickle_value *object)
{
    char name[64];
    (void)fst__pickle_printable(object->text.data, object->text.length, name);
    if (object->kind == FST__PICKLE_MODULE)
        return fst_fail(j->err, FST_E_UNSUPPORTED,
                        "%s: holds a whole module (%s), whose program is not in the file; save its weights: in "
                        "Python, torch.save(model.state_dict(), NEW)",
                        j->name, name);
    return fst_fail(j->err, FST_E_FORMAT,
                    "%s: holds an object (%s) where weights should be; save them: in Python, "
                    "torch.save(model.state_dict(), NEW)",
                    j->name, name);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct fst__pth_entry *)a)->tensor.name, ((const struct fst__pth_entry *)b)->tensor.name);
}

/* The tensors below v, in place of those found so far. */
static fst_status list(struct fst__pth_job *j, const fst_pickle_value *v)
{
    char name[MAX_NAME] = "";
    for (size_t i = 0; i < j->count; i++)
        fst_free((void *)(uintptr_t)j->entries[i].tensor.name);
    j->count = 0;
    return walk(j, v, name, 0, 0);
}

static bool any_begins(const struct fst__pth_job *j, const char *prefix)
{
    for (size_t i = 0; i < j->count; i++)
        if (!strncmp(j->entries[i].tensor.name, prefix, strlen(prefix)))
            return true;
    return false;
}

static bool is_container(const fst_pickle_value *v)
{
    return v->kind == FST_PICKLE_DICT || v->kind == FST_PICKLE_LIST || v->kind == FST_PICKLE_TUPLE;
}

fst_status fst__pth_find(struct fst__pth_job *j, const char *prefix)
{
    const fst_pickle_value *root = fst_pickle_root(j->pickle), *model = root, *object;
    if (is_container(root) && root->kind != FST_PICKLE_DICT)
        model = only_dictionary(j, root) ? only_dictionary(j, root) : root;
    model = model_of(j, model, 0);
    object = model == root ? object_of(root) : NULL;
    if (!is_container(root) && !object)
        return fst_fail(j->err, FST_E_FORMAT, "%s: holds no dictionary of tensors (a state_dict)", j->name);
    fst_status s = fst__pickle_is_object(root) ? FST_OK : list(j, model);
    if (!s && prefix && model != root && !any_begins(j, prefix)) {
        s = list(j, root);
        if (!s && !any_begins(j, prefix))
            s = list(j, model);
    }
    bool direct = false; /* whether the root itself is a state_dict, with an object beside */
    for (size_t i = 0; !direct && i < j->count; i++)
        direct = root->kind == FST_PICKLE_DICT && !s && fst_pickle_find(root, j->entries[i].tensor.name);
    if (!s && object && !direct && !(prefix && any_begins(j, prefix)))
        s = fail_object(j, object);
    if (!s && j->count == 0)
        s = fst_fail(j->err, FST_E_FORMAT, "%s: there is no tensor in it", j->name);
    if (s)
        return s;
    qsort(j->entries, j->count, sizeof *j->entries, by_name);
    for (size_t i = 1; i < j->count; i++)
        if (!strcmp(j->entries[i].tensor.name, j->entries[i - 1].tensor.name))
            return fst_fail(j->err, FST_E_FORMAT, "%s: tensor \"%.128s\" is there twice", j->name,
                            j->entries[i].tensor.name);
    return FST_OK;
}
