#!/bin/bash
# Two clouds of one fleet at the same time: one leads, the other leaves and says why, and the run ends with the bits of one
# process. Needs $FEDSTILL, $FEDSTILL_HELPER and mosquitto.
# shellcheck source=tests/fleet/common.sh
. "$(dirname "$0")/common.sh"
named_task 120 40
cat >"$task/task.yaml" <<END
name: two
seed: 5
data: {source: array, path: data, validation: 0.1}
topology: {edges: 2, cloud_share: 0.3, alpha: 1}
stages:
  federated_train: {model: fedgen_mnist, strategy: scaffold, init: random, rounds: $((rounds = 8)), local_epochs: 20,
                    batch_size: 8, optimizer: {name: sgd, learning_rate: 0.02}}
END
expect 0 run "$task" --output "$folder/one" --no-reuse
models() { (cd "$1" && sha256sum federated_train/*.safetensors); }
cloud() { run_as "$1" "$FEDSTILL" cloud "$task" "${link[@]}" --output "$folder/$1" --no-reuse; }
edge() { run_as "$1" "$FEDSTILL" edge "$task" --id "$1" "${link[@]}" --output "$folder/$1"; }

# ---- a second one, of another output: it has no site, and goes; sites do not hear of it. edge-2 comes after it, so that the
# ---- first one has something to wait for meanwhile
start_broker
cloud first
edge edge-1
awaited "$folder/err.first" "edge-1 joined"
cloud second
ended second 2
true_that "the second cloud says why it ends" grep -q 'another process is the cloud of this fleet, with run' "$folder/err.second"
edge edge-2
for name in first edge-1 edge-2; do ended $name 0; done
same "beside a second cloud: models" "$(models "$folder/first")" "$(models "$folder/one")"

# ---- one that does not answer is replaced by one that goes on with a copy of its output, and then comes back
rm -rf "$folder"/first "$folder"/edge-* "$folder"/err.*
for name in edge-1 edge-2; do edge $name; done
cloud first
awaited "$folder/err.edge-1" "round 2"
kill -STOP "${pid[first]}"
cp -r "$folder/first" "$folder/third"
cloud third
awaited "$folder/err.third" "edge-2 joined"
kill -CONT "${pid[first]}"
ended first 2
true_that "the older cloud says why it ends" grep -q 'is the cloud of this run and began after this one' "$folder/err.first"
for name in third edge-1 edge-2; do ended $name 0; done
same "with the newer cloud: models" "$(models "$folder/third")" "$(models "$folder/one")"
finish
