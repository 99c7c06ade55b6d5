/* Sections on what went in: data, settings, where the run comes from. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "html.h"

enum { MAX_PLACES = 60, MAX_CLASS_COLUMNS = 64 };

/* ---- data --------------------------------------------------------------------------------------------- */

static void places_row(const fst_html_report *r, fst__page *p, const fst_place_counts *place, size_t columns)
{
    int64_t sum = 0, most = 1;
    for (int c = 0; c < r->classes; c++) {
        sum += place->counts[c];
        most = place->counts[c] > most ? place->counts[c] : most;
    }
    fst__row_begin(p);
    fst__cell_head(p, place->name);
    fst__cell_count(p, (double)sum);
    for (int c = 0; c < r->classes; c++) {
        int64_t n = place->counts[c];
        fst__record_number(p, (double)n, NULL);
        if ((size_t)c >= columns)
            continue;
        if (n)
            fst__putf(p, "<td class=\"hit\" style=\"--v:%.3f\">%" PRId64 "</td>", (double)n / (double)most, n);
        else
            fst__put(p, "<td class=\"none\">0</td>");
    }
    fst__row_end(p);
}

/* titles: classes + 3, filled; numbers: their texts where classes have no names. */
static void places_titles(const fst_html_report *r, const char **titles, char (*numbers)[24])
{
    titles[0] = "place";
    titles[1] = "all";
    for (int c = 0; c < r->classes; c++) {
        snprintf(numbers[c], sizeof numbers[c], "%d", c);
        titles[c + 2] = r->class_names ? r->class_names[c] : numbers[c];
    }
    titles[r->classes + 2] = NULL;
}

static void places_table(const struct fst__html *h, fst__page *p)
{
    const fst_html_report *r = h->r;
    size_t classes = (size_t)r->classes, columns = classes < MAX_CLASS_COLUMNS ? classes : MAX_CLASS_COLUMNS;
    const char **titles = fst_calloc(classes + 3, sizeof *titles);
    char(*numbers)[24] = fst_calloc(classes, sizeof *numbers);
    if (!titles || !numbers) {
        p->status = p->status ? p->status : fst_fail_memory(p->err, classes * sizeof *numbers);
        fst_free(titles);
        fst_free(numbers);
        return;
    }
    places_titles(r, titles, numbers);
    fst__record_begin(p, "places-by-class", titles, false);
    fst__putf(p,
              "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Samples by place and class\"><table "
              "class=\"heat%s\">\n<caption><span>Samples by place and class, shaded by their share of "
              "the place's most frequent class</span></caption>\n<thead><tr><th scope=\"col\">place</th><th "
              "scope=\"col\"><span>all</span></th>",
              columns <= 12 ? " confusion" : "");
    for (size_t c = 0; c < columns; c++) {
        fst__put(p, "<th scope=\"col\"><span>");
        fst__say(p, titles[c + 2]);
        fst__put(p, "</span></th>");
    }
    fst__put(p, "</tr></thead>\n<tbody>\n");
    for (size_t i = 0; i < r->place_count; i++) {
        p->only_csv = i >= MAX_PLACES;
        places_row(r, p, &r->places[i], columns);
    }
    p->only_csv = false;
    fst__table_end(p);
    if (r->place_count > MAX_PLACES || classes > columns)
        fst__missing(p,
                     "Not shown:", "places after the first 60 and classes after the first 64; the CSV file has them.");
    fst_free(titles);
    fst_free(numbers);
}

static void summary_places(fst__page *p, json_t *places)
{
    static const char *const columns[] = {"place", "#samples", "#validation", "classes that it lacks", NULL};
    size_t i;
    json_t *j;
    if (!json_array_size(places))
        return;
    fst__table_begin(p, "places", "Training samples of cloud and edges", columns);
    json_array_foreach(places, i, j)
    {
        if (i == 1000)
            break;
        fst__row_begin(p);
        fst__cell_head(p, fst__json_text(j, "place"));
        fst__cell_count(p, fst__json_number(j, "samples"));
        fst__cell_count(p, fst__json_number(j, "validation"));
        fst__cell(p, fst__json_text(j, "missing_classes"));
        fst__row_end(p);
    }
    fst__table_end(p);
}

void fst__html_data(const struct fst__html *h, fst__page *p)
{
    const fst_html_report *r = h->r;
    json_t *s = h->piece[PIECE_SUMMARY].json, *d = json_object_get(s, "data");
    bool counts = r->place_count && r->classes > 0;
    char text[48];
    if (!d && !counts)
        return;
    fst__section(p, "data", "Data");
    fst__facts_begin(p);
    snprintf(text, sizeof text, "%.0f", fst__json_number(d, "train_samples"));
    fst__fact_number(p, "training samples", fst__json_number(d, "train_samples"), text);
    snprintf(text, sizeof text, "%.0f", fst__json_number(d, "test_samples"));
    fst__fact_number(p, "test samples", fst__json_number(d, "test_samples"), text);
    snprintf(text, sizeof text, "%d", r->classes);
    fst__fact_number(p, "classes", r->classes > 0 ? r->classes : NAN, text);
    fst__facts_end(p);
    const char *digest = fst__json_text(d, "test_digest");
    if (r->test_digest && digest && strcmp(digest, r->test_digest))
        fst__missing(
            p, "Not the run's test samples:",
            "those that were opened for this page have another digest. Counts by class, examples and what was tried "
            "on them are of the opened ones.");
    summary_places(p, json_object_get(s, "places"));
    if (counts)
        places_table(h, p);
    if (r->places_note)
        fst__say_in(p, "p", r->places_note);
}

/* ---- settings ------------------------------------------------------------------------------------------- */

void fst__html_settings(const struct fst__html *h, fst__page *p)
{
    if (!h->r->settings && !h->r->settings_note)
        return;
    fst__section(p, "settings", "Task and settings");
    if (h->r->settings_note)
        fst__say_in(p, "p", h->r->settings_note);
    if (!h->r->settings)
        return;
    fst__put(p, "<pre tabindex=\"0\" role=\"region\" aria-label=\"Settings\"><code>");
    fst__say(p, h->r->settings);
    fst__put(p, "</code></pre>\n");
}

/* ---- provenance --------------------------------------------------------------------------------------------- */

/* Once for each file, with the names of all stages whose file it is. */
static void digests(const struct fst__html *h, fst__page *p)
{
    json_t *stages = json_object_get(h->piece[PIECE_SUMMARY].json, "stages"), *j, *k;
    const char *step, *other;
    size_t shown = 0;
    json_object_foreach(stages, step, j)
    {
        bool model = json_object_get(j, "model") != NULL, before = false, passed = false;
        const char *digest = fst__json_text(json_object_get(j, model ? "model" : "artifact"), "digest");
        char name[256];
        snprintf(name, sizeof name, "%.60s", step);
        json_object_foreach(stages, other, k)
        {
            const char *same = fst__json_text(json_object_get(k, model ? "model" : "artifact"), "digest");
            size_t n = strlen(name);
            if (k == j)
                passed = true;
            else if (same && digest && !strcmp(same, digest) && !passed)
                before = true;
            else if (same && digest && !strcmp(same, digest))
                snprintf(name + n, sizeof name - n, ", %.60s", other);
        }
        size_t n = strlen(name);
        snprintf(name + n, sizeof name - n, ": %s", model ? "model" : "artifact");
        if (!before && shown++ < FST__SHOWN_STAGES)
            fst__fact_digest(p, name, digest);
    }
}

static void seed_fact(const struct fst__html *h, fst__page *p)
{
    json_t *seed = json_object_get(h->piece[PIECE_SUMMARY].json, "seed");
    char text[32];
    int64_t v;
    if (fst_json_is_whole(seed, &v))
        snprintf(text, sizeof text, "%" PRId64, v);
    else if (h->r->run)
        snprintf(text, sizeof text, "%" PRIu64, h->r->run->seed);
    else
        return;
    fst__fact(p, "seed", text);
}

void fst__html_provenance(const struct fst__html *h, fst__page *p)
{
    json_t *s = h->piece[PIECE_SUMMARY].json, *d = json_object_get(s, "data");
    const fst_run *r = h->r->run;
    char text[FST_HUMAN];
    fst__section(p, "origin", "Where this comes from");
    fst__facts_begin(p);
    fst__fact(p, "fedstill that ran it", h->history.version[0] ? h->history.version : fst__json_text(s, "version"));
    fst__fact(p, "fedstill that wrote this page", FST_VERSION);
    fst__fact_digest(p, "git commit of the task's folder when it last ran", h->history.commit);
    fst__fact(p, "kernels", fst__json_text(s, "backend"));
    fst__fact(p, "precision", fst__json_text(s, "precision"));
    seed_fact(h, p);
    fst__fact(p, "output folder", h->r->output);
    if (r) {
        fst__fact(p, "task file", r->task_path);
        fst__fact(p, "machine", r->host);
        fst__fact(p, "begun", fst_human_time(r->started_ms, text));
        fst__fact(p, "ended", fst_human_time(r->ended_ms, text));
        fst__fact(p, "message", r->message);
    }
    fst__fact_digest(p, "training data", fst__json_text(d, "train_digest"));
    fst__fact_digest(p, "test data", fst__json_text(d, "test_digest"));
    digests(h, p);
    fst__facts_end(p);
}
