/*
 * What is said about a data set beside its samples: warnings, each given once in a process however often the data are
 * opened, and what foreign bytes are that stand where data should (a pointer of Git LFS, an HTML page, nothing).
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "formats.h"

/* ---- warnings --------------------------------------------------------------------------------- */

enum { REMEMBERED = 256 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t given[REMEMBERED]; /* hashes of the last warnings */
static size_t given_count;

static bool is_new(const char *text)
{
    uint64_t key = fst_hash(text, strlen(text), 0).lo;
    bool known = false;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < given_count && i < REMEMBERED; i++)
        known = known || given[i] == key;
    if (!known)
        given[given_count++ % REMEMBERED] = key;
    pthread_mutex_unlock(&lock);
    return !known;
}

void fst__warn_once(const char *fmt, ...)
{
    char text[1000];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (is_new(text))
        fst_log(FST_LOG_WARN, "%s", text);
}

void fst__warn_empty_classes(const fst_source *s, const int32_t *labels, size_t n)
{
    char list[200];
    size_t at = 0;
    int missing = 0;
    bool *seen = fst_calloc((size_t)s->classes, sizeof *seen);
    list[0] = 0;
    for (size_t i = 0; seen && i < n; i++)
        seen[labels[i]] = true;
    for (int c = 0; seen && c < s->classes; c++) {
        if (seen[c])
            continue;
        if (missing++ < 8)
            at += (size_t)snprintf(list + at, sizeof list - at, "%s%d", at ? ", " : "", c);
    }
    if (missing == 1 && !seen[0] && !s->class_names)
        fst__warn_once("%s: labels begin at 1, so class 0 has no samples and a model gets an output that nothing "
                       "trains: subtract 1 from all labels",
                       s->name);
    else if (missing)
        fst__warn_once("%s: %d of %d classes have no samples: %s%s%s", s->name, missing, s->classes, list,
                       missing > 8 ? ", ..." : "", s->class_names ? "" : "; classes are numbered from 0 without gaps");
    fst_free(seen);
}

/* ---- foreign bytes ------------------------------------------------------------------------------ */

static bool begins(const char *text, size_t len, const char *with)
{
    return len >= strlen(with) && !strncasecmp(text, with, strlen(with));
}

const char *fst__foreign(const void *data, size_t len)
{
    const char *p = data;
    if (len == 0)
        return "the file is empty: copy or download it again";
    if (begins(p, len, "version https://git-lfs.github.com/spec/"))
        return "a pointer of Git LFS, not the file itself: run `git lfs pull` where it comes from";
    if (begins(p, len, "\xEF\xBB\xBF"))
        p += 3, len -= 3;
    while (len && (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n'))
        p++, len--;
    if (begins(p, len, "<!doctype html") || begins(p, len, "<html") || begins(p, len, "<head"))
        return "an HTML page, not data: the download failed; fetch the file itself";
    return NULL;
}

fst_status fst__not_foreign(const char *path, fst_error *err)
{
    char head[512];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return fst_fail_errno(err, "%s", path);
    ssize_t n = pread(fd, head, sizeof head, 0);
    close(fd);
    const char *what = n < 0 ? NULL : fst__foreign(head, (size_t)n); /* who reads on says why it cannot */
    return what ? fst_fail(err, FST_E_FORMAT, "%s: %s", path, what) : FST_OK;
}
