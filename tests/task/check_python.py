"""What test_python.sh left, read by python/fedstill.py and compared with what the program says, and with arithmetic:
the teacher is a linear layer, so its soft labels are computed here from its file.

    check_python.py SOURCES TASK DATA PARTITION.json
"""
import json
import struct
import sys

import numpy as np

sources, task, data, partition_json = sys.argv[1:]
sys.path.insert(0, sources + "/python")
import fedstill  # noqa: E402


def refused(what, call, *arguments):
    try:
        call(*arguments)
    except (fedstill.FormatError, KeyError) as e:
        assert what in str(e), (what, str(e))
        return
    raise AssertionError(what)


def idx(name):
    with open(f"{data}/{name}", "rb") as f:
        _, _, kind, rank = f.read(4)
        shape = struct.unpack(f">{rank}I", f.read(4 * rank))
        assert kind == 8
        return np.frombuffer(f.read(), np.uint8).reshape(shape)


# xxHash's own test vectors are in its sources; these are of the reference implementation 0.8.1, bytes 131 i + i/8.
source = bytes(131 * i + (i >> 3) & 255 for i in range(3000))
for length, seed, key in (
    (0, 0x9E3779B185EBCA8D, (0xa986dfc5d7605bfe, 0x00feaa732a3ce25e)),
    (1, 0x9E3779B185EBCA8D, (0x032be332dd766ef8, 0x20e49abcc53b3842)),
    (2, 0x9E3779B185EBCA8D, (0x8903344617be8834, 0x491b6fc4ad382531)),
    (3, 0x9E3779B185EBCA8D, (0x3358eb40074f0cd2, 0xaaf5462833e44512)),
    (4, 0x9E3779B185EBCA8D, (0x09fb1ef8a30127a7, 0xf35d23d28a6ab6ad)),
    (8, 0x9E3779B185EBCA8D, (0xf111cd7508f1cc9e, 0xe4cbdfe3b0a67f42)),
    (9, 0x9E3779B185EBCA8D, (0x05c1278f150e82b2, 0x58fabe16db9a5d64)),
    (16, 0x9E3779B185EBCA8D, (0xdfa2908bb693d0cd, 0x6f5673a39fd7917d)),
    (17, 0x9E3779B185EBCA8D, (0x2caf9016b033338e, 0x888a126d9505fd66)),
    (32, 0x9E3779B185EBCA8D, (0xde3f79856233c81e, 0x9315e31fd277d88a)),
    (33, 0x9E3779B185EBCA8D, (0x15d3175dfabf71c8, 0x751250d732bb6e0a)),
    (64, 0x9E3779B185EBCA8D, (0x58e279457c912567, 0x9b20cc7c3722cda1)),
    (65, 0x9E3779B185EBCA8D, (0xea4f3402dc77ef6d, 0x24290dd8091b4a55)),
    (96, 0x9E3779B185EBCA8D, (0xc59adcdf53c5f3b7, 0x4915954251a96630)),
    (97, 0x9E3779B185EBCA8D, (0x375772d176da2dda, 0x70dbef7a07c4aee0)),
    (128, 0x9E3779B185EBCA8D, (0xa33b81d9a68a1d95, 0x12ac2c4b13330609)),
    (129, 0x9E3779B185EBCA8D, (0x0238623bcd10d005, 0x5a13cc16d4cffb2f)),
    (160, 0x9E3779B185EBCA8D, (0x4869620086357588, 0x9780c15b4daa45f4)),
    (161, 0x9E3779B185EBCA8D, (0xb1f1bbd5c133c100, 0xd290d96179d68626)),
    (240, 0x9E3779B185EBCA8D, (0x7f34e7f5f3229f1a, 0x0acf9753247af115)),
    (241, 0x9E3779B185EBCA8D, (0x9feae1028277c7d9, 0x1ac3c61cc9c2991d)),
    (256, 0x9E3779B185EBCA8D, (0x7b9054746f0171c4, 0xbe0ff7ba5869f729)),
    (14, 0, (0xa6abbc779099e52b, 0x9c4c2f1d2f1560e5)),
    (397, 0x9E3779B185EBCA8D, (0xf06027ca500ad0e0, 0xa7ee51dcc15b6144)),
    (1076, 0x9E3779B185EBCA8D, (0x927dc6eb56612339, 0x69c538cafedb2f46)),
    (1173, 0x9E3779B185EBCA8D, (0xe295d98353ccccff, 0x622d9b0fb3c2a8ee)),
    (2143, 0x9E3779B185EBCA8D, (0x8f8385da9dcc1112, 0x6aa70254a39368cb)),
    (2822, 0x9E3779B185EBCA8D, (0xf4e8fd85e924388c, 0x943b0832709c3a94)),
):
    assert fedstill.xxh3_128(source[:length], seed) == key, length


run = fedstill.Run(task + "/output")
assert list(run.stages) == ["cloud_kd", "cloud_pretrain", "federated_train", "few"], run.stages
assert run.stages["few"]["format"] == "fedstill-stage-1"
assert run.summary["stages"]["cloud_pretrain"]["accuracy"] == run.stages["cloud_pretrain"]["accuracy"]

model = run.model("cloud_pretrain")
assert (model.arch, model.classes, model.input) == ("logistic_regression", 10, (1, 28, 28))
assert (model.mean, model.std) == (0.25, 0.5) and not model.fingerprint
assert len(model.class_names) in (0, 10)

images, labels = idx("train-images-idx3-ubyte")[:, None], idx("train-labels-idx1-ubyte")
logits = model.normalise(images).reshape(len(images), -1) @ model.tensors["fc.weight"].T + model.tensors["fc.bias"]
wanted = np.exp(logits - logits.max(1, keepdims=True))
wanted /= wanted.sum(1, keepdims=True)

soft = fedstill.SoftLabels(run.path("cloud_kd"))
assert (soft.content, soft.temperature, soft.classes) == ("probabilities", 1.0, 10)
assert soft.teacher_digest == run.stages["cloud_pretrain"]["digest"]
order = np.random.default_rng(1).permutation(len(images))
assert np.abs(soft.of(images[order]) - wanted[order]).max() < (1e-3 if soft.encoding == "f16" else 1e-5)
few = fedstill.SoftLabels(run.path("few"))
got, top = few.of(images), np.argsort(-wanted, 1)[:, :3]
assert few.encoding == "top_k" and np.abs(got.sum(1) - 1).max() < 1e-3
for row, want, best in zip(got, wanted, top):
    assert np.abs(row[best] - want[best]).max() < 1e-3
    others = np.delete(row, best)
    assert np.abs(others - others[0]).max() < 1e-6
refused("sample 0 has no soft label", soft.of, images + np.uint8(1))
refused("sample 0 has no soft label", soft.of, images.astype(np.float32))
refused("sample 0 has no soft label", soft.of, images[:, 0])

split = fedstill.Partition(run.path("federated_train", extra=True))
with open(partition_json) as f:
    said = json.load(f)
assert split.clients == 3 and split.method == said["method"] == "dirichlet(0.5)"
assert split.counts.tolist() == said["counts"]
for k in range(split.clients):
    own = split.samples_of(k)
    assert (np.bincount(labels[own], minlength=10) == split.counts[k]).all()
assert sum(len(split.samples_of(k)) for k in range(3)) == len(labels)

events = list(run.events())
rounds = [e for e in events if e["event"] == "round"]
assert [e["round"] for e in rounds] == [1, 2]
assert events[0]["event"] == "start" and events[-1] == {**events[-1], "event": "run", "status": "done"}
with open(task + "/cut.jsonl", "w") as f:
    f.write(json.dumps(rounds[0]) + "\n" + json.dumps(rounds[1])[:40])
assert list(fedstill.read_events(task + "/cut.jsonl")) == rounds[:1]

refused("'fedstill-partition-1' is needed", fedstill.Partition, run.path("cloud_pretrain"))
with open(run.path("cloud_pretrain"), "rb") as f:
    whole = f.read()
for end in (0, 7, 100, len(whole) - 4):
    with open(task + "/cut.safetensors", "wb") as f:
        f.write(whole[:end])
    refused("cut.safetensors", fedstill.Model, task + "/cut.safetensors")
for text in ("[1,2]", '{"x":{"dtype":"F32","shape":[1000000000,1000000000,1000000000],"data_offsets":[0,0]}}'):
    with open(task + "/cut.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text.encode())
    refused("cut.safetensors", fedstill.read_safetensors, task + "/cut.safetensors")
print("python/fedstill.py reads what the program wrote")
