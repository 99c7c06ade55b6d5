#!/usr/bin/python3
"""Makes the PyTorch files that the tests read, in tests/tensor/pth and fuzz/corpus/pth. Needs PyTorch; building and
testing do not need this script."""
import collections
import os
import shutil
import zipfile

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "pth")
CORPUS = os.path.join(HERE, "..", "..", "fuzz", "corpus", "pth")


def save(name, what, **how):
    path = os.path.join(OUT, name + ".pth")
    torch.save(what, path, **how)
    shutil.copy(path, os.path.join(CORPUS, name))


def change(name, member, data, source="dict"):
    """A copy of a zip file with other bytes for a member (None: without it)."""
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


class Evil:
    def __reduce__(self):
        return (os.system, ("touch /tmp/fedstill-was-here",))


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
        old = f.read()
    with open(os.path.join(OUT, "legacy_cut.pth"), "wb") as f:
        f.write(old[:-3])
    shutil.copy(os.path.join(OUT, "legacy_cut.pth"), os.path.join(CORPUS, "legacy_cut"))


if __name__ == "__main__":
    main()
