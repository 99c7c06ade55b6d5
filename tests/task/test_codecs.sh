#!/bin/bash
# Codecs in a task: what is sent is fewer bytes and is told, raw and coded; a run that is stopped and extended has the bits
# of one that was not, also where what clients keep is in files, their optimisers' moments among it; and what makes no
# sense is refused before any work.
# Needs $FEDSTILL and $FEDSTILL_HELPER.
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/common.sh"
task=$folder/task
output=$task/output
public=', public: 0.1'
optim='{name: sgd, learning_rate: 0.02, momentum: 0.8}, optimizer_state: kept'
new_task 300 60
write_task() { # STRATEGY ROUNDS CODEC
    cat >"$task/task.yaml" <<END
name: tiny
seed: 4
data: {source: idx, path: $folder/data, normalise: {mean: 0.2, std: 0.3}$public}
clients: {count: 6, partition: dirichlet, alpha: 0.5}
stages:
  federated_train: {strategy: $1, model: mnist_student, init: random, rounds: $2, batch_size: 16, fraction: 0.5,
                    optimizer: $optim, codec: $3}
END
}
record() { "$FEDSTILL_HELPER" json "$output/federated_train/stage.json" "$1"; }
model() { sha256sum <"$1/federated_train/model.safetensors"; }
# event KEY: of the rounds, added up
event() { tr -d ' ' <"$output/events.jsonl" | grep '"event":"round"' | sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p" | awk '{n += $1} END {print n}'; }

sparse='{up: {kind: top_k, share: 0.02, values: int8}, down: {kind: int8, change: true}}'
write_task feddf 4 "$sparse"
expect 0 run "$task" --no-reuse
up=$(record bytes_up) raw=$(record raw_bytes_up)
true_that "up: $up of $raw bytes" [ $((up * 20)) -lt "$raw" ]
same "raw bytes are those of a run without codecs" "$raw" "$(record raw_bytes_down)"
for key in bytes_up bytes_down raw_bytes_up raw_bytes_down; do
    same "events and record: $key" "$(event $key)" "$(record $key)"
    same "summary and record: $key" "$("$FEDSTILL_HELPER" json "$output/summary.json" stages.federated_train.$key)" "$(record $key)"
done
model "$output" >"$folder/want"
expect 0 report "$task"
true_that "the report tells both" grep -q 'had codecs not coded them' "$output/report.html"
true_that "of rounds, too" grep -q 'up without codecs' "$output/report.html"

# ---- extended, and with what clients keep in files
write_task feddf 2 "$sparse"
expect 0 run "$task" --no-reuse --fresh --set checkpoint.client_memory=0
write_task feddf 4 "$sparse"
expect 0 run "$task" --no-reuse --set checkpoint.client_memory=0
same "extended" "$(model "$output")" "$(cat "$folder/want")"
expect 0 run "$task" --no-reuse --fresh --workers 1 --set output=one
same "one worker" "$(model "$task/one")" "$(cat "$folder/want")"
expect 0 run "$task" --no-reuse --set output=one --set stages.federated_train.optimizer_state=fresh
true_that "moments that are not kept make another model" [ "$(model "$task/one")" != "$(cat "$folder/want")" ]

# ---- predictions: fewer bytes, the same bits for any number of workers, after a stop, and with files
prediction='{up: {kind: levels, bits: 2}, down: {kind: int8, change: true}}'
own() { (cd "$1/federated_train" && sha256sum client_?_model.safetensors); }
write_task dsfl 4 "$prediction"
rm -r "$output"
expect 0 run "$task" --no-reuse --fresh
up=$(record bytes_up) down=$(record bytes_down)
true_that "dsfl up: $up of $(record raw_bytes_up) bytes" [ $((up * 10)) -lt "$(record raw_bytes_up)" ]
true_that "dsfl down: $down of $(record raw_bytes_down) bytes" [ "$down" -lt "$(record raw_bytes_down)" ]
same "raw bytes of dsfl: a row of 10 floats for 30 public samples, and their digest, from 3 clients in 4 rounds" \
    "$(record raw_bytes_up)" $((4 * 3 * (30 * 10 * 4 + 16)))
for key in bytes_up bytes_down raw_bytes_up raw_bytes_down; do
    same "dsfl, events and record: $key" "$(event $key)" "$(record $key)"
done
own "$output" >"$folder/want"
write_task dsfl 2 "$prediction"
expect 0 run "$task" --no-reuse --fresh --set checkpoint.client_memory=0
write_task dsfl 4 "$prediction"
expect 0 run "$task" --no-reuse --set checkpoint.client_memory=0
same "dsfl, extended" "$(own "$output")" "$(cat "$folder/want")"
expect 0 run "$task" --no-reuse --fresh --workers 1 --set output=one
same "dsfl, one worker" "$(own "$task/one")" "$(cat "$folder/want")"

# ---- refused
optim='{name: sgd, learning_rate: 0.05}'
refused() { # STRATEGY CODEC TEXT
    write_task "$1" 2 "$2"
    expect 2 run "$task" --no-reuse
    said err "$3"
}
refused feddf int8 'codec'
refused cfd '{up: f16}' 'the strategy cfd sends nothing that codecs code; all do but cfd, fedkd, local'
refused fedmd '{up: levels}' 'sends logits, which levels does not code; these do: f16, int8, int4'
refused dsfl '{down: {kind: top_k, change: true}}' 'sends probabilities, which top_k does not code'
refused dsfl '{up: {kind: int8, feedback: true}}' 'feedback: has no effect with strategy dsfl'
refused dsfl '{up: {kind: int8, bits: 2}}' 'bits: has no effect'
refused dsfl '{up: {kind: levels, bits: 17}}' 'bits'
refused feddf '{up: levels}' 'levels codes probabilities, and the strategy feddf sends a model'
refused feddf '{down: top_k}' 'set change: true'
refused feddf '{up: {kind: int8, share: 0.1}}' 'share: has no effect'
refused feddf '{up: {kind: low_rank, values: int8}}' 'values are f32 or f16'
refused feddf '{up: {kind: top_k, rounding: stochastic}}' 'rounding: has no effect'
refused feddf '{up: {kind: top_k, share: 0}}' 'share'
refused feddf '{up: {kind: int8, change: true}}' 'change'
public=
refused fd '{up: top_k}' 'sends mean probabilities of labels, which top_k does not code; these do: f16, int8, int4, levels'
refused fedproto '{down: levels}' 'sends prototypes, which levels does not code; these do: f16, int8, int4'
refused fedproto '{up: {kind: f16, feedback: true}}' 'feedback: has no effect with strategy fedproto'
refused fedkd '{up: int8}' 'the strategy fedkd sends nothing that codecs code'
refused fedbuff '{down: f16}' 'the strategy fedbuff sends models of several rounds'

# ---- statistics: only rows of labels that a client holds are sent
write_task fd 3 '{up: int8, down: {kind: levels, bits: 4}}'
expect 0 run "$task" --no-reuse --fresh
same "raw bytes of fd, up: a row of 10 floats and a flag for 10 labels, from 3 clients in 3 rounds" \
    "$(record raw_bytes_up)" $((3 * 3 * 10 * (10 * 4 + 1)))
same "raw bytes of fd, down: a row of 10 doubles and a count for 10 labels, to 3 clients in 2 rounds" \
    "$(record raw_bytes_down)" $((2 * 3 * 10 * (10 * 8 + 8)))
true_that "fd up: $(record bytes_up) bytes" [ $(($(record bytes_up) * 3)) -lt "$(record raw_bytes_up)" ]
true_that "fd down: $(record bytes_down) bytes" [ $(($(record bytes_down) * 4)) -lt "$(record raw_bytes_down)" ]
finish
