#!/usr/bin/env python3
"""Whole small runs of FedMD and FD in float64, written from the papers: tests/fed/make_fedmd_fd.py >tests/fed/fedmd_fd.h

Three clients with linear networks (4 inputs, 3 classes) of their own, full batches, plain gradient descent. Client 2 is
lost in the second of three rounds: it stays what it was, and its share is in no mean of that round.
"""
import numpy as np

CLASSES, INPUTS, CLIENTS, ROUNDS, EPOCHS, RATE, GAMMA = 3, 4, 3, 3, 2, 0.25, 0.5
BEGIN, TOTAL = [0, 5, 12, 16], 22  # samples 16 ... 21 are public

x = np.sin(np.arange(TOTAL)[:, None] * 7 + np.arange(INPUTS) * 3 + 1).astype(np.float32).astype(np.float64)
y = np.array([i * i % 7 % CLASSES for i in range(TOTAL)])
public = x[BEGIN[CLIENTS]:]


def first(client):
    n = CLASSES * INPUTS + CLASSES
    v = np.cos(np.arange(n) * 5.0 + client).astype(np.float32).astype(np.float64)
    return [v[: CLASSES * INPUTS].reshape(CLASSES, INPUTS).copy(), v[CLASSES * INPUTS:].copy()]


def logits(w, a):
    return a @ w[0].T + w[1]


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def step(w, a, grad):
    return [w[0] - RATE * grad.T @ a, w[1] - RATE * grad.sum(axis=0)]


def own(client):
    part = slice(BEGIN[client], BEGIN[client + 1])
    return x[part], y[part]


def train(w, client, target=None):
    a, labels = own(client)
    for _ in range(EPOCHS):
        p = softmax(logits(w, a))
        grad = p - np.eye(CLASSES)[labels]
        if target is not None:
            q = target[labels]
            grad = grad + GAMMA * (q.sum(axis=1, keepdims=True) * p - q)
        w = step(w, a, grad / len(a))
    return w


def fedmd():
    models, mean = [first(k) for k in range(CLIENTS)], None
    for r in range(ROUNDS):
        sent = []
        for k in range(CLIENTS):
            if r == 1 and k == 2:
                continue
            w = models[k]
            if mean is not None:
                w = step(w, public, np.sign(logits(w, public) - mean) / mean.size)
            models[k] = train(w, k)
            sent.append(logits(models[k], public))
        mean = sum(sent) / len(sent)
    return models


def fd():
    models, shares, made = [first(k) for k in range(CLIENTS)], {}, None
    for r in range(ROUNDS):
        new = {}
        for k in range(CLIENTS):
            if r == 1 and k == 2:
                continue
            target = None
            if made is not None:
                target = np.zeros((CLASSES, CLASSES))
                for label in range(CLASSES):
                    others = [f[label] for j, (f, held) in made.items() if j != k and held[label]]
                    if others:
                        target[label] = sum(others) / len(others)
            models[k] = train(models[k], k, target)
            a, labels = own(k)
            p = softmax(logits(models[k], a))
            held = [bool((labels == label).any()) for label in range(CLASSES)]
            new[k] = ([p[labels == label].mean(axis=0) if held[label] else np.zeros(CLASSES) for label in range(CLASSES)],
                      held)
        made = new
    return models


print("/* Made by make_fedmd_fd.py: the clients' models after three rounds, weights, then biases. */")
for name, models in (("fedmd", fedmd()), ("fd", fd())):
    print("static const double expected_%s[3][15] = {" % name)
    for w in models:
        print("    {" + ",\n     ".join(", ".join("%.17g" % v for v in row) for row in np.array_split(
            np.concatenate([w[0].ravel(), w[1]]), 5)) + "},")
    print("};")
