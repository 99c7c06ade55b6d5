/*
 * How a name of another PyTorch program becomes ours: the user's map, then wrappers in front taken off, then what
 * well-known sources call the same layers. A built-in rename only counts where it ends at a name of the network, so
 * that one table serves all networks. Nothing here looks at shapes or values.
 */
#include <stdio.h>
#include <string.h>

#include "names.h"

/* ---- patterns ----------------------------------------------------------------------------------- */

enum { STARS = 8 };
struct run {
    const char *at;
    size_t len;
};

/* Whether name matches; runs[k] is what star k stands for. Going back to the last star alone is enough to find a
 * match where there is one. */
static bool match(const char *pattern, const char *name, struct run *runs)
{
    const char *p = pattern, *n = name, *after = NULL;
    int star = -1;
    while (*n) {
        if (*p == '*' && star + 1 < STARS) {
            runs[++star] = (struct run){n, 1};
            after = ++p;
            n++;
        } else if (*p && *p == *n) {
            p++;
            n++;
        } else if (after) {
            p = after;
            n = runs[star].at + ++runs[star].len;
        } else {
            return false;
        }
    }
    return !*p;
}

/* `to` with the runs for its stars; false when it grows too long. */
static bool fill(const char *to, const struct run *runs, char out[FST__NAME])
{
    size_t at = 0;
    int star = 0;
    for (; *to; to++) {
        struct run r = *to == '*' ? runs[star++] : (struct run){to, 1};
        if (at + r.len >= FST__NAME)
            return false;
        memcpy(out + at, r.at, r.len);
        at += r.len;
    }
    out[at] = 0;
    return true;
}

static bool apply(const char *from, const char *to, const char *name, char out[FST__NAME])
{
    struct run runs[STARS];
    char made[FST__NAME];
    if (!match(from, name, runs) || !fill(to, runs, made))
        return false;
    strcpy(out, made);
    return true;
}

/* ---- the user's map ------------------------------------------------------------------------------- */

static size_t stars(const char *s)
{
    size_t n = 0;
    for (; *s; s++)
        n += *s == '*';
    return n;
}

/* One line, cut in place; false when it is not two words that go together. An empty one leaves *r empty. */
static bool parse_line(char *line, struct fst__rule *r)
{
    static const char *const blank = " \t\r";
    char *save = NULL;
    line[strcspn(line, "#")] = 0;
    *r = (struct fst__rule){strtok_r(line, blank, &save), strtok_r(NULL, blank, &save), false};
    if (!r->from)
        return true;
    return r->to && !strtok_r(NULL, blank, &save) && stars(r->from) <= STARS && stars(r->to) <= stars(r->from) &&
           strlen(r->from) < FST__NAME && strlen(r->to) < FST__NAME;
}

fst_status fst__map_init(struct fst__map *m, const char *text, const char *name, fst_error *err)
{
    struct fst__map n = {.text = fst_strdup(text ? text : "")};
    size_t lines = 1, number = 0;
    for (const char *c = n.text; c && *c; c++)
        lines += *c == '\n';
    n.rules = n.text && lines <= FST__RULES ? fst_calloc(lines, sizeof *n.rules) : NULL;
    fst_status s = FST_OK;
    if (lines > FST__RULES)
        s = fst_fail(err, FST_E_LIMIT, "%s: %zu lines, at most %d are read", name, lines, FST__RULES);
    else if (!n.rules)
        s = fst_fail_memory(err, lines * sizeof *n.rules);
    for (char *line = n.text, *next; !s && line; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = 0;
        number++;
        if (!parse_line(line, &n.rules[n.count]))
            s = fst_fail(err, FST_E_CONFIG,
                         "%s:%zu: a line is THEIRS OURS, with at most %d * in THEIRS and no more of them in OURS", name,
                         number, STARS);
        else if (n.rules[n.count].from)
            n.count++;
    }
    if (s) {
        fst__map_release(&n);
        return s;
    }
    *m = n;
    return FST_OK;
}

void fst__map_release(struct fst__map *m)
{
    fst_free(m->text);
    fst_free(m->rules);
    *m = (struct fst__map){0};
}

/* ---- what is known ---------------------------------------------------------------------------------- */

/* What wrappers and trainers put in front: DataParallel and DistributedDataParallel, torch.compile, FSDP, DeepSpeed,
 * Opacus, PEFT, averages of weights. */
static const char *const wrappers[] = {
    "module.",           "model.",           "_orig_mod.",      "state_dict.", "ema.",      "ema_model.",
    "model_ema.",        "module_ema.",      "network.",        "net.",        "backbone.", "student.",
    "teacher.",          "_module.",         "base_model.",     "_model.",     "params.",   "weights.",
    "model_state_dict.", "_forward_module.", "averaged_model.",
};

/* What wrappers of parts of a network put anywhere into a name; no layer is called so. */
static const char *const inner_wrappers[] = {"_fsdp_wrapped_module.", "_orig_mod.", "_checkpoint_wrapped_module."};

static void unwrap_parts(char *name)
{
    for (char *part = name; part;) {
        bool cut = false;
        for (size_t i = 0; !cut && i < sizeof inner_wrappers / sizeof *inner_wrappers; i++) {
            size_t n = strlen(inner_wrappers[i]);
            cut = !strncmp(part, inner_wrappers[i], n);
            if (cut)
                memmove(part, part + n, strlen(part + n) + 1);
        }
        if (!cut && (part = strchr(part, '.')))
            part++;
    }
}

static const char *unwrap(const char *name)
{
    for (size_t i = 0; i < sizeof wrappers / sizeof *wrappers; i++)
        if (!strncmp(name, wrappers[i], strlen(wrappers[i])))
            return name + strlen(wrappers[i]);
    return NULL;
}

/* Applied in their order, each to what the ones before made of the name. */
static const struct {
    const char *from, *to;
} renames[] = {
    {"conv1.0.*", "conv1.*"}, /* weiaicunzai/pytorch-cifar100 */
    {"conv1.1.*", "bn1.*"},
    {"conv2_x.*", "layer1.*"},
    {"conv3_x.*", "layer2.*"},
    {"conv4_x.*", "layer3.*"},
    {"conv5_x.*", "layer4.*"},
    {"*.residual_function.0.*", "*.conv1.*"},
    {"*.residual_function.1.*", "*.bn1.*"},
    {"*.residual_function.3.*", "*.conv2.*"},
    {"*.residual_function.4.*", "*.bn2.*"},
    {"*.residual_function.6.*", "*.conv3.*"},
    {"*.residual_function.7.*", "*.bn3.*"},
    {"*.shortcut.*", "*.downsample.*"}, /* akamaster, kuangliu */
    {"linear.*", "fc.*"},
    {"head.fc.*", "fc.*"}, /* heads by other names; each counts where the network has the result */
    {"head.*", "fc.*"},
    {"last_linear.*", "fc.*"},
    {"classifier.*", "fc.*"},
    {"fc.*", "classifier.1.*"},
};

/* timm's MobileNetV2 counts stages and blocks, torchvision's features through. */
static bool timm_mobilenet(const char *name, char out[FST__NAME])
{
    static const int first[] = {1, 2, 4, 7, 11, 14, 17, 18}; /* a stage's first of features */
    static const struct {
        const char *theirs, *plain, *expanded; /* in the block without expansion, and in the others */
    } parts[] = {
        {"conv_dw.", "0.0.", "1.0."}, {"bn1.", "0.1.", "0.1."},  {"conv_pw.", "1.", "0.0."},
        {"bn2.", "2.", "1.1."},       {"conv_pwl.", NULL, "2."}, {"bn3.", NULL, "3."},
    };
    static const struct {
        const char *theirs, *ours;
    } ends[] = {{"conv_stem.", "features.0.0."},
                {"bn1.", "features.0.1."},
                {"conv_head.", "features.18.0."},
                {"bn2.", "features.18.1."}};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (!strncmp(name, ends[i].theirs, strlen(ends[i].theirs)))
            return snprintf(out, FST__NAME, "%s%s", ends[i].ours, name + strlen(ends[i].theirs)) < FST__NAME;
    if (strncmp(name, "blocks.", 7) || name[7] < '0' || name[7] > '6' || name[8] != '.' || name[9] < '0' ||
        name[9] > '3' || name[10] != '.')
        return false;
    int stage = name[7] - '0', number = first[stage] + name[9] - '0';
    if (number >= first[stage + 1])
        return false;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        const char *to = stage ? parts[i].expanded : parts[i].plain;
        size_t n = strlen(parts[i].theirs);
        if (to && !strncmp(name + 11, parts[i].theirs, n))
            return snprintf(out, FST__NAME, "features.%d.conv.%s%s", number, to, name + 11 + n) < FST__NAME;
    }
    return false;
}

static bool rename_to_wanted(const char *name, fst__wanted wanted, const void *ctx, char out[FST__NAME])
{
    char made[FST__NAME];
    if (wanted(ctx, name)) {
        memmove(out, name, strlen(name) + 1);
        return true;
    }
    if (timm_mobilenet(name, made) && wanted(ctx, made)) {
        strcpy(out, made);
        return true;
    }
    strcpy(made, name);
    for (size_t i = 0; i < sizeof renames / sizeof *renames; i++)
        if (apply(renames[i].from, renames[i].to, made, made) && wanted(ctx, made)) {
            strcpy(out, made);
            return true;
        }
    return false;
}

/* ---- together ---------------------------------------------------------------------------------------- */

bool fst__map_name(struct fst__map *m, const char *theirs, fst__wanted wanted, const void *ctx, char out[FST__NAME])
{
    char name[FST__NAME];
    size_t length = strlen(theirs);
    if (length >= sizeof name) { /* no network has such a name */
        out[0] = 0;
        return true;
    }
    memcpy(name, theirs, length + 1);
    for (const char *rest = name; rest; rest = unwrap(rest))
        for (size_t i = 0; i < m->count; i++)
            if (apply(m->rules[i].from, m->rules[i].to, rest, out)) {
                m->rules[i].used = true;
                return strcmp(m->rules[i].to, "-") != 0;
            }
    unwrap_parts(name);
    for (const char *rest = name; rest; rest = unwrap(rest)) {
        if (rename_to_wanted(rest, wanted, ctx, out))
            return true;
        strcpy(out, rest);
    }
    return true;
}
