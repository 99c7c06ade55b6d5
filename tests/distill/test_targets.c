/* Targets of several teachers, peers and clients: gradients of the losses that they stand for by finite differences,
 * what must hold for any of them, and what they refuse. */
#include "nn/support.h"

#include "fedstill/distill.h"

enum { ROWS = 5, CLASSES = 4, VOICES = 3, VALUES = ROWS * CLASSES };

struct voices {
    float z[VOICES][VALUES];
    const float *logits[VOICES];
    int32_t labels[ROWS];
    fst_teachers t;
};

static void open_voices(struct voices *v)
{
    for (int k = 0; k < VOICES; k++) {
        fill_normal(v->z[k], VALUES, 10 + (uint64_t)k, "test.voice", 1 + k);
        v->logits[k] = v->z[k];
    }
    fill_labels(v->labels, ROWS, CLASSES, 4);
    v->t = (fst_teachers){v->logits, VOICES, ROWS, CLASSES, v->labels};
}

/* KL(softmax(a/T) || softmax(b/T)) of one row, from the definition. */
static double kl(const float *a, const float *b, double t)
{
    double sa = 0, sb = 0, sum = 0;
    for (int j = 0; j < CLASSES; j++) {
        sa += exp((double)a[j] / t);
        sb += exp((double)b[j] / t);
    }
    for (int j = 0; j < CLASSES; j++) {
        double p = exp((double)a[j] / t) / sa, q = exp((double)b[j] / t) / sb;
        sum += p * log(p / q);
    }
    return sum;
}

/* T^2 mean_i sum_k w_k KL_k: what a target and its spread stand for. */
static double weighted_losses(const struct voices *v, const double *weights, const float *student, double t)
{
    double sum = 0;
    for (size_t r = 0; r < ROWS; r++)
        for (size_t k = 0; k < VOICES; k++)
            sum += weights[k * ROWS + r] * kl(v->z[k] + r * CLASSES, student + r * CLASSES, t);
    return t * t * sum / ROWS;
}

/* The student's loss against the target, plus the spread, is the weighted sum of losses; so is its gradient. */
static void targets_stand_for_weighted_losses(void **state)
{
    const fst_ensemble how[] = {FST_ENSEMBLE_MEAN_PROBABILITIES, FST_ENSEMBLE_ENTROPY, FST_ENSEMBLE_CONFIDENCE};
    struct voices v;
    float student[VALUES], target[VALUES], grad[VALUES];
    double weights[VOICES * ROWS], spread[ROWS], row[ROWS];
    const double h = 1.0 / 256;
    (void)state;
    open_voices(&v);
    fill_normal(student, VALUES, 2, "test.student", 2);
    for (int i = 0; i < VALUES; i++)
        student[i] = (float)(round((double)student[i] / h) * h);
    for (int k = 0; k < 6; k++) {
        double t = k < 3 ? 1 : 4, loss = 0;
        fst_loss l = {.kd_weight = 1, .temperature = t};
        fst_loss_input in = {.logits = student, .rows = ROWS, .classes = CLASSES, .soft = target, .divisor = ROWS};
        assert_ok(fst_teachers_weights(how[k % 3], &v.t, weights, err));
        assert_ok(fst_teachers_target(how[k % 3], &v.t, t, target, spread, err));
        fst_loss_rows(&l, &in, grad, row, NULL, NULL);
        for (int r = 0; r < ROWS; r++)
            loss += (row[r] + t * t * spread[r]) / ROWS;
        assert_true(fabs(loss - weighted_losses(&v, weights, student, t)) < 1e-6);
        for (int i = 0; i < VALUES; i++) {
            float was = student[i];
            student[i] = (float)((double)was + h);
            double up = weighted_losses(&v, weights, student, t);
            student[i] = (float)((double)was - h);
            double slope = (up - weighted_losses(&v, weights, student, t)) / (2 * h);
            student[i] = was;
            assert_true(fabs(slope - (double)grad[i]) < 1e-5);
        }
    }
}

static void weights_and_targets_sum_to_one(void **state)
{
    struct voices v;
    (void)state;
    open_voices(&v);
    for (int how = FST_ENSEMBLE_MEAN_PROBABILITIES; how <= FST_ENSEMBLE_CONFIDENCE; how++)
        for (size_t count = 1; count <= VOICES; count++) {
            double weights[VOICES * ROWS], spread[ROWS];
            float target[VALUES];
            v.t.count = count;
            assert_ok(fst_teachers_weights((fst_ensemble)how, &v.t, weights, err));
            assert_ok(fst_teachers_target((fst_ensemble)how, &v.t, 2, target, spread, err));
            for (size_t r = 0; r < ROWS; r++) {
                double sum = 0, mass = 0;
                for (size_t k = 0; k < count; k++) {
                    assert_true(weights[k * ROWS + r] >= 0);
                    sum += weights[k * ROWS + r];
                }
                for (size_t j = 0; j < CLASSES; j++)
                    mass += (double)target[r * CLASSES + j];
                assert_true(fabs(sum - 1) < 1e-12 && fabs(mass - 1) < 1e-6);
                assert_true(count == 1 ? fabs(spread[r]) < 1e-12 : spread[r] > 0);
            }
        }
}

/* One is certain and right, one knows nothing, one is certain and wrong. */
static void the_certain_and_the_right_count_more(void **state)
{
    const float right[CLASSES] = {0, 9, 0, 0}, flat[CLASSES] = {2, 2, 2, 2}, wrong[CLASSES] = {0, 0, 0, 9};
    const float *all[] = {right, flat, wrong};
    const int32_t label = 1;
    fst_teachers t = {all, 3, 1, CLASSES, &label};
    double w[3];
    (void)state;
    assert_ok(fst_teachers_weights(FST_ENSEMBLE_ENTROPY, &t, w, err));
    assert_true(fabs(w[0] - w[2]) < 1e-12 && w[0] > 0.49 && w[1] < 0.02);
    assert_ok(fst_teachers_weights(FST_ENSEMBLE_CONFIDENCE, &t, w, err));
    assert_true(w[0] > w[1] && w[1] > w[2] && w[2] < 0.01);
    assert_ok(fst_teachers_weights(FST_ENSEMBLE_MEAN_PROBABILITIES, &t, w, err));
    assert_true(w[0] == w[1] && w[1] == w[2]);
}

static void means_of_logits_and_of_probabilities_differ(void **state)
{
    const float a[2] = {8, 0}, b[2] = {0, 2};
    const float *both[] = {a, b};
    fst_teachers t = {both, 2, 1, 2, NULL};
    float q[2];
    (void)state;
    assert_ok(fst_teachers_target(FST_ENSEMBLE_MEAN_LOGITS, &t, 1, q, NULL, err)); /* softmax(4, 1) */
    assert_true(fabs((double)q[0] - 1 / (1 + exp(-3))) < 1e-6);
    assert_ok(fst_teachers_target(FST_ENSEMBLE_MEAN_PROBABILITIES, &t, 1, q, NULL, err));
    assert_true(fabs((double)q[0] - (1 / (1 + exp(-8)) + 1 / (1 + exp(2))) / 2) < 1e-6);
}

/* A peer's target is what the others' mean is; its own logits do not count. */
static void peers_leave_themselves_out(void **state)
{
    struct voices v;
    float target[VALUES], mean[VALUES];
    const float *others[2];
    (void)state;
    open_voices(&v);
    for (size_t self = 0; self < VOICES; self++) {
        others[0] = v.z[self == 0];
        others[1] = v.z[self == 2 ? 1 : 2];
        fst_teachers t = {others, 2, ROWS, CLASSES, NULL};
        assert_ok(fst_teachers_target(FST_ENSEMBLE_MEAN_PROBABILITIES, &t, 1, mean, NULL, err));
        assert_ok(fst_peers_target(&v.t, self, target, NULL, err));
        assert_memory_equal(target, mean, sizeof mean);
    }
    assert_fails(fst_peers_target(&v.t, VOICES, target, NULL, err), FST_E_ARGUMENT, "peer 3 of 3");
    v.t.count = 1;
    assert_fails(fst_peers_target(&v.t, 0, target, NULL, err), FST_E_ARGUMENT, "two peers");
}

static void wrong_teachers(void **state)
{
    struct voices v;
    float target[VALUES] = {5};
    double spread[ROWS];
    (void)state;
    open_voices(&v);
    assert_fails(fst_teachers_target(FST_ENSEMBLE_ENTROPY, &v.t, 0, target, spread, err), FST_E_ARGUMENT,
                 "temperature");
    v.z[1][6] = NAN;
    assert_fails(fst_teachers_target(FST_ENSEMBLE_ENTROPY, &v.t, 1, target, spread, err), FST_E_NUMERIC,
                 "teacher 1, row 1");
    v.z[1][6] = 0;
    v.labels[2] = CLASSES;
    assert_ok(fst_teachers_target(FST_ENSEMBLE_ENTROPY, &v.t, 1, target, spread, err)); /* does not read them */
    target[0] = 5;
    assert_fails(fst_teachers_target(FST_ENSEMBLE_CONFIDENCE, &v.t, 1, target, spread, err), FST_E_MISMATCH, "row 2");
    v.t.labels = NULL;
    assert_fails(fst_teachers_target(FST_ENSEMBLE_CONFIDENCE, &v.t, 1, target, spread, err), FST_E_ARGUMENT, "labels");
    v.t.count = 0;
    assert_fails(fst_teachers_target(FST_ENSEMBLE_MEAN_LOGITS, &v.t, 1, target, spread, err), FST_E_ARGUMENT,
                 "0 teachers");
    assert_true(target[0] == 5);
    v.t.count = 1;
    fst_alloc_fail_at(1);
    fst_status s = fst_teachers_target(FST_ENSEMBLE_MEAN_LOGITS, &v.t, 1, target, spread, NULL);
    fst_alloc_fail_at(0);
    assert_int_equal(s, FST_E_MEMORY);
}

/* ---- federated distillation ----------------------------------------------------------------------- */

/* Three clients, four labels: 0 at all, 1 at the first alone, 2 at the last two, 3 nowhere. */
static void leave_one_out(void **state)
{
    const int32_t labels[3][ROWS] = {{0, 1, 0, 1, 1}, {0, 0, 2, 2, 0}, {2, 2, 2, 0, 2}};
    struct voices v;
    float mean[3][16], out[16], target[VALUES];
    int64_t count[3][CLASSES];
    const float *means[] = {mean[0], mean[1], mean[2]};
    const int64_t *counts[] = {count[0], count[1], count[2]};
    (void)state;
    open_voices(&v);
    for (int c = 0; c < 3; c++)
        assert_ok(fst_fd_label_means(v.z[c], labels[c], ROWS, CLASSES, mean[c], count[c], err));
    assert_true(count[0][1] == 3 && count[1][2] == 2 && count[2][0] == 1 && count[2][3] == 0);
    assert_ok(fst_fd_leave_one_out(means, counts, 3, CLASSES, 0, out, err));
    for (int j = 0; j < CLASSES; j++) {
        float p[CLASSES];
        fst_softmax(v.z[2] + 3 * CLASSES, 1, CLASSES, 1, p); /* the only sample of label 0 at the last client */
        assert_true(fabs((double)mean[2][j] - (double)p[j]) < 1e-7);
        assert_true(fabs((double)out[j] - ((double)mean[1][j] + (double)mean[2][j]) / 2) < 1e-7);
        assert_true(out[4 + j] == 0); /* nobody else has label 1 */
        assert_true(fabs((double)out[8 + j] - ((double)mean[1][8 + j] + (double)mean[2][8 + j]) / 2) < 1e-7);
        assert_true(out[12 + j] == 0 && mean[0][12 + j] == 0);
    }
    assert_ok(fst_fd_target(out, labels[0], ROWS, CLASSES, target, err));
    fst_loss l = {.kd_weight = 1, .temperature = 1, .kd_form = FST_KD_CROSS_ENTROPY};
    fst_loss_input in = {.logits = v.z[0], .rows = ROWS, .classes = CLASSES, .soft = target, .divisor = ROWS};
    float grad[VALUES];
    double row[ROWS];
    fst_loss_rows(&l, &in, grad, row, NULL, NULL);
    for (int r = 0; r < ROWS; r++) { /* rows of label 1 have no target */
        assert_true((row[r] == 0) == (labels[0][r] == 1));
        assert_true((grad[r * CLASSES] == 0) == (labels[0][r] == 1));
    }
    assert_ok(fst_fd_leave_one_out(means, counts, 3, CLASSES, 3, out, err)); /* nobody left out */
    assert_memory_equal(out + 4, mean[0] + 4, 4 * sizeof *out);
}

static void wrong_statistics(void **state)
{
    const int32_t labels[] = {0, -1};
    float z[2 * CLASSES] = {0}, mean[16], out[16];
    int64_t count[CLASSES];
    (void)state;
    assert_fails(fst_fd_label_means(z, labels, 2, CLASSES, mean, count, err), FST_E_MISMATCH, "row 1 has label -1");
    assert_fails(fst_fd_target(mean, labels, 2, CLASSES, out, err), FST_E_MISMATCH, "label -1");
    z[1] = INFINITY;
    assert_fails(fst_fd_label_means(z, labels, 1, CLASSES, mean, count, err), FST_E_NUMERIC, "row 0");
    assert_fails(fst_fd_leave_one_out(NULL, NULL, 0, CLASSES, 0, out, err), FST_E_ARGUMENT, "0 clients");
    z[1] = 0;
    fst_alloc_fail_at(1);
    fst_status s = fst_fd_label_means(z, labels, 1, CLASSES, mean, count, NULL);
    fst_alloc_fail_at(0);
    assert_int_equal(s, FST_E_MEMORY);
}

static double entropy(const float *p)
{
    double h = 0;
    for (int j = 0; j < CLASSES; j++)
        h -= p[j] > 0 ? (double)p[j] * log((double)p[j]) : 0;
    return h;
}

static void sharpening_lowers_entropy(void **state)
{
    float a[CLASSES] = {0.5f, 0.3f, 0.2f, 0}, b[CLASSES] = {0.3f, 0.3f, 0.4f, 0}, mean[CLASSES], q[CLASSES];
    const float *both[] = {a, b};
    (void)state;
    assert_ok(fst_dsfl_mean(both, 2, 1, CLASSES, mean, err));
    assert_true(fabs((double)mean[0] - 0.4) < 1e-7 && fabs((double)mean[2] - 0.3) < 1e-7 && mean[3] == 0);
    assert_ok(fst_dsfl_sharpen(FST_SHARPEN_ERA, 0.1, mean, 1, CLASSES, q, err));
    assert_true(entropy(q) < entropy(mean) && fabs(log((double)q[0] / (double)q[1]) - 1) < 1e-5);
    assert_ok(fst_dsfl_sharpen(FST_SHARPEN_ENHANCED_ERA, 2, mean, 1, CLASSES, q, err));
    assert_true(entropy(q) < entropy(mean) && fabs((double)q[0] - 0.16 / 0.34) < 1e-6 && q[3] == 0);
    assert_ok(fst_dsfl_sharpen(FST_SHARPEN_ENHANCED_ERA, 1, mean, 1, CLASSES, q, err)); /* beta 1: as it is */
    for (int j = 0; j < CLASSES; j++)
        assert_true(fabs((double)q[j] - (double)mean[j]) < 1e-7);
    assert_ok(fst_dsfl_sharpen(FST_SHARPEN_ENHANCED_ERA, 1000, a, 1, CLASSES, a, err)); /* in place; 0.2^1000 is 0 */
    assert_true(a[0] == 1 && a[1] < 1e-30f && a[2] == 0);
}

static void wrong_probabilities(void **state)
{
    float p[2 * CLASSES] = {0.5f, 0.5f}, q[2 * CLASSES] = {7};
    (void)state;
    for (int how = FST_SHARPEN_ERA; how <= FST_SHARPEN_ENHANCED_ERA; how++) {
        assert_fails(fst_dsfl_sharpen((fst_sharpen)how, 0, p, 1, CLASSES, q, err), FST_E_ARGUMENT, "above 0");
        assert_fails(fst_dsfl_sharpen((fst_sharpen)how, 2, p, 2, CLASSES, q, err), FST_E_NUMERIC, "row 1");
        p[5] = -1;
        assert_fails(fst_dsfl_sharpen((fst_sharpen)how, 2, p, 2, CLASSES, q, err), FST_E_NUMERIC, "row 1, class 1");
        p[5] = NAN;
        assert_fails(fst_dsfl_sharpen((fst_sharpen)how, 2, p, 2, CLASSES, q, err), FST_E_NUMERIC, "row 1, class 1");
        p[5] = 0;
    }
    assert_fails(fst_dsfl_mean(NULL, 0, 1, CLASSES, q, err), FST_E_ARGUMENT, "0 clients");
    assert_true(q[0] == 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(targets_stand_for_weighted_losses),
        cmocka_unit_test(weights_and_targets_sum_to_one),
        cmocka_unit_test(the_certain_and_the_right_count_more),
        cmocka_unit_test(means_of_logits_and_of_probabilities_differ),
        cmocka_unit_test(peers_leave_themselves_out),
        cmocka_unit_test(wrong_teachers),
        cmocka_unit_test(leave_one_out),
        cmocka_unit_test(wrong_statistics),
        cmocka_unit_test(sharpening_lowers_entropy),
        cmocka_unit_test(wrong_probabilities),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
