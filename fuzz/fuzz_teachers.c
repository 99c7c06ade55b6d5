/* The teachers that a fleet's cloud sends to its sites, so many as the first byte says: what is taken packs to the same
 * bytes, and each file is one that a model may be read from. */
#include <stdlib.h>
#include <string.h>

#include "fedstill/models.h"
#include "supervised.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void must(bool fine)
{
    if (!fine)
        abort();
}

static void check(const struct teacher_file *file, size_t wanted, const void *given, size_t len)
{
    fst_buf again = {0};
    for (size_t i = 0; i < wanted; i++)
        must(!fst__teachers_add(file[i].data, file[i].len, &again, NULL));
    must(again.len == len && (!len || !memcmp(again.data, given, len)));
    fst_buf_release(&again);
    for (size_t i = 0; i < wanted; i++) {
        fst_model m;
        fst_error err = {0};
        if (!fst_model_load_memory(&m, "a teacher", file[i].data, file[i].len, &err))
            fst_model_release(&m);
        else
            must(err.message[0]);
    }
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct teacher_file file[FST_MAX_TEACHERS];
    fst_error err = {0};
    if (!size)
        return 0;
    size_t wanted = data[0] % (FST_MAX_TEACHERS + 1), len = size - 1;
    unsigned char *given = malloc(len + 1); /* aligned, as they come, and no longer than they are */
    if (!given)
        return 0;
    memcpy(given, data + 1, len);
    fst_status st = fst__teachers_split(given, len, wanted, file, &err);
    must(st ? st == FST_E_FORMAT && err.message[0] : true);
    if (!st)
        check(file, wanted, given, len);
    free(given);
    return 0;
}
