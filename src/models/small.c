/* The small convolutional networks: the MNIST and CIFAR pairs, FedGen's and the simulators' CIFAR net,
 * and logistic regression. */
#include "zoo.h"

static fst_conv2d conv3(int64_t out, int64_t stride, int64_t padding)
{
    return (fst_conv2d){.out_channels = out,
                        .kernel = {3, 3},
                        .stride = {stride, stride},
                        .padding = {padding, padding},
                        .groups = 1,
                        .bias = true};
}

/* conv 3x3, relu, pool, conv 3x3, relu, pool, fc, relu, fc */
static fst_value two_conv(fst_graph *g, fst_value x, int64_t width1, int64_t width2, int64_t hidden, int classes)
{
    fst_conv2d c1 = conv3(width1, 1, 1), c2 = conv3(width2, 1, 1);
    x = fst_graph_maxpool2d(g, fst_graph_relu(g, fst_graph_conv2d(g, x, "conv1", &c1)), 2, 2, 0);
    x = fst_graph_maxpool2d(g, fst_graph_relu(g, fst_graph_conv2d(g, x, "conv2", &c2)), 2, 2, 0);
    x = fst_graph_relu(g, fst_graph_linear(g, fst_graph_flatten(g, x), "fc1", hidden, true));
    return fst_graph_linear(g, x, "fc2", classes, true);
}

static fst_value mnist_teacher(fst_graph *g, fst_value x, const fst_model_config *c)
{
    return two_conv(g, x, 32, 64, 128, c->classes);
}

static fst_value mnist_student(fst_graph *g, fst_value x, const fst_model_config *c)
{
    return two_conv(g, x, 16, 32, 64, c->classes);
}

static fst_value cifar_teacher(fst_graph *g, fst_value x, const fst_model_config *c)
{
    return two_conv(g, x, 64, 128, 512, c->classes);
}

static fst_value cifar_student(fst_graph *g, fst_value x, const fst_model_config *c)
{
    return two_conv(g, x, 32, 64, 128, c->classes);
}

/* FedGen (Zhu, Hong, Zhou 2021), the MNIST network of its table 1 */
static fst_value fedgen_mnist(fst_graph *g, fst_value x, const fst_model_config *c)
{
    fst_conv2d c1 = conv3(6, 2, 1), c2 = conv3(16, 2, 1);
    x = fst_graph_relu(g, fst_graph_batchnorm2d(g, fst_graph_conv2d(g, x, "conv1", &c1), "bn1", 1e-5, 0.1));
    x = fst_graph_relu(g, fst_graph_batchnorm2d(g, fst_graph_conv2d(g, x, "conv2", &c2), "bn2", 1e-5, 0.1));
    x = fst_graph_relu(g, fst_graph_linear(g, fst_graph_flatten(g, x), "fc1", 32, true));
    return fst_graph_linear(g, x, "fc2", c->classes, true);
}

/* The CIFAR-10 network of the usual federated simulation benchmark (Reddi et al. 2021, table 2's kind) */
static fst_value pfl_cifar(fst_graph *g, fst_value x, const fst_model_config *c)
{
    fst_conv2d c1 = conv3(32, 1, 0), c2 = conv3(64, 1, 0);
    x = fst_graph_relu(g, fst_graph_conv2d(g, x, "conv1", &c1));
    x = fst_graph_maxpool2d(g, fst_graph_relu(g, fst_graph_conv2d(g, x, "conv2", &c2)), 2, 2, 0);
    x = fst_graph_dropout(g, fst_graph_flatten(g, x), c->dropout1);
    x = fst_graph_relu(g, fst_graph_linear(g, x, "fc1", 128, true));
    return fst_graph_linear(g, fst_graph_dropout(g, x, c->dropout2), "fc2", c->classes, true);
}

static fst_value logistic_regression(fst_graph *g, fst_value x, const fst_model_config *c)
{
    return fst_graph_linear(g, fst_graph_flatten(g, x), "fc", c->classes, true);
}

const struct fst_zoo_entry fst__zoo_small[] = {
    {{"mnist_teacher", "two convolutions (32, 64 channels), two linear layers", {3, {1, 28, 28}}, 10, 0, 0},
     mnist_teacher},
    {{"mnist_student", "two convolutions (16, 32 channels), two linear layers", {3, {1, 28, 28}}, 10, 0, 0},
     mnist_student},
    {{"cifar_teacher", "two convolutions (64, 128 channels), two linear layers", {3, {3, 32, 32}}, 10, 0, 0},
     cifar_teacher},
    {{"cifar_student", "two convolutions (32, 64 channels), two linear layers", {3, {3, 32, 32}}, 10, 0, 0},
     cifar_student},
    {{"fedgen_mnist", "two strided convolutions, batch norm (FedGen)", {3, {1, 28, 28}}, 10, 0, 0}, fedgen_mnist},
    {{"pfl_cifar", "two convolutions, dropout (Reddi et al.)", {3, {3, 32, 32}}, 10, 0.25, 0.5}, pfl_cifar},
    {{"logistic_regression", "one linear layer", {3, {1, 28, 28}}, 10, 0, 0}, logistic_regression},
    {{0}, NULL},
};
