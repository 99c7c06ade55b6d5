#!/bin/bash
# Models from files and data that they were not trained on: classes are compared by name before any work, a model sees
# samples through its own transform.
# Needs $FEDSTILL, the program, and $FEDSTILL_HELPER, built from helper.c.
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/common.sh"
helper=$FEDSTILL_HELPER

named() { # FOLDER CLASSES
    mkdir -p "$1" && "$helper" named "$1/train.safetensors" 60 "$2" 1 1 &&
        "$helper" named "$1/test.safetensors" 30 "$2" 1 2
}
named "$folder/first" bird,cat,dog && named "$folder/second" cat,dog,fox && named "$folder/swapped" cat,bird,dog &&
    named "$folder/numbered" 0,1,2 && named "$folder/sorted" 0,10,2 && named "$folder/four" bird,cat,dog,fox || exit 1

task() { # NAME DATA STAGES
    mkdir -p "$folder/$1" && cat >"$folder/$1/task.yaml" <<END
name: $1
seed: 1
data: {source: array, path: $folder/$2, normalise: {mean: ${4:-0}, std: ${5:-1}}}
stages:
$3
END
}
train='  cloud_pretrain: {model: logistic_regression, epochs: 40, batch_size: 16, optimizer: {name: adam, learning_rate: 0.03}}'
task birds first "$train" 0.5 2
expect 0 run "$folder/birds"
model=$folder/birds/output/cloud_pretrain/model.safetensors
own=$("$helper" json "$folder/birds/output/summary.json" stages.cloud_pretrain.accuracy)

cascade() { # DATA
    task "$1-cascade" "$1" "  device_load: {batch_size: 8}
  edge_infer: {model: ../birds/output/cloud_pretrain/model.safetensors, calibrate: false, threshold: 0, runs: 1, repeats: 1}" \
        -3 0.1
}

# ---- other classes, or the same in another order: refused, before anything ran
for data in second swapped; do
    cascade $data
    for how in "" --dry-run; do
        # shellcheck disable=SC2086
        expect 1 run "$folder/$data-cascade" --mode device_to_edge $how
        said err 'class 0 is "cat", the model calls it "bird"'
        said err "stages.edge_infer.model"
        ran
    done
    true_that "a stage ran" [ ! -e "$folder/$data-cascade/output/device_load/stage.json" ]
    expect 1 eval "$model" "$folder/$data"
    said err 'class 0 is "cat", the model calls it "bird"'
done
cascade four
expect 1 run "$folder/four-cascade" --mode device_to_edge
said err "it knows 3 classes, the data have 4"
expect 1 eval "$model" "$folder/four"
said err "has 4 classes"

# ---- the teacher of the cloud likewise
task cloud second "$train
  device_load: {batch_size: 8}
  edge_infer: {model: cloud_pretrain, runs: 1, repeats: 1}
  cloud_infer: {model: ../birds/output/cloud_pretrain/model.safetensors, runs: 1, repeats: 1}
  cloud_direct_infer: {model: ../birds/output/cloud_pretrain/model.safetensors, runs: 1, repeats: 1}"
expect 1 run "$folder/cloud" --mode full_pipeline
said err "stages.cloud_infer.model"
said err 'class 0 is "cat", the model calls it "bird"'
ran
expect 1 run "$folder/cloud" --mode device_to_cloud
said err "stages.cloud_direct_infer.model"
expect 1 run "$folder/cloud" --mode full_pipeline --set stages.cloud_infer.model=nowhere.safetensors
said err "nowhere.safetensors"
ran

# ---- the same classes: the model's own normalisation is used, whatever the task's is, and gives the model's accuracy
cascade first
expect 0 run "$folder/first-cascade" --mode device_to_edge
same "accuracy through a cascade with another normalisation" \
    "$("$helper" json "$folder/first-cascade/output/edge_infer/report.json" summary.accuracy)" "$own"
expect 0 eval "$model" "$folder/first" --json
same "accuracy of eval" "$("$helper" json "$folder/out" accuracy)" "$own"

# ---- no names but numbers: by number; a warning where numbers stand in another order
expect 0 eval "$model" "$folder/numbered" -q
unsaid err "compared by number"
task numbers numbered "$train"
expect 0 run "$folder/numbers"
expect 0 eval "$folder/numbers/output/cloud_pretrain/model.safetensors" "$folder/first"
unsaid err "compared by number"
expect 0 eval "$folder/numbers/output/cloud_pretrain/model.safetensors" "$folder/sorted"
said err 'class 1 is called "10"'

# ---- the report tries models on the task's data as they are now
named "$folder/changing" bird,cat,dog || exit 1
task report changing "$train"
expect 0 run "$folder/report"
named "$folder/changing" cat,bird,dog || exit 1
expect 1 report "$folder/report" --evaluate --out "$folder/r.html"
said err 'class 0 is "cat", the model calls it "bird"'

finish
