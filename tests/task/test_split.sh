#!/bin/bash
# Who has which samples, as users see it: validation is nobody's to learn from, folders of `data split --out` and
# partition files of `data split --output` are a task's data, and what cannot be meant is refused or said.
# Needs $FEDSTILL, the program, and $FEDSTILL_HELPER, built from helper.c.
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/common.sh"
helper=$FEDSTILL_HELPER
task=$folder/task output=$folder/task/output
new_task 200 100
cat >"$task/task.yaml" <<END
name: split
seed: 3
data: {source: idx, path: $folder/data}
clients: {count: 4, partition: dirichlet, alpha: 0.3}
stages:
  cloud_pretrain:  {model: logistic_regression, epochs: 1, batch_size: 32}
  federated_train: {model: logistic_regression, init: random, rounds: 1, batch_size: 16}
END
samples() { "$helper" json "$1/$2/stage.json" samples; }
model() { sha256sum <"$1/federated_train/model.safetensors"; }

# ---- samples of validation belong to no client
expect 0 run "$task" --set data.validation=0.25 --dry-run
said out "150 training samples, 50 for validation"
expect 0 run "$task" --set data.validation=0.25 --set output=apart
same "samples of the teacher" "$(samples "$task/apart" cloud_pretrain)" 150
same "samples of the clients" "$(samples "$task/apart" federated_train)" 150
expect 0 data info "$task/apart/federated_train/partition.safetensors"
said out "150 of 200 given out"

# ---- a partition from a file is as good as one that is made
expect 0 data split "$folder/data" --clients 4 --partition dirichlet --alpha 0.3 --seed 3 --output "$task/mine.safetensors"
mine=(--set clients=null --set clients.partition_file=mine.safetensors)
expect 0 run "$task"
expect 0 run "$task" "${mine[@]}" --set output=mine
true_that "partitions differ" cmp "$task/mine.safetensors" "$output/federated_train/partition.safetensors"
true_that "partitions differ" cmp "$task/mine.safetensors" "$task/mine/federated_train/partition.safetensors"
expect 0 run "$task" "${mine[@]}" --set output=mine
ran
expect 0 data split "$folder/data" --clients 3 --partition iid --seed 4 --output "$task/mine.safetensors" --force
expect 0 run "$task" "${mine[@]}" --set output=mine
ran federated_train
# that a run with validation wrote serves another with the same
cp "$task/apart/federated_train/partition.safetensors" "$task/mine.safetensors"
expect 0 run "$task" "${mine[@]}" --set data.validation=0.25 --set output=again
true_that "partitions differ" cmp "$task/mine.safetensors" "$task/again/federated_train/partition.safetensors"
expect 0 data split "$folder/data" --clients 4 --partition iid --output "$task/all.safetensors"
expect 2 run "$task" --set clients=null --set clients.partition_file=all.safetensors --set data.validation=0.25 --set output=none
said err "it gives 50 of the 50 validation samples to clients"
true_that "work was done" [ ! -e "$task/none/cloud_pretrain" ]
expect 2 run "$task" --set clients.partition_file=all.safetensors --set output=none
said err "clients.count"

# ---- folders of `data split --out` are the data of a task with a topology
expect 0 data split "$folder/data" --out "$folder/split" --cloud 0.5 --edges 2 --alpha 1 --val 0.2 --test 0.2 --seed 1
cat >"$task/tiers.yaml" <<END
name: tiers
output: tiers
data:
  path: $folder/split/cloud
  edge_paths: [$folder/split/edge_1, $folder/split/edge_2]
  own_validation: true
topology: {edges: 2, devices: 2}
stages:
  cloud_pretrain:  {model: logistic_regression, epochs: 1, batch_size: 32}
  federated_train: {model: logistic_regression, init: random, rounds: 1, batch_size: 16, select: best}
END
expect 0 run "$task/tiers.yaml"
counted() { # counted SITE PART: samples that split.json names
    "$helper" json "$folder/split/split.json" "sites.$1.$2.samples"
}
same "samples of the cloud" "$(samples "$task/tiers" cloud_pretrain)" "$(counted cloud train)"
same "samples of the edges" "$(samples "$task/tiers" federated_train)" $(($(counted edge_1 train) + $(counted edge_2 train)))
for k in 1 2; do
    same "validation of edge $k" "$("$helper" json "$task/tiers/federated_train/stage.json" edges.$((k - 1)).validation)" \
        "$(counted edge_$k val)"
done

# and a model is measured on their validation samples
expect 0 eval "$task/tiers/cloud_pretrain/model.safetensors" "$folder/split/cloud" --split val --json
said out "\"samples\": $(counted cloud val),"
expect 1 eval "$task/tiers/cloud_pretrain/model.safetensors" "$folder/data" --split val
said err 'not "val"'

# an edge that got none for validation has no file of them
rm "$folder/split/edge_2/val.safetensors"
expect 0 run "$task/tiers.yaml" --set output=fewer
said err "edge 2 has no validation samples"

# ---- what is missing is said, what is nothing is refused
expect 0 run "$task" --dry-run --set data.limit=30 --set data.validation=0.1
said out "27 training samples, 3 for validation"
said err "validation has no samples of"
unsaid err "training has no samples of"
expect 0 run "$task" --dry-run --set data.limit=10 --set data.test_limit=5 --set clients.count=2
unsaid err "training has no samples of"
said err "test has no samples of"
# the last class too, of which the test labels alone know nothing
cp -r "$folder/data" "$folder/nine"
{
    head -c 8 "$folder/data/t10k-labels-idx1-ubyte"
    for ((i = 0; i < 100; i++)); do printf "\\x0$((i % 9))"; done
} >"$folder/nine/t10k-labels-idx1-ubyte"
expect 0 run "$task" --dry-run --set "data.path=$folder/nine"
said err "test has no samples of 9"
expect 2 run "$task" --dry-run --set data.validation=0.002
said err "data.validation: 0.002 of 200 samples leaves none"
expect 0 run "$task" --dry-run --set data.validation=0.29
said out "142 training samples, 58 for validation"

# ---- bytes are scaled and floats are not, so that one cannot be tested on the other
mkdir "$folder/mixed" && "$helper" named "$folder/mixed/train.safetensors" 30 a,b,c 1 1 || exit 1
header='{"x":{"dtype":"U8","shape":[2,1,4,4],"data_offsets":[0,32]},"y":{"dtype":"U8","shape":[2],"data_offsets":[32,34]}}'
{
    printf "\\x$(printf %x ${#header})\\0\\0\\0\\0\\0\\0\\0%s%032d" "$header" 0
    printf '\0\1'
} >"$folder/mixed/test.safetensors"
expect 1 run "$task" --dry-run --set data.source=array --set "data.path=$folder/mixed"
said err "training samples are F32, test samples U8: U8 is scaled to 0 ... 1, floats are taken as they are"

# ---- a split that is another over again is refused; samples that stand in both are counted
cp "$folder/data/train-images-idx3-ubyte" "$folder/data/t10k-images-idx3-ubyte"
cp "$folder/data/train-labels-idx1-ubyte" "$folder/data/t10k-labels-idx1-ubyte"
expect 2 run "$task" --set output=none
said err "the test samples are the training samples over again"
true_that "work was done" [ ! -e "$task/none/cloud_pretrain" ]
expect 0 run "$task" --dry-run --set data.limit=50
said err "50 of the 200 test samples are also among the training samples"
finish
