/*
 * The oneDNN backend: one primitive a kernel, memory bound by pointer. This file has contexts, layouts and kernels,
 * the other files here the ops; with onednn.h and onednn_compat.h they are all that knows oneDNN. Activations keep the
 * layout that the convolutions choose; parameters are plain and are brought into a primitive's layout just before it.
 */
#define _GNU_SOURCE
#include <execinfo.h>
#include <fcntl.h>
#include <inttypes.h>
#include <omp.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cpu_caches.h"
#include "onednn.h"

fst_status fdn_failed(dnnl_status_t s, const char *what, fst_error *err)
{
    if (s == dnnl_out_of_memory)
        return fst_fail(err, FST_E_MEMORY, "oneDNN: %s: out of memory", what);
    return fst_fail(err, FST_E_UNSUPPORTED, "oneDNN: %s: status %d%s", what, (int)s,
                    s == dnnl_unimplemented ? " (unimplemented)" : "");
}

/* ---- the processor ------------------------------------------------------------------------------ */

static enum fdn_processor processor;
static bool usable;
static pthread_once_t looked = PTHREAD_ONCE_INIT;

/* Before any other call of oneDNN, whose choice of kernels is final from then on. */
static void look_at_processor(void)
{
    processor = DNNL_VERSION_MAJOR >= 3 ? fdn_processor_check(fdn_cpuid) : FDN_PROCESSOR_GOOD;
    usable = processor != FDN_PROCESSOR_UNUSABLE;
    if (processor == FDN_PROCESSOR_NO_AVX2)
        usable = !dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx) || dnnl_get_effective_cpu_isa() <= dnnl_cpu_isa_avx;
}

static bool start(void)
{
    pthread_once(&looked, look_at_processor);
    return usable;
}

static fst_status fail_unusable(fst_error *err)
{
    const dnnl_version_t *v = dnnl_version();
    return fst_fail(err, FST_E_UNSUPPORTED,
                    "oneDNN %d.%d would divide by zero: the processor's cpuid does not tell the sizes of its caches "
                    "(in a virtual machine that is a setting of its host); --backend reference works, slowly",
                    v->major, v->minor);
}

static const char *describe(void)
{
    static char text[96]; /* always the same bytes, so that a race would be harmless */
    const dnnl_version_t *v = dnnl_version();
    dnnl_cpu_isa_t isa = start() ? dnnl_get_effective_cpu_isa() : dnnl_cpu_isa_sse41;
    const char *name = "x64";
    if (!usable)
        name = "not usable: the processor tells no sizes of caches";
    else if (processor == FDN_PROCESSOR_NO_AVX2)
        name = "no AVX2, as the processor tells no sizes of caches";
    else if ((isa & dnnl_cpu_isa_avx512_core_amx) == dnnl_cpu_isa_avx512_core_amx)
        name = "avx512_core_amx";
    else if ((isa & dnnl_cpu_isa_avx512_core) == dnnl_cpu_isa_avx512_core)
        name = "avx512_core";
    else if ((isa & dnnl_cpu_isa_avx2) == dnnl_cpu_isa_avx2)
        name = "avx2";
    snprintf(text, sizeof text, "oneDNN %d.%d.%d, %s", v->major, v->minor, v->patch, name);
    return text;
}

/* ---- room ------------------------------------------------------------------------------------- */

/* More than oneDNN takes for any one primitive's code, and for what is around it. */
#define ROOM ((uint64_t)16 << 20)

/* The pages that the process has mapped, and those of its data. */
static bool read_pages(uint64_t *mapped, uint64_t *data)
{
    char text[256] = "";
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    bool good = fd >= 0 && read(fd, text, sizeof text - 1) > 0 &&
                sscanf(text, "%" SCNu64 " %*u %*u %*u %*u %" SCNu64, mapped, data) == 2;
    if (fd >= 0)
        close(fd);
    return good;
}

static bool fits(const struct rlimit *limit, uint64_t pages)
{
    return limit->rlim_cur == RLIM_INFINITY || pages * (uint64_t)sysconf(_SC_PAGESIZE) + ROOM <= limit->rlim_cur;
}

static bool is_limited(struct rlimit *mapped, struct rlimit *data)
{
    *mapped = *data = (struct rlimit){RLIM_INFINITY, RLIM_INFINITY};
    (void)getrlimit(RLIMIT_AS, mapped);
    (void)getrlimit(RLIMIT_DATA, data);
    return mapped->rlim_cur != RLIM_INFINITY || data->rlim_cur != RLIM_INFINITY;
}

/* oneDNN writes the code of its kernels to memory without looking whether it got any, and dies. Where a limit is set
 * (ulimit -v, ulimit -d) it is asked for code only while there is room for it. Nothing is mapped to find that out:
 * another thread may be at it. */
static fst_status check_room(fst_error *err)
{
    struct rlimit mapped, data;
    uint64_t all = 0, own = 0;
    if (!is_limited(&mapped, &data) || !read_pages(&all, &own) || (fits(&mapped, all) && fits(&data, own)))
        return FST_OK;
    return fst_fail(
        err, FST_E_MEMORY,
        "out of memory: oneDNN's kernels need %d MB more than the limit on memory (ulimit -v, ulimit -d) leaves",
        (int)(ROOM >> 20));
}

/* OpenMP ends its threads by pthread_exit, for which libc loads libgcc_s when it is first needed, and aborts where it
 * cannot: it is loaded now, while there is room. */
static fst_status load_unwinder(fst_error *err)
{
    struct rlimit mapped, data;
    void *here;
    fst_status s = check_room(err);
    return s || !is_limited(&mapped, &data) || backtrace(&here, 1) > 0 ? s : fst_fail_memory(err, ROOM);
}

/* ---- context and layouts ---------------------------------------------------------------------- */

static void close_context(struct fst_context *c)
{
    if (!c)
        return;
    while (c->kernels) {
        struct kernel *k = c->kernels;
        c->kernels = k->next;
        for (int i = 0; i < k->nargs; i++)
            dnnl_memory_destroy(k->args[i].memory);
        if (k->primitive)
            dnnl_primitive_destroy(k->primitive);
        fst_free(k);
    }
    while (c->layouts) {
        struct fst_layout *l = c->layouts;
        c->layouts = l->next;
        fdn_md_destroy(&l->md);
        fst_free(l);
    }
    if (c->attr_relu)
        dnnl_primitive_attr_destroy(c->attr_relu);
    if (c->attr_relu6)
        dnnl_primitive_attr_destroy(c->attr_relu6);
    if (c->attr)
        dnnl_primitive_attr_destroy(c->attr);
    if (c->stream)
        dnnl_stream_destroy(c->stream);
    if (c->engine)
        dnnl_engine_destroy(c->engine);
    fst_free(c);
}

static dnnl_status_t make_attribute(dnnl_primitive_attr_t *out, dnnl_status_t (*append)(dnnl_post_ops_t))
{
    dnnl_post_ops_t ops = NULL;
    dnnl_status_t s = dnnl_primitive_attr_create(out);
    if (!s)
        s = dnnl_primitive_attr_set_scratchpad_mode(*out, dnnl_scratchpad_mode_user);
    if (s || !append)
        return s;
    s = dnnl_post_ops_create(&ops);
    if (!s)
        s = append(ops);
    if (!s)
        s = dnnl_primitive_attr_set_post_ops(*out, ops);
    if (ops)
        dnnl_post_ops_destroy(ops);
    return s;
}

static bool supports(fst_precision p)
{
    return p == FST_PRECISION_F32 ||
           (start() && (dnnl_get_effective_cpu_isa() & dnnl_cpu_isa_avx512_core_bf16) == dnnl_cpu_isa_avx512_core_bf16);
}

static fst_status open_context(struct fst_context **out, int threads, fst_precision precision, fst_error *err)
{
    if (!start())
        return fail_unusable(err);
    omp_set_dynamic(0); /* a kernel waits at its barriers for as many threads as it was made for */
    if (threads > omp_get_thread_limit())
        return fst_fail(
            err, FST_E_CONFIG,
            "OpenMP gives %d threads at most (OMP_THREAD_LIMIT), %d are asked for: use --threads %d or raise "
            "the limit",
            omp_get_thread_limit(), threads, omp_get_thread_limit());
    fst_status st = load_unwinder(err);
    if (st)
        return st;
    struct fst_context *c = fst_calloc(1, sizeof *c);
    if (!c)
        return fst_fail_memory(err, sizeof *c);
    c->threads = threads;
    c->type = precision == FST_PRECISION_BF16 ? dnnl_bf16 : dnnl_f32;
    dnnl_status_t s = dnnl_engine_create(&c->engine, dnnl_cpu, 0);
    if (!s)
        s = dnnl_stream_create(&c->stream, c->engine, dnnl_stream_default_flags);
    if (!s)
        s = make_attribute(&c->attr, NULL);
    if (!s)
        s = make_attribute(&c->attr_relu, fdn_append_relu);
    if (!s)
        s = make_attribute(&c->attr_relu6, fdn_append_relu6);
    if (s) {
        close_context(c);
        return fdn_failed(s, "cannot start", err);
    }
    *out = c;
    return FST_OK;
}

static void enter(struct fst_context *c)
{
    /* A primitive splits its work by the number of threads at its creation, which must be the same
     * when it runs; the setting belongs to the calling thread. */
    if (omp_get_max_threads() != c->threads)
        omp_set_num_threads(c->threads);
}

static struct fst_layout *new_layout(struct fst_context *c, fst_error *err)
{
    struct fst_layout *l = fst_calloc(1, sizeof *l);
    if (!l) {
        (void)fst_fail_memory(err, sizeof *l);
        return NULL;
    }
    l->next = c->layouts;
    c->layouts = l;
    return l;
}

fst_status fdn_tagged(struct fst_context *c, dnnl_data_type_t type, int rank, const int64_t *dims, bool any,
                      const struct fst_layout **out, fst_error *err)
{
    static const dnnl_format_tag_t plain_tags[] = {dnnl_a, dnnl_a, dnnl_ab, dnnl_abc, dnnl_abcd, dnnl_abcde};
    dnnl_dims_t d = {0};
    struct fst_layout *l = new_layout(c, err);
    if (!l)
        return FST_E_MEMORY;
    for (int i = 0; i < rank; i++)
        d[i] = dims[i];
    dnnl_status_t s = fdn_md_tagged(&l->md, rank, d, type, any ? dnnl_format_tag_any : plain_tags[rank]);
    if (s)
        return fdn_failed(s, "cannot describe a tensor", err);
    *out = l;
    return FST_OK;
}

fst_status fdn_blocked(struct fst_context *c, dnnl_data_type_t type, int64_t rows, const fst_shape *sample,
                       int64_t block, const struct fst_layout **out, fst_error *err)
{
    dnnl_dims_t d = {rows, sample->dim[0], sample->dim[1], sample->dim[2]};
    struct fst_layout *l = new_layout(c, err);
    if (!l)
        return FST_E_MEMORY;
    dnnl_status_t s = fdn_md_tagged(&l->md, 4, d, type, block == 16 ? dnnl_aBcd16b : dnnl_aBcd8b);
    if (s)
        return fdn_failed(s, "cannot describe a tensor", err);
    *out = l;
    return FST_OK;
}

fst_status fdn_channels_last_layout(struct fst_context *c, dnnl_data_type_t type, int64_t rows, const fst_shape *sample,
                                    const struct fst_layout **out, fst_error *err)
{
    if (sample->rank != 3)
        return fdn_samples(c, type, rows, sample, false, out, err);
    dnnl_dims_t d = {rows, sample->dim[0], sample->dim[1], sample->dim[2]};
    struct fst_layout *l = new_layout(c, err);
    if (!l)
        return FST_E_MEMORY;
    dnnl_status_t s = fdn_md_tagged(&l->md, 4, d, type, dnnl_acdb);
    if (s)
        return fdn_failed(s, "cannot describe a tensor", err);
    *out = l;
    return FST_OK;
}

fst_status fdn_part(struct fst_context *c, int rank, const int64_t *dims, const int64_t *strides,
                    const struct fst_layout **out, fst_error *err)
{
    dnnl_dims_t d = {0}, step = {0};
    struct fst_layout *l = new_layout(c, err);
    if (!l)
        return FST_E_MEMORY;
    for (int i = 0; i < rank; i++)
        d[i] = dims[i], step[i] = strides[i];
    dnnl_status_t s = fdn_md_strided(&l->md, rank, d, dnnl_f32, step);
    if (s)
        return fdn_failed(s, "cannot describe a tensor", err);
    *out = l;
    return FST_OK;
}

fst_status fdn_samples(struct fst_context *c, dnnl_data_type_t type, int64_t rows, const fst_shape *sample, bool any,
                       const struct fst_layout **out, fst_error *err)
{
    int64_t dims[5] = {rows};
    for (int i = 0; i < sample->rank; i++)
        dims[i + 1] = sample->dim[i];
    return fdn_tagged(c, type, sample->rank + 1, dims, any, out, err);
}

fst_status fdn_sample_layout(struct fst_context *c, int64_t rows, const fst_shape *sample, bool any,
                             const struct fst_layout **out, fst_error *err)
{
    return fdn_samples(c, c->type, rows, sample, any, out, err);
}

fst_status fdn_plain(struct fst_context *c, int64_t rows, const fst_shape *sample, const struct fst_layout **out,
                     fst_error *err)
{
    return fdn_samples(c, dnnl_f32, rows, sample, false, out, err);
}

dnnl_data_type_t fdn_type(const struct fst_layout *l)
{
    return fdn_md_type(FDN_MD(l->md));
}

bool fdn_half(const struct fst_layout *l)
{
    return fdn_type(l) == dnnl_bf16;
}

size_t fdn_elements(const struct fst_layout *l)
{
    return fdn_bytes(l) / dnnl_data_type_size(fdn_type(l));
}

bool fdn_equal(const struct fst_layout *a, const struct fst_layout *b)
{
    return dnnl_memory_desc_equal(FDN_MD(a->md), FDN_MD(b->md)) != 0;
}

size_t fdn_bytes(const struct fst_layout *l)
{
    return dnnl_memory_desc_get_size(FDN_MD(l->md));
}

fst_status fdn_queried(struct fst_context *c, const_dnnl_primitive_desc_t pd, dnnl_query_t what,
                       const struct fst_layout **out, fst_error *err)
{
    fdn_md md = dnnl_primitive_desc_query_md(pd, what, 0);
    struct fst_layout *l = new_layout(c, err);
    if (!l)
        return FST_E_MEMORY;
    dnnl_status_t s = md ? fdn_md_copy(&l->md, md) : dnnl_invalid_arguments;
    if (s)
        return fdn_failed(s, "a primitive does not tell its layout", err);
    *out = l;
    return FST_OK;
}

/* ---- kernels ------------------------------------------------------------------------------------ */

static void *field_pointer(const struct fst_op_args *a, enum field f)
{
    switch (f) {
    case IN:
        return (void *)a->in;
    case OUT:
        return a->out;
    case GRAD_OUT:
        return a->grad_out;
    case GRAD_IN:
        return a->grad_in;
    case SAVED:
        return a->saved;
    case SCRATCH:
        return a->scratch;
    case HELD:
        return a->held;
    default:
        break;
    }
    if (f >= BUFFER0)
        return a->buffer[f - BUFFER0];
    return f >= GRAD_PARAM0 ? a->grad_param[f - GRAD_PARAM0] : (void *)a->param[f - PARAM0];
}

void *fdn_pointer(const struct fst_op_args *a, struct place at)
{
    return (char *)field_pointer(a, at.field) + at.offset;
}

fst_status fdn_run_primitive(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    struct kernel *k = (struct kernel *)base;
    for (int i = 0; i < k->nargs; i++) {
        struct binding *b = &k->bind[i];
        char *p = fdn_pointer(a, b->place);
        if (p != b->last) {
            dnnl_status_t s = dnnl_memory_set_data_handle(k->args[i].memory, p);
            if (s)
                return fdn_failed(s, base->name, err);
            b->last = p;
        }
    }
    if (!k->used) { /* products of matrices make their code when they first run */
        fst_status st = check_room(err);
        if (st)
            return st;
        k->used = true;
    }
    dnnl_status_t s = dnnl_primitive_execute(k->primitive, k->context->stream, k->nargs, k->args);
    return s ? fdn_failed(s, base->name, err) : FST_OK;
}

struct kernel *fdn_new_kernel(struct fst_context *c, struct fst_op *op, const char *name, bool backward, fst_error *err)
{
    if (check_room(err))
        return NULL;
    struct kernel *k = fst_calloc(1, sizeof *k);
    if (!k) {
        (void)fst_fail_memory(err, sizeof *k);
        return NULL;
    }
    k->base = (struct fst_kernel){.run = fdn_run_primitive, .name = name, .compute = true, .backward = backward};
    k->context = c;
    k->next = c->kernels;
    c->kernels = k;
    if (op)
        op->kernel[op->kernels++] = &k->base;
    return k;
}

fst_status fdn_bind(struct kernel *k, int arg, const struct fst_layout *l, struct place at, fst_error *err)
{
    dnnl_memory_t m;
    dnnl_status_t s = dnnl_memory_create(&m, FDN_MD(l->md), k->context->engine, DNNL_MEMORY_NONE);
    if (s)
        return fdn_failed(s, "cannot make a memory object", err);
    k->args[k->nargs] = (dnnl_exec_arg_t){arg, m};
    k->bind[k->nargs++] = (struct binding){at, NULL};
    return FST_OK;
}

size_t fdn_round64(size_t n)
{
    return (n + 63) / 64 * 64;
}

fst_status fdn_finish(struct kernel *k, struct fst_op *op, dnnl_primitive_desc_t pd, size_t offset, fst_error *err)
{
    const struct fst_layout *pad = NULL;
    fst_status st = fdn_queried(k->context, pd, dnnl_query_scratchpad_md, &pad, err);
    if (!st && fdn_bytes(pad)) {
        st = fdn_bind(k, DNNL_ARG_SCRATCHPAD, pad, (struct place){SCRATCH, offset}, err);
        offset += fdn_round64(fdn_bytes(pad));
    }
    if (!st) {
        dnnl_status_t s = dnnl_primitive_create(&k->primitive, pd);
        if (s)
            st = fdn_failed(s, k->base.name, err);
    }
    dnnl_primitive_desc_destroy(pd);
    if (op && offset > op->scratch)
        op->scratch = offset;
    return st;
}

fst_status fdn_new_reorder(struct fst_context *c, struct fst_op *op, const char *name, bool backward,
                           const struct fst_layout *from, struct place source, const struct fst_layout *to,
                           struct place target, struct kernel **out, fst_error *err)
{
    dnnl_primitive_desc_t pd;
    struct kernel *k = fdn_new_kernel(c, op, name, backward, err);
    if (!k)
        return FST_E_MEMORY;
    k->base.compute = false;
    dnnl_status_t s =
        dnnl_reorder_primitive_desc_create(&pd, FDN_MD(from->md), c->engine, FDN_MD(to->md), c->engine, c->attr);
    if (s)
        return fdn_failed(s, "reorder", err);
    fst_status st = fdn_bind(k, DNNL_ARG_FROM, from, source, err);
    if (!st)
        st = fdn_bind(k, DNNL_ARG_TO, to, target, err);
    if (st) {
        dnnl_primitive_desc_destroy(pd);
        return st;
    }
    if (out)
        *out = k;
    /* Reorders need no scratchpad as a rule; if one does, it lies after what the op has in its scratch. */
    size_t behind = 0;
    if (target.field == SCRATCH)
        behind = target.offset + fdn_round64(fdn_bytes(to));
    if (source.field == SCRATCH && source.offset + fdn_round64(fdn_bytes(from)) > behind)
        behind = source.offset + fdn_round64(fdn_bytes(from));
    return fdn_finish(k, op, pd, behind, err);
}

static fst_status reorder(struct fst_context *c, const struct fst_layout *from, const struct fst_layout *to,
                          struct fst_kernel **out, fst_error *err)
{
    struct kernel *k = NULL;
    struct fst_op dummy = {0};
    fst_status s =
        fdn_new_reorder(c, &dummy, "reorder", false, from, (struct place){IN, 0}, to, (struct place){OUT, 0}, &k, err);
    if (!s && dummy.scratch)
        s = fst_fail(err, FST_E_UNSUPPORTED, "oneDNN: a reorder wants a scratchpad");
    if (!s)
        *out = &k->base;
    return s;
}

static bool fuses(const struct fst_node *n, const struct fst_node *behind, bool training, bool batch_statistics)
{
    bool weighted = n->kind == FST_OP_CONV2D || n->kind == FST_OP_LINEAR;
    bool loop = n->kind == FST_OP_BATCHNORM2D && batch_statistics; /* a norm that is a loop of ours */
    if (fst__is_int8_layer(n->kind) && behind->kind != FST_OP_BATCHNORM2D)
        return fdn_has_int8();
    switch (behind->kind) {
    case FST_OP_RELU:
        return weighted || fst__is_batch_norm(n->kind) || n->kind == FST_OP_ADD;
    case FST_OP_RELU6:
        return (weighted && !training) || loop;
    case FST_OP_ADD:
        return loop;
    case FST_OP_BATCHNORM2D:
        return n->kind == FST_OP_CONV2D && !training;
    default:
        return false;
    }
}

/* oneDNN keeps the code of the last thousand primitives, training's among them, for who makes the same again. */
static void forget(void)
{
    int most;
    if (!dnnl_get_primitive_cache_capacity(&most) && !dnnl_set_primitive_cache_capacity(0))
        (void)dnnl_set_primitive_cache_capacity(most);
}

const struct fst_backend fst__backend_onednn = {
    .name = "onednn",
    .describe = describe,
    .supports = supports,
    .open = open_context,
    .close = close_context,
    .enter = enter,
    .share = fdn_share,
    .plain = fdn_plain,
    .equal = fdn_equal,
    .bytes = fdn_bytes,
    .half = fdn_half,
    .fuses = fuses,
    .op = fdn_op,
    .accumulate = fdn_accumulate,
    .forget = forget,
    .reorder = reorder,
};
