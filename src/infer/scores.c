/* Scores from counts by class. Who counts, and over which samples, is not known here. */
#include <math.h>

#include "fedstill/infer.h"

void fst_macro_scores(const int64_t *samples, const int64_t *answers, const int64_t *right, size_t classes,
                      double *macro_f1, double *balanced)
{
    double f1 = 0, recall = 0;
    size_t met = 0, there = 0;
    for (size_t c = 0; c < classes; c++) {
        int64_t both = samples[c] + answers[c];
        f1 += both ? 2 * (double)right[c] / (double)both : 0;
        recall += samples[c] ? (double)right[c] / (double)samples[c] : 0;
        met += both > 0;
        there += samples[c] > 0;
    }
    if (macro_f1)
        *macro_f1 = there ? f1 / (double)met : NAN;
    if (balanced)
        *balanced = there ? recall / (double)there : NAN;
}
