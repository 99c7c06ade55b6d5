/* Between cmd_report.c and cmd_report_data.c: what a report says of the data and of models that are tried on them. */
#ifndef FEDSTILL_CMD_REPORT_H
#define FEDSTILL_CMD_REPORT_H

#include "common.h"
#include "fedstill/task.h"

enum { REPORT_MODELS = 16, REPORT_SNR_BINS = 64 };

struct report_model {
    char name[64]; /* step */
    char digest[FST_DIGEST_HEX];
    int64_t *confusion;
    int64_t *example; /* classes x classes: a sample of this class that was answered so; -1: none */
    fst_snr_count snr[REPORT_SNR_BINS];
};

struct report_data {
    fst_task_data *data;
    const fst_source *train, *test; /* its samples; NULL: not opened */
    fst_partition partition;        /* classes 0: none */
    int64_t *counts;                /* of all places */
    fst_place_counts *places;
    char (*names)[32];
    size_t place_count;
    struct report_model model[REPORT_MODELS];
    fst_tried_model tried[REPORT_MODELS];
    size_t models;
    void *sample; /* the last example */
    char note[2400];
};

/* What can be opened; the note says what cannot. */
FST_MUST fst_status report_data_open(struct report_data *d, const fst_task *t, const char *folder, const char *output,
                                     fst_error *err);
/* Tries the models that are there on the test samples. */
FST_MUST fst_status report_data_try(struct report_data *d, const char *output, int threads, fst_error *err);
void report_data_fill(struct report_data *d, fst_html_report *r);
void report_data_release(struct report_data *d);

#endif
