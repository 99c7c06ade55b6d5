/*
 * Losses of feature maps: a student's inner values against its teacher's. Rows are samples, which may lie apart (a
 * tapped network's output holds the logits, too). Sums run in double and in one order, so that cutting a batch into
 * shards changes nothing.
 */
#include <math.h>

#include "fedstill/nn.h"

const char *fst_feature_form_name(fst_feature_form f)
{
    return f == FST_FEATURE_MSE ? "mse" : f == FST_FEATURE_ATTENTION ? "attention" : "?";
}

fst_status fst_feature_check(fst_feature_form f, const fst_shape *shape, const fst_shape *target, fst_error *err)
{
    char a[64], b[64];
    bool fits = fst_shape_equal(shape, target);
    if (f == FST_FEATURE_ATTENTION)
        fits =
            shape->rank == 3 && target->rank == 3 && shape->dim[1] == target->dim[1] && shape->dim[2] == target->dim[2];
    if (fits)
        return FST_OK;
    return fst_fail(err, FST_E_MISMATCH, "the student's feature map is %s, the teacher's %s: %s",
                    fst_shape_text(shape, a, sizeof a), fst_shape_text(target, b, sizeof b),
                    f == FST_FEATURE_ATTENTION ? "attention compares maps of equal height and width"
                                               : "they must be equal");
}

static double mse_row(const float *map, const float *target, size_t n, double scale, float *grad)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)map[i] - (double)target[i];
        sum += d * d;
        grad[i] += (float)(scale * 2 * d / (double)n);
    }
    return sum / (double)n;
}

struct plane { /* positions of a map and its channels */
    size_t channels, positions;
};

static struct plane plane_of(const fst_shape *s)
{
    return (struct plane){(size_t)s->dim[0], (size_t)(s->dim[1] * s->dim[2])};
}

/* The mean over the channels of the squares at one position. */
static double energy(const float *map, struct plane p, size_t at)
{
    double sum = 0;
    for (size_t c = 0; c < p.channels; c++) {
        double v = (double)map[c * p.positions + at];
        sum += v * v;
    }
    return sum / (double)p.channels;
}

static double norm_of(const float *map, struct plane p)
{
    double sum = 0;
    for (size_t i = 0; i < p.positions; i++) {
        double a = energy(map, p, i);
        sum += a * a;
    }
    return sqrt(sum);
}

/*
 * With g_i = 2 (Q_i - Q'_i)/P: da_i = (g_i - Q_i sum_k Q_k g_k)/|a| and dF_ci = 2 F_ci da_i/C. The energies are
 * computed again where they are needed: a map has few channels beside the work that made it, and no memory is asked
 * for. A map of zeros has Q = 0 and no gradient, as where PyTorch normalises it.
 */
static double attention_row(const float *map, struct plane p, const float *target, struct plane q, double scale,
                            float *grad)
{
    double norm = norm_of(map, p), other = norm_of(target, q), dot = 0, sum = 0, n = (double)p.positions;
    double own_scale = norm > 0 ? 1 / norm : 0, other_scale = other > 0 ? 1 / other : 0;
    for (size_t i = 0; i < p.positions; i++) {
        double own = energy(map, p, i) * own_scale, d = own - energy(target, q, i) * other_scale;
        sum += d * d / n;
        dot += own * 2 * d / n;
    }
    for (size_t i = 0; i < p.positions; i++) {
        double own = energy(map, p, i) * own_scale, d = own - energy(target, q, i) * other_scale;
        double pull = (2 * d / n - own * dot) * own_scale;
        for (size_t c = 0; c < p.channels; c++)
            grad[c * p.positions + i] +=
                (float)(scale * 2 * (double)map[c * p.positions + i] * pull / (double)p.channels);
    }
    return sum;
}

void fst_feature_rows(fst_feature_form f, const fst_feature_input *in, double weight, float *grad, double *row)
{
    size_t n = (size_t)fst_shape_count(&in->shape);
    double scale = weight / in->divisor;
    for (size_t r = 0; r < in->rows; r++) {
        const float *map = in->map + r * in->stride, *target = in->target + r * in->target_stride;
        float *g = grad + r * in->stride;
        if (f == FST_FEATURE_ATTENTION)
            row[r] = attention_row(map, plane_of(&in->shape), target, plane_of(&in->target_shape), scale, g);
        else
            row[r] = mse_row(map, target, n, scale, g);
    }
}
