/* What batch norms do in inference, for who writes them down elsewhere or folds them into the layer before. */
#include <math.h>

#include "ops.h"

fst_norm_affine fst_graph_norm_affine(const fst_graph *g, const fst_state *s, fst_value v, int64_t channel)
{
    const struct fst_node *n = &g->nodes[v];
    const float *weight = s->params + g->params[n->first_param].offset;
    const float *bias = s->params + g->params[n->first_param + 1].offset;
    const float *mean = s->buffers + g->buffers[n->first_buffer].offset;
    const float *spread = s->buffers + g->buffers[n->first_buffer + 1].offset;
    int64_t parts = n->kind == FST_OP_COMPLEX_BATCHNORM ? 2 : 1;
    fst_norm_affine out = {{0}, {0}, {0}};
    for (int64_t k = 0; k < parts; k++) {
        out.mean[k] = (double)mean[parts * channel + k];
        out.bias[k] = (double)bias[parts * channel + k];
    }
    if (parts == 1) {
        out.a[0] = (double)weight[channel] / sqrt((double)spread[channel] + n->u.norm.eps);
        return out;
    }
    struct fst_whitening w = {.covar = {0}};
    for (int k = 0; k < 3; k++)
        w.covar[k] = (double)spread[3 * channel + k];
    fst__whiten(&w, weight + 3 * channel, n->u.norm.eps);
    for (int k = 0; k < 4; k++)
        out.a[k] = w.a[k];
    return out;
}
