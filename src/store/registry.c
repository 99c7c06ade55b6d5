/*
 * The run registry: one SQLite file with a row a run and a row a key figure. It describes runs, it does
 * not steer them: nothing that decides a result is ever read from here, so losing the file loses a list.
 * WAL mode and a busy timeout let several runs write while others look.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fedstill/store.h"
#include "process.h"

enum {
    SCHEMA_VERSION = 2,          /* 2: runs.settings */
    APPLICATION_ID = 0x46535452, /* "FSTR": tells our file from any other SQLite file */
    OPEN_MS = 2000,              /* how long another process that holds the file is waited for */
    BUSY_MS = 500                /* the same once it is open: a run must not stand still for its list */
};

struct fst_registry {
    sqlite3 *db;
    char *path;
    struct fst__process self;
};

static const char schema[] =
    "CREATE TABLE runs("
    " id INTEGER PRIMARY KEY AUTOINCREMENT, task TEXT NOT NULL, task_path TEXT NOT NULL, output TEXT NOT NULL,"
    " seed INTEGER NOT NULL, status TEXT NOT NULL, stage TEXT NOT NULL DEFAULT '', message TEXT NOT NULL DEFAULT '',"
    " host TEXT NOT NULL, boot TEXT NOT NULL, pid INTEGER NOT NULL, pid_start INTEGER NOT NULL,"
    " started INTEGER NOT NULL, begun INTEGER NOT NULL, updated INTEGER NOT NULL, ended INTEGER NOT NULL DEFAULT 0,"
    " spent INTEGER NOT NULL DEFAULT 0, settings TEXT NOT NULL DEFAULT '');"
    "CREATE INDEX runs_by_output ON runs(output, id);"
    "CREATE INDEX runs_by_task ON runs(task, id);"
    "CREATE TABLE figures("
    " run INTEGER NOT NULL REFERENCES runs(id), stage TEXT NOT NULL, key TEXT NOT NULL, value REAL, text TEXT,"
    " low REAL, high REAL, time INTEGER NOT NULL, PRIMARY KEY(run, stage, key));";

const char *fst_run_status_name(fst_run_status s)
{
    static const char *const names[] = {"running", "done", "failed", "stopped", "interrupted"};
    return (size_t)s < sizeof names / sizeof *names ? names[s] : "unknown";
}

static fst_run_status parse_status(const char *name)
{
    for (int i = FST_RUN_RUNNING; i < FST_RUN_INTERRUPTED; i++)
        if (!strcmp(name, fst_run_status_name((fst_run_status)i)))
            return (fst_run_status)i;
    return FST_RUN_INTERRUPTED;
}

/* ---- SQLite, wrapped ---------------------------------------------------------------------- */

static fst_status db_fail(const fst_registry *r, fst_error *err, const char *what)
{
    int code = sqlite3_errcode(r->db) & 0xFF;
    const char *reason = sqlite3_errmsg(r->db);
    switch (code) {
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
        return fst_fail(err, FST_E_FORMAT,
                        "%s: not a run registry, or damaged (%s): move it away, and the next run makes a new one",
                        r->path, reason);
    case SQLITE_NOMEM:
        return fst_fail(err, FST_E_MEMORY, "%s: out of memory", r->path);
    case SQLITE_CONSTRAINT:
        return fst_fail(err, FST_E_ARGUMENT, "%s: cannot %s: there is no such run (%s)", r->path, what, reason);
    case SQLITE_BUSY:
        return fst_fail(err, FST_E_IO, "%s: cannot %s: another process holds it", r->path, what);
    default:
        return fst_fail(err, FST_E_IO, "%s: cannot %s: %s", r->path, what, reason);
    }
}

/* types: a letter an argument: i int64_t, d double, s const char * (NULL is NULL). */
static int bind_all(sqlite3_stmt *q, const char *types, va_list ap)
{
    int rc = SQLITE_OK;
    for (int i = 0; types[i] && rc == SQLITE_OK; i++)
        if (types[i] == 'i')
            rc = sqlite3_bind_int64(q, i + 1, va_arg(ap, int64_t));
        else if (types[i] == 'd')
            rc = sqlite3_bind_double(q, i + 1, va_arg(ap, double));
        else
            rc = sqlite3_bind_text(q, i + 1, va_arg(ap, const char *), -1, SQLITE_TRANSIENT);
    return rc;
}

static fst_status query_va(fst_registry *r, sqlite3_stmt **out, fst_error *err, const char *what, const char *sql,
                           const char *types, va_list ap)
{
    sqlite3_stmt *q = NULL;
    int rc = sqlite3_prepare_v2(r->db, sql, -1, &q, NULL);
    if (rc == SQLITE_OK)
        rc = bind_all(q, types, ap);
    if (rc != SQLITE_OK) {
        fst_status s = db_fail(r, err, what);
        sqlite3_finalize(q);
        return s;
    }
    *out = q;
    return FST_OK;
}

static fst_status query(fst_registry *r, sqlite3_stmt **out, fst_error *err, const char *what, const char *sql,
                        const char *types, ...)
{
    va_list ap;
    va_start(ap, types);
    fst_status s = query_va(r, out, err, what, sql, types, ap);
    va_end(ap);
    return s;
}

/* Runs one statement to its end, its rows ignored. */
static fst_status execute(fst_registry *r, fst_error *err, const char *what, const char *sql, const char *types, ...)
{
    sqlite3_stmt *q = NULL;
    va_list ap;
    va_start(ap, types);
    fst_status s = query_va(r, &q, err, what, sql, types, ap);
    va_end(ap);
    if (s)
        return s;
    int rc;
    do
        rc = sqlite3_step(q);
    while (rc == SQLITE_ROW);
    if (rc != SQLITE_DONE)
        s = db_fail(r, err, what);
    sqlite3_finalize(q);
    return s;
}

static fst_status number(fst_registry *r, const char *sql, int64_t *out, fst_error *err)
{
    sqlite3_stmt *q = NULL;
    fst_status s = query(r, &q, err, "read it", sql, "");
    if (s)
        return s;
    if (sqlite3_step(q) == SQLITE_ROW)
        *out = sqlite3_column_int64(q, 0);
    else
        s = db_fail(r, err, "read it");
    sqlite3_finalize(q);
    return s;
}

/* Commits when s is FST_OK, rolls back otherwise; returns the first failure. */
static fst_status end_transaction(fst_registry *r, fst_status s, fst_error *err)
{
    if (!s)
        s = execute(r, err, "commit", "COMMIT", "");
    if (s)
        sqlite3_exec(r->db, "ROLLBACK", NULL, NULL, NULL);
    return s;
}

/* ---- opening ------------------------------------------------------------------------------ */

fst_status fst_registry_path(char **out, fst_error *err)
{
    const char *own = getenv("FEDSTILL_HOME"), *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    char *p;
    if (own && *own)
        p = fst_path_join(own, "runs.sqlite");
    else if (state && state[0] == '/')
        p = fst_path_join(state, "fedstill/runs.sqlite");
    else if (home && *home)
        p = fst_path_join(home, ".local/state/fedstill/runs.sqlite");
    else
        return fst_fail(err, FST_E_CONFIG,
                        "no place for the run registry: set FEDSTILL_HOME to a folder (HOME is not set either)");
    if (!p)
        return fst_fail_memory(err, PATH_MAX);
    *out = p;
    return FST_OK;
}

/* SQLite does not wait for the lock that a change of the journal mode takes, so this does. */
static fst_status use_wal(fst_registry *r, fst_error *err)
{
    for (int waited = 0;; waited += 10) {
        fst_status s = execute(r, err, "open it", "PRAGMA journal_mode = WAL", "");
        if (!s || (sqlite3_errcode(r->db) & 0xFF) != SQLITE_BUSY || waited >= OPEN_MS)
            return s;
        nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
    }
}

/* Only inside a transaction: between its three questions another process might create the schema, and the
 * answers would not fit each other. */
static fst_status check_identity(fst_registry *r, int64_t *version, fst_error *err)
{
    int64_t application = 0, tables = 0;
    fst_status s = number(r, "PRAGMA user_version", version, err);
    if (!s)
        s = number(r, "PRAGMA application_id", &application, err);
    if (!s)
        s = number(r, "SELECT count(*) FROM sqlite_master", &tables, err);
    if (s)
        return s;
    if (application != APPLICATION_ID && (application || *version || tables))
        return fst_fail(err, FST_E_FORMAT, "%s: an SQLite file of another program, not a run registry", r->path);
    if (*version > SCHEMA_VERSION)
        return fst_fail(err, FST_E_UNSUPPORTED,
                        "%s: written by a newer fedstill (schema %lld, this one knows %d): use that one, or set "
                        "FEDSTILL_HOME to another folder",
                        r->path, (long long)*version, SCHEMA_VERSION);
    return FST_OK;
}

static fst_status create_schema(fst_registry *r, fst_error *err)
{
    int64_t version = 0;
    fst_status s = execute(r, err, "create it", "BEGIN IMMEDIATE", "");
    if (s)
        return s;
    s = check_identity(r, &version, err); /* again: another process may have been faster */
    if (!s && version == 0) {
        char *sql = sqlite3_mprintf("%s PRAGMA user_version = %d; PRAGMA application_id = %d;", schema, SCHEMA_VERSION,
                                    APPLICATION_ID);
        if (!sql)
            s = fst_fail_memory(err, sizeof schema);
        else if (sqlite3_exec(r->db, sql, NULL, NULL, NULL))
            s = db_fail(r, err, "create it");
        sqlite3_free(sql);
    }
    return end_transaction(r, s, err);
}

/* Version 1 did not keep the settings of a run: those of its runs are unknown, "". */
static fst_status migrate(fst_registry *r, fst_error *err)
{
    int64_t version = 0;
    fst_status s = execute(r, err, "bring it up to date", "BEGIN IMMEDIATE", "");
    if (s)
        return s;
    s = check_identity(r, &version, err); /* again: another process may have been faster */
    if (!s && version == 1 &&
        sqlite3_exec(r->db, "ALTER TABLE runs ADD COLUMN settings TEXT NOT NULL DEFAULT ''; PRAGMA user_version = 2;",
                     NULL, NULL, NULL))
        s = db_fail(r, err, "bring it up to date");
    return end_transaction(r, s, err);
}

static fst_status set_up(fst_registry *r, fst_error *err)
{
    int64_t version = 0;
    sqlite3_busy_timeout(r->db, OPEN_MS);
    fst_status s = execute(r, err, "open it", "BEGIN", "");
    if (!s)
        s = end_transaction(r, check_identity(r, &version, err), err);
    if (!s)
        s = use_wal(r, err);
    if (!s)
        s = execute(r, err, "open it", "PRAGMA synchronous = NORMAL", "");
    if (!s)
        s = execute(r, err, "open it", "PRAGMA foreign_keys = ON", "");
    if (!s && version == 0)
        s = create_schema(r, err);
    else if (!s && version < SCHEMA_VERSION)
        s = migrate(r, err);
    sqlite3_busy_timeout(r->db, BUSY_MS);
    return s;
}

static fst_status make_parent(const char *path, fst_error *err)
{
    const char *slash = strrchr(path, '/');
    if (!slash || slash == path)
        return FST_OK;
    char *folder = fst_strdup(path);
    if (!folder)
        return fst_fail_memory(err, strlen(path));
    folder[slash - path] = 0;
    fst_status s = fst_make_folders(folder, err);
    fst_free(folder);
    return s ? fst_fail_in(err, s, "run registry %s", path) : FST_OK;
}

static fst_status open_at(fst_registry *r, fst_error *err)
{
    fst_status s = make_parent(r->path, err);
    if (s)
        return s;
    int rc = sqlite3_open_v2(r->path, &r->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
    if (!r->db)
        return fst_fail_memory(err, sizeof(void *));
    if (rc != SQLITE_OK)
        return db_fail(r, err, "open it");
    fst__process_self(&r->self);
    return set_up(r, err);
}

fst_status fst_registry_open_existing(fst_registry **out, fst_error *err)
{
    char *path = NULL;
    fst_status s = fst_registry_path(&path, err);
    if (!s && !fst_file_exists(path))
        s = fst_fail(err, FST_E_IO, "there is no run registry %s yet", path);
    if (!s)
        s = fst_registry_open(out, path, err);
    fst_free(path);
    return s;
}

fst_status fst_registry_open(fst_registry **out, const char *path, fst_error *err)
{
    fst_registry *r = fst_calloc(1, sizeof *r);
    if (!r)
        return fst_fail_memory(err, sizeof *r);
    fst_status s = FST_OK;
    if (!path)
        s = fst_registry_path(&r->path, err);
    else if (!(r->path = fst_strdup(path)))
        s = fst_fail_memory(err, strlen(path));
    if (!s)
        s = open_at(r, err);
    if (s) {
        fst_registry_free(r);
        return s;
    }
    *out = r;
    return FST_OK;
}

void fst_registry_free(fst_registry *r)
{
    if (!r)
        return;
    sqlite3_close(r->db);
    fst_free(r->path);
    fst_free(r);
}

/* ---- writing ------------------------------------------------------------------------------ */

/* The absolute path, links resolved where the folder exists already. malloc'ed; NULL when out of memory. */
static char *absolute(const char *path)
{
    char *real = realpath(path, NULL);
    if (real || path[0] == '/')
        return real ? real : strdup(path);
    char *cwd = getcwd(NULL, 0), *joined = NULL;
    if (cwd && asprintf(&joined, "%s/%s", cwd, path) < 0)
        joined = NULL;
    free(cwd);
    return joined;
}

static const char *settings_of(const fst_run_start *start)
{
    return start->settings ? start->settings : "";
}

/* *id becomes the run of `output` with the same task, seed and settings, else 0. A run of a version that did not keep
 * settings continues if it was the last one there. */
static fst_status find_resumable(fst_registry *r, const char *output, const fst_run_start *start, int64_t *id,
                                 fst_error *err)
{
    sqlite3_stmt *q = NULL;
    fst_status s = query(r, &q, err, "read it",
                         "SELECT id FROM runs WHERE output = ?1 AND task = ?2 AND seed = ?3 AND (settings = ?4 OR"
                         " (settings = '' AND id = (SELECT max(id) FROM runs WHERE output = ?1)))"
                         " ORDER BY settings = ?4 DESC, begun DESC, id DESC LIMIT 1",
                         "ssis", output, start->task, (int64_t)start->seed, settings_of(start));
    if (s)
        return s;
    *id = 0;
    int rc = sqlite3_step(q);
    if (rc == SQLITE_ROW)
        *id = sqlite3_column_int64(q, 0);
    else if (rc != SQLITE_DONE)
        s = db_fail(r, err, "read it");
    sqlite3_finalize(q);
    return s;
}

static fst_status insert_run(fst_registry *r, const fst_run_start *start, const char *output, int64_t *id,
                             fst_error *err)
{
    int64_t now = fst_clock_unix_ms();
    const struct fst__process *p = &r->self;
    fst_status s = execute(r, err, "add a run",
                           "INSERT INTO runs(task, task_path, output, seed, status, host, boot, pid, pid_start,"
                           " started, begun, updated, settings) VALUES(?, ?, ?, ?, 'running', ?, ?, ?, ?, ?, ?, ?, ?)",
                           "sssissiiiiis", start->task, start->task_path ? start->task_path : "", output,
                           (int64_t)start->seed, p->host, p->boot, p->pid, p->start, now, now, now, settings_of(start));
    if (!s)
        *id = sqlite3_last_insert_rowid(r->db);
    return s;
}

/* What an interrupted process had worked is only known up to its last sign of life. */
static fst_status continue_run(fst_registry *r, const fst_run_start *start, int64_t id, fst_error *err)
{
    int64_t now = fst_clock_unix_ms();
    const struct fst__process *p = &r->self;
    return execute(r, err, "continue a run",
                   "UPDATE runs SET spent = spent + CASE status WHEN 'running' THEN max(updated - begun, 0) ELSE 0 END,"
                   " status = 'running', message = '', ended = 0, task_path = ?, host = ?, boot = ?, pid = ?,"
                   " pid_start = ?, begun = ?, updated = ?, settings = ? WHERE id = ?",
                   "sssiiiisi", start->task_path ? start->task_path : "", p->host, p->boot, p->pid, p->start, now, now,
                   settings_of(start), id);
}

fst_status fst_registry_begin(fst_registry *r, const fst_run_start *start, int64_t *id, bool *resumed, fst_error *err)
{
    int64_t found = 0;
    if (!start->task || !start->output)
        return fst_fail(err, FST_E_ARGUMENT, "a run needs a task name and an output folder");
    char *output = absolute(start->output);
    if (!output)
        return fst_fail_errno(err, "cannot resolve %s", start->output);
    fst_status s = execute(r, err, "add a run", "BEGIN IMMEDIATE", "");
    if (s) {
        free(output);
        return s;
    }
    if (!start->fresh)
        s = find_resumable(r, output, start, &found, err);
    bool again = !s && found;
    if (again)
        s = continue_run(r, start, found, err);
    else if (!s)
        s = insert_run(r, start, output, &found, err);
    s = end_transaction(r, s, err);
    free(output);
    if (s)
        return s;
    *id = found;
    if (resumed)
        *resumed = again;
    return FST_OK;
}

/* Said of the UPDATE just executed. */
static fst_status must_have_changed(const fst_registry *r, int64_t id, fst_error *err)
{
    if (sqlite3_changes(r->db))
        return FST_OK;
    return fst_fail(err, FST_E_ARGUMENT, "%s: there is no run %lld", r->path, (long long)id);
}

fst_status fst_registry_stage(fst_registry *r, int64_t id, const char *stage, const char *message, fst_error *err)
{
    fst_status s = execute(r, err, "write a stage", "UPDATE runs SET stage = ?, message = ?, updated = ? WHERE id = ?",
                           "ssii", stage ? stage : "", message ? message : "", fst_clock_unix_ms(), id);
    return s ? s : must_have_changed(r, id, err);
}

fst_status fst_registry_touch(fst_registry *r, int64_t id, fst_error *err)
{
    return execute(r, err, "write a sign of life", "UPDATE runs SET updated = ? WHERE id = ?", "ii",
                   fst_clock_unix_ms(), id);
}

/* The odd-looking coalesce pairs: SQLite's min and max of a NULL are NULL. */
fst_status fst_registry_figure(fst_registry *r, int64_t id, const char *stage, const char *key, double value,
                               fst_error *err)
{
    fst_status s = execute(r, err, "write a figure",
                           "INSERT INTO figures(run, stage, key, value, low, high, time) VALUES(?1, ?2, ?3, ?4, ?4, ?4,"
                           " ?5) ON CONFLICT DO UPDATE SET value = excluded.value, text = NULL, time = excluded.time,"
                           " low = min(coalesce(low, excluded.low), coalesce(excluded.low, low)),"
                           " high = max(coalesce(high, excluded.high), coalesce(excluded.high, high))",
                           "issdi", id, stage ? stage : "", key, value, fst_clock_unix_ms());
    return s ? s : fst_registry_touch(r, id, err);
}

fst_status fst_registry_figure_text(fst_registry *r, int64_t id, const char *stage, const char *key, const char *text,
                                    fst_error *err)
{
    fst_status s = execute(r, err, "write a figure",
                           "INSERT INTO figures(run, stage, key, text, time) VALUES(?, ?, ?, ?, ?) ON CONFLICT DO"
                           " UPDATE SET value = NULL, low = NULL, high = NULL, text = excluded.text,"
                           " time = excluded.time",
                           "isssi", id, stage ? stage : "", key, text ? text : "", fst_clock_unix_ms());
    return s ? s : fst_registry_touch(r, id, err);
}

fst_status fst_registry_finish(fst_registry *r, int64_t id, fst_run_status status, const char *message, fst_error *err)
{
    if (status != FST_RUN_DONE && status != FST_RUN_FAILED && status != FST_RUN_STOPPED)
        return fst_fail(err, FST_E_ARGUMENT, "a run finishes as done, failed or stopped, not as %s",
                        fst_run_status_name(status));
    fst_status s = execute(r, err, "finish a run",
                           "UPDATE runs SET spent = spent + CASE status WHEN 'running' THEN max(?1 - begun, 0) ELSE 0"
                           " END, status = ?2, message = ?3, ended = ?1, updated = ?1 WHERE id = ?4",
                           "issi", fst_clock_unix_ms(), fst_run_status_name(status), message ? message : "", id);
    return s ? s : must_have_changed(r, id, err);
}

/* ---- reading ------------------------------------------------------------------------------ */

#define RUN_COLUMNS                                                                                                 \
    "SELECT id, task, task_path, output, stage, message, host, seed, pid, started, updated, ended, status, boot,"   \
    " pid_start, begun, spent,"                                                                                     \
    " (SELECT value FROM figures WHERE run = runs.id AND key = 'accuracy' ORDER BY time DESC, rowid DESC LIMIT 1)," \
    " (SELECT high FROM figures WHERE run = runs.id AND key = 'accuracy' ORDER BY time DESC, rowid DESC LIMIT 1),"  \
    " settings FROM runs "

static const char *text_at(sqlite3_stmt *q, int column)
{
    const char *t = (const char *)sqlite3_column_text(q, column);
    return t ? t : "";
}

static double double_at(sqlite3_stmt *q, int column)
{
    return sqlite3_column_type(q, column) == SQLITE_NULL ? NAN : sqlite3_column_double(q, column);
}

static fst_run read_run(const fst_registry *r, sqlite3_stmt *q)
{
    fst_run run = {
        .id = sqlite3_column_int64(q, 0),
        .task = text_at(q, 1),
        .task_path = text_at(q, 2),
        .output = text_at(q, 3),
        .stage = text_at(q, 4),
        .message = text_at(q, 5),
        .host = text_at(q, 6),
        .seed = (uint64_t)sqlite3_column_int64(q, 7),
        .pid = sqlite3_column_int64(q, 8),
        .started_ms = sqlite3_column_int64(q, 9),
        .updated_ms = sqlite3_column_int64(q, 10),
        .ended_ms = sqlite3_column_int64(q, 11),
        .status = parse_status(text_at(q, 12)),
        .last_accuracy = double_at(q, 17),
        .best_accuracy = double_at(q, 18),
        .settings = text_at(q, 19),
    };
    int64_t begun = sqlite3_column_int64(q, 15), spent = sqlite3_column_int64(q, 16), until = begun;
    if (run.status == FST_RUN_RUNNING) {
        bool gone = fst__process_gone(&r->self, run.host, text_at(q, 13), run.pid, sqlite3_column_int64(q, 14));
        run.status = gone ? FST_RUN_INTERRUPTED : FST_RUN_RUNNING;
        until = gone ? run.updated_ms : fst_clock_unix_ms();
    }
    run.seconds = (double)(spent + (until > begun ? until - begun : 0)) / 1000;
    return run;
}

/* Takes q over. */
static fst_status each_run(fst_registry *r, sqlite3_stmt *q, fst_run_fn fn, void *ctx, size_t *seen, fst_error *err)
{
    int rc;
    fst_status s = FST_OK;
    bool more = true;
    while (more && (rc = sqlite3_step(q)) != SQLITE_DONE) {
        if (rc != SQLITE_ROW) {
            s = db_fail(r, err, "read it");
            break;
        }
        fst_run run = read_run(r, q);
        ++*seen;
        more = fn(ctx, &run);
    }
    sqlite3_finalize(q);
    return s;
}

fst_status fst_registry_list(fst_registry *r, size_t limit, fst_run_fn fn, void *ctx, fst_error *err)
{
    sqlite3_stmt *q = NULL;
    size_t seen = 0;
    int64_t most = limit && limit <= INT64_MAX ? (int64_t)limit : -1;
    fst_status s = query(r, &q, err, "read it", RUN_COLUMNS "ORDER BY begun DESC, id DESC LIMIT ?", "i", most);
    return s ? s : each_run(r, q, fn, ctx, &seen, err);
}

static fst_status find_by_id(fst_registry *r, const char *name, fst_run_fn fn, void *ctx, size_t *seen, fst_error *err)
{
    char *end;
    errno = 0;
    long long id = strtoll(name, &end, 10);
    sqlite3_stmt *q = NULL;
    if (errno || *end || end == name || id < 1)
        return FST_OK;
    fst_status s = query(r, &q, err, "read it", RUN_COLUMNS "WHERE id = ?", "i", (int64_t)id);
    return s ? s : each_run(r, q, fn, ctx, seen, err);
}

static fst_status find_by_output(fst_registry *r, const char *name, fst_run_fn fn, void *ctx, size_t *seen,
                                 fst_error *err)
{
    sqlite3_stmt *q = NULL;
    char *output = absolute(name);
    if (!output)
        return fst_fail_errno(err, "cannot resolve %s", name);
    fst_status s =
        query(r, &q, err, "read it", RUN_COLUMNS "WHERE output = ? ORDER BY begun DESC, id DESC LIMIT 1", "s", output);
    if (!s)
        s = each_run(r, q, fn, ctx, seen, err);
    free(output);
    return s;
}

fst_status fst_registry_find(fst_registry *r, const char *name, fst_run_fn fn, void *ctx, fst_error *err)
{
    size_t seen = 0;
    sqlite3_stmt *q = NULL;
    fst_status s = find_by_id(r, name, fn, ctx, &seen, err);
    if (!s && !seen) {
        s = query(r, &q, err, "read it", RUN_COLUMNS "WHERE task = ? ORDER BY begun DESC, id DESC LIMIT 1", "s", name);
        if (!s)
            s = each_run(r, q, fn, ctx, &seen, err);
    }
    if (!s && !seen && *name)
        s = find_by_output(r, name, fn, ctx, &seen, err);
    if (!s && !seen)
        return fst_fail(err, FST_E_CONFIG,
                        "no run \"%s\" in %s: a run's number, a task's name or an output folder is wanted", name,
                        r->path);
    return s;
}

fst_status fst_registry_figures(fst_registry *r, int64_t id, fst_figure_fn fn, void *ctx, fst_error *err)
{
    sqlite3_stmt *q = NULL;
    fst_status s =
        query(r, &q, err, "read it",
              "SELECT stage, key, value, text, low, high, time FROM figures WHERE run = ? ORDER BY rowid", "i", id);
    int rc;
    bool more = true;
    if (s)
        return s;
    while (more && (rc = sqlite3_step(q)) != SQLITE_DONE) {
        if (rc != SQLITE_ROW) {
            s = db_fail(r, err, "read it");
            break;
        }
        fst_figure f = {.stage = text_at(q, 0),
                        .key = text_at(q, 1),
                        .text = (const char *)sqlite3_column_text(q, 3),
                        .value = double_at(q, 2),
                        .low = double_at(q, 4),
                        .high = double_at(q, 5),
                        .time_ms = sqlite3_column_int64(q, 6)};
        more = fn(ctx, &f);
    }
    sqlite3_finalize(q);
    return s;
}
