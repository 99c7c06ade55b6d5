/*
 * A temperature that is learnt against the student. One number and its optimiser; who trains feeds it the slope of the
 * loss and asks for the temperature of the next step.
 */
#include <math.h>

#include "fedstill/distill.h"

fst_status fst_curriculum_init(fst_curriculum *c, double start, double range, int64_t epochs,
                               const fst_optim_spec *spec, fst_error *err)
{
    fst_curriculum n = {.start = start, .range = range, .epochs = epochs, .theta = 1};
    if (!(start > 0) || !(range > 0))
        return fst_fail(err, FST_E_CONFIG, "a learnt temperature needs a start and a range above 0, not %g and %g",
                        start, range);
    fst_status st = fst_optim_init(&n.optim, spec, 1, err);
    if (!st)
        *c = n;
    return st;
}

void fst_curriculum_release(fst_curriculum *c)
{
    if (c)
        fst_optim_release(&c->optim);
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

double fst_curriculum_temperature(const fst_curriculum *c)
{
    return c->start + c->range * sigmoid((double)c->theta);
}

double fst_curriculum_strength(const fst_curriculum *c, int64_t epoch)
{
    double share = c->epochs > 0 && epoch < c->epochs ? (double)epoch / (double)c->epochs : 1;
    return (1 - cos(3.14159265358979323846 * share)) / 2;
}

void fst_curriculum_step(fst_curriculum *c, int64_t epoch, double grad, double learning_rate)
{
    double s = sigmoid((double)c->theta);
    float reversed = (float)(-fst_curriculum_strength(c, epoch) * grad * c->range * s * (1 - s)), *one = &reversed;
    fst_optim_input in = {.grads = &one, .parts = 1, .learning_rate = learning_rate};
    (void)fst_optim_step(&c->optim, &c->theta, &in, NULL);
}
