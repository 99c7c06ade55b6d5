#!/usr/bin/python3
"""Whole small federated runs, computed a second time in float64 with numpy alone.

Nothing of fedstill is called. The network (logistic layers with a ReLU between them), the losses and their gradients,
the strategies of the papers, and the random streams that decide who takes part and in which order samples are seen
(Philox4x32-10, Salmon et al. 2011; the names of the streams are those that the headers document) are written out here.

    /usr/bin/python3 tests/fed/replay/replay.py

writes tests/fed/replay/replay.safetensors: the samples, who has which, the first weights, and for every run of RUNS the
weights after its last round. tests/fed/test_replay.c repeats the runs with fedstill and compares.
"""
import os
import sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
from tensor_file import write

MASK = (1 << 64) - 1
FEATURES, HIDDEN, CLASSES = 6, 8, 4
SIZES = [31, 17, 40, 12, 20]  # samples of each client
CLIENTS = len(SIZES)
SEED = 7


# ---- random streams ----

def philox(counter, key):
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ k[1], p0 & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


class Stream:
    def __init__(self, seed, purpose, index):
        h = 0xCBF29CE484222325
        for b in purpose.encode():
            h = ((h ^ b) * 0x100000001B3) & MASK
        z = (h + (index + 1) * 0x9E3779B97F4A7C15) & MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        z ^= z >> 31
        self.key = [seed & 0xFFFFFFFF, seed >> 32]
        self.name, self.block, self.words = z, 0, []

    def u32(self):
        if not self.words:
            self.words = philox([self.block & 0xFFFFFFFF, self.block >> 32, self.name & 0xFFFFFFFF, self.name >> 32],
                                self.key)
            self.block += 1
        return self.words.pop(0)

    def u64(self):
        low = self.u32()
        return low | self.u32() << 32

    def uniform(self):
        return (self.u64() >> 11) * 2.0 ** -53

    def normal(self):
        u = 1 - self.uniform()
        return np.sqrt(-2 * np.log(u)) * np.cos(2 * np.pi * self.uniform())

    def below(self, n):
        m = self.u64() * n
        if m & MASK < n:
            floor = (1 << 64) % n
            while m & MASK < floor:
                m = self.u64() * n
        return m >> 64


def batch_order(seed, epoch, index):
    order, r = list(index), Stream(seed, "batch.order", epoch)
    for i in range(len(order), 1, -1):
        j = r.below(i)
        order[i - 1], order[j] = order[j], order[i - 1]
    return order


def cohort(seed, round_, want):
    who, r = list(range(CLIENTS)), Stream(seed, "client.select", round_)
    for i in range(want):
        j = i + r.below(CLIENTS - i)
        who[i], who[j] = who[j], who[i]
    return who[:want]


# ---- the network: x -> a -> ReLU -> b, all parameters in one vector ----

SHAPES = [(HIDDEN, FEATURES), (HIDDEN,), (CLASSES, HIDDEN), (CLASSES,)]
COUNT = sum(int(np.prod(s)) for s in SHAPES)


def split(w):
    out, at = [], 0
    for s in SHAPES:
        n = int(np.prod(s))
        out.append(w[at:at + n].reshape(s))
        at += n
    return out


def logits_of(w, x):
    a, a0, b, b0 = split(w)
    h = x @ a.T + a0
    return h, np.maximum(h, 0) @ b.T + b0


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def back(w, x, h, d):
    """From the gradient of the logits to that of the weights."""
    b = split(w)[2]
    dh = (d @ b) * (h > 0)
    return np.concatenate([(dh.T @ x).ravel(), dh.sum(0), (d.T @ np.maximum(h, 0)).ravel(), d.sum(0)])


def gradient(w, x, y):
    """Of the mean cross entropy."""
    h, z = logits_of(w, x)
    d = softmax(z)
    d[np.arange(len(y)), y] -= 1
    return back(w, x, h, d / len(y))


# ---- a client ----

class Plan:
    def __init__(self, rate=0.1, epochs=2, batch=8, momentum=0.0, decay=0.0, more_epochs=0,
                 nesterov=False, steps=None, adam=False):
        self.steps = steps  # instead of epochs
        self.rate, self.epochs, self.batch, self.momentum, self.decay = rate, epochs, batch, momentum, decay
        self.nesterov, self.adam = nesterov, adam
        self.more_epochs = more_epochs  # client k trains for so many epochs more, times k

    def local_epochs(self, client):
        return self.epochs + self.more_epochs * client


class Moments:
    """Of an optimiser, and how many steps they are of."""

    def __init__(self):
        self.m, self.v, self.t = np.zeros(1), np.zeros(1), 0

    def step(self, plan, w, g):
        self.t += 1
        if not plan.adam:
            self.m = plan.momentum * self.m + g
            return plan.rate * (g + plan.momentum * self.m if plan.nesterov else self.m)
        self.m = 0.9 * self.m + 0.1 * g
        self.v = 0.999 * self.v + 0.001 * g * g
        return plan.rate * (self.m / (1 - 0.9 ** self.t)) / (np.sqrt(self.v / (1 - 0.999 ** self.t)) + 1e-8)


def train(data, plan, client, round_, w, extra=lambda w, x, y: 0.0, loss_gradient=gradient, moments=None):
    """extra is added to every gradient. Returns the weights and how many steps were taken."""
    x, y, index = data.x, data.y, data.index[client]
    seed = Stream(SEED, "replay.client", round_ << 32 | client).u64()
    w, steps, moments = w.copy(), 0, moments or Moments()
    for epoch in range(plan.steps or plan.local_epochs(client)):
        order = batch_order(seed, epoch, index)
        for at in range(0, len(order), plan.batch):
            if steps == plan.steps:
                return w, steps
            rows = order[at:at + plan.batch]
            g = loss_gradient(w, x[rows], y[rows]) + extra(w, x[rows], y[rows]) + plan.decay * w
            w -= moments.step(plan, w, g)
            steps += 1
    return w, steps


# ---- strategies: each is a function from (data, plan, rounds, cohort size, options) to the last weights ----

def rounds_of(rounds, want):
    return [(r, cohort(SEED, r, want)) for r in range(rounds)]


def weights_of(who):
    n = np.array([SIZES[k] for k in who], float)
    return n / n.sum()


def fedavg(data, plan, rounds, want, mu=0.0):
    x = data.first.copy()
    for r, who in rounds_of(rounds, want):
        ys = [train(data, plan, k, r, x, lambda w, *_: mu * (w - x))[0] for k in who]
        x = sum(p * y for p, y in zip(weights_of(who), ys))
    return x


def kept(data, plan, rounds, want, lost=None, keeps=True):
    """FedAvg whose clients keep their moments. What client `lost` did in a round of odd number never arrives, and leaves
    its moments what they were."""
    x, moments = data.first.copy(), [Moments() for _ in range(CLIENTS)]
    for r, who in rounds_of(rounds, want):
        who = [k for k in who if k != lost or r % 2 == 0]
        ys = [train(data, plan, k, r, x, moments=moments[k] if keeps else None)[0] for k in who]
        x = sum(p * y for p, y in zip(weights_of(who), ys))
    return x


def fedopt(data, plan, rounds, want, kind, rate, momentum=0.9, beta1=0.9, beta2=0.99, tau=0.01):
    x, m, v = data.first.copy(), np.zeros(COUNT), np.full(COUNT, tau ** 2)
    for r, who in rounds_of(rounds, want):
        d = sum(p * train(data, plan, k, r, x)[0] for p, k in zip(weights_of(who), who)) - x
        if kind == "momentum":
            m = momentum * m + d
            x = x + rate * m
            continue
        m = d if kind == "adagrad" else beta1 * m + (1 - beta1) * d
        if kind == "adagrad":
            v = v + d ** 2
        elif kind == "adam":
            v = beta2 * v + (1 - beta2) * d ** 2
        else:
            v = v - (1 - beta2) * d ** 2 * np.sign(v - d ** 2)
        x = x + rate * m / (np.sqrt(v) + tau)
    return x


def scaffold(data, plan, rounds, want, rate=1.0, lost=None):
    """Algorithm 1 of the paper, option II. What client `lost` did in a round of odd number never arrives."""
    x, c, ck = data.first.copy(), np.zeros(COUNT), np.zeros((CLIENTS, COUNT))
    for r, who in rounds_of(rounds, want):
        who = [k for k in who if k != lost or r % 2 == 0]
        dx, dc = np.zeros(COUNT), np.zeros(COUNT)
        for k in who:
            y, steps = train(data, plan, k, r, x, lambda *_: c - ck[k])
            new = ck[k] - c + (x - y) / (reach(plan, steps, 0) * plan.rate)
            dx += (y - x) / len(who)
            dc += new - ck[k]
            ck[k] = new
        x = x + rate * dx
        c = c + dc / CLIENTS
    return x


def reach(plan, steps, mu):
    """|a|_1 in closed form: the table in section 4 of the FedNova paper."""
    rho, alpha = plan.momentum, plan.rate * mu
    if rho and alpha:
        raise ValueError("one of the two")
    if rho:
        plain = (steps - rho * (1 - rho ** steps) / (1 - rho)) / (1 - rho)
        return steps + rho * plain if plan.nesterov else plain
    return (1 - (1 - alpha) ** steps) / alpha if alpha else float(steps)


def fednova(data, plan, rounds, want, mu=0.0):
    x = data.first.copy()
    for r, who in rounds_of(rounds, want):
        p, d, a = weights_of(who), [], []
        for k in who:
            y, steps = train(data, plan, k, r, x, lambda w, *_: mu * (w - x))
            a.append(reach(plan, steps, mu))
            d.append((y - x) / a[-1])
        x = x + np.dot(p, a) * sum(pk * dk for pk, dk in zip(p, d))
    return x


def fedntd(data, plan, rounds, want, beta=1.0, tau=1.0):
    x = data.first.copy()

    def not_true(w, rows, y):
        """Gradient of beta tau^2 KL(shared || own) over the classes that are not the label."""
        h, z = logits_of(w, rows)
        teacher = logits_of(x, rows)[1]
        others = np.array([[c for c in range(CLASSES) if c != label] for label in y])
        at = np.arange(len(y))[:, None]
        d = np.zeros_like(z)
        d[at, others] = beta * tau * (softmax(z[at, others] / tau) - softmax(teacher[at, others] / tau)) / len(y)
        return back(w, rows, h, d)

    for r, who in rounds_of(rounds, want):
        ys = [train(data, plan, k, r, x, not_true)[0] for k in who]
        x = sum(p * y for p, y in zip(weights_of(who), ys))
    return x


# ---- codecs: whole numbers times a scale, the largest elements ----

SURE = []  # how far every rounding was from going the other way, in steps, and every choice, relative to the largest


def groups(channels):
    """Spans with a scale of their own: each parameter, or each row of a matrix."""
    at = 0
    for s in SHAPES:
        rows = s[0] if channels and len(s) > 1 else 1
        n = int(np.prod(s)) // rows
        for _ in range(rows):
            yield at, at + n
            at += n


def whole(most, channels=False):
    def code(v):
        out = np.zeros_like(v)
        for a, b in groups(channels):
            scale = np.abs(v[a:b]).max() / most
            steps = v[a:b] / scale if scale else v[a:b]
            SURE.append(np.abs(np.abs(steps - np.floor(steps)) - 0.5).min())
            out[a:b] = np.rint(steps) * scale
        return out
    return code


def top_k(share):
    def code(v):
        k = int(np.ceil(share * len(v)))
        order = np.argsort(-np.abs(v), kind="stable")
        SURE.append((np.abs(v[order[k - 1]]) - np.abs(v[order[k]])) / np.abs(v[order[0]]))
        out = np.zeros_like(v)
        out[order[:k]] = v[order[:k]]
        return out
    return code


def coded(data, plan, rounds, want, up, down=None, change=False, sure=1e-4):
    """FedAvg with error feedback on both ways. Clients add up their own losses, the server its own."""
    x, rest, lost = data.first.copy(), np.zeros(COUNT), np.zeros((CLIENTS, COUNT))
    SURE.clear()
    if down and not change:
        rest = x - down(x)
        x = x - rest
    for r, who in rounds_of(rounds, want):
        new = x.copy()
        for p, k in zip(weights_of(who), who):
            v = train(data, plan, k, r, x)[0] - x + lost[k]
            sent = up(v)
            lost[k] = v - sent
            new += p * sent
        if not down:
            x = new
            continue
        v = new + rest - (x if change else 0)
        sent = down(v)
        rest = v - sent
        x = x + sent if change else sent
    assert min(SURE) > sure, min(SURE)  # floats of other precision must not round or choose otherwise
    return x


# ---- FedBuff ----

def fedbuff(data, plan, rounds, want, rate=1.0, concurrency=CLIENTS, spread=0.5, most=10, stale=()):
    """A round is the `want` clients that are done first. `stale`: how old the updates must have been at some time."""
    takes = [np.exp(spread * Stream(0, "fedbuff.speed", k).normal()) for k in range(CLIENTS)]
    step, now, xs, busy, seen = 0, 0.0, [data.first.copy()], {}, set()

    def begin(n):
        idle, r = [k for k in range(CLIENTS) if k not in busy], Stream(0, "fedbuff.next", step)
        for i in range(min(n, len(idle))):
            j = i + r.below(len(idle) - i)
            k, idle[j] = idle[j], idle[i]
            busy[k] = (step, now + takes[k])

    begin(concurrency)
    for r in range(rounds):
        who = sorted(busy, key=lambda k: (busy[k][1], k))[:want]
        d = 0
        for k in who:
            began, _ = busy[k]
            seen.add(step - began)
            d = d + (train(data, plan, k, r, xs[began])[0] - xs[began]) / np.sqrt(1 + step - began)
        xs.append(xs[-1] + rate * d / len(who))
        now = max(busy[k][1] for k in who)
        for k in who:
            del busy[k]
        step += 1
        for k, (began, _) in busy.items():
            if step - began > most:
                busy[k] = (step, now + takes[k])
        begin(len(who))
    assert seen == set(stale), seen
    return xs[-1]


# ---- FedGen ----

class Generator:
    """(noise, label) -> hidden -> batch norm -> ReLU -> features, and Adam. The server's streams have the seed 0."""

    def __init__(self, noise, hidden):
        seed, fan = Stream(0, "fedgen.generator", 0).u64(), noise + CLASSES
        self.noise, self.hidden, self.t = noise, hidden, 0

        def uniform(name, shape, fan):
            r = Stream(seed, "init." + name, 0)
            v = [(2 * r.uniform() - 1) / np.sqrt(fan) for _ in range(int(np.prod(shape)))]
            return np.float32(v).astype(float).reshape(shape)

        self.p = [uniform("hidden.weight", (hidden, fan), fan), uniform("hidden.bias", (hidden,), fan),
                  np.ones(hidden), np.zeros(hidden),
                  uniform("features.weight", (HIDDEN, hidden), hidden), uniform("features.bias", (HIDDEN,), hidden)]
        self.m, self.v = [0 * p for p in self.p], [0 * p for p in self.p]
        self.mean, self.var = np.zeros(hidden), np.ones(hidden)

    def draw(self, r, labels):
        eps = np.array([[r.uniform() for _ in range(self.noise)] for _ in labels])
        return eps, np.hstack([eps, np.eye(CLASSES)[labels]])

    def make(self, x):
        a, a0, scale, shift, b, b0 = self.p
        hat = (x @ a.T + a0 - self.mean) / np.sqrt(self.var + 1e-5)
        return np.maximum(scale * hat + shift, 0) @ b.T + b0

    def step(self, r, held, batch, rate, heads, diversity):
        """heads: (weight, bias, label counts) of the clients."""
        y = np.array([held[r.below(len(held))] for _ in range(batch)])
        eps, x = self.draw(r, y)
        a, a0, scale, shift, b, b0 = self.p
        u = x @ a.T + a0
        mean, var = u.mean(0), u.var(0)
        self.mean = 0.9 * self.mean + 0.1 * mean
        self.var = 0.9 * self.var + 0.1 * var * batch / (batch - 1)
        inverse = 1 / np.sqrt(var + 1e-5)
        hat = (u - mean) * inverse
        v = scale * hat + shift
        h = np.maximum(v, 0)
        g = h @ b.T + b0
        total = sum(n for _, _, n in heads)
        dg = np.zeros_like(g)
        for w, w0, n in heads:
            share = (n[y] / total[y])[:, None]
            dg += share * (softmax(g @ w.T + w0) - np.eye(CLASSES)[y]) @ w / batch
        far = ((eps[:, None] - eps[None]) ** 2).mean(2)
        apart = g[:, None] - g[None]
        loss = diversity * np.exp(-(far * np.abs(apart).mean(2)).mean())
        dg -= loss * 2 * (far[:, :, None] * np.sign(apart)).sum(1) / batch ** 2 / HIDDEN
        dv = (dg @ b) * (v > 0)
        dhat = dv * scale
        du = inverse * (dhat - dhat.mean(0) - hat * (dhat * hat).mean(0))
        grads = [du.T @ x, du.sum(0), (dv * hat).sum(0), dv.sum(0), dg.T @ h, dg.sum(0)]
        self.t += 1
        for i, d in enumerate(grads):
            d = d + 0.01 * self.p[i]
            self.m[i] = 0.9 * self.m[i] + 0.1 * d
            self.v[i] = 0.999 * self.v[i] + 0.001 * d * d
            self.p[i] = self.p[i] - rate * (self.m[i] / (1 - 0.9 ** self.t)) / (
                np.sqrt(self.v[i] / (1 - 0.999 ** self.t)) + 1e-8)


def fedgen(data, plan, rounds, want, noise=3, hidden=5, steps=4, batch=6, rate=0.01, made=5, alpha=2.0, beta=3.0,
           decay=0.9, diversity=1.0):
    x, gen, known = data.first.copy(), Generator(noise, hidden), set()
    for r, who in rounds_of(rounds, want):
        ys, heads = [], []
        for k in who:
            draws = Stream(Stream(SEED, "replay.generator", r << 32 | k).u64(), "fedgen.made", 0)

            def more(w, rows, y):
                if not known:
                    return 0.0
                _, _, b, b0 = split(w)
                head = np.zeros_like(w)
                labels = np.array([sorted(known)[draws.below(len(known))] for _ in range(made)])
                if alpha:
                    f = gen.make(gen.draw(draws, labels)[1])
                    d = (softmax(f @ b.T + b0) - np.eye(CLASSES)[labels]) * alpha * decay ** r / plan.batch
                    head[-CLASSES * (HIDDEN + 1):] = np.concatenate([(d.T @ f).ravel(), d.sum(0)])
                f = gen.make(gen.draw(draws, y)[1])
                h, z = logits_of(w, rows)
                d = (softmax(z) - softmax(f @ b.T + b0)) * beta * decay ** r / len(y)
                return head + back(w, rows, h, d)

            ys.append(train(data, plan, k, r, x, more)[0])
            _, _, b, b0 = split(ys[-1])
            heads.append((b, b0, np.bincount(data.y[data.index[k]], minlength=CLASSES)))
        held = [c for c in range(CLASSES) if any(n[c] for _, _, n in heads)]
        draws = Stream(0, "fedgen.steps", r)
        for _ in range(steps):
            gen.step(draws, held, batch, rate * decay ** r, heads, diversity)
        known |= set(held)
        x = sum(p * y for p, y in zip(weights_of(who), ys))
    return x


# ---- the second network: x -> a -> batch norm -> ReLU -> b; a state is its parameters, then running mean and variance ----

NORM = slice(HIDDEN * FEATURES + HIDDEN, HIDDEN * FEATURES + 3 * HIDDEN)


def bn_gradient(statistics):
    """statistics (running mean, running variance) move on with every batch."""
    def of(w, x, y):
        norm, plain = w[NORM], np.delete(w, np.r_[NORM])
        a, a0, b, b0 = split(plain)
        scale, shift = norm[:HIDDEN], norm[HIDDEN:]
        u = x @ a.T + a0
        mean, var, n = u.mean(0), u.var(0), len(x)
        statistics[0] = 0.9 * statistics[0] + 0.1 * mean
        statistics[1] = 0.9 * statistics[1] + 0.1 * var * n / (n - 1)
        inverse = 1 / np.sqrt(var + 1e-5)
        hat = (u - mean) * inverse
        v = scale * hat + shift
        d = softmax(np.maximum(v, 0) @ b.T + b0)
        d[np.arange(n), y] -= 1
        d /= n
        dv = (d @ b) * (v > 0)
        dhat = dv * scale
        du = inverse * (dhat - dhat.mean(0) - hat * (dhat * hat).mean(0))
        return np.concatenate([(du.T @ x).ravel(), du.sum(0), (dv * hat).sum(0), dv.sum(0),
                               (d.T @ np.maximum(v, 0)).ravel(), d.sum(0)])
    return of


def with_norms(data, plan, rounds, want, local):
    """FedAvg of the second network; local: FedBN, each client keeps its norm layer."""
    first = np.insert(data.first, NORM.start, np.r_[np.ones(HIDDEN), np.zeros(HIDDEN)])
    x, kept = np.concatenate([first, np.zeros(HIDDEN), np.ones(HIDDEN)]), {}
    parts = np.r_[np.arange(NORM.start, NORM.stop), np.arange(len(first), len(x))]
    for r, who in rounds_of(rounds, want):
        out = []
        for k in who:
            s = x.copy()
            if local and k in kept:
                s[parts] = kept[k]
            statistics = [s[-2 * HIDDEN:-HIDDEN].copy(), s[-HIDDEN:].copy()]
            y, _ = train(data, plan, k, r, s[:len(first)], loss_gradient=bn_gradient(statistics))
            out.append(np.concatenate([y] + statistics))
            kept[k] = out[-1][parts]
        x = sum(p * y for p, y in zip(weights_of(who), out))
    return x


# ---- robust rules: each takes the clients' weights as rows ----

def krum_order(ys, f):
    """The clients, best first."""
    n = len(ys)
    d = ((ys[:, None] - ys[None]) ** 2).sum(2)
    return np.argsort([np.sort(np.delete(d[i], i))[:max(n - f - 2, 0)].sum() for i in range(n)])


def bulyan_rule(ys, f):
    chosen, rest, keep = [], list(range(len(ys))), len(ys) - 4 * f
    while len(chosen) < len(ys) - 2 * f:
        chosen.append(rest.pop(krum_order(ys[rest], f)[0]))
    ys = ys[chosen]
    nearest = np.argsort(np.abs(ys - np.median(ys, axis=0)), axis=0)[:keep]
    return np.take_along_axis(ys, nearest, 0).mean(0)


def geometric_median(ys, eps=1e-6):
    z = ys.mean(0)
    for _ in range(32):
        pull = 1 / np.maximum(np.linalg.norm(ys - z, axis=1), eps)
        z = pull @ ys / pull.sum()
    return z


def robust(data, plan, rounds, want, rule):
    x = data.first.copy()
    for r, who in rounds_of(rounds, want):
        x = rule(np.array([train(data, plan, k, r, x)[0] for k in who]))
    return x


def norm_clipping(data, plan, rounds, want, most):
    x, clipped = data.first.copy(), 0
    for r, who in rounds_of(rounds, want):
        d = [train(data, plan, k, r, x)[0] - x for k in who]
        clipped += sum(np.linalg.norm(v) > most for v in d)
        x = x + np.mean([v * min(1, most / np.linalg.norm(v)) for v in d], axis=0)
    assert 0 < clipped < rounds * want  # some are, some are not
    return x


# name: (function, plan, rounds, cohort, options). tests/fed/test_replay.c has the same table.
RUNS = {
    "fedavg": (fedavg, Plan(), 6, 3, {}),
    "fedprox": (fedavg, Plan(), 6, 3, dict(mu=0.5)),
    "coded_int8": (coded, Plan(rate=0.2), 6, 3, dict(up=whole(127, True), down=whole(127))),
    "coded_int4": (coded, Plan(rate=0.25), 6, 3, dict(up=whole(7))),
    "coded_top_k": (coded, Plan(), 6, 3, dict(up=top_k(0.2))),
    "coded_top_k_both": (coded, Plan(rate=0.25), 6, 2, dict(up=top_k(0.15), down=top_k(0.2), change=True)),
    "fedavgm": (fedopt, Plan(), 6, 3, dict(kind="momentum", rate=1.0)),
    "fedadagrad": (fedopt, Plan(), 6, 3, dict(kind="adagrad", rate=0.05)),
    "fedadam": (fedopt, Plan(), 6, 3, dict(kind="adam", rate=0.05)),
    "fedyogi": (fedopt, Plan(), 6, 3, dict(kind="yogi", rate=0.05)),
    "scaffold": (scaffold, Plan(), 6, 3, {}),
    "scaffold_rate": (scaffold, Plan(decay=0.01, more_epochs=1), 6, 5, dict(rate=0.5)),
    "scaffold_momentum": (scaffold, Plan(rate=0.02, momentum=0.8), 6, 3, {}),
    "scaffold_lost": (scaffold, Plan(), 6, 5, dict(lost=1)),
    "fednova": (fednova, Plan(more_epochs=1), 6, 3, {}),
    "fednova_momentum": (fednova, Plan(rate=0.02, momentum=0.8, more_epochs=1), 6, 3, {}),
    "fednova_nesterov": (fednova, Plan(rate=0.02, momentum=0.8, more_epochs=1, nesterov=True), 6, 3, {}),
    "fednova_mu": (fednova, Plan(more_epochs=1), 6, 3, dict(mu=1.0)),
    "fedntd": (fedntd, Plan(), 6, 3, dict(beta=2.0, tau=3.0)),
    "median": (robust, Plan(), 6, 4, dict(rule=lambda ys: np.median(ys, axis=0))),
    "trimmed_mean": (robust, Plan(), 6, 5, dict(rule=lambda ys: np.sort(ys, axis=0)[1:-1].mean(0))),
    "krum": (robust, Plan(), 6, 5, dict(rule=lambda ys: ys[krum_order(ys, 1)[0]])),
    "krum_few": (robust, Plan(), 6, 3, dict(rule=lambda ys: np.median(ys, axis=0))),
    "multi_krum": (robust, Plan(), 6, 5, dict(rule=lambda ys: ys[krum_order(ys, 1)[:3]].mean(0))),
    "bulyan": (robust, Plan(), 6, 5, dict(rule=lambda ys: bulyan_rule(ys, 0))),
    "geometric_median": (robust, Plan(), 6, 5, dict(rule=geometric_median)),
    "norm_clipping": (norm_clipping, Plan(), 6, 5, dict(most=0.6)),
    "fedavg_steps": (fedavg, Plan(steps=7), 6, 3, {}),
    "fresh_adam": (kept, Plan(rate=0.01, adam=True), 6, 3, dict(keeps=False)),
    "kept_adam": (kept, Plan(rate=0.01, adam=True), 6, 3, {}),
    "kept_momentum": (kept, Plan(rate=0.02, momentum=0.8), 6, 3, {}),
    "kept_lost": (kept, Plan(rate=0.02, momentum=0.8, nesterov=True), 6, 5, dict(lost=1)),
    "fedbuff": (fedbuff, Plan(), 6, 2, dict(stale=(0, 1, 2))),
    "fedbuff_few": (fedbuff, Plan(), 6, 1, dict(rate=0.5, concurrency=4, spread=0.8, most=2, stale=(0, 1, 2))),
    "fedgen": (fedgen, Plan(), 6, 3, {}),
    "fedgen_alike": (fedgen, Plan(), 6, 3, dict(diversity=0.0)),
    "fedavg_norms": (with_norms, Plan(batch=7), 6, 3, dict(local=False)),
    "fedbn": (with_norms, Plan(batch=7), 6, 3, dict(local=True)),
}


# ---- data and files ----

class Data:
    """Four bands of a plane; the clients' classes are skewed. float32 values, as both sides have them."""

    def __init__(self):
        r = np.random.default_rng(20240607)
        n = sum(SIZES)
        self.owner = np.repeat(np.arange(CLIENTS), SIZES)
        r.shuffle(self.owner)
        self.index = [np.flatnonzero(self.owner == k) for k in range(CLIENTS)]
        self.y = np.empty(n, np.int32)
        for k, index in enumerate(self.index):
            p = np.full(CLASSES, 0.1)
            p[k % CLASSES] += 0.6
            self.y[index] = r.choice(CLASSES, len(index), p=p)
        centre = r.normal(size=(CLASSES, FEATURES))
        self.x32 = (centre[self.y] + 0.8 * r.normal(size=(n, FEATURES))).astype(np.float32)
        self.first32 = (0.4 * r.normal(size=COUNT)).astype(np.float32)
        self.x, self.first = self.x32.astype(float), self.first32.astype(float)


def main():
    data = Data()
    out = {}
    for name, (run, plan, rounds, want, options) in RUNS.items():
        out[name] = run(data, plan, rounds, want, **options)
        print(f"{name:20s} {len(out[name])} values of length {np.linalg.norm(out[name]):.6f}")
    updates = np.random.default_rng(5).normal(size=(11, 40)).astype(np.float32)
    updates[[2, 9]] += 3
    out["bulyan_2"] = bulyan_rule(updates.astype(float), 2)
    out |= {"updates": updates, "x": data.x32, "first": data.first32, "y": data.y, "owner": data.owner.astype(np.int32)}
    write(os.path.join(os.path.dirname(os.path.abspath(__file__)), "replay.safetensors"), out)


if __name__ == "__main__":
    main()
