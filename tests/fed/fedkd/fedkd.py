#!/usr/bin/python3
"""FedKD a second time, in float64 with numpy alone, and the low-rank factors of its messages by numpy's SVD.

Nothing of fedstill is called: networks, losses, gradients and the paper's equations are written out here. All batches
are whole sets, so that no random stream is needed; the map between the hidden layers starts at zero.

    /usr/bin/python3 tests/fed/fedkd/fedkd.py

writes tests/fed/fedkd/fedkd.safetensors: samples, who has which, first weights, for each run "RUN.mentee" (the shared
weights after the last round) and "RUN.mentor.K"; "RUN.floats" holds, by round and client, the floats of what went up,
and, by round, of what went down as a change. For each matrix of MATRICES "matrix.I", and for each energy "size.I.E" (floats) and
"approximation.I.E". tests/fed/test_fedkd.c compares.
"""
import os
import sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
from tensor_file import write

FEATURES, MENTEE, CLASSES, ROUNDS = 6, 12, 4, 4
MENTORS = [9, 5, 9]  # hidden units of each client's mentor
SIZES = [9, 14, 20]
CLIENTS = len(SIZES)
RATE, MOMENTUM, EPOCHS = 0.1, 0.5, 3
ENERGIES = [0.5, 0.9, 0.95, 0.999]
MATRICES = [(7, 20), (20, 7), (5, 5), (1, 9)]


# ---- low rank ----

def rank_of(s, energy):
    if energy >= 1:
        return len(s)
    share = np.cumsum(s * s) / np.sum(s * s)
    assert np.all(np.abs(share - energy) > 1e-6), "on the edge: choose other numbers"
    return int(np.argmax(share > energy)) + 1


def approximate(a, energy):
    """The approximation, and its floats."""
    rows, cols = a.shape
    if min(rows, cols) < 2:
        return a, a.size
    u, s, v = np.linalg.svd(a, full_matrices=False)
    k = rank_of(s, energy)
    if k * (rows + cols) >= rows * cols:
        return a, a.size
    return (u[:, :k] * s[:k]) @ v[:k], k * (rows + cols)


# ---- networks: one hidden layer ----

def split(w, hidden):
    at, out = 0, []
    for shape in (hidden, FEATURES), (hidden,), (CLASSES, hidden), (CLASSES,):
        n = int(np.prod(shape))
        out.append(w[at:at + n].reshape(shape))
        at += n
    return out, w[at:].reshape(-1, hidden) if len(w) > at else None


def forward(w, hidden, x):
    (a, a0, b, b0), _ = split(w, hidden)
    h = np.maximum(x @ a.T + a0, 0)
    return h @ b.T + b0, h


def backward(w, hidden, x, h, by_logits, by_hidden):
    (_, _, b, _), _ = split(w, hidden)
    g = (by_logits @ b + by_hidden) * (h > 0)
    return np.concatenate([(g.T @ x).ravel(), g.sum(0), (by_logits.T @ h).ravel(), by_logits.sum(0)])


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


# ---- the method ----

def fedkd(hidden_weight, start, end, rounds, cohorts):
    """cohorts: who takes part, by round."""
    def train(mentor, m, size, w_map, x, d, k):
        mentee = np.concatenate([x, w_map.ravel()]) if hidden_weight else x
        mom = None
        xs, q, n = d["x"][k], np.eye(CLASSES)[d["y"][k]], len(d["y"][k])
        for _ in range(EPOCHS):
            zt, ht = forward(mentor, size, xs)
            zs, hs = forward(mentee[:len(x)], MENTEE, xs)
            pt, ps = softmax(zt), softmax(zs)
            ce = [-np.mean(np.log(np.sum(p * q, 1))) for p in (pt, ps)]
            belief = 1 / sum(ce)
            gt, gs = (pt - q + belief * (pt - ps)) / n, (ps - q + belief * (ps - pt)) / n
            bt, bs, g_map = 0 * ht, 0 * hs, np.zeros(0)
            if hidden_weight:
                w = mentee[len(x):].reshape(size, MENTEE)
                off = (hs @ w.T - ht) * 2 * hidden_weight * belief / size / n
                bt, bs, g_map = -off, off @ w, (off.T @ hs).ravel()
            g = backward(mentor, size, xs, ht, gt, bt)
            m = g if m is None else MOMENTUM * m + g
            g = np.concatenate([backward(mentee[:len(x)], MENTEE, xs, hs, gs, bs), g_map])
            mom = g if mom is None else MOMENTUM * mom + g
            mentor, mentee = mentor - RATE * m, mentee - RATE * mom
        return mentor, m, mentee[:len(x)], mentee[len(x):].reshape(size, -1)

    def pack(change, energy):
        (a, a0, b, b0), _ = split(change, MENTEE)
        (a, na), (b, nb) = approximate(a, energy), approximate(b, energy)
        return np.concatenate([a.ravel(), a0, b.ravel(), b0]), na + nb + len(a0) + len(b0)

    def run(d):
        x, floats, down = d["mentee"], np.zeros((ROUNDS, CLIENTS + 1)), set()
        mentor, momentum = list(d["mentors"]), [None] * CLIENTS
        maps = [np.zeros((size, MENTEE)) for size in MENTORS]
        for r in range(ROUNDS):
            energy = start + (end - start) * min(1, r / (rounds - 1) if rounds > 1 else 1)
            total = 0
            for k in cohorts[r]:
                mentor[k], momentum[k], y, maps[k] = train(mentor[k], momentum[k], MENTORS[k], maps[k], x, d, k)
                change, floats[r, k] = pack(y - x, energy)
                total = total + SIZES[k] * change
            step, floats[r, CLIENTS] = pack(total / sum(SIZES[k] for k in cohorts[r]), energy)
            x = x + step
        return x, mentor, floats
    return run


EVERYBODY = [range(CLIENTS)] * ROUNDS
RUNS = {
    "answers": fedkd(0, 0.8, 0.9, 3, EVERYBODY),
    "hidden": fedkd(0.7, 0.95, 0.98, 4, EVERYBODY),
    "whole": fedkd(0.7, 1, 1, 1, EVERYBODY),
}


# ---- data and file ----

def data():
    r = np.random.default_rng(21)
    owner = np.repeat(np.arange(CLIENTS), SIZES)
    y = r.integers(0, CLASSES, len(owner))
    y[(owner == 0) & (y == 3)] = 1
    x = (r.normal(size=(len(owner), FEATURES)) + 1.5 * np.eye(CLASSES, FEATURES)[y]).astype(np.float32)
    size = [h * (FEATURES + 1) + CLASSES * (h + 1) for h in MENTORS + [MENTEE]]
    first = [r.normal(scale=0.4, size=n).astype(np.float32) for n in size]
    matrices = [(r.normal(size=(a, a)) @ np.diag(0.8 ** np.arange(a)) @ r.normal(size=(a, b))).astype(np.float32)
                for a, b in MATRICES]
    return x, y.astype(np.int32), owner.astype(np.int32), first, matrices


def main():
    x, y, owner, first, matrices = data()
    d = {"x": [x[owner == k].astype(float) for k in range(CLIENTS)], "y": [y[owner == k] for k in range(CLIENTS)],
         "mentors": [w.astype(float) for w in first[:CLIENTS]], "mentee": first[CLIENTS].astype(float)}
    out = {}
    for name, run in RUNS.items():  # doubles first: they stay aligned
        mentee, mentor, floats = run(d)
        out[f"{name}.mentee"] = mentee
        out[f"{name}.floats"] = floats
        out.update({f"{name}.mentor.{k}": w for k, w in enumerate(mentor)})
    for i, a in enumerate(matrices):
        for e, energy in enumerate(ENERGIES):
            approximation, floats = approximate(a.astype(float), energy)
            out[f"approximation.{i}.{e}"] = approximation
            out[f"size.{i}.{e}"] = np.array([float(floats)])
    out.update({f"matrix.{i}": a for i, a in enumerate(matrices)})
    out.update({"x": x, "y": y, "owner": owner, "mentee": first[CLIENTS]})
    out.update({f"mentor.{k}": w for k, w in enumerate(first[:CLIENTS])})
    write(os.path.join(os.path.dirname(os.path.abspath(__file__)), "fedkd.safetensors"), out)
    for name in RUNS:
        print(name, out[f"{name}.floats"].tolist())


if __name__ == "__main__":
    main()
