/* Aggregation rules. */
#include "golden.h"

void golden_aggregate(struct golden *g)
{
    golden_skip(g, golden_text(g, "aggregate", "?"));
}
