#!/bin/bash
# `fedstill run` of a task with cloud, edges and devices: made signals, models of every edge, what the record says of
# the network, the chosen round; precision and check_finite; and folders with one JSON file a stage.
# Needs $FEDSTILL, the program, and $FEDSTILL_HELPER, built from helper.c.
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/common.sh"
helper=$FEDSTILL_HELPER
task=$folder/task output=$folder/task/output
mkdir "$task"
echo '{"burst": {"window": 64}}' >"$task/params.json"
cat >"$task/task.yaml" <<END
name: tiers
seed: 5
data:
  source: synth
  synth: {windows: 840, snr: [0, 30], params: params.json}
  test: 0.2
  validation: 0.2
topology: {edges: 2, devices: 4, alpha: 0.05}
stages:
  cloud_pretrain:  {model: logistic_regression, epochs: 1, batch_size: 32}
  cloud_kd:        {temperature: 2}
  edge_kd:         {model: logistic_regression, epochs: 1, batch_size: 32, baseline: true}
  federated_train: {rounds: 4, batch_size: 16, select: best, optimizer: {name: sgd, learning_rate: 0.05}}
  device_load:     {batch_size: 8}
  edge_infer:      {threshold: 0.3, calibrate: false, runs: 1, repeats: 1}
  cloud_infer:     {runs: 1, repeats: 1}
END
summary() { "$helper" json "$output/summary.json" "$1"; }
record() { "$helper" json "$output/federated_train/stage.json" "$1"; }

# ---- a dry run says who has what and writes nothing
expect 0 run "$task" --no-reuse --dry-run
said out "edge 2, with 2 devices"
true_that "--dry-run made $output" [ ! -e "$output" ]

# ---- the first run
expect 0 run "$task" --no-reuse
# shellcheck disable=SC2086 # a list
ran $steps
said err "edge 1 has no samples of"
said out "edge 2, local"
digests "$output" >"$folder/reference"
for k in 1 2; do
    true_that "the model of edge $k" [ -s "$output/federated_train/edge_${k}_model.safetensors" ]
    sha256sum "$output/federated_train/edge_${k}_model.safetensors" | cut -d ' ' -f 1 >>"$folder/reference"
    same "digest of edge $k" "$(record "edges.$((k - 1)).digest")" "$(tail -n 1 "$folder/reference")"
done
true_that "edges end with models of their own" [ "$(record edges.0.digest)" != "$(record edges.1.digest)" ]

# ---- data stay where they are: models travel, and nothing else
bytes=$((4 * $(summary stages.edge_kd.parameters)))
same "bytes up" "$(record bytes_up)" $((4 * 2 * bytes))
same "bytes down" "$(record bytes_down)" $((4 * 2 * bytes))
same "bytes of soft labels" "$(summary stages.cloud_kd.bytes_down) $(summary stages.edge_kd.bytes_down)" "0 0"
learnt=$(($(summary places.1.samples) + $(summary places.2.samples)))
same "samples of the rounds" "$(record samples)" $learnt
same "samples of the student" "$(summary stages.edge_kd.samples)" "$(summary places.0.samples)"
total=$((learnt + $(summary places.0.samples)))
for k in 0 1 2; do total=$((total + $(summary places.$k.validation))); done
same "all samples" $((total + $(summary data.test_samples))) 840

# ---- the best round by validation, after aggregation
best=$(sed -n 's/.*"event": "round".*"round": \([0-9]*\),.*"validation_accuracy": \([0-9.e+-]*\).*/\2 \1/p' \
    "$output/events.jsonl" | sort -k 1,1gr -k 2,2n | head -n 1)
same "best round" "$(record best_round)" "${best#* }"

# ---- accuracy by SNR counts every test sample once
rights=0 samples=0
for i in 0 1 2 3 4 5; do
    rights=$((rights + $(record accuracy_by_snr.$i.correct))) samples=$((samples + $(record accuracy_by_snr.$i.samples)))
done
same "samples by SNR" $samples "$(summary data.test_samples)"
true_that "accuracy by SNR" awk -v a=$rights -v n=$samples -v b="$(record accuracy)" \
    'BEGIN { d = a / n - b; exit !(d < 1e-9 && d > -1e-9) }'

# ---- the same bits again, whatever the workers; signals are those of `data synth`
"$FEDSTILL" data synth link11 --out "$folder/signals.safetensors" --count 840 --seed 5 --snr 0:30 \
    --params "$task/params.json" >"$folder/out" 2>&1
true_that "signals are those of data synth" cmp "$folder/signals.safetensors" "$output/data/signals.safetensors"
expect 0 run "$task" --no-reuse --set output=again --workers 1 --threads 1 --set checkpoint.steps=1
digests "$task/again" >"$folder/now"
for k in 1 2; do sha256sum "$task/again/federated_train/edge_${k}_model.safetensors" | cut -d ' ' -f 1 >>"$folder/now"; done
true_that "one worker: other bits" diff "$folder/reference" "$folder/now"

# ---- killed in the rounds, again and again: the same bits, those of every edge too
long=(--set stages.federated_train.rounds=500 --set checkpoint.steps=1)
expect 0 run "$task" --no-reuse "${long[@]}"
models() { (cd "$1/federated_train" && sha256sum ./*model.safetensors && "$helper" json stage.json best_round); }
models "$output" >"$folder/reference"
cp -r "$output" "$task/killed"
rm -r "$task/killed/federated_train"
RANDOM=1 resumed=0
for _ in 1 2 3 4 5 6 7 8; do
    "$FEDSTILL" run "$task" --no-reuse "${long[@]}" --set output=killed >"$folder/out" 2>"$folder/err" </dev/null &
    sleep "0.$((100 + RANDOM % 200))"
    kill -9 $!
    wait $!
    grep -q "going on at round" "$folder/err" && resumed=$((resumed + 1))
done 2>/dev/null
expect 0 run "$task" --no-reuse "${long[@]}" --set output=killed
models "$task/killed" >"$folder/now"
true_that "killed: other bits" diff "$folder/reference" "$folder/now"
echo "killed runs that went on where others stopped: $resumed"
expect 0 run "$task" --no-reuse

# ---- signals are made once, and again when they are damaged or asked for otherwise
made() { stat -c '%Y %Z %i' "$output/data/signals.safetensors"; }
before=$(made)
expect 0 run "$task" --no-reuse
ran
same "signals were made anew" "$(made)" "$before"
printf x >>"$output/data/signals.safetensors"
expect 0 run "$task" --no-reuse
ran
true_that "mended signals" cmp "$folder/signals.safetensors" "$output/data/signals.safetensors"
expect 0 run "$task" --no-reuse --mode pretrain --set data.synth.snr='[10, 30]'
ran cloud_pretrain
true_that "other signals" [ "$(sha256sum <"$output/data/signals.safetensors")" != "$(sha256sum <"$folder/signals.safetensors")" ]

# ---- what is out of date
expect 0 run "$task" --no-reuse
expect 0 run "$task" --no-reuse --set topology.links.edge_cloud.rate=1
ran
rm "$output/federated_train/edge_2_model.safetensors"
expect 0 run "$task" --no-reuse
ran federated_train
expect 0 run "$task" --no-reuse --set topology.alpha=1000
ran federated_train # the cloud's share is what it was
expect 0 run "$task" --no-reuse --set stages.federated_train.select=last
ran federated_train
true_that "no round was chosen" [ "$(record best_round 2>/dev/null)" = "" ]

# ---- precision: a backend that lacks bf16 says so and computes the same
expect 0 run "$task" --no-reuse --set output=f32 --backend reference --mode pretrain
unsaid err "cannot compute in bf16"
expect 0 run "$task" --no-reuse --set output=f32 --backend reference --mode pretrain --set precision=bf16
said err "cannot compute in bf16"
same "how often it says so" "$(grep -c "cannot compute in bf16" "$folder/err")" 1
ran
if grep -q avx512_bf16 /proc/cpuinfo && "$FEDSTILL" --version | grep -q oneDNN; then
    expect 0 run "$task" --no-reuse --set output=f32 --mode pretrain
    expect 0 run "$task" --no-reuse --set output=f32 --mode pretrain --set precision=bf16
    ran cloud_pretrain
fi

# ---- check_finite names a layer, and is no reason to run again
expect 0 run "$task" --no-reuse --mode pretrain --set check_finite=true
ran
# this decay multiplies the weights by -9999 a step
broken=(--set output=broken --mode pretrain --fresh
    --set stages.cloud_pretrain.optimizer='{name: sgd, learning_rate: 1000, weight_decay: 10}' --set stages.cloud_pretrain.epochs=3)
expect 1 run "$task" --no-reuse "${broken[@]}" --set check_finite=true
said err " of layer "
expect 1 run "$task" --no-reuse "${broken[@]}"
unsaid err " of layer "

# ---- networks that see fingerprints: in training, in the rounds, at the edge and in the cloud
seen() { # ACCURACIES: what the stages say of the same model on the same samples
    expect 0 run "$task" --no-reuse --mode full_pipeline --set output=seen --set data.fingerprint="$1"
    for pair in "cloud_infer cloud_pretrain cloud_accuracy" "edge_infer federated_train accuracy"; do
        read -r stage model key <<<"$pair"
        true_that "$stage and $model differ" awk -v a="$("$helper" json "$task/seen/$stage/report.json" "summary.$key")" \
            -v b="$("$helper" json "$task/seen/$model/stage.json" accuracy)" 'BEGIN { d = a - b; exit !(d < 1e-9 && d > -1e-9) }'
    done
}
seen false
plain=$("$helper" json "$task/seen/cloud_pretrain/stage.json" digest)
seen true
ran cloud_pretrain cloud_kd edge_alone edge_kd federated_train device_load edge_infer cloud_infer
true_that "fingerprints change nothing" [ "$("$helper" json "$task/seen/cloud_pretrain/stage.json" digest)" != "$plain" ]

# ---- bursts and SNR belong to the inputs: other annotations of the same samples
mkdir "$folder/facts"
"$FEDSTILL" data synth link11 --out "$folder/facts/signals.sigmf" --count 280 --params "$task/params.json" >"$folder/out" 2>&1
cat >"$folder/facts/task.yaml" <<END
name: facts
data: {source: sigmf, path: signals.sigmf-meta, test: 0.2, validation: 0.1}
stages: {cloud_pretrain: {model: logistic_regression, epochs: 1}}
END
expect 0 run "$folder/facts"
ran cloud_pretrain
expect 0 run "$folder/facts"
ran
sed -i 's/"fedstill:snr_db":[-0-9.e]*/"fedstill:snr_db":7/' "$folder/facts/signals.sigmf-meta"
expect 0 run "$folder/facts"
ran cloud_pretrain

# ---- recordings are cut into windows of the model's length
echo '{"burst": {"window": 128}}' >"$folder/long.json"
"$FEDSTILL" data synth link11 --out "$folder/long.sigmf" --count 28 --params "$folder/long.json" >"$folder/out" 2>&1
expect 0 eval "$output/federated_train/model.safetensors" "$folder/long.sigmf-meta" --split train --json
said out '"samples": 56'

# ---- what cannot work is told before anything is trained
expect 2 run "$task" --no-reuse --dry-run --mode full_pipeline --set topology.devices=1000
said err "the shares of 1000 devices"
mkdir "$folder/turned" "$folder/turned/data"
"$FEDSTILL" data synth link11 --out "$folder/turned/data/train.npz" --count 280 --classes E-2D_1,E-2D_2 \
    --params "$task/params.json" >"$folder/out" 2>&1
"$FEDSTILL" data synth link11 --out "$folder/turned/data/test.npz" --first 280 --count 80 --classes E-2D_2,E-2D_1 \
    --params "$task/params.json" >"$folder/out" 2>&1
cat >"$folder/turned/task.yaml" <<END
name: turned
data: {source: array, path: data}
stages: {cloud_pretrain: {model: logistic_regression, epochs: 1}}
END
expect 1 run "$folder/turned"
said err 'class 0 is "E-2D_1" in '

# ---- one JSON file a stage
stages=$folder/stages
mkdir -p "$stages/input" "$folder/data"
"$FEDSTILL" data synth link11 --out "$folder/data/train.safetensors" --count 420 --params "$task/params.json" >"$folder/out" 2>&1
"$FEDSTILL" data synth link11 --out "$folder/data/test.safetensors" --first 420 --count 84 --params "$task/params.json" \
    >"$folder/out" 2>&1
put() { cat >"$stages/input/$1.json"; }
put cloud_pretrain <<END
{"_comment": "the teacher", "data_path": "../data", "dataset_type": "link11", "num_classes": 7,
 "model_type": "logistic_regression", "epochs": 1, "batch_size": 32, "learning_rate": 0.01, "device": "cuda:0"}
END
put cloud_kd <<END
{"teacher_model_path": "tasks/004/output/cloud_pretrain/teacher_model.pth", "temperature": 3.0, "device": "cuda:0"}
END
put edge_kd <<END
{"student_model_type": "logistic_regression", "kd_alpha": 0.75, "temperature": 3.0, "epochs": 1}
END
put federated_train <<END
{"num_rounds": 2, "local_epochs": 1, "init_model_path": "tasks/004/output/edge_kd/student_model.pth"}
END
put edge_infer <<END
{"confidence_threshold": 0.7, "simulate_bandwidth_mbps": 4, "input_data": {"source": "device_load"}}
END
expect 0 run "$stages" --dry-run
said out "kd_weight: 0.75"
said out "ce_weight: 0.25"
said out "temperature: 3"
said out "learning_rate: 0.01"
said out "rounds: 2"
said out "init: edge_kd"
said out "classes: 7"
unsaid out "rate: 4" # no device hands anything over, so nothing travels
put device_load <<<'{}'
expect 0 run "$stages" --dry-run
said out "rate: 4"
rm "$stages/input/device_load.json"
expect 0 run "$stages" --dry-run
said err "the CPU is used"
same "how often it says so" "$(grep -c "the CPU is used" "$folder/err")" 1
expect 0 run "$stages"
ran cloud_pretrain cloud_kd edge_kd federated_train
said out "edge 2, local"
expect 0 run "$stages" --dry-run --set stages.edge_kd.epochs=9
said out "epochs: 9"

# wrong FILE TEXT: with TEXT in FILE the task is refused; the message names the file and what follows
wrong() {
    cp "$stages/input/$1.json" "$folder/keep" 2>/dev/null
    put "$1" <<<"$2"
    expect 2 run "$stages" --dry-run
    said err "$1.json"
    said err "$3"
    if [ -e "$folder/keep" ]; then mv "$folder/keep" "$stages/input/$1.json"; else rm "$stages/input/$1.json"; fi
}
wrong edge_kd '{"student_model_type": "logistic_regression", "kd_alpha": 0.75, "temprature": 3}' "temprature"
wrong edge_kd '{"student_model_type": "logistic_regression", "kd_alpha": 1.5}' "kd_alpha"
wrong edge_kd '{"kd_alpha": 0.5}' "student_model_type"
wrong cloud_kd '{"teacher_model_type": "mnist_teacher"}' "the network is not that of cloud_pretrain.json"
wrong cloud_kd '{"teacher_model_path": "/elsewhere/teacher.pth"}' "is not what a stage of this task leaves"
wrong federated_train '{"num_classes": 8}' "num_classes is not that of cloud_pretrain.json"
wrong federated_train '{"num_edges": 3, "edge_data_paths": ["../data"]}' "num_edges is 3"
wrong federated_train '{"edge_data_paths": ["../nowhere"]}' "nowhere"
wrong device_load '{"batch_size": 0}' "batch_size"
wrong cloud_infer '{"kd_alpha": 0.5}' "unknown key"
wrong cloud_infer '{"simulate_bandwidth_mbps": 5}' "simulate_bandwidth_mbps is not that of edge_infer.json"
wrong cloud_kd '{"fingerprint": 1}' "fingerprint"
put edge_kd <<END
{"student_model_type": "logistic_regression", "kd_alpha": 0.75, "temperature": 3.0, "epochs": 1.0, "fingerprint": true}
END
wrong cloud_kd '{"temperature": 3, "fingerprint": false}' "fingerprint is not that of"
put device_load <<<'{}'
expect 0 run "$stages" --dry-run
said out "fingerprint: true"
said out "epochs: 1"
# the names of the system that these files come from stand for the folders of data split
"$FEDSTILL" data split "$folder/data/train.safetensors" --out "$folder/splits" >"$folder/out" 2>&1
put cloud_pretrain <<END
{"data_path": "../splits/cloud_data.pkl", "model_type": "logistic_regression", "epochs": 1}
END
put federated_train <<END
{"num_rounds": 1.0, "edge_data_paths": ["../splits/edge_1_data.pkl", "../splits/edge_2_data.pkl"]}
END
expect 0 run "$stages" --dry-run
said out "/splits/cloud"
said out "/splits/edge_2]"
said err "there is no ../splits/edge_2_data.pkl; "
wrong cloud_kd '{"temperature": 3, "data_path": "../splits/moon_data.pkl"}' "data_path is not that of"
wrong federated_train '{"edge_data_paths": ["../splits/edge_3_data.pkl"]}' 'edge_3_data.pkl" (or the folder "../splits/edge_3" of'
mv "$stages/input/federated_train.json" "$folder/rounds"
# nobody trains at the edges: the cloud has all samples, and its own validation samples
expect 0 run "$stages" --dry-run
said out "cloud_share: 1"
said out "own_validation: true"
samples=$("$FEDSTILL" data info "$folder/splits/cloud/train.safetensors" --json | grep -o '"samples": *[0-9]*' | head -1 | grep -o '[0-9]*')
val=$("$FEDSTILL" data info "$folder/splits/cloud/val.safetensors" --json | grep -o '"samples": *[0-9]*' | head -1 | grep -o '[0-9]*')
said out "the cloud has $samples + $val of them"
wrong edge_infer '{"model_path": "tasks/004/output/federated_train/global_model.pth"}' "has no federated_train.json"
mv "$folder/rounds" "$stages/input/federated_train.json"
wrong cloud_pretrain '{"model_type": "logistic_regression",' "cloud_pretrain.json"
rm "$stages"/input/*.json
expect 2 run "$stages"
said err "no task.yaml in this folder"
finish
