#!/bin/bash
# Wall clocks that jump by a day while a fleet is at work, there and back, at every process: nobody is lost, nothing waits,
# and the models are the same. Needs $FEDSTILL, $FEDSTILL_HELPER, $FEDSTILL_CLOCK, the shim of faults/clock.c, and mosquitto.
# shellcheck source=tests/fleet/common.sh
. "$(dirname "$0")/common.sh"
: "${FEDSTILL_CLOCK:?the shim of faults/clock.c}"
named_task 120 40
cat >"$task/task.yaml" <<END
name: clocks
seed: 5
data: {source: array, path: data, validation: 0.1}
topology: {edges: 2, cloud_share: 0.3, alpha: 1}
stages:
  federated_train: {model: fedgen_mnist, strategy: scaffold, init: random, rounds: 8, local_epochs: 20, batch_size: 8,
                    optimizer: {name: sgd, learning_rate: 0.02}}
END
expect 0 run "$task" --output "$folder/one" --no-reuse
models() { (cd "$1" && sha256sum federated_train/*.safetensors); }

clock=$folder/clock
move() { echo "$1" >"$clock.new" && mv "$clock.new" "$clock"; }
moved() { env CLOCK_FILE="$clock" ASAN_OPTIONS=verify_asan_link_order=0 LD_PRELOAD="$FEDSTILL_CLOCK" "$@"; }
move 0
run_as broker moved mosquitto -c "$folder/broker.conf"
run_as cloud moved "$FEDSTILL" cloud "$task" "${link[@]}" --output "$folder/fleet" --no-reuse
for k in 1 2; do run_as edge-$k moved "$FEDSTILL" edge "$task" --id edge-$k "${link[@]}" --output "$folder/edge-$k"; done
for by in 86400:2 -86400:4 0:6; do # seconds, and the round in which the clocks jump
    awaited "$folder/err.edge-1" "round ${by#*:}"
    move "${by%:*}"
done
for name in cloud edge-1 edge-2; do ended $name 0; done
same "models" "$(models "$folder/fleet")" "$(models "$folder/one")"
true_that "somebody was lost" test -z "$(grep -E 'is lost|waiting|started again' "$folder/err.cloud")"
# the clocks did jump: events have the days
days=$(sed -n 's/^{"time": "\([0-9-]*\)T.*"event": "round".*/\1/p' "$folder/fleet/events.jsonl" | sort -u | wc -l)
true_that "the clocks did not jump: $days days" test "$days" -eq 3
finish
