/*
 * The difference between oneDNN 2.6 (operation descriptors, memory descriptors by value) and 3.x
 * (primitive descriptors made directly, opaque memory descriptors), and nothing else. Included by
 * the files of this folder only.
 */
#ifndef FST_NN_ONEDNN_COMPAT_H
#define FST_NN_ONEDNN_COMPAT_H

#include <dnnl.h>
#include <stdbool.h>

#if DNNL_VERSION_MAJOR >= 3
typedef const_dnnl_memory_desc_t fdn_md; /* how a descriptor is passed */
typedef dnnl_memory_desc_t fdn_md_store; /* how it is kept */
#define FDN_MD(store) (store)
#else
typedef const dnnl_memory_desc_t *fdn_md;
typedef dnnl_memory_desc_t fdn_md_store;
#define FDN_MD(store) (&(store))
#endif

/* 2.6 counts the shift among the inputs of batch norm's backward pass, though it does not read it. */
#define FDN_NORM_BACKWARD_TAKES_SHIFT (DNNL_VERSION_MAJOR < 3)

struct fdn_window { /* of a convolution or pooling */
    dnnl_dims_t strides, kernel, dilation, padding;
};

static inline dnnl_status_t fdn_md_tagged(fdn_md_store *out, int rank, const dnnl_dims_t dims, dnnl_data_type_t type,
                                          dnnl_format_tag_t tag)
{
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_memory_desc_create_with_tag(out, rank, dims, type, tag);
#else
    return dnnl_memory_desc_init_by_tag(out, rank, dims, type, tag);
#endif
}

static inline dnnl_status_t fdn_md_strided(fdn_md_store *out, int rank, const dnnl_dims_t dims, dnnl_data_type_t type,
                                           const dnnl_dims_t strides)
{
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_memory_desc_create_with_strides(out, rank, dims, type, strides);
#else
    return dnnl_memory_desc_init_by_strides(out, rank, dims, type, strides);
#endif
}

static inline dnnl_status_t fdn_md_copy(fdn_md_store *out, fdn_md from)
{
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_memory_desc_clone(out, from);
#else
    *out = *from;
    return dnnl_success;
#endif
}

static inline void fdn_md_destroy(fdn_md_store *md)
{
#if DNNL_VERSION_MAJOR >= 3
    if (*md)
        dnnl_memory_desc_destroy(*md);
#else
    (void)md;
#endif
}

static inline dnnl_data_type_t fdn_md_type(fdn_md md)
{
#if DNNL_VERSION_MAJOR >= 3
    dnnl_data_type_t type = dnnl_data_type_undef;
    dnnl_memory_desc_query(md, dnnl_query_data_type, &type);
    return type;
#else
    return md->data_type;
#endif
}

/* Returns the rank. */
static inline int fdn_md_dims(fdn_md md, dnnl_dims_t out)
{
#if DNNL_VERSION_MAJOR >= 3
    int rank = 0;
    dnnl_dims_t *dims = NULL;
    dnnl_memory_desc_query(md, dnnl_query_ndims_s32, &rank);
    dnnl_memory_desc_query(md, dnnl_query_dims, &dims);
    for (int i = 0; i < rank; i++)
        out[i] = (*dims)[i];
    return rank;
#else
    for (int i = 0; i < md->ndims; i++)
        out[i] = md->dims[i];
    return md->ndims;
#endif
}

/* How many channels lie next to each other, 0 when the layout is not (n, c / block, h, w, block). */
static inline int64_t fdn_channel_block(fdn_md md)
{
#if DNNL_VERSION_MAJOR >= 3
    int blocks = 0;
    dnnl_dims_t *sizes_at, *which_at, *strides_at, *dims_at;
    if (dnnl_memory_desc_query(md, dnnl_query_inner_nblks_s32, &blocks) || blocks != 1 ||
        dnnl_memory_desc_query(md, dnnl_query_inner_blks, &sizes_at) ||
        dnnl_memory_desc_query(md, dnnl_query_inner_idxs, &which_at) ||
        dnnl_memory_desc_query(md, dnnl_query_strides, &strides_at) ||
        dnnl_memory_desc_query(md, dnnl_query_padded_dims, &dims_at))
        return 0;
    const dnnl_dim_t *sizes = *sizes_at, *which = *which_at, *strides = *strides_at, *dims = *dims_at;
#else
    if (md->format_kind != dnnl_blocked || md->format_desc.blocking.inner_nblks != 1)
        return 0;
    const dnnl_dim_t *sizes = md->format_desc.blocking.inner_blks, *which = md->format_desc.blocking.inner_idxs;
    const dnnl_dim_t *strides = md->format_desc.blocking.strides, *dims = md->padded_dims;
#endif
    int64_t block = sizes[0], plane = dims[2] * dims[3] * block;
    bool dense = which[0] == 1 && strides[3] == block && strides[2] == dims[3] * block && strides[1] == plane &&
                 strides[0] == dims[1] / block * plane;
    return dense ? block : 0;
}

/* Are channels the innermost dimension, (n, h, w, c) without padding? */
static inline bool fdn_channels_last(fdn_md md)
{
#if DNNL_VERSION_MAJOR >= 3
    int blocks = 0;
    dnnl_dims_t *strides_at, *dims_at;
    if (dnnl_memory_desc_query(md, dnnl_query_inner_nblks_s32, &blocks) || blocks != 0 ||
        dnnl_memory_desc_query(md, dnnl_query_strides, &strides_at) ||
        dnnl_memory_desc_query(md, dnnl_query_padded_dims, &dims_at))
        return false;
    const dnnl_dim_t *strides = *strides_at, *dims = *dims_at;
#else
    if (md->format_kind != dnnl_blocked || md->format_desc.blocking.inner_nblks != 0)
        return false;
    const dnnl_dim_t *strides = md->format_desc.blocking.strides, *dims = md->padded_dims;
#endif
    return strides[1] == 1 && strides[3] == dims[1] && strides[2] == dims[3] * dims[1] &&
           strides[0] == dims[2] * dims[3] * dims[1];
}

static inline dnnl_status_t fdn_append_relu(dnnl_post_ops_t ops)
{
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_relu, 0.f, 0.f);
#else
    return dnnl_post_ops_append_eltwise(ops, 1.f, dnnl_eltwise_relu, 0.f, 0.f);
#endif
}

static inline dnnl_status_t fdn_append_relu6(dnnl_post_ops_t ops)
{
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_clip, 0.f, 6.f);
#else
    return dnnl_post_ops_append_eltwise(ops, 1.f, dnnl_eltwise_clip, 0.f, 6.f);
#endif
}

static inline dnnl_status_t fdn_conv_forward(dnnl_primitive_desc_t *pd, dnnl_engine_t e, dnnl_prop_kind_t prop,
                                             fdn_md src, fdn_md weights, fdn_md bias, fdn_md dst,
                                             const struct fdn_window *w, const_dnnl_primitive_attr_t attr)
{
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_convolution_forward_primitive_desc_create(pd, e, prop, dnnl_convolution_direct, src, weights, bias, dst,
                                                          w->strides, w->dilation, w->padding, w->padding, attr);
#else
    dnnl_convolution_desc_t d;
    dnnl_status_t s = dnnl_convolution_forward_desc_init(&d, prop, dnnl_convolution_direct, src, weights, bias, dst,
                                                         w->strides, w->padding, w->padding);
    return s ? s : dnnl_primitive_desc_create(pd, &d, attr, e, NULL);
#endif
}

static inline dnnl_status_t fdn_conv_backward_data(dnnl_primitive_desc_t *pd, dnnl_engine_t e, fdn_md diff_src,
                                                   fdn_md weights, fdn_md diff_dst, const struct fdn_window *w,
                                                   const_dnnl_primitive_desc_t hint, const_dnnl_primitive_attr_t attr)
{
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_convolution_backward_data_primitive_desc_create(pd, e, dnnl_convolution_direct, diff_src, weights,
                                                                diff_dst, w->strides, w->dilation, w->padding,
                                                                w->padding, hint, attr);
#else
    dnnl_convolution_desc_t d;
    dnnl_status_t s = dnnl_convolution_backward_data_desc_init(&d, dnnl_convolution_direct, diff_src, weights, diff_dst,
                                                               w->strides, w->padding, w->padding);
    return s ? s : dnnl_primitive_desc_create(pd, &d, attr, e, hint);
#endif
}

static inline dnnl_status_t fdn_conv_backward_weights(dnnl_primitive_desc_t *pd, dnnl_engine_t e, fdn_md src,
                                                      fdn_md diff_weights, fdn_md diff_bias, fdn_md diff_dst,
                                                      const struct fdn_window *w, const_dnnl_primitive_desc_t hint,
                                                      const_dnnl_primitive_attr_t attr)
{
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_convolution_backward_weights_primitive_desc_create(pd, e, dnnl_convolution_direct, src, diff_weights,
                                                                   diff_bias, diff_dst, w->strides, w->dilation,
                                                                   w->padding, w->padding, hint, attr);
#else
    dnnl_convolution_desc_t d;
    dnnl_status_t s = dnnl_convolution_backward_weights_desc_init(
        &d, dnnl_convolution_direct, src, diff_weights, diff_bias, diff_dst, w->strides, w->padding, w->padding);
    return s ? s : dnnl_primitive_desc_create(pd, &d, attr, e, hint);
#endif
}

static inline dnnl_status_t fdn_linear_forward(dnnl_primitive_desc_t *pd, dnnl_engine_t e, dnnl_prop_kind_t prop,
                                               fdn_md src, fdn_md weights, fdn_md bias, fdn_md dst,
                                               const_dnnl_primitive_attr_t attr)
{
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_inner_product_forward_primitive_desc_create(pd, e, prop, src, weights, bias, dst, attr);
#else
    dnnl_inner_product_desc_t d;
    dnnl_status_t s = dnnl_inner_product_forward_desc_init(&d, prop, src, weights, bias, dst);
    return s ? s : dnnl_primitive_desc_create(pd, &d, attr, e, NULL);
#endif
}

static inline dnnl_status_t fdn_linear_backward_data(dnnl_primitive_desc_t *pd, dnnl_engine_t e, fdn_md diff_src,
                                                     fdn_md weights, fdn_md diff_dst, const_dnnl_primitive_desc_t hint,
                                                     const_dnnl_primitive_attr_t attr)
{
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_inner_product_backward_data_primitive_desc_create(pd, e, diff_src, weights, diff_dst, hint, attr);
#else
    dnnl_inner_product_desc_t d;
    dnnl_status_t s = dnnl_inner_product_backward_data_desc_init(&d, diff_src, weights, diff_dst);
    return s ? s : dnnl_primitive_desc_create(pd, &d, attr, e, hint);
#endif
}

static inline dnnl_status_t fdn_linear_backward_weights(dnnl_primitive_desc_t *pd, dnnl_engine_t e, fdn_md src,
                                                        fdn_md diff_weights, fdn_md diff_bias, fdn_md diff_dst,
                                                        const_dnnl_primitive_desc_t hint,
                                                        const_dnnl_primitive_attr_t attr)
{
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_inner_product_backward_weights_primitive_desc_create(pd, e, src, diff_weights, diff_bias, diff_dst,
                                                                     hint, attr);
#else
    dnnl_inner_product_desc_t d;
    dnnl_status_t s = dnnl_inner_product_backward_weights_desc_init(&d, src, diff_weights, diff_bias, diff_dst);
    return s ? s : dnnl_primitive_desc_create(pd, &d, attr, e, hint);
#endif
}

static inline dnnl_status_t fdn_pool_forward(dnnl_primitive_desc_t *pd, dnnl_engine_t e, dnnl_prop_kind_t prop,
                                             dnnl_alg_kind_t alg, fdn_md src, fdn_md dst, const struct fdn_window *w,
                                             const_dnnl_primitive_attr_t attr)
{
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_pooling_forward_primitive_desc_create(pd, e, prop, alg, src, dst, w->strides, w->kernel, w->dilation,
                                                      w->padding, w->padding, attr);
#else
    dnnl_pooling_desc_t d;
    dnnl_status_t s =
        dnnl_pooling_forward_desc_init(&d, prop, alg, src, dst, w->strides, w->kernel, w->padding, w->padding);
    return s ? s : dnnl_primitive_desc_create(pd, &d, attr, e, NULL);
#endif
}

static inline dnnl_status_t fdn_pool_backward(dnnl_primitive_desc_t *pd, dnnl_engine_t e, dnnl_alg_kind_t alg,
                                              fdn_md diff_src, fdn_md diff_dst, const struct fdn_window *w,
                                              const_dnnl_primitive_desc_t hint, const_dnnl_primitive_attr_t attr)
{
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_pooling_backward_primitive_desc_create(pd, e, alg, diff_src, diff_dst, w->strides, w->kernel,
                                                       w->dilation, w->padding, w->padding, hint, attr);
#else
    dnnl_pooling_desc_t d;
    dnnl_status_t s =
        dnnl_pooling_backward_desc_init(&d, alg, diff_src, diff_dst, w->strides, w->kernel, w->padding, w->padding);
    return s ? s : dnnl_primitive_desc_create(pd, &d, attr, e, hint);
#endif
}

static inline dnnl_status_t fdn_batchnorm_forward(dnnl_primitive_desc_t *pd, dnnl_engine_t e, dnnl_prop_kind_t prop,
                                                  fdn_md data, float eps, unsigned flags,
                                                  const_dnnl_primitive_attr_t attr)
{
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_batch_normalization_forward_primitive_desc_create(pd, e, prop, data, data, eps, flags, attr);
#else
    dnnl_batch_normalization_desc_t d;
    dnnl_status_t s = dnnl_batch_normalization_forward_desc_init(&d, prop, data, eps, flags);
    return s ? s : dnnl_primitive_desc_create(pd, &d, attr, e, NULL);
#endif
}

static inline dnnl_status_t fdn_batchnorm_backward(dnnl_primitive_desc_t *pd, dnnl_engine_t e, fdn_md diff_data,
                                                   fdn_md data, float eps, unsigned flags,
                                                   const_dnnl_primitive_desc_t hint, const_dnnl_primitive_attr_t attr)
{
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_batch_normalization_backward_primitive_desc_create(pd, e, dnnl_backward, diff_data, diff_data, data,
                                                                   eps, flags, hint, attr);
#else
    dnnl_batch_normalization_desc_t d;
    dnnl_status_t s = dnnl_batch_normalization_backward_desc_init(&d, dnnl_backward, diff_data, data, eps, flags);
    return s ? s : dnnl_primitive_desc_create(pd, &d, attr, e, hint);
#endif
}

#endif
