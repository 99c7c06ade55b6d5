"""fedstill.Predictor against `fedstill predict --json`, bit for bit, and what it refuses. $FEDSTILL is the program,
$FEDSTILL_LIBRARY the library.

    check_predictor.py SOURCES MODEL IMAGES SCRATCH
"""
import gc
import json
import os
import struct
import subprocess
import sys
import threading

import numpy as np

sources, model, images, scratch = sys.argv[1:]
sys.path.insert(0, sources + "/python")
import fedstill  # noqa: E402


def refused(kind, what, call, *arguments):
    try:
        call(*arguments)
    except kind as e:
        assert what in str(e), (what, str(e))
        return e
    raise AssertionError(what)


def by_program(path, samples):
    np.save(scratch + "/samples.npy", samples)
    said = subprocess.run([os.environ["FEDSTILL"], "predict", path, scratch + "/samples.npy", "--top", "10", "--json"],
                          check=True, capture_output=True, text=True).stdout
    out = np.zeros((len(samples), 10), np.float32)
    for line in map(json.loads, said.splitlines()):
        for t in line["top"]:
            out[line["sample"], t["class"]] = t["probability"]
    return out


with open(images, "rb") as f:
    x = np.frombuffer(f.read()[16:], np.uint8).reshape(-1, 1, 28, 28)
p = fedstill.Predictor(model)
assert (p.arch, p.classes, p.input, p.class_names) == ("mnist_student", 10, (1, 28, 28), [])
assert p.version == subprocess.run([os.environ["FEDSTILL"], "--version"], check=True, capture_output=True,
                                   text=True).stdout.split()[1]
for n in (1, 5, 32, 64, 70, 2):
    assert (p.predict(x[:n]) == by_program(model, x[:n])).all(), n
scaled = x[:7] / np.float32(255) * 3 - 1
assert (p.predict(scaled) == by_program(model, scaled)).all()
assert (p.predict(scaled.astype(np.float64)) == p.predict(scaled)).all()
assert (p.predict(x[3]) == p.predict(x[3:4])[0]).all() and p.predict(x[3]).shape == (10,)
assert p.predict(x[:0]).shape == (0, 10)
strange = np.moveaxis(np.ascontiguousarray(np.moveaxis(x[:6], 0, 3)), 3, 0)  # the same samples, lying otherwise
assert not strange.flags.c_contiguous and (p.predict(strange[::2]) == p.predict(x[:6:2])).all()
assert np.abs(p.predict(x).sum(1) - 1).max() < 1e-5

# Threads take turns, and each gets its own.
wanted, got = [p.predict(x[i:i + 4]) for i in range(8)], [None] * 8


def work(i):
    for _ in range(5):
        got[i] = p.predict(x[i:i + 4])


workers = [threading.Thread(target=work, args=(i,)) for i in range(8)]
for w in workers:
    w.start()
for w in workers:
    w.join()
assert all((a == b).all() for a, b in zip(wanted, got))

# The same file with names for its classes.
with open(model, "rb") as f:
    head = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
    rest = f.read()
names = [f"Ziffer {i} \N{WHITE STAR}" for i in range(10)]
head["__metadata__"]["class_names"] = json.dumps(names)
with open(scratch + "/named.safetensors", "wb") as f:
    text = json.dumps(head).encode()
    f.write(struct.pack("<Q", len(text)) + text + rest)
named = fedstill.Predictor(scratch + "/named.safetensors", 1, os.environ["FEDSTILL_LIBRARY"])
assert named.class_names == names and (named.predict(x[:5]) == by_program(scratch + "/named.safetensors", x[:5])).all()
del named
gc.collect()

e = refused(fedstill.LibraryError, "nowhere.safetensors", fedstill.Predictor, scratch + "/nowhere.safetensors")
assert e.status == "io"
with open(scratch + "/cut.safetensors", "wb") as f:
    f.write(struct.pack("<Q", len(text)) + text + rest[:100])
assert refused(fedstill.LibraryError, "cut.safetensors", fedstill.Predictor, scratch + "/cut.safetensors").status == "format"
bad = np.zeros((3, 1, 28, 28), np.float32)
bad[2, 0, 0, 5] = np.inf
assert refused(fedstill.LibraryError, "sample 2, element 5", p.predict, bad).status == "numeric"
refused(ValueError, "the model takes (1, 28, 28)", p.predict, x[:, 0])
refused(TypeError, "int64", p.predict, x.astype(np.int64))
refused(OSError, "no-library", fedstill.Predictor, model, 0, scratch + "/no-library.so")
p.close()
p.close()
refused(ValueError, "closed", p.predict, x)
print("python/fedstill.py predicts what the program predicts")
