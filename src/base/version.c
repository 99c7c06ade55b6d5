/* Which version this library is, for programs that were compiled with headers of perhaps another. */
#include "fedstill/base.h"

const char *fst_version(void)
{
    return FST_VERSION;
}

int fst_version_number(void)
{
    return FST_VERSION_NUMBER;
}
