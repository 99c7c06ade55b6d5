#!/usr/bin/python3
"""Whole small runs of the strategies that share knowledge, computed a second time in float64 with numpy alone.

Nothing of fedstill is called: networks, losses, gradients and the papers' equations are written out here. All batches
are whole sets, so that no random stream is needed.

    /usr/bin/python3 tests/fed/knowledge/knowledge.py

writes tests/fed/knowledge/knowledge.safetensors: the samples, who has which, every client's first weights and, for each
run of RUNS, "RUN.K", the weights of client K after the last round, or "RUN.0", those that all share. tests/fed/test_knowledge.c repeats the runs with
fedstill and compares.
"""
import os
import sys

import numpy as np

here = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(here, "../.."), os.path.join(here, "../replay")]
from tensor_file import write
from replay import Stream  # the documented random streams, also without anything of fedstill

FEATURES, HIDDEN, CLASSES, ROUNDS = 6, 8, 4, 4
SIZES, PUBLIC = [9, 14, 20, 11], 16
CLIENTS = len(SIZES)
RATE, MOMENTUM, LOCAL_EPOCHS, DIGEST_EPOCHS = 0.2, 0.5, 3, 2


# ---- networks: odd clients have a hidden layer ----

def layers(k):
    return [(FEATURES, HIDDEN), (HIDDEN, CLASSES)] if k % 2 else [(FEATURES, CLASSES)]


def unflatten(k, w):
    out, at = [], 0
    for fan_in, fan_out in layers(k):
        weight = w[at:at + fan_in * fan_out].reshape(fan_out, fan_in)
        at += fan_in * fan_out
        out.append((weight, w[at:at + fan_out]))
        at += fan_out
    return out


def forward(k, w, x):
    kept = []
    for i, (weight, bias) in enumerate(unflatten(k, w)):
        x = np.maximum(x, 0) if i else x
        kept.append(x)
        x = x @ weight.T + bias
    return x, kept


def backward(k, w, kept, grad):
    parts = []
    net = unflatten(k, w)
    for i in reversed(range(len(net))):
        parts = [(grad.T @ kept[i]).ravel(), grad.sum(0)] + parts
        grad = (grad @ net[i][0]) * (kept[i] > 0)
    return np.concatenate(parts)


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def train(k, w, x, epochs, slope):
    """SGD over the whole set; slope(z) is the loss's gradient by the logits."""
    m = None
    for _ in range(epochs):
        z, kept = forward(k, w, x)
        g = backward(k, w, kept, slope(z))
        m = g if m is None else MOMENTUM * m + g
        w = w - RATE * m
    return w


def cross_entropy(q):
    """With targets q; rows of any mass."""
    return lambda z: (q.sum(1, keepdims=True) * softmax(z) - q) / len(q)


# ---- strategies ----

def same(x):
    return x


def quantise(p, bits):
    most = 2 ** bits - 1
    level = np.floor(p * most)
    for row, l in zip(p * most, level):
        for j in np.argsort(-(row - l), kind="stable")[:int(most - l.sum())]:
            l[j] += 1
    return level / most


def era(temperature):
    return lambda p: softmax(p / temperature)


def enhanced(beta):
    return lambda p: p ** beta / (p ** beta).sum(1, keepdims=True)


def consensus(fit, say, share, transfer=0):
    """Clients fit what is shared by `fit`, train, and `say` something of the public logits; its mean is shared. Before
    all that they learn the labels of the public samples for `transfer` epochs."""
    def run(d):
        labels, shared = cross_entropy(np.eye(CLASSES)[d["public_y"]]), None
        w = [train(k, v, d["public"], transfer, labels) for k, v in enumerate(d["first"])]
        for _ in range(ROUNDS):
            said = []
            for k in range(CLIENTS):
                if shared is not None:
                    w[k] = train(k, w[k], d["public"], DIGEST_EPOCHS, fit(shared))
                w[k] = train(k, w[k], d["x"][k], LOCAL_EPOCHS, cross_entropy(np.eye(CLASSES)[d["y"][k]]))
                said.append(say(forward(k, w[k], d["public"])[0]))
            shared = share(np.mean(said, 0))
        return w
    return run


class Server:
    """A model of the network of client 1 that learns what the clients say of the public samples, by Adam."""

    def __init__(self, epochs):
        seed, parts = Stream(1, "cfd.student", 0).u64(), []
        for name, (fan_in, fan_out) in zip("ab", layers(1)):
            for part, n in (("weight", fan_in * fan_out), ("bias", fan_out)):
                r = Stream(seed, f"init.{name}.{part}", 0)
                parts.append([(2 * r.uniform() - 1) / np.sqrt(fan_in) for _ in range(n)])
        self.w, self.epochs = np.float32(np.concatenate(parts)).astype(float), epochs

    def answer(self, x, q):
        m, v = 0, 0
        for t in range(self.epochs):
            z, kept = forward(1, self.w, x)
            g = backward(1, self.w, kept, cross_entropy(q)(z))
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            rate = 0.001 * (1 + np.cos(np.pi * t / self.epochs)) / 2
            self.w = self.w - rate * m / (1 - 0.9 ** (t + 1)) / (np.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8)
        return softmax(forward(1, self.w, x)[0])


def cfd_server(epochs, up, down):
    def run(d):
        server = Server(epochs)
        share = lambda p: quantise(server.answer(d["public"], p), down)
        return consensus(cross_entropy, lambda z: quantise(softmax(z), up), share)(d)
    return run


def fd(gamma):
    def run(d):
        w, means = list(d["first"]), None
        for _ in range(ROUNDS):
            said = []
            for k in range(CLIENTS):
                q = np.eye(CLASSES)[d["y"][k]]
                if means is not None:
                    others = np.zeros((CLASSES, CLASSES))
                    for label in range(CLASSES):
                        rows = [means[j][label] for j in range(CLIENTS) if j != k and label in means[j]]
                        if rows:
                            others[label] = np.mean(rows, 0)
                    q = q + gamma * others[d["y"][k]]
                w[k] = train(k, w[k], d["x"][k], LOCAL_EPOCHS, cross_entropy(q))
                p = softmax(forward(k, w[k], d["x"][k])[0])
                said.append({label: p[d["y"][k] == label].mean(0) for label in np.unique(d["y"][k])})
            means = said
        return w
    return run


# ---- the same with codecs: rows of the labels that are there go as whole numbers times a scale ----

SURE = []  # how far every rounding was from going the other way, in steps


def whole(most, by_row=False):
    def code(v):
        scale = np.abs(v).max(1 if by_row else None, keepdims=True) / most
        steps = v / scale
        SURE.append(np.abs(np.abs(steps - np.floor(steps)) - 0.5).min())
        return np.rint(steps) * scale
    return code


def probable(p):
    p = np.maximum(p, 0)
    return p / p.sum(1, keepdims=True)


def sent(code, rows, known, made=same):
    """What comes of rows (label: row), coded against those that are known."""
    labels = sorted(rows)
    base = np.array([known.get(label, 0 * rows[label]) for label in labels])
    return dict(zip(labels, made(code(np.array([rows[label] for label in labels]) - base) + base)))


def mean_by_label(said):
    return {label: np.mean([s[label] for s in said if label in s], 0)
            for label in range(CLASSES) if any(label in s for s in said)}


def fd_coded(gamma, up, down):
    """Clients are sent means, from which each takes the share that the server read of it."""
    def run(d):
        w, shared, said = list(d["first"]), {}, []
        SURE.clear()
        for _ in range(ROUNDS):
            news = []
            for k in range(CLIENTS):
                y, others = d["y"][k], np.zeros((CLASSES, CLASSES))
                for label, mean in shared.items():
                    holders = sum(label in s for s in said)
                    own = said[k].get(label)
                    rest = mean * holders - (0 if own is None else own)
                    if holders > (own is not None):
                        others[label] = probable(rest[None])[0]
                w[k] = train(k, w[k], d["x"][k], LOCAL_EPOCHS, cross_entropy(np.eye(CLASSES)[y] + gamma * others[y]))
                p = softmax(forward(k, w[k], d["x"][k])[0])
                news.append(sent(up, {label: p[y == label].mean(0) for label in np.unique(y)}, shared, probable))
            said = news
            shared = sent(down, mean_by_label(said), {}, probable)
        assert min(SURE) > 1e-4, min(SURE)  # floats of other precision must not round otherwise
        return w
    return run


def fd_plus(gamma):
    """Everybody starts a round with the mean of the last; all have the network of client 1."""
    def run(d):
        x, means = d["first"][1], None
        for _ in range(ROUNDS):
            w, said = [], []
            for k in range(CLIENTS):
                y = d["y"][k]
                q = np.eye(CLASSES)[y]
                for i, label in enumerate(y):
                    others = [m[label] for j, m in enumerate(means or []) if j != k and label in m]
                    if others:
                        q[i] += gamma * np.mean(others, 0)
                w.append(train(1, x, d["x"][k], LOCAL_EPOCHS, cross_entropy(q)))
                p = softmax(forward(1, w[k], d["x"][k])[0])
                said.append({label: p[y == label].mean(0) for label in np.unique(y)})
            x, means = np.average(w, 0, SIZES), said
        return [x]
    return run


def feddf(steps, rate):
    """Everybody has the network of client 1; only its own samples differ."""
    def run(d):
        x = d["first"][1]
        for _ in range(ROUNDS):
            w = [train(1, x, d["x"][k], LOCAL_EPOCHS, cross_entropy(np.eye(CLASSES)[d["y"][k]]))
                 for k in range(CLIENTS)]
            q = softmax(np.mean([forward(1, v, d["public"])[0] for v in w], 0))
            x = np.average(w, 0, SIZES)
            m, v = 0, 0
            for t in range(steps):
                z, kept = forward(1, x, d["public"])
                g = backward(1, x, kept, cross_entropy(q)(z))
                m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
                step = rate * (1 + np.cos(np.pi * t / steps)) / 2
                x = x - step * m / (1 - 0.9 ** (t + 1)) / (np.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8)
        return [x]
    return run


def fedproto(weight, up=None, down=None):
    """Everybody starts with the network and the weights of client 1. down: codes the change."""
    def run(d):
        w, means = [d["first"][1]] * CLIENTS, None
        SURE.clear()
        for _ in range(ROUNDS):
            said = []
            for k in range(CLIENTS):
                x, y, m = d["x"][k], d["y"][k], None
                q, v = np.eye(CLASSES)[y], w[k]
                for _ in range(LOCAL_EPOCHS):
                    z, kept = forward(1, v, x)
                    (a, a_bias), (b, _) = unflatten(1, v)
                    by_logits = cross_entropy(q)(z)
                    by_hidden = by_logits @ b
                    for i, label in enumerate(y):
                        if means is not None and label in means:
                            by_hidden[i] += weight * 2 * (kept[1][i] - means[label]) / HIDDEN / len(y)
                    by_hidden = by_hidden * (kept[1] > 0)
                    g = np.concatenate([(by_hidden.T @ x).ravel(), by_hidden.sum(0),
                                        (by_logits.T @ kept[1]).ravel(), by_logits.sum(0)])
                    m = g if m is None else MOMENTUM * m + g
                    v = v - RATE * m
                w[k] = v
                features = forward(1, v, x)[1][1]
                said.append({label: features[y == label].mean(0) for label in np.unique(y)})
                if up:
                    said[-1] = sent(up, said[-1], means or {})
            means = sent(down, mean_by_label(said), means or {}) if down else mean_by_label(said)
        assert min(SURE, default=1) > 1e-4, min(SURE)
        return w
    return run


RUNS = {
    "alone": consensus(lambda q: lambda z: 0 * z, same, same),
    "fedmd": consensus(lambda q: lambda z: np.sign(z - q) / z.size, same, same),
    "fedmd_transfer": consensus(lambda q: lambda z: np.sign(z - q) / z.size, same, same, transfer=3),
    "fd": fd(0.5),
    "dsfl_era": consensus(cross_entropy, softmax, era(0.1)),
    "dsfl_enhanced_era": consensus(cross_entropy, softmax, enhanced(3)),
    "dsfl_none": consensus(cross_entropy, softmax, same),
    "cfd_1": consensus(cross_entropy, lambda z: quantise(softmax(z), 1), lambda p: quantise(p, 1)),
    "cfd_3_5": consensus(cross_entropy, lambda z: quantise(softmax(z), 3), lambda p: quantise(p, 5)),
    "cfd_server": cfd_server(200, 1, 3),
    "fedavg": feddf(0, 0),
    "feddf": feddf(40, 0.01),
    "fd_plus": fd_plus(0.5),
    "fedproto_0": fedproto(0),
    "fedproto": fedproto(0.7),
    "fd_coded": fd_coded(0.5, whole(127), whole(7)),
    "fedproto_coded": fedproto(0.7, whole(7, by_row=True), whole(127)),
}


# ---- data and file ----

def data():
    r = np.random.default_rng(11)
    owner = np.repeat(np.arange(CLIENTS + 1), SIZES + [PUBLIC])  # the last owner: everybody
    y = r.integers(0, CLASSES, len(owner))
    y[(owner == 0) & (y == 3)] = 1  # labels that not everybody has
    y[(owner != 2) & (y == 2)] = 0
    x = (r.normal(size=(len(owner), FEATURES)) + 1.5 * np.eye(CLASSES, FEATURES)[y]).astype(np.float32)
    first = []
    for k in range(CLIENTS):
        n = sum((i + 1) * o for i, o in layers(k))
        first.append(r.normal(scale=0.4, size=n).astype(np.float32))
    return x, y.astype(np.int32), owner.astype(np.int32), first


def main():
    x, y, owner, first = data()
    d = {"x": [x[owner == k].astype(float) for k in range(CLIENTS)], "y": [y[owner == k] for k in range(CLIENTS)],
         "public": x[owner == CLIENTS].astype(float), "public_y": y[owner == CLIENTS],
         "first": [w.astype(float) for w in first]}
    out = {}
    for name, run in RUNS.items():  # doubles first: they stay aligned
        for k, w in enumerate(run(d)):
            out[f"{name}.{k}"] = w
    out.update({"x": x, "y": y, "owner": owner})
    out.update({f"first.{k}": w for k, w in enumerate(first)})
    write(os.path.join(here, "knowledge.safetensors"), out)


if __name__ == "__main__":
    main()
