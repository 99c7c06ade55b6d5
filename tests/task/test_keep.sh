#!/bin/bash
# Other settings do not overwrite what a run has finished: it is kept, comes back with its settings, and is taken by other
# outputs. What `fedstill runs` says of that. Needs $FEDSTILL, the program, and $FEDSTILL_HELPER, built from helper.c.
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/common.sh"
helper=$FEDSTILL_HELPER
task=$folder/task output=$folder/task/output

new_task 200 100
cat >"$task/task.yaml" <<END
name: kept
seed: 5
data: {source: idx, path: $folder/data}
clients: {count: 2, partition: iid}
checkpoint: {steps: 1}
stages:
  cloud_pretrain:  {model: logistic_regression, epochs: 1, batch_size: 64}
  cloud_kd:        {temperature: 4.0}
  edge_kd:         {model: logistic_regression, epochs: 1, batch_size: 50, baseline: true}
  federated_train: {rounds: 1, batch_size: 50, optimizer: {name: sgd, learning_rate: 0.05}}
END
models() { find "$output" -name '*.safetensors' -exec sha256sum {} + | cut -c 1-64 | sort; }
model() { sha256sum <"$output/$1/model.safetensors"; }

# ---- other settings, and back
expect 0 run "$task"
ran $steps
models >"$folder/first"
digests "$output" >"$folder/reference"
expect 0 run "$task" --set stages.federated_train.rounds=2
ran federated_train
true_that "models of the first run are gone" [ -z "$(comm -23 "$folder/first" <(models))" ]
two=$(model federated_train)
expect 0 run "$task" --dry-run
same "a dry run moved something" "$(model federated_train)" "$two"
expect 0 run "$task"
ran
said err "federated_train: kept from an earlier run"
digests "$output" >"$folder/now"
true_that "the first settings came back with other bits" diff "$folder/reference" "$folder/now"
expect 0 run "$task" --set stages.federated_train.rounds=2
ran
same "the second settings" "$(model federated_train)" "$two"
# a stage near the start: everything behind it goes with it, and comes back with it
expect 0 run "$task" --set stages.cloud_pretrain.epochs=2
ran cloud_pretrain cloud_kd edge_kd federated_train
true_that "models of the first run are gone" [ -z "$(comm -23 "$folder/first" <(models))" ]
expect 0 run "$task"
ran
digests "$output" >"$folder/now"
true_that "the first settings came back with other bits" diff "$folder/reference" "$folder/now"
same "left over" "$(left_overs "$output")" ""

# ---- what is kept is not believed for its name
expect 0 run "$task" --set stages.federated_train.rounds=2
file=$(echo "$output"/kept/federated_train-*/model.safetensors)
for kept in $file; do printf X | dd of="$kept" bs=1 seek=300 conv=notrunc status=none; done
expect 0 run "$task" --no-reuse
ran federated_train
digests "$output" >"$folder/now"
true_that "a damaged model came back" diff "$folder/reference" "$folder/now"

# ---- what is kept is removed when somebody asks for it, the oldest first, and nothing else
for batch in 20 30 40; do
    expect 0 run "$task" -q --no-reuse --set stages.federated_train.batch_size=$batch
done
expect 0 run "$task" -q --no-reuse
kept() { find "$output/kept" -mindepth 1 -maxdepth 1 -name "$1-*" | wc -l; }
true_that "few are kept: $(kept federated_train)" [ "$(kept federated_train)" -gt 3 ]
models >"$folder/before"
newest=$(ls -t "$output/kept" | grep federated_train | head -n 1)
ln -s "$folder/data" "$output/kept/federated_train-link"
expect 2 runs --prune 1
said err "--prune needs a RUN"
expect 0 runs kept --prune 1
said out "kept stages removed from"
same "stages that are kept" "$(kept federated_train)" 2 # the link too, which is not what runs leave
true_that "the newest is gone" [ -s "$output/kept/$newest/model.safetensors" ]
true_that "what a link named is gone" [ -s "$folder/data/train-images-idx3-ubyte" ]
rm "$output/kept/federated_train-link"
digests "$output" >"$folder/now"
true_that "the run itself was pruned" diff "$folder/reference" "$folder/now"
expect 0 runs kept --prune 0
same "what is kept" "$(ls "$output/kept")" ""
expect 0 runs kept --prune 0
said out "0 kept stages removed"
expect 0 run "$task"
ran

# ---- --fresh computes, whatever is kept
expect 0 run "$task" --fresh --no-reuse
ran $steps
digests "$output" >"$folder/now"
true_that "--fresh: other bits" diff "$folder/reference" "$folder/now"

# ---- another output takes what is finished with the same inputs, and nothing else
expect 0 run "$task" --output "$folder/other" --set stages.edge_kd.epochs=2
ran edge_alone edge_kd federated_train
said err "cloud_pretrain: taken from $output/cloud_pretrain"
said err "cloud_kd: taken from $output/cloud_kd"
same "the teacher" "$(sha256sum <"$folder/other/cloud_pretrain/model.safetensors")" "$(model cloud_pretrain)"
"$FEDSTILL" run "$task" --output "$folder/alone" --set stages.edge_kd.epochs=2 --no-reuse >/dev/null 2>&1
digests "$folder/other" >"$folder/now"
digests "$folder/alone" >"$folder/reference2"
true_that "what was taken gives other bits" diff "$folder/reference2" "$folder/now"
printf X | dd of="$folder/other/edge_kd/model.safetensors" bs=1 seek=300 conv=notrunc status=none
true_that "two outputs share one file" cmp -s "$folder/alone/edge_kd/model.safetensors" \
    <(cat "$folder/alone/edge_kd/model.safetensors")
expect 0 run "$task" --output "$folder/third" --set stages.edge_kd.epochs=2
ran
unsaid err "taken from $folder/other/edge_kd"
digests "$folder/third" >"$folder/now"
true_that "a damaged model was taken" diff "$folder/reference2" "$folder/now"
# What is gone of the other output meanwhile is done again: every file that is opened there, and all after it, is missing.
take() { # FAULT-ARGUMENT ...: of $output, into $folder/fourth
    rm -rf "$folder/fourth"
    env FAULT_PREFIX="$output" FAULT_ERRNO=2 FAULT_LOG="$folder/operations" ASAN_OPTIONS=verify_asan_link_order=0 \
        LD_PRELOAD="$FEDSTILL_SHIM" "$@" "$FEDSTILL" run "$task" --mode pretrain --output "$folder/fourth" >"$folder/out" 2>"$folder/err"
}
take FAULT_MODE=count FAULT_N=0
total=$(wc -l <"$folder/operations")
said err "cloud_pretrain: taken from"
true_that "$total operations are few" [ "$total" -gt 3 ]
for ((n = 1; n <= total; n++)); do
    take FAULT_MODE=stuck FAULT_N=$n
    same "gone from operation $n on: exit status" $? 0
    same "gone from operation $n on" "$(sha256sum <"$folder/fourth/cloud_pretrain/model.safetensors")" "$(model cloud_pretrain)"
done
(cd "$folder" && "$FEDSTILL" run "$task" --output here -q >/dev/null 2>&1)
true_that "--output starts from the current folder" [ -s "$folder/here/summary.json" ]
expect 2 run "$task" --output ""

# ---- a run a set of settings
rm -rf "$FEDSTILL_HOME" "$output"
COLUMNS=200
export COLUMNS
expect 0 run "$task" -q
expect 0 run "$task" -q --set stages.federated_train.rounds=2
expect 0 run "$task" -q
expect 0 run "$task" -q --mode pretrain
expect 0 run "$task" -q --output "$folder/seven" --set seed=7
expect 0 runs
same "runs" "$(grep -c kept "$folder/out")" 3
said out "seed=5, federated_train.rounds=2"
said out "seed=7, federated_train.rounds=1"
said out "seven"
said out "teacher"
unsaid out "cascade"
expect 0 runs 1
said out "stages.federated_train.rounds=1"
expect 0 runs kept --json
same "the run that was at work last" "$("$helper" json "$folder/out" id)" 3
same "its settings" "$("$helper" json "$folder/out" settings.seed)" 7

# the page of a run whose settings are not those in the folder would show another's figures
expect 2 report 2 --no-data
said err "shows run 1 now, not run 2"
expect 0 report 1 --no-data
expect 0 run "$task" -q --set stages.federated_train.rounds=2
expect 0 report 2 --no-data
expect 0 run "$task" -q

# ---- work that was begun under other settings is kept too
long=(--set stages.cloud_pretrain.epochs=100000)
"$FEDSTILL" run "$task" "${long[@]}" -q >/dev/null 2>&1 &
child=$!
for _ in $(seq 500); do
    [ -e "$output/cloud_pretrain/checkpoint.safetensors" ] && break
    sleep 0.02
done
kill -TERM $child
{ wait $child; } 2>/dev/null
expect 0 run "$task"
ran
same "begun work is kept" "$(find "$output/kept" -name checkpoint.safetensors | wc -l)" 1
"$FEDSTILL" run "$task" "${long[@]}" >/dev/null 2>"$folder/err" &
child=$!
for _ in $(seq 500); do
    [ -e "$output/cloud_pretrain/checkpoint.safetensors" ] && break
    sleep 0.02
done
sleep 0.2
kill -TERM $child
{ wait $child; } 2>/dev/null
said err "cloud_pretrain: going on at epoch"
finish
