/* What a run's events add up to: rounds, bytes, and how good each stage's model is by what was said last. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "fedstill/store.h"
#include "watch_private.h"

static void note_model(struct tally *t, const char *stage, double accuracy, double loss)
{
    size_t i = 0;
    while (i < t->models && strcmp(t->model[i].name, stage) != 0)
        i++;
    if (i == FST__TALLY_MODELS || !*stage || !isfinite(accuracy))
        return;
    t->models += i == t->models;
    snprintf(t->model[i].name, sizeof t->model[i].name, "%s", stage);
    t->model[i].accuracy = accuracy;
    t->model[i].loss = loss;
}

static uint64_t whole(const fst_event *e, const char *key)
{
    double x = fst_event_number(e, key);
    return x >= 0 && x < 0x1p53 ? (uint64_t)x : 0;
}

static void note_stage(struct tally *t, const fst_event *e)
{
    const fst_field *state = fst_event_field(e, "state");
    bool text = state && state->type == FST_FIELD_STRING && state->value.string;
    snprintf(t->stage, sizeof t->stage, "%s", e->stage);
    snprintf(t->state, sizeof t->state, "%s", text ? state->value.string : "");
}

static bool add(void *ctx, const fst_event *e)
{
    struct tally *t = ctx;
    if (!strcmp(e->event, "start") && e->run != t->run)
        *t = (struct tally){.run = e->run};
    if (!strcmp(e->event, "stage"))
        note_stage(t, e);
    if (!strcmp(e->event, "result"))
        note_model(t, e->stage, fst_event_number(e, "accuracy"), fst_event_number(e, "loss"));
    if (strcmp(e->event, "round"))
        return true;
    t->rounds++;
    t->reported += whole(e, "reported");
    t->lost += whole(e, "lost");
    t->bytes_up += whole(e, "bytes_up");
    t->bytes_down += whole(e, "bytes_down");
    note_model(t, e->stage, fst_event_number(e, "test_accuracy"), fst_event_number(e, "test_loss"));
    return true;
}

void fst__tally_line(struct tally *t, const char *line, size_t len)
{
    (void)!fst_events_parse(line, len, add, t, NULL, NULL);
}
