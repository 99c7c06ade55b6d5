/*
 * stages.h - the stages of a task: what kinds there are, which stages a task has, and which of them read others.
 *
 * A kind of stage is one `struct stage_kind`, which stands beside the code that does its work (src/task/stages) and is
 * listed in fst__stage_kinds. Everything that the program knows of a stage it knows from there: settings, modes, what
 * it reads, what can be wrong with it, what its result depends on, what a dry run says, and how it runs.
 *
 * A task's stages are made from its file in three steps. The reader (schema.c) fills the settings. fst__stage_list_new
 * makes a `struct stage` of each, adds those that a stage implies (the baseline of a student), follows the references
 * from one to another, and puts the stages in the order in which they run: that of the file, except that a stage comes
 * after those it reads. A run (run.h) then keeps a `struct step` for each stage: its record, its fingerprint, whether
 * it is up to date.
 *
 * All of this belongs to the task and is read by every thread; nothing changes after loading.
 */
#ifndef FST_TASK_STAGES_H
#define FST_TASK_STAGES_H

#include "task_file.h"

struct session;
struct step;
struct record;

/* Built for fedstill-edge, kinds of stages are known and read from task files, but none is run here, and no client
 * trains: what that takes is then linked by nobody. (The same of strategies: FST__HALF; of operators: FST__GRADIENT.)
 */
#ifdef FST_NO_TRAINING
enum { FST__TRAINS = 0 };
#else
enum { FST__TRAINS = 1 };
#endif

/* What a finished stage leaves for others. */
enum leaves {
    FST__LEAVES_NOTHING,
    FST__LEAVES_MODEL,
    FST__LEAVES_SOFT_LABELS,
    FST__LEAVES_BATCHES,   /* the devices' samples */
    FST__LEAVES_ANSWERS,   /* of the edge */
    FST__LEAVES_REPORT,    /* of the cascade */
    FST__LEAVES_COMPARISON /* of the cloud alone */
};

/* The modes of `fedstill run` that a kind belongs to. */
enum {
    FST__IN_FULL_TRAIN = 1 << 0,
    FST__IN_PRETRAIN = 1 << 1,
    FST__IN_DISTILLATION = 1 << 2,
    FST__IN_FEDERATED = 1 << 3,
    FST__IN_PIPELINE = 1 << 4,
    FST__IN_DEVICE_EDGE = 1 << 5,
    FST__IN_DEVICE_EDGE_CLOUD = 1 << 6,
    FST__IN_DEVICE_CLOUD = 1 << 7
};

struct stage;

/*
 * A setting that names another stage. Its text is the name of a stage, or the name of a kind of which the task has just
 * one stage. The setting is a string, or a list of them, of the kind's settings.
 */
struct stage_ref {
    const char *key;      /* the setting: "init"; "a.b" in an optional map, and then read only where that is given */
    enum leaves what;     /* what the other stage must leave */
    const char *fallback; /* without the setting: the first of these kinds, with blanks between, that the task has */
    const char *missing;  /* what is wrong when there is none: "needs the stage cloud_kd, or ..."; NULL: that is fine */
    const char *word;     /* a value that names no stage: "random" */
    bool file;            /* what names no stage is a model file, relative to the task's folder */
    bool learns;          /* the other stage's weights are changed or taken, not its answers */
    bool settings;        /* only the other stage's settings are read: it need not run before */
    const char *through;  /* no setting, but what the stage of this reference refers to as `theirs` */
    const char *theirs;
    bool (*wanted)(const struct stage *own); /* NULL: always */
};

/* A reference that was followed. */
struct stage_read {
    const struct stage_ref *ref;
    const struct stage *stage; /* NULL: a file */
    const char *file;
};
enum { FST__MAX_READS = 24 };

struct stage {
    const char *name; /* in the task file; also of its folder under output/ */
    const struct stage_kind *kind;
    const void *settings;   /* as kind->schema says */
    const struct stage *of; /* of one that another implies: that other, whose settings it has; else NULL */
    size_t at;              /* its place in the order of running */
    struct stage_read reads[FST__MAX_READS];
    size_t read_count;
};

/* A kind of stage. Members without a comment on NULL are required. */
struct stage_kind {
    const char *name; /* in task files; also the name of a stage that is not given another */
    const char *help; /* one line for the reference */
    const fst__schema *schema;
    unsigned modes; /* FST__IN_... */
    enum leaves leaves;
    const char
        *frozen;  /* what its model is that no stage can learn from: "an int8 model, ..."; NULL: it is none such */
    bool trained; /* training made it: a finished one is taken from other outputs rather than made again */
    const char *streams; /* kind whose names of random streams it uses; NULL: its own */
    const char *counts;  /* what its checkpoints count, "epoch" or "round"; NULL: it has none */
    const struct stage_ref *refs;
    size_t ref_count;
    /* The kind of a stage that this one may imply; NULL: it implies none. */
    const struct stage_kind *implied;
    /* Whether it does, and the name that it gets. With `implied` only. */
    const struct stage_kind *(*implies)(const struct stage *own, char *name, size_t size);
    /* The network that its model is of, as the task says it; NULL: it is not known before. NULL: leaves no model. */
    const char *(*network)(const struct stage *own);
    /* Whether its samples are those of the clients or edges, not of the cloud. NULL: never. */
    bool (*at_clients)(const struct stage *own);
    /* Of a stage that reads soft labels: whether its loss takes the teacher's logits, and not probabilities. */
    bool (*takes_logits)(const struct stage *own);
    /* How many epochs or rounds; with `counts` only. */
    int64_t (*total)(const struct stage *own);
    /* Whether more epochs or rounds can follow what is finished, as if there had been so many from the start: no
     * learning rate depends on their number. With `counts` only. */
    bool (*extendable)(const struct stage *own);
    /* What is wrong with the settings beside other stages and the rest of the file, before anything is opened; key and
     * text of *c are filled, the key being that of a setting, or NULL for the stage. False: nothing. May be NULL. */
    bool (*complains)(const struct task_file *f, const struct stage_list *all, const struct stage *own,
                      fst__complaint *c);
    /* What is wrong with the settings for the data, which are open: FST_E_CONFIG with the full key. Asked before any
     * work, of stages that are going to run. May be NULL. */
    fst_status (*check)(const struct session *s, const struct step *own, fst_error *err);
    /* Appends what the result depends on besides data, seed, backend and shares: lines "key=value". */
    fst_status (*inputs)(const struct session *s, const struct step *own, fst_buf *text, fst_error *err);
    /* Appends what a dry run says about the work. */
    fst_status (*tell)(const struct session *s, const struct step *own, fst_buf *out, fst_error *err);
    /* Does the work and leaves files in the stage's folder; fills *r. FST_E_CANCELLED when it was asked to stop. */
    fst_status (*run)(struct session *s, struct step *own, struct record *r, fst_error *err);
};

/* All kinds that a task file may name, in the order in which they usually run. NULL-terminated. */
extern const struct stage_kind *const fst__stage_kinds[];
/* NULL: there is none of that name. */
const struct stage_kind *fst__kind_named(const char *name);

/* Makes the list; release it in any case. False: *c says what is wrong, with its key from the top of the file, or, with
 * no text, memory was short. */
bool fst__stage_list_init(struct stage_list *out, const struct task_file *f, fst__complaint *c);
void fst__stage_list_release(struct stage_list *l);
/* NULL: there is none of that name. */
const struct stage *fst__stage_named(const struct stage_list *l, const char *name);
/* The i-th stage that a reference leads to; NULL: none, or a file. */
const struct stage *fst__stage_read(const struct stage *own, const char *key, size_t i);
/* The file that a reference names; NULL: none. */
const char *fst__stage_file(const struct stage *own, const char *key, size_t i);
/* How many stages and files a reference leads to. */
size_t fst__stage_reads(const struct stage *own, const char *key);
/* The name of a stage that somebody may have meant; NULL: none is like it. */
const char *fst__stage_guess(const struct stage_list *l, const char *text);
/* For the schema: the kinds as choices. */
bool fst__kind_choice(size_t i, fst__choice *out);
size_t fst__kind_count(void);
/* Fills *c with a message on a setting of a stage (key NULL: on the stage). Returns true, as `complains` does. */
bool fst__complain(fst__complaint *c, const struct stage *own, const char *key, const char *fmt, ...) FST_PRINTF(4, 5);
/* Does it work on the samples of the clients or edges? */
bool fst__at_clients(const struct stage *own);
/* Has the task a stage of this kind? */
bool fst__has_kind(const struct task_file *f, const char *kind);
/* "stages.NAME.KEY" */
const char *fst__stage_key(const struct stage *own, const char *key, char *out, size_t size);
/* "edge_kd, edge_alone": the stages that leave this. Always terminated. Returns out. */
const char *fst__stages_leaving(const struct stage_list *l, enum leaves what, char *out, size_t size);

#endif
