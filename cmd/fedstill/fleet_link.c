/* --credentials, --connect and --plain-text, see fleet_link.h. */
#include "fleet_link.h"

#include <string.h>

enum { WARN_DAYS = 30 };
const char *const fleet_modes[] = {
    "full_train", "federated_learning", "full_pipeline", "device_to_edge_to_cloud", "device_to_edge", "device_to_cloud",
    NULL};

static fst_status plain_text(const struct options *o, const char *url, fst_error *err)
{
    if (!option_flag(o, "plain-text"))
        return fst_fail(err, FST_E_CONFIG,
                        "%s is not encrypted, and nobody would know who is who: mqtts:// with --credentials, or "
                        "--plain-text if that is meant",
                        url);
    if (option_given(o, "credentials"))
        return fst_fail(err, FST_E_CONFIG, "--credentials has no effect with %s", url);
    return FST_OK;
}

/* In time: an expired certificate ends everything. */
static void warn_of_end(const fst_identity *i)
{
    int64_t days = (i->until - fst_clock_unix_ms() / 1000) / 86400;
    if (days < WARN_DAYS)
        fst_log(FST_LOG_WARN, "the certificate of %s ends in %lld days: %s", i->name, (long long)days,
                i->role == FST_ROLE_CLOUD ? "fedstill fleet renew"
                                          : "have its request enrolled again, and install that");
}

fst_status fleet_link_load(struct fleet_link *out, const char *folder, const char *id, fst_error *err)
{
    fst_status s = fst_identity_load(&out->identity, folder, id, err);
    if (s)
        return s;
    out->loaded = true;
    warn_of_end(&out->identity);
    out->link = (fst_fleet_link){.url = out->identity.url,
                                 .name = out->identity.name,
                                 .ca = out->identity.ca,
                                 .cert = out->identity.certificate,
                                 .key = out->identity.key};
    return FST_OK;
}

fst_status fleet_link_of(struct fleet_link *out, const struct options *o, const char *id, fst_error *err)
{
    const char *url = option_string(o, "connect");
    *out = (struct fleet_link){.loaded = false};
    if (url && !strncmp(url, "mqtt://", 7)) {
        out->link.url = url;
        return plain_text(o, url, err);
    }
    fst_status s = fleet_link_load(out, option_string(o, "credentials"), id, err);
    if (!s && url)
        out->link.url = url;
    return s;
}

fst_status fleet_link_local(const struct fleet_link *l, const struct options *o, fst_fleet_link *out, fst_error *err)
{
    const char *url = option_string(o, "local");
    *out = (fst_fleet_link){.url = url};
    if (!l->loaded) {
        out->url = url ? url : l->link.url;
        return strncmp(out->url, "mqtt://", 7)
                   ? fst_fail(err, FST_E_CONFIG, "--local %s needs --credentials, as --connect does", out->url)
                   : FST_OK;
    }
    if (url && !strncmp(url, "mqtt://", 7))
        return plain_text(o, url, err);
    if (!l->identity.local_certificate) /* no device of it is enrolled */
        return url ? fst_fail(err, FST_E_CONFIG, "--local %s: no device of %s is enrolled, so that it has no broker",
                              url, l->identity.id)
                   : FST_OK;
    *out = (fst_fleet_link){.url = url ? url : l->identity.local_url,
                            .name = l->identity.local_name,
                            .ca = l->identity.ca,
                            .cert = l->identity.local_certificate,
                            .key = l->identity.key};
    return FST_OK;
}

void fleet_link_release(struct fleet_link *l)
{
    if (l->loaded)
        fst_identity_release(&l->identity);
}

fst_status fleet_http_of(fst_fleet_http *out, const struct options *o, const char *roster, fst_error *err)
{
    *out = (fst_fleet_http){option_string(o, "http"), option_string(o, "http-token"), roster};
    return out->token_file && !out->address ? fst_fail(err, FST_E_CONFIG, "--http-token has no effect without --http")
                                            : FST_OK;
}
