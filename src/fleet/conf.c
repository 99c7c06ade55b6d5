/*
 * Configurations of mosquitto and of what starts it. They use a small part of the broker: live messages over TLS 1.3
 * with certificates on both sides, users by the certificate's name, access by lines of one file. Nothing is stored or
 * retained, so that a broker that lost its disk is as good as before.
 *
 * `listener` stands before max_qos, max_connections and max_topic_alias: written above it, they would make mosquitto
 * open port 1883 in plain text on every address.
 */
#include <ctype.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ca_private.h"
#include "conf.h"

/* ---- words -------------------------------------------------------------------------------- */

fst_status fst__path_check(const char *path, fst_error *err)
{
    for (const unsigned char *p = (const unsigned char *)path; *p; p++)
        if (*p < 0x20 || *p == 0x7f || *p == '"' || *p == '\\')
            return fst_fail(err, FST_E_CONFIG,
                            "%s: a fleet's folder has no quotes, backslashes or control characters in its name", path);
    return FST_OK;
}

fst_status fst__address(const char *hosts, int port, char out[FST_FLEET_URL], fst_error *err)
{
    char host[FST__HOST];
    const char *at = *hosts ? hosts : "127.0.0.1"; /* not localhost: small hosts do not know that name */
    fst_status s = fst__host_next(&at, host, err);
    if (!s)
        snprintf(out, FST_FLEET_URL, strchr(host, ':') ? "[%s]:%d" : "%s:%d", host, port);
    return s;
}

fst_status fst__url(const char *hosts, int port, char out[FST_FLEET_URL], fst_error *err)
{
    char address[FST_FLEET_URL];
    fst_status s = fst__address(hosts, port, address, err);
    if (!s)
        snprintf(out, FST_FLEET_URL, "mqtts://%.*s", FST_FLEET_URL - 9, address);
    return s;
}

const char *fst__id_of_name(const char *name)
{
    size_t digits = name[0] == 'g' ? strspn(name + 1, "0123456789") : 0;
    const char *id = name + 1 + digits;
    return digits > 0 && digits < 7 && *id == '.' && !fst_site_id_check(id + 1, NULL) ? id + 1 : NULL;
}

/* Who runs the brokers: whoever made the folder. */
static const char *owner(void)
{
    const struct passwd *p = getpwuid(geteuid());
    return p ? p->pw_name : "root";
}

/* ---- brokers ------------------------------------------------------------------------------ */

static fst_status head(fst_buf *out, const char *folder, const char *acl, const char *pid, fst_error *err)
{
    fst_status s = fst_buf_printf(out, err,
                                  "# Made by fedstill from the fleet's roster, and made again at every change.\n"
                                  "per_listener_settings false\n"
                                  "allow_anonymous false\n"
                                  "acl_file %s/%s\n"
                                  "pid_file %s/%s\n",
                                  folder, acl, folder, pid);
    if (!s && geteuid() == 0)
        s = fst_buf_printf(out, err, "user root\n");
    return s ? s
             : fst_buf_printf(out, err,
                              "persistence false\n"
                              "retain_available false\n"
                              "max_keepalive 30\n"
                              "max_inflight_messages 32\n"
                              "max_queued_messages 64\n"
                              "max_queued_bytes 67108864\n"
                              "max_packet_size 1050000\n"
                              "persistent_client_expiration 1h\n"
                              "set_tcp_nodelay true\n"
                              "sys_interval 0\n"
                              "log_type error\n"
                              "log_type warning\n"
                              "log_type notice\n"
                              "log_dest stderr\n"
                              "log_timestamp_format %%Y-%%m-%%dT%%H:%%M:%%S\n");
}

static fst_status listener(fst_buf *out, const char *folder, int port, const char *bind, const char *certificate,
                           const char *key, fst_error *err)
{
    return fst_buf_printf(out, err,
                          "listener %d%s%s\n"
                          "max_qos 1\n"
                          "max_connections 2000\n"
                          "max_topic_alias 0\n"
                          "cafile %s/ca.pem\n"
                          "certfile %s/%s\n"
                          "keyfile %s/%s\n"
                          "crlfile %s/crl.pem\n"
                          "tls_version tlsv1.3\n"
                          "require_certificate true\n"
                          "use_identity_as_username true\n"
                          "use_username_as_clientid true\n",
                          port, *bind ? " " : "", bind, folder, folder, certificate, folder, key, folder);
}

fst_status fst__conf_hub(fst_buf *out, const struct fst__roster *r, const char *folder, fst_error *err)
{
    fst_status s = head(out, folder, "hub.acl", "hub.pid", err);
    return s ? s : listener(out, folder, r->port, r->bind, "hub.pem", "hub.key", err);
}

/* No bridge: the edge's own process is between its devices and the hub, so that windows leave the site only when it
 * sends them. */
fst_status fst__conf_edge(fst_buf *out, const struct fst__edge_broker *b, const char *folder, fst_error *err)
{
    char key[FST_SITE_ID + 8];
    snprintf(key, sizeof key, "%s.key", b->id);
    fst_status s = head(out, folder, "broker.acl", "broker.pid", err);
    return s ? s : listener(out, folder, b->port, b->bind, "broker.pem", key, err);
}

/* ---- access lists ------------------------------------------------------------------------- */

/* Users by their names and not by a pattern, so that one of them can be muted. */
static fst_status hub_user(fst_buf *out, const struct fst__site *t, fst_error *err)
{
    char name[FST_SITE_NAME];
    fst__site_name(t, name);
    if (t->role == FST_ROLE_EDGE)
        return fst_buf_printf(out, err, "user %s\ntopic write fst/up/%s/#\ntopic read fst/dn/%s/#\n", name, t->id,
                              t->id);
    if (strcmp(t->id, "cloud"))
        return fst_buf_printf(out, err,
                              "user %s\ntopic read fst/cloud/lead\ntopic read fst/cloud/will\n"
                              "topic write fst/cloud/%s/get\ntopic read fst/cloud/%s/part\n",
                              name, t->id, t->id);
    return fst_buf_printf(out, err, "user %s\ntopic write fst/dn/#\ntopic read fst/up/#\ntopic readwrite fst/cloud/#\n",
                          name);
}

fst_status fst__conf_hub_acl(fst_buf *out, const struct fst__roster *r, fst_error *err)
{
    /* An empty access list would allow everything; this user has no certificate. */
    fst_status s = fst_buf_printf(out, err,
                                  "# Made by fedstill from the fleet's roster.\nuser nobody\n"
                                  "topic deny #\n");
    for (size_t i = 1; !s && i < r->n; i++)
        if (!r->sites[i].revoked && r->sites[i].role != FST_ROLE_DEVICE)
            s = hub_user(out, &r->sites[i], err);
    return s;
}

fst_status fst__conf_edge_acl(fst_buf *out, const struct fst__edge_broker *b, fst_error *err)
{
    fst_status s = fst_buf_printf(out, err,
                                  "# Made by fedstill from the fleet's roster.\n"
                                  "user %s\ntopic readwrite fst/#\n",
                                  b->local_name);
    for (size_t i = 0; !s && i < b->n; i++) {
        const char *id = fst__id_of_name(b->devices[i]);
        s = fst_buf_printf(out, err, "user %s\ntopic write fst/q/%s/%s/#\ntopic read fst/a/%s/#\n", b->devices[i],
                           b->id, id, id);
    }
    return s;
}

/* ---- units -------------------------------------------------------------------------------- */

/* A path in a unit: % has a meaning there. */
static fst_status unit_path(fst_buf *out, const char *path, fst_error *err)
{
    fst_status s = FST_OK;
    for (; !s && *path; path++)
        s = *path == '%' ? fst_buf_append(out, "%%", 2, err) : fst_buf_append(out, path, 1, err);
    return s;
}

/* restart: what is started again. A broker always; what ends by itself has done its work (0) or was refused (2). */
static fst_status unit(fst_buf *out, const char *what, const char *folder, const char *exec, const char *restart,
                       const char *memory, fst_error *err)
{
    fst_buf path = {0};
    fst_status s = unit_path(&path, folder, err);
    if (!s)
        s = fst_buf_printf(out, err,
                           "# Made by fedstill. Copy it to /etc/systemd/system, then: systemctl enable --now NAME\n"
                           "[Unit]\nDescription=%s\nWants=network-online.target\nAfter=network-online.target\n\n"
                           "[Service]\nUser=%s\nWorkingDirectory=%s\n%s"
                           "%sRestartSec=1\nMemoryMax=%s\n",
                           what, owner(), path.data, exec, restart, memory);
    if (!s)
        s = fst_buf_printf(out, err,
                           "NoNewPrivileges=yes\nPrivateTmp=yes\nProtectSystem=full\nProtectKernelTunables=yes\n"
                           "ProtectControlGroups=yes\nRestrictSUIDSGID=yes\nInaccessiblePaths=\"-%s/ca.key\"\n\n"
                           "[Install]\nWantedBy=multi-user.target\n",
                           path.data);
    fst_buf_release(&path);
    return s;
}

fst_status fst__unit_broker(fst_buf *out, const char *folder, const char *conf, fst_error *err)
{
    fst_buf exec = {0};
    /* Without these, glibc gives a message's buffers back to the kernel after every message. */
    fst_status s = fst_buf_printf(&exec, err,
                                  "Environment=MALLOC_TRIM_THRESHOLD_=67108864 MALLOC_MMAP_THRESHOLD_=67108864 "
                                  "MALLOC_TOP_PAD_=4194304\nExecStart=/usr/sbin/mosquitto -c \"");
    if (!s)
        s = unit_path(&exec, folder, err);
    if (!s)
        s = fst_buf_printf(&exec, err, "/%s\"\nExecReload=/bin/kill -HUP $MAINPID\n", conf);
    if (!s)
        s = unit(out, "Broker of a fedstill fleet", folder, exec.data, "Restart=always\n", "512M", err);
    fst_buf_release(&exec);
    return s;
}

fst_status fst__unit_site(fst_buf *out, const char *folder, fst_role role, const char *id, const char *url,
                          fst_error *err)
{
    fst_buf exec = {0};
    char what[96], who[64];
    snprintf(what, sizeof what, "fedstill, %s %s", fst_role_name(role), id);
    snprintf(who, sizeof who, " --id %.33s", id);
    fst_status s = fst_buf_printf(&exec, err,
                                  "# The task's folder:\nEnvironment=FEDSTILL_TASK=/var/lib/fedstill/task\n"
                                  "ExecStart=/usr/local/bin/fedstill %s ${FEDSTILL_TASK}%s --connect %s\n",
                                  fst_role_name(role), role == FST_ROLE_CLOUD ? "" : who, url);
    if (!s)
        s = unit(out, what, folder, exec.data, "Restart=on-failure\nRestartPreventExitStatus=2\n",
                 role == FST_ROLE_DEVICE ? "512M" : "8G", err);
    fst_buf_release(&exec);
    return s;
}

fst_status fst__container_file(fst_buf *out, const char *folder, int port, fst_error *err)
{
    return fst_buf_printf(
        out, err,
        "# Made by fedstill: the hub's broker in a container. The fleet's folder is mounted, not copied:\n"
        "#   podman build -t fedstill-hub -f Containerfile\n"
        "#   podman run --user %u -p %d:%d -v \"%s\":\"%s\" fedstill-hub\n"
        "FROM debian:12-slim\n"
        "RUN apt-get update && apt-get install -y --no-install-recommends mosquitto && "
        "rm -rf /var/lib/apt/lists/*\n"
        "ENV MALLOC_TRIM_THRESHOLD_=67108864 MALLOC_MMAP_THRESHOLD_=67108864 MALLOC_TOP_PAD_=4194304\n"
        "EXPOSE %d\n"
        "ENTRYPOINT [\"/usr/sbin/mosquitto\", \"-c\", \"%s/hub.conf\"]\n",
        (unsigned)geteuid(), port, port, folder, folder, port, folder);
}
