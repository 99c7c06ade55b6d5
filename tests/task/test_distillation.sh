#!/bin/bash
# Distillation from a task file: values that move over the epochs.
# Needs $FEDSTILL, the program, and $FEDSTILL_HELPER, built from helper.c.
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/common.sh"
task=$folder/task
mkdir "$task"
"$FEDSTILL_HELPER" data "$folder/data" 120 30 || exit 1
cat >"$task/task.yaml" <<END
name: distillation
seed: 3
data: {source: idx, path: $folder/data, validation: 0.25}
stages:
  cloud_pretrain: {model: logistic_regression, epochs: 2, batch_size: 16}
  cloud_kd:       {temperature: 4.0}
  edge_kd:        {model: logistic_regression, epochs: 3, batch_size: 16}
END
e=stages.edge_kd

# distil SETTING...: a run
distil() {
    local sets=()
    for setting; do sets+=(--set "$setting"); done
    expect 0 run "$task" "${sets[@]}"
}
# the parameters alone: the head of the file names the settings
model() { tail -c 31400 "$task/output/edge_kd/model.safetensors" | sha256sum; } # (10, 784) + 10 floats
# values KEY [EPOCHS]: what the last epochs had
values() {
    sed -n 's/.*"event": *"epoch".*"'"$1"'": *\([-0-9.e]*\).*/\1/p' "$task/output/events.jsonl" | tail -n "${2:-3}" |
        tr '\n' ' '
}

# ---- values by epoch
distil $e.temperature_schedule.from=8 $e.kd_weight_schedule.from=0 $e.kd_weight_schedule.over=2 \
    $e.ce_weight_schedule.name=step $e.ce_weight_schedule.from=1 "$e.ce_weight_schedule.milestones=[1, 2]"
same "temperatures" "$(values temperature)" "8.0 6.0 4.0 "
same "weights of the distillation" "$(values kd_weight)" "0.0 0.7 0.7 "
same "weights of the cross entropy" "$(values ce_weight)" "1.0 0.65 0.3 "
same "what is kept" "$("$FEDSTILL_HELPER" json "$task/output/cloud_kd/stage.json" inputs | grep -c content=logits)" 1

# ---- a temperature that never moves is that temperature
distil $e.kd_loss=standardised $e.temperature=8
constant=$(model)
distil $e.kd_loss=standardised $e.temperature_schedule.name=step $e.temperature_schedule.from=8 \
    "$e.temperature_schedule.milestones=9"
said err "takes 10 epochs, and there are 3: temperature never gets to its last value"
same "a jump after the last epoch" "$(model)" "$constant"
distil $e.kd_loss=standardised $e.temperature_schedule.name=step $e.temperature_schedule.from=8 \
    "$e.temperature_schedule.milestones=2"
true_that "a jump before the last epoch changes the model" test "$(model)" != "$constant"
ran edge_kd

# ---- what a value depends on, and what not
follow="$e.kd_weight_schedule.name=accuracy $e.kd_weight_schedule.from=0.1 $e.kd_weight_schedule.high=0.9"
# shellcheck disable=SC2086
distil $follow $e.epochs=4
whole=$(model)
true_that "the weight follows the accuracy" test "$(values kd_weight 4)" != "0.1 0.1 0.1 0.1 "
rm -rf "$task/output"
# shellcheck disable=SC2086
distil $follow $e.epochs=2
# shellcheck disable=SC2086
distil $follow $e.epochs=4
said err "edge_kd: going on at epoch 3"
same "two epochs and two more" "$(model)" "$whole"
# one that ends with the epochs begins anew when there are more of them
distil $e.kd_weight_schedule.from=0 $e.epochs=2
distil $e.kd_weight_schedule.from=0 $e.epochs=3
unsaid err "going on"

# ---- refused before any work
refused() {
    local key=$1 text=$2 sets=()
    shift 2
    for setting; do sets+=(--set "$setting"); done
    expect 2 run "$task" --dry-run "${sets[@]}"
    said err "$key"
    said err "$text"
}
refused $e.temperature_schedule "only with kd_loss" $e.temperature_schedule.from=8 $e.kd_loss=mse_logits
refused $e.temperature_schedule.from "must be above 0" $e.temperature_schedule.from=0
refused $e.temperature_schedule.from "nothing would change" $e.temperature_schedule.from=4 $e.temperature=4
refused $e.kd_weight_schedule "has no effect without kd_weight" $e.kd_weight=0 $e.kd_weight_schedule.from=1
refused $e.kd_weight_schedule.from "nothing would change" $e.kd_weight_schedule.from=0.7
refused $e.kd_weight_schedule.milestones "only with name step" $e.kd_weight_schedule.from=0 \
    "$e.kd_weight_schedule.milestones=3"
refused $e.kd_weight_schedule.name "needs milestones" $e.kd_weight_schedule.from=0 $e.kd_weight_schedule.name=step
refused $e.kd_weight_schedule.high "must be above low (1)" $e.kd_weight_schedule.from=0 \
    $e.kd_weight_schedule.name=accuracy $e.kd_weight_schedule.low=1
refused $e.kd_weight_schedule "follows the validation accuracy" $e.kd_weight_schedule.from=0 \
    $e.kd_weight_schedule.name=accuracy data.validation=0
refused $e.kd_weight_schedule "both move kd_weight" $e.kd_weight_schedule.from=0 $e.kd_loss=dkd $e.dkd.warmup_epochs=2
refused stages.cloud_kd.content "edge_kd.temperature_schedule takes logits" $e.temperature_schedule.from=8 \
    stages.cloud_kd.content=probabilities
refused stages.cloud_kd.top_k "which edge_kd.temperature_schedule takes" $e.temperature_schedule.from=8 \
    stages.cloud_kd.encoding=top_k
finish
