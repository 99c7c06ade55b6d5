#!/usr/bin/python3
"""Reads a TensorBoard event file, and checks it against the run that it is of: tfevents.py FILE [OUTPUT]

Standard library only, from the formats' descriptions (TFRecord, protocol buffers, event.proto, summary.proto), not from the
program that wrote it. Without OUTPUT prints the scalars, one a line; with it the numbers of OUTPUT/events.jsonl must be
those of the file, each where it belongs, and no others.
"""
import json
import math
import struct
import sys
from datetime import datetime, timezone


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


assert crc32c(b"123456789") == 0xE3069283 and crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(data):
    while data:
        n, crc = struct.unpack("<QI", data[:12])
        assert crc == masked(data[:8]), "the length's crc"
        body, rest = data[12:12 + n], data[12 + n:]
        assert len(body) == n and len(rest) >= 4, "cut off"
        assert struct.unpack("<I", rest[:4])[0] == masked(body), "the record's crc"
        yield body
        data = rest[4:]


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def fields(data):
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = varint(data, at)
        elif kind == 2:
            n, at = varint(data, at)
            value, at = data[at:at + n], at + n
            assert len(value) == n
        else:
            size = {1: 8, 5: 4}[kind]
            value, at = struct.unpack("<d" if kind == 1 else "<f", data[at:at + size])[0], at + size
        yield number, value


def scalars(path):
    """(tag, step, wall time, value) of the whole file."""
    with open(path, "rb") as f:
        events = []
        for i, record in enumerate(records(f.read())):
            step, wall = 0, None
            values = []
            for number, value in fields(record):
                if number == 1:
                    wall = value
                elif number == 2:
                    step = value
                elif number == 3:
                    assert i == 0 and value == b"brain.Event:2"
                elif number == 5:
                    for n, v in fields(value):
                        assert n == 1
                        inner = dict(fields(v))
                        assert set(inner) == {1, 2}
                        values.append((inner[1].decode(), inner[2]))
                else:
                    raise AssertionError(f"field {number} of an event")
            assert wall is not None and (i > 0) == bool(values)
            events += [(tag, step, wall, value) for tag, value in values]
    return events


def wanted(output):
    """The same from events.jsonl of a folder that had one run, without repeated rounds."""
    out = {}
    with open(output + "/events.jsonl") as f:
        for line in f:
            e = json.loads(line)
            wall = datetime.strptime(e["time"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc).timestamp()
            kind = e["event"]
            if kind in ("epoch", "round"):
                prefix, step, no = e["stage"], e[kind], {kind}
            elif kind == "client":
                who = "client" if "client" in e else "edge"
                prefix, step, no = f"{e['stage']}/client {e[who]}", e["round"], {"round", who}
            elif kind == "fusion":
                prefix, step = e["stage"] + "/fusion", e.get("round", e.get("epoch"))
                no = {"round", "epoch"}
            elif kind == "resources":
                prefix, step, no = "resources", math.floor(e["seconds"]), set()
            else:
                continue
            for key, v in e.items():
                if key not in {"time", "run", "stage", "event"} | no and type(v) in (int, float):
                    out.setdefault((f"{prefix}/{key}", step, round(wall, 3)), []).append(v)
    return out


def main():
    found = {}
    for tag, step, wall, value in scalars(sys.argv[1]):
        found.setdefault((tag, step, round(wall, 3)), []).append(value)
    if len(sys.argv) < 3:
        for (tag, step, _), values in found.items():
            print(tag, step, *values)
        return
    want = wanted(sys.argv[2])
    assert set(found) == set(want), sorted(set(found) ^ set(want))[:5]
    for key, values in want.items():
        near = [struct.unpack("<f", struct.pack("<f", v))[0] for v in values]
        assert found[key] == near, (key, found[key], near)
    print(sum(map(len, want.values())), "scalars")


main()
