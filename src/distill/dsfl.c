/* DS-FL (Itahara et al., IEEE TMC 2023): the mean of the clients' probabilities for public samples, and its
 * sharpening. Clients count the same, however many samples they have. */
#include <math.h>

#include "fedstill/distill.h"

const char *fst_sharpen_name(fst_sharpen s)
{
    static const char *const names[] = {"era", "enhanced_era"};
    return (size_t)s < sizeof names / sizeof *names ? names[s] : "?";
}

fst_status fst_dsfl_mean(const float *const *probabilities, size_t clients, size_t rows, int classes, float *out,
                         fst_error *err)
{
    if (clients < 1 || classes < 1)
        return fst_fail(err, FST_E_ARGUMENT, "%zu clients and %d classes; at least one of both is needed", clients,
                        classes);
    for (size_t i = 0; i < rows * (size_t)classes; i++) {
        double sum = 0;
        for (size_t c = 0; c < clients; c++)
            sum += (double)probabilities[c][i];
        out[i] = (float)(sum / (double)clients);
    }
    return FST_OK;
}

static fst_status check_rows(const float *mean, size_t rows, size_t n, fst_error *err)
{
    for (size_t r = 0; r < rows; r++) {
        double mass = 0;
        for (size_t j = 0; j < n; j++) {
            float p = mean[r * n + j];
            if (!(p >= 0) || isinf(p))
                return fst_fail(err, FST_E_NUMERIC, "row %zu, class %zu: %g is no probability", r, j, (double)p);
            mass += (double)p;
        }
        if (mass == 0)
            return fst_fail(err, FST_E_NUMERIC, "row %zu: all its probabilities are 0", r);
    }
    return FST_OK;
}

/* p^beta by way of (p / largest)^beta, so that no power of a small number vanishes with all the others. */
static void raise_row(const float *p, size_t n, double beta, float *out)
{
    double largest = 0, sum = 0;
    for (size_t j = 0; j < n; j++)
        largest = (double)p[j] > largest ? (double)p[j] : largest;
    for (size_t j = 0; j < n; j++)
        sum += pow((double)p[j] / largest, beta);
    for (size_t j = 0; j < n; j++)
        out[j] = (float)(pow((double)p[j] / largest, beta) / sum);
}

fst_status fst_dsfl_sharpen(fst_sharpen how, double value, const float *mean, size_t rows, int classes, float *target,
                            fst_error *err)
{
    size_t n = (size_t)classes;
    if (classes < 1 || !(value > 0) || isinf(value))
        return fst_fail(err, FST_E_ARGUMENT,
                        "sharpening %d classes by %g; at least one and a number above 0 are needed", classes, value);
    fst_status st = check_rows(mean, rows, n, err);
    if (!st && how == FST_SHARPEN_ERA)
        fst_softmax(mean, rows, classes, value, target);
    for (size_t r = 0; !st && how == FST_SHARPEN_ENHANCED_ERA && r < rows; r++)
        raise_row(mean + r * n, n, value, target + r * n);
    return st;
}
