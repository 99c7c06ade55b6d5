/*
 * The cascade in simulated time: a discrete-event model of devices, links and servers. A job is a run of samples that
 * travel together; a resource (a link's direction, a tier's servers) has a queue, served in the order of coming. It
 * moves no data and measures nothing: seconds of computing are given to it.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fedstill/infer.h"

enum hop { HOP_IN, HOP_EDGE, HOP_UP, HOP_CLOUD, HOP_DOWN, HOP_OUT, HOPS, HOP_DONE = HOPS };

struct job {
    size_t first, count; /* samples: order[first ... first+count-1] */
    uint32_t device, edge;
    double origin;    /* when the batch was complete at the device */
    enum hop hop;     /* where it waits or is served */
    struct job *next; /* in a queue, or of the same batch in a server */
};

struct slot { /* one server of a resource, or a link's one direction */
    struct job *serving;
    double end, planning; /* end of the service; planning since the current leg began */
};

struct resource {
    struct job *head, **tail; /* what waits; tail NULL: empty so far */
    struct slot *slots;
    int servers;
    const fst_link *link; /* NULL: computes */
    const fst_service *service;
    double busy;
    fst_use *use;
};

enum kind { READY, SERVED };
struct event {
    double time;
    uint64_t cause; /* events at the same time: in the order of their making */
    enum kind kind;
    struct job *job;
    struct resource *resource;
    int slot;
};

struct model {
    const fst_network *network;
    const fst_workload *workload;
    const fst_service *edge, *cloud;
    fst_route route;
    bool staged;
    size_t *order;   /* samples by device, then within each job those of the next one */
    double *latency; /* of each sample */
    struct job *jobs;
    size_t jobs_used, jobs_room;
    struct resource *resources;
    size_t resource_count, at[HOPS]; /* first resource of each hop */
    struct slot *slots;
    struct event *heap;
    size_t events, heap_room;
    uint64_t causes;
    struct job *held, **held_tail; /* staged: after the barrier */
    double now, leg_begin;
    enum hop leg;
    fst_timing t;
};

/* ---- events: a binary heap by time and cause; it never holds more than a job each, so it has room ------------- */

static bool sooner(const struct event *a, const struct event *b)
{
    return a->time < b->time || (a->time == b->time && a->cause < b->cause);
}

static void push(struct model *m, struct event e)
{
    size_t i = m->events++;
    e.cause = m->causes++;
    for (; i && sooner(&e, &m->heap[(i - 1) / 2]); i = (i - 1) / 2)
        m->heap[i] = m->heap[(i - 1) / 2];
    m->heap[i] = e;
}

static struct event pop(struct model *m)
{
    struct event first = m->heap[0], last = m->heap[--m->events];
    size_t i = 0;
    for (size_t child = 1; child < m->events; child = 2 * i + 1) {
        if (child + 1 < m->events && sooner(&m->heap[child + 1], &m->heap[child]))
            child++;
        if (!sooner(&m->heap[child], &last))
            break;
        m->heap[i] = m->heap[child];
        i = child;
    }
    m->heap[i] = last;
    return first;
}

/* ---- resources ------------------------------------------------------------------------------------------------ */

double fst_cost_seconds(const fst_cost *c, size_t rows)
{
    if (!c->points || !rows)
        return 0;
    size_t last = c->points - 1, full = rows / c->rows[last], rest = rows % c->rows[last], i = 0;
    double seconds = (double)full * c->seconds[last];
    if (!rest)
        return seconds;
    while (c->rows[i] < rest)
        i++;
    if (i == 0)
        return seconds + c->seconds[0];
    double part = (double)(rest - c->rows[i - 1]) / (double)(c->rows[i] - c->rows[i - 1]);
    return seconds + c->seconds[i - 1] + part * (c->seconds[i] - c->seconds[i - 1]);
}

static struct resource *resource_of(const struct model *m, const struct job *j)
{
    const fst_network *f = m->network;
    bool direct = m->route == FST_ROUTE_CLOUD_ONLY;
    size_t i = m->at[j->hop];
    if (j->hop == HOP_EDGE)
        i += j->edge;
    else if (j->hop == HOP_UP || j->hop == HOP_DOWN)
        i += f->edge_cloud.shared ? 0 : j->edge;
    else if ((j->hop == HOP_IN || j->hop == HOP_OUT) && direct)
        i += f->device_cloud.shared ? 0 : j->device;
    else if (j->hop == HOP_IN || j->hop == HOP_OUT)
        i += f->device_edge.shared ? j->edge : j->device;
    return &m->resources[i];
}

/* Takes the first in the queue; the cloud joins more to it, in their order, while they fit. Returns the rows. */
static size_t take(struct resource *r, struct slot *s)
{
    struct job **end = &r->head->next;
    size_t rows = r->head->count, most = r->service && !r->link ? r->service->batch : 0;
    while (*end && rows + (*end)->count <= most) {
        rows += (*end)->count;
        end = &(*end)->next;
    }
    s->serving = r->head;
    r->head = *end;
    *end = NULL;
    if (!r->head)
        r->tail = NULL;
    return rows;
}

static void serve(struct model *m, struct resource *r)
{
    for (int k = 0; r->head && k < r->servers; k++) {
        struct slot *s = &r->slots[k];
        if (s->serving)
            continue;
        bool back = r->head->hop == HOP_DOWN || r->head->hop == HOP_OUT;
        size_t rows = take(r, s);
        double bytes = r->link ? (double)rows * (back ? m->workload->answer_bytes : m->workload->sample_bytes) : 0;
        double planning = r->service ? r->service->planning : 0;
        double seconds =
            r->link ? bytes / (r->link->rate * 1e6) : fst_cost_seconds(&r->service->compute, rows) + planning;
        s->end = m->now + seconds;
        s->planning += planning;
        r->busy += seconds;
        r->use->messages++;
        r->use->bytes += bytes;
        m->t.planning += m->staged ? 0 : planning;
        push(m, (struct event){.time = s->end, .kind = SERVED, .resource = r, .slot = k});
    }
}

/* ---- the way of a job ------------------------------------------------------------------------------------------- */

/* The hop after `hop`; one job may become two at the edge. */
static enum hop hop_after(const struct model *m, enum hop hop)
{
    if (hop == HOP_IN && m->route == FST_ROUTE_CLOUD_ONLY)
        return HOP_CLOUD;
    if (hop == HOP_CLOUD && m->route == FST_ROUTE_CLOUD_ONLY)
        return HOP_OUT;
    return hop + 1;
}

static void enqueue(struct model *m, struct job *j)
{
    struct resource *r = resource_of(m, j);
    j->next = NULL;
    if (!r->tail)
        r->tail = &r->head;
    *r->tail = j;
    r->tail = &j->next;
    serve(m, r);
}

static void answered(struct model *m, const struct job *j)
{
    for (size_t i = 0; i < j->count; i++)
        m->latency[m->order[j->first + i]] = m->now - j->origin;
    m->t.answered += j->count;
    if (m->now > m->t.seconds)
        m->t.seconds = m->now;
}

static void arrive(struct model *m, struct job *j)
{
    if (j->hop == HOP_DONE) {
        answered(m, j);
    } else if (m->staged && j->hop != m->leg) {
        j->next = NULL;
        *m->held_tail = j;
        m->held_tail = &j->next;
    } else {
        enqueue(m, j);
    }
}

/* After the edge: the first part stays, the second goes on; each keeps the order of its samples. */
static struct job *split(struct model *m, struct job *j)
{
    size_t stay = 0, go = 0, *a = m->order + j->first, *rest = m->order + m->workload->samples;
    for (size_t i = 0; i < j->count; i++)
        if (m->workload->offloaded && m->workload->offloaded[a[i]])
            rest[go++] = a[i];
        else
            a[stay++] = a[i];
    memcpy(a + stay, rest, go * sizeof *a);
    if (!go)
        return j->hop = HOP_OUT, NULL;
    j->hop = stay ? HOP_OUT : HOP_UP;
    if (!stay)
        return NULL;
    struct job *more = &m->jobs[m->jobs_used++];
    *more = *j;
    more->first += stay;
    more->count = go;
    more->hop = HOP_UP;
    j->count = stay;
    return more;
}

static void served(struct model *m, const struct event *e)
{
    struct slot *s = &e->resource->slots[e->slot];
    struct job *j = s->serving;
    double latency = e->resource->link ? e->resource->link->latency : 0;
    s->serving = NULL;
    for (struct job *next; j; j = next) {
        struct job *more = NULL;
        next = j->next;
        if (j->hop == HOP_EDGE)
            more = split(m, j);
        else
            j->hop = hop_after(m, j->hop);
        push(m, (struct event){.time = m->now + latency, .kind = READY, .job = j});
        if (more)
            push(m, (struct event){.time = m->now + latency, .kind = READY, .job = more});
    }
    serve(m, e->resource);
}

/* ---- legs -----------------------------------------------------------------------------------------------------------
 */

/* The leg is over: its time goes to planning, transfer or compute. In a leg of computing, the server that was ready
 * last was never idle, so that its planning is part of the leg's time. */
static void close_leg(struct model *m)
{
    double seconds = m->now - m->leg_begin, planning = 0, latest = -1;
    for (size_t i = 0; i < m->resource_count; i++)
        for (int k = 0; k < m->resources[i].servers; k++) {
            struct slot *s = &m->resources[i].slots[k];
            if (s->planning > 0 && s->end > latest) {
                latest = s->end;
                planning = s->planning;
            }
            s->planning = 0;
        }
    if (m->leg == HOP_EDGE || m->leg == HOP_CLOUD) {
        m->t.planning += planning;
        m->t.compute += seconds - planning;
    } else {
        m->t.transfer += seconds;
    }
    m->leg_begin = m->now;
}

/* Lets the jobs of the nearest leg go on. False when nobody waits. */
static bool open_leg(struct model *m)
{
    struct job *j = m->held;
    enum hop leg = HOPS;
    for (struct job *k = j; k; k = k->next)
        leg = k->hop < leg ? k->hop : leg;
    m->held = NULL;
    m->held_tail = &m->held;
    m->leg = leg;
    for (struct job *next; j; j = next) {
        next = j->next;
        arrive(m, j);
    }
    return leg != HOPS;
}

static void run(struct model *m)
{
    do {
        while (m->events) {
            struct event e = pop(m);
            m->now = e.time;
            if (e.kind == READY)
                arrive(m, e.job);
            else
                served(m, &e);
        }
        if (m->staged)
            close_leg(m);
    } while (m->staged && open_leg(m));
}

/* ---- setting up
 * ------------------------------------------------------------------------------------------------------- */

static bool sound(double x)
{
    return isfinite(x) && x >= 0;
}

static fst_status check_link(const char *name, const fst_link *l, fst_error *err)
{
    if (isfinite(l->rate) && l->rate > 0 && sound(l->latency))
        return FST_OK;
    return fst_fail(err, FST_E_ARGUMENT, "link %s: %g MB/s with a latency of %g s; the rate must be above 0", name,
                    l->rate, l->latency);
}

static fst_status check_cost(const fst_service *s, fst_error *err)
{
    bool ok = s->compute.points <= FST_COST_POINTS && sound(s->planning);
    for (size_t i = 0; ok && i < s->compute.points; i++)
        ok = s->compute.rows[i] > (i ? s->compute.rows[i - 1] : 0) && sound(s->compute.seconds[i]);
    return ok ? FST_OK : fst_fail(err, FST_E_ARGUMENT, "seconds of computing: rows must rise and seconds be numbers");
}

static fst_status check(const fst_network *f, const fst_workload *w, fst_error *err)
{
    if (!f->devices || !f->edges || f->edge_servers < 0 || f->cloud_servers < 0)
        return fst_fail(err, FST_E_ARGUMENT, "%zu devices, %zu edges: there must be one of each", f->devices, f->edges);
    for (size_t i = 0; f->edge_of && i < f->devices; i++)
        if (f->edge_of[i] >= f->edges)
            return fst_fail(err, FST_E_ARGUMENT, "device %zu is at edge %u of %zu", i, f->edge_of[i], f->edges);
    for (size_t i = 0; w->device && i < w->samples; i++)
        if (w->device[i] >= f->devices)
            return fst_fail(err, FST_E_ARGUMENT, "sample %zu is of device %u of %zu", i, w->device[i], f->devices);
    if (!w->batch || !sound(w->interval) || !sound(w->sample_bytes) || !sound(w->answer_bytes))
        return fst_fail(err, FST_E_ARGUMENT, "a workload of batches of %zu samples of %g bytes every %g s", w->batch,
                        w->sample_bytes, w->interval);
    return FST_OK;
}

static void add_resources(struct model *m, enum hop hop, size_t count, int servers, const fst_link *link,
                          const fst_service *service, fst_use *use)
{
    m->at[hop] = m->resource_count;
    for (size_t i = 0; i < count; i++)
        m->resources[m->resource_count++] =
            (struct resource){.servers = servers > 0 ? servers : 1, .link = link, .service = service, .use = use};
}

static fst_status build_resources(struct model *m, fst_error *err)
{
    const fst_network *f = m->network;
    bool direct = m->route == FST_ROUTE_CLOUD_ONLY;
    const fst_link *in = direct ? &f->device_cloud : &f->device_edge;
    size_t ins = direct ? (in->shared ? 1 : f->devices) : in->shared ? f->edges : f->devices, slots = 0;
    size_t ups = f->edge_cloud.shared ? 1 : f->edges;
    m->resources = fst_calloc(2 * ins + 2 * ups + f->edges + 1, sizeof *m->resources);
    if (!m->resources)
        return fst_fail_memory(err, 2 * (ins + ups) * sizeof *m->resources);
    add_resources(m, HOP_IN, ins, 1, in, NULL, direct ? &m->t.device_cloud : &m->t.device_edge);
    add_resources(m, HOP_EDGE, f->edges, f->edge_servers, NULL, m->edge, &m->t.edge);
    add_resources(m, HOP_UP, ups, 1, &f->edge_cloud, NULL, &m->t.edge_cloud);
    add_resources(m, HOP_CLOUD, 1, f->cloud_servers, NULL, m->cloud, &m->t.cloud);
    add_resources(m, HOP_DOWN, ups, 1, &f->edge_cloud, NULL, &m->t.answers);
    add_resources(m, HOP_OUT, ins, 1, in, NULL, &m->t.answers);
    for (size_t i = 0; i < m->resource_count; i++)
        slots += (size_t)m->resources[i].servers;
    m->slots = fst_calloc(slots, sizeof *m->slots);
    if (!m->slots)
        return fst_fail_memory(err, slots * sizeof *m->slots);
    slots = 0;
    for (size_t i = 0; i < m->resource_count; i++) {
        m->resources[i].slots = m->slots + slots;
        slots += (size_t)m->resources[i].servers;
    }
    return FST_OK;
}

/* Samples by device, in their order; and how many jobs that makes. */
static fst_status sort_samples(struct model *m, fst_error *err)
{
    size_t n = m->workload->samples, devices = m->network->devices, *begin = fst_calloc(devices + 1, sizeof *begin);
    m->order = fst_calloc(2 * n + 1, sizeof *m->order); /* its second half is room for a split */
    m->latency = fst_calloc(n + 1, sizeof *m->latency);
    if (!begin || !m->order || !m->latency) {
        fst_free(begin);
        return fst_fail_memory(err, (3 * n + devices) * sizeof *begin);
    }
    for (size_t i = 0; i < n; i++)
        begin[(m->workload->device ? m->workload->device[i] : 0) + 1]++;
    for (size_t d = 0; d < devices; d++) {
        m->jobs_room += (begin[d + 1] + m->workload->batch - 1) / m->workload->batch;
        begin[d + 1] += begin[d];
    }
    for (size_t i = 0; i < n; i++)
        m->order[begin[m->workload->device ? m->workload->device[i] : 0]++] = i;
    fst_free(begin);
    m->jobs_room *= 2; /* each may be split once */
    m->heap_room = 2 * m->jobs_room + 1;
    m->jobs = fst_calloc(m->jobs_room + 1, sizeof *m->jobs);
    m->heap = fst_calloc(m->heap_room, sizeof *m->heap);
    return m->jobs && m->heap ? FST_OK : fst_fail_memory(err, m->jobs_room * (sizeof *m->jobs + sizeof *m->heap));
}

static void load(struct model *m)
{
    const fst_workload *w = m->workload;
    for (size_t i = 0, end, batch = 0; i < w->samples; i = end, batch++) {
        uint32_t device = w->device ? w->device[m->order[i]] : 0;
        struct job *j = &m->jobs[m->jobs_used++];
        if (!i || device != j[-1].device)
            batch = 0;
        for (end = i; end < w->samples && end - i < w->batch; end++)
            if (w->device && w->device[m->order[end]] != device)
                break;
        *j = (struct job){.first = i, .count = end - i, .device = device, .hop = HOP_IN};
        j->origin = m->staged ? 0 : (double)batch * w->interval;
        j->edge = m->network->edge_of ? m->network->edge_of[device] : device % (uint32_t)m->network->edges;
        push(m, (struct event){.time = j->origin, .kind = READY, .job = j});
    }
}

/* ---- results
 * ------------------------------------------------------------------------------------------------------------ */

static int rising(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double percentile(const double *sorted, size_t n, double p)
{
    size_t rank = (size_t)ceil(p * (double)n - 1e-9);
    return n ? sorted[rank ? rank - 1 : 0] : NAN;
}

static void sum_up(struct model *m)
{
    size_t n = m->workload->samples;
    double sum = 0;
    for (size_t i = 0; i < m->resource_count; i++) {
        struct resource *r = &m->resources[i];
        r->use->busy += r->busy;
        if (r->busy > r->use->busiest)
            r->use->busiest = r->busy;
        if (!m->staged)
            *(r->link ? &m->t.transfer : &m->t.compute) += r->busy;
    }
    m->t.compute -= m->staged ? 0 : m->t.planning;
    qsort(m->latency, n, sizeof *m->latency, rising);
    for (size_t i = 0; i < n; i++)
        sum += m->latency[i];
    m->t.mean = n ? sum / (double)n : NAN;
    m->t.p50 = percentile(m->latency, n, 0.5);
    m->t.p95 = percentile(m->latency, n, 0.95);
    m->t.p99 = percentile(m->latency, n, 0.99);
    m->t.bytes_per_sample =
        n ? (m->t.device_edge.bytes + m->t.edge_cloud.bytes + m->t.device_cloud.bytes) / (double)n : NAN;
}

fst_status fst_timing_run(fst_timing *out, fst_route route, bool staged, const fst_network *network,
                          const fst_workload *workload, const fst_service *edge, const fst_service *cloud,
                          fst_error *err)
{
    struct model m = {
        .network = network, .workload = workload, .edge = edge, .cloud = cloud, .route = route, .staged = staged};
    m.held_tail = &m.held;
    fst_status st = check(network, workload, err);
    if (!st)
        st = check_link("device-edge", &network->device_edge, err);
    if (!st)
        st = check_link("edge-cloud", &network->edge_cloud, err);
    if (!st)
        st = check_link("device-cloud", &network->device_cloud, err);
    if (!st)
        st = check_cost(edge, err);
    if (!st)
        st = check_cost(cloud, err);
    if (!st)
        st = build_resources(&m, err);
    if (!st)
        st = sort_samples(&m, err);
    if (!st) {
        load(&m);
        run(&m);
        sum_up(&m);
        *out = m.t;
    }
    fst_free(m.order);
    fst_free(m.latency);
    fst_free(m.jobs);
    fst_free(m.heap);
    fst_free(m.resources);
    fst_free(m.slots);
    return st;
}
