/*
 * The list of a task's stages: made from the file's entries and from what they imply, with every reference followed and
 * the stages in the order in which they run. What is wrong (a name that no stage has, a stage that leaves no model
 * where one is wanted, stages that wait for each other) is found here, before any work. What a kind does is not known
 * here: see stages.h.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "stages.h"

enum { NAME_ROOM = FST__MAX_WORD + 16, LISTED = 200 };

const struct stage_kind *fst__kind_named(const char *name)
{
    for (size_t i = 0; fst__stage_kinds[i]; i++)
        if (!strcmp(fst__stage_kinds[i]->name, name))
            return fst__stage_kinds[i];
    return NULL;
}

bool fst__kind_choice(size_t i, fst__choice *out)
{
    const struct stage_kind *k = i < fst__kind_count() ? fst__stage_kinds[i] : NULL;
    if (k)
        *out = (fst__choice){k->name, k->help, k->schema};
    return k;
}

size_t fst__kind_count(void)
{
    size_t n = 0;
    while (fst__stage_kinds[n])
        n++;
    return n;
}

bool fst__at_clients(const struct stage *own)
{
    return own->kind->at_clients && own->kind->at_clients(own);
}

bool fst__has_kind(const struct task_file *f, const char *kind)
{
    for (size_t i = 0; i < f->stage_count; i++)
        if (!strcmp(fst__stage_kinds[f->stages[i].choice]->name, kind))
            return true;
    return false;
}

/* ---- looking up -------------------------------------------------------------------------------------- */

const struct stage *fst__stage_named(const struct stage_list *l, const char *name)
{
    for (size_t i = 0; i < l->count; i++)
        if (!strcmp(l->stage[i].name, name))
            return &l->stage[i];
    return NULL;
}

static const struct stage_read *read_at(const struct stage *own, const char *key, size_t i)
{
    for (size_t k = 0; k < own->read_count; k++)
        if (!strcmp(own->reads[k].ref->key, key) && !i--)
            return &own->reads[k];
    return NULL;
}

const struct stage *fst__stage_read(const struct stage *own, const char *key, size_t i)
{
    const struct stage_read *r = read_at(own, key, i);
    return r ? r->stage : NULL;
}

const char *fst__stage_file(const struct stage *own, const char *key, size_t i)
{
    const struct stage_read *r = read_at(own, key, i);
    return r ? r->file : NULL;
}

size_t fst__stage_reads(const struct stage *own, const char *key)
{
    size_t n = 0;
    while (read_at(own, key, n))
        n++;
    return n;
}

const char *fst__stage_key(const struct stage *own, const char *key, char *out, size_t size)
{
    snprintf(out, size, "stages.%s%s%s", own->of ? own->of->name : own->name, key ? "." : "", key ? key : "");
    return out;
}

/* Appends ", NAME"; what does not fit is cut. */
static void list_name(char *out, size_t size, const char *name)
{
    size_t n = strlen(out);
    snprintf(out + n, size - n, "%s%s", n ? ", " : "", name);
}

const char *fst__stages_leaving(const struct stage_list *l, enum leaves what, char *out, size_t size)
{
    *out = 0;
    for (size_t i = 0; i < l->count; i++)
        if (l->stage[i].kind->leaves == what)
            list_name(out, size, l->stage[i].name);
    return out;
}

bool fst__complain(fst__complaint *c, const struct stage *own, const char *key, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(c->text, sizeof c->text, fmt, ap);
    va_end(ap);
    c->key = fst__stage_key(own, key, c->room, sizeof c->room);
    return true;
}

/* ---- making the stages ----------------------------------------------------------------------------------- */

/* Folders and files of an output that belong to no stage. */
static bool is_taken(const char *name)
{
    static const char *const own[] = {"data", "kept", "lock"};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (!strcmp(own[i], name))
            return true;
    return false;
}

/* Has some setting a meaning of its own for it? */
static bool is_word(const char *name)
{
    for (size_t i = 0; fst__stage_kinds[i]; i++)
        for (size_t k = 0; k < fst__stage_kinds[i]->ref_count; k++) {
            const struct stage_ref *ref = &fst__stage_kinds[i]->refs[k];
            if (ref->word && !strcmp(ref->word, name))
                return true;
        }
    return false;
}

static bool name_complains(const struct stage *own, const char *implied, fst__complaint *c)
{
    if (is_taken(own->name))
        return fst__complain(c, own, NULL, "output/%s is not a stage's: choose another name", own->name);
    if (is_word(own->name))
        return fst__complain(c, own, NULL,
                             "settings that refer to stages mean something else by %s: choose another name", own->name);
    return implied && strlen(implied) > FST__MAX_WORD &&
           fst__complain(c, own, NULL, "its baseline would be %s, of %zu characters: choose a name of %d at most",
                         implied, strlen(implied), FST__MAX_WORD - (int)(strlen(implied) - strlen(own->name)));
}

/* In the order of the file, an implied stage before the one that implies it. */
static bool make(struct stage_list *l, const struct task_file *f, fst__complaint *c)
{
    size_t most = 2 * f->stage_count;
    l->stage = fst_calloc(most + 1, sizeof *l->stage);
    l->names = fst_calloc(most + 1, NAME_ROOM);
    if (!l->stage || !l->names)
        return false;
    for (size_t i = 0; i < f->stage_count; i++) {
        char *name = l->names + i * NAME_ROOM;
        const struct stage own = {
            .name = f->stages[i].name, .kind = fst__stage_kinds[f->stages[i].choice], .settings = f->stages[i].object};
        const struct stage_kind *more = own.kind->implies ? own.kind->implies(&own, name, NAME_ROOM) : NULL;
        if (name_complains(&own, more ? name : NULL, c))
            return false;
        if (more) {
            l->stage[l->count] = (struct stage){.name = name, .kind = more, .settings = own.settings};
            l->stage[l->count].of = &l->stage[l->count + 1];
            l->count++;
        }
        l->stage[l->count++] = own;
    }
    for (size_t i = 0; i < l->count; i++)
        for (size_t k = 0; k < i; k++)
            if (!strcmp(l->stage[i].name, l->stage[k].name))
                return !fst__complain(c, &l->stage[l->stage[i].of ? k : i], NULL,
                                      "another stage (a baseline) has the name %s already: choose another",
                                      l->stage[i].name);
    return true;
}

/* ---- following references ---------------------------------------------------------------------------------- */

/* The stage of that name, or the only one of that kind. *several: there are more than one. */
static const struct stage *find(const struct stage_list *l, const char *text, size_t len, bool *several)
{
    const struct stage *found = NULL;
    *several = false;
    for (size_t i = 0; i < l->count; i++)
        if (strlen(l->stage[i].name) == len && !memcmp(l->stage[i].name, text, len))
            return &l->stage[i];
    for (size_t i = 0; i < l->count; i++)
        if (strlen(l->stage[i].kind->name) == len && !memcmp(l->stage[i].kind->name, text, len)) {
            *several = found != NULL;
            if (found)
                return NULL;
            found = &l->stage[i];
        }
    return found;
}

/* Every kind, with those that others imply. */
static bool is_kind(const char *text)
{
    for (size_t i = 0; fst__stage_kinds[i]; i++) {
        const struct stage_kind *more = fst__stage_kinds[i]->implied;
        if (!strcmp(fst__stage_kinds[i]->name, text) || (more && !strcmp(more->name, text)))
            return true;
    }
    return false;
}

static bool several_complaint(fst__complaint *c, const struct stage_list *l, const struct stage *own,
                              const struct stage_ref *ref, const char *kind, size_t len)
{
    char names[LISTED] = "";
    for (size_t i = 0; i < l->count; i++)
        if (strlen(l->stage[i].kind->name) == len && !memcmp(l->stage[i].kind->name, kind, len))
            list_name(names, sizeof names, l->stage[i].name);
    return fst__complain(c, own, NULL, "there are several stages of kind %.*s (%s): say which with %s: NAME", (int)len,
                         kind, names, ref->key);
}

static const char *leaves_text(enum leaves what)
{
    static const char *const texts[] = {"nothing",
                                        "a model",
                                        "soft labels",
                                        "device batches",
                                        "answers of the edge",
                                        "a report of the cascade",
                                        "a report of the cloud"};
    return texts[what];
}

static bool unknown_complaint(fst__complaint *c, const struct stage_list *l, const struct stage *own,
                              const struct stage_ref *ref, const char *text)
{
    const char *guess = fst__stage_guess(l, text);
    char names[LISTED];
    fst__stages_leaving(l, ref->what, names, sizeof names);
    if (is_kind(text))
        return fst__complain(c, own, ref->key, "is %.60s, and the task has no such stage%s%s%s%s", text,
                             *names ? "; there is " : "", names, ref->word ? "; or set it to " : "",
                             ref->word ? ref->word : "");
    return fst__complain(c, own, ref->key, "there is no stage \"%.60s\"; %s%s%s%s leaves %s", text,
                         guess ? "did you mean \"" : "", guess ? guess : "", guess ? "\"? " : "",
                         *names ? names : "none", leaves_text(ref->what));
}

static bool add_read(struct stage *own, const struct stage_ref *ref, const struct stage *stage, const char *file,
                     fst__complaint *c)
{
    if (own->read_count == FST__MAX_READS)
        return !fst__complain(c, own, ref->key, "refers to more than %d stages in all", FST__MAX_READS);
    if (stage && stage->kind->leaves != ref->what)
        return !fst__complain(c, own, ref->key, "%s (%s) leaves %s; %s is wanted here", stage->name, stage->kind->name,
                              leaves_text(stage->kind->leaves), leaves_text(ref->what));
    if (stage && stage->kind->frozen && ref->learns)
        return !fst__complain(c, own, ref->key, "%s leaves %s", stage->name, stage->kind->frozen);
    own->reads[own->read_count++] = (struct stage_read){ref, stage, file};
    return true;
}

static bool follow(const struct stage_list *l, struct stage *own, const struct stage_ref *ref, const char *text,
                   fst__complaint *c)
{
    bool several;
    if (ref->word && !strcmp(text, ref->word))
        return true;
    const struct stage *found = find(l, text, strlen(text), &several);
    if (several)
        return !several_complaint(c, l, own, ref, text, strlen(text));
    if (!found && (!ref->file || is_kind(text)))
        return !unknown_complaint(c, l, own, ref, text);
    return add_read(own, ref, found, found ? NULL : text, c);
}

/* The setting is not there. */
static bool follow_default(const struct stage_list *l, struct stage *own, const struct stage_ref *ref,
                           fst__complaint *c)
{
    bool several = false;
    for (const char *at = ref->fallback ? ref->fallback : ""; *at; at += strspn(at, " ")) {
        size_t len = strcspn(at, " ");
        const struct stage *found = find(l, at, len, &several);
        if (several)
            return !several_complaint(c, l, own, ref, at, len);
        if (found)
            return add_read(own, ref, found, NULL, c);
        at += len;
    }
    return !(ref->missing && fst__complain(c, own, NULL, "%s", ref->missing));
}

/* The field of a setting, and the struct that it is in; NULL where there is none, or its map was not given. */
static const fst__field *setting(const struct stage *own, const char *key, const void **object)
{
    const fst__schema *table = own->kind->schema;
    *object = own->settings;
    for (;;) {
        char part[FST__MAX_WORD + 1];
        size_t n = strcspn(key, ".");
        snprintf(part, sizeof part, "%.*s", (int)n, key);
        const fst__field *f = fst__find_field(table, part);
        if (!f || !key[n])
            return f;
        if (f->type != FST__TYPE_MAP || !fst__is_set(f, *object))
            return NULL;
        *object = (const char *)*object + f->offset;
        table = f->table;
        key += n + 1;
    }
}

static bool follow_all(const struct stage_list *l, struct stage *own, fst__complaint *c)
{
    for (size_t i = 0; i < own->kind->ref_count; i++) {
        const struct stage_ref *ref = &own->kind->refs[i];
        const void *object = own->settings;
        const fst__field *f = ref->through ? NULL : setting(own, ref->key, &object);
        size_t count = 1;
        char *const *texts = NULL;
        if (ref->through || (ref->wanted && !ref->wanted(own)) || (!f && strchr(ref->key, '.')))
            continue;
        if (f && f->list) {
            memcpy(&texts, (const char *)object + f->offset, sizeof texts);
            count = *(const size_t *)(const void *)((const char *)object + f->count_at);
        } else if (f) {
            texts = (char *const *)(const void *)((const char *)object + f->offset);
            count = *texts != NULL;
        }
        if ((!texts || !count) && !follow_default(l, own, ref, c))
            return false;
        for (size_t k = 0; texts && k < count; k++)
            if (!follow(l, own, ref, texts[k], c))
                return false;
    }
    return true;
}

/* References that others have. */
static bool follow_through(struct stage *own, fst__complaint *c)
{
    for (size_t i = 0; i < own->kind->ref_count; i++) {
        const struct stage_ref *ref = &own->kind->refs[i];
        const struct stage *other = ref->through ? fst__stage_read(own, ref->through, 0) : NULL;
        const struct stage_read *r = other ? read_at(other, ref->theirs, 0) : NULL;
        if (r && !add_read(own, ref, r->stage, r->file, c))
            return false;
    }
    return true;
}

const char *fst__stage_guess(const struct stage_list *l, const char *text)
{
    int least = FST__MAX_WORD;
    const char *best = NULL;
    for (size_t i = 0; i < l->count; i++)
        fst__closer(text, l->stage[i].name, &least, &best);
    return best;
}

/* ---- the order of running ------------------------------------------------------------------------------------ */

/* A stage that has not got its place and must have it before this one. */
static const struct stage *waits_for(const struct stage *own)
{
    for (size_t i = 0; i < own->read_count; i++)
        if (own->reads[i].stage && !own->reads[i].ref->settings && own->reads[i].stage->at == SIZE_MAX)
            return own->reads[i].stage;
    return NULL;
}

/* `at` waits for a stage that waits for another, and so on, without end. */
static bool circle_complaint(const struct stage_list *l, const struct stage *at, fst__complaint *c)
{
    char chain[LISTED];
    for (size_t i = 0; i < l->count; i++) /* now it is on the circle itself */
        at = waits_for(at);
    snprintf(chain, sizeof chain, "%s", at->name);
    const struct stage *next = at;
    do {
        next = waits_for(next);
        size_t n = strlen(chain);
        snprintf(chain + n, sizeof chain - n, " reads %s", next->name);
    } while (next != at);
    return fst__complain(c, at, NULL, "no stage can be the first of these: %s", chain);
}

/* Gives each stage its place. */
static bool place(struct stage_list *l, fst__complaint *c)
{
    for (size_t i = 0; i < l->count; i++)
        l->stage[i].at = SIZE_MAX;
    for (size_t placed = 0; placed < l->count; placed++) {
        struct stage *next = NULL, *waiting = NULL;
        for (size_t i = 0; !next && i < l->count; i++) {
            waiting = l->stage[i].at == SIZE_MAX ? &l->stage[i] : waiting;
            next = l->stage[i].at == SIZE_MAX && !waits_for(&l->stage[i]) ? &l->stage[i] : NULL;
        }
        if (!next)
            return !circle_complaint(l, waiting, c);
        next->at = placed;
    }
    return true;
}

/* Puts them there. */
static bool arrange(struct stage_list *l)
{
    struct stage *sorted = fst_calloc(l->count + 1, sizeof *sorted);
    if (!sorted)
        return false;
    for (size_t i = 0; i < l->count; i++) {
        struct stage *to = &sorted[l->stage[i].at];
        *to = l->stage[i];
        to->of = to->of ? &sorted[to->of->at] : NULL;
        for (size_t k = 0; k < to->read_count; k++)
            to->reads[k].stage = to->reads[k].stage ? &sorted[to->reads[k].stage->at] : NULL;
    }
    fst_free(l->stage);
    l->stage = sorted;
    return true;
}

/* ---- all together -------------------------------------------------------------------------------------------- */

bool fst__stage_list_init(struct stage_list *out, const struct task_file *f, fst__complaint *c)
{
    *out = (struct stage_list){0};
    bool ok = make(out, f, c);
    for (size_t i = 0; ok && i < out->count; i++)
        ok = follow_all(out, &out->stage[i], c);
    for (size_t i = 0; ok && i < out->count; i++)
        ok = follow_through(&out->stage[i], c);
    ok = ok && place(out, c) && arrange(out);
    for (size_t i = 0; ok && i < out->count; i++) {
        const struct stage *own = &out->stage[i];
        ok = !own->kind->complains || !own->kind->complains(f, out, own, c);
    }
    return ok;
}

void fst__stage_list_release(struct stage_list *l)
{
    fst_free(l->stage);
    fst_free(l->names);
    *l = (struct stage_list){0};
}
