"""Writes what the scripts beside the tests compute as safetensors, with numpy alone."""
import json
import struct

KINDS = {"float32": "F32", "float64": "F64", "int32": "I32"}


def write(path, tensors):
    """tensors: name -> array, in this order; doubles first, so that they stay aligned."""
    header, at = {}, 0
    for name, a in tensors.items():
        header[name] = {"dtype": KINDS[str(a.dtype)], "shape": list(a.shape), "data_offsets": [at, at + a.nbytes]}
        at += a.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(a.tobytes() for a in tensors.values()))
