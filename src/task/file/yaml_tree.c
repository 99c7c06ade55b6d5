/*
 * The YAML tree: libyaml's events become nodes that keep their place, and overrides are merged in.
 *
 * Nodes and texts are cut from blocks that live as long as the tree, so nothing is freed one by one
 * and an override that fails leaves at most unused bytes. It guesses no types and knows no keys.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "yaml_tree.h"

enum { BLOCK_BYTES = 16384, MAX_NAME = 256, MAX_SHOWN = 80, MAX_DIRECTIVES = 64 };

struct block {
    struct block *next;
    size_t size, used;
};

struct fst__tree {
    struct block *blocks;
    fst__node *root;
    size_t nodes, text_bytes; /* spent of the limits */
};

/* One text on its way into a tree. */
struct builder {
    fst__tree *tree;
    const char *source;
    bool is_override;
    yaml_parser_t parser;
    fst_buf expanded; /* scratch for the scalar at hand */
    bool any;         /* does it hold a variable? */
    fst_error *err;
};

/* ---- memory of the tree ------------------------------------------------------------------- */

static void *take(fst__tree *t, size_t bytes)
{
    size_t need = (bytes + 15) / 16 * 16, head = (sizeof(struct block) + 15) / 16 * 16;
    struct block *b = t->blocks;
    if (!b || b->size - b->used < need) {
        size_t size = need + head > BLOCK_BYTES ? need + head : BLOCK_BYTES;
        b = fst_alloc(size);
        if (!b)
            return NULL;
        *b = (struct block){t->blocks, size, head};
        t->blocks = b;
    }
    void *p = (char *)b + b->used;
    b->used += need;
    return p;
}

static char *take_text(fst__tree *t, const char *text, size_t len)
{
    char *p = take(t, len + 1);
    if (p) {
        memcpy(p, text, len);
        p[len] = 0;
    }
    return p;
}

static fst__node *take_node(fst__tree *t, fst__node_kind kind, const char *source)
{
    fst__node *n = take(t, sizeof *n);
    if (n)
        *n = (fst__node){.kind = kind, .source = source};
    return n;
}

void fst__tree_free(fst__tree *t)
{
    if (!t)
        return;
    for (struct block *b = t->blocks, *next; b; b = next) {
        next = b->next;
        fst_free(b);
    }
    fst_free(t);
}

/* ---- looking at nodes --------------------------------------------------------------------- */

const fst__node *fst__tree_root(const fst__tree *t)
{
    return t->root;
}

const fst__node *fst__node_find(const fst__node *map, const char *key)
{
    for (const fst__node *c = map->kind == FST__MAP ? map->first : NULL; c; c = c->next)
        if (!strcmp(c->key, key))
            return c;
    return NULL;
}

bool fst__node_is_null(const fst__node *n)
{
    return n->kind == FST__SCALAR && !n->quoted &&
           (!strcmp(n->text, "null") || !strcmp(n->text, "Null") || !strcmp(n->text, "NULL") || !strcmp(n->text, "~"));
}

const char *fst__node_where(const fst__node *n, bool at_key, char *out, size_t size)
{
    bool key = at_key && n->key_line;
    if (!n->line)
        snprintf(out, size, "%s", n->source);
    else
        snprintf(out, size, "%s:%d:%d", n->source, key ? n->key_line : n->line, key ? n->key_column : n->column);
    return out;
}

/* ---- text --------------------------------------------------------------------------------- */

int32_t fst__yaml_code_point(const char **at)
{
    const unsigned char *p = (const unsigned char *)*at;
    static const int32_t least[] = {0, 0x80, 0x800, 0x10000};
    int more = p[0] < 0x80 ? 0 : (p[0] & 0xe0) == 0xc0 ? 1 : (p[0] & 0xf0) == 0xe0 ? 2 : (p[0] & 0xf8) == 0xf0 ? 3 : -1;
    if (more < 0)
        return -1;
    int32_t c = more ? p[0] & (0x3f >> more) : p[0];
    for (int i = 1; i <= more; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return -1;
        c = c << 6 | (p[i] & 0x3f);
    }
    if (c < least[more] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return -1;
    *at += more + 1;
    return c;
}

static bool is_utf8(const char *text)
{
    while (*text)
        if (fst__yaml_code_point(&text) < 0)
            return false;
    return true;
}

const char *fst__shown(const char *text, size_t most, char *out, size_t size)
{
    size_t n = 0, limit = most + 4 <= size ? most : size - 4;
    while (*text) {
        const char *from = text;
        int32_t c = fst__yaml_code_point(&text);
        bool hidden = c < 0x20 || (c >= 0x7f && c < 0xa0);
        if (c < 0)
            text++;
        size_t bytes = hidden ? 1 : (size_t)(text - from);
        if (n + bytes > limit) {
            memcpy(out + n, "...", 3);
            n += 3;
            break;
        }
        if (hidden)
            out[n] = '?';
        else
            memcpy(out + n, from, bytes);
        n += bytes;
    }
    out[n] = 0;
    return out;
}

/* ---- building from events ----------------------------------------------------------------- */

/* "task.yaml:3:9" for messages, or the override's text. */
static const char *place(const struct builder *b, yaml_mark_t mark, char *out, size_t size)
{
    if (b->is_override)
        snprintf(out, size, "%s", b->source);
    else
        snprintf(out, size, "%s:%zu:%zu", b->source, mark.line + 1, mark.column + 1);
    return out;
}

static fst_status refuse(const struct builder *b, yaml_mark_t mark, const char *what)
{
    char where[400];
    return fst_fail(b->err, FST_E_CONFIG, "%s: %s", place(b, mark, where, sizeof where), what);
}

static fst_status next_event(struct builder *b, yaml_event_t *event)
{
    const yaml_parser_t *p = &b->parser;
    char where[400];
    if (yaml_parser_parse(&b->parser, event))
        return FST_OK;
    if (p->error == YAML_MEMORY_ERROR)
        return fst_fail(b->err, FST_E_MEMORY, "%s: out of memory", b->source);
    const char *problem = p->problem ? p->problem : "unknown error";
    if (p->error == YAML_READER_ERROR)
        return fst_fail(b->err, FST_E_CONFIG, "%s: not valid YAML: %s at byte %zu", b->source, problem,
                        p->problem_offset);
    place(b, p->problem_mark, where, sizeof where);
    if (p->context && !b->is_override)
        return fst_fail(b->err, FST_E_CONFIG, "%s: not valid YAML: %s (%s that begins in line %zu)", where, problem,
                        p->context, p->context_mark.line + 1);
    return fst_fail(b->err, FST_E_CONFIG, "%s: not valid YAML: %s", where, problem);
}

/* Anchors and aliases make one text stand in two places, tags make types: neither is configuration. */
static fst_status check_event(struct builder *b, const yaml_event_t *e)
{
    const yaml_char_t *anchor = NULL, *tag = NULL;
    if (e->type == YAML_SCALAR_EVENT)
        anchor = e->data.scalar.anchor, tag = e->data.scalar.tag;
    else if (e->type == YAML_SEQUENCE_START_EVENT)
        anchor = e->data.sequence_start.anchor, tag = e->data.sequence_start.tag;
    else if (e->type == YAML_MAPPING_START_EVENT)
        anchor = e->data.mapping_start.anchor, tag = e->data.mapping_start.tag;
    if (e->type == YAML_ALIAS_EVENT)
        return refuse(b, e->start_mark, "aliases (*name) are not accepted; write the value itself, or quote the text");
    if (anchor)
        return refuse(b, e->start_mark, "anchors (&name) are not accepted; write the value itself, or quote the text");
    if (tag)
        return refuse(b, e->start_mark, "tags (!name) are not accepted; leave it out, or quote the text");
    if (e->type == YAML_SCALAR_EVENT && memchr(e->data.scalar.value, 0, e->data.scalar.length))
        return refuse(b, e->start_mark, "a text may not hold a NUL character");
    if (++b->tree->nodes > FST__YAML_MAX_NODES) {
        char where[400];
        return fst_fail(b->err, FST_E_LIMIT, "%s: more than %d keys and values",
                        place(b, e->start_mark, where, sizeof where), FST__YAML_MAX_NODES);
    }
    return FST_OK;
}

/* Appends the variable of "${NAME}" or "${NAME:-text}"; *at stands behind the "${" and is moved on. */
static fst_status expand_one(struct builder *b, yaml_mark_t mark, const char **at)
{
    char where[400], name[MAX_NAME];
    const char *begin = *at, *end = strchr(begin, '}');
    size_t n = strspn(begin, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789");
    if (!end)
        return refuse(b, mark, "\"${\" without a \"}\"; a dollar sign is written $$");
    bool has_default = begin[n] == ':' && begin[n + 1] == '-';
    if (!n || n >= sizeof name || (*begin >= '0' && *begin <= '9') || (begin + n != end && !has_default))
        return refuse(b, mark, "\"${...}\" must be ${NAME} or ${NAME:-text}; a dollar sign is written $$");
    memcpy(name, begin, n);
    name[n] = 0;
    const char *value = getenv(name);
    *at = end + 1;
    if (has_default && (!value || !*value))
        return fst_buf_append(&b->expanded, begin + n + 2, (size_t)(end - begin) - n - 2, b->err);
    if (!value)
        return fst_fail(b->err, FST_E_CONFIG,
                        "%s: the environment variable %s is not set; set it or write ${%s:-default}",
                        place(b, mark, where, sizeof where), name, name);
    if (!is_utf8(value))
        return fst_fail(b->err, FST_E_CONFIG, "%s: the environment variable %s is not valid UTF-8",
                        place(b, mark, where, sizeof where), name);
    if (strlen(value) > FST__YAML_MAX_EXPANDED)
        return fst_fail(b->err, FST_E_LIMIT, "%s: the environment variable %s is too long",
                        place(b, mark, where, sizeof where), name);
    return fst_buf_append(&b->expanded, value, strlen(value), b->err);
}

/* Fills in the environment; the result stands in b->expanded. */
static fst_status expand(struct builder *b, yaml_mark_t mark, const char *text)
{
    char where[400];
    b->expanded.len = 0;
    b->any = false;
    fst_status s = fst_buf_append(&b->expanded, "", 0, b->err);
    while (!s && *text) {
        if (text[0] == '$' && text[1] == '{') {
            text += 2;
            b->any = true;
            s = expand_one(b, mark, &text);
        } else {
            size_t n = 1 + strcspn(text + 1, "$");
            s = fst_buf_append(&b->expanded, text, n, b->err);
            text += text[0] == '$' && text[1] == '$' ? 2 : n;
        }
        if (!s && b->expanded.len + b->tree->text_bytes > FST__YAML_MAX_EXPANDED)
            s = fst_fail(b->err, FST_E_LIMIT, "%s: the texts are longer than %d bytes together",
                         place(b, mark, where, sizeof where), FST__YAML_MAX_EXPANDED);
    }
    return s;
}

static fst_status build_scalar(struct builder *b, const yaml_event_t *e, fst__node *n)
{
    fst_status s = expand(b, e->start_mark, (const char *)e->data.scalar.value);
    if (s)
        return s;
    n->quoted = e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    n->expanded = b->any;
    n->text = take_text(b->tree, b->expanded.data, b->expanded.len);
    b->tree->text_bytes += b->expanded.len;
    return n->text ? FST_OK : fst_fail_memory(b->err, b->expanded.len);
}

static void append_child(fst__node *parent, fst__node *child)
{
    if (parent->last)
        parent->last->next = child;
    else
        parent->first = child;
    parent->last = child;
    parent->count++;
}

static int by_key(const void *a, const void *b)
{
    const fst__node *x = *(fst__node *const *)a, *y = *(fst__node *const *)b;
    int order = strcmp(x->key, y->key);
    if (order)
        return order;
    if (x->key_line != y->key_line)
        return x->key_line < y->key_line ? -1 : 1;
    return x->key_column < y->key_column ? -1 : 1;
}

static fst_status check_twice(struct builder *b, const fst__node *map)
{
    char where[400], shown[MAX_SHOWN];
    if (map->count < 2)
        return FST_OK;
    const fst__node **sorted = fst_alloc(map->count * sizeof *sorted), *found = NULL, *first = NULL;
    if (!sorted)
        return fst_fail_memory(b->err, map->count * sizeof *sorted);
    size_t n = 0;
    for (const fst__node *c = map->first; c; c = c->next)
        sorted[n++] = c;
    qsort(sorted, n, sizeof *sorted, by_key);
    for (size_t i = 1; i < n && !found; i++)
        if (!strcmp(sorted[i - 1]->key, sorted[i]->key))
            first = sorted[i - 1], found = sorted[i];
    fst_free(sorted);
    if (!found)
        return FST_OK;
    yaml_mark_t mark = {.line = (size_t)found->key_line - 1, .column = (size_t)found->key_column - 1};
    return fst_fail(b->err, FST_E_CONFIG, "%s: the key \"%s\" is given twice, in line %d and in line %d",
                    place(b, mark, where, sizeof where), fst__shown(found->key, 60, shown, sizeof shown),
                    first->key_line, found->key_line);
}

static fst_status build_node(struct builder *b, const yaml_event_t *e, int depth, bool drop, fst__node **out);

/* The key whose event is e, and its value; drops both when the key is a comment. */
static fst_status build_pair(struct builder *b, const yaml_event_t *e, int depth, bool drop, fst__node *map)
{
    if (e->type == YAML_SCALAR_EVENT) {
        fst_status s = check_event(b, e);
        if (s)
            return s;
    }
    if (e->type != YAML_SCALAR_EVENT || !e->data.scalar.length)
        return refuse(b, e->start_mark, "a key must be a text");
    bool comment = drop || e->data.scalar.value[0] == '_';
    char *key = take_text(b->tree, comment ? "" : (char *)e->data.scalar.value, comment ? 0 : e->data.scalar.length);
    if (!key)
        return fst_fail_memory(b->err, e->data.scalar.length);
    fst__node *child = NULL;
    yaml_event_t value;
    fst_status s = next_event(b, &value);
    if (s)
        return s;
    s = build_node(b, &value, depth, comment, &child);
    yaml_event_delete(&value);
    if (s || comment)
        return s;
    child->key = key;
    child->key_line = (int)e->start_mark.line + 1;
    child->key_column = (int)e->start_mark.column + 1;
    append_child(map, child);
    return FST_OK;
}

/* The children of a map or list, up to its end event. */
static fst_status build_children(struct builder *b, fst__node *n, yaml_event_type_t last, int depth, bool drop)
{
    for (;;) {
        yaml_event_t e;
        fst_status s = next_event(b, &e);
        if (s)
            return s;
        bool end = e.type == last;
        if (!end && n->kind == FST__MAP) {
            s = build_pair(b, &e, depth, drop, n);
        } else if (!end) {
            fst__node *child = NULL;
            s = build_node(b, &e, depth, drop, &child);
            if (!s && !drop)
                append_child(n, child);
        }
        yaml_event_delete(&e);
        if (s)
            return s;
        if (end)
            return n->kind == FST__MAP && !drop ? check_twice(b, n) : FST_OK;
    }
}

/* With drop set the node is checked, counted and thrown away. depth: how many maps and lists it is in. */
static fst_status build_node(struct builder *b, const yaml_event_t *e, int depth, bool drop, fst__node **out)
{
    char where[400];
    fst_status s = check_event(b, e);
    if (s)
        return s;
    bool scalar = e->type == YAML_SCALAR_EVENT, map = e->type == YAML_MAPPING_START_EVENT;
    if (scalar && drop)
        return FST_OK;
    fst__node *n = take_node(b->tree, scalar ? FST__SCALAR : map ? FST__MAP : FST__LIST, b->source);
    if (!n)
        return fst_fail_memory(b->err, sizeof *n);
    if (!b->is_override) {
        n->line = (int)e->start_mark.line + 1;
        n->column = (int)e->start_mark.column + 1;
    }
    if (scalar)
        s = build_scalar(b, e, n);
    else if (depth >= FST__YAML_MAX_DEPTH)
        s = fst_fail(b->err, FST_E_LIMIT, "%s: more than %d maps and lists inside each other",
                     place(b, e->start_mark, where, sizeof where), FST__YAML_MAX_DEPTH);
    else
        s = build_children(b, n, map ? YAML_MAPPING_END_EVENT : YAML_SEQUENCE_END_EVENT, depth + 1, drop);
    if (!s)
        *out = n;
    return s;
}

/* The events of one document, its end and the stream's end. */
static fst_status build_document(struct builder *b, int depth, fst__node **out)
{
    static const char *const more = "a second document begins here; only one is accepted";
    yaml_event_t e;
    fst__node *root = NULL;
    fst_status s = FST_OK;
    for (bool done = false; !s && !done;) {
        s = next_event(b, &e);
        if (s)
            return s;
        if (e.type == YAML_DOCUMENT_START_EVENT && root)
            s = refuse(b, e.start_mark, more);
        else if (e.type == YAML_STREAM_END_EVENT)
            done = true;
        else if (e.type != YAML_STREAM_START_EVENT && e.type != YAML_DOCUMENT_START_EVENT &&
                 e.type != YAML_DOCUMENT_END_EVENT)
            s = build_node(b, &e, depth, false, &root);
        yaml_event_delete(&e);
    }
    if (!s && !root)
        s = fst_fail(b->err, FST_E_CONFIG, "%s: there is nothing in it; at least {} is needed", b->source);
    if (!s)
        *out = root;
    return s;
}

/* libyaml compares every %TAG line with all before it, so that a file of them would take minutes. */
static bool too_many_directives(const char *text, size_t len)
{
    static const char tag[] = {'%', 'T', 'A', 'G'};
    int count = 0;
    for (const char *at = text, *end = text + len; (at = memchr(at, '%', (size_t)(end - at))); at++)
        if ((size_t)(end - at) >= sizeof tag && !memcmp(at, tag, sizeof tag) && ++count > MAX_DIRECTIVES)
            return true;
    return false;
}

/* Reads a text into nodes of the tree; what they hold is not linked in yet. */
static fst_status build(fst__tree *t, const char *source, bool is_override, const char *text, size_t len, int depth,
                        fst__node **out, fst_error *err)
{
    struct builder b = {.tree = t, .source = source, .is_override = is_override, .err = err};
    if (len > FST__YAML_MAX_BYTES)
        return fst_fail(err, FST_E_LIMIT, "%s: %zu bytes, at most %d are read", source, len, FST__YAML_MAX_BYTES);
    if (too_many_directives(text, len))
        return fst_fail(err, FST_E_LIMIT, "%s: more than %d %%TAG directives; leave them out", source, MAX_DIRECTIVES);
    if (!yaml_parser_initialize(&b.parser))
        return fst_fail(err, FST_E_MEMORY, "%s: out of memory", source);
    yaml_parser_set_encoding(&b.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&b.parser, (const unsigned char *)text, len);
    fst_status s = build_document(&b, depth, out);
    yaml_parser_delete(&b.parser);
    fst_buf_release(&b.expanded);
    return s;
}

fst_status fst__tree_parse(fst__tree **out, const char *name, const char *text, size_t len, fst_error *err)
{
    fst__tree *t = fst_calloc(1, sizeof *t);
    if (!t)
        return fst_fail_memory(err, sizeof *t);
    const char *source = take_text(t, name, strlen(name));
    fst_status s = source ? build(t, source, false, text, len, 0, &t->root, err) : fst_fail_memory(err, strlen(name));
    if (s) {
        fst__tree_free(t);
        return s;
    }
    *out = t;
    return FST_OK;
}

/* ---- overrides ---------------------------------------------------------------------------- */

/* Cuts "a.b.c" (its first len bytes) into parts that live in the tree. */
static fst_status split(fst__tree *t, const char *source, const char *path, size_t len,
                        const char *parts[FST__YAML_MAX_DEPTH], int *count, fst_error *err)
{
    int n = 0;
    char *copy = take_text(t, path, len);
    if (!copy)
        return fst_fail_memory(err, len);
    for (char *part = copy, *end; part; part = end) {
        if (n == FST__YAML_MAX_DEPTH)
            return fst_fail(err, FST_E_LIMIT, "%s: more than %d keys inside each other", source, FST__YAML_MAX_DEPTH);
        end = strchr(part, '.');
        if (end)
            *end++ = 0;
        if (!*part)
            return fst_fail(err, FST_E_CONFIG, "%s: an empty key; expected KEY=VALUE or KEY.KEY=VALUE", source);
        if (*part == '_')
            return fst_fail(err, FST_E_CONFIG, "%s: keys that begin with \"_\" are comments and cannot be set", source);
        parts[n++] = part;
    }
    *count = n;
    return FST_OK;
}

static fst_status list_entry(const fst__node *list, const char *part, const char *source, fst__node **out,
                             fst_error *err)
{
    char *end, shown[MAX_SHOWN];
    unsigned long index = strtoul(part, &end, 10);
    if (*part < '0' || *part > '9' || *end || index >= list->count) {
        fst__shown(part, 60, shown, sizeof shown);
        if (!list->count)
            return fst_fail(err, FST_E_CONFIG, "%s: \"%s\" is not an entry of the list, which is empty", source, shown);
        return fst_fail(err, FST_E_CONFIG, "%s: \"%s\" is not an entry of the list; entries are 0 to %zu", source,
                        shown, list->count - 1);
    }
    fst__node *c = list->first;
    while (index--)
        c = c->next;
    *out = c;
    return FST_OK;
}

/* Follows the path as far as there are nodes: *at is the last one found, *done how many parts it took. */
static fst_status follow(fst__tree *t, const char *const *parts, int n, const char *source, fst__node **at, int *done,
                         fst_error *err)
{
    fst__node *cur = t->root, *child = NULL;
    int i = 0;
    while (i < n && cur->kind != FST__SCALAR) {
        if (cur->kind == FST__MAP) {
            child = (fst__node *)fst__node_find(cur, parts[i]);
            if (!child)
                break;
        } else {
            fst_status s = list_entry(cur, parts[i], source, &child, err);
            if (s)
                return s;
        }
        cur = child;
        i++;
    }
    *at = cur;
    *done = i;
    return FST_OK;
}

/* Puts another value in a node's place; its key and its neighbours stay. */
static void replace(fst__node *dst, const fst__node *src)
{
    fst__node kept = *dst;
    *dst = *src;
    dst->key = kept.key;
    dst->key_line = kept.key_line;
    dst->key_column = kept.key_column;
    dst->next = kept.next;
}

/* Hangs value below `at` under the keys parts[0 ... n-1], making maps on the way; all or nothing. */
static fst_status graft(fst__tree *t, fst__node *at, const char *const *parts, int n, const char *source,
                        fst__node *value, fst_error *err)
{
    int first = at->kind == FST__MAP ? 1 : 0; /* a scalar becomes a map itself */
    for (int i = n - 1; i >= first; i--) {
        fst__node *map = take_node(t, FST__MAP, source);
        if (!map)
            return fst_fail_memory(err, sizeof *map);
        value->key = parts[i];
        append_child(map, value);
        value = map;
    }
    if (first) {
        value->key = parts[0];
        append_child(at, value);
        return FST_OK;
    }
    if (!fst__node_is_null(at) && (at->quoted || *at->text)) {
        fst__node *was = take_node(t, FST__SCALAR, source);
        if (!was)
            return fst_fail_memory(err, sizeof *was);
        *was = *at;
        value->was = was;
    }
    replace(at, value);
    return FST_OK;
}

fst_status fst__tree_set(fst__tree *t, const char *assignment, fst_error *err)
{
    char shown[MAX_SHOWN + 4], source[MAX_SHOWN + 16];
    const char *parts[FST__YAML_MAX_DEPTH], *equals = strchr(assignment, '=');
    int n = 0, done = 0;
    snprintf(source, sizeof source, "--set %s", fst__shown(assignment, MAX_SHOWN, shown, sizeof shown));
    if (!equals)
        return fst_fail(err, FST_E_CONFIG, "%s: expected KEY=VALUE or KEY.KEY=VALUE", source);
    if (!is_utf8(assignment))
        return fst_fail(err, FST_E_CONFIG, "%s: not valid UTF-8", source);
    const char *kept = take_text(t, source, strlen(source)), *text = equals + 1;
    if (!kept)
        return fst_fail_memory(err, strlen(source));
    fst_status s = split(t, kept, assignment, (size_t)(equals - assignment), parts, &n, err);
    if (s)
        return s;
    if (!*text)
        text = "''";
    fst__node *value = NULL, *at = NULL;
    s = build(t, kept, true, text, strlen(text), n, &value, err);
    if (!s)
        s = follow(t, parts, n, kept, &at, &done, err);
    if (!s && done < n)
        return graft(t, at, parts + done, n - done, kept, value, err);
    if (!s)
        replace(at, value);
    return s;
}
