#!/usr/bin/env python3
"""Fusions and steps of MergeNet's adapter in float64, from the papers' equations, for tests/distill/test_fusion.c.

    python3 fusion.py

writes fusion.safetensors beside itself: for every case of CASES the matrices, the adapter's parameters and vectors of the
spectral norms, what is fused, the loss and the gradient of one learning step (by central differences: nothing here knows
how to go back), and the parameters after it. It needs numpy.
"""
import os
import sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
from tensor_file import write

r = np.random.default_rng(11)
HEADS, D, LAYERS = 2, 4, 2
RATE, DECAY, CLIP = 0.01, 0.05, 0.5
CASES = {  # target, source, rank, gate
    "full": ((6, 8), (5, 7), 0, 0.3),
    "low_rank": ((6, 10), (5, 9), 3, 0.4),
}


def layer_norm(x, w, b):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12) * w + b


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def width(dq, dk):
    return max((dq + dk) // 2, 2 * D) // HEADS * HEADS


def attend(p, name, q, context):
    w = width(q.shape[1], context.shape[1])
    lin = lambda x, part: x @ p[f"{name}.{part}.weight"].T + p[f"{name}.{part}.bias"]
    heads = lambda x: x.reshape(len(x), HEADS, w // HEADS).swapaxes(0, 1)
    a, k, v = heads(lin(q, "q")), heads(lin(context, "k")), heads(lin(context, "v"))
    out = softmax(a @ k.swapaxes(1, 2) / np.sqrt(w // HEADS)) @ v
    out = lin(out.swapaxes(0, 1).reshape(len(q), w), "out")
    return layer_norm(q + out, p[f"{name}.norm.weight"], p[f"{name}.norm.bias"])


def spectral(p, uv, name, x):
    w, (u, v) = p[f"{name}.weight_orig"], uv[name]
    return x @ (w / (u @ w @ v)).T + p[f"{name}.bias"]


def adapter(p, uv, a, b):
    for i in range(LAYERS):
        n = f"layers.{i}."
        x = attend(p, n + "xx", a, b) + attend(p, n + "xy", a, b.T)
        x = (x + attend(p, n + "yx", a.T, b).T + attend(p, n + "yy", a.T, b.T).T) / 4
        y = spectral(p, uv, n + "w2", gelu(spectral(p, uv, n + "w1", x)))
        a = layer_norm(x + y, p[n + "norm.weight"], p[n + "norm.bias"])
    return a


def iterate(p, uv):
    out = {}
    for name, (u, _) in uv.items():
        w = p[f"{name}.weight_orig"]
        v = w.T @ u / np.linalg.norm(w.T @ u)
        out[name] = (w @ v / np.linalg.norm(w @ v), v)
    return out


def factors(m, rank):
    u, s, vt = np.linalg.svd(m, full_matrices=False)
    n = m.shape[1]
    for c in range(rank):
        if u[np.argmax(np.abs(u[:, c])), c] < 0:
            u[:, c], vt[c] = -u[:, c], -vt[c]
    return u[:, :rank] * s[:rank] / np.sqrt(n), vt[:rank] * np.sqrt(n)


def tokens(code):
    flat = np.concatenate([code.ravel(), np.zeros(-code.size % D)])
    return flat.reshape(-1, D)


class Case:
    def __init__(self, target, source, rank, gate):
        self.rank = rank
        self.a, self.b = (np.float32(r.normal(scale=s, size=n)).astype(float) for s, n in ((0.1, target), (0.3, source)))
        if rank:
            self.left, self.code = factors(self.a, rank)
            self.ta, self.tb = tokens(self.code), tokens(factors(self.b, rank)[1])
        else:
            self.left, self.code, self.ta, self.tb = None, self.a, self.a, self.b
        self.p, self.uv = self.parameters()
        self.gate = float(np.float32(gate))
        self.after = np.float32(self.a + r.normal(scale=0.02, size=target)).astype(float)

    def parameters(self):
        p, uv = {}, {}
        draw = lambda name, *shape: p.__setitem__(name, np.float32(r.normal(scale=0.3, size=shape)).astype(float))
        scale = lambda name, n: (draw(name + ".weight", n), p.__setitem__(name + ".weight", np.float32(1 + p[name + ".weight"]).astype(float)),
                                 draw(name + ".bias", n))
        (ra, ca), (rb, cb) = self.ta.shape, self.tb.shape
        for i in range(LAYERS):
            for name, dq, dk in (("xx", ca, cb), ("xy", ca, rb), ("yx", ra, cb), ("yy", ra, rb)):
                n, w = f"layers.{i}.{name}", width(dq, dk)
                for part, o, k in (("q", w, dq), ("k", w, dk), ("v", w, dk), ("out", dq, w)):
                    draw(f"{n}.{part}.weight", o, k)
                    draw(f"{n}.{part}.bias", o)
                scale(n + ".norm", dq)
            for name, o, k in (("w1", 2 * ca, ca), ("w2", ca, 2 * ca)):
                n = f"layers.{i}.{name}"
                draw(n + ".weight_orig", o, k)
                draw(n + ".bias", o)
                u, v = r.normal(size=o), r.normal(size=k)
                uv[n] = tuple(np.float32(x / np.linalg.norm(x)).astype(float) for x in (u, v))
            scale(f"layers.{i}.norm", ca)
        for _ in range(20):
            uv = iterate(p, uv)
        return p, {n: tuple(np.float32(x).astype(float) for x in pair) for n, pair in uv.items()}

    def fuse(self, p, uv, gate):
        x = adapter(p, uv, self.ta, self.tb).ravel()[: self.code.size]
        delta = (x * self.code.std() / x.std()).reshape(self.code.shape) - self.code
        return self.a + gate * (self.left @ delta if self.rank else delta)

    def loss(self, p, uv, gate):
        return 0.5 * np.sum((self.fuse(p, uv, gate) - self.after) ** 2)

    def gradient(self, uv, h=1e-5):
        grad = {}
        for name, w in self.p.items():
            g = np.zeros(w.size)
            for i in range(w.size):
                at = np.unravel_index(i, w.shape)
                keep = w[at]
                w[at] = keep + h
                up = self.loss(self.p, uv, self.gate)
                w[at] = keep - h
                g[i] = (up - self.loss(self.p, uv, self.gate)) / (2 * h)
                w[at] = keep
            grad[name] = g.reshape(w.shape)
        grad["gate"] = np.array([(self.loss(self.p, uv, self.gate + h) - self.loss(self.p, uv, self.gate - h)) / (2 * h)])
        return grad

    def step(self):
        """Adam's first step: m = (1 - b1) g and v = (1 - b2) g^2 lose their factors to the corrections."""
        uv = iterate(self.p, self.uv)
        grad = self.gradient(uv)
        norm = np.sqrt(sum(np.sum(g**2) for g in grad.values()))
        shrink = min(1, CLIP / (norm + 1e-6))
        after = {}
        for name, g in grad.items():
            w = np.array([self.gate]) if name == "gate" else self.p[name]
            d = g * shrink
            keep = 1 - RATE * DECAY if w.ndim > 1 else 1
            after[name] = w * keep - RATE * d / (np.abs(d) + 1e-8)
        return self.loss(self.p, uv, self.gate), norm, grad, after


def main():
    double, single = {}, {}
    for name, (target, source, rank, gate) in CASES.items():
        c = Case(target, source, rank, gate)
        single.update({f"{name}.a": np.float32(c.a), f"{name}.b": np.float32(c.b), f"{name}.after": np.float32(c.after)})
        single.update({f"{name}.value.{n}": np.float32(w) for n, w in c.p.items()})
        for n, (u, v) in c.uv.items():
            single[f"{name}.buffer.{n}.weight_u"], single[f"{name}.buffer.{n}.weight_v"] = np.float32(u), np.float32(v)
        double[f"{name}.theta"] = c.fuse(c.p, c.uv, c.gate)
        loss, norm, grad, after = c.step()
        double[f"{name}.loss"] = np.array([loss, norm])
        for n in grad:
            single[f"{name}.grad.{n}"] = np.float32(grad[n])
            single[f"{name}.stepped.{n}"] = np.float32(after[n])
    double.update(single)  # doubles first: they stay aligned
    write(os.path.join(os.path.dirname(os.path.abspath(__file__)), "fusion.safetensors"), double)


if __name__ == "__main__":
    main()
