/*
 * The commit of the repository that a folder is in, read from .git without running git: HEAD is a hash or names a
 * reference, which is a file of its own or a line of packed-refs. A worktree's .git is a file that names its folder,
 * and that folder's "commondir" the one with the references. Whether files were changed since cannot be told this way.
 * What looks otherwise is no repository.
 */
#define _GNU_SOURCE /* realpath */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "session.h"

enum { MAX_SMALL = 4096, MAX_PACKED = 64 << 20, MAX_DEPTH = 64 };

/* A small file's first line; NULL: it cannot be read. */
static char *first_line(const char *folder, const char *name)
{
    fst_buf text = {0};
    char *path = fst_path_join(folder, name), *line = NULL;
    if (path && fst_file_exists(path) && !fst_file_read(path, MAX_SMALL, &text, NULL) && text.data) {
        text.data[strcspn(text.data, "\r\n")] = 0;
        line = fst_strdup(text.data);
    }
    fst_buf_release(&text);
    fst_free(path);
    return line;
}

/* SHA-1 or SHA-256 in hexadecimal, the whole text. */
static bool take_hash(const char *text, char out[FST_DIGEST_HEX])
{
    size_t n = text ? strspn(text, "0123456789abcdef") : 0;
    if ((n != 40 && n != 64) || text[n])
        return false;
    memcpy(out, text, n + 1);
    return true;
}

/* "HASH NAME" among the lines of packed-refs. */
static bool find_packed(const char *common, const char *ref, char out[FST_DIGEST_HEX])
{
    fst_buf text = {0};
    bool found = false;
    char *path = fst_path_join(common, "packed-refs"), *rest = NULL;
    if (path && fst_file_exists(path) && !fst_file_read(path, MAX_PACKED, &text, NULL) && text.data)
        for (char *line = strtok_r(text.data, "\n", &rest); line && !found; line = strtok_r(NULL, "\n", &rest)) {
            char *blank = strchr(line, ' ');
            if (!blank || strcmp(blank + 1, ref))
                continue;
            *blank = 0;
            found = take_hash(line, out);
        }
    fst_buf_release(&text);
    fst_free(path);
    return found;
}

/* References may not lead out of the folder. */
static bool is_ref(const char *name)
{
    return !strncmp(name, "refs/", 5) && !strstr(name, "..");
}

static bool resolve(const char *git, char out[FST_DIGEST_HEX])
{
    char *head = first_line(git, "HEAD"), *more = first_line(git, "commondir"), *hash = NULL, *joined = NULL;
    const char *common = git;
    bool ok = take_hash(head, out);
    if (more)
        common = *more == '/' ? more : (joined = fst_path_join(git, more));
    if (!ok && head && common && !strncmp(head, "ref: ", 5) && is_ref(head + 5)) {
        hash = first_line(common, head + 5);
        ok = take_hash(hash, out) || find_packed(common, head + 5, out);
    }
    fst_free(head);
    fst_free(more);
    fst_free(hash);
    fst_free(joined);
    return ok;
}

/* .git of this folder, as a folder or as a file that names one. False: there is none. */
static bool look_into(const char *folder, char out[FST_DIGEST_HEX], bool *found)
{
    char *git = fst_path_join(folder, ".git"), *line = first_line(folder, ".git"), *joined = NULL;
    bool there = git && fst_file_exists(git);
    if (line && !strncmp(line, "gitdir: ", 8)) {
        const char *to = line[8] == '/' ? line + 8 : (joined = fst_path_join(folder, line + 8));
        *found = to && resolve(to, out);
    } else if (there && !line) {
        *found = resolve(git, out);
    }
    fst_free(git);
    fst_free(line);
    fst_free(joined);
    return there;
}

bool fst__commit_of(const char *folder, char out[FST_DIGEST_HEX])
{
    char *at = realpath(folder, NULL);
    bool found = false;
    for (int depth = 0; at && depth < MAX_DEPTH; depth++) {
        if (look_into(*at ? at : "/", out, &found) || !*at)
            break;
        char *slash = strrchr(at, '/');
        if (!slash)
            break;
        *slash = 0;
    }
    free(at);
    return found;
}
