#!/bin/bash
# Disks that are full in the middle of a round, at a site and at the cloud: both say so in words, nothing is half-written,
# also when the process is killed meanwhile, and with room again the run goes on to the same bits. Needs $FEDSTILL,
# $FEDSTILL_HELPER, $FEDSTILL_SHIM, the shim of faults/shim.c, and mosquitto.
# shellcheck source=tests/fleet/common.sh
. "$(dirname "$0")/common.sh"
: "${FEDSTILL_SHIM:?the shim of faults/shim.c}"
named_task 120 40
cat >"$task/task.yaml" <<END
name: full
seed: 5
data: {source: array, path: data, validation: 0.1}
topology: {edges: 2, cloud_share: 0.3, alpha: 1}
stages:
  federated_train: {model: fedgen_mnist, strategy: scaffold, init: random, rounds: 6, local_epochs: 20, batch_size: 8,
                    optimizer: {name: sgd, learning_rate: 0.02}}
END
expect 0 run "$task" --output "$folder/one" --no-reuse
models() { (cd "$1" && sha256sum federated_train/*.safetensors); }

# What is below $folder/NAME cannot be written while $folder/NAME.full is there, which comes with the first write of TEXT.
start() { # cloud | edge-K [TEXT]
    local disk=(env FAULT_MODE=full "FAULT_PREFIX=$folder/$1/" "FAULT_WHILE=$folder/$1.full" ${2:+"FAULT_TEXT=$2"}
        ASAN_OPTIONS=verify_asan_link_order=0 "LD_PRELOAD=$FEDSTILL_SHIM")
    case $1 in
    cloud) run_as cloud "${disk[@]}" "$FEDSTILL" cloud "$task" "${link[@]}" --output "$folder/cloud" --no-reuse ;;
    *) run_as "$1" "${disk[@]}" "$FEDSTILL" edge "$task" --id "$1" "${link[@]}" --output "$folder/$1" ;;
    esac
}
half() { find "$folder/$1" -name '*.tmp.*'; }
# What is written in the fourth round, in the site's files and in the cloud's book.
declare -A in_fourth=([edge-2]='"round":3' [cloud]='"round": 3')
start_broker
for where in edge-2 cloud; do
    for kill in no yes; do
        rm -rf "$folder"/cloud "$folder"/edge-* "$folder"/err.*
        for name in cloud edge-1 edge-2; do
            if [ $name = $where ]; then start $name "${in_fourth[$where]}"; else start $name; fi
        done
        awaited "$folder/err.$where" "No space left on device; "
        same "$where: half-written" "$(half $where)" ""
        [ $where = cloud ] || awaited "$folder/err.cloud" "edge-2 cannot go on yet: "
        if [ $kill = yes ]; then
            kill -9 "${pid[$where]}"
            wait "${pid[$where]}" 2>/dev/null
            rm "$folder/$where.full"
            start $where
        else
            rm "$folder/$where.full"
        fi
        for name in cloud edge-1 edge-2; do ended $name 0; done
        same "$where, killed: $kill: models" "$(models "$folder/cloud")" "$(models "$folder/one")"
        true_that "$where: somebody was left out" test -z "$(grep '"event": "client_lost"' "$folder/cloud/events.jsonl")"
    done
done
finish
