#!/usr/bin/python3
"""A site of a fleet, written from docs/protocol.md alone: Python's standard library and paho-mqtt, nothing of fedstill.

    peer.py PORT ID CLIENT SAMPLES SEED DESCRIPTION CLASSES [die-at ROUND]

Its "training" adds SEED/1000 to every parameter; what is of interest is the protocol. It ends with 0 when the cloud lets
it go, with 2 when it is refused. With "die-at" it kills itself when it has offered the update of that round.
"""
import hashlib
import json
import os
import queue
import struct
import sys
import time

import paho.mqtt.client as mqtt

MASK = (1 << 64) - 1
HELLO, BEAT, RESULT, BYE, GET, PART, WELCOME, REFUSAL, ORDER, RECEIPT, FIGURES = 1, 2, 3, 5, 6, 7, 9, 10, 11, 12, 15
PART_BYTES, WINDOW = 524288, 8

# ---- XXH3-64 with seed 0 and the default secret (https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md).
# Frames have at least 76 bytes, so that the forms for up to 16 are not needed.

SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221"
    "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb"
    "170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e")
P32_1, P32_2, P32_3 = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D
P64_1, P64_2, P64_3, P64_4, P64_5 = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63,
                                     0x27D4EB2F165667C5)


def u64(b, at):
    return int.from_bytes(b[at:at + 8], "little")


def fold(a, b):
    p = a * b
    return (p & MASK) ^ (p >> 64)


def avalanche(h):
    h ^= h >> 37
    h = h * 0x165667919E3779F9 & MASK
    return h ^ h >> 32


def mix16(b, at, secret):
    return fold(u64(b, at) ^ u64(SECRET, secret), u64(b, at + 8) ^ u64(SECRET, secret + 8))


def xxh3(b):
    n = len(b)
    if n <= 128:
        acc = n * P64_1 & MASK
        for i in range((n - 1) // 32, -1, -1):
            acc += mix16(b, 16 * i, 32 * i) + mix16(b, n - 16 * (i + 1), 32 * i + 16)
        return avalanche(acc & MASK)
    if n <= 240:
        acc = n * P64_1 & MASK
        for i in range(8):
            acc += mix16(b, 16 * i, 16 * i)
        acc = avalanche(acc & MASK)
        for i in range(8, n // 16):
            acc += mix16(b, 16 * i, 16 * (i - 8) + 3)
        return avalanche((acc + mix16(b, n - 16, 136 - 17)) & MASK)
    acc = [P32_3, P64_1, P64_2, P64_3, P64_4, P32_2, P64_5, P32_1]
    lanes = struct.Struct("<8Q")
    per_block = (len(SECRET) - 64) // 8
    keys = [lanes.unpack_from(SECRET, 8 * i) for i in range(per_block)]

    def accumulate(at, key):
        data = lanes.unpack_from(b, at)
        for i in range(8):
            x = data[i] ^ key[i]
            acc[i ^ 1] = acc[i ^ 1] + data[i] & MASK
            acc[i] = acc[i] + (x & 0xFFFFFFFF) * (x >> 32) & MASK

    last = lanes.unpack_from(SECRET, len(SECRET) - 64)
    stripes = (n - 1) // 64
    for s in range(stripes):
        accumulate(64 * s, keys[s % per_block])
        if s % per_block == per_block - 1:
            for i in range(8):
                acc[i] = ((acc[i] ^ acc[i] >> 47) ^ last[i]) * P32_1 & MASK
    accumulate(n - 64, lanes.unpack_from(SECRET, len(SECRET) - 64 - 7))
    h = n * P64_1 & MASK
    for i in range(4):
        h += fold(acc[2 * i] ^ u64(SECRET, 11 + 16 * i), acc[2 * i + 1] ^ u64(SECRET, 19 + 16 * i))
    return avalanche(h & MASK)


# ---- messages of strategies: safetensors


def read_message(data):
    n = u64(data, 0)
    head = json.loads(data[8:8 + n])
    tensors = {}
    for name, t in head.items():
        if name != "__metadata__":
            begin, end = t["data_offsets"]
            tensors[name] = (t["dtype"], t["shape"], data[8 + n + begin:8 + n + end])
    return head["__metadata__"], tensors


def write_message(meta, tensors):
    head, body = {"__metadata__": meta}, b""
    for name, (dtype, shape, data) in tensors.items():
        body += b"\0" * (-len(body) % 8)
        head[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def train(down, seed):
    """`params` plus a constant; buffers and counters as they came."""
    dtype, shape, data = down["params"]
    values = struct.unpack("<%df" % (len(data) // 4), data)
    down["params"] = dtype, shape, struct.pack("<%df" % len(values), *(v + seed / 1000 for v in values))
    return down


# ---- the site


class Site:
    def __init__(self, port, name, client, samples, seed, description, classes, die_at):
        self.name, self.client, self.samples, self.seed, self.die_at = name, client, samples, seed, die_at
        self.description, self.classes = description, classes
        self.instance = os.urandom(8).hex()
        self.run = self.epoch = self.seq = self.ordered = 0
        self.state, self.order, self.up, self.welcome, self.over = "join", None, False, False, None
        self.say_at = self.beat_at = self.hello_at = 0.0
        self.hello_wait = 0.5
        self.events = queue.Queue()
        self.update = self.manifest = self.parts = self.base = None
        self.mqtt = mqtt.Client(client_id=name, clean_session=True)
        self.mqtt.will_set("fst/up/%s/will" % name, b"")
        self.mqtt.on_connect = lambda *_: self.events.put(("up", None))
        self.mqtt.on_message = lambda _c, _u, m: self.events.put((m.topic, m.payload))
        self.mqtt.connect("127.0.0.1", port, keepalive=5)
        self.mqtt.loop_start()

    def send(self, leaf, kind, body):
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        self.seq += 1
        frame = struct.pack("<4sBBHQQQI32s", b"FST1", kind, 0, 1, self.run, self.epoch, self.seq, len(body),
                            self.name.encode()) + body
        self.mqtt.publish("fst/up/%s/%s" % (self.name, leaf), frame + struct.pack("<Q", xxh3(frame)))

    def round(self):
        return {"instance": self.instance, "stage": self.order["stage"] if self.order else "",
                "round": self.order["round"] if self.order else 0}

    def hello(self):
        data = hashlib.sha256(b"made up, %d" % self.seed).hexdigest()
        self.send("ctl", HELLO, {
            "id": self.name, "role": "edge", "instance": self.instance, "program": "peer.py", "protocol": 1,
            "client": self.client, "run": "%016x" % self.run, "task": "", "data": data, "learn": self.samples, "codec": "plain",
            "validate": 0, "missing": "", "numerics": "made up", "samples": self.description,
            "classes": self.classes, "names": "", "common": ""})

    def beat(self):
        self.send("ctl", BEAT, dict(self.round(), state=self.state))

    def take(self, topic, frame):
        """Checks a frame; its kind and body, or None."""
        if len(frame) < 76 or u64(frame, len(frame) - 8) != xxh3(frame[:-8]):
            return None
        magic, kind, _, version, run, epoch, seq, n, sender = struct.unpack_from("<4sBBHQQQI32s", frame)
        if magic != b"FST1" or version != 1 or n != len(frame) - 76 or sender.rstrip(b"\0") != b"cloud":
            return None
        body = frame[68:-8]
        if kind == WELCOME:
            if not json.loads(body)["hello"]:
                if self.run and run != self.run:
                    return None
                if run != self.run:
                    self.run, self.epoch, self.ordered = run, epoch, 0
            return kind, body
        if kind == REFUSAL:
            return kind, body
        if run != self.run or epoch < self.epoch:
            return None
        if epoch > self.epoch:
            self.epoch, self.ordered = epoch, 0
        if kind == ORDER:
            if seq <= self.ordered:
                return None
            self.ordered = seq
        return kind, body

    def on_frame(self, kind, body):
        now = time.monotonic()
        if kind == WELCOME:
            if json.loads(body)["hello"]:
                self.welcome, self.hello_at, self.hello_wait = False, now, 0.5
            else:
                self.welcome, self.beat_at, self.say_at = True, now, now
                self.state = "idle" if self.state == "join" else self.state
        elif kind == REFUSAL:
            no = json.loads(body)
            if no["final"] and no.get("instance", self.instance) in ("", self.instance):
                self.over = 2
                print("refused: " + no["reason"], flush=True)
        elif kind == ORDER and self.welcome:
            self.on_order(json.loads(body), now)
        elif kind == RECEIPT and self.state == "offer":
            receipt = json.loads(body)
            if receipt["round"] == self.order["round"] and receipt["stage"] == self.order["stage"]:
                self.state, self.beat_at = "keep", now
                print("round %d: %s" % (receipt["round"], "folded" if receipt["folded"] else receipt["why"]), flush=True)
        elif kind == GET and self.update and body[:32].hex() == self.manifest["blob"]:
            first, count = struct.unpack_from("<II", body, 32)
            for i in range(first, min(first + count, self.manifest["parts"])):
                self.send("part", PART, body[:32] + struct.pack("<IIQ", i, self.manifest["parts"], len(self.update)) +
                          self.update[i * PART_BYTES:(i + 1) * PART_BYTES])
        elif kind == PART and self.state == "fetch" and body[:32].hex() == self.base["blob"]:
            index, parts, total = struct.unpack_from("<IIQ", body, 32)
            if parts == self.base["parts"] and total == self.base["bytes"] and index < parts:
                self.parts.setdefault(index, body[48:])
                self.fetched()

    def on_order(self, order, now):
        self.beat_at = now
        if order["kind"] == "stop":
            self.send("ctl", BYE, {})
            self.over = 0
        elif order["kind"] == "measure":
            self.send("ctl", FIGURES, {"instance": self.instance, "stage": order["stage"], "round": order["round"],
                                       "fingerprint": order["fingerprint"], "given": order.get("base", {}).get("blob", ""),
                                       "has": False, "accuracy": None,
                                       "loss": None, "samples": 0, "right": 0, "arch": "", "digest": "", "failed": ""})
        elif self.order and (order["stage"], order["round"]) == (self.order["stage"], self.order["round"]):
            if self.state == "keep":
                self.state, self.say_at = "offer", now
        else:
            self.order, self.base, self.parts = order, order["base"], {}
            self.update = None
            self.state, self.ask_at = "fetch", now

    def fetched(self):
        if len(self.parts) < self.base["parts"]:
            self.ask_at = min(self.ask_at, time.monotonic() + 2)
            return
        data = b"".join(self.parts[i] for i in range(self.base["parts"]))
        if hashlib.sha256(data).hexdigest() != self.base["blob"]:
            self.parts = {}
            return
        meta, tensors = read_message(data)
        assert meta["format"] == "fedstill-message-1" and meta["kind"] == "state", meta
        meta.update(client=str(self.client - 1), samples=str(self.samples), loss="nan", accuracy="nan")
        self.update = write_message(meta, train(tensors, self.seed))
        self.manifest = {"blob": hashlib.sha256(self.update).hexdigest(), "bytes": len(self.update),
                         "raw_bytes": len(self.update), "codec": "plain",
                         "parts": (len(self.update) + PART_BYTES - 1) // PART_BYTES}
        self.state, self.say_at, self.beat_at = "offer", 0.0, 0.0

    def tick(self):
        now = time.monotonic()
        if not self.welcome:
            if now >= self.hello_at:
                self.hello()
                self.hello_at, self.hello_wait = now + self.hello_wait, min(30, 2 * self.hello_wait)
            return
        if self.state == "fetch" and now >= self.ask_at:
            missing = next(i for i in range(self.base["parts"]) if i not in self.parts)
            self.send("get", GET, bytes.fromhex(self.base["blob"]) +
                      struct.pack("<II", missing, min(WINDOW, self.base["parts"] - missing)))
            self.ask_at = now + 2
        if self.state == "offer" and now >= self.say_at:
            self.say_at = now + 5
            self.send("ctl", RESULT, dict(self.round(), seconds=0.1, blob=self.manifest))
            if self.die_at is not None and self.order["round"] == self.die_at:
                self.die_at = None
                time.sleep(0.3)
                os.kill(os.getpid(), 9)
        if now >= self.beat_at:
            self.beat_at = now + 4
            self.beat()

    def play(self):
        while self.over is None:
            try:
                topic, payload = self.events.get(timeout=0.05)
            except queue.Empty:
                topic = None
            if topic == "up":
                self.mqtt.subscribe([("fst/dn/%s/%s" % (self.name, leaf), 0) for leaf in ("ctl", "get", "part")])
                self.up, self.hello_at, self.hello_wait = True, 0.0, 0.5
            elif topic:
                message = self.take(topic, payload)
                if message:
                    self.on_frame(*message)
            if self.up and self.over is None:
                self.tick()
        time.sleep(0.5)  # for the last words to leave
        self.mqtt.disconnect()
        return self.over


if __name__ == "__main__":
    port, name, client, samples, seed, description, classes = sys.argv[1:8]
    die = int(sys.argv[9]) if sys.argv[8:9] == ["die-at"] else None
    sys.exit(Site(int(port), name, int(client), int(samples), int(seed), description, int(classes), die).play())
