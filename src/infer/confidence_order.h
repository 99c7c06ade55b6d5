/* Samples by rising confidence, and where a threshold may cut them. */
#ifndef FST_INFER_CONFIDENCE_ORDER_H
#define FST_INFER_CONFIDENCE_ORDER_H

#include "fedstill/base.h"

struct fst__placed {
    double confidence;
    size_t sample;
};

/* n samples, rising; equal ones by their number. Free with fst_free. */
FST_MUST fst_status fst__place(struct fst__placed **out, const double *confidence, size_t n, fst_error *err);
/* The threshold that sends exactly the first k on (0 for none; k = n: above the largest). */
double fst__cut(const struct fst__placed *p, size_t n, size_t k);
/* Whether there is one: no sample after the cut is as sure as one before it. */
bool fst__cut_at(const struct fst__placed *p, size_t n, size_t k);

#endif
