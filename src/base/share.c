/* Shares of whole things. Every share that a user writes is rounded here, so that all are rounded alike. */
#include <math.h>

#include "fedstill/base.h"

size_t fst_share_of(size_t n, double share)
{
    double x = share * (double)n;
    double whole = floor(x + 0.5 + 1e-12 * x); /* 0.145 * 100 is a little less than the 14.5 that was meant */
    return !(whole > 0) ? 0 : whole < (double)n ? (size_t)whole : n;
}
