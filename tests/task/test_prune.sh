#!/bin/bash
# fedstill model prune, and who takes a pruned model: eval, predict, bench, model info, quantise, export, training.
# Needs $FEDSTILL, the program, and $FEDSTILL_HELPER, built from helper.c.
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/common.sh"
new_task 300 100
cat >"$task/task.yaml" <<END
name: tiny
seed: 5
data: {source: idx, path: $folder/data, normalise: {mean: 0.2, std: 0.3}, validation: 0.2}
stages:
  cloud_pretrain: {model: mnist_student, epochs: 2, batch_size: 32}
END
expect 0 run "$task" --no-reuse --stage cloud_pretrain
model=$task/output/cloud_pretrain/model.safetensors pruned=$folder/pruned.safetensors

# ---- wrong requests, before any work
expect 2 model prune "$model"
said err "--out: which file"
for ratio in -0.1 1 nan half; do
    expect 2 model prune "$model" --ratio=$ratio --out "$pruned"
    said err ratio
done
expect 2 model prune "$model" --importance random --out "$pruned"
said err "l1"
expect 1 model prune "$model" --importance batchnorm --out "$pruned"
said err "mnist_student has no batch norms after channels that can be removed; networks that have: fedgen_mnist"
true_that "a file was written" [ ! -e "$pruned" ]

# ---- half of each layer; ratio 0 is the same file
expect 0 model prune "$model" --ratio 0 --out "$pruned"
said out "the file is a copy"
true_that "ratio 0 changes the file" cmp "$model" "$pruned"
expect 0 model prune "$model" --out "$pruned" --json
same "left" "$(figure groups.0.left) $(figure groups.1.left) $(figure groups.2.left)" "8 16 32"
same "parameters" "$(figure before.parameters) $(figure after.parameters)" "105866 26698"
expect 0 model prune "$model" --ratio 0.5 --out "$folder/again.safetensors"
said out "conv1 8 of 16, conv2 16 of 32, fc1 32 of 64"
true_that "the same request makes another file" cmp "$pruned" "$folder/again.safetensors"
expect 0 model prune "$model" --global --out "$folder/again.safetensors" --json
same "left of 112 together" $(($(figure groups.0.left) + $(figure groups.1.left) + $(figure groups.2.left))) 56

# ---- a model like any other
expect 0 model info "$pruned"
said out "widths=8,16,32"
said out unpruned_digest
expect 0 eval "$pruned" "$folder/data" --json --threads 1
loss=$(figure loss)
expect 0 eval "$pruned" "$folder/data" --json --threads 2
same "the loss with two threads" "$(figure loss)" "$loss"
expect 0 data show "$folder/data" --split test --index 0 --plain --out "$folder/one.png"
expect 0 predict "$pruned" "$folder/one.png"
expect 0 bench "$pruned" --batch 1 --steps-only
expect 0 model quantise "$pruned" --calibrate "$task" --out "$folder/int8.safetensors"
expect 0 eval "$folder/int8.safetensors" "$folder/data"
expect 1 model prune "$folder/int8.safetensors" --out "$folder/again.safetensors"
said err "is an int8 model, which cannot be pruned"
expect 0 model export "$pruned" --out "$folder/pt.safetensors"
expect 0 model import "$folder/pt.safetensors" --as mnist_student --out "$folder/again.safetensors"
expect 0 eval "$folder/again.safetensors" "$folder/data" --json
same "the loss of the export" "$(figure loss)" "$loss"

# ---- training goes on from it, in a network of these widths
cp "$pruned" "$task/pruned.safetensors"
expect 2 run "$task" --set stages.cloud_pretrain.init=pruned.safetensors
said err "is a mnist_student with other options"
expect 0 run "$task" --set stages.cloud_pretrain.init=pruned.safetensors --set "stages.cloud_pretrain.model=mnist_student widths=8,16,32"
expect 0 model info "$model"
said out "widths=8,16,32"
expect 2 run "$task" --set "stages.cloud_pretrain.model=mnist_student widths=8,16"
said err "2 widths for 3 groups of channels"

# ---- a stage prunes and trains: the same file with one thread or two; then int8 and the cascade
cat >"$task/task.yaml" <<END
name: tiny
seed: 5
data: {source: idx, path: $folder/data, normalise: {mean: 0.2, std: 0.3}, validation: 0.2}
stages:
  cloud_pretrain: {model: mnist_teacher, epochs: 1, batch_size: 32}
  cloud_kd:       {temperature: 4.0}
  edge_kd:        {model: mnist_student, epochs: 2, batch_size: 32}
  prune:          {ratio: 0.5, epochs: 2, batch_size: 32}
  quantise:       {model: prune, samples: 40}
  device_load:    {batch_size: 8}
  edge_infer:     {model: quantise, threshold: 0.5, calibrate: false, runs: 1, repeats: 1}
  cloud_infer:    {runs: 1, repeats: 1}
END
made=$task/output/prune/model.safetensors
expect 0 run "$task" --mode full_pipeline --dry-run
said out "mnist_student, pruned by 0.5"
said out "26698 parameters, 480 samples"
said out "the network that prune leaves"
expect 0 run "$task" --mode full_pipeline --threads 1
said out "model pruned"
said err "26698 of 105866 parameters are left, validation accuracy"
ran cloud_pretrain cloud_kd edge_kd prune quantise device_load edge_infer cloud_infer
one=$(sha256sum <"$made")
expect 0 model info "$made"
said out "widths=8,16,32"
expect 0 run "$task" --mode full_pipeline --threads 2 --no-reuse --output "$folder/two"
same "threads change the model" "$(sha256sum <"$folder/two/prune/model.safetensors")" "$one"
expect 0 run "$task" --mode full_pipeline
ran
expect 0 run "$task" --set stages.prune.kd_weight=0 --set stages.prune.ce_weight=1
true_that "the teacher changes nothing" [ "$(sha256sum <"$made")" != "$one" ]
expect 0 run "$task" --set stages.prune.teacher=cloud_pretrain
true_that "which teacher changes nothing" [ "$(sha256sum <"$made")" != "$one" ]

# ---- clients go on with it, in a network that is named
expect 2 run "$task" --set stages.federated_train.rounds=1 --set stages.federated_train.init=prune --set stages.prune.model=edge_kd
said err "stages.federated_train.model: the network of what it starts from is known when that is there: set model"
expect 0 run "$task" --mode full_train --set stages.federated_train.rounds=1 --set stages.federated_train.init=prune --set stages.prune.model=edge_kd \
    --set "stages.federated_train.model=mnist_student widths=8,16,32"
ran federated_train

# ---- what cannot be is refused before any work
expect 2 run "$task" --set stages.edge_kd.model=logistic_regression
said err "stages.prune.model: logistic_regression has no channels that can be removed; networks that have: mnist_teacher"
expect 2 run "$task" --set stages.prune.importance=batchnorm
said err "stages.prune.model: mnist_student has no batch norms"
expect 2 run "$task" --set stages.prune.ratio=0.01
said err "stages.prune.ratio: 0.01 of so few channels are none"
expect 2 run "$task" --set stages.prune.ratio=1
said err "stages.prune.ratio"
expect 2 run "$task" --set stages.prune.kd_weight=0 --set stages.prune.teacher=cloud_pretrain
said err teacher
expect 2 run "$task" --set stages.prune.kd_weight=0 --set stages.prune.ce_weight=0
said err "nothing to learn from"
cp "$folder/int8.safetensors" "$task/int8.safetensors"
expect 2 run "$task" --set stages.prune.model=int8.safetensors
said err "stages.prune.model: is an int8 model, which cannot be pruned"

finish
