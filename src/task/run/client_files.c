/*
 * The models that a federated stage left for its clients: files beside clients.json, which names each with its digest,
 * and whose own digest is in the record. They belong to the stage as its artifact does: a file that was changed or lost
 * makes the stage out of date, and a stage that is copied brings them along. In a fleet they are at the sites, and the
 * list names none.
 */
#include <jansson.h>
#include <string.h>

#include "session.h"

enum { LIST_MOST = 64 << 20 };

fst_status fst__client_files(const char *folder, const char *digest, fst_client_file_fn fn, void *ctx, fst_error *err)
{
    fst_buf text = {0};
    char *path = fst_path_join(folder, FST__CLIENTS);
    fst_status st = path ? fst__read_whole(path, digest, &text, NULL, err) : fst_fail_memory(err, 256);
    json_t *list = st || text.len > LIST_MOST ? NULL : json_loadb(text.data, text.len, JSON_REJECT_DUPLICATES, NULL);
    if (!st && !json_is_array(list))
        st = fst_fail(err, FST_E_FORMAT, "%s: not a list of clients", path);
    for (size_t i = 0; !st && i < json_array_size(list); i++) {
        const char *name = json_string_value(json_object_get(json_array_get(list, i), "model"));
        const char *its = json_string_value(json_object_get(json_array_get(list, i), "digest"));
        if (!name || !its || strchr(name, '/') || strlen(its) >= FST_DIGEST_HEX)
            st = fst_fail(err, FST_E_FORMAT, "%s: entry %zu names no file", path, i + 1);
        else if (*name)
            st = fn(ctx, name, its, err);
    }
    json_decref(list);
    fst_buf_release(&text);
    fst_free(path);
    return st;
}
