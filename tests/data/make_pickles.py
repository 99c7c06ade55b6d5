#!/usr/bin/python3
"""Makes the pickles that the tests read, in tests/data/pickles and fuzz/corpus/pickle. Needs NumPy; building and
testing do not need this script. Python 2's streams are written by hand, as its cPickle writes them."""
import collections
import os
import pickle
import struct
import sys

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "pickles")
CORPUS = os.path.join(HERE, "..", "..", "fuzz", "corpus")


def put(name, data, corpus="pickle", first=0):
    """A test file, and with a byte in front an input of that corpus ("": of none)."""
    with open(os.path.join(OUT, name + ".pkl"), "wb") as f:
        f.write(data)
    if corpus:
        with open(os.path.join(CORPUS, corpus, name), "wb") as f:
            f.write(bytes([first]) + data)


def block(first, n, length=4):
    """n samples (2, length): first, first + 0.5, first + 1 ..."""
    return (first + 0.5 * np.arange(n * 2 * length)).astype(np.float32).reshape(n, 2, length)


# {(label, snr): (N, 2, 4)}: labels out of order, SNRs out of order
CELLS = collections.OrderedDict(
    [(("QPSK", 10), block(0, 2)), (("8PSK", -4), block(100, 1)), (("QPSK", -20), block(100, 1)), (("8PSK", 10), block(300, 2))]
)


class Python2:
    """A protocol 2 stream as Python 2's cPickle writes it: str is SHORT_BINSTRING and BINSTRING."""

    def __init__(self):
        self.memo = 0

    def memoize(self):
        self.memo += 1
        return b"q" + bytes([self.memo - 1])

    def text(self, s):
        b = s if isinstance(s, bytes) else s.encode("latin1")
        return (b"U" + bytes([len(b)]) if len(b) < 256 else b"T" + struct.pack("<i", len(b))) + b + self.memoize()

    def integer(self, i):
        return b"K" + bytes([i]) if 0 <= i < 256 else b"J" + struct.pack("<i", i)

    def shape(self, dims):
        return b"".join(map(self.integer, dims)) + bytes([0x84 + len(dims)]) + self.memoize()

    def array(self, a):
        return (
            b"cnumpy.core.multiarray\n_reconstruct\n" + self.memoize() + b"cnumpy\nndarray\n" + self.memoize()
            + b"K\x00\x85" + self.memoize() + self.text("b") + b"\x87" + self.memoize() + b"R" + self.memoize()
            + b"(K\x01" + self.shape(a.shape) + b"cnumpy\ndtype\n" + self.memoize() + self.text(a.dtype.str[1:])
            + b"K\x00K\x01\x87" + self.memoize() + b"R" + self.memoize() + b"(K\x03" + self.text("<")
            + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t" + self.memoize() + b"b\x89"
            + self.text(a.tobytes()) + b"t" + self.memoize() + b"b"
        )

    def cells(self, d):
        out = b"\x80\x02}" + self.memoize() + b"("
        for (label, snr), a in d.items():
            out += self.text(label) + self.integer(snr) + b"\x86" + self.memoize() + self.array(a)
        return out + b"u."


def images(*values):
    """A row of CIFAR a value: all 3072 bytes are the value, but the first is one more."""
    x = np.repeat(np.array(values, "u1"), 3072).reshape(-1, 3072)
    x[:, 0] += 1
    return x


def cifar():
    """CIFAR's Python version, small: batch k of CIFAR-10 has two images, 10 k and 10 k + 1, with labels k and k + 1."""
    folders = {"cifar-10-batches-py": {}, "cifar-100-python": {}}
    ten, hundred = folders.values()
    for k in range(6):
        batch = {b"labels": [k, k + 1], b"data": images(10 * k, 10 * k + 1), b"batch_label": b"a batch"}
        ten["data_batch_%d" % k if k else "test_batch"] = pickle.dumps(batch, 2)
    ten["batches.meta"] = pickle.dumps({"label_names": ["class %d" % c for c in range(10)], "num_vis": 3072}, 0)
    for name, value in (("train", 5), ("test", 6)):
        batch = {"fine_labels": [value, 99], "coarse_labels": [0, 1], "data": images(value, 99)}
        hundred[name] = pickle.dumps(batch, 4)
    hundred["meta"] = pickle.dumps({"fine_label_names": ["fine %d" % c for c in range(100)]}, 4)
    for folder, files in folders.items():
        os.makedirs(os.path.join(OUT, folder), exist_ok=True)
        for name, data in files.items():
            with open(os.path.join(OUT, folder, name), "wb") as f:
                f.write(data)
    bad = {"labels": [3], "data": images(1)}
    inputs = {
        "ten": (0, ten["test_batch"]), "hundred": (1, hundred["train"]), "limit": (2, ten["test_batch"]),
        "high-label": (0, pickle.dumps(dict(bad, labels=[10]), 2)), "text-label": (0, pickle.dumps(dict(bad, labels=["a"]), 2)),
        "few-labels": (0, pickle.dumps(dict(bad, labels=[]), 2)), "no-list": (0, pickle.dumps(dict(bad, labels=3), 2)),
        "wide": (0, pickle.dumps(dict(bad, data=np.zeros((1, 3073), "u1")), 2)),
        "floats": (0, pickle.dumps(dict(bad, data=np.zeros((1, 3072), "f4")), 2)), "cut": (0, ten["test_batch"][:3000]),
    }
    for name, (first, data) in inputs.items():
        with open(os.path.join(CORPUS, "cifar_python", name), "wb") as f:
            f.write(bytes([first]) + data)


def main():
    os.makedirs(OUT, exist_ok=True)
    everything = {
        "none": None, "yes": True, "no": False, "small": 7, "negative": -70000, "long": 2**40, "deep": -(2**62),
        "real": -1.5, "text": "Gr\u00fc\u00dfe \u4e2d\U0001f4e1 \\ \n", "bytes": bytes(range(256)), "tuple": (1, (2, 3), ()),
        "four": (1, 2, 3, 4), "list": [1, [2.5], []], "shared": [[9]] * 2,
        "ordered": collections.OrderedDict([("b", 1), ("a", 2)]),
    }
    arrays = {
        "f4": np.arange(6, dtype="<f4").reshape(2, 3), "f8": np.array([1.25, -2]), "big": np.array([1, -2, 300], ">i2"),
        "fortran": np.asfortranarray(np.arange(6, dtype="u1").reshape(2, 3)), "bool": np.array([True, False]),
        "scalar": np.float32(0.5), "integer": np.int64(-3), "u8": np.uint8(200), "empty": np.zeros((0, 2), "f4"),
        "rank0": np.array(4, "i4"), "half": np.array([0.5, -2], "f2"),
    }
    splits = {
        "train": (block(0, 3), np.array([2, 0, 1])),
        "val": (block(50, 1), np.array([1], "i4")),
        "test": (block(70, 2), [0, 2]),
    }
    for protocol in range(6):
        put("values%d" % protocol, pickle.dumps(everything, protocol))
        put("arrays%d" % protocol, pickle.dumps(arrays, protocol))
        put("radioml%d" % protocol, pickle.dumps(dict(CELLS), protocol), corpus="radioml" if protocol in (0, 2, 5) else "")
    put("splits", pickle.dumps(splits, 4), corpus="radioml")
    put("from_one", pickle.dumps({"train": (block(0, 3), [1, 2, 1])}, 4), corpus="radioml")
    put("empty_cell", pickle.dumps({("a", 0): block(0, 0), ("b", 0): block(0, 2)}, 4), corpus="radioml")
    put("python2", Python2().cells(CELLS), "radioml")
    # protocol 0 of Python 2: texts in quotes with escapes
    put("python2_0", b"(dp1\nS'a\\x00\\n\\'\\\\\\377'\np2\nI5\nsS\"it's\"\np3\nL12345678901L\nsVgr\\u00fc\\u4e2d\np4\nF-0.25\nsI01\nI00\ns.")

    class Evil:
        def __reduce__(self):
            return (os.system, ("touch /tmp/fedstill-was-here",))

    class Builtin:
        def __reduce__(self):
            return (eval, ("1",))

    put("evil0", pickle.dumps({("a", 1): Evil()}, 0))
    put("evil4", pickle.dumps({("a", 1): Evil()}, 4))
    put("eval2", pickle.dumps(Builtin(), 2))
    put("instance", b"(ios\nsystem\n.")
    put("newobj", b"\x80\x02cnumpy\nndarray\n)\x81.")
    put("object_array", pickle.dumps(np.array([1, None], dtype=object), 2))
    put("structured", pickle.dumps(np.zeros(2, dtype=[("a", "i4")]), 2))
    put("complex", pickle.dumps(np.zeros(2, dtype="c8"), 2))
    put("set", pickle.dumps({1, 2}, 4))
    put("self", b"\x80\x02]q\x00h\x00a.")
    put("marks", b"(" * 5000)
    put("memo", b"Nr\xff\xff\xff\x7f.")
    put("huge_text", b"\x8d" + b"\xff" * 8 + b"abc.")
    put("huge_long", b"\x8a\x0a" + b"\x01" * 10 + b".")
    put("lying_array", pickle.dumps(np.zeros((2, 3), "f4"), 2).replace(b"K\x02K\x03\x86", b"K\x02K\x04\x86"))
    put("none", b"N.")
    put("two_values", b"NN.")
    put("nothing", b".")
    put("trailing", b"N.N")
    put("protocol9", b"\x80\x09N.")
    put("wrong_split", pickle.dumps({"train": (block(0, 2), [0, 1, 2]), "test": 7}, 4), corpus="radioml")
    put("wrong_shape", pickle.dumps({("a", 0): block(0, 2), ("b", 0): block(0, 2, 5)}, 4), corpus="radioml")
    put("wrong_key", pickle.dumps({("a", 0): block(0, 2), "b": block(0, 2)}, 4), corpus="radioml")
    put("wrong_type", pickle.dumps({("a", 0): np.zeros((2, 2, 4), "i2")}, 4), corpus="radioml")
    put("wrong_nan", pickle.dumps({("a", 0): block(0, 1), ("b", 0): np.full((1, 2, 4), np.nan, "f4")}, 4), corpus="radioml")
    put("doubles", pickle.dumps({("a", np.int64(3)): np.full((1, 2, 4), 0.25), (b"\xfc", 2.5): block(1, 1)}, 4), corpus="radioml")
    cifar()


if __name__ == "__main__":
    sys.exit(main())
