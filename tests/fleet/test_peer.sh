#!/bin/bash
# A site that is another program, peer.py, written from docs/protocol.md alone, beside one of fedstill's, under the real cloud.
# Needs $FEDSTILL, $FEDSTILL_HELPER, mosquitto, python3 and python3-paho-mqtt.
# shellcheck source=tests/fleet/common.sh
. "$(dirname "$0")/common.sh"
peer=$(dirname "$0")/peer.py
python=/usr/bin/python3 # the one that Debian's packages are for
true_that "python3-paho-mqtt is installed" "$python" -c 'import paho.mqtt.client' || finish
seed=250

task=$folder/task
mkdir -p "$task/cloud" "$task/one"
"$FEDSTILL_HELPER" named "$task/cloud/train.safetensors" 60 a,b,c 1 1 &&
    "$FEDSTILL_HELPER" named "$task/cloud/test.safetensors" 40 a,b,c 1 2 &&
    "$FEDSTILL_HELPER" named "$task/one/train.safetensors" 30 a,b,c 1 3 || exit 1
write_task() { # ROUNDS
    cat >"$task/task.yaml" <<END
name: peer
seed: 5
data: {source: array, path: cloud, edge_paths: [one, nowhere]}
topology: {edges: 2}
stages:
  cloud_pretrain:  {model: fedgen_mnist, epochs: 1, batch_size: 16}
  federated_train: {model: fedgen_mnist, strategy: fedavg, init: cloud_pretrain, rounds: $1, batch_size: 8,
                    optimizer: {name: sgd, learning_rate: 0.02}}
END
}
start_peer() { # ARGUMENT...
    run_as edge-2 "$python" "$peer" "$port" edge-2 2 45 $seed "F32 (1, 4, 4)" 3 "$@"
}
begin() { # ROUNDS
    rm -rf "$folder/fleet" "$folder/edge-1" "$folder"/err.*
    write_task "$1"
    run_as cloud "$FEDSTILL" cloud "$task" "${link[@]}" --output "$folder/fleet" --no-reuse
    run_as edge-1 "$FEDSTILL" edge "$task" --id edge-1 "${link[@]}" --output "$folder/edge-1"
}
start_broker

# ---- one round: what the cloud keeps as the peer's model is what the peer made of the model that it was sent
begin 1
start_peer
for name in cloud edge-1 edge-2; do ended $name 0; done
true_that "its update was not folded" grep -q 'round 0: folded' "$folder/out.edge-2"
cat >"$folder/check.py" <<'END'
import json, struct, sys
def tensors(path):
    data = open(path, "rb").read()
    n = struct.unpack_from("<Q", data)[0]
    for name, t in json.loads(data[8:8 + n]).items():
        if name != "__metadata__":
            a, b = t["data_offsets"]
            yield name, (t["dtype"], data[8 + n + a:8 + n + b])
base, mine, seed = dict(tensors(sys.argv[1])), dict(tensors(sys.argv[2])), int(sys.argv[3])
assert base and base.keys() == mine.keys()
for name, (dtype, data) in base.items():
    if dtype == "F32" and "running_" not in name:
        values = struct.unpack("<%df" % (len(data) // 4), data)
        data = struct.pack("<%df" % len(values), *(v + seed / 1000 for v in values))
    assert mine[name] == (dtype, data), name
END
true_that "the peer's model is another one" "$python" "$folder/check.py" "$folder/fleet/cloud_pretrain/model.safetensors" \
    "$folder/fleet/federated_train/edge_2_model.safetensors" $seed
same "its samples" "$("$FEDSTILL_HELPER" json "$folder/fleet/federated_train/stage.json" edges.1.samples)" 45

# ---- killed when it has offered, it has lost all that it had; it joins again and trains again, to the same model
begin 3
start_peer
for name in cloud edge-1 edge-2; do ended $name 0; done
want=$(sha256sum <"$folder/fleet/federated_train/model.safetensors")
begin 3
start_peer die-at 1
ended edge-2 137
start_peer
for name in cloud edge-1 edge-2; do ended $name 0; done
same "killed: the model" "$(sha256sum <"$folder/fleet/federated_train/model.safetensors")" "$want"

# ---- samples of another kind
begin 1
run_as edge-2 "$python" "$peer" "$port" edge-2 2 45 $seed "U8 (1, 28, 28)" 3
ended edge-2 2
true_that "it is not told why" grep -q 'its samples are U8 (1, 28, 28), the cloud.s are F32 (1, 4, 4)' "$folder/out.edge-2"
finish
