/*
 * The stream of a pickle (protocols 0 to 5, as CPython's pickletools describes them): a stack machine whose
 * opcodes push plain values. Names of globals go to pickle_build.c, which knows a short list; nothing is ever looked up
 * or called by name. What is not on the list is refused, or, in a file of torch.save, stands there as an object of
 * which only its class's name is known. Bytes and texts point into the input where it has them as they are. Values,
 * stack and memo are charged to one budget (pickle_value.c).
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pickle_private.h"

enum { MAX_STACK = 1 << 24, MAX_MEMO = 1 << 24, MAX_MARKS = 1000, MAX_PROTOCOL = 5 };

/* What is needed only while the stream is read. */
struct machine {
    fst_pickle *p;
    fst_pickle_value **stack;
    size_t depth, room;
    fst_pickle_value **memo;
    size_t memo_count, memo_room; /* count: of MEMOIZE, which numbers by how many there are */
    size_t marks[MAX_MARKS];
    size_t mark_count;
    fst_error *err;
};

static fst_status bad(struct machine *m, const char *what)
{
    return fst__pickle_fail(m->p, m->err, what);
}

/* Doubles an array of pointers up to `most`. */
static fst_status grow(struct machine *m, fst_pickle_value ***a, size_t *room, size_t need, size_t most)
{
    size_t cap = *room ? *room : 64;
    if (need > most)
        return fst_fail(m->err, FST_E_LIMIT, "%s: needs a stack or memo of more than %zu entries", m->p->name, most);
    while (cap < need)
        cap *= 2;
    fst_status s = fst__pickle_charge(m->p, (cap - *room) * sizeof **a, m->err);
    if (s)
        return s;
    fst_pickle_value **b = fst_realloc(*a, *room * sizeof *b, cap * sizeof *b);
    if (!b)
        return fst_fail_memory(m->err, cap * sizeof *b);
    memset(b + *room, 0, (cap - *room) * sizeof *b);
    *a = b;
    *room = cap;
    return FST_OK;
}

/* ---- stack ---------------------------------------------------------------------------------- */

static fst_status push(struct machine *m, fst_pickle_value *v)
{
    if (m->depth == m->room) {
        fst_status s = grow(m, &m->stack, &m->room, m->depth + 1, MAX_STACK);
        if (s)
            return s;
    }
    m->stack[m->depth++] = v;
    return FST_OK;
}

static fst_status push_new(struct machine *m, int kind, fst_pickle_value **v)
{
    fst_status s = fst__pickle_value(m->p, kind, v, m->err);
    return s ? s : push(m, *v);
}

/* None, True, False, (): one value for all of them, as nothing changes it. */
static fst_status push_constant(struct machine *m, int kind, int64_t x)
{
    fst_pickle_value *v = NULL;
    fst_status s = fst__pickle_constant(m->p, kind, x, &v, m->err);
    return s ? s : push(m, v);
}

/* Where the values above the last mark (or the bottom) begin. */
static size_t floor_of(const struct machine *m)
{
    return m->mark_count ? m->marks[m->mark_count - 1] : 0;
}

static fst_status pop(struct machine *m, fst_pickle_value **v)
{
    if (m->depth <= floor_of(m))
        return bad(m, "takes a value from an empty stack");
    *v = m->stack[--m->depth];
    return FST_OK;
}

/* Leaves the value where it is. */
static fst_status top(struct machine *m, fst_pickle_value **v)
{
    if (m->depth <= floor_of(m))
        return bad(m, "takes a value from an empty stack");
    *v = m->stack[m->depth - 1];
    return FST_OK;
}

/* Ends the last mark; its values are m->stack[*from] ... m->stack[m->depth - 1]. */
static fst_status unmark(struct machine *m, size_t *from)
{
    if (!m->mark_count)
        return bad(m, "a mark is missing");
    *from = m->marks[--m->mark_count];
    return FST_OK;
}

/* The n newest values go into v; the stack may be empty, and is no array then. */
static fst_status add_items(struct machine *m, fst_pickle_value *v, size_t from, size_t n)
{
    return n ? fst__pickle_add(m->p, v, m->stack + from, n, m->err) : FST_OK;
}

/* A new tuple, list or dictionary of what stands on the stack from `from` on. */
static fst_status gather(struct machine *m, int kind, size_t from)
{
    fst_pickle_value *v = NULL;
    fst_status s = FST_OK;
    if (kind == FST_PICKLE_DICT && (m->depth - from) % 2)
        return bad(m, "a key of a dictionary has no value");
    s = fst__pickle_value(m->p, kind, &v, m->err);
    if (!s)
        s = add_items(m, v, from, m->depth - from);
    m->depth = from;
    return s ? s : push(m, v);
}

/* The values above the mark go into the container below it. */
static fst_status extend(struct machine *m, int kind, size_t from)
{
    fst_pickle_value *v = NULL;
    size_t n = m->depth - from;
    if (kind == FST_PICKLE_DICT && n % 2)
        return bad(m, "a key of a dictionary has no value");
    m->depth = from;
    fst_status s = top(m, &v);
    if (!s && fst__pickle_is_object(v))
        return FST_OK; /* what it holds is its own */
    if (!s && v->kind != kind)
        s = bad(m,
                kind == FST_PICKLE_DICT ? "puts keys into what is no dictionary" : "appends to what is no list or set");
    return s ? s : add_items(m, v, from, n);
}

/* ---- the input ------------------------------------------------------------------------------ */

static fst_status take_bytes(struct machine *m, uint64_t n, const unsigned char **out)
{
    if (n > m->p->len - m->p->at)
        return bad(m, "the pickle is cut off");
    fst_status s = fst__pickle_need(m->p, (size_t)n, m->err);
    if (s)
        return s;
    *out = m->p->data + m->p->at;
    m->p->at += (size_t)n;
    return FST_OK;
}

/* The bytes of a text, which may be left in their file. */
static fst_status take_text(struct machine *m, uint64_t n, const unsigned char **out)
{
    fst_pickle *p = m->p;
    if (p->fd < 0 || n < p->hole || n > p->len - p->at)
        return take_bytes(m, n, out);
    *out = p->data + p->at;
    p->at += (size_t)n;
    p->passed = p->passed > p->at ? p->passed : p->at;
    return FST_OK;
}

static fst_status take_uint(struct machine *m, int width, uint64_t *out)
{
    const unsigned char *b = NULL;
    fst_status s = take_bytes(m, (uint64_t)width, &b);
    uint64_t v = 0;
    for (int i = width; !s && i-- > 0;)
        v = v << 8 | b[i];
    if (!s)
        *out = v;
    return s;
}

/* A line of protocol 0, without its end. */
static fst_status take_line(struct machine *m, const char **line, size_t *len)
{
    return fst__pickle_line(m->p, line, len, m->err);
}

/* A line that holds a number, terminated. */
static fst_status take_number(struct machine *m, char out[64], size_t *len)
{
    const char *line = NULL;
    fst_status s = take_line(m, &line, len);
    if (!s && (*len == 0 || *len >= 64))
        return bad(m, "a number of 1 to 63 letters is needed");
    if (!s) {
        memcpy(out, line, *len);
        out[*len] = 0;
    }
    return s;
}

/* ---- numbers -------------------------------------------------------------------------------- */

static fst_status push_int(struct machine *m, int kind, int64_t x)
{
    return push_constant(m, kind, x);
}

/* Something of which nothing but what it is called is known. */
static fst_status push_object(struct machine *m, const char *what)
{
    fst_pickle_value *v = NULL;
    fst_status s = fst__pickle_object(m->p, what, strlen(what), &v, m->err);
    return s ? s : push(m, v);
}

static fst_status push_real(struct machine *m, double x)
{
    fst_pickle_value *v = NULL;
    fst_status s = push_new(m, FST_PICKLE_FLOAT, &v);
    if (!s)
        v->real = x;
    return s;
}

/* "12", "-3", "12L"; INT's "00" and "01" are False and True. */
static fst_status op_int_line(struct machine *m, bool is_long)
{
    char text[64], *end;
    size_t n = 0;
    fst_status s = take_number(m, text, &n);
    if (s)
        return s;
    if (!is_long && (!strcmp(text, "00") || !strcmp(text, "01")))
        return push_int(m, FST_PICKLE_BOOL, text[1] == '1');
    if (is_long && text[n - 1] == 'L')
        text[n - 1] = 0;
    errno = 0;
    long long x = strtoll(text, &end, 10);
    if (errno == ERANGE && m->p->torch)
        return push_object(m, "a whole number of more than 64 bits");
    if (errno || end == text || *end)
        return bad(m, "a whole number of at most 64 bits is needed");
    return push_int(m, FST_PICKLE_INT, x);
}

static fst_status op_float_line(struct machine *m)
{
    char text[64], *end;
    size_t n = 0;
    fst_status s = take_number(m, text, &n);
    if (s)
        return s;
    double x = strtod(text, &end);
    if (end == text || *end)
        return bad(m, "a floating-point number is needed");
    return push_real(m, x);
}

static fst_status op_binfloat(struct machine *m)
{
    const unsigned char *b = NULL;
    uint64_t bits = 0;
    double x;
    fst_status s = take_bytes(m, 8, &b);
    for (int i = 0; !s && i < 8; i++) /* the only big-endian number */
        bits = bits << 8 | b[i];
    memcpy(&x, &bits, sizeof x);
    return s ? s : push_real(m, x);
}

static fst_status op_long(struct machine *m, int width)
{
    const unsigned char *b = NULL;
    uint64_t n = 0, v = 0;
    fst_status s = take_uint(m, width, &n);
    if (!s)
        s = take_bytes(m, n, &b);
    if (s)
        return s;
    if (n > 8)
        return m->p->torch ? push_object(m, "a whole number of more than 64 bits")
                           : bad(m, "a whole number of more than 64 bits");
    if (n && b[n - 1] & 0x80)
        v = UINT64_MAX;
    for (uint64_t i = n; i-- > 0;)
        v = v << 8 | b[i];
    return push_int(m, FST_PICKLE_INT, (int64_t)v);
}

static fst_status op_uint(struct machine *m, int width)
{
    uint64_t v = 0;
    fst_status s = take_uint(m, width, &v);
    return s ? s : push_int(m, FST_PICKLE_INT, width == 4 ? (int32_t)(uint32_t)v : (int64_t)v);
}

/* ---- texts and bytes ------------------------------------------------------------------------ */

static fst_status push_text(struct machine *m, int kind, const void *data, size_t n)
{
    fst_pickle_value *v = NULL;
    fst_status s = push_new(m, kind, &v);
    if (!s) {
        v->text.data = data;
        v->text.length = n;
    }
    return s;
}

static fst_status op_text(struct machine *m, int kind, int width)
{
    const unsigned char *b = NULL;
    uint64_t n = 0;
    fst_status s = take_uint(m, width, &n);
    if (!s)
        s = take_text(m, n, &b);
    return s ? s : push_text(m, kind, b, (size_t)n);
}

/* A line of protocol 0, unescaped by one of pickle_text.c's functions. */
static fst_status op_escaped_line(struct machine *m, bool unicode)
{
    const char *line = NULL;
    size_t n = 0;
    fst_pickle_value *v = NULL;
    fst_status s = take_line(m, &line, &n);
    if (!s)
        s = unicode ? fst__pickle_unicode(m->p, line, n, &v, m->err) : fst__pickle_string(m->p, line, n, &v, m->err);
    return s ? s : push(m, v);
}

/* ---- memo ----------------------------------------------------------------------------------- */

static fst_status memo_put(struct machine *m, uint64_t index)
{
    fst_pickle_value *v = NULL;
    fst_status s = top(m, &v);
    /* Numbers count up: none is larger than there are bytes. */
    if (!s && index > m->p->len)
        s = bad(m, "a memo number that is too large");
    if (!s && index >= m->memo_room)
        s = grow(m, &m->memo, &m->memo_room, (size_t)index + 1, MAX_MEMO);
    if (s)
        return s;
    m->memo[index] = v;
    m->memo_count++;
    return FST_OK;
}

static fst_status memo_get(struct machine *m, uint64_t index)
{
    if (index >= m->memo_room || !m->memo[index])
        return bad(m, "asks for what is not in the memo");
    return push(m, m->memo[index]);
}

static fst_status op_memo_line(struct machine *m, bool put)
{
    char text[64], *end;
    size_t n = 0;
    fst_status s = take_number(m, text, &n);
    if (s)
        return s;
    errno = 0;
    unsigned long long i = strtoull(text, &end, 10);
    if (errno || *end || text[0] < '0' || text[0] > '9')
        return bad(m, "a memo number is needed");
    return put ? memo_put(m, i) : memo_get(m, i);
}

static fst_status op_memo(struct machine *m, bool put, int width)
{
    uint64_t i = 0;
    fst_status s = take_uint(m, width, &i);
    return s ? s : put ? memo_put(m, i) : memo_get(m, i);
}

/* ---- globals and calls ---------------------------------------------------------------------- */

static fst_status op_global(struct machine *m)
{
    const char *module = NULL, *name = NULL;
    size_t a = 0, b = 0;
    fst_pickle_value *v = NULL;
    fst_status s = take_line(m, &module, &a);
    if (!s)
        s = take_line(m, &name, &b);
    if (!s)
        s = fst__pickle_global(m->p, module, a, name, b, &v, m->err);
    return s ? s : push(m, v);
}

static fst_status op_stack_global(struct machine *m)
{
    fst_pickle_value *name = NULL, *module = NULL, *v = NULL;
    fst_status s = pop(m, &name);
    if (!s)
        s = pop(m, &module);
    if (!s && (name->kind != FST_PICKLE_TEXT || module->kind != FST_PICKLE_TEXT))
        s = bad(m, "the name of a global is no text");
    if (!s)
        s = fst__pickle_global(m->p, module->text.data, module->text.length, name->text.data, name->text.length, &v,
                               m->err);
    return s ? s : push(m, v);
}

static fst_status op_marked(struct machine *m, unsigned char op)
{
    size_t from = 0;
    fst_status s = unmark(m, &from);
    if (s)
        return s;
    switch (op) {
    case '1':
        m->depth = from;
        return FST_OK;
    case 't':
        return gather(m, FST_PICKLE_TUPLE, from);
    case 'l':
        return gather(m, FST_PICKLE_LIST, from);
    case 'd':
        return gather(m, FST_PICKLE_DICT, from);
    case 'e':
        return extend(m, FST_PICKLE_LIST, from);
    case 0x90:
        return extend(m, FST__PICKLE_OBJECT, from);
    case 0x91:
        m->depth = from;
        return push_object(m, "frozenset");
    default:
        return extend(m, FST_PICKLE_DICT, from);
    }
}

/* Calls what is `callee` here; the result is on the stack. */
static fst_status call(struct machine *m, const fst_pickle_value *callee, const fst_pickle_value *args)
{
    fst_pickle_value *v = NULL;
    fst_status s = fst__pickle_call(m->p, callee, args, &v, m->err);
    return s ? s : push(m, v);
}

static fst_status no_instances(struct machine *m)
{
    return bad(m, "an instance of a class; only plain values are read");
}

/* INST: the class by name, the arguments above the mark. Its name is looked at first, so that what is refused is
 * refused by name. */
static fst_status op_inst(struct machine *m)
{
    fst_pickle_value *callee = NULL, *args = NULL;
    fst_status s = op_global(m);
    if (!s && !m->p->torch)
        s = no_instances(m);
    if (!s)
        s = pop(m, &callee);
    if (!s)
        s = op_marked(m, 't');
    if (!s)
        s = pop(m, &args);
    return s ? s : call(m, callee, args);
}

/* OBJ: the class and its arguments above the mark. */
static fst_status op_obj(struct machine *m)
{
    fst_pickle_value *args = NULL;
    if (!m->p->torch)
        return no_instances(m);
    if (m->depth <= floor_of(m))
        return bad(m, "takes a value from an empty stack");
    fst_pickle_value *callee = m->stack[floor_of(m)];
    fst_status s = op_marked(m, 't');
    if (!s)
        s = pop(m, &args);
    if (s)
        return s;
    return fst__pickle_is_object(callee) ? push(m, callee) : bad(m, "a call of what cannot be called");
}

/* NEWOBJ and, with a dictionary of further arguments on top, NEWOBJ_EX: cls.__new__(cls, *args). */
static fst_status op_newobj(struct machine *m, bool ex)
{
    fst_pickle_value *named = NULL, *args = NULL, *callee = NULL;
    if (!m->p->torch)
        return no_instances(m);
    fst_status s = ex ? pop(m, &named) : FST_OK;
    if (!s)
        s = pop(m, &args);
    if (!s)
        s = pop(m, &callee);
    return s ? s : call(m, callee, args);
}

static fst_status op_reduce(struct machine *m)
{
    fst_pickle_value *args = NULL, *callee = NULL;
    fst_status s = pop(m, &args);
    if (!s)
        s = pop(m, &callee);
    return s ? s : call(m, callee, args);
}

static fst_status op_build(struct machine *m)
{
    fst_pickle_value *state = NULL, *object = NULL;
    fst_status s = pop(m, &state);
    if (!s)
        s = top(m, &object);
    return s ? s : fst__pickle_build(m->p, object, state, m->err);
}

static fst_status op_persistent(struct machine *m)
{
    fst_pickle_value *id = NULL, *v = NULL;
    fst_status s = pop(m, &id);
    if (!s)
        s = fst__pickle_persistent(m->p, id, &v, m->err);
    return s ? s : push(m, v);
}

/* ---- opcodes -------------------------------------------------------------------------------- */

static fst_status op_mark(struct machine *m)
{
    if (m->mark_count == MAX_MARKS)
        return fst_fail(m->err, FST_E_LIMIT, "%s: nested more than %d deep", m->p->name, MAX_MARKS);
    m->marks[m->mark_count++] = m->depth;
    return FST_OK;
}

static fst_status op_pop(struct machine *m)
{
    fst_pickle_value *v = NULL;
    if (m->mark_count && m->depth == m->marks[m->mark_count - 1]) {
        m->mark_count--; /* as CPython does: a mark counts as a value here */
        return FST_OK;
    }
    return pop(m, &v);
}

/* The newest n values as a tuple. */
static fst_status op_tuple(struct machine *m, size_t n)
{
    if (m->depth - floor_of(m) < n)
        return bad(m, "takes a value from an empty stack");
    return gather(m, FST_PICKLE_TUPLE, m->depth - n);
}

static fst_status op_append(struct machine *m, int kind, size_t n)
{
    if (m->depth - floor_of(m) < n + 1)
        return bad(m, "takes a value from an empty stack");
    return extend(m, kind, m->depth - n);
}

static fst_status op_proto(struct machine *m)
{
    uint64_t v = 0;
    fst_status s = take_uint(m, 1, &v);
    if (!s && v > MAX_PROTOCOL)
        s = fst_fail(m->err, FST_E_UNSUPPORTED, "%s: pickle protocol %d; 0 to %d are read", m->p->name, (int)v,
                     MAX_PROTOCOL);
    return s;
}

static fst_status op_frame(struct machine *m)
{
    uint64_t n = 0;
    fst_status s = take_uint(m, 8, &n);
    if (!s && n > m->p->len - m->p->at)
        s = bad(m, "the pickle is cut off");
    return s;
}

static fst_status op_dup(struct machine *m)
{
    fst_pickle_value *v = NULL;
    fst_status s = top(m, &v);
    return s ? s : push(m, v);
}

static fst_status refused(struct machine *m, unsigned char op)
{
    switch (op) {
    case 'P':
        return bad(m, "a persistent id in words: protocol 0 cannot hold the storages of PyTorch, which does not read "
                      "them either");
    case 0x82:
    case 0x83:
    case 0x84:
        return bad(m, "an extension code; only plain values are read");
    case 0x97:
    case 0x98:
        return bad(m, "a buffer outside of the pickle; save it in one piece");
    default:
        return bad(m, "an opcode that is none");
    }
}

/* Instances and sets: objects of which a file of torch.save may hold any, beside its tensors. */
static fst_status step_object(struct machine *m, unsigned char op)
{
    switch (op) {
    case 'i':
        return op_inst(m);
    case 'o':
        return op_obj(m);
    case 0x81:
    case 0x92:
        return op_newobj(m, op == 0x92);
    case 0x8f:
    case 0x90:
    case 0x91:
        if (!m->p->torch)
            return bad(m, "a set; sets are not read");
        return op == 0x8f ? push_object(m, "set") : op_marked(m, op);
    default:
        return refused(m, op);
    }
}

static fst_status step_plain(struct machine *m, unsigned char op)
{
    switch (op) {
    case 'N':
        return push_constant(m, FST_PICKLE_NONE, 0);
    case 0x88:
    case 0x89:
        return push_int(m, FST_PICKLE_BOOL, op == 0x88);
    case 'I':
    case 'L':
        return op_int_line(m, op == 'L');
    case 'K':
        return op_uint(m, 1);
    case 'M':
        return op_uint(m, 2);
    case 'J':
        return op_uint(m, 4);
    case 0x8a:
        return op_long(m, 1);
    case 0x8b:
        return op_long(m, 4);
    case 'F':
        return op_float_line(m);
    case 'G':
        return op_binfloat(m);
    case 'S':
        return op_escaped_line(m, false);
    case 'V':
        return op_escaped_line(m, true);
    case 'U':
    case 'C':
        return op_text(m, FST_PICKLE_BYTES, 1);
    case 'T':
    case 'B':
        return op_text(m, FST_PICKLE_BYTES, 4);
    case 0x8e:
    case 0x96:
        return op_text(m, FST_PICKLE_BYTES, 8);
    case 0x8c:
        return op_text(m, FST_PICKLE_TEXT, 1);
    case 'X':
        return op_text(m, FST_PICKLE_TEXT, 4);
    case 0x8d:
        return op_text(m, FST_PICKLE_TEXT, 8);
    default:
        return step_object(m, op);
    }
}

static fst_status step(struct machine *m, unsigned char op)
{
    fst_pickle_value *v = NULL;
    switch (op) {
    case '(':
        return op_mark(m);
    case '0':
        return op_pop(m);
    case '2':
        return op_dup(m);
    case '1':
    case 't':
    case 'l':
    case 'd':
    case 'e':
    case 'u':
        return op_marked(m, op);
    case ')':
        return push_constant(m, FST_PICKLE_TUPLE, 0);
    case ']':
        return push_new(m, FST_PICKLE_LIST, &v);
    case '}':
        return push_new(m, FST_PICKLE_DICT, &v);
    case 0x85:
    case 0x86:
    case 0x87:
        return op_tuple(m, op - 0x84u);
    case 'a':
        return op_append(m, FST_PICKLE_LIST, 1);
    case 's':
        return op_append(m, FST_PICKLE_DICT, 2);
    case 'p':
    case 'g':
        return op_memo_line(m, op == 'p');
    case 'q':
    case 'h':
        return op_memo(m, op == 'q', 1);
    case 'r':
    case 'j':
        return op_memo(m, op == 'r', 4);
    case 0x94:
        return memo_put(m, m->memo_count);
    case 'c':
        return op_global(m);
    case 0x93:
        return op_stack_global(m);
    case 'R':
        return op_reduce(m);
    case 'b':
        return op_build(m);
    case 'Q':
        return op_persistent(m);
    case 0x80:
        return op_proto(m);
    case 0x95:
        return op_frame(m);
    default:
        return step_plain(m, op);
    }
}

static fst_status run(struct machine *m, size_t *used)
{
    fst_pickle *p = m->p;
    const unsigned char *op = NULL;
    fst_status s = FST_OK;
    while (!(s = take_bytes(m, 1, &op)) && *op != '.')
        if ((s = step(m, *op)))
            return s;
    if (s)
        return s;
    if (m->mark_count || m->depth != 1)
        return bad(m, "ends with more or less than one value");
    if (!used && p->at < p->len)
        return bad(m, "bytes follow where the pickle should end");
    if (used)
        *used = p->at;
    p->root = m->stack[0];
    return FST_OK;
}

fst_status fst__pickle_parse_as(fst_pickle **out, const fst_pickle *given, size_t max_bytes, size_t *used,
                                fst_error *err)
{
    fst_pickle *p = fst_calloc(1, sizeof *p);
    struct machine *m = fst_calloc(1, sizeof *m);
    fst_status s = p && m ? FST_OK : fst_fail_memory(err, sizeof *m);
    if (!s) {
        *p = *given;
        p->name = fst_strdup(given->name);
        p->max_bytes = max_bytes < fst_budget(p->len) ? max_bytes : fst_budget(p->len);
        m->p = p;
        m->err = err;
        s = p->name ? run(m, used) : fst_fail_memory(err, strlen(given->name));
    }
    if (m) {
        fst_free(m->stack);
        fst_free(m->memo);
        fst_free(m);
    }
    if (s && p) {
        p->fd = -1; /* still the caller's */
        p->room = NULL;
    }
    if (s)
        fst_pickle_free(p);
    else
        *out = p;
    return s;
}
