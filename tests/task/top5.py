#!/usr/bin/python3
"""The share of test samples whose class is among the five largest logits: top5.py PREDICTIONS LABELS

Reads edge_infer's predictions.safetensors and MNIST's file of labels; prints top-1 and top-5.
"""
import json
import struct
import sys


def tensors(path):
    with open(path, "rb") as f:
        head = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        body = f.read()
    kinds = {"F32": "f", "F64": "d", "U32": "I", "I32": "i", "U8": "B"}
    return {n: (t["shape"], struct.unpack("<%d%s" % ((t["data_offsets"][1] - t["data_offsets"][0]) //
                                                       struct.calcsize(kinds[t["dtype"]]), kinds[t["dtype"]]),
                                          body[t["data_offsets"][0]:t["data_offsets"][1]]))
            for n, t in head.items() if n != "__metadata__"}


t = tensors(sys.argv[1])
with open(sys.argv[2], "rb") as f:
    labels = f.read()[8:]
(samples, classes), logits = t["logits"]
ranks = []
for i, index in enumerate(t["index"][1]):
    row = logits[i * classes:(i + 1) * classes]
    ranks.append(sorted(range(classes), key=lambda c: (-row[c], c)).index(labels[index]))
assert samples == len(labels) == len(ranks)
print(sum(r < 1 for r in ranks) / samples, sum(r < 5 for r in ranks) / samples)
