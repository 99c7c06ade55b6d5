/*
 * The setting class_weights: what each class counts in the cross entropy of a stage, as the task says or from how often
 * a place has it. Which samples a place has is settled elsewhere, and what a weight does to a loss stands in nn.
 */
#include <string.h>

#include "samples.h"

bool fst__weighs_classes(const struct class_weights *w)
{
    return w->balanced || w->count;
}

void fst__count_classes(const fst_source *source, const uint32_t *index, size_t n, int64_t *counts)
{
    memset(counts, 0, (size_t)source->classes * sizeof *counts);
    for (size_t i = 0; i < n; i++)
        counts[source->labels[index ? index[i] : i]]++;
}

void fst__balance(const int64_t *counts, int classes, double *weight)
{
    double n = 0, present = 0;
    for (int c = 0; c < classes; c++) {
        n += (double)counts[c];
        present += counts[c] > 0;
    }
    for (int c = 0; c < classes; c++)
        weight[c] = counts[c] ? n / (present * (double)counts[c]) : 1;
}

const double *fst__weights_of(const struct class_weights *w, const int64_t *counts, int classes, double *room)
{
    if (!w->balanced)
        return w->count ? w->weight : NULL;
    fst__balance(counts, classes, room);
    return room;
}

fst_status fst__check_class_weights(const struct samples *d, const char *stage, const struct class_weights *w,
                                    fst_error *err)
{
    int classes = d->train->classes;
    double sum = 0;
    if (!w->count)
        return FST_OK;
    if (w->count != (size_t)classes)
        return fst_fail(err, FST_E_CONFIG,
                        "stages.%s.class_weights: %zu weight%s given, the data have %d classes: give one for each, or "
                        "balanced",
                        stage, w->count, w->count == 1 ? " is" : "s are", classes);
    for (int c = 0; c < classes; c++)
        sum += w->weight[c];
    if (sum > 0)
        return FST_OK;
    return fst_fail(err, FST_E_CONFIG, "stages.%s.class_weights: all weights are 0: nothing is left to learn from",
                    stage);
}
