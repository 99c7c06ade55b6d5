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

enum { KEPT = 4096 };

/* The energies of a row's map. Those of usual maps are computed once, channel by channel; larger ones wherever they are
 * needed, since no memory is asked for here. The bits are the same. */
struct energies {
    const float *map;
    struct plane p;
    bool kept;
    double at[KEPT], scale; /* 1/norm, or 0 for a map of zeros */
};

static double energy_at(const struct energies *e, size_t i)
{
    return e->kept ? e->at[i] : energy(e->map, e->p, i);
}

static void take_energies(struct energies *e, const float *map, struct plane p)
{
    double sum = 0;
    e->map = map;
    e->p = p;
    e->kept = p.positions <= KEPT;
    for (size_t i = 0; e->kept && i < p.positions; i++)
        e->at[i] = 0;
    for (size_t c = 0; e->kept && c < p.channels; c++)
        for (size_t i = 0; i < p.positions; i++) {
            double v = (double)map[c * p.positions + i];
            e->at[i] += v * v;
        }
    for (size_t i = 0; e->kept && i < p.positions; i++)
        e->at[i] /= (double)p.channels;
    for (size_t i = 0; i < p.positions; i++)
        sum += energy_at(e, i) * energy_at(e, i);
    e->scale = sum > 0 ? 1 / sqrt(sum) : 0;
}

/*
 * With g_i = 2 (Q_i - Q'_i)/P: da_i = (g_i - Q_i sum_k Q_k g_k)/|a| and dF_ci = 2 F_ci da_i/C. A map of zeros has Q = 0
 * and no gradient, as where PyTorch normalises it.
 */
static double attention_row(const float *map, struct plane p, const float *target, struct plane q, double scale,
                            float *grad)
{
    struct energies own, other;
    double dot = 0, sum = 0, n = (double)p.positions;
    take_energies(&own, map, p);
    take_energies(&other, target, q);
    for (size_t i = 0; i < p.positions; i++) {
        double mine = energy_at(&own, i) * own.scale, d = mine - energy_at(&other, i) * other.scale;
        sum += d * d / n;
        dot += mine * 2 * d / n;
    }
    for (size_t i = 0; i < p.positions; i++) {
        double mine = energy_at(&own, i) * own.scale, d = mine - energy_at(&other, i) * other.scale;
        double pull = (2 * d / n - mine * dot) * own.scale;
        if (own.kept)
            own.at[i] = pull; /* the energy has done its service */
        for (size_t c = 0; !own.kept && c < p.channels; c++)
            grad[c * p.positions + i] +=
                (float)(scale * 2 * (double)map[c * p.positions + i] * pull / (double)p.channels);
    }
    for (size_t c = 0; own.kept && c < p.channels; c++)
        for (size_t i = 0; i < p.positions; i++)
            grad[c * p.positions + i] +=
                (float)(scale * 2 * (double)map[c * p.positions + i] * own.at[i] / (double)p.channels);
    return sum;
}

void fst_feature_rows(fst_feature_form f, const fst_feature_input *in, double weight, float *grad, double *row)
{
    size_t n = (size_t)fst_shape_count(&in->shape);
    double scale = weight / in->divisor;
    for (size_t r = 0; r < in->rows; r++) {
        const float *map = in->map + r * in->stride, *target = in->target + r * in->target_stride;
        float *g = grad + r * in->stride;
        double w = in->row_weight ? (double)in->row_weight[r] : 1;
        if (f == FST_FEATURE_ATTENTION)
            row[r] = attention_row(map, plane_of(&in->shape), target, plane_of(&in->target_shape), w * scale, g);
        else
            row[r] = mse_row(map, target, n, w * scale, g);
        row[r] *= w;
    }
}
