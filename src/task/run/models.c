/* Networks that a task names, and model files of steps: made to fit the samples, saved with where they come from,
 * loaded as exactly the file that a record names. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "session.h"

fst_status fst__model_config(const struct samples *d, const char *model, char arch[FST__ARCH], fst_model_config *out,
                             fst_error *err)
{
    fst_model_config c = {.classes = d->train->classes, .input = d->train->shape};
    size_t n = strcspn(model, " ");
    fst_status st = FST_OK;
    snprintf(arch, FST__ARCH, "%.*s", (int)(n < FST__ARCH ? n : FST__ARCH), model);
    for (const char *at = model + n; !st && at[n = strspn(at, " ")];) {
        char setting[512]; /* widths of a network are many */
        at += n;
        n = strcspn(at, " ");
        snprintf(setting, sizeof setting, "%.*s", (int)(n < sizeof setting ? n : sizeof setting - 1), at);
        if (!strncmp(setting, "classes=", 8) || !strncmp(setting, "input=", 6))
            return fst_fail(err, FST_E_CONFIG, "\"%s\": classes and input are those of the data", setting);
        st = fst_model_config_set(&c, arch, setting, err);
        at += n;
    }
    if (!st)
        *out = c;
    return st;
}

fst_status fst__model_graph(const struct samples *d, const char *model, fst_graph **out, fst_error *err)
{
    char arch[FST__ARCH];
    fst_model_config c;
    fst_status st = fst__model_config(d, model, arch, &c, err);
    return st ? st : fst_model_graph(out, arch, &c, err);
}

fst_status fst__new_model(const struct samples *d, const char *model, fst_model *out, fst_error *err)
{
    char arch[FST__ARCH];
    fst_model_config c;
    fst_status st = fst__model_config(d, model, arch, &c, err);
    if (!st)
        st = fst_model_init(out, arch, &c, err);
    if (st)
        return st;
    out->channels = d->transform.channels;
    out->fingerprint = d->transform.fingerprint;
    memcpy(out->mean, d->transform.mean, sizeof out->mean);
    memcpy(out->std, d->transform.std, sizeof out->std);
    if (d->train->class_names)
        st = fst_model_set_class_names(out, d->train->class_names, d->train->classes, err);
    if (st)
        fst_model_release(out);
    return st;
}

static bool all_finite(const float *x, size_t n)
{
    const uint32_t exponent = 0x7F800000u; /* all ones: infinity or NaN */
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bad |= (bits & exponent) == exponent;
    }
    return !bad;
}

fst_status fst__state_sound(const fst_state *state, fst_error *err)
{
    if (all_finite(state->params, state->param_count) && all_finite(state->buffers, state->buffer_count))
        return FST_OK;
    return fst_fail(err, FST_E_NUMERIC, "a parameter of the model is no longer a finite number");
}

fst_status fst__write_model(struct session *s, const struct step *step, const fst_model *m, const struct record *r,
                            const char *name, double accuracy, char digest[FST_DIGEST_HEX], fst_error *err)
{
    char percent[32], seed[32];
    snprintf(percent, sizeof percent, "%.6f", accuracy);
    snprintf(seed, sizeof seed, "%lld", (long long)s->task->file.seed);
    fst_pair more[] = {
        {"task", s->task->file.name},           {"stage", step->stage->name}, {"seed", seed},
        {"data_digest", s->data.train->digest}, {"test_accuracy", percent},   {"fingerprint", r->fingerprint},
        {"writer", "fedstill " FST_VERSION}};
    char *path = fst__step_path(s, step, name);
    fst_status st =
        path ? fst_model_save(m, path, more, sizeof more / sizeof *more, digest, err) : fst_fail_memory(err, 256);
    fst_free(path);
    return st;
}

fst_status fst__save_model(struct session *s, const struct step *step, const fst_model *m, struct record *r,
                           fst_error *err)
{
    struct score score, validation = FST__NO_SCORE;
    fst_status st = fst__state_sound(&m->state, err);
    if (!st)
        st = fst__evaluate_validation(s, step->stage, m->graph, &m->state, &validation, err);
    if (!st)
        st = fst__evaluate_by_snr(s, m->graph, &m->state, &score, &r->snr, err);
    if (!st && !isfinite(score.loss))
        st = fst_fail(err, FST_E_NUMERIC, "the loss over the test samples is not a finite number (%g)", score.loss);
    if (st)
        return fst_fail_in(err, st, "%s: the model is not saved", step->stage->name);
    snprintf(r->artifact, sizeof r->artifact, "model.safetensors");
    r->has_model = true;
    r->accuracy = score.accuracy;
    r->loss = score.loss;
    r->macro_f1 = score.macro_f1;
    r->balanced = score.balanced;
    r->top5 = score.top5;
    r->validation = validation.accuracy;
    r->parameters = (int64_t)m->state.param_count;
    return fst__write_model(s, step, m, r, r->artifact, score.accuracy, r->digest, err);
}

fst_status fst__load_model(const char *path, const char *wanted, fst_model *out, char digest[FST_DIGEST_HEX],
                           fst_error *err)
{
    fst_buf bytes = {0};
    fst_status st = fst__read_whole(path, wanted, &bytes, digest, err);
    if (!st)
        st = fst_model_load_memory(out, path, bytes.data, bytes.len, err);
    fst_buf_release(&bytes);
    return st;
}

fst_status fst__load_step_model(const struct session *s, const struct step *step, fst_model *out, fst_error *err)
{
    char *path = fst__step_path(s, step, step->record.artifact);
    fst_status st = path ? fst__load_model(path, step->record.digest, out, NULL, err) : fst_fail_memory(err, 256);
    fst_free(path);
    return st;
}
