/* flatten and reshape: the same elements in row-major order under another shape. Moves nothing in a plain
 * layout. */
#include "backend.h"

static fst_status shape(struct fst_node *n, fst_error *err)
{
    const fst_shape *want = &n->u.reshape.out;
    char a[64], b[64];
    n->out = want->rank ? *want : FST_SHAPE(fst_shape_count(&n->in));
    if (fst_shape_count(&n->out) != fst_shape_count(&n->in) || n->out.rank > 4)
        return fst_fail(err, FST_E_ARGUMENT, "%s has not the elements of %s", fst_shape_text(&n->in, a, sizeof a),
                        fst_shape_text(&n->out, b, sizeof b));
    return FST_OK;
}

const struct fst_op_type fst__op_flatten = {
    .name = "flatten",
    .shape = shape,
    .takes_complex = true,
    .takes_int8 = true,
};
