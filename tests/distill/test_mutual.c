/*
 * Deep mutual learning as the task file's online peers do it: three linear classifiers, several steps in halves,
 * against the same steps computed by hand in double from the equations: dL/dz = ce (p - y) + kd T (p_T - q)/1, all over
 * the batch.
 */
#include "nn/support.h"

#include "fedstill/distill.h"

enum { NETS = 3, ROWS = 7, IN = 4, CLASSES = 3, STEPS = 5, WIDTH = IN * CLASSES + CLASSES };

static const double rate = 0.3, ce = 0.8, kd = 0.5;

static void soften(const double *z, double t, double *p)
{
    double sum = 0;
    for (int j = 0; j < CLASSES; j++)
        sum += p[j] = exp(z[j] / t);
    for (int j = 0; j < CLASSES; j++)
        p[j] /= sum;
}

/* One step of all networks, each from the others' answers before it. w: weights row by row, then biases. */
static void step_by_hand(double w[NETS][WIDTH], const float *x, const int32_t *labels, double t)
{
    double z[NETS][ROWS][CLASSES], grad[NETS][WIDTH] = {{0}};
    for (int k = 0; k < NETS; k++)
        for (int r = 0; r < ROWS; r++)
            for (int j = 0; j < CLASSES; j++) {
                z[k][r][j] = w[k][IN * CLASSES + j];
                for (int i = 0; i < IN; i++)
                    z[k][r][j] += w[k][j * IN + i] * (double)x[r * IN + i];
            }
    for (int k = 0; k < NETS; k++)
        for (int r = 0; r < ROWS; r++) {
            double p[CLASSES], soft[CLASSES], q[CLASSES] = {0}, other[CLASSES];
            soften(z[k][r], 1, p);
            soften(z[k][r], t, soft);
            for (int o = 0; o < NETS; o++) {
                soften(z[o][r], t, other);
                for (int j = 0; o != k && j < CLASSES; j++)
                    q[j] += other[j] / (NETS - 1);
            }
            for (int j = 0; j < CLASSES; j++) {
                double d = (ce * (p[j] - (j == labels[r])) + kd * t * (soft[j] - q[j])) / ROWS;
                for (int i = 0; i < IN; i++)
                    grad[k][j * IN + i] += d * (double)x[r * IN + i];
                grad[k][IN * CLASSES + j] += d;
            }
        }
    for (int k = 0; k < NETS; k++)
        for (int i = 0; i < WIDTH; i++)
            w[k][i] -= rate * grad[k][i];
}

struct net {
    fst_trainer *trainer;
    fst_state state;
    fst_optim optim;
    float logits[ROWS * CLASSES];
};

static fst_graph *linear_net(void)
{
    fst_graph *g = NULL;
    assert_ok(fst_graph_new(&g, err));
    assert_ok(fst_graph_finish(g, fst_graph_linear(g, fst_graph_input(g, &FST_SHAPE(IN)), "fc", CLASSES, true), err));
    return g;
}

static void step_of_library(struct net *n, const float *x, const int32_t *labels, double t, uint64_t step)
{
    const float *views[NETS];
    float target[ROWS * CLASSES], at_one[ROWS * CLASSES];
    fst_step_input in = {.rows = ROWS,
                         .x = x,
                         .labels = labels,
                         .loss = {.ce_weight = ce, .kd_weight = kd, .temperature = t},
                         .learning_rate = rate,
                         .step = step};
    for (int k = 0; k < NETS; k++) {
        assert_ok(fst_trainer_forward(n[k].trainer, &n[k].state, &in, n[k].logits, err));
        views[k] = n[k].logits;
    }
    for (int k = 0; k < NETS; k++) {
        const float *others[NETS - 1] = {views[(k + 1) % NETS], views[(k + 2) % NETS]};
        fst_teachers all = {views, NETS, ROWS, CLASSES, NULL}, rest = {others, NETS - 1, ROWS, CLASSES, NULL};
        fst_step_result r;
        assert_ok(fst_teachers_target(FST_ENSEMBLE_MEAN_PROBABILITIES, &rest, t, target, NULL, err));
        assert_ok(fst_peers_target(&all, (size_t)k, at_one, NULL, err));
        if (t == 1)
            assert_true(distance(target, at_one, ROWS * CLASSES) < 1e-6);
        in.soft = target;
        assert_ok(fst_trainer_finish(n[k].trainer, &n[k].optim, &in, &r, err));
    }
}

static void networks_learn_from_each_other(void **state)
{
    fst_graph *g = linear_net();
    fst_trainer_options o = {.batch_size = ROWS, .threads = 2, .shard_size = 3, .halves = true};
    fst_optim_spec sgd = {.kind = FST_OPTIM_SGD, .learning_rate = rate};
    float x[ROWS * IN];
    int32_t labels[ROWS];
    (void)state;
    fill_normal(x, ROWS * IN, 1, "test.x", 1);
    fill_labels(labels, ROWS, CLASSES, 2);
    for (double t = 1; t < 4; t += 2) {
        struct net n[NETS] = {{0}};
        double w[NETS][WIDTH], start[NETS][WIDTH];
        for (int k = 0; k < NETS; k++) {
            assert_ok(fst_trainer_new(&n[k].trainer, g, &o, err));
            assert_ok(fst_state_init(&n[k].state, g, err));
            assert_ok(fst_optim_init(&n[k].optim, &sgd, WIDTH, err));
            fill_normal(n[k].state.params, WIDTH, 10 + (uint64_t)k, "test.w", 1);
            for (int i = 0; i < WIDTH; i++)
                w[k][i] = start[k][i] = (double)n[k].state.params[i];
        }
        for (uint64_t step = 0; step < STEPS; step++) {
            step_of_library(n, x, labels, t, step);
            step_by_hand(w, x, labels, t);
        }
        for (int k = 0; k < NETS; k++) {
            double moved = 0;
            for (int i = 0; i < WIDTH; i++) {
                assert_true(fabs(w[k][i] - (double)n[k].state.params[i]) < 2e-6);
                moved += fabs(w[k][i] - start[k][i]);
            }
            assert_true(moved > 0.1);
            fst_trainer_free(n[k].trainer);
            fst_state_release(&n[k].state);
            fst_optim_release(&n[k].optim);
        }
    }
    fst_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(networks_learn_from_each_other)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
