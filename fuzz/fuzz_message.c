/* A message as it comes over the wire: what is accepted packs to bytes that parse to the same again. */
#include <string.h>

#include "fedstill/strategy.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static uint64_t touch(const fst_message *m)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < m->count; i++) {
        const fst_message_tensor *t = &m->tensor[i];
        size_t bytes = (size_t)fst_shape_count(&t->shape) * fst_dtype_size(t->dtype);
        sum += bytes ? fst_hash(t->data, bytes, 0).lo : 0;
        if (fst_message_find(m, t->name) != t)
            __builtin_trap();
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    fst_message m, again;
    fst_buf copy = {0}, packed = {0};
    fst_error err;
    if (fst_buf_append(&copy, data, size, &err))
        return 0;
    if (!fst_message_parse(&m, copy.data, size, &err)) {
        uint64_t sum = touch(&m);
        if (fst_message_pack(&m, &packed, &err) || fst_message_parse(&again, packed.data, packed.len, &err) ||
            touch(&again) != sum || again.count != m.count || again.client != m.client || again.round != m.round ||
            again.base != m.base || again.samples != m.samples || strcmp(again.kind, m.kind))
            __builtin_trap();
    }
    fst_buf_release(&copy);
    fst_buf_release(&packed);
    return 0;
}
