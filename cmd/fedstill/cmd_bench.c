/*
 * fedstill bench: the workloads of the PyTorch peer, on synthetic data in memory, so that no loader is
 * measured. A training sample has been through forward, loss, backward and the optimiser's step.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "bench.h"
#include "fedstill/report.h"

#define ADAM                                          \
    {                                                 \
        .kind = FST_OPTIM_ADAM, .learning_rate = 1e-3 \
    }
#define SGD                                          \
    {                                                \
        .kind = FST_OPTIM_SGD, .learning_rate = 0.01 \
    }
#define MOMENTUM                                                      \
    {                                                                 \
        .kind = FST_OPTIM_SGD, .learning_rate = 0.01, .momentum = 0.9 \
    }
#define CIFAR_100 .classes = 100, .input = {3, {3, 32, 32}}

#define LINK11 "real_resnet20_link11_h"
#define STUDENT .width = 0.125, .hidden = 32 /* of tasks/link11-demo */
#define COMPLEX "complex_resnet50_link11_with_attention"
#define MOBILENET_CIFAR CIFAR_100, .stem_stride = 1, .stage_strides = {1, 2, 2, 2, 1, 1, 1}

static const struct workload workloads[] = {
    {.name = "mnist_teacher", .model = "mnist_teacher", .batch = 128, .optim = ADAM},
    {.name = "mnist_student_kd_online",
     .model = "mnist_student",
     .teacher = "mnist_teacher",
     .batch = 128,
     .optim = ADAM},
    {.name = "mnist_student_kd_cached",
     .model = "mnist_student",
     .teacher = "mnist_teacher",
     .cached = true,
     .batch = 128,
     .optim = ADAM},
    {.name = "cifar_teacher", .model = "cifar_teacher", .batch = 64, .optim = SGD},
    {.name = "pfl_cifar", .model = "pfl_cifar", .batch = 10, .optim = SGD},
    {.name = "resnet20", .model = "resnet20", .batch = 128, .optim = MOMENTUM},
    {.name = LINK11, .model = LINK11, .batch = 32, .optim = ADAM},
    {.name = COMPLEX, .model = COMPLEX, .batch = 32, .optim = ADAM},
    {.name = "mobilenet_v2_cifar",
     .model = "mobilenet_v2",
     .batch = 64,
     .optim = MOMENTUM,
     .config = {MOBILENET_CIFAR}},
    {.name = "resnet50_cifar",
     .model = "resnet50",
     .batch = 16,
     .optim = MOMENTUM,
     .config = {CIFAR_100, .stem = FST_STEM_CIFAR}},
    {.name = LINK11 "_infer_b1", .model = LINK11, .batch = 1, .inference = true},
    {.name = LINK11 "_infer_b256", .model = LINK11, .batch = 256, .inference = true},
    {.name = "link11_student_infer_b1", .model = LINK11, .batch = 1, .inference = true, .config = {STUDENT}},
    {.name = "link11_student_infer_b32", .model = LINK11, .batch = 32, .inference = true, .config = {STUDENT}},
    {.name = "mnist_student_infer_b1", .model = "mnist_student", .batch = 1, .inference = true},
    {.name = "mnist_student_infer_b32", .model = "mnist_student", .batch = 32, .inference = true},
};
enum { WORKLOADS = sizeof workloads / sizeof *workloads };
static const char federated_name[] = "fl_mnist_lr";

static const char *const precisions[] = {"f32", "bf16", NULL};

static const struct option_spec options[] = {
    THREADS_OPTION("Threads (default: the CPUs)."),
    {.name = "precision",
     .letter = 'p',
     .argument = "P",
     .type = OPTION_STRING,
     .fallback = "f32",
     .choices = precisions,
     .help = "f32, or bf16: activations in half the bytes, parameters and sums in f32."},
    {.name = "seconds",
     .argument = "S",
     .type = OPTION_DOUBLE,
     .low = 0.01,
     .high = 600,
     .fallback = "1",
     .help = "Length of each of the five timed segments, of which the median counts."},
    {.name = "batch",
     .letter = 'b',
     .argument = "N",
     .type = OPTION_INT,
     .min = 1,
     .max = 65536,
     .help = "Samples at a time, of model files (default: 1). The other workloads have their own."},
    {.name = "shard",
     .argument = "N",
     .type = OPTION_INT,
     .min = 1,
     .max = 65536,
     .help = "Samples of a shard, for trying out (default: by rule)."},
    {.name = "backend", .argument = "NAME", .type = OPTION_STRING, .help = "onednn, vector or reference."},
    {.name = "profile", .type = OPTION_FLAG, .help = "Also show the time of every kernel."},
    {.name = "steps-only", .type = OPTION_FLAG, .help = "Do not time kernels alone, which takes longest."},
    {.name = "json", .type = OPTION_FLAG, .help = "A JSON object a line."},
    {0},
};

static const struct operand_spec operands[] = {
    {"WORKLOAD", 0, -1,
     "mnist_teacher, mnist_student_kd_online, mnist_student_kd_cached, cifar_teacher, pfl_cifar, resnet20, "
     "real_resnet20_link11_h, complex_resnet50_link11_with_attention, mobilenet_v2_cifar, resnet50_cifar, "
     "real_resnet20_link11_h_infer_b1, "
     "real_resnet20_link11_h_infer_b256, link11_student_infer_b1, link11_student_infer_b32, mnist_student_infer_b1, "
     "mnist_student_infer_b32, fl_mnist_lr; all when none is given. Or a model file: its inference, on random "
     "samples."},
    {0},
};

static const char *const examples[] = {
    "fedstill bench mnist_teacher --threads 2 --json",
    "Measures training of the MNIST teacher on two threads.",
    "fedstill bench student.safetensors student-int8.safetensors --batch 32 --threads 1",
    "Measures how fast two model files answer.",
    NULL,
};

/* ---- the command ------------------------------------------------------------------------------------------ */

static double peak_rss(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return 1024.0 * (double)u.ru_maxrss;
}

static int by_time(const void *a, const void *b)
{
    double x = ((const struct op_time *)a)->seconds, y = ((const struct op_time *)b)->seconds;
    return x > y ? -1 : x < y;
}

/* A value that may be unknown. */
static void print_member(const char *name, double v)
{
    printf(v < 0 ? ", \"%s\": null" : ", \"%s\": %.6f", name, v);
}

static void print_machine(const struct bench_settings *set, const struct bench_machine *m)
{
    printf(", \"machine\": {\"cpu\": \"%s\", \"backend\": \"%s\", \"cpus\": %d", m->cpu,
           fst_backend_describe(set->backend), fst_cpu_count());
    print_member("load_before", m->load_before);
    print_member("load_after", m->load_after);
    print_member("idle", m->idle);
    print_member("steal", m->steal);
    printf("}");
}

static void print_json(const char *name, const struct bench_settings *set, const struct result *r,
                       const struct bench_machine *m)
{
    printf("{\"workload\": \"%s\", \"threads\": %d, \"precision\": \"%s\", \"samples_per_s\": %.1f, "
           "\"gflop_per_s\": %.1f, \"step_ms\": %.6f",
           name, set->threads, fst_precision_name(set->precision), r->samples_per_s, r->flops / r->step_s * 1e-9,
           1e3 * r->step_s);
    print_member("step_cpu_ms", r->cpu_s > 0 ? 1e3 * r->cpu_s : -1);
    print_member("kernel_ms", r->kernel_s > 0 ? 1e3 * r->kernel_s : -1);
    if (r->p50_s > 0) {
        print_member("p50_ms", 1e3 * r->p50_s);
        print_member("p99_ms", 1e3 * r->p99_s);
    }
    printf(", \"peak_rss_bytes\": %.0f, \"ops\": {", peak_rss());
    for (int i = 0; i < r->op_count; i++)
        printf("%s\"%s%s\": %.6f", i ? ", " : "", r->ops[i].op, r->ops[i].compute ? "" : " (moves)",
               1e3 * r->ops[i].seconds);
    printf("}");
    if (r->seconds > 0)
        printf(", \"seconds\": %.6f", r->seconds);
    print_machine(set, m);
    printf("}\n");
}

/* What of a step is none of its kernels: loss, optimiser, waiting. */
static void print_text(const char *name, const struct result *r)
{
    char rss[FST_HUMAN];
    double rest = r->step_s;
    printf("%-33s %9.1f samples/s %7.1f GFLOP/s  step %9.3f ms", name, r->samples_per_s, r->flops / r->step_s * 1e-9,
           1e3 * r->step_s);
    if (r->kernel_s > 0)
        printf("  kernels %9.3f ms (x %.2f)", 1e3 * r->kernel_s, r->step_s / r->kernel_s);
    if (r->p50_s > 0)
        printf("  p50 %.3f ms  p99 %.3f ms", 1e3 * r->p50_s, 1e3 * r->p99_s);
    printf("  peak %s", fst_human_bytes(peak_rss(), rss));
    printf(r->seconds > 0 ? "  whole run %.3f s\n" : "\n", r->seconds);
    if (r->op_count == 0)
        return;
    printf("   ");
    for (int i = 0; i < r->op_count; i++) {
        rest -= r->ops[i].seconds;
        if (r->ops[i].seconds >= 0.005 * r->step_s)
            printf(" %s%s %.0f %%,", r->ops[i].op, r->ops[i].compute ? "" : " (moves data)",
                   100 * r->ops[i].seconds / r->step_s);
    }
    printf(" rest %.0f %%\n", 100 * rest / r->step_s);
}

static const struct workload *find_workload(const char *name)
{
    for (int i = 0; i < WORKLOADS; i++)
        if (!strcmp(workloads[i].name, name))
            return &workloads[i];
    return NULL;
}

static fst_status run_one(const struct options *o, const char *name, fst_error *err)
{
    struct bench_settings set = {
        .threads = option_given(o, "threads") ? (int)option_int(o, "threads") : fst_cpu_count(),
        .shard = (size_t)option_int(o, "shard"),
        .backend = option_string(o, "backend"),
        .seconds = option_double(o, "seconds"),
        .profile = option_flag(o, "profile"),
        .steps_only = option_flag(o, "steps-only"),
    };
    struct result r = {0};
    struct bench_machine machine;
    fst_status s = FST_E_CONFIG;
    if (fst_precision_parse(option_string(o, "precision"), &set.precision) &&
        !fst_backend_supports(set.backend, set.precision)) {
        fprintf(stderr, "fedstill: this machine or backend has no %s; measuring f32\n", option_string(o, "precision"));
        set.precision = FST_PRECISION_F32;
    }
    const struct workload *w = find_workload(name);
    struct workload file = {.file = name, .inference = true, .batch = 1};
    if (option_given(o, "batch"))
        file.batch = (size_t)option_int(o, "batch");
    if (!w && strcmp(name, federated_name) && strpbrk(name, "./"))
        w = &file;
    else if (option_given(o, "batch"))
        return fst_fail(err, FST_E_CONFIG, "--batch is of model files: the workload \"%s\" has its own", name);
    bench_machine_start(&machine);
    if (!strcmp(name, federated_name)) {
        s = bench_fleet(&set, &r, err);
    } else {
        s = w ? bench_model(&set, w, &r, err)
              : fst_fail(err, FST_E_CONFIG, "no workload \"%s\"; see fedstill bench --help", name);
    }
    if (s)
        return s;
    qsort(r.ops, (size_t)r.op_count, sizeof *r.ops, by_time);
    bench_machine_end(&machine);
    if (option_flag(o, "json"))
        print_json(name, &set, &r, &machine);
    else
        print_text(name, &r);
    fflush(stdout);
    return FST_OK;
}

static fst_status run(const struct options *o, fst_error *err)
{
    fst_status s = FST_OK;
    for (size_t i = 0; !s && i < operand_count(o); i++)
        s = run_one(o, operand(o, i), err);
    for (int i = 0; !s && !operand_count(o) && i < WORKLOADS; i++)
        s = run_one(o, workloads[i].name, err);
    if (!s && !operand_count(o))
        s = run_one(o, federated_name, err);
    return s;
}

const struct command cmd_bench = {
    .name = "bench",
    .summary = "Measure training and inference speed on this machine",
    .description =
        "Trains, or infers, on synthetic data in memory. Kernels are the sum of the compute kernels of a step, each "
        "run "
        "alone: the step's lower bound; the second line has the share of the step that each kind of layer takes, the "
        "rest being loss, optimiser and waiting. FLOPs of a training step are three times those of a forward pass. For "
        "fl_mnist_lr (1000 clients of 60 samples, 10 a round, 100 rounds, batches of 10) the "
        "time "
        "of the whole run is given too. p50 and p99 are the times of single calls of an inference.\n\nWith --json a "
        "line also says what the machine was doing: load averages "
        "before and "
        "after, the share of all CPUs' time that was idle, and the share that a virtual machine's host gave to others "
        "(steal). On a quiet machine the load before is near 0 and steal is 0. step_cpu_ms, the time of all threads in "
        "a "
        "step, is disturbed least by other programs.\n\nPeak memory is the process': measure one workload at a time to "
        "compare it.",
    .options = options,
    .operands = operands,
    .examples = examples,
    .run = run,
};
