#!/usr/bin/python3
"""Makes the HDF5 files that the tests read, in tests/data/hdf5. Needs NumPy and h5py; building and testing do not need
this script."""
import os

import h5py
import numpy as np

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "hdf5")
LENGTH = 4


def parts(n=6, classes=24, labels=(0, 3, 23, 4, 0, 7)):
    """X[k, i] is (10 k + i) - (10 k + i + 0.5) j, but X[3] is X[0]; SNRs count from -20 in steps of 2."""
    base = (10 * np.arange(n)[:, None] + np.arange(LENGTH)).astype(np.float32)
    x = np.stack([base, -(base + 0.5)], axis=2)
    x[3] = x[0]
    y = np.zeros((n, classes), np.int64)
    y[np.arange(n), np.array(labels)[:n] % classes] = 1
    return {"X": x, "Y": y, "Z": (-20 + 2 * np.arange(n)).astype(np.int64).reshape(n, 1)}


def put(name, sets, **options):
    with h5py.File(os.path.join(OUT, name + ".hdf5"), "w") as f:
        for key, value in sets.items():
            f.create_dataset(key, data=value, **options)


def changed(**others):
    sets = parts()
    sets.update(others)
    return {k: v for k, v in sets.items() if v is not None}


def main():
    os.makedirs(OUT, exist_ok=True)
    put("gold", parts())
    put("chunks", parts(), chunks=True, compression="gzip", shuffle=True)
    wide = {k: v.astype(np.float64) for k, v in parts(classes=3).items()}
    put("doubles", wide)
    put("no_y", changed(Y=None))
    put("rows", changed(Y=parts(5)["Y"]))
    put("shape", changed(X=parts()["X"][:, :, :1]))
    put("two_ones", changed(Y=parts()["Y"] | np.eye(6, 24, dtype=np.int64)))
    put("nan", changed(X=parts()["X"] * np.nan))
    put("texts", changed(X=np.full((6, LENGTH, 2), b"1")))
    # a few hundred bytes that claim 8 GB, none of which was ever written
    with h5py.File(os.path.join(OUT, "claims.hdf5"), "w") as f:
        f.create_dataset("X", (1 << 20, 1024, 2), "f4", chunks=(1, 1024, 2))
        f.create_dataset("Y", (1 << 20, 24), "i8", chunks=(1024, 24))
        f.create_dataset("Z", (1 << 20, 1), "i8", chunks=(1024, 1))
    with h5py.File(os.path.join(OUT, "chunk.hdf5"), "w") as f:
        f.create_dataset("X", (1 << 14, 1024, 2), "f4", chunks=(1 << 14, 1024, 2))
    # values and links that lie in another file
    with h5py.File(os.path.join(OUT, "outside.hdf5"), "w") as f:
        f.create_dataset("X", (6, LENGTH, 2), "f4", external=[("gold.hdf5", 0, 6 * LENGTH * 8)])
    with h5py.File(os.path.join(OUT, "link.hdf5"), "w") as f:
        f["X"] = h5py.ExternalLink("gold.hdf5", "/X")
    with h5py.File(os.path.join(OUT, "virtual.hdf5"), "w") as f:
        layout = h5py.VirtualLayout((6, LENGTH, 2), "f4")
        layout[:] = h5py.VirtualSource("gold.hdf5", "X", (6, LENGTH, 2))
        f.create_virtual_dataset("X", layout)
    with h5py.File(os.path.join(OUT, "group.hdf5"), "w") as f:
        f.create_group("X")


if __name__ == "__main__":
    main()
