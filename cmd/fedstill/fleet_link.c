/* --connect, --credentials and --plain-text, see fleet_link.h. */
#include "fleet_link.h"

#include <stdio.h>
#include <string.h>

static fst_status credential(const char *folder, const char *name, const char *end, const char **out, fst_error *err)
{
    char file[64];
    snprintf(file, sizeof file, "%.40s%s", name, end);
    char *path = fst_path_join(folder, file);
    *out = path;
    if (!path)
        return fst_fail_memory(err, 256);
    return fst_file_exists(path) ? FST_OK : fst_fail(err, FST_E_CONFIG, "--credentials: there is no %s", path);
}

fst_status fleet_link_of(fst_fleet_link *out, const struct options *o, const char *id, fst_error *err)
{
    const char *url = option_string(o, "connect"), *folder = option_string(o, "credentials");
    bool plain = url && !strncmp(url, "mqtt://", 7);
    *out = (fst_fleet_link){.url = url};
    if (!url)
        return fst_fail(err, FST_E_CONFIG, "--connect URL is needed: where the fleet's broker is, mqtts://HOST");
    if (plain && !option_flag(o, "plain-text"))
        return fst_fail(err, FST_E_CONFIG,
                        "%s is not encrypted, and nobody would know who is who: mqtts:// with --credentials, or "
                        "--plain-text if that is meant",
                        url);
    if (plain && folder)
        return fst_fail(err, FST_E_CONFIG, "--credentials has no effect with %s", url);
    if (plain)
        return FST_OK;
    if (!folder)
        return fst_fail(err, FST_E_CONFIG, "--credentials DIR is needed: the folder with ca.pem, %s.pem and %s.key", id,
                        id);
    fst_status st = credential(folder, "ca", ".pem", &out->ca, err);
    if (!st)
        st = credential(folder, id, ".pem", &out->cert, err);
    return st ? st : credential(folder, id, ".key", &out->key, err);
}

void fleet_link_release(fst_fleet_link *l)
{
    fst_free((char *)l->ca);
    fst_free((char *)l->cert);
    fst_free((char *)l->key);
}
