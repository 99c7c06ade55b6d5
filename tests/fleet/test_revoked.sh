#!/bin/bash
# A site is shut out in mid-round: the round is decided without it and says so, the others go on, and it finds no way back.
# Needs $FEDSTILL, $FEDSTILL_HELPER, $FEDSTILL_SHIM, the shim of faults/shim.c, and mosquitto.
# shellcheck source=tests/fleet/common.sh
. "$(dirname "$0")/common.sh"
: "${FEDSTILL_SHIM:?the shim of faults/shim.c}"
sites=3
named_task 120 40
cat >"$task/task.yaml" <<END
name: revoked
seed: 5
data: {source: array, path: data, validation: 0.1}
topology: {edges: $sites, cloud_share: 0.3, alpha: 1}
stages:
  federated_train: {model: fedgen_mnist, strategy: scaffold, init: random, rounds: 2, batch_size: 8,
                    optimizer: {name: sgd, learning_rate: 0.02}}
END
hub_with $sites
mosquitto -c "$keys/hub.conf" >/dev/null 2>"$folder/broker.log" &
pid[broker]=$!
edge() { # NAME [WORD...], such as env
    run_as "$1" "${@:2}" "$FEDSTILL" edge "$task" --id "$1" --credentials "$folder/keys-${1#edge-}" --output "$folder/$1"
}
run_as cloud "$FEDSTILL" cloud "$task" --credentials "$keys" --output "$folder/fleet" --no-reuse
edge edge-1
edge edge-2
# edge-3 stops before it keeps its second update: the round cannot end before it is shut out
edge edge-3 env FAULT_MODE=stop "FAULT_PREFIX=$folder/edge-3/" 'FAULT_TEXT="round":1' \
    ASAN_OPTIONS=verify_asan_link_order=0 "LD_PRELOAD=$FEDSTILL_SHIM"
for ((i = 0; i < 600; i++)); do
    grep -q '^State:.*T' "/proc/${pid[edge-3]}/status" && break || sleep 0.1
done
expect 0 fleet revoke "$keys" edge-3
said out 'reads its lists again'
said out 'connection     ended'
kill -CONT "${pid[edge-3]}"
for name in cloud edge-1 edge-2; do ended $name 0; done
rounds() { grep '"event": "round"' "$folder/fleet/events.jsonl" | sed 's/.*"reported": \([0-9]*\).*/\1/' | tr '\n' ' '; }
same "who took part in each round" "$(rounds)" "3 2 "
true_that "who was lost is named" grep -q 'edge-3 is lost: ' "$folder/err.cloud"
awaited "$folder/err.edge-3" "certificate"
kill "${pid[edge-3]}"
ended edge-3 1
finish
