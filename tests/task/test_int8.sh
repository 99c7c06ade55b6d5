#!/bin/bash
# fedstill model quantise, and who takes an int8 model: eval, predict, model info, teachers, the cascade; and who refuses it.
# Needs $FEDSTILL, the program, and $FEDSTILL_HELPER, built from helper.c.
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/common.sh"
new_task 300 100
cat >"$task/task.yaml" <<END
name: tiny
seed: 5
data: {source: idx, path: $folder/data, normalise: {mean: 0.2, std: 0.3}, validation: 0.2}
stages:
  cloud_pretrain: {model: mnist_teacher, epochs: 2, batch_size: 32}
  cloud_kd:       {temperature: 4.0}
  edge_kd:        {model: mnist_student, epochs: 2, batch_size: 32}
  device_load:    {batch_size: 8}
  edge_infer:     {threshold: 0.5, calibrate: false, runs: 1, repeats: 1}
  cloud_infer:    {runs: 1, repeats: 1}
END
expect 0 run "$task" --no-reuse --mode full_pipeline
model=$task/output/edge_kd/model.safetensors int8=$folder/int8.safetensors
holds() { awk "BEGIN { exit !($1) }"; }
bytes() { stat -c %s "$1"; }

# ---- made from validation samples, a quarter of the size; the same file each time
expect 2 model quantise "$model" --out "$int8"
said err "--calibrate: which task or data"
expect 2 model quantise "$model" --calibrate "$task"
said err "--out: which file"
expect 2 model quantise "$model" --calibrate "$task" --out "$int8" --split test
said err "test"
expect 2 model quantise "$model" --calibrate "$folder/data" --out "$int8" --set seed=1
said err "--set has no effect"
true_that "a file was written" [ ! -e "$int8" ]
expect 0 model quantise "$model" --calibrate "$task" --out "$int8" --threads 1 --json
same "samples of" "$(figure split)" val
same "their number" "$(figure samples)" 60
same "the layers" "$(figure layers.3.name) $(figure layers.3.int8)" "fc2 true"
same "the last one reads a ReLU's output" "$(figure layers.3.input_range.0) $(figure layers.3.input_range.1)" "0 255"
same "the first one reads samples" "$(figure layers.0.input_range.0)" -127
true_that "$(bytes "$int8") bytes of $(bytes "$model")" holds "$(bytes "$int8") < 0.27 * $(bytes "$model")"
expect 0 model quantise "$model" --calibrate "$task" --out "$folder/again.safetensors" --threads 2
said out "4 of 4 layers"
said out "60 samples (val)"
true_that "threads change the file" cmp "$int8" "$folder/again.safetensors"
expect 0 model quantise "$model" --calibrate "$folder/data" --limit 50 --out "$folder/again.safetensors"
said out "50 samples (train)"
# only where there are none for validation: those that are there and broken are an error
mkdir "$folder/arrays"
expect 0 data import "$folder/data" --out "$folder/arrays/train.safetensors" --limit 100
expect 0 model quantise "$model" --calibrate "$folder/arrays" --out "$folder/again.safetensors"
said out "100 samples (train)"
head -c 5000 "$folder/arrays/train.safetensors" >"$folder/arrays/val.safetensors"
expect 1 model quantise "$model" --calibrate "$folder/arrays" --out "$folder/none.safetensors"
said err "val.safetensors"
true_that "a file was written" [ ! -e "$folder/none.safetensors" ]
expect 1 init "$folder/from-broken" --data "$folder/arrays"
said err "validation samples: $folder/arrays/val.safetensors"
cp "$folder/arrays/train.safetensors" "$folder/arrays/val.safetensors"
expect 0 model quantise "$model" --calibrate "$folder/arrays" --out "$folder/again.safetensors"
said out "100 samples (val)"
# a task's file by its other ending, and one that is not there
cp "$task/task.yaml" "$task/other.yml"
expect 0 model quantise "$model" --calibrate "$task/other.yml" --out "$folder/again.safetensors"
said out "60 samples (val)"
expect 1 model quantise "$model" --calibrate "$task/none.yaml" --out "$folder/none.safetensors"
said err "none.yaml: there is no such file"
expect 1 model quantise "$int8" --calibrate "$task" --out "$folder/again.safetensors"
said err "int8 model already"

# ---- it answers as the model that it was made of, on one thread or two
expect 0 eval "$model" "$folder/data" --json
right=$(figure correct)
expect 0 eval "$int8" "$folder/data" --json --threads 1
true_that "of 100 samples f32 has $right right, int8 $(figure correct)" \
    holds "($(figure correct) - $right)^2 <= 9 && $right > 20"
loss=$(figure loss)
expect 0 eval "$int8" "$folder/data" --json --threads 2 --batch 7
same "the loss with two threads" "$(figure loss)" "$loss"
expect 0 model info "$int8"
said out int8_conv2d
said out calibration_samples
unsaid out "Adam"
expect 0 model info "$int8" --json
same "memory for training" "$(figure memory.training_bytes)" null
checks=$((checks + 1))
/usr/bin/python3 -B - "$FEDSTILL_SOURCE/python" "$model" "$int8" <<'END' || fail "python/fedstill.py"
import sys
sys.path.insert(0, sys.argv[1])
import fedstill
import numpy as np
f32, int8 = fedstill.Model(sys.argv[2]), fedstill.Model(sys.argv[3])
assert int8.int8 and not f32.int8 and int8.arch == f32.arch
for layer in "conv1", "conv2", "fc1", "fc2": # whole numbers times scales are the weights, to half a scale
    w, q = f32.tensors[layer + ".weight"], int8.tensors[layer + ".weight"]
    scale = int8.tensors[layer + ".weight_scale"].reshape((-1,) + (1,) * (w.ndim - 1))
    assert q.dtype == np.int8 and np.abs(q).max() == 127
    assert (np.abs(q * scale - w) <= scale * 0.50001).all()
    assert (int8.tensors[layer + ".bias"] == f32.tensors[layer + ".bias"]).all()
END
expect 0 data show "$folder/data" --split test --index 0 --plain --out "$folder/one.png"
expect 0 predict "$int8" "$folder/one.png" --json

# ---- in a task: it teaches and answers in the cascade, as any other file
cp "$int8" "$task/int8.safetensors"
expect 0 run "$task" --mode full_pipeline --set stages.edge_infer.model=int8.safetensors
ran edge_infer cloud_infer
same "the edge's accuracy" "$(awk "BEGIN { printf \"%.4f\", $("$FEDSTILL_HELPER" json "$task/output/edge_infer/report.json" summary.accuracy) }")" \
    "$("$FEDSTILL" eval "$int8" "$folder/data" --json 2>/dev/null >"$folder/out"; awk "BEGIN { printf \"%.4f\", $(figure accuracy) }")"
expect 0 run "$task" --stage cloud_kd --set stages.cloud_kd.teacher=int8.safetensors

# ---- a stage makes it, of the student, and of what its settings say; it runs again when these change
sed -i '/edge_kd:/a\  quantise:       {samples: 40}' "$task/task.yaml"
sed -i 's/edge_infer:     {/edge_infer:     {model: quantise, /' "$task/task.yaml"
expect 0 run "$task" --mode full_pipeline --dry-run
said out "quantise         mnist_student"
expect 0 run "$task" --mode full_pipeline
ran quantise edge_infer cloud_infer
said out "model in int8"
made=$task/output/quantise/model.safetensors
record() { "$FEDSTILL_HELPER" json "$task/output/quantise/stage.json" "$1"; }
same "samples of calibration" "$(record samples)" 40
expect 0 eval "$made" "$folder/data" --json
same "its accuracy" "$(awk "BEGIN { printf \"%.6f\", $(figure accuracy) }")" "$(awk "BEGIN { printf \"%.6f\", $(record accuracy) }")"
expect 0 model quantise "$model" --calibrate "$task" --limit 40 --out "$folder/again.safetensors" --json
for layer in conv1 conv2 fc1 fc2; do
    weights() { "$FEDSTILL" model info "$1" --json 2>/dev/null | tr -d ' \n' | grep -o "\"name\":\"$layer\"[^}]*"; }
    same "$layer of stage and command" "$(weights "$made")" "$(weights "$folder/again.safetensors")"
done
expect 0 run "$task" --mode full_pipeline
ran
expect 0 run "$task" --mode full_pipeline --set stages.quantise.samples=30
ran quantise edge_infer cloud_infer
cp "$model" "$task/f32.safetensors"
expect 0 run "$task" --mode full_pipeline --set stages.quantise.model=f32.safetensors --set stages.quantise.samples=30
same "of a file" "$(record samples)" 30
expect 2 run "$task" --set stages.quantise.model=int8.safetensors
said err "stages.quantise.model: is an int8 model already"
expect 2 run "$task" --set stages.quantise.model=f32.safetensors --set data.normalise.mean=0.1
said err "stages.quantise.model: was trained with another normalisation"
expect 2 run "$task" --set stages.federated_train.rounds=1 --set stages.federated_train.init=quantise
said err "stages.federated_train.init: quantise leaves an int8 model, which cannot be trained"
expect 0 run "$task" --mode full_pipeline --dry-run --set stages.cloud_kd.teacher=int8.safetensors

# ---- a student that learns for int8 is another one, in f32; its own int8 model is made of it
f32=$(sha256sum <"$task/output/edge_kd/model.safetensors")
expect 0 run "$task" --mode full_pipeline --set stages.edge_kd.quantise=int8
ran edge_kd quantise edge_infer cloud_infer
true_that "the student is as before" [ "$(sha256sum <"$task/output/edge_kd/model.safetensors")" != "$f32" ]
expect 0 model info "$task/output/edge_kd/model.safetensors"
unsaid out int8_conv2d
expect 0 run "$task" --mode knowledge_distillation --set stages.edge_kd.quantise=int8 --no-reuse --output "$folder/two" --threads 2 \
    --set stages.cloud_kd.teacher=int8.safetensors
expect 0 run "$task" --mode knowledge_distillation --set stages.edge_kd.quantise=int8 --no-reuse --output "$folder/one" --threads 1 \
    --set stages.cloud_kd.teacher=int8.safetensors
true_that "threads change what is learnt" cmp "$folder/one/edge_kd/model.safetensors" "$folder/two/edge_kd/model.safetensors"
expect 2 run "$task" --set stages.edge_kd.quantise=int4
said err "int8"
expect 2 run "$task" --set stages.edge_kd.quantise=int8 --set precision=bf16
said err "stages.edge_kd.quantise: learning for int8 is in f32"
expect 2 run "$task" --set stages.edge_kd.quantise=int8 --set stages.edge_kd.fitnet.student=conv1 --set stages.edge_kd.fitnet.teacher=conv1
said err "quantise: does not go with fitnet"

# ---- what needs weights to learn with says so, before any work
expect 2 run "$task" --set stages.edge_kd.init=int8.safetensors
said err "stages.edge_kd.init: int8.safetensors is an int8 model, which cannot be trained"
expect 1 model export "$int8" --out "$folder/other.safetensors"
said err "cannot be exported: take the f32 model"
expect 1 model export "$int8" --out "$folder/other.onnx"
said err "cannot be exported: take the f32 model"
expect 1 model import "$int8" --as mnist_student --out "$folder/other.safetensors"
said err "cannot be imported: take the f32 model"
true_that "something was written" [ ! -e "$folder/other.safetensors" ] && [ ! -e "$folder/other.onnx" ]
finish
