/* fedstill model prune: a model file with fewer channels. It looks at weights alone and trains nothing; a task's stage
 * does both. */
#include <string.h>

#include "common.h"

static const char *const importances[] = {"l1", "batchnorm", NULL}; /* as fst_importance */

static const struct option_spec options[] = {
    {.name = "ratio",
     .letter = 'r',
     .argument = "R",
     .type = OPTION_DOUBLE,
     .low = 0,
     .high = 0.99,
     .fallback = "0.5",
     .help = "Of the channels that are removed; 0 copies the file."},
    {.name = "importance",
     .argument = "BY",
     .type = OPTION_STRING,
     .fallback = "l1",
     .choices = importances,
     .help =
         "What a channel is worth: l1, the magnitudes of the weights that make it; batchnorm, the scale of the batch "
         "norm after it, for networks that have such."},
    {.name = "global",
     .type = OPTION_FLAG,
     .help =
         "Take the ratio of all channels of the network together, wherever the least important are; every layer keeps "
         "a tenth at least. Without: of each layer."},
    {.name = "out", .letter = 'o', .argument = "FILE", .type = OPTION_STRING, .help = "The model file to write."},
    {.name = "json", .type = OPTION_FLAG, .help = "Write a JSON object."},
    {0},
};
static const struct operand_spec operands[] = {
    {"MODEL", 1, 1, "A model file in f32."},
    {0},
};
static const char *const examples[] = {
    "fedstill model prune tasks/mnist/output/edge_kd/model.safetensors --ratio 0.25 -o student-pruned.safetensors",
    "Removes a quarter of each layer's channels.",
    "fedstill bench student-pruned.safetensors --batch 32",
    "How fast what is left is.",
    NULL,
};

struct work {
    const struct options *o;
    fst_prune prune;
    fst_model model, pruned;
    fst_channels *channels; /* of the model */
    char of[FST_DIGEST_HEX], digest[FST_DIGEST_HEX];
};

static void release(struct work *w)
{
    fst_channels_free(w->channels);
    fst_model_release(&w->pruned);
    fst_model_release(&w->model);
}

static bool has_fewer(const struct work *w)
{
    return w->pruned.state.param_count < w->model.state.param_count;
}

/* How many channels of group k are left. */
static int64_t left(const struct work *w, size_t k)
{
    return has_fewer(w) ? w->pruned.config.widths[k] : fst_channels_group(w->channels, k).channels;
}

static double state_bytes(const fst_state *s)
{
    return 4.0 * (double)(s->param_count + s->buffer_count) + 8.0 * (double)s->counter_count;
}

/* ---- writing ------------------------------------------------------------------------------------------------- */

static fst_status copy(struct work *w, const char *out, fst_error *err)
{
    fst_buf bytes = {0};
    fst_status s = fst_file_read(operand(w->o, 0), SIZE_MAX, &bytes, err);
    if (!s)
        s = fst_file_write(out, bytes.data, bytes.len, err);
    fst_buf_release(&bytes);
    memcpy(w->digest, w->of, sizeof w->digest);
    return s;
}

static fst_status save(struct work *w, fst_error *err)
{
    char ratio[32];
    const char *out = option_string(w->o, "out");
    snprintf(ratio, sizeof ratio, "%.17g", w->prune.ratio);
    const fst_pair more[] = {{"stage", "prune"},
                             {"unpruned_digest", w->of},
                             {"prune_ratio", ratio},
                             {"prune_importance", fst_importance_name(w->prune.importance)},
                             {"prune_scope", w->prune.global ? "global" : "layer"},
                             {"writer", "fedstill " FST_VERSION}};
    fst_status s = fst_sha256_file(operand(w->o, 0), w->of, err);
    if (s)
        return s;
    if (!has_fewer(w))
        return copy(w, out, err);
    return fst_model_save(&w->pruned, out, more, sizeof more / sizeof *more, w->digest, err);
}

/* ---- showing ------------------------------------------------------------------------------------------------- */

static fst_status less(fst_buf *out, const char *name, const char *(*human)(double v, char text[FST_HUMAN]),
                       double before, double after, fst_error *err)
{
    char a[FST_HUMAN], b[FST_HUMAN];
    return add_field(out, err, name, "%s, %.3g times less than %s", human(after, a), before / after, human(before, b));
}

static fst_status add_text(const struct work *w, fst_buf *out, fst_error *err)
{
    fst_buf list = {0};
    fst_status s = add_field(out, err, "network", "%s", w->model.arch);
    for (size_t k = 0; !s && k < fst_channels_groups(w->channels); k++) {
        fst_channel_group g = fst_channels_group(w->channels, k);
        s = fst_buf_printf(&list, err, "%s%s %lld of %lld", k ? ", " : "", g.name, (long long)left(w, k),
                           (long long)g.channels);
    }
    if (!s)
        s = add_field(out, err, "channels left", "%s", list.data);
    fst_buf_release(&list);
    if (!s)
        s = less(out, "parameters", fst_human_count, (double)w->model.state.param_count,
                 (double)w->pruned.state.param_count, err);
    if (!s)
        s = less(out, "FLOPs a sample", fst_human_count, fst_graph_flops(w->model.graph),
                 fst_graph_flops(w->pruned.graph), err);
    if (!s)
        s = less(out, "weights", fst_human_bytes, state_bytes(&w->model.state), state_bytes(&w->pruned.state), err);
    if (!s && !has_fewer(w))
        s = add_field(out, err, "unchanged", "nothing was removed: the file is a copy");
    return s ? s : add_field(out, err, "written", "%s, SHA-256 %s", option_string(w->o, "out"), w->digest);
}

static json_t *size_json(const fst_model *m)
{
    return json_pack("{s:I, s:o, s:o}", "parameters", (json_int_t)m->state.param_count, "flops",
                     fst_json_number(fst_graph_flops(m->graph)), "bytes", fst_json_number(state_bytes(&m->state)));
}

static json_t *work_json(const struct work *w)
{
    json_t *list = json_array();
    for (size_t k = 0; k < fst_channels_groups(w->channels); k++) {
        fst_channel_group g = fst_channels_group(w->channels, k);
        json_array_append_new(list, json_pack("{s:s, s:I, s:I}", "name", g.name, "channels", (json_int_t)g.channels,
                                              "left", (json_int_t)left(w, k)));
    }
    return json_pack("{s:o, s:s, s:s, s:o, s:s, s:s, s:o, s:o, s:o}", "written",
                     fst_json_text(option_string(w->o, "out")), "sha256", w->digest, "arch", w->model.arch, "ratio",
                     fst_json_number(w->prune.ratio), "importance", fst_importance_name(w->prune.importance), "scope",
                     w->prune.global ? "global" : "layer", "before", size_json(&w->model), "after",
                     size_json(&w->pruned), "groups", list);
}

static fst_status run(const struct options *o, fst_error *err)
{
    bool l1 = !strcmp(option_string(o, "importance"), "l1");
    struct work w = {.o = o,
                     .prune = {.ratio = option_double(o, "ratio"),
                               .importance = l1 ? FST_IMPORTANCE_L1 : FST_IMPORTANCE_BATCHNORM,
                               .global = option_flag(o, "global")}};
    fst_buf out = {0};
    if (!option_given(o, "out"))
        return fst_fail(err, FST_E_CONFIG, "--out: which file is to be written?");
    fst_status s = load_model(&w.model, operand(o, 0), err);
    if (!s)
        s = fst_model_need_f32(&w.model, operand(o, 0), "cannot be pruned", err);
    if (!s)
        s = fst_model_prune(&w.pruned, &w.model, &w.prune, err);
    if (!s)
        s = fst_channels_new(&w.channels, w.model.graph, err);
    if (!s)
        s = save(&w, err);
    if (!s)
        s = option_flag(o, "json") ? add_json(&out, work_json(&w), true, err) : add_text(&w, &out, err);
    release(&w);
    return finish_output(&out, s);
}

const struct command cmd_model_prune = {
    .name = "model prune",
    .summary = "Remove the channels of a model that matter least",
    .description =
        "Writes the same network with fewer channels in its convolutions and fewer units in its linear layers: a "
        "smaller model that computes in f32 as any other, without zeroes and masks. Channels that an addition or a "
        "depthwise convolution ties together go together or stay. It changes no weight that is left, so that accuracy "
        "falls: a task's stage `prune` also trains what is left.\n\n"
        "Everything that takes a model file takes it, model quantise and model export included. The widths are one of "
        "the network's options: `mnist_student widths=8,16,32` in a task file is the network of such a file.",
    .options = options,
    .operands = operands,
    .examples = examples,
    .run = run,
};
