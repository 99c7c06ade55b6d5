/* Local training of a client with soft targets: one step of gradient descent on a softmax regression, against the same
 * step computed here in double precision from the gradient of ce * CE(y, p) + kd * T^2 * KL(q || p_T):
 * (ce * (p - y) + kd * T * (p_T - q)) / rows in front of the softmax. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "fedstill/fed.h"
#include "fedstill/models.h"

enum { ROWS = 6, INPUTS = 4, CLASSES = 3 };
static const double CE = 0.3, KD = 0.7, T = 2, RATE = 0.5;

static float x[ROWS][INPUTS], target[ROWS][CLASSES];
static int32_t y[ROWS] = {0, 1, 2, 2, 1, 0};
static fst_error why;

static void must(fst_status st)
{
    if (st)
        fail_msg("%s", why.message);
}

/* Targets by a sample's position, whatever its place in the batch. */
static fst_status fetch(void *ctx, const fst_batch *batch, float *soft, fst_error *err)
{
    (void)ctx, (void)err;
    for (size_t i = 0; i < batch->rows; i++)
        memcpy(soft + i * CLASSES, target[batch->index[i]], sizeof target[0]);
    return FST_OK;
}

static void softmax(const double *z, double temperature, double *p)
{
    double sum = 0;
    for (int c = 0; c < CLASSES; c++)
        sum += p[c] = exp(z[c] / temperature);
    for (int c = 0; c < CLASSES; c++)
        p[c] /= sum;
}

/* One step; w: [CLASSES][INPUTS] and then the bias, as the network has them. */
static void expected(const float *w, bool distil, double *out)
{
    for (int i = 0; i < CLASSES * INPUTS + CLASSES; i++)
        out[i] = w[i];
    for (int r = 0; r < ROWS; r++) {
        double z[CLASSES], p[CLASSES], soft[CLASSES];
        for (int c = 0; c < CLASSES; c++) {
            z[c] = w[CLASSES * INPUTS + c];
            for (int k = 0; k < INPUTS; k++)
                z[c] += (double)w[c * INPUTS + k] * x[r][k];
        }
        softmax(z, 1, p);
        softmax(z, T, soft);
        for (int c = 0; c < CLASSES; c++) {
            double hard = p[c] - (y[r] == c);
            double g = (distil ? CE * hard + KD * T * (soft[c] - target[r][c]) : hard) / ROWS;
            for (int k = 0; k < INPUTS; k++)
                out[c * INPUTS + k] -= RATE * g * x[r][k];
            out[CLASSES * INPUTS + c] -= RATE * g;
        }
    }
}

static void step_of(bool distil)
{
    fst_model m;
    fst_source *source = NULL;
    fst_client *client = NULL;
    fst_buf keep = {0};
    fst_shape shape = FST_SHAPE(INPUTS);
    const fst_model_config config = {.classes = CLASSES, .input = shape};
    must(fst_model_init(&m, "logistic_regression", &config, &why));
    fst_state_randomise(&m.state, m.graph, 5);
    must(fst_source_from_memory(&source, "x", FST_F32, &shape, ROWS, x, y, CLASSES, &why));
    must(fst_client_new(&client, fst_strategy_find("fedavg"), NULL, 0, &why));
    fst_client_env env = {.stream = "test", .classes = CLASSES, .graph = m.graph, .source = source, .count = ROWS};
    env.plan = (fst_local_plan){.epochs = 1,
                                .batch_size = ROWS,
                                .optim = {.kind = FST_OPTIM_SGD, .learning_rate = RATE},
                                .compute = {.threads = 1, .backend = "reference"}};
    if (distil) {
        env.plan.loss = (fst_loss){.ce_weight = CE, .kd_weight = KD, .temperature = T, .kd_form = FST_KD_KL};
        env.plan.soft = fetch;
    }
    fst_fed_view global = {m.state.params, m.state.buffers, m.state.counters, fst_graph_fed_size(m.graph)}, got;
    fst_message down = fst_message_of("state"), up;
    must(fst_message_add_state(&down, &global, &why));
    must(fst_client_work(client, &env, NULL, 0, &down, &up, &keep, &why));
    must(fst_message_state(&up, global.size, &got, &why));
    double wanted[CLASSES * INPUTS + CLASSES];
    assert_int_equal(global.size.params, CLASSES * INPUTS + CLASSES);
    expected(m.state.params, distil, wanted);
    for (size_t i = 0; i < global.size.params; i++)
        if (fabs((double)got.params[i] - wanted[i]) > 1e-6)
            fail_msg("parameter %zu is %.9g, wanted %.9g", i, (double)got.params[i], wanted[i]);
    fst_client_free(client);
    fst_source_close(source);
    fst_model_release(&m);
    fst_buf_release(&keep);
}

static void soft_targets(void **state)
{
    (void)state;
    step_of(true);
}

static void hard_labels(void **state)
{
    (void)state;
    step_of(false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(soft_targets), cmocka_unit_test(hard_labels)};
    fst_rng r;
    fst_rng_init(&r, 1, "test", 0);
    for (int i = 0; i < ROWS; i++) {
        double sum = 0;
        for (int k = 0; k < INPUTS; k++)
            x[i][k] = (float)(2 * fst_rng_uniform(&r) - 1);
        for (int c = 0; c < CLASSES; c++)
            sum += target[i][c] = (float)(0.1 + fst_rng_uniform(&r));
        for (int c = 0; c < CLASSES; c++)
            target[i][c] = (float)(target[i][c] / sum);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
