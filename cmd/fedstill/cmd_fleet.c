/* fedstill fleet: who belongs to a fleet. Certificates and configurations are fedstill/fleet.h's; this asks, shows, and
 * tells the running broker. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common.h"
#include "fedstill/fleet.h"

enum { PLAIN_PORT = 1883, WARN_DAYS = 30, MAX_PORTS = 1024 };

#define FOLDER_OPERAND                                                       \
    {                                                                        \
        "FOLDER", 1, 1, "The fleet's folder, made by `fedstill fleet init`." \
    }
#define PORT_OPTION(text)                                                                                   \
    {                                                                                                       \
        .name = "port", .argument = "PORT", .type = OPTION_INT, .min = 1, .max = 65535, .fallback = "8883", \
        .help = text                                                                                        \
    }
#define DIR_OPTION                                                                                        \
    {                                                                                                     \
        .name = "dir", .argument = "DIR", .type = OPTION_STRING, .fallback = ".",                         \
        .help = "The site's folder, where its key is made and stays. The program of the site runs there." \
    }

enum { MOST_PORTS = 4096 };

/* ---- what several of them do --------------------------------------------------------------- */

static int64_t days_left(int64_t until)
{
    int64_t seconds = until - fst_clock_unix_ms() / 1000;
    return seconds < 0 ? -1 : seconds / 86400;
}

static void date_text(int64_t seconds, char out[16])
{
    time_t t = (time_t)seconds;
    struct tm tm;
    out[0] = 0;
    if (seconds > 0 && gmtime_r(&t, &tm))
        strftime(out, 16, "%Y-%m-%d", &tm);
}

/* Whether anybody on this machine listens where the hub's broker would. */
static bool hub_is_up(const char *folder, int *port)
{
    int ports[MOST_PORTS];
    char *conf = fst_path_join(folder, "hub.conf");
    bool up = false;
    if (conf && !fst_broker_port(port, conf, NULL)) {
        size_t n = fst_listening_ports(0, ports, MOST_PORTS);
        for (size_t i = 0; i < n; i++)
            up = up || ports[i] == *port;
    }
    fst_free(conf);
    return up;
}

/* Tells the broker that runs from this folder. One that listens and cannot be told would go on with the old lists. */
static fst_status tell_broker(fst_buf *out, const char *folder, const char *pid_file, bool *was_told, fst_error *err)
{
    bool told = false;
    int port = 0;
    fst_status s = fst_fleet_reload(folder, pid_file, &told, err);
    if (was_told)
        *was_told = told;
    if (!s && !told && hub_is_up(folder, &port))
        return fst_fail(
            err, FST_E_IO,
            "the lists are written, but the broker that listens on port %d could not be told (%s%s does not "
            "name it): send it SIGHUP or restart it, until then the old lists count",
            port, pid_file ? pid_file : folder, pid_file ? "" : "/hub.pid");
    return s ? s
             : add_field(out, err, "broker",
                         told ? "reads its lists again" : "none runs on this machine: its next start reads all");
}

static fst_status add_csr(fst_buf *out, const fst_fleet_csr *c, fst_error *err)
{
    fst_status s = add_field(out, err, "site", "%s", c->id);
    if (!s)
        s = add_field(out, err, "role", "%s%s%s", fst_role_name(c->role), *c->edge ? " of " : "", c->edge);
    return s ? s : add_field(out, err, "key", "%s", c->fingerprint);
}

/* ---- init ---------------------------------------------------------------------------------- */

static const struct option_spec init_options[] = {
    {.name = "host",
     .argument = "NAME,IP",
     .type = OPTION_STRING,
     .help = "Names and addresses by which sites reach the hub, with commas between them; needed. The first is the one "
             "that sites use; all are in the hub's certificate."},
    PORT_OPTION("Port of the hub's broker (TLS)."),
    {.name = "bind", .argument = "IP", .type = OPTION_STRING, .help = "Listen on this address only; default: on all."},
    {0},
};
static const struct operand_spec init_operands[] = {{"FOLDER", 1, 1, "A new folder of the fleet's own."}, {0}};
static const char *const init_examples[] = {
    "fedstill fleet init /var/lib/fedstill/fleet --host hub.example.org,10.0.0.1",
    "Makes an authority, the hub's configuration, and the cloud's identity.",
    NULL,
};

static void warn_of_others(void)
{
    int ports[MAX_PORTS];
    size_t n = fst_listening_ports(0, ports, MAX_PORTS);
    for (size_t i = 0; i < n; i++)
        if (ports[i] == PLAIN_PORT)
            fst_log(FST_LOG_WARN,
                    "a program listens on port %d of this machine, MQTT's port in plain text. It is not of this fleet; "
                    "if it is Debian's broker, end it: systemctl disable --now mosquitto",
                    PLAIN_PORT);
    if (geteuid() == 0)
        fst_log(FST_LOG_WARN,
                "made as root, so the broker will run as root; better make the fleet as a user of its own");
}

static fst_status run_init(const struct options *o, fst_error *err)
{
    fst_buf out = {0};
    fst_fleet_setup setup = {
        .hosts = option_string(o, "host"), .port = (int)option_int(o, "port"), .bind = option_string(o, "bind")};
    if (!setup.hosts)
        return fst_fail(err, FST_E_CONFIG, "--host is needed: names and addresses by which sites reach this hub");
    fst_status s = fst_fleet_init(operand(o, 0), &setup, err);
    if (!s)
        warn_of_others();
    if (!s)
        s = add_field(&out, err, "fleet", "%s", operand(o, 0));
    if (!s)
        s = add_field(&out, err, "hub", "%s, port %d, TLS 1.3 with certificates on both sides", setup.hosts,
                      setup.port);
    if (!s)
        s = add_field(&out, err, "broker", "mosquitto -c %s/hub.conf, or fedstill-hub.service", operand(o, 0));
    if (!s)
        s = add_field(&out, err, "authority", "ca.key signs every site: keep a copy, and keep it secret");
    return finish_output(&out, s);
}

const struct command cmd_fleet_init = {
    .name = "fleet init",
    .summary = "Make a fleet: authority, hub, cloud",
    .description =
        "Makes the folder of a fleet: an authority of its own (P-256), certificate and configuration of the hub's "
        "broker (mosquitto), the cloud's identity, the roster fleet.json, systemd units and a container file. Nothing "
        "of it listens in plain text. A folder that is there is left as it is.",
    .options = init_options,
    .operands = init_operands,
    .examples = init_examples,
    .run = run_init,
};

/* ---- request ------------------------------------------------------------------------------- */

static const char *const role_names[] = {"edge", "device", NULL};
static const struct option_spec request_options[] = {
    {.name = "role",
     .argument = "ROLE",
     .type = OPTION_STRING,
     .fallback = "edge",
     .choices = role_names,
     .help = "What the site is."},
    {.name = "edge", .argument = "ID", .type = OPTION_STRING, .help = "device: the edge that it belongs to; needed."},
    DIR_OPTION,
    {0},
};
static const struct operand_spec request_operands[] = {
    {"ID", 1, 1, "The site's id: up to 32 small letters, digits and dashes."}, {0}};
static const char *const request_examples[] = {
    "fedstill fleet request edge-1 --role edge",
    "Makes edge-1.key, which stays here, and edge-1.csr for the hub.",
    "fedstill fleet request camera-7 --role device --edge edge-1 --dir /etc/fedstill",
    "The same for a device of edge-1.",
    NULL,
};

static fst_status run_request(const struct options *o, fst_error *err)
{
    fst_buf out = {0};
    fst_fleet_csr c = {0};
    fst_role role = FST_ROLE_EDGE;
    const char *name = option_string(o, "role"), *edge = option_string(o, "edge"), *id = operand(o, 0);
    if (!fst_role_parse(name, &role))
        return fst_fail(err, FST_E_CONFIG, "--role is edge or device");
    if (role == FST_ROLE_DEVICE && !edge)
        return fst_fail(err, FST_E_CONFIG, "--edge is needed: the edge that device %s belongs to", id);
    if (role != FST_ROLE_DEVICE && edge)
        return fst_fail(err, FST_E_CONFIG, "--edge means nothing with --role %s", name);
    fst_status s = fst_fleet_request(&c, option_string(o, "dir"), id, role, edge, err);
    if (!s)
        s = add_csr(&out, &c, err);
    if (!s)
        s = add_field(&out, err, "request", "%s/%s.csr: bring it to the hub, with the key's fingerprint above",
                      option_string(o, "dir"), id);
    return finish_output(&out, s);
}

const struct command cmd_fleet_request = {
    .name = "fleet request",
    .summary = "At a site: make a key and ask to be enrolled",
    .description = "Makes the site's private key (mode 0600), which never leaves this folder, and a request to be "
                   "enrolled. A key that is there already is used again, for a new certificate.",
    .options = request_options,
    .operands = request_operands,
    .examples = request_examples,
    .run = run_request,
};

/* ---- enroll -------------------------------------------------------------------------------- */

static const struct option_spec enroll_options[] = {
    {.name = "yes", .letter = 'y', .type = OPTION_FLAG, .help = "Do not ask: the fingerprint was compared elsewhere."},
    {.name = "host",
     .argument = "NAME,IP",
     .type = OPTION_STRING,
     .help = "edge: names and addresses by which its devices reach it. Without, its broker listens on the edge itself "
             "only."},
    {.name = "port",
     .argument = "PORT",
     .type = OPTION_INT,
     .min = 1,
     .max = 65535,
     .help = "edge: port of its own broker; 8883 at the first enrolment."},
    {.name = "pid-file",
     .argument = "FILE",
     .type = OPTION_STRING,
     .help = "The running broker's; default: FOLDER/hub.pid."},
    {0},
};
static const struct operand_spec enroll_operands[] = {
    FOLDER_OPERAND, {"FILE", 1, 1, "The site's request, ID.csr."}, {0}};
static const char *const enroll_examples[] = {
    "fedstill fleet enroll fleet edge-1.csr --host 10.0.1.1",
    "Shows what the request says, asks, and makes fleet/edge-1.fleet for the site.",
    NULL,
};

/* Asks the human at the terminal. */
static fst_status ask(const fst_fleet_csr *c, const char *file, fst_error *err)
{
    char line[16] = "";
    if (!isatty(STDIN_FILENO))
        return fst_fail(
            err, FST_E_CONFIG,
            "nobody is there to be asked; compare the key's fingerprint with the site's, %s, and give --yes",
            c->fingerprint);
    put_plain(stderr, file);
    fprintf(stderr, "\n  site  %s\n  role  %s%s%s\n  key   %s\n%s", c->id, fst_role_name(c->role),
            *c->edge ? " of " : "", c->edge, c->fingerprint,
            c->asks_more ? "  (it asks for extensions too; it gets none)\n" : "");
    fputs("Is this the fingerprint that the site shows? Enroll it? [y/N] ", stderr);
    if (!fgets(line, sizeof line, stdin) || (strcmp(line, "y\n") && strcmp(line, "yes\n")))
        return fst_fail(err, FST_E_CANCELLED, "%s was not enrolled", c->id);
    return FST_OK;
}

static fst_status add_enrolled(fst_buf *out, const struct options *o, const fst_fleet_csr *c, fst_error *err)
{
    const char *folder = operand(o, 0);
    fst_status s = add_csr(out, c, err);
    if (!s)
        s = add_field(out, err, "bundle", "%s/%s.fleet: bring it to the site; it holds no secret", folder, c->id);
    if (!s && c->role == FST_ROLE_DEVICE)
        s = add_field(out, err, "changed", "%s/%s.fleet: bring it to the edge, whose broker has to know the device",
                      folder, c->edge);
    return s || c->role == FST_ROLE_DEVICE ? s : tell_broker(out, folder, option_string(o, "pid-file"), NULL, err);
}

static fst_status run_enroll(const struct options *o, fst_error *err)
{
    fst_buf out = {0};
    fst_fleet_csr c = {0};
    const char *folder = operand(o, 0), *file = operand(o, 1);
    fst_status s = fst_fleet_csr_read(&c, file, err);
    if (!s && c.role == FST_ROLE_CLOUD)
        s = fst_fail(err, FST_E_UNSUPPORTED, "%s asks to be a stand-by of the cloud, which this version does not run",
                     file);
    if (!s && !option_flag(o, "yes"))
        s = ask(&c, file, err);
    if (!s)
        s = fst_fleet_enroll(folder, file, &c, option_string(o, "host"), (int)option_int(o, "port"), err);
    if (!s)
        s = add_enrolled(&out, o, &c, err);
    return finish_output(&out, s);
}

const struct command cmd_fleet_enroll = {
    .name = "fleet enroll",
    .summary = "At the hub: accept a site",
    .description =
        "Shows what a request says and asks. Of the request only the public key is used: name, rights and duration of "
        "the certificate (365 days) are the fleet's. The site gets access to its own topics and no others. A site that "
        "is enrolled is renewed with the same key; one that was revoked gets a new name with a new key.",
    .options = enroll_options,
    .operands = enroll_operands,
    .examples = enroll_examples,
    .run = run_enroll,
};

/* ---- install ------------------------------------------------------------------------------- */

static const struct option_spec install_options[] = {
    DIR_OPTION,
    {.name = "force",
     .type = OPTION_FLAG,
     .help = "Install a bundle that is older than the one that is installed, too."},
    {0},
};
static const struct operand_spec install_operands[] = {{"FILE", 1, 1, "The site's bundle, ID.fleet."}, {0}};
static const char *const install_examples[] = {
    "fedstill fleet install edge-1.fleet",
    "Checks the bundle against edge-1.key and writes certificates, and an edge's broker.conf, beside it.",
    NULL,
};

static fst_status run_install(const struct options *o, fst_error *err)
{
    const char *dir = option_string(o, "dir");
    fst_buf out = {0};
    bool told = false;
    fst_status s = fst_fleet_install(operand(o, 0), dir, option_flag(o, "force"), err);
    char *pid = s ? NULL : fst_path_join(dir, "broker.pid"), *conf = s ? NULL : fst_path_join(dir, "broker.conf");
    if (!s && !(pid && conf))
        s = fst_fail_memory(err, strlen(dir));
    if (!s)
        s = fst_fleet_reload(dir, pid, &told, err);
    if (!s)
        s = add_field(&out, err, "installed", "%s", dir);
    if (!s && fst_file_exists(conf))
        s = add_field(&out, err, "broker", told ? "%s: reads its lists again" : "mosquitto -c %s", conf);
    fst_free(pid);
    fst_free(conf);
    return finish_output(&out, s);
}

const struct command cmd_fleet_install = {
    .name = "fleet install",
    .summary = "At a site: put what the hub made beside the key",
    .description = "Checks a bundle (key, authority, name, dates, and that it is no older one) and writes what "
                   "programs want as files: certificates, "
                   "revocation list, systemd unit, and for an edge with devices the configuration of its own broker.",
    .options = install_options,
    .operands = install_operands,
    .examples = install_examples,
    .run = run_install,
};

/* ---- revoke and renew ------------------------------------------------------------------------- */

static const struct option_spec revoke_options[] = {
    {.name = "pid-file",
     .argument = "FILE",
     .type = OPTION_STRING,
     .help = "The running broker's; default: FOLDER/hub.pid."},
    {0},
};
static const struct operand_spec revoke_operands[] = {FOLDER_OPERAND, {"ID", 1, 1, "The site's id."}, {0}};
static const char *const revoke_examples[] = {
    "fedstill fleet revoke fleet edge-2",
    "Shuts edge-2 out.",
    NULL,
};

/* The connection that the site has, which the lists alone make mute. */
static fst_status end_connection(fst_buf *out, const struct options *o, fst_error *err)
{
    fst_status s = fst_fleet_kick(operand(o, 0), operand(o, 1), option_string(o, "pid-file"), err);
    if (s == FST_E_UNSUPPORTED)
        return add_field(out, err, "connection", "to its edge: it ends when the edge has its new bundle");
    return s ? fst_fail_in(err, s, "%s is revoked and can say nothing any more, but its connection stays",
                           operand(o, 1))
             : add_field(out, err, "connection", "ended; the broker was seen to refuse its name's certificates");
}

static fst_status run_revoke(const struct options *o, fst_error *err)
{
    fst_buf out = {0};
    bool told = false;
    fst_status s = fst_fleet_revoke(operand(o, 0), operand(o, 1), err);
    if (!s)
        s = add_field(&out, err, "revoked", "%s", operand(o, 1));
    if (!s)
        s = tell_broker(&out, operand(o, 0), option_string(o, "pid-file"), &told, err);
    if (!s && told)
        s = end_connection(&out, o, err);
    if (!s)
        s = add_field(&out, err, "edges", "bring their ID.fleet to edges with devices: they hold the revocation list");
    return finish_output(&out, s);
}

const struct command cmd_fleet_revoke = {
    .name = "fleet revoke",
    .summary = "At the hub: shut a site out",
    .description = "Puts the site's certificates on the revocation list, takes its access lines away and tells the "
                   "running broker: from then on the site can neither connect, nor send, nor receive. Then it ends the "
                   "connection that the site has, and sees by trying that the broker refuses others.",
    .options = revoke_options,
    .operands = revoke_operands,
    .examples = revoke_examples,
    .run = run_revoke,
};

static const struct operand_spec folder_operands[] = {FOLDER_OPERAND, {0}};

static fst_status run_renew(const struct options *o, fst_error *err)
{
    fst_buf out = {0};
    fst_status s = fst_fleet_renew(operand(o, 0), err);
    if (!s)
        s = add_field(&out, err, "renewed", "hub and cloud, for 365 days");
    if (!s)
        s = tell_broker(&out, operand(o, 0), option_string(o, "pid-file"), NULL, err);
    return finish_output(&out, s);
}

const struct command cmd_fleet_renew = {
    .name = "fleet renew",
    .summary = "At the hub: new certificates for hub and cloud",
    .description =
        "Certificates last 365 days. Those of hub and cloud are renewed by this, with the same keys; those of "
        "sites by `fleet request`, `fleet enroll` and `fleet install` once more.",
    .options = revoke_options,
    .operands = folder_operands,
    .run = run_renew,
};

/* ---- status ------------------------------------------------------------------------------------ */

static const struct option_spec status_options[] = {
    {.name = "json", .type = OPTION_FLAG, .help = "Write JSON."},
    {.name = "ascii", .type = OPTION_FLAG, .help = "Draw the table with ASCII only."},
    {0},
};
static const char *const status_examples[] = {
    "fedstill fleet status fleet",
    "Lists all sites, and for how many days their certificates hold.",
    NULL,
};

static const char *state_of(const fst_fleet_site *t)
{
    int64_t days = days_left(t->until);
    return t->revoked ? "revoked" : days < 0 ? "expired" : days < WARN_DAYS ? "expires soon" : "enrolled";
}

static const char *role_of(const fst_fleet_site *t)
{
    return strcmp(t->id, "hub") ? fst_role_name(t->role) : "hub";
}

static fst_status status_row(fst_table *t, const fst_fleet_site *site, fst_error *err)
{
    char date[16];
    int64_t days = days_left(site->until);
    date_text(site->until, date);
    fst_status s = fst_table_cell(t, err, "%s", site->name);
    if (!s)
        s = fst_table_cell(t, err, "%s", role_of(site));
    if (!s)
        s = fst_table_cell(t, err, "%s", site->edge);
    if (!s)
        s = fst_table_cell(t, err, "%s", state_of(site));
    if (!s)
        s = fst_table_cell(t, err, "%s", date);
    if (!s)
        s = days < 0 ? fst_table_cell(t, err, "-") : fst_table_cell(t, err, "%" PRId64, days);
    return s ? s : fst_table_cell(t, err, "%.16s", site->fingerprint);
}

static fst_status status_table(fst_buf *out, const struct options *o, const fst_fleet_site *sites, size_t n,
                               fst_error *err)
{
    static const fst_column columns[] = {{"name", FST_LEFT},  {"role", FST_LEFT},  {"edge", FST_LEFT},
                                         {"state", FST_LEFT}, {"until", FST_LEFT}, {"days", FST_RIGHT},
                                         {"key", FST_LEFT}};
    fst_table *t = NULL;
    fst_status s = fst_table_new(&t, columns, sizeof columns / sizeof *columns, err);
    for (size_t i = 0; !s && i < n; i++)
        s = status_row(t, &sites[i], err);
    if (!s)
        s = write_table(t, option_flag(o, "ascii") || !output_is_utf8(), out, err);
    fst_table_free(t);
    return s;
}

static json_t *status_json(const fst_fleet_site *sites, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:s}", "id", sites[i].id, "name",
                                              sites[i].name, "role", role_of(&sites[i]), "edge", sites[i].edge, "state",
                                              state_of(&sites[i]), "until", (json_int_t)sites[i].until, "days",
                                              (json_int_t)days_left(sites[i].until), "key", sites[i].fingerprint));
    return list;
}

static void warn_of_ends(const fst_fleet_site *sites, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int64_t days = days_left(sites[i].until);
        const char *how = strcmp(sites[i].id, "hub") && strcmp(sites[i].id, "cloud") ? "enroll its request again"
                                                                                     : "fedstill fleet renew";
        if (!sites[i].revoked && days < 0)
            fst_log(FST_LOG_WARN, "the certificate of %s has expired: %s", sites[i].name, how);
        else if (!sites[i].revoked && days < WARN_DAYS)
            fst_log(FST_LOG_WARN, "the certificate of %s expires in %" PRId64 " days: %s", sites[i].name, days, how);
    }
}

static fst_status run_status(const struct options *o, fst_error *err)
{
    fst_fleet_site *sites = NULL;
    size_t n = 0;
    fst_buf out = {0};
    fst_status s = fst_fleet_list(&sites, &n, operand(o, 0), err);
    if (!s)
        s = option_flag(o, "json") ? add_json(&out, status_json(sites, n), true, err)
                                   : status_table(&out, o, sites, n, err);
    if (!s)
        warn_of_ends(sites, n);
    fst_free(sites);
    return finish_output(&out, s);
}

const struct command cmd_fleet_status = {
    .name = "fleet status",
    .summary = "At the hub: list sites and how long their certificates last",
    .description =
        "Lists the hub and every enrolment, the revoked ones too: name, role, state, end of the certificate, "
        "and the first 16 digits of the key's fingerprint. Warns 30 days before a certificate ends.",
    .options = status_options,
    .operands = folder_operands,
    .examples = status_examples,
    .run = run_status,
};
