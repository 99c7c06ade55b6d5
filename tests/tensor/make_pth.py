#!/usr/bin/python3
"""Makes the PyTorch files that the tests read, in tests/tensor/pth and fuzz/corpus/pth: make_pth.py [NAME ...] makes
those named, without names all. Needs PyTorch; building and testing do not need this script."""
import argparse
import collections
import io
import os
import pickle
import re
import shutil
import sys
import zipfile

import numpy
import torch

NAMES = sys.argv[1:]
HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "pth")
CORPUS = os.path.join(HERE, "..", "..", "fuzz", "corpus", "pth")


def save(name, what, **how):
    if NAMES and name not in NAMES:
        return
    path = os.path.join(OUT, name + ".pth")
    torch.save(what, path, **how)
    shutil.copy(path, os.path.join(CORPUS, name))


def change(name, member, data, source="dict"):
    """A copy of a zip file with other bytes for a member (None: without it)."""
    if NAMES and name not in NAMES:
        return
    path = os.path.join(OUT, name + ".pth")
    with zipfile.ZipFile(os.path.join(OUT, source + ".pth")) as old, zipfile.ZipFile(path, "w") as new:
        for m in old.namelist():
            if not m.endswith("/" + member):
                new.writestr(m, old.read(m))
            elif callable(data):
                new.writestr(m, data(old.read(m)))
        if isinstance(data, bytes):
            new.writestr(source + "/" + member, data)
    shutil.copy(path, os.path.join(CORPUS, name))


def negative(name, source, nth):
    """A copy of a zip file in which tensor number nth has the metadata {"neg": True}."""

    def mark(data):
        # a tensor's last argument is collections.OrderedDict(), and the tuple's end follows
        parts = re.split(rb"(?<=\)R)(q.)(?=t)", data, flags=re.DOTALL)
        parts[2 * nth - 1] += b"}X\x03\0\0\0neg\x88s"
        return b"".join(parts)

    change(name, "data.pkl", mark, source)


class Evil:
    def __reduce__(self):
        return (os.system, ("touch /tmp/fedstill-was-here",))


def write(name, data):
    if NAMES and name not in NAMES:
        return
    for path in (os.path.join(OUT, name + ".pth"), os.path.join(CORPUS, name)):
        with open(path, "wb") as f:
            f.write(data)


# A logistic regression of 1 x 2 images and two classes, as all files below hold it.
WEIGHTS = {"fc.weight": torch.tensor([[1.0, -1.0], [0.5, 2.0]]), "fc.bias": torch.tensor([0.0, 0.25])}


class Other:
    """Any object of a training script."""

    def __init__(self):
        self.tensor = torch.ones(3)


class Many(list):
    """An object that is filled like a list."""


class Named(dict):
    """An object that is filled like a dictionary."""


class Old:
    """As classes of Python 2 are pickled: OBJ and INST."""


class OldPickler(pickle._Pickler):
    def save_old(self, o):
        if self.bin:
            self.write(pickle.MARK)
            self.save_global(type(o))
            self.write(pickle.OBJ)
        else:
            self.write(pickle.MARK + b"i__main__\nOld\n")
        self.save({"x": 1})
        self.write(pickle.BUILD)

    dispatch = dict(pickle._Pickler.dispatch)
    dispatch[Old] = save_old


class Old_module:
    """What torch.save asks of a pickle module."""

    Pickler = OldPickler
    dump, load, dumps, loads, Unpickler = pickle.dump, pickle.load, pickle.dumps, pickle.loads, pickle.Unpickler


def containers():
    """Where training scripts put a state_dict, and what they put beside it."""
    other = {"fc.weight": torch.full((2, 2), 9.0), "fc.bias": torch.full((2,), 9.0)}
    save("best_acc", {"epoch": 3, "best_acc1": torch.tensor(61.5), "state_dict": WEIGHTS, "optimizer": {"m": torch.ones(2)}})
    save("inner", {"model": {"epoch": 1, "state_dict": WEIGHTS}, "ema": other})
    save("deep", {"epoch": 1, "run": {"best": {"state_dict": WEIGHTS, "optimizer": {"state": other}}, "lr": 0.1}})
    save("two_deep", {"generator": {"state_dict": WEIGHTS}, "critic": {"state_dict": other}})
    save("averaged", {"ema": WEIGHTS, "optimizer": {"m": torch.ones(2)}})
    save("with_ema", {"model": other, "ema": WEIGHTS, "step": torch.tensor(7)})
    save("params", {"params": WEIGHTS})
    save("pair", (WEIGHTS, 12, {"lr": 0.1}))
    save("counter", {"net": collections.defaultdict(float, WEIGHTS), "milestones": collections.Counter({30: 1, 60: 1})})
    save("plain_objects", {"state_dict": WEIGHTS, "device": torch.device("cpu"), "dtype": torch.float32, "tags": {"a", "b"},
                           "frozen": frozenset([1]), "size": torch.Size([1, 2]), "layout": torch.strided, "complex": 1j})
    save("objects", {"state_dict": WEIGHTS, "args": argparse.Namespace(lr=0.1, names=["x"]), "o": Other(), "many": Many([1, 2]),
                     "named": Named(a=1), "class": Other, "function": os.path.join, "optimizer": torch.optim.SGD,
                     "generator": numpy.random.PCG64(1).state, "big": 1 << 100})
    save("arrays", {"state_dict": WEIGHTS, "scalar": numpy.float64(0.5), "texts": numpy.array(["a", "bc"]),
                    "objects": numpy.array([None, 1], dtype=object), "complex": numpy.ones(2, complex),
                    "time": numpy.datetime64("2020-01-01"), "table": numpy.zeros(2, [("a", "f4"), ("b", "i8")])})
    with_state = torch.nn.Parameter(WEIGHTS["fc.weight"])
    save("odd_beside", {"state_dict": WEIGHTS, "spectrum": torch.zeros(2, dtype=torch.complex64),
                        "sparse": torch.eye(2).to_sparse(), "deep": torch.zeros([1] * 8)})
    save("subclass", {"fc.weight": with_state.as_subclass(Subclass), "fc.bias": WEIGHTS["fc.bias"]})
    negative("negative", "params", 1)  # as PyTorch 2 writes them; before, the mark was lost
    negative("negative_beside", "best_acc", 1)
    save("sparse", {"state_dict": {"fc.weight": torch.eye(2).to_sparse(), "fc.bias": WEIGHTS["fc.bias"]}})
    for name, prefix in (("opacus", "_module."), ("compiled", "_orig_mod.module."), ("fsdp", "_fsdp_wrapped_module."),
                         ("peft", "base_model.model."), ("unusual", "trunk.stage2.")):
        save("prefix_" + name, {prefix + k: v for k, v in WEIGHTS.items()})
    save("prefix_inside", {k.replace(".", "._orig_mod."): v for k, v in WEIGHTS.items()})


class Subclass(torch.Tensor):
    pass


def protocols():
    """New and old files in every protocol; 0 has no persistent ids but texts."""
    beside = {"model": WEIGHTS, "tags": {"a"}, "args": argparse.Namespace(lr=0.1), "big": -(1 << 90)}
    for protocol in range(6):
        save("zip%d" % protocol, beside, pickle_protocol=protocol)
        save("stream%d" % protocol, beside, pickle_protocol=protocol, _use_new_zipfile_serialization=False)
    for protocol in (1, 2):
        save("python2_%d" % protocol, {"model": WEIGHTS, "o": Old()}, pickle_module=Old_module, pickle_protocol=protocol,
             _use_new_zipfile_serialization=False)


class Persistent(pickle.Pickler):
    """Writes what PyTorch of other versions wrote: callables by name, storages by id."""

    def persistent_id(self, o):
        return o.id if isinstance(o, Id) else None

    def reducer_override(self, o):
        if isinstance(o, Call):
            return Global.make(o.name), o.args
        return NotImplemented


class Id:
    def __init__(self, *parts):
        self.id = parts


class Call:
    def __init__(self, name, *args):
        self.name, self.args = name, args


class Global:
    """A function that pickles as another module's."""

    @staticmethod
    def make(name):
        module, _, last = name.rpartition(".")

        def f(*args):
            raise NotImplementedError

        f.__module__, f.__qualname__, f.__name__ = module, last, last
        holder = sys.modules.setdefault(module, type(sys)(module))
        if not hasattr(holder, last):
            setattr(holder, last, f)
        return getattr(holder, last)


def dumps(what):
    out = io.BytesIO()
    Persistent(out, 2).dump(what)
    return out.getvalue()


def old_tensors():
    """A hand-made zip and stream: the tensors of PyTorch 0.1 (four arguments) and 2.3 (untyped bytes), and views."""
    data = WEIGHTS["fc.weight"].numpy().tobytes() + WEIGHTS["fc.bias"].numpy().tobytes()
    storage = Id("storage", torch.FloatStorage, "0", "cpu", 6, None)
    v1 = {"fc.weight": Call("torch._utils._rebuild_tensor", storage, 0, (2, 2), (2, 1)),
          "fc.bias": Call("torch._utils._rebuild_tensor", storage, 4, (2,), (1,))}
    write("version1", stream(dumps(v1), {"0": (6, data)}))
    view = Id("storage", torch.FloatStorage, "0", "cuda:0", 6, ("7", 4, 2))
    v1["fc.bias"] = Call("torch._utils._rebuild_tensor", view, 0, (2,), (1,))
    write("views", stream(dumps(v1), {"0": (6, data)}))
    past = Id("storage", torch.FloatStorage, "0", "cuda:0", 6, ("7", 4, 3))
    v1["fc.bias"] = Call("torch._utils._rebuild_tensor", past, 0, (2,), (1,))
    write("views_past", stream(dumps(v1), {"0": (6, data)}))
    raw = Id("storage", torch.ByteStorage, "0", "cpu", 24)
    v3 = {"fc.weight": Call("torch._utils._rebuild_tensor_v3", raw, 0, (2, 2), (2, 1), False, {}, torch.float32),
          "fc.bias": Call("torch._utils._rebuild_tensor_v3", raw, 4, (2,), (1,), False, {}, torch.float32),
          "state": Call("torch._utils._rebuild_parameter_with_state",
                        Call("torch._utils._rebuild_tensor_v2", storage, 4, (2,), (1,), True, {}), True, {}, {"a": 1})}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        z.writestr("archive/data.pkl", dumps(v3))
        z.writestr("archive/data/0", data)
    write("version3", out.getvalue())


def stream(body, storages):
    out = dumps(0x1950A86A20F9469CFC6C) + dumps(1001) + dumps({"little_endian": True}) + body + dumps(sorted(storages))
    for key in sorted(storages):
        count, data = storages[key]
        out += count.to_bytes(8, "little") + data
    return out


def not_dictionaries():
    """What is refused, and says what it is."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 1))
    save("module_legacy", model, _use_new_zipfile_serialization=False)
    save("module_inside", {"epoch": 1, "model": model, "optimizer": {"m": torch.ones(2)}})
    save("object", argparse.Namespace(a=torch.ones(2)))
    if not NAMES or "script" in NAMES:
        out = io.BytesIO()
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 1), torch.ones(1, 2)), out)
        write("script", out.getvalue())
    for name, members in (("npz", ["arr_0.npy"]), ("keras", ["config.json", "model.weights.h5"])):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as z:
            for m in members:
                z.writestr(zipfile.ZipInfo(m), b"x")
        write(name, out.getvalue())


def hostile():
    """Small files that stand for much: tests/tensor/test_budget.sh."""
    save("stride0", {"conv1.weight": torch.ones(1).expand(1 << 15, 1 << 15)})
    shared = {"w": torch.ones(1)}
    for _ in range(3):
        shared = {"k%d" % i: shared for i in range(100)}
    save("shared_dicts", shared)
    if not NAMES or "deflated" in NAMES:
        with zipfile.ZipFile(os.path.join(OUT, "deflated.pth"), "w", zipfile.ZIP_DEFLATED, compresslevel=9) as z:
            z.writestr(zipfile.ZipInfo("a/data.pkl"), b"\x80\x02(" + b"]" * (1 << 24) + b"l.", zipfile.ZIP_DEFLATED, 9)


def main():
    os.makedirs(OUT, exist_ok=True)
    os.makedirs(CORPUS, exist_ok=True)
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    state = collections.OrderedDict(
        [
            ("conv.weight", base),
            ("conv.turned", base.t()),  # the same storage, other strides
            ("conv.part", base[1:, 1:3]),  # from its middle
            ("bn.num_batches_tracked", torch.tensor(7)),
            ("half", torch.tensor([0.5, -2.0]).half()),
            ("brain", torch.tensor([1.0, -3.0]).bfloat16()),
            ("double", torch.tensor([[0.25]], dtype=torch.float64)),
            ("bytes", torch.tensor([0, 255], dtype=torch.uint8)),
            ("flags", torch.tensor([True, False])),
            ("empty", torch.zeros(0, 3)),
            ("spread", torch.tensor([5.0]).expand(2, 3)),
            ("parameter", torch.nn.Parameter(torch.tensor([1.5]))),
        ]
    )
    state._metadata = {"": {"version": 1}}
    save("dict", state)
    save("legacy", state, _use_new_zipfile_serialization=False)
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0]]))
        model.bias.copy_(torch.tensor([3.0]))
    checkpoint = {"epoch": 3, "optimizer": optimizer.state_dict(), "state_dict": model.state_dict(), "best": 0.5}
    save("checkpoint", checkpoint)
    save("checkpoint_legacy", checkpoint, _use_new_zipfile_serialization=False)
    # a logistic regression of 1 x 2 images and two classes, for `fedstill model import`
    logistic = {"fc.weight": torch.tensor([[1.0, -1.0], [0.5, 2.0]]), "fc.bias": torch.tensor([0.0, 0.25])}
    save("logistic", {"state_dict": logistic})
    save("logistic_legacy", {"model": logistic}, _use_new_zipfile_serialization=False)
    save("nested", {"a": {"w": torch.ones(1)}, "list": [torch.zeros(2), {"x": torch.ones(2)}], "n": None})
    save("evil", {"w": torch.ones(1), "e": Evil()})
    save("module", model)
    save("bare", torch.ones(2))
    save("nothing", {"epoch": 1})
    save("complex", {"w": torch.zeros(2, dtype=torch.complex64)})
    change("missing", "data/0", None)
    change("short", "data/0", lambda b: b[:-4])
    change("no_pickle", "data.pkl", None)
    change("big", "byteorder", b"big")
    with open(os.path.join(OUT, "legacy.pth"), "rb") as f:
        write("legacy_cut", f.read()[:-3])
    containers()
    protocols()
    old_tensors()
    not_dictionaries()
    hostile()


if __name__ == "__main__":
    main()
