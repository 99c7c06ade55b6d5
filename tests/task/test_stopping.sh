#!/bin/bash
# Early stopping, learning rates by round, and scores in which every class counts the same.
# Needs $FEDSTILL, the program, and $FEDSTILL_HELPER, built from helper.c.
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/common.sh"
new_task 120 60
cat >"$task/task.yaml" <<END
name: stopping
seed: 11
data: {source: idx, path: $folder/data, validation: 0.25}
clients: {count: 3}
stages:
  cloud_pretrain: {model: logistic_regression, epochs: 8, batch_size: 30, optimizer: {name: sgd, learning_rate: 1e-30}}
  federated_train: {model: logistic_regression, init: cloud_pretrain, rounds: 2, batch_size: 16, optimizer: {name: sgd, learning_rate: 0.05}}
END
weights() { # FILE: a digest of its tensors alone
    rm -f "$folder/weights.safetensors"
    "$FEDSTILL" model export "$1" --out "$folder/weights.safetensors" >/dev/null 2>&1 || echo "cannot export $1"
    sha256sum <"$folder/weights.safetensors"
}
figure() { "$FEDSTILL_HELPER" json "$task/$1/stage.json" "$2"; }
p=stages.cloud_pretrain
pretrain() { # OUTPUT SETTING...
    local output=$1 sets
    shift
    settings_of "$@"
    expect 0 run "$task" --no-reuse --mode pretrain --set output="$output" "${sets[@]}"
}
epochs() { grep -c '"event": *"epoch"' "$task/$1/events.jsonl"; }

# ---- nothing gets better than the first epoch: it stops after `patience` more, whatever the metric
for metric in accuracy macro_f1 loss; do
    pretrain $metric $p.early_stopping.patience=2 $p.early_stopping.metric=$metric
    said err "cloud_pretrain: stopped after epoch 3, epoch 1 was the best"
    same "epochs by $metric" "$(epochs $metric)" 3
done
# with a rate that teaches something but a delta that nothing reaches, the same, and the first epoch's model is kept
fast=$p.optimizer.learning_rate=0.1
pretrain delta $fast $p.early_stopping.patience=3 $p.early_stopping.metric=loss $p.early_stopping.min_delta=100
said err "stopped after epoch 4, epoch 1 was the best"
pretrain one $fast $p.epochs=1
same "the best epoch is kept" "$(weights "$task/delta/cloud_pretrain/model.safetensors")" \
    "$(weights "$task/one/cloud_pretrain/model.safetensors")"
# while the loss falls it does not stop, and the last epoch is the best
pretrain falls $fast $p.early_stopping=1 $p.early_stopping.metric=loss $p.epochs=3
unsaid err "stopped after"
same "epochs while the loss falls" "$(epochs falls)" 3
# what was interrupted, or had fewer epochs, stops where it would have stopped
pretrain grown $fast $p.early_stopping.patience=3 $p.early_stopping.metric=loss $p.early_stopping.min_delta=100 $p.epochs=2
unsaid err "stopped after"
pretrain grown $fast $p.early_stopping.patience=3 $p.early_stopping.metric=loss $p.early_stopping.min_delta=100
said err "going on at epoch 3"
said err "stopped after epoch 4, epoch 1 was the best"
true_that "stopping after an interruption gives another model" cmp "$task/grown/cloud_pretrain/model.safetensors" \
    "$task/delta/cloud_pretrain/model.safetensors"
expect 2 run "$task" --dry-run --set $p.early_stopping=2 --set data.validation=0
said err "$p.early_stopping"
said err "set data.validation"

# ---- rates by round: one that vanishes in the second round leaves what the first made
f=stages.federated_train
federated() { # OUTPUT SETTING...
    local output=$1 sets
    shift
    settings_of "$@"
    expect 0 run "$task" --no-reuse --set output="$output" "${sets[@]}"
}
federated single $f.rounds=1
federated vanishing $f.schedule.name=multistep $f.schedule.milestones=1 $f.schedule.gamma=1e-30
same "a second round with no rate" "$(weights "$task/vanishing/federated_train/model.safetensors")" \
    "$(weights "$task/single/federated_train/model.safetensors")"
federated constant
true_that "the second round does nothing" [ "$(weights "$task/constant/federated_train/model.safetensors")" != \
    "$(weights "$task/single/federated_train/model.safetensors")" ]
federated constant $f.rounds=3 $f.schedule=cosine $f.optimizer.learning_rate=0.04
unsaid err "going on"
same "rates of the rounds along a cosine" "$(sed -n 's/.*"event": "round".*"learning_rate": \([^,]*\).*/\1/p' \
    "$task/constant/events.jsonl" | tail -n 3 | xargs printf '%.6f ')" "0.040000 0.030000 0.010000 "
expect 0 report "$task/constant"
true_that "the report draws them" grep -q 'Learning rate of the clients' "$task/constant/report.html"

# ---- macro F1 and balanced accuracy: in the records, the summary and eval, and the same there
expect 0 eval "$task/constant/federated_train/model.safetensors" "$folder/data" --json
for key in macro_f1 balanced_accuracy; do
    value=$(figure constant/federated_train $key)
    same "$key of eval" "$(printf %.8f "$("$FEDSTILL_HELPER" json "$folder/out" $key)")" "$(printf %.8f "$value")"
    same "$key of the summary" "$("$FEDSTILL_HELPER" json "$task/constant/summary.json" stages.federated_train.$key)" "$value"
done
expect 0 eval "$task/constant/federated_train/model.safetensors" "$folder/data"
said out "macro F1"

# ---- top-5, against the logits of the cascade's edge; not said of five classes or fewer
cat >"$task/task.yaml" <<END
name: top
seed: 2
data: {source: idx, path: $folder/data, normalise: {mean: 0.1, std: 0.3}}
stages:
  edge_kd: {model: fedgen_mnist, epochs: 1, batch_size: 60, kd_weight: 0, ce_weight: 1, optimizer: {name: sgd, learning_rate: 0.01}}
  device_load: {batch_size: 16}
  edge_infer: {threshold: 0.5, calibrate: false, runs: 1, repeats: 1}
END
expect 0 run "$task" --no-reuse --set output=top
expect 0 run "$task" --no-reuse --mode device_to_edge --set output=top
read -r top1 top5 < <(python3 "$(dirname "$0")/top5.py" "$task/top/edge_infer/predictions.safetensors" "$folder/data/t10k-labels-idx1-ubyte")
true_that "top-5 says nothing here: $top1, $top5" awk "BEGIN { exit !($top1 < $top5 && $top5 < 1) }"
same "top-1" "$(printf %.10f "$(figure top/edge_kd accuracy)")" "$(printf %.10f "$top1")"
same "top-5" "$(printf %.10f "$(figure top/edge_kd top5_accuracy)")" "$(printf %.10f "$top5")"
same "top-5 of the summary" "$("$FEDSTILL_HELPER" json "$task/top/summary.json" stages.edge_kd.top5_accuracy)" "$(figure top/edge_kd top5_accuracy)"
same "classes" "$("$FEDSTILL_HELPER" json "$task/top/summary.json" data.classes)" 10
named_task 30 12
printf 'name: few\nseed: 2\ndata: {source: array, path: data}\nstages:\n  cloud_pretrain: {model: logistic_regression, epochs: 1}\n' >"$task/task.yaml"
expect 0 run "$task" --no-reuse --set output=few
true_that "top-5 of three classes" test "$(grep -c top5 "$task/few/summary.json" "$task/few/cloud_pretrain/stage.json" | cut -d: -f2 | tr '\n' ' ')" = "0 0 "
finish
