/* A real mosquitto with the configuration that fleets get, and everybody who has no business there. That somebody did
 * not receive a message is never a matter of waiting: a message that must arrive is sent after it, on the same
 * connections. Without mosquitto all of this fails. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/socket.h>
#include <unistd.h>
/* */
#include <cmocka.h>

#include "ca.h"
#include "fedstill/transport.h"
#include "fleet/broker_client.h"

static char root[] = "/tmp/fedstill-broker-XXXXXX";
static char hub_folder[64], log_file[64];
static fst_broker *hub;
static int port;
static fst_identity cloud, edge1, edge2, edge3, device1;
static fst_error err;

#define OK(call)                                                               \
    do {                                                                       \
        err.message[0] = 0;                                                    \
        if ((call) != FST_OK)                                                  \
            fail_msg("%s:%d: %s: %s", __FILE__, __LINE__, #call, err.message); \
    } while (0)

static void in_root(char *out, size_t size, const char *name)
{
    snprintf(out, size, "%s/%s", root, name);
}

static void load(fst_identity *i, const char *folder, const char *id)
{
    char path[128];
    in_root(path, sizeof path, folder);
    OK(fst_identity_load(i, path, id, &err));
}

static int set_up(void **state)
{
    static const int devices[] = {1, 0, 0};
    const fst_local_fleet what = {.edges = 3, .devices = devices};
    char conf[128];
    (void)state;
    mosquitto_lib_init();
    if (!mkdtemp(root))
        return -1;
    in_root(hub_folder, sizeof hub_folder, "hub");
    in_root(log_file, sizeof log_file, "hub.log");
    in_root(conf, sizeof conf, "hub/hub.conf");
    OK(fst_fleet_local(root, &what, &err));
    OK(fst_broker_port(&port, conf, &err));
    OK(fst_broker_start(&hub, conf, log_file, port, &err));
    load(&cloud, "hub", "cloud");
    load(&edge1, "edge-1", "edge-1");
    load(&edge2, "edge-2", "edge-2");
    load(&edge3, "edge-3", "edge-3");
    load(&device1, "device-1", "device-1");
    return 0;
}

static int tear_down(void **state)
{
    char command[128];
    (void)state;
    fst_broker_stop(hub);
    fst_identity_release(&cloud);
    fst_identity_release(&edge1);
    fst_identity_release(&edge2);
    fst_identity_release(&edge3);
    fst_identity_release(&device1);
    snprintf(command, sizeof command, "rm -rf %s", root);
    mosquitto_lib_cleanup();
    return system(command);
}

/* How often the broker's log says it. */
static int log_says(const char *what)
{
    fst_buf text = {0};
    int n = 0;
    OK(fst_file_read(log_file, 1 << 24, &text, &err));
    for (const char *p = strstr(text.data, what); p; p = strstr(p + 1, what))
        n++;
    fst_buf_release(&text);
    return n;
}

/* The broker refuses and says why. */
static void assert_refused(const char *ca, const char *certificate, const char *key, const char *name, const char *why)
{
    struct site s;
    int before = log_says(why);
    bool up = site_connect(&s, ca, certificate, key, name, port, NULL);
    site_close(&s);
    if (up)
        fail_msg("%s was let in with %s", name, certificate ? certificate : "no certificate");
    for (double began = fst_clock_seconds(); log_says(why) == before;)
        if (fst_clock_seconds() > began + SITE_SECONDS)
            fail_msg("the log of the broker does not say \"%s\"", why);
}

static void listens_on_one_port_only(void **state)
{
    int ports[8];
    (void)state;
    assert_int_equal(fst_listening_ports(fst_broker_pid(hub), ports, 8), 1);
    assert_int_equal(ports[0], port);
    assert_int_not_equal(port, 1883);
}

static void enrolled_sites_exchange_messages(void **state)
{
    struct site a, b;
    (void)state;
    assert_true(site_join(&a, &cloud, port));
    assert_true(site_join(&b, &edge1, port));
    site_subscribe(&a, "fst/up/+/ctl");
    site_subscribe(&b, "fst/dn/edge-1/#");
    site_publish(&b, "fst/up/edge-1/ctl");
    assert_true(site_await(&a, "fst/up/edge-1/ctl", &b));
    site_publish(&a, "fst/dn/edge-1/ctl");
    assert_true(site_await(&b, "fst/dn/edge-1/ctl", &a));
    site_close(&a);
    site_close(&b);
}

static void hear_small(void *ctx, const char *topic, const void *data, size_t len)
{
    (void)topic, (void)data;
    *(size_t *)ctx = len;
}

/* A message that is longer than any of ours, one that the broker is to keep, and one that is longer than the broker
 * takes do not reach the cloud, which hears the same site's next one. */
static void oversized_and_retained(void **state)
{
    enum { LONG = FST_TRANSPORT_MESSAGE + 1, TOO_LONG = 1100000 };
    static char bytes[TOO_LONG];
    struct site b;
    size_t heard = 0;
    fst_transport *t;
    const fst_transport_events on = {.ctx = &heard, .message = hear_small};
    char url[64];
    (void)state;
    snprintf(url, sizeof url, "mqtts://127.0.0.1:%d", port);
    const fst_mqtt_options o = {
        .url = url, .id = cloud.name, .ca = cloud.ca, .cert = cloud.certificate, .key = cloud.key};
    OK(fst_mqtt_open(&t, &o, &on, &err));
    OK(fst_transport_subscribe(t, "fst/up/+/ctl", &err));
    for (int kind = 0; kind < 3; kind++) {
        heard = 0;
        site_protocol = kind ? MQTT_PROTOCOL_V311 : MQTT_PROTOCOL_V5; /* with 5 the library would not send it */
        double end = fst_clock_seconds() + SITE_SECONDS;
        assert_true(site_join(&b, &edge1, port));
        /* until the subscription holds */
        for (; !heard && fst_clock_seconds() < end; site_publish(&b, "fst/up/edge-1/ctl"))
            OK(fst_transport_poll(t, fst_clock_seconds() + 0.05, &err));
        assert_int_equal(heard, 5);
        const uint64_t refused = fst_transport_count(t)->refused_long;
        mosquitto_publish(b.m, NULL, "fst/up/edge-1/ctl",
                          kind == 0   ? LONG
                          : kind == 1 ? 7
                                      : TOO_LONG,
                          bytes, 0, kind == 1);
        mosquitto_publish(b.m, NULL, "fst/up/edge-1/ctl", 9, bytes, 0, false);
        end = fst_clock_seconds() + SITE_SECONDS;
        for (heard = 0; heard != 9 && !b.down && fst_clock_seconds() < end; site_turn(&b)) {
            OK(fst_transport_poll(t, fst_clock_seconds() + 0.05, &err));
            if (heard != 0 && heard != 5 && heard != 9)
                fail_msg("kind %d: a message of %zu bytes came", kind, heard);
        }
        assert_int_equal(b.down, kind != 0); /* the broker ends it */
        assert_int_equal(fst_transport_count(t)->refused_long - refused, kind == 0);
        assert_int_equal(fst_transport_count(t)->refused_retained, 0);
        site_close(&b);
    }
    site_protocol = MQTT_PROTOCOL_V5;
    fst_transport_close(t);
}

static void no_certificate(void **state)
{
    (void)state;
    assert_refused(edge1.ca, NULL, NULL, "g1.edge-1", "peer did not return a certificate");
}

static void foreign_authority(void **state)
{
    char folder[128];
    fst_identity other = {0};
    const fst_fleet_setup setup = {.hosts = "127.0.0.1", .port = 8884};
    (void)state;
    in_root(folder, sizeof folder, "other");
    OK(fst_fleet_init(folder, &setup, &err));
    OK(fst_identity_load(&other, folder, "cloud", &err));
    assert_string_equal(other.name, cloud.name); /* the same name, and another's word for it */
    assert_refused(cloud.ca, other.certificate, other.key, "g1.cloud", "certificate verify failed");
    /* and a site does not believe a hub of another authority */
    struct site s;
    assert_false(site_connect(&s, other.ca, cloud.certificate, cloud.key, "g1.cloud", port, NULL));
    site_close(&s);
    fst_identity_release(&other);
}

/* A certificate by the fleet's own authority, as it would never issue it. */
static void issue(const char *name, bool server, int64_t from_days, int64_t until_days, char certificate[128])
{
    char ca_key[128], key_file[160], serial[FST__SERIAL];
    struct fst__ca ca = {0};
    EVP_PKEY *key = NULL;
    fst_buf pem = {0};
    int64_t now = fst_clock_unix_ms() / 1000;
    in_root(ca_key, sizeof ca_key, "hub/ca.key");
    in_root(certificate, 128, "odd.pem");
    in_root(key_file, sizeof key_file, "odd.key");
    OK(fst__ca_load(&ca, ca_key, cloud.ca, &err));
    OK(fst__key_new(&key, &err));
    OK(fst__key_save(key, key_file, &err));
    const struct fst__certificate_spec spec = {
        name, key, server, "127.0.0.1", now + from_days * FST__DAY, now + until_days * FST__DAY};
    OK(fst__ca_issue(&ca, &spec, &pem, serial, &err));
    OK(fst_file_write(certificate, pem.data, pem.len, &err));
    fst_buf_release(&pem);
    EVP_PKEY_free(key);
    fst__ca_release(&ca);
}

static void expired(void **state)
{
    char certificate[128], key[128];
    struct site s;
    (void)state;
    in_root(key, sizeof key, "odd.key");
    issue("g1.edge-1", false, -2, 2, certificate); /* the same way, it is let in: only the dates differ */
    assert_true(site_connect(&s, cloud.ca, certificate, key, "g1.edge-1", port, NULL));
    site_close(&s);
    issue("g1.edge-1", false, -20, -2, certificate);
    assert_refused(cloud.ca, certificate, key, "g1.edge-1", "certificate verify failed");
}

static void wrong_role(void **state)
{
    char certificate[128], key[128];
    (void)state;
    in_root(certificate, sizeof certificate, "hub/hub.pem");
    in_root(key, sizeof key, "hub/hub.key");
    assert_refused(cloud.ca, certificate, key, "hub", "certificate verify failed");
    issue("g1.cloud", true, -2, 2, certificate);
    in_root(key, sizeof key, "odd.key");
    assert_refused(cloud.ca, certificate, key, "g1.cloud", "certificate verify failed");
}

static void plain_text(void **state)
{
    static const unsigned char hello[] = {0x10, 16, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 60, 0, 4, 'e', 'v', 'i', 'l'};
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const struct timeval limit = {.tv_sec = SITE_SECONDS};
    unsigned char answer[64] = {0};
    (void)state;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(send(fd, hello, sizeof hello, MSG_NOSIGNAL), sizeof hello);
    ssize_t n = recv(fd, answer, sizeof answer, 0);
    if (n > 0) {
        assert_int_not_equal(answer[0] >> 4, 2); /* CONNACK; an alert of TLS is 0x15 */
        n = recv(fd, answer, sizeof answer, 0);
    }
    assert_true(n == 0 || errno == ECONNRESET);
    close(fd);
}

static void anothers_identity(void **state)
{
    struct site victim, thief, boss;
    (void)state;
    assert_true(site_join(&boss, &cloud, port));
    assert_true(site_join(&victim, &edge2, port));
    site_subscribe(&victim, "fst/dn/edge-2/#");
    /* says that it is g1.edge-2, as client id and as user, and gets the name in its certificate */
    assert_true(site_connect(&thief, edge1.ca, edge1.certificate, edge1.key, "g1.edge-2", port, NULL));
    site_subscribe(&thief, "fst/dn/edge-2/#");
    site_subscribe(&thief, "fst/dn/edge-1/#");
    site_publish(&boss, "fst/dn/edge-2/ctl");
    site_publish(&boss, "fst/dn/edge-1/ctl");
    assert_true(site_await(&thief, "fst/dn/edge-1/ctl", &boss));
    assert_true(site_await(&victim, "fst/dn/edge-2/ctl", &boss));
    assert_false(site_has(&thief, "fst/dn/edge-2/ctl"));
    assert_true(victim.up); /* nobody took its place */
    site_close(&boss);
    site_close(&victim);
    site_close(&thief);
}

static void forged_topics(void **state)
{
    static const char *const forged[] = {"fst/up/edge-2/ctl", "fst/dn/edge-2/ctl",           "fst/dn/edge-1/ctl",
                                         "fst/cloud/lead",    "$SYS/broker/clients",         "fst/up/edge-1x/ctl",
                                         "fst/up/ctl",        "$CONTROL/dynamic-security/v1"};
    struct site boss, victim, evil;
    (void)state;
    assert_true(site_join(&boss, &cloud, port));
    assert_true(site_join(&victim, &edge2, port));
    assert_true(site_join(&evil, &edge1, port));
    site_subscribe(&boss, "fst/up/#");
    site_subscribe(&boss, "fst/cloud/#");
    site_subscribe(&victim, "fst/dn/edge-2/#");
    for (size_t i = 0; i < sizeof forged / sizeof *forged; i++)
        site_publish(&evil, forged[i]);
    site_publish(&evil, "fst/up/edge-1/ctl");
    assert_true(site_await(&boss, "fst/up/edge-1/ctl", &evil));
    assert_int_equal(boss.n, 1);
    site_publish(&boss, "fst/dn/edge-2/end");
    assert_true(site_await(&victim, "fst/dn/edge-2/end", &boss));
    assert_int_equal(victim.n, 1);
    site_close(&boss);
    site_close(&victim);
    site_close(&evil);
}

static void snooped_topics(void **state)
{
    static const char *const patterns[] = {
        "#",      "fst/#",    "+/dn/edge-2/#",  "fst/up/#", "fst/+/+/ctl", "fst/cloud/#", "$share/g/fst/dn/edge-2/#",
        "$SYS/#", "fst/dn/#", "fst/dn/edge-2/+"};
    struct site boss, spy, other;
    (void)state;
    assert_true(site_join(&boss, &cloud, port));
    assert_true(site_join(&other, &edge2, port));
    assert_true(site_join(&spy, &edge1, port));
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++)
        site_subscribe(&spy, patterns[i]);
    site_subscribe(&spy, "fst/dn/edge-1/end");
    site_publish(&other, "fst/up/edge-2/ctl");
    site_subscribe(&boss, "fst/up/#");
    site_publish(&other, "fst/up/edge-2/part");
    assert_true(site_await(&boss, "fst/up/edge-2/part", &other)); /* so both have been through the broker */
    site_publish(&boss, "fst/dn/edge-2/ctl");
    site_publish(&boss, "fst/cloud/lead");
    site_publish(&boss, "fst/dn/edge-1/end");
    assert_true(site_await(&spy, "fst/dn/edge-1/end", &boss));
    for (int i = 0; i < spy.n; i++)
        assert_string_equal(spy.topics[i], "fst/dn/edge-1/end");
    site_close(&boss);
    site_close(&spy);
    site_close(&other);
}

/* A will is published by the broker, in the name of who left it. */
static void forged_wills(void **state)
{
    struct site boss, evil, good, next;
    (void)state;
    assert_true(site_join(&boss, &cloud, port));
    site_subscribe(&boss, "fst/up/#");
    assert_true(site_connect(&good, edge2.ca, edge2.certificate, edge2.key, edge2.name, port, "fst/up/edge-2/will"));
    assert_true(site_connect(&evil, edge1.ca, edge1.certificate, edge1.key, edge1.name, port, "fst/up/edge-3/will"));
    shutdown(mosquitto_socket(evil.m), SHUT_RDWR); /* without a goodbye */
    shutdown(mosquitto_socket(good.m), SHUT_RDWR);
    assert_true(site_await(&boss, "fst/up/edge-2/will", NULL));
    assert_true(site_join(&next, &edge1, port)); /* a new edge-1: the old one's will has been dealt with by now */
    site_publish(&next, "fst/up/edge-1/end");
    assert_true(site_await(&boss, "fst/up/edge-1/end", &next));
    assert_false(site_has(&boss, "fst/up/edge-3/will"));
    site_close(&boss);
    site_close(&good);
    site_close(&next);
    site_close(&evil);
}

static void devices_have_no_business_at_the_hub(void **state)
{
    struct site boss, d;
    (void)state;
    assert_true(site_join(&boss, &cloud, port));
    site_subscribe(&boss, "fst/up/#");
    if (site_join(&d, &device1, port)) {
        site_publish(&d, "fst/up/edge-1/ctl");
        site_publish(&d, "fst/q/edge-1/device-1/win");
    }
    site_close(&d);
    struct site e;
    assert_true(site_join(&e, &edge1, port));
    site_publish(&e, "fst/up/edge-1/end");
    assert_true(site_await(&boss, "fst/up/edge-1/end", &e));
    assert_int_equal(boss.n, 1);
    site_close(&boss);
    site_close(&e);
}

static void revoked(void **state)
{
    struct site boss, gone, other, again;
    char csr[128], folder[128], bundle[128], key[128];
    bool told = false;
    (void)state;
    assert_true(site_join(&boss, &cloud, port));
    assert_true(site_join(&gone, &edge3, port));
    assert_true(site_join(&other, &edge2, port));
    site_subscribe(&boss, "fst/up/#");
    OK(fst_fleet_revoke(hub_folder, "edge-3", &err));
    OK(fst_fleet_reload(hub_folder, NULL, &told, &err));
    assert_true(told);
    /* the broker reads its lists again in its own time */
    double began = fst_clock_seconds();
    while (site_join(&again, &edge3, port) && fst_clock_seconds() < began + SITE_SECONDS)
        site_close(&again);
    assert_false(again.up);
    site_close(&again);
    assert_refused(edge3.ca, edge3.certificate, edge3.key, edge3.name, "certificate verify failed");
    /* who was connected is mute, others stay connected */
    int before = boss.n;
    site_publish(&gone, "fst/up/edge-3/ctl");
    site_turn(&gone);
    site_publish(&other, "fst/up/edge-2/end");
    assert_true(site_await(&boss, "fst/up/edge-2/end", &other));
    assert_int_equal(boss.n, before + 1);
    assert_true(boss.up && other.up);
    site_close(&gone);
    site_close(&other);
    /* the same key again is refused, a new one becomes g2 */
    in_root(folder, sizeof folder, "edge-3");
    in_root(csr, sizeof csr, "edge-3/edge-3.csr");
    in_root(key, sizeof key, "edge-3/edge-3.key");
    in_root(bundle, sizeof bundle, "hub/edge-3.fleet");
    assert_int_equal(fst_fleet_enroll(hub_folder, csr, NULL, NULL, 0, &err), FST_E_MISMATCH);
    assert_non_null(strstr(err.message, "was revoked"));
    assert_int_equal(unlink(key), 0);
    OK(fst_fleet_request(NULL, folder, "edge-3", FST_ROLE_EDGE, NULL, &err));
    OK(fst_fleet_enroll(hub_folder, csr, NULL, NULL, 0, &err));
    OK(fst_fleet_install(bundle, folder, false, &err));
    fst_identity_release(&edge3);
    load(&edge3, "edge-3", "edge-3");
    assert_string_equal(edge3.name, "g2.edge-3");
    OK(fst_fleet_reload(hub_folder, NULL, &told, &err));
    for (began = fst_clock_seconds(); !site_has(&boss, "fst/up/edge-3/ctl");) {
        assert_true(fst_clock_seconds() < began + SITE_SECONDS);
        assert_true(site_join(&again, &edge3, port));
        site_publish(&again, "fst/up/edge-3/ctl");
        site_turn(&boss);
        site_close(&again);
    }
    site_close(&boss);
}

/* The connection that a revoked site has is ended; others keep theirs, and it does not come back. */
static void a_revoked_connection_is_ended(void **state)
{
    struct site boss, live, again;
    bool told = false;
    (void)state;
    assert_true(site_join(&boss, &cloud, port));
    assert_true(site_join(&live, &edge3, port));
    assert_int_equal(fst_fleet_kick(hub_folder, "edge-3", NULL, &err), FST_E_CONFIG);
    assert_non_null(strstr(err.message, "was not revoked"));
    OK(fst_fleet_revoke(hub_folder, "edge-3", &err));
    OK(fst_fleet_reload(hub_folder, NULL, &told, &err));
    assert_true(told);
    OK(fst_fleet_kick(hub_folder, "edge-3", NULL, &err));
    for (double began = fst_clock_seconds(); !live.down && fst_clock_seconds() < began + SITE_SECONDS;) {
        site_turn(&live);
        site_turn(&boss);
    }
    assert_true(live.down && boss.up);
    assert_false(site_join(&again, &edge3, port));
    site_close(&again);
    OK(fst_fleet_kick(hub_folder, "edge-3", NULL, &err)); /* nobody is there any more: no error */
    site_close(&live);
    site_subscribe(&boss, "fst/up/#");
    assert_true(site_join(&again, &edge2, port)); /* of others nothing has changed */
    site_publish(&again, "fst/up/edge-2/ctl");
    assert_true(site_await(&boss, "fst/up/edge-2/ctl", &again));
    site_close(&again);
    site_close(&boss);
    OK(fst_fleet_revoke(hub_folder, "device-1", &err));
    assert_int_equal(fst_fleet_kick(hub_folder, "device-1", NULL, &err), FST_E_UNSUPPORTED);
}

/* An edge's own broker: devices reach their edge and nobody else, and nothing of it reaches the hub by itself. */
static void edge_broker(void **state)
{
    struct site boss, local, device;
    fst_broker *b = NULL;
    char log[128];
    int local_port = 0, ports[8];
    (void)state;
    in_root(log, sizeof log, "edge-1.log");
    assert_non_null(edge1.broker_conf);
    assert_null(edge2.broker_conf);
    OK(fst_broker_port(&local_port, edge1.broker_conf, &err));
    OK(fst_broker_start(&b, edge1.broker_conf, log, local_port, &err));
    assert_int_equal(fst_listening_ports(fst_broker_pid(b), ports, 8), 1);
    assert_true(site_join(&boss, &cloud, port));
    assert_true(site_connect(&local, edge1.ca, edge1.local_certificate, edge1.key, edge1.local_name, local_port, NULL));
    assert_true(site_join(&device, &device1, local_port));
    site_subscribe(&boss, "fst/#");
    site_subscribe(&local, "fst/q/#");
    site_subscribe(&device, "fst/a/device-1/#");
    site_subscribe(&device, "fst/a/device-2/#");
    site_publish(&device, "fst/up/forged");
    site_publish(&device, "fst/q/edge-1/device-2/ask");
    site_publish(&device, "fst/q/edge-1/device-1/ask");
    assert_true(site_await(&local, "fst/q/edge-1/device-1/ask", &device));
    assert_false(site_has(&local, "fst/q/edge-1/device-2/ask"));
    site_publish(&local, "fst/a/device-2/answer");
    site_publish(&local, "fst/a/device-1/answer");
    assert_true(site_await(&device, "fst/a/device-1/answer", &local));
    assert_false(site_has(&device, "fst/a/device-2/answer"));
    struct site hub_edge;
    assert_true(site_join(&hub_edge, &edge1, port));
    site_publish(&hub_edge, "fst/up/edge-1/end");
    assert_true(site_await(&boss, "fst/up/edge-1/end", &hub_edge));
    assert_int_equal(boss.n, 1); /* of all that, the hub has heard nothing */
    site_close(&hub_edge);
    /* the edge's certificates of the hub are of no use to other edges here */
    struct site stranger;
    if (site_join(&stranger, &edge2, local_port)) {
        site_subscribe(&stranger, "#");
        site_publish(&stranger, "fst/q/edge-1/device-1/forged");
        site_publish(&device, "fst/q/edge-1/device-1/last");
        assert_true(site_await(&local, "fst/q/edge-1/device-1/last", &device));
        assert_false(site_has(&local, "fst/q/edge-1/device-1/forged"));
        assert_int_equal(stranger.n, 0);
    }
    site_close(&stranger);
    site_close(&boss);
    site_close(&local);
    site_close(&device);
    fst_broker_stop(b);
}

static void a_second_port_is_an_error(void **state)
{
    char conf[128], log[128];
    fst_buf text = {0};
    fst_broker *b = NULL;
    int first = 0, second = 0;
    (void)state;
    in_root(conf, sizeof conf, "two.conf");
    in_root(log, sizeof log, "two.log");
    OK(fst_free_port(&first, &err));
    do
        OK(fst_free_port(&second, &err));
    while (second == first);
    OK(fst_buf_printf(&text, &err, "user root\nlistener %d 127.0.0.1\nlistener %d 127.0.0.1\n", first, second));
    OK(fst_file_write(conf, text.data, text.len, &err));
    assert_int_equal(fst_broker_start(&b, conf, log, first, &err), FST_E_CONFIG);
    assert_non_null(strstr(err.message, "listens on port"));
    assert_null(b);
    OK(fst_file_write(conf, "nonsense true\n", 14, &err));
    assert_int_equal(fst_broker_start(&b, conf, log, first, &err), FST_E_IO);
    assert_non_null(strstr(err.message, "nonsense"));
    fst_buf_release(&text);
}

static void stops_and_starts_again(void **state)
{
    char conf[128];
    struct site s;
    (void)state;
    in_root(conf, sizeof conf, "hub/hub.conf");
    int64_t pid = fst_broker_pid(hub);
    assert_true(fst_broker_alive(hub));
    fst_broker_stop(hub);
    hub = NULL;
    assert_false(site_join(&s, &edge1, port));
    site_close(&s);
    OK(fst_broker_start(&hub, conf, log_file, port, &err));
    assert_true(fst_broker_pid(hub) != pid);
    assert_true(site_join(&s, &edge1, port));
    site_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(listens_on_one_port_only),
        cmocka_unit_test(enrolled_sites_exchange_messages),
        cmocka_unit_test(oversized_and_retained),
        cmocka_unit_test(no_certificate),
        cmocka_unit_test(foreign_authority),
        cmocka_unit_test(expired),
        cmocka_unit_test(wrong_role),
        cmocka_unit_test(plain_text),
        cmocka_unit_test(anothers_identity),
        cmocka_unit_test(forged_topics),
        cmocka_unit_test(snooped_topics),
        cmocka_unit_test(forged_wills),
        cmocka_unit_test(devices_have_no_business_at_the_hub),
        cmocka_unit_test(edge_broker),
        cmocka_unit_test(revoked),
        cmocka_unit_test(a_revoked_connection_is_ended),
        cmocka_unit_test(a_second_port_is_an_error),
        cmocka_unit_test(stops_and_starts_again),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
