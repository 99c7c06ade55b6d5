/* A model file from anywhere: loaded whole with a state of the network's size, or refused. */
#include <stddef.h>
#include <stdlib.h>

#include "fedstill/models.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    fst_model m = {0};
    fst_error err = {0};
    fst_status s = fst_model_load_memory(&m, "fuzz", data, size, &err);
    if (s ? m.graph != NULL || err.status != s || !err.message[0]
          : m.classes < 1 || m.state.param_count != fst_graph_param_count(m.graph) ||
                m.state.param_count > size) /* no number type is smaller than a byte */
        abort();
    fst_model_release(&m);
    return 0;
}
