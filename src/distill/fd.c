/* Federated distillation (Jeong et al. 2018): per-label mean probabilities, their mean over the other
 * clients, and the targets that follow. Nothing here knows rounds or networks. */
#include <math.h>
#include <string.h>

#include "fedstill/distill.h"

static fst_status check_labels(const int32_t *labels, size_t rows, int classes, fst_error *err)
{
    if (classes < 1)
        return fst_fail(err, FST_E_ARGUMENT, "%d classes; at least one is needed", classes);
    for (size_t r = 0; r < rows; r++)
        if (labels[r] < 0 || labels[r] >= classes)
            return fst_fail(err, FST_E_MISMATCH, "row %zu has label %d, the classes are 0 to %d", r, (int)labels[r],
                            classes - 1);
    return FST_OK;
}

fst_status fst_fd_label_means(const float *logits, const int32_t *labels, size_t rows, int classes, float *mean,
                              int64_t *count, fst_error *err)
{
    size_t n = classes > 0 ? (size_t)classes : 0;
    fst_status st = check_labels(labels, rows, classes, err);
    if (st)
        return st;
    for (size_t i = 0; i < rows * n; i++)
        if (!isfinite(logits[i]))
            return fst_fail(err, FST_E_NUMERIC, "row %zu: a logit is %g", i / n, (double)logits[i]);
    double *sum = fst_calloc(n * n + n, sizeof *sum), *lp = sum ? sum + n * n : NULL;
    if (!sum)
        return fst_fail_memory(err, (n * n + n) * sizeof *sum);
    memset(count, 0, n * sizeof *count);
    for (size_t r = 0; r < rows; r++) {
        size_t label = (size_t)labels[r];
        fst_log_softmax(logits + r * n, classes, 1.0, lp);
        for (size_t j = 0; j < n; j++)
            sum[label * n + j] += exp(lp[j]);
        count[label]++;
    }
    for (size_t i = 0; i < n * n; i++)
        mean[i] = count[i / n] ? (float)(sum[i] / (double)count[i / n]) : 0.0f;
    fst_free(sum);
    return FST_OK;
}

fst_status fst_fd_leave_one_out(const float *const *mean, const int64_t *const *count, size_t clients, int classes,
                                size_t client, float *out, fst_error *err)
{
    size_t n = (size_t)classes;
    if (classes < 1 || clients < 1)
        return fst_fail(err, FST_E_ARGUMENT, "%zu clients and %d classes; at least one of both is needed", clients,
                        classes);
    for (size_t l = 0; l < n; l++) {
        size_t holders = 0;
        for (size_t c = 0; c < clients; c++)
            holders += c != client && count[c][l] > 0;
        for (size_t j = 0; j < n; j++) {
            double sum = 0;
            for (size_t c = 0; c < clients; c++)
                if (c != client && count[c][l] > 0)
                    sum += (double)mean[c][l * n + j];
            out[l * n + j] = holders ? (float)(sum / (double)holders) : 0.0f;
        }
    }
    return FST_OK;
}

fst_status fst_fd_target(const float *by_label, const int32_t *labels, size_t rows, int classes, float *target,
                         fst_error *err)
{
    fst_status st = check_labels(labels, rows, classes, err);
    for (size_t r = 0; !st && r < rows; r++)
        memcpy(target + r * (size_t)classes, by_label + (size_t)labels[r] * (size_t)classes,
               (size_t)classes * sizeof *target);
    return st;
}
