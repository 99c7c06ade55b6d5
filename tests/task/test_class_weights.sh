#!/bin/bash
# class_weights: which settings give the same model, what `balanced` counts, and which lists are refused. What a weight
# does to a loss is compared with PyTorch in tests/nn. Needs $FEDSTILL, the program, and $FEDSTILL_HELPER.
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/common.sh"
helper=$FEDSTILL_HELPER task=$folder/task
# 60 samples: 40, 10 and 10, so balanced is 0.5, 2, 2
mkdir -p "$task/data" && "$helper" named "$task/data/train.safetensors" 60 a,a,b,a,c,a 1 1 &&
    "$helper" named "$task/data/test.safetensors" 30 a,a,b,a,c,a 1 2 || exit 1
cat >"$task/task.yaml" <<END_OF_TASK
name: weights
seed: 3
data: {source: array, path: data, validation: 0}
clients: {count: 1}
stages:
  cloud_pretrain:  {model: logistic_regression, epochs: 2, batch_size: 8, optimizer: {name: sgd, learning_rate: 0.05}}
  cloud_kd:        {}
  edge_kd:         {model: logistic_regression, epochs: 2, batch_size: 8, optimizer: {name: sgd, learning_rate: 0.05}}
  federated_train: {model: logistic_regression, init: random, rounds: 2, batch_size: 8,
                    optimizer: {name: sgd, learning_rate: 0.05}}
END_OF_TASK
# model STAGE: a digest of its parameters, without the provenance in the file's header
model() {
    local file=$task/output/$1/model.safetensors header
    header=$(od -An -tu8 -N8 "$file")
    tail -c +$((9 + header)) "$file" | sha256sum
}

# trained STAGE WEIGHTS: its model's digest
trained() {
    expect 0 run "$task" --stage "$1" --fresh ${2:+--set "stages.$1.class_weights=$2"} && model "$1"
}

# ---- the same and others: a common factor means nothing, and nothing else is balanced
for stage in cloud_pretrain federated_train; do
    plain=$(trained $stage "")
    balanced=$(trained $stage balanced)
    same "$stage: all classes count alike" "$(trained $stage "[1, 1, 1]")" "$plain"
    same "$stage: balanced is n / (classes n_c)" "$(trained $stage "[0.5, 2, 2]")" "$balanced"
    same "$stage: weights are relative" "$(trained $stage "[1, 4, 4]")" "$balanced"
    true_that "$stage: balanced changes nothing" [ "$plain" != "$balanced" ]
    true_that "$stage: the weights are of other classes" [ "$(trained $stage "[2, 0.5, 2]")" != "$balanced" ]
done

# ---- what the loss is, is said
expect 0 run "$task" --stage cloud_pretrain --fresh --set stages.cloud_pretrain.class_weights=balanced
true_that "loss_kind does not say it" grep -qF '"cross entropy (weighted by class)"' "$task/output/events.jsonl"

# ---- distillation: its own part has no weights
expect 0 run "$task" --set stages.edge_kd.class_weights=balanced
weighted=$(model edge_kd)
expect 0 run "$task" --set "stages.edge_kd.class_weights=[0.5, 2, 2]"
same "edge_kd: balanced is n / (classes n_c)" "$(model edge_kd)" "$weighted"
expect 0 run "$task"
true_that "edge_kd: weights change nothing" [ "$(model edge_kd)" != "$weighted" ]

# ---- wrong ones are refused before any work
for stage in cloud_pretrain edge_kd federated_train; do
    expect 2 run "$task" --dry-run --set "stages.$stage.class_weights=[1, 2]"
    said err "stages.$stage.class_weights: 2 weights are given, the data have 3 classes"
    expect 2 run "$task" --dry-run --set "stages.$stage.class_weights=[0, 0, 0]"
    said err "stages.$stage.class_weights: all weights are 0"
    expect 2 run "$task" --dry-run --set "stages.$stage.class_weights=balance"
    said err 'did you mean "balanced"'
    expect 2 run "$task" --dry-run --set "stages.$stage.class_weights=[1, -1, 1]"
    said err "class_weights[1]"
done
expect 2 run "$task" --dry-run --set stages.cloud_pretrain.class_weights=2
said err "1 weight is given"
expect 2 run "$task" --dry-run --set stages.edge_kd.class_weights=balanced --set stages.edge_kd.ce_weight=0
said err "edge_kd.class_weights: has no effect: ce_weight is 0"
expect 0 run "$task" --dry-run --set stages.edge_kd.class_weights=balanced --set stages.edge_kd.ce_weight=0 \
    --set stages.edge_kd.baseline=true
finish
