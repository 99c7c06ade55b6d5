#!/bin/bash
# A short run with all stages, in which the n-th file operation fails, is cut short, or ends the process. Whatever happens,
# what has its name is whole, a failure says so, and the next run ends with the models of an undisturbed one.
# Needs $FEDSTILL, the program, $FEDSTILL_HELPER, built from helper.c, and $FEDSTILL_SHIM, built from tests/faults/shim.c.
#   FEDSTILL_FAULTS       every which operation is tried (default 97; 1: all of them)
#   FEDSTILL_FAULT_MODES  how (default "fail stuck short kill")
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/common.sh"
: "${FEDSTILL_SHIM:?the path of the shim}"
helper=$FEDSTILL_HELPER
every=${FEDSTILL_FAULTS:-97}
modes=${FEDSTILL_FAULT_MODES:-fail stuck short kill}
task=$folder/task output=$folder/task/output

new_task 60 30
cat >"$task/task.yaml" <<END
name: faults
seed: 7
data: {source: idx, path: $folder/data, validation: 0.2}
checkpoint: {seconds: 1000, steps: 1}
clients: {count: 2, partition: iid}
stages:
  cloud_pretrain:  {model: logistic_regression, epochs: 1, batch_size: 32}
  cloud_kd:        {temperature: 4.0}
  edge_kd:         {model: logistic_regression, epochs: 1, batch_size: 32, baseline: true}
  federated_train: {strategy: fedadam, rounds: 1, batch_size: 32, init: edge_kd, optimizer: {name: sgd, learning_rate: 0.05}}
  device_load:     {batch_size: 32}
  edge_infer:      {threshold: 0.9}
  cloud_infer:     {}
END
arguments=(run "$task" --mode full_pipeline --no-reuse -q --threads 1 --workers 1)
made() { # of everything that the stages make, reports with measured times aside
    digests "$output" && (cd "$output" && sha256sum device_load/batches.safetensors edge_infer/predictions.safetensors \
        cloud_infer/predictions.safetensors)
}

# An undisturbed run gives the models, and says how many operations there are.
prepare() { :; }
disturbed() { # MODE N: the run's exit status
    FAULT_PREFIX=$output FAULT_MODE=$1 FAULT_N=$2 FAULT_ERRNO=${3:-28} FAULT_LOG=$folder/operations \
        ASAN_OPTIONS=verify_asan_link_order=0 LD_PRELOAD=$FEDSTILL_SHIM "$FEDSTILL" "${arguments[@]}" >"$folder/out" 2>"$folder/err" </dev/null
}
whole() { # what has its name is whole: JSON that parses, safetensors that open
    local file
    while read -r file; do
        case $file in
        *.json) "$helper" json "$file" >/dev/null || return 1 ;;
        *checkpoint.safetensors | *model.safetensors | *soft_labels.safetensors | *partition.safetensors)
            [ "$(head -c 8 "$file" | od -An -tu8 | tr -d ' ')" -lt "$(stat -c %s "$file")" ] || return 1
            ;;
        esac
    done < <(find "$output" -name '*.json' -o -name '*.safetensors' | grep -v '/\.')
}

all_faults() { # WHAT: tries every $every-th operation of a run that starts from what prepare leaves
    local what=$1 n mode status total
    rm -rf "$output"
    prepare
    disturbed count 0
    same "$what: exit status of an undisturbed run" $? 0
    made >"$folder/reference" || exit 1
    total=$(tail -n 1 "$folder/operations" | cut -d ' ' -f 1)
    true_that "$what: $total operations are few" [ "$total" -gt 10 ]
    for mode in $modes; do
        for ((n = 1 + (RANDOM % every); n <= total; n += every)); do
            rm -rf "$output"
            prepare
            disturbed "$mode" $n
            status=$?
            last="$what: $mode at operation $(sed -n "s|$folder/||;${n}p" "$folder/operations")"
            case $mode in
            kill) same "$last: exit status" $status 137 ;;
            *)
                true_that "$last: exit status $status" [ $status -le 1 ]
                [ $status -eq 0 ] || true_that "$last: a failure without a word" [ -s "$folder/err" ]
                if [ $status -eq 0 ]; then
                    made >"$folder/now" 2>&1
                    true_that "$last: good, but other models" diff "$folder/reference" "$folder/now"
                fi
                ;;
            esac
            true_that "$last: something is half-written" whole
            expect 0 "${arguments[@]}"
            last="$what: the run after $mode at operation $n"
            made >"$folder/now" 2>&1
            true_that "$last: other models" diff "$folder/reference" "$folder/now"
            same "$last: left over" "$(left_overs "$output")" ""
        done
    done
    echo "$what: $total operations, every ${every}th, $modes"
}
# An event that cannot be written, whichever thread writes it, is missed aloud, and the run is as good.
for event in resources epoch round; do
    rm -rf "$output"
    FAULT_TEXT="\"event\": \"$event\"" disturbed deny 0
    last="the first event \"$event\" is denied"
    same "$last: exit status" $? 0
    same "$last: warnings" "$(grep -c 'events are no longer written' "$folder/err")" 1
    same "$last: runs that ended" "$(grep -c '"event": "run"' "$output/events.jsonl")" 0 # nothing more was written
done
RANDOM=${FEDSTILL_FAULT_SEED:-1}
all_faults "a new run"

# A run whose settings come back: two stages are moved aside, and two are moved back.
cp -a "$output" "$folder/finished"
"$FEDSTILL" "${arguments[@]}" --set stages.federated_train.rounds=2 >/dev/null 2>&1
cp -a "$output" "$folder/two"
prepare() { cp -a "$folder/two" "$output"; }
every=$(((every + 2) / 3)) all_faults "settings that come back"
finish
