/* Bundles of sites (ID.fleet): any bytes. What is accepted goes into mosquitto's configuration, a line a word. */
#include <stdlib.h>
#include <string.h>

#include "bundle.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

/* Lines of the text, and whether one begins like that. */
static size_t lines(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += *text == '\n';
    return n;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    static size_t expected;
    struct fst__bundle b = {0};
    fst_buf conf = {0}, acl = {0};
    if (fst__bundle_parse(&b, "fuzz", (const char *)data, size, NULL))
        return 0;
    if (fst_site_id_check(b.id, NULL) || strlen(b.url) < 12)
        abort();
    if (b.role == FST_ROLE_EDGE) {
        if (fst__conf_edge(&conf, &b.broker, "/fleet", NULL) || fst__conf_edge_acl(&acl, &b.broker, NULL))
            abort();
        expected = expected ? expected : lines(conf.data);
        if (lines(conf.data) != expected || lines(acl.data) != 3 + 3 * b.broker.n)
            abort(); /* no word makes a line of its own */
    }
    fst_buf_release(&conf);
    fst_buf_release(&acl);
    fst__bundle_release(&b);
    return 0;
}
