/* The HTML report from the pieces of a run, as texts: what it says, what it leaves out, and that nothing of theirs
 * becomes a tag. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "html.h"
#include "xml_check.h"

static const char summary[] =
    "{\"format\": \"fedstill-summary-1\", \"task\": \"tiny\", \"seed\": 5, \"version\": \"0.1.0\", \"backend\": \"b\","
    "\"data\": {\"train_digest\": \"aa\", \"test_digest\": \"bb\", \"train_samples\": 600, \"test_samples\": 200},"
    "\"stages\": {\"cloud_pretrain\": {\"accuracy\": 0.8925, \"loss\": 0.33480918295726164, \"parameters\": 421642,"
    "\"samples\": 600, \"seconds\": 8.25, \"bytes_up\": 0, \"bytes_down\": 12, \"model\": {\"path\": \"p\", "
    "\"digest\": "
    "\"d1\"}}, \"federated_train\": {\"accuracy\": 0.5, \"loss\": null, \"parameters\": 7, \"samples\": 600, "
    "\"seconds\": 1,"
    "\"bytes_up\": 1, \"bytes_down\": 2, \"model\": {\"path\": \"p\", \"digest\": \"d2\"}}}}";

static const char cascade[] =
    "{\"format\": \"fedstill-cascade-1\", \"route\": \"cascade\", \"summary\": {\"accuracy\": 0.871, "
    "\"offload_ratio\": 0.677},"
    "\"threshold\": {\"value\": 0.9, \"kind\": \"fixed\"}, \"confidence\": {\"kind\": \"max\", \"temperature\": 1.5,"
    "\"ece_before\": 0.125, \"ece_after\": 0.0625, \"auroc\": 0.8486},"
    "\"accuracy\": {\"samples\": 1000, \"offload_ratio\": 0.677, \"accuracy\": 0.871, \"edge_accuracy\": 0.758,"
    "\"cloud_accuracy\": 0.873, \"agreement\": 0.7267, \"corrected\": 134, \"spoiled\": 21,"
    "\"by_class\": [{\"samples\": 9, \"edge_accuracy\": 0.25, \"cloud_accuracy\": 1, \"accuracy\": 0.75, \"name\": "
    "\"P-3C\"},"
    "{\"samples\": 8, \"edge_accuracy\": 0.5, \"cloud_accuracy\": 0.5, \"accuracy\": 0.5, \"name\": \"E-2D\"}],"
    "\"by_snr\": {\"bins\": [{\"from\": 0, \"to\": 2, \"edge_accuracy\": 0.1, \"accuracy\": 0.2}]},"
    "\"confusion\": {\"edge\": [[101, 102], [103, 104]], \"cloud\": null, \"cascade\": [[1, 2], [3]]}},"
    "\"time\": {\"t1\": {\"seconds\": 0.339, \"planning\": 0.001, \"transfer\": 0.1, \"compute\": 0.238},"
    "\"t2\": {\"seconds\": 0.417, \"planning\": 0, \"transfer\": 0.1, \"compute\": 0.317}, \"ratio\": 1.228},"
    "\"curve\": [{\"offload_ratio\": 0, \"accuracy\": 0.758, \"seconds\": 0.02}, {\"offload_ratio\": 1, \"accuracy\": "
    "0.873,"
    "\"seconds\": 0.4}]}";

static const char events[] =
    "{\"time\": \"t0\", \"run\": 1, \"stage\": \"edge_kd\", \"event\": \"stage\", \"state\": \"runs\"}\n"
    "{\"time\": \"t1\", \"run\": 1, \"stage\": \"edge_kd\", \"event\": \"epoch\", \"epoch\": 1, \"loss\": 9, "
    "\"accuracy\": 0.1}\n"
    "{\"time\": \"t1\", \"run\": 1, \"stage\": \"edge_kd\", \"event\": \"epoch\", \"epoch\": 2, \"loss\": 8, "
    "\"accuracy\": 0.2}\n"
    "half a line\n"
    "{\"time\": \"t2\", \"run\": 1, \"stage\": \"edge_kd\", \"event\": \"stage\", \"state\": \"runs\"}\n"
    "{\"time\": \"t3\", \"run\": 1, \"stage\": \"edge_kd\", \"event\": \"epoch\", \"epoch\": 2, \"loss\": 7, "
    "\"accuracy\": 0.3}\n"
    "{\"time\": \"t3\", \"run\": 1, \"stage\": \"edge_kd\", \"event\": \"epoch\", \"epoch\": 3, \"loss\": 6, "
    "\"accuracy\": 0.4}\n"
    "{\"time\": \"t4\", \"run\": 1, \"stage\": \"edge_kd\", \"event\": \"stage\", \"state\": \"done\"}\n"
    "{\"time\": \"t5\", \"run\": 1, \"stage\": \"federated_train\", \"event\": \"round\", \"round\": 1, \"selected\": "
    "4,"
    "\"reported\": 3, \"lost\": 1, \"bytes_up\": 3000000, \"bytes_down\": 4000000, \"test_accuracy\": 0.5}\n"
    "{\"time\": \"t6\", \"run\": 1, \"stage\": \"federated_train\", \"event\": \"round\", \"round\": 2, \"selected\": "
    "4,"
    "\"reported\": 4, \"lost\": 0, \"bytes_up\": 3000000, \"bytes_down\": 4000000, \"test_accuracy\": 0.625, "
    "\"loss_kind\": \"cross entropy (weighted by class)\"}\n"
    "{\"time\": \"t6\", \"run\": 1, \"stage\": \"federated_train\", \"event\": \"client\", \"round\": 1, \"client\": "
    "5, "
    "\"reported\": true, \"samples\": 31337}\n"
    "{\"time\": \"t6\", \"run\": 1, \"stage\": \"federated_train\", \"event\": \"client\", \"round\": 2, \"client\": "
    "7, "
    "\"reported\": true, \"samples\": 4711, \"train_loss\": 0.8125, \"seconds\": 2.5, \"bytes_up\": 1, "
    "\"bytes_down\": 2}\n"
    "{\"time\": \"t6\", \"run\": 1, \"stage\": \"federated_train\", \"event\": \"of a later version\", \"round\": 3}\n";

/* NULL: the piece is not there. Returns the page, checked; free(). */
static char *page_of(const fst_html_report *r, const char *const text[PIECES])
{
    struct fst__html h = {.r = r};
    fst_buf out = {0};
    fst_error e = {0};
    char why[200];
    size_t at;
    for (int i = 0; i < PIECES; i++)
        if ((h.piece[i].there = text[i] != NULL))
            assert_int_equal(fst_buf_append(&h.piece[i].text, text[i], strlen(text[i]), NULL), FST_OK);
    if (fst__html_write(&h, &out, &e))
        fail_msg("%s", e.message);
    if (!xml_check(out.data, out.len, &at, why, sizeof why))
        fail_msg("byte %zu: %s: %.80s", at, why, out.data + (at > 40 ? at - 40 : 0));
    fst__html_release(&h);
    char *page = strdup(out.data);
    fst_buf_release(&out);
    return page;
}

static void holds(const char *page, const char *text)
{
    if (!strstr(page, text))
        fail_msg("\"%s\" is missing from the page", text);
}

static void lacks(const char *page, const char *text)
{
    if (strstr(page, text))
        fail_msg("\"%s\" is in the page", text);
}

static void value(const char *page, const char *number, const char *shown)
{
    char text[128];
    snprintf(text, sizeof text, "data-value=\"%s\">%s<", number, shown);
    holds(page, text);
}

static const fst_html_report bare = {.output = "some/output"};

static void test_numbers_are_those_of_the_files(void **state)
{
    (void)state;
    char *page = page_of(&bare, (const char *const[PIECES]){summary, NULL, cascade, NULL, events});
    holds(page, "<h1>tiny</h1>");
    value(page, "0.89249999999999996", "89.25 %");
    value(page, "0.33480918295726164", "0.3348");
    value(page, "421642", "422k");
    value(page, "8.25", "8.2 s");
    value(page, "0.871", "87.10 %");
    value(page, "0.67700000000000005", "67.70 %");
    value(page, "134", "134");
    value(page, "0.0625", "0.0625");
    value(page, "0.84860000000000002", "0.8486");
    value(page, "0.33900000000000002", "339 ms");
    value(page, "1.228", "1.228");
    value(page, "6000000", "6.0 MB");   /* of both rounds */
    holds(page, "data-value=\"4711\""); /* a client of the last round */
    holds(page, "data-value=\"0.8125\"");
    lacks(page, "31337"); /* one of another round */
    holds(page, "<code>d1</code>");
    holds(page, ">101</td>");
    holds(page, "scope=\"row\">P-3C</th>");
    for (size_t i = 0; i < 8; i++) {
        static const char *const ids[] = {"stages",  "curves", "rounds",    "cascade",
                                          "classes", "snr",    "confusion", "origin"};
        char text[64];
        snprintf(text, sizeof text, "<section id=\"%s\"", ids[i]);
        holds(page, text);
        snprintf(text, sizeof text, "<a href=\"#%s\">", ids[i]);
        holds(page, text);
    }
    free(page);
}

/* By hand: recalls 3/4, 1/2, and a third class that is only answered; F1 6/7, 2/4, 0. */
static void test_scores(void **state)
{
    (void)state;
    static const int64_t v[] = {3, 1, 0, 0, 1, 1, 0, 0, 0};
    struct fst__scores s = fst__scores_of(3, v);
    assert_float_equal(s.samples, 6, 0);
    assert_float_equal(s.accuracy, 4.0 / 6, 1e-15);
    assert_float_equal(s.balanced, (0.75 + 0.5) / 2, 1e-15);
    assert_float_equal(s.macro_f1, (6.0 / 7 + 0.5 + 0) / 3, 1e-15);
    assert_true(isnan(fst__recall(3, v, 2)));
    s = fst__scores_of(0, NULL);
    assert_true(s.samples == 0 && isnan(s.accuracy) && isnan(s.balanced) && isnan(s.macro_f1));
}

static size_t count_of(const char *page, const char *text)
{
    size_t n = 0;
    for (const char *p = page; (p = strstr(p, text)); p++)
        n++;
    return n;
}

/* The federated student is the edge's model and the teacher the cloud's: one row, one column, one matrix for both. */
static void test_one_model_under_two_names(void **state)
{
    (void)state;
    static const char both[] =
        "{\"edge\": {\"digest\": \"d2\"}, \"cloud\": {\"digest\": \"d1\"}, \"accuracy\": {\"by_class\": ["
        "{\"samples\": 4, \"edge_accuracy\": 0.75, \"cloud_accuracy\": 1, \"accuracy\": 1}, {\"samples\": 2, "
        "\"edge_accuracy\": 0.5, \"cloud_accuracy\": 1, \"accuracy\": 1}], \"confusion\": {\"edge\": [[3, 1], [1, 1]], "
        "\"cloud\": [[4, 0], [0, 2]]}}}";
    const int64_t edge[] = {3, 1, 1, 1}, other[] = {2, 2, 1, 1};
    const fst_tried_model models[] = {{"federated_train", edge, NULL, 0, "d2"}, {"edge_kd", other, NULL, 0, "d3"}};
    const fst_html_report r = {.output = "o", .classes = 2, .models = models, .model_count = 2};
    char *page = page_of(&r, (const char *const[PIECES]){summary, NULL, both});
    assert_int_equal(count_of(page, "<table class=\"heat confusion"), 3);
    holds(page, "Answers of the student federated (edge)</span>");
    holds(page, "Answers of the teacher (cloud)</span>");
    holds(page, "Answers of the student distilled</span>");
    lacks(page, "Answers of the edge</span>");
    lacks(page, "Answers of the student federated</span>");
    assert_int_equal(count_of(page, "<th scope=\"row\">student federated (edge)</th>"), 1);
    assert_int_equal(count_of(page, "<th scope=\"row\">teacher (cloud)</th>"), 1);
    assert_int_equal(count_of(page, "<th scope=\"col\" class=\"n\">student federated (edge)</th>"), 1);
    value(page, "0.625", "62.50 %"); /* balanced */
    holds(page, "Least often right: class 1 (50.00 %).");
    free(page);
    /* a file that has changed since is another model */
    const fst_tried_model changed[] = {{"federated_train", other, NULL, 0, "d9"}};
    const fst_html_report again = {.output = "o", .classes = 2, .models = changed, .model_count = 1};
    page = page_of(&again, (const char *const[PIECES]){summary, NULL, both});
    assert_int_equal(count_of(page, "<table class=\"heat confusion"), 3);
    free(page);
}

static void test_edges_that_took_no_part(void **state)
{
    (void)state;
    static const char two[] = "{\"stages\": {\"federated_train\": {\"accuracy\": 0.5, \"edges\": ["
                              "{\"samples\": 4, \"accuracy\": 0.25}, {\"samples\": 9, \"accuracy\": null}]}}}";
    char *page = page_of(&bare, (const char *const[PIECES]){two});
    holds(page, "scope=\"row\">edge 2</th>");
    holds(page, ">did not take part</td>");
    assert_int_equal(count_of(page, ">did not take part</td>"), 1);
    holds(page, "The edge&#39;s own last model reaches 25.00 %.");
    free(page);
}

/* Two processes of a run: seconds go on, CPU time begins anew. */
static void test_resources(void **state)
{
    (void)state;
#define AT(stage, rest) "{\"time\": \"t\", \"run\": 2, \"stage\": \"" stage "\", \"event\": " rest "}\n"
    static const char text[] =
        "{\"time\": \"t\", \"run\": 1, \"stage\": \"edge_kd\", \"event\": \"resources\", \"seconds\": 99, "
        "\"cpu_seconds\": 9}\n" AT("", "\"start\", \"version\": \"9.9\", \"commit\": null")
            AT("", "\"resources\", \"seconds\": 1, \"cpu_seconds\": 1, \"rss_bytes\": 1000000")
                AT("edge_kd", "\"resources\", \"seconds\": 3, \"cpu_seconds\": 5, \"rss_bytes\": 3000000")
                    AT("", "\"start\", \"version\": \"9.9\", \"commit\": \"c0ffee\"")
                        AT("edge_kd", "\"resources\", \"seconds\": 1, \"cpu_seconds\": 1, \"rss_bytes\": 2000000")
                            AT("edge_kd", "\"resources\", \"seconds\": 2, \"cpu_seconds\": 1.5, \"rss_bytes\": 2000000")
                                AT("edge_kd", "\"epoch\", \"epoch\": 1, \"loss\": 1, \"loss_kind\": \"half this + half "
                                              "that\", \"learning_rate\": 0.125, \"validation_loss\": 2")
                                    AT("edge_kd", "\"epoch\", \"epoch\": 2, \"loss\": 1, \"loss_kind\": \"half this + "
                                                  "half that\", \"learning_rate\": 0.0625, \"validation_loss\": 2");
    char *page = page_of(&bare, (const char *const[PIECES]){NULL, NULL, NULL, NULL, text});
    holds(page, "<section id=\"resources\"");
    value(page, "3", "3.0 s");        /* 2 s of the first process and 1 s of the second */
    value(page, "4.5", "4.5 s");      /* of CPU */
    value(page, "1.5", "1.5");        /* cores */
    value(page, "3000000", "3.0 MB"); /* at most */
    value(page, "5", "5.0 s");        /* worked, after both */
    lacks(page, "99.0 s");
    holds(page, "<code>c0ffee</code>");
    holds(page, "Training loss: half this + half that");
    holds(page, "Validation loss: cross entropy");
    holds(page, "<title>Learning rate, epoch 2: 0.0625</title>");
    free(page);
}

static fst_status keep_table(void *ctx, const char *name, const fst_buf *text, fst_error *err)
{
    fst_buf *all = ctx;
    fst_status st = fst_buf_printf(all, err, "=%s=\n", name);
    return st ? st : fst_buf_append(all, text->data, text->len, err);
}

static void test_tables_as_csv(void **state)
{
    (void)state;
    static const char *const names[] = {"a, \"b\"\x1b\xE2\x80\xAE", "=x"};
    const int64_t confusion[] = {3, 1, 1, 1}, counts[] = {7, 8};
    const fst_tried_model models[] = {{"edge_kd", confusion, NULL, 0, NULL}};
    const fst_place_counts places[] = {{"client 1", counts}};
    const fst_html_report r = {.output = "o",
                               .classes = 2,
                               .class_names = names,
                               .places = places,
                               .place_count = 1,
                               .models = models,
                               .model_count = 1};
    struct fst__html h = {.r = &r, .table = keep_table};
    fst_buf out = {0}, all = {0};
    h.ctx = &all;
    h.piece[PIECE_SUMMARY].there = true;
    assert_int_equal(fst_buf_append(&h.piece[PIECE_SUMMARY].text, summary, sizeof summary - 1, NULL), FST_OK);
    assert_int_equal(fst__html_write(&h, &out, NULL), FST_OK);
    holds(all.data, "=models=\nmodel,accuracy [share],balanced accuracy [share],macro-F1 [share],loss,parameters\r\n"
                    "teacher,0.8925,,,0.33480918295726164,421642\r\nstudent federated,0.5,,,,7\r\n");
    holds(all.data, "=stages=\nstage,samples,time [s],sent up [B],sent down [B],state\r\n"
                    "teacher,600,8.25,0,12,\r\n");
    holds(all.data, "=confusion-edge_kd=\ntrue class,\"a, \"\"b\"\" ?\",=x\r\n\"a, \"\"b\"\" ?\",3,1\r\n=x,1,1\r\n");
    holds(all.data, "=places-by-class=\nplace,all,\"a, \"\"b\"\" ?\",=x\r\nclient 1,15,7,8\r\n");
    holds(out.data,
          "<a download=\"confusion-edge_kd.csv\" href=\"data:text/csv;charset=utf-8,true%20class,%22a,%20%22%22b");
    fst__html_release(&h);
    fst_buf_release(&out);
    fst_buf_release(&all);
}

static void test_a_page_needs_nothing_else(void **state)
{
    (void)state;
    char *page = page_of(&bare, (const char *const[PIECES]){summary, NULL, cascade, NULL, events});
    lacks(page, "src=\"http");
    lacks(page, "href=\"http");
    lacks(page, "url(");
    lacks(page, "@import");
    for (const char *p = page; (p = strstr(p, "<svg ")); p++) {
        const char *end = strchr(p, '>');
        char tag[2000];
        snprintf(tag, sizeof tag, "%.*s", (int)(end - p), p);
        assert_true(strstr(tag, "aria-label=\"") || strstr(tag, "aria-hidden"));
    }
    free(page);
}

static void test_what_is_not_there_is_left_out(void **state)
{
    (void)state;
    char *page = page_of(&bare, (const char *const[PIECES]){NULL});
    holds(page, "summary.json is missing");
    static const char *const ids[] = {"curves",    "rounds", "cascade", "classes", "snr",
                                      "confusion", "pairs",  "data",    "settings"};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        char text[64];
        snprintf(text, sizeof text, "id=\"%s\"", ids[i]);
        lacks(page, text);
    }
    free(page);
    page = page_of(&bare, (const char *const[PIECES]){summary});
    holds(page, "id=\"data\"");
    lacks(page, "id=\"cascade\"");
    lacks(page, "id=\"rounds\"");
    free(page);
}

static void test_damage_is_named(void **state)
{
    (void)state;
    char *page = page_of(&bare, (const char *const[PIECES]){"{\"task\": ", "[]", "{\"accuracy\": 3}", "", "\x01\n\n"});
    holds(page, "summary.json cannot be used:");
    holds(page, "summary.json:1:");
    holds(page, "edge_infer/report.json: is no JSON object");
    holds(page, "cloud_direct_infer/report.json:1:");
    holds(page, "Lines left out:");
    free(page);
}

static void test_nothing_becomes_a_tag(void **state)
{
    (void)state;
#define EVIL "<script>alert(1)</script>\\\"'&<b onx=1>"
    static const char bad_summary[] =
        "{\"task\": \"" EVIL "\", \"version\": \"" EVIL "\", \"backend\": \"" EVIL "\", \"precision\": \"" EVIL "\","
        "\"data\": {\"train_digest\": \"" EVIL "\"}, \"places\": [{\"place\": \"" EVIL
        "\", \"missing_classes\": \"" EVIL "\"}], \"stages\": {\"" EVIL
        "\": {\"accuracy\": 1, \"model\": {\"digest\": \"" EVIL "\"}, \"accuracy_by_snr\": "
        "[{\"from_db\": 0, \"to_db\": 1, \"accuracy\": 1}]}, \"federated_train\": {\"edges\": [{\"missing_classes\": "
        "\"" EVIL "\"}]}}}";
    static const char bad_report[] = "{\"accuracy\": {\"by_class\": [{\"name\": \"" EVIL
                                     "\", \"accuracy\": 1}, {\"name\": \"" EVIL "\"}], \"confusion\": "
                                     "{\"edge\": [[1, 2], [3, 4]]}}, \"threshold\": {\"kind\": \"" EVIL
                                     "\"}, \"confidence\": {\"kind\": \"" EVIL "\"}}";
    static const char bad_events[] =
        "{\"time\": \"" EVIL "\", \"run\": 1, \"stage\": \"" EVIL "\", \"event\": \"stage\", \"state\": \"" EVIL "\"}\n"
        "{\"time\": \"x\", \"run\": 1, \"stage\": \"" EVIL "\", \"event\": \"epoch\", \"epoch\": 1, \"loss\": 1}\n";
    const char *const names[] = {"<script>alert(1)", "\xff\xfe\xed\xa0\x80"};
    const int64_t counts[] = {1, 2};
    const fst_place_counts places[] = {{"<script>alert(1)", counts}};
    const fst_html_report r = {.output = "<script>alert(1)",
                               .settings = "name: </code></pre><script>alert(1)</script>\x01 turned\xE2\x80\xAE"
                                           "back",
                               .settings_note = "<script>alert(1)",
                               .classes = 2,
                               .class_names = names,
                               .places = places,
                               .place_count = 1,
                               .places_note = "<script>alert(1)"};
    char *page = page_of(&r, (const char *const[PIECES]){bad_summary, bad_report, bad_report, bad_report, bad_events});
    lacks(page, "\xE2\x80\xAE");
    holds(page, "turned\xEF\xBF\xBD"
                "back");
    lacks(page, "<script>alert");
    lacks(page, "<b onx");
    holds(page, "&lt;script&gt;alert(1)");
    holds(page, "&lt;b onx=1&gt;");
    free(page);
}

static void test_the_later_line_counts(void **state)
{
    (void)state;
    fst_buf text = {0};
    struct fst__history h = {0};
    assert_int_equal(fst_buf_append(&text, events, sizeof events - 1, NULL), FST_OK);
    assert_int_equal(fst__history_parse(&h, &text, NULL), FST_OK);
    const struct fst__stage_history *s = fst__history_find(&h, "edge_kd");
    assert_non_null(s);
    assert_int_equal(s->points, 3);
    assert_float_equal(s->point[0].loss, 9, 0);
    assert_float_equal(s->point[1].loss, 7, 0);
    assert_float_equal(s->point[2].loss, 6, 0);
    assert_int_equal(s->resumed, 1);
    assert_string_equal(s->state, "done");
    assert_int_equal(h.skipped, 1);
    s = fst__history_find(&h, "federated_train");
    assert_true(s && s->rounds && s->points == 2);
    assert_float_equal(s->point[0].mb_down, 4, 0);
    fst__history_release(&h);
    fst_buf_release(&text);
}

/* What the page shows of samples: those that were mistaken where they are known, else any of the class. */
static fst_status example(void *ctx, const char *step, int truth, int taken_for, fst_sample *out, bool *there,
                          bool *exact, fst_error *err)
{
    (void)err;
    *out = (fst_sample){FST_U8, {2, {4, 4}}, "0123456789abcdef", NULL, NAN};
    *there = true;
    *exact = !strcmp(step, "edge_kd") && truth != taken_for;
    ++*(int *)ctx;
    return FST_OK;
}

static void test_confused_pairs(void **state)
{
    (void)state;
    const int64_t confusion[9] = {50, 7, 1, 0, 40, 0, 9, 2, 30};
    const char *const names[] = {"cat", "dog", "cow"};
    const fst_tried_model models[] = {{"edge_kd", confusion, NULL, 0, NULL}};
    int calls = 0;
    const fst_html_report r = {.output = "o",
                               .classes = 3,
                               .class_names = names,
                               .models = models,
                               .model_count = 1,
                               .example = example,
                               .ctx = &calls};
    char *page = page_of(&r, (const char *const[PIECES]){summary});
    holds(page, "<h3>cow taken for cat: 9 times</h3>");
    holds(page, "<h3>cat taken for dog: 7 times</h3>");
    holds(page, "<h3>cow taken for dog: 2 times</h3>");
    lacks(page, "cat taken for cow: 1 time<");
    holds(page, "alt=\"cow, taken for cat\"");
    holds(page, "alt=\"cat, a sample\"");
    lacks(page, "alt=\"cow, a sample\"");
    holds(page, "src=\"data:image/png;base64,iVBORw0KGgo");
    value(page, "0.86206896551724133", "86.21 %"); /* 50 of 58 cats */
    assert_true(calls >= 6);
    assert_true(strstr(page, "cow taken for cat: 9") < strstr(page, "cat taken for dog: 7"));
    free(page);
}

static void test_many_classes_become_a_picture(void **state)
{
    (void)state;
    enum { N = 60 };
    static int64_t confusion[N * N];
    for (int i = 0; i < N; i++)
        confusion[i * N + i] = 3;
    const fst_tried_model models[] = {{"edge_kd", confusion, NULL, 0, NULL}};
    const fst_html_report r = {.output = "o", .classes = N, .models = models, .model_count = 1};
    char *page = page_of(&r, (const char *const[PIECES]){summary});
    holds(page, "<img class=\"pixels\"");
    holds(page, "60 classes");
    free(page);
}

static void test_every_failing_allocation(void **state)
{
    (void)state;
    fst_status st = FST_E_MEMORY;
    for (uint64_t n = 1; st; n++) {
        struct fst__html h = {.r = &bare};
        fst_buf out = {0};
        const char *const text[PIECES] = {summary, NULL, cascade, NULL, events};
        for (int i = 0; i < PIECES; i++)
            if ((h.piece[i].there = text[i] != NULL))
                assert_int_equal(fst_buf_append(&h.piece[i].text, text[i], strlen(text[i]), NULL), FST_OK);
        fst_alloc_fail_at(n);
        st = fst__html_write(&h, &out, NULL);
        fst_alloc_fail_at(0);
        assert_true(st == FST_OK || st == FST_E_MEMORY);
        assert_true((st == FST_OK) == (out.len > 0));
        assert_true(n < 5000);
        fst__html_release(&h);
        fst_buf_release(&out);
    }
}

static void test_the_check_itself(void **state)
{
    (void)state;
    static const char *const bad[] = {"<a>",
                                      "<a></b>",
                                      "<a b=1></a>",
                                      "<a b=\"1\" b=\"2\"></a>",
                                      "<a>&</a>",
                                      "<a>\x01</a>",
                                      "<a><</a>",
                                      "<a/><b/>",
                                      "x<a/>",
                                      "<a>\xff</a>",
                                      "<a b=\"<\"/>",
                                      "<a>&nbsp;</a>",
                                      "<a\xed\xa0\x80/>",
                                      "</a>",
                                      ""};
    char why[200];
    size_t at;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (xml_check(bad[i], strlen(bad[i]), &at, why, sizeof why))
            fail_msg("\"%s\" passes as XML", bad[i]);
    const char good[] = "<!DOCTYPE html>\n<a b=\"1\" c='&lt;'><d/>text &amp; &#39; \xc3\xa4</a>\n";
    assert_true(xml_check(good, sizeof good - 1, &at, why, sizeof why));
}

/* A task may have 64 stages, and each may imply another. */
static void test_as_many_stages_as_a_task_may_have(void **state)
{
    (void)state;
    enum { STAGES = 128 };
    fst_buf text = {0}, lines = {0};
    assert_int_equal(fst_buf_printf(&text, NULL, "{\"stages\": {"), FST_OK);
    for (int i = 0; i < STAGES; i++) {
        assert_int_equal(fst_buf_printf(&text, NULL,
                                        "%s\"s%d\": {\"kind\": \"cloud_pretrain\", \"samples\": %d, \"model\": "
                                        "{\"digest\": \"%064d\"}, \"accuracy\": 0.5}",
                                        i ? ", " : "", i, i, i),
                         FST_OK);
        assert_int_equal(fst_buf_printf(&lines, NULL,
                                        "{\"time\": \"t\", \"run\": 1, \"stage\": \"s%d\", \"event\": \"epoch\", "
                                        "\"epoch\": 1, \"loss\": 1.5}\n",
                                        i),
                         FST_OK);
    }
    assert_int_equal(fst_buf_printf(&text, NULL, "}}"), FST_OK);
    char *page = page_of(&bare, (const char *const[PIECES]){text.data, NULL, NULL, NULL, lines.data});
    for (int i = 0; i < STAGES; i++) {
        char name[32];
        int places = 0;
        snprintf(name, sizeof name, ">s%d (on labels)", i);
        for (const char *at = page; (at = strstr(at, name)); at++)
            places++;
        assert_int_equal(places, 3); /* the models, the stages and the curves */
    }
    free(page);
    fst_buf_release(&text);
    fst_buf_release(&lines);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_check_itself),
        cmocka_unit_test(test_numbers_are_those_of_the_files),
        cmocka_unit_test(test_scores),
        cmocka_unit_test(test_one_model_under_two_names),
        cmocka_unit_test(test_edges_that_took_no_part),
        cmocka_unit_test(test_resources),
        cmocka_unit_test(test_tables_as_csv),
        cmocka_unit_test(test_a_page_needs_nothing_else),
        cmocka_unit_test(test_what_is_not_there_is_left_out),
        cmocka_unit_test(test_damage_is_named),
        cmocka_unit_test(test_nothing_becomes_a_tag),
        cmocka_unit_test(test_the_later_line_counts),
        cmocka_unit_test(test_confused_pairs),
        cmocka_unit_test(test_many_classes_become_a_picture),
        cmocka_unit_test(test_as_many_stages_as_a_task_may_have),
        cmocka_unit_test(test_every_failing_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
