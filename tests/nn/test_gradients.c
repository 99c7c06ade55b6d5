/* Every op and every loss against finite differences of the function itself. */
#include "nn/probe.h"

/* ---- ops ------------------------------------------------------------------------------------------- */

static fst_value conv(fst_graph *g, fst_value x, fst_conv2d c)
{
    return fst_graph_conv2d(g, x, "op", &c);
}

static fst_value conv_3x3(fst_graph *g, fst_value x)
{
    return conv(g, x,
                (fst_conv2d){.out_channels = 4, .kernel = {3, 3}, .stride = {1, 1}, .padding = {1, 1}, .bias = true});
}

static fst_value conv_strided(fst_graph *g, fst_value x)
{
    return conv(g, x, (fst_conv2d){.out_channels = 3, .kernel = {3, 3}, .stride = {2, 2}, .padding = {1, 1}});
}

static fst_value conv_rectangular(fst_graph *g, fst_value x)
{
    return conv(g, x,
                (fst_conv2d){.out_channels = 2, .kernel = {1, 3}, .stride = {2, 1}, .padding = {0, 2}, .bias = true});
}

static fst_value conv_tall(fst_graph *g, fst_value x)
{
    return conv(g, x, (fst_conv2d){.out_channels = 5, .kernel = {4, 1}, .stride = {1, 3}, .padding = {1, 0}});
}

static fst_value conv_groups(fst_graph *g, fst_value x)
{
    return conv(g, x, (fst_conv2d){.out_channels = 6, .kernel = {3, 3}, .stride = {1, 1}, .groups = 2, .bias = true});
}

static fst_value conv_depthwise(fst_graph *g, fst_value x)
{
    return conv(g, x,
                (fst_conv2d){.out_channels = 4, .kernel = {3, 3}, .stride = {1, 1}, .padding = {1, 1}, .groups = 4});
}

static fst_value conv_1x1(fst_graph *g, fst_value x)
{
    return conv(g, x, (fst_conv2d){.out_channels = 17, .kernel = {1, 1}, .stride = {1, 1}, .bias = true});
}

static void convolution(void **state)
{
    (void)state;
    check(conv_3x3, FST_SHAPE(3, 5, 4), 2, false, 0.1f, 0.25);
    check(conv_strided, FST_SHAPE(2, 6, 5), 2, false, 0.1f, 0.25);
    check(conv_rectangular, FST_SHAPE(3, 4, 5), 2, false, 0.1f, 0.25);
    check(conv_tall, FST_SHAPE(1, 5, 7), 3, false, 0.1f, 0.25);
    check(conv_groups, FST_SHAPE(4, 4, 4), 2, false, 0.1f, 0.25);
    check(conv_depthwise, FST_SHAPE(4, 4, 3), 2, false, 0.1f, 0.25);
    check(conv_1x1, FST_SHAPE(5, 1, 1), 3, false, 0.1f, 0.25);
}

static fst_value linear_bias(fst_graph *g, fst_value x)
{
    return fst_graph_linear(g, x, "op", 5, true);
}

static fst_value linear_plain(fst_graph *g, fst_value x)
{
    return fst_graph_linear(g, x, "op", 3, false);
}

static fst_value flatten_linear(fst_graph *g, fst_value x)
{
    return fst_graph_linear(g, fst_graph_flatten(g, x), "op", 4, true);
}

static void linear(void **state)
{
    (void)state;
    check(linear_bias, FST_SHAPE(7), 3, false, 0.1f, 0.25);
    check(linear_plain, FST_SHAPE(1), 2, false, 0.1f, 0.25);
    check(flatten_linear, FST_SHAPE(2, 3, 2), 2, false, 0.1f, 0.25);
}

static fst_value relu_only(fst_graph *g, fst_value x)
{
    return fst_graph_relu(g, x);
}

static void relu(void **state)
{
    (void)state;
    check(relu_only, FST_SHAPE(3, 4, 5), 2, false, 1, 0.01);
    check(relu_only, FST_SHAPE(9), 3, false, 1, 0.01);
}

static fst_value pool_2_2(fst_graph *g, fst_value x)
{
    return fst_graph_maxpool2d(g, x, 2, 2, 0);
}

static fst_value pool_3_2_1(fst_graph *g, fst_value x)
{
    return fst_graph_maxpool2d(g, x, 3, 2, 1);
}

static fst_value pool_overlapping(fst_graph *g, fst_value x)
{
    return fst_graph_maxpool2d(g, x, 3, 1, 1);
}

static fst_value relu_pool(fst_graph *g, fst_value x)
{
    return fst_graph_maxpool2d(g, fst_graph_relu(g, x), 2, 2, 0);
}

static void pooling(void **state)
{
    (void)state;
    check(pool_2_2, FST_SHAPE(3, 5, 4), 2, false, 1, 0.01);
    check(pool_3_2_1, FST_SHAPE(2, 6, 7), 2, false, 1, 0.01);
    check(pool_overlapping, FST_SHAPE(3, 4, 4), 2, false, 1, 0.01);
    check(relu_pool, FST_SHAPE(3, 4, 4), 2, false, 1, 0.01);
}

static fst_value flatten_only(fst_graph *g, fst_value x)
{
    return fst_graph_flatten(g, x);
}

static fst_value dropout_half(fst_graph *g, fst_value x)
{
    return fst_graph_dropout(g, x, 0.5);
}

static void flatten_and_dropout(void **state)
{
    (void)state;
    check(flatten_only, FST_SHAPE(2, 3, 4), 2, false, 0.1f, 0.25);
    check(dropout_half, FST_SHAPE(40), 3, false, 0.1f, 0.25);
    check(dropout_half, FST_SHAPE(3, 4, 5), 2, true, 0.1f, 0.25); /* frozen: the identity */
}

static fst_value norm(fst_graph *g, fst_value x)
{
    return fst_graph_batchnorm2d(g, x, "op", 1e-3, 0.1);
}

static void batch_norm(void **state)
{
    (void)state;
    check(norm, FST_SHAPE(3, 3, 4), 3, false, 0.1f, 0.1);
    check(norm, FST_SHAPE(5, 1, 1), 6, false, 0.1f, 0.1);
    check(norm, FST_SHAPE(3, 3, 4), 3, true, 0.1f, 0.1);
    check(norm, FST_SHAPE(2, 2, 2), 1, true, 0.1f, 0.1);
}

/* ---- several readers and inputs ---------------------------------------------------------------------- */

static fst_value add_twice(fst_graph *g, fst_value x)
{
    return fst_graph_add(g, x, x);
}

/* A residual block: x is read by the branch and by the sum. No ReLU: its kinks would spoil the differences; the golden
 * ResNets have it. */
static fst_value residual(fst_graph *g, fst_value x)
{
    fst_conv2d c = {.out_channels = 3, .kernel = {3, 3}, .stride = {1, 1}, .padding = {1, 1}, .bias = true};
    x = fst_graph_conv2d(g, x, "stem", &c);
    fst_value y = fst_graph_conv2d(g, x, "branch", &c);
    return fst_graph_add(g, y, x);
}

/* Three readers of one value, one of them the output's own branch; padded channels where layouts have blocks. */
static fst_value three_readers(fst_graph *g, fst_value x)
{
    fst_conv2d c = {.out_channels = 5, .kernel = {3, 3}, .stride = {1, 1}, .padding = {1, 1}};
    fst_value a = fst_graph_gelu_tanh(g, fst_graph_conv2d(g, x, "a", &c));
    fst_value b = fst_graph_conv2d(g, a, "b", &c), d = fst_graph_conv2d(g, a, "d", &c);
    return fst_graph_concat(g, (fst_value[]){a, fst_graph_add(g, b, a), d}, 3);
}

static void several_readers(void **state)
{
    (void)state;
    check(add_twice, FST_SHAPE(3, 4, 4), 2, false, 1, 1e-2);
    check(residual, FST_SHAPE(2, 5, 4), 2, false, 1, 1e-2);
    check(three_readers, FST_SHAPE(2, 4, 3), 2, false, 1, 1e-2);
}

static fst_value average_counted(fst_graph *g, fst_value x)
{
    return fst_graph_avgpool2d(g, x, (int64_t[]){3, 2}, (int64_t[]){2, 1}, (int64_t[]){1, 1}, true);
}

static fst_value average_inside(fst_graph *g, fst_value x)
{
    return fst_graph_avgpool2d(g, x, (int64_t[]){3, 3}, (int64_t[]){2, 2}, (int64_t[]){1, 1}, false);
}

static void averages(void **state)
{
    (void)state;
    check(average_counted, FST_SHAPE(3, 6, 5), 2, false, 1, 1e-2);
    check(average_inside, FST_SHAPE(17, 5, 7), 2, false, 1, 1e-2);
    check(fst_graph_global_avgpool, FST_SHAPE(17, 5, 3), 2, false, 1, 1e-2);
}

static fst_value group_norm(fst_graph *g, fst_value x)
{
    return fst_graph_groupnorm(g, x, "op", 3, 1e-5);
}

static fst_value layer_norm(fst_graph *g, fst_value x)
{
    return fst_graph_layernorm(g, x, "op", 1e-5);
}

static void row_norms_and_activations(void **state)
{
    (void)state;
    check(group_norm, FST_SHAPE(6, 3, 3), 2, false, 1, 1e-2);
    check(layer_norm, FST_SHAPE(4, 9), 2, false, 1, 1e-2);
    check(fst_graph_sigmoid, FST_SHAPE(7), 3, false, 1, 1e-2);
    check(fst_graph_gelu_tanh, FST_SHAPE(7), 3, false, 1, 1e-2);
    check(fst_graph_softmax, FST_SHAPE(2, 5), 3, false, 1, 1e-2);
    check(fst_graph_relu6, FST_SHAPE(3, 3, 3), 2, false, 4, 1e-3);
}

/* ---- losses ---------------------------------------------------------------------------------------- */

enum { ROWS = 4, CLASSES = 5 };

struct loss_case {
    float logits[ROWS * CLASSES], soft[ROWS * CLASSES], weight[ROWS], grad[ROWS * CLASSES];
    int32_t labels[ROWS];
    fst_loss_input in;
};

static void open_case(struct loss_case *c, const fst_loss *l, bool weighted, double divisor)
{
    fill_normal(c->logits, ROWS * CLASSES, 1, "test.logits", 2);
    fill_normal(c->soft, ROWS * CLASSES, 2, "test.soft", 2);
    fill_labels(c->labels, ROWS, CLASSES, 3);
    if (!fst_kd_takes_logits(l->kd_form) && !l->soft_logits)
        fst_softmax(c->soft, ROWS, CLASSES, l->kd_form == FST_KD_MSE_PROBABILITIES ? 1 : l->temperature, c->soft);
    for (int i = 0; i < ROWS; i++)
        c->weight[i] = 0.5f + (float)i;
    c->in = (fst_loss_input){.logits = c->logits,
                             .rows = ROWS,
                             .classes = CLASSES,
                             .labels = l->ce_weight != 0 || fst_kd_needs_labels(l->kd_form) ? c->labels : NULL,
                             .soft = l->kd_weight != 0 ? c->soft : NULL,
                             .weight = weighted ? c->weight : NULL,
                             .divisor = divisor};
}

static double total(const fst_loss *l, const struct loss_case *c)
{
    float grad[ROWS * CLASSES];
    double rows[ROWS], sum = 0;
    fst_loss_rows(l, &c->in, grad, rows, NULL, NULL);
    for (int i = 0; i < ROWS; i++)
        sum += rows[i];
    return sum / c->in.divisor;
}

static void check_loss_by_class(fst_loss l, bool weighted, const double *by_class, double divisor)
{
    static const double step[4] = {-2, -1, 1, 2}, factor[4] = {1, -8, 8, -1};
    struct loss_case c;
    double rows[ROWS], ce[ROWS], kd[ROWS], h = 1.0 / 64; /* a power of two: exact in float */
    open_case(&c, &l, weighted, divisor);
    c.in.class_weight = by_class;
    for (size_t i = 0; i < ROWS * CLASSES; i++) /* ... when the logits are multiples of it as well */
        c.logits[i] = (float)(round((double)c.logits[i] / h) * h);
    for (size_t i = 0; i < ROWS * CLASSES; i++) /* no slope is measured across the bend of |z - q| */
        if (l.kd_form == FST_KD_MAE_LOGITS && fabs((double)c.logits[i] - (double)c.soft[i]) < 3 * h)
            c.soft[i] += (float)(8 * h);
    fst_loss_rows(&l, &c.in, c.grad, rows, ce, kd);
    for (int i = 0; i < ROWS; i++)
        assert_true(fabs(rows[i] - (l.ce_weight * ce[i] + l.kd_weight * kd[i])) < 1e-12);
    for (size_t i = 0; i < ROWS * CLASSES; i++) {
        float was = c.logits[i];
        double sum = 0;
        for (int k = 0; k < 4; k++) {
            c.logits[i] = (float)((double)was + step[k] * h);
            sum += factor[k] * total(&l, &c);
        }
        c.logits[i] = was;
        if (!(fabs(sum / (12 * h) - (double)c.grad[i]) < 2e-6))
            fail_msg("%s, ce %g, kd %g: gradient [%zu] is %.9g, the slope is %.9g", fst_kd_form_name(l.kd_form),
                     l.ce_weight, l.kd_weight, i, (double)c.grad[i], sum / (12 * h));
    }
}

static void check_loss(fst_loss l, bool weighted, double divisor)
{
    check_loss_by_class(l, weighted, NULL, divisor);
}

static void cross_entropy(void **state)
{
    (void)state;
    check_loss(FST_LOSS_CROSS_ENTROPY, false, ROWS);
    check_loss(FST_LOSS_CROSS_ENTROPY, true, ROWS);
    check_loss(FST_LOSS_CROSS_ENTROPY, true, 0.5 + 1.5 + 2.5 + 3.5);
    check_loss((fst_loss){.ce_weight = 0.7, .temperature = 1, .label_smoothing = 0.1}, false, ROWS);
    check_loss((fst_loss){.ce_weight = 1, .temperature = 1, .label_smoothing = 1}, true, 3);
}

static void classes_have_weights(void **state)
{
    static const double by_class[CLASSES] = {0.5, 3, 0, 1, 0.25};
    (void)state;
    for (int smoothed = 0; smoothed < 2; smoothed++)
        for (int form = FST_KD_KL; form <= FST_KD_MAE_LOGITS; form++) {
            fst_loss l = {.ce_weight = 0.4, .kd_weight = 0.6, .temperature = 2, .kd_form = (fst_kd_form)form};
            l.label_smoothing = 0.1 * smoothed;
            l.tckd_weight = l.nckd_weight = 1;
            check_loss_by_class(l, false, by_class, ROWS);
            check_loss_by_class(l, true, by_class, 3.5);
            l.kd_weight = 0;
            check_loss_by_class(l, false, by_class, ROWS);
        }
}

static void distillation(void **state)
{
    (void)state;
    for (int form = FST_KD_KL; form <= FST_KD_MAE_LOGITS; form++)
        for (int t = 1; t <= 8; t *= 2) {
            fst_loss l = {.kd_weight = 1, .temperature = t, .kd_form = (fst_kd_form)form};
            l.tckd_weight = 1;
            l.nckd_weight = 2;
            check_loss(l, false, ROWS);
            l.ce_weight = 0.3;
            l.kd_weight = 0.7;
            l.label_smoothing = 0.05;
            check_loss(l, true, 7);
        }
}

/* KL is 0 at the teacher's own logits and its gradient vanishes; H(q, p) keeps q's entropy and no gradient. */
static void students_like_their_teacher(void **state)
{
    float z[CLASSES] = {1, -2, 0.5f, 3, 0}, q[CLASSES], grad[CLASSES];
    double row, entropy = 0;
    (void)state;
    fst_softmax(z, 1, CLASSES, 4, q);
    for (int i = 0; i < CLASSES; i++)
        entropy -= (double)q[i] * log((double)q[i]);
    for (int form = FST_KD_KL; form <= FST_KD_CROSS_ENTROPY; form++) {
        fst_loss l = {.kd_weight = 1, .temperature = 4, .kd_form = (fst_kd_form)form};
        fst_loss_input in = {.logits = z, .rows = 1, .classes = CLASSES, .soft = q, .divisor = 1};
        fst_loss_rows(&l, &in, grad, &row, NULL, NULL);
        assert_true(fabs(row - (form == FST_KD_KL ? 0 : 16 * entropy)) < 1e-5);
        for (int i = 0; i < CLASSES; i++)
            assert_true(fabs((double)grad[i]) < 1e-6);
    }
}

/* Softened here or before: the same loss but for the rounding of the kept probabilities. */
static void teachers_logits_are_softened_here(void **state)
{
    (void)state;
    for (int form = FST_KD_KL; form <= FST_KD_CROSS_ENTROPY; form++)
        for (double t = 1; t < 10; t *= 2) {
            struct loss_case a, b;
            fst_loss l = {.kd_weight = 0.7, .temperature = t, .kd_form = (fst_kd_form)form};
            open_case(&a, &l, false, ROWS);
            double before = total(&l, &a);
            l.soft_logits = true;
            open_case(&b, &l, false, ROWS);
            assert_true(fabs(total(&l, &b) - before) < 1e-5);
            check_loss(l, false, ROWS);
        }
}

/* The slope of the loss along the temperature, row by row. */
static void temperature_has_a_gradient(void **state)
{
    (void)state;
    for (double t = 0.75; t < 10; t *= 2) {
        struct loss_case c;
        fst_loss l = {.kd_weight = 1, .temperature = t, .soft_logits = true}, up = l, down = l;
        float grad[ROWS * CLASSES];
        double slope[ROWS], above[ROWS], below[ROWS], h = 1e-4 * t;
        open_case(&c, &l, false, 1);
        for (int j = 0; j < CLASSES; j++) {
            c.logits[j] += 1000; /* a row far from zero */
            c.soft[CLASSES + j] -= 1000;
        }
        up.temperature = t + h;
        down.temperature = t - h;
        fst_loss_temperature_rows(&l, &c.in, slope);
        fst_loss_rows(&up, &c.in, grad, above, NULL, NULL);
        fst_loss_rows(&down, &c.in, grad, below, NULL, NULL);
        for (int r = 0; r < ROWS; r++)
            assert_true(fabs(slope[r] - (above[r] - below[r]) / (2 * h)) < 1e-6 * (1 + fabs(slope[r])));
    }
}

/* Both parts of DKD alone; NCKD is what FedNTD calls its loss. */
static void decoupled_parts(void **state)
{
    fst_loss l = {.kd_weight = 1, .temperature = 3, .kd_form = FST_KD_DKD, .tckd_weight = 1};
    struct loss_case c;
    float other[ROWS * CLASSES];
    double dkd[ROWS], ntd[ROWS];
    (void)state;
    check_loss(l, false, ROWS);
    l.tckd_weight = 0;
    l.nckd_weight = 1;
    check_loss(l, false, ROWS);
    open_case(&c, &l, false, ROWS);
    fst_loss_rows(&l, &c.in, c.grad, dkd, NULL, NULL);
    l.kd_form = FST_KD_NTD;
    fst_loss_rows(&l, &c.in, other, ntd, NULL, NULL);
    assert_memory_equal(c.grad, other, sizeof other);
    assert_memory_equal(dkd, ntd, sizeof ntd);
    for (int r = 0; r < ROWS; r++) /* the label's own logit takes no part */
        assert_true(other[r * CLASSES + c.labels[r]] == 0);
}

/* KL(q || p) = TCKD + (1 - q_y) NCKD (equation 5 of the paper), a row at a time. */
static void decoupled_parts_make_up_the_whole(void **state)
{
    fst_loss whole = {.kd_weight = 1, .temperature = 2, .kd_form = FST_KD_KL}, part = whole;
    struct loss_case c, k;
    double rows[ROWS], kl[ROWS], grad[ROWS * CLASSES];
    float one[ROWS * CLASSES];
    (void)state;
    part.kd_form = FST_KD_DKD;
    part.tckd_weight = 1;
    open_case(&c, &part, false, 1);
    open_case(&k, &whole, false, 1);
    fst_loss_rows(&whole, &k.in, k.grad, kl, NULL, NULL);
    for (int r = 0; r < ROWS; r++) {
        fst_loss_input in = c.in;
        in.rows = 1;
        in.logits += r * CLASSES;
        in.soft += r * CLASSES;
        in.labels += r;
        part.nckd_weight = 1 - (double)k.soft[r * CLASSES + c.labels[r]];
        fst_loss_rows(&part, &in, one, &rows[r], NULL, NULL);
        for (int j = 0; j < CLASSES; j++)
            grad[r * CLASSES + j] = (double)one[j];
        assert_true(fabs(rows[r] - kl[r]) < 1e-5 * (1 + kl[r]));
    }
    for (int i = 0; i < ROWS * CLASSES; i++)
        assert_true(fabs(grad[i] - (double)k.grad[i]) < 1e-6);
}

/* Shifting and scaling a row's logits, the student's or the teacher's, changes nothing. */
static void standardised_logits_have_no_scale(void **state)
{
    const float student[CLASSES] = {1, -2, 0.5f, 3, 0}, teacher[CLASSES] = {-1, 2, 0, 4, 0.25f};
    float z[CLASSES], q[CLASSES], grad[CLASSES];
    fst_loss l = {.kd_weight = 1, .temperature = 2, .kd_form = FST_KD_STANDARDISED};
    fst_loss_input in = {.logits = z, .rows = 1, .classes = CLASSES, .soft = q, .divisor = 1};
    double first = 0;
    (void)state;
    for (int k = 0; k < 4; k++) {
        double row, sum = 0, along = 0;
        for (int j = 0; j < CLASSES; j++) {
            z[j] = student[j] * (k & 1 ? 64 : 1) + (k & 1 ? 1000 : 0);
            q[j] = teacher[j] * (k & 2 ? 0.125f : 1) - (k & 2 ? 32 : 0);
        }
        fst_loss_rows(&l, &in, grad, &row, NULL, NULL);
        first = k ? first : row;
        assert_true(row > 0.01 && fabs(row - first) < 1e-5 * first); /* 1e-7 beside std is what is left */
        for (int j = 0; j < CLASSES; j++) {
            sum += (double)grad[j];
            along += (double)grad[j] * (double)z[j];
        }
        assert_true(fabs(sum) < 1e-6 && fabs(along) < 1e-4);
    }
}

/* A flat row has no standard deviation to differentiate: it is left alone. */
static void flat_rows_are_left_alone(void **state)
{
    const float flat[] = {0, 0.1f, -1e4f, 3e38f};
    (void)state;
    for (size_t k = 0; k < sizeof flat / sizeof *flat; k++) {
        float z[CLASSES], q[CLASSES] = {1, 2, 3, 4, 5}, grad[CLASSES];
        double row;
        fst_loss l = {.kd_weight = 1, .temperature = 2, .kd_form = FST_KD_STANDARDISED};
        fst_loss_input in = {.logits = z, .rows = 1, .classes = CLASSES, .soft = q, .divisor = 1};
        for (int j = 0; j < CLASSES; j++)
            z[j] = flat[k];
        fst_loss_rows(&l, &in, grad, &row, NULL, NULL);
        assert_true(isfinite(row) && row > 0);
        for (int j = 0; j < CLASSES; j++)
            assert_true(grad[j] == 0);
        in.logits = q; /* and a flat teacher is a target like another: as mean and std of the student's row do not
                        * count, what is left of going to the middle is to bend the row */
        in.soft = z;
        fst_loss_rows(&l, &in, grad, &row, NULL, NULL);
        assert_true(isfinite(row) && row > 0 && grad[0] > 0 && grad[2] < 0 && grad[4] > 0);
    }
}

/* With one class there is nothing to tell apart. */
static void one_class(void **state)
{
    const float z = 3, q = -2;
    const int32_t label = 0;
    (void)state;
    for (int form = FST_KD_STANDARDISED; form <= FST_KD_NTD; form++) {
        float grad = 1;
        double row = 1;
        fst_loss l = {
            .kd_weight = 1, .temperature = 2, .kd_form = (fst_kd_form)form, .tckd_weight = 1, .nckd_weight = 1};
        fst_loss_input in = {.logits = &z, .rows = 1, .classes = 1, .labels = &label, .soft = &q, .divisor = 1};
        fst_loss_rows(&l, &in, &grad, &row, NULL, NULL);
        assert_true(row == 0 && grad == 0);
    }
}

static void forms_have_names(void **state)
{
    (void)state;
    assert_string_equal(fst_kd_form_name(FST_KD_STANDARDISED), "standardised");
    assert_string_equal(fst_kd_form_name(FST_KD_DKD), "dkd");
    assert_string_equal(fst_kd_form_name(FST_KD_NTD), "ntd");
    assert_string_equal(fst_kd_form_name(FST_KD_MAE_LOGITS), "mae_logits");
    assert_false(fst_kd_takes_logits(FST_KD_KL) || fst_kd_takes_logits(FST_KD_MSE_PROBABILITIES));
    assert_true(fst_kd_takes_logits(FST_KD_MSE_LOGITS) && !fst_kd_needs_labels(FST_KD_STANDARDISED));
}

static void extreme_logits_stay_finite(void **state)
{
    float z[CLASSES] = {1e4f, -1e4f, 0, 1e4f, 1}, q[CLASSES] = {0, 1, 0, 0, 0}, grad[CLASSES];
    int32_t label = 1;
    (void)state;
    for (int form = FST_KD_KL; form <= FST_KD_MAE_LOGITS; form++) {
        fst_loss l = {.ce_weight = 1, .kd_weight = 1, .temperature = 1, .kd_form = (fst_kd_form)form};
        l.tckd_weight = l.nckd_weight = 1;
        fst_loss_input in = {.logits = z, .rows = 1, .classes = CLASSES, .labels = &label, .soft = q, .divisor = 1};
        double row;
        fst_loss_rows(&l, &in, grad, &row, NULL, NULL);
        assert_true(isfinite(row) && row > 1e4);
        for (int i = 0; i < CLASSES; i++)
            assert_true(isfinite(grad[i]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolution),
        cmocka_unit_test(linear),
        cmocka_unit_test(relu),
        cmocka_unit_test(pooling),
        cmocka_unit_test(flatten_and_dropout),
        cmocka_unit_test(batch_norm),
        cmocka_unit_test(several_readers),
        cmocka_unit_test(averages),
        cmocka_unit_test(row_norms_and_activations),
        cmocka_unit_test(cross_entropy),
        cmocka_unit_test(classes_have_weights),
        cmocka_unit_test(distillation),
        cmocka_unit_test(students_like_their_teacher),
        cmocka_unit_test(teachers_logits_are_softened_here),
        cmocka_unit_test(temperature_has_a_gradient),
        cmocka_unit_test(decoupled_parts),
        cmocka_unit_test(decoupled_parts_make_up_the_whole),
        cmocka_unit_test(standardised_logits_have_no_scale),
        cmocka_unit_test(flat_rows_are_left_alone),
        cmocka_unit_test(one_class),
        cmocka_unit_test(forms_have_names),
        cmocka_unit_test(extreme_logits_stay_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
