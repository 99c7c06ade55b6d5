#!/usr/bin/env python3
"""Checks what onnx_zoo left in FOLDER by onnx's own checker, and runs it by ONNX Runtime: the same logits within 1e-5 of
the largest (or of 1), for three samples at once and for one. Needs python3-onnx and python3-onnxruntime of Debian 13;
never needed to build or to run the tests.

    tests/models/check_onnx.py FOLDER
"""
import json
import os
import pathlib
import sys

import numpy
import onnx

# Debian's two packages share a library, in which the second registers every operator again, and says so for each.
quiet, own = os.open(os.devnull, os.O_WRONLY), os.dup(2)
os.dup2(quiet, 2)
import onnxruntime  # noqa: E402

os.dup2(own, 2)

folder = pathlib.Path(sys.argv[1])
worst, files = 0.0, sorted(folder.glob("*.onnx"))
if not files:
    sys.exit(f"check_onnx: no .onnx files in {folder}")
for path in files:
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    opset = {o.domain: o.version for o in model.opset_import}[""]
    pairs = {p.key: p.value for p in model.metadata_props}
    assert opset >= 17, (path, opset)
    assert pairs["fedstill"] == "fedstill-model-1", path
    assert isinstance(json.loads(pairs["class_names"]), list), path
    with numpy.load(folder / (path.stem.replace("-folded", "") + ".npz")) as case:
        x, want = case["x"], case["logits"]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (inp,), (out,) = session.get_inputs(), session.get_outputs()
    assert (inp.name, out.name) == ("input", "logits"), path
    assert inp.shape == ["batch", *x.shape[1:]], (path, inp.shape)
    assert out.shape == ["batch", want.shape[1]], (path, out.shape)
    got = session.run(None, {"input": x})[0]
    one = session.run(None, {"input": x[1:2]})[0]
    scale = max(1.0, float(numpy.abs(want).max()))
    off = max(float(numpy.abs(got - want).max()), float(numpy.abs(one - want[1:2]).max())) / scale
    worst = max(worst, off)
    nodes = len(model.graph.node)
    print(f"{path.name:36} {nodes:5} nodes  largest logit {scale:10.4g}  off by {off:.1e}")
    assert off <= 1e-5, (path, off)
print(f"check_onnx: {len(files)} files, {worst:.1e} at most")
