#!/bin/bash
# The cascade from outside: devices, edge, cloud. What the stages leave, when they run again, and what happens when nothing
# or everything goes to the cloud.
# Needs $FEDSTILL, the program, and $FEDSTILL_HELPER, built from helper.c.
# shellcheck source=tests/task/common.sh disable=SC2086 # lists of steps are split on purpose
. "$(dirname "$0")/common.sh"
helper=$FEDSTILL_HELPER
task=$folder/task output=$folder/task/output
cascade="--mode device_to_edge_to_cloud"

new_task 400 120
write_task() { # to FILE, with validation share $2
    cat >"$1" <<END
name: tiny
seed: 5
data: {source: idx, path: $folder/data, normalise: {mean: 0.2, std: 0.3}, validation: $2}
stages:
  cloud_pretrain:     {model: mnist_teacher, epochs: 1, batch_size: 32}
  cloud_kd:           {temperature: 4.0}
  edge_kd:            {model: mnist_student, epochs: 1, batch_size: 24}
  device_load:        {batch_size: 8}
  edge_infer:         {threshold: 0.5, calibrate: false, runs: 2, repeats: 2}
  cloud_infer:        {runs: 2, repeats: 2, batch_size: 16}
  cloud_direct_infer: {runs: 2, repeats: 2, batch_size: 16}
END
}
write_task "$task/task.yaml" 0.2
report() { "$helper" json "$output/$1/report.json" "$2"; } # STEP KEYS
holds() { awk "BEGIN { exit !($1) }"; }

# ---- everything, once
expect 0 run "$task" --no-reuse --mode full_pipeline
ran cloud_pretrain cloud_kd edge_kd device_load edge_infer cloud_infer
said out "edge and cloud"
said out "T2/T1 = "
for file in device_load/batches.safetensors edge_infer/predictions.safetensors edge_infer/report.json \
    cloud_infer/report.json cloud_infer/predictions.safetensors; do
    true_that "$file is missing" [ -s "$output/$file" ]
done
same "route" "$(report cloud_infer route)" cascade
same "samples" "$(report cloud_infer summary.samples)" 120
same "devices" "$(report cloud_infer time.network.devices)" 4
sent=$(report cloud_infer summary.offloaded)
true_that "nothing or everything goes to the cloud: $sent" holds "$sent > 0 && $sent < 120"
same "low confidence at the edge" "$(report edge_infer threshold.low_confidence)" "$sent"
same "accuracy of the edge" "$(report edge_infer summary.accuracy)" "$(report cloud_infer summary.edge_accuracy)"
right=$(report cloud_infer "summary.edge_accuracy") gained=$(report cloud_infer summary.corrected)
lost=$(report cloud_infer summary.spoiled)
true_that "accuracy is not the edge's with what the cloud changed" \
    holds "($(report cloud_infer summary.accuracy) - $right - ($gained - $lost) / 120)^2 < 1e-12"
true_that "the edge has no latency" holds "$(report cloud_infer edge.measured.latency_ms.p99) > 0"
true_that "no peak memory" holds "$(report edge_infer edge.measured.peak_bytes) > 1e6"
true_that "time is not planning + transfer + compute" holds "($(report cloud_infer time.t1.seconds) - \
$(report cloud_infer time.t1.planning) - $(report cloud_infer time.t1.transfer) - $(report cloud_infer time.t1.compute))^2 < 1e-16"
same "bytes to the cloud" "$("$helper" json "$output/summary.json" stages.cloud_infer.bytes_up)" $((sent * 784))
same "summary" "$("$helper" json "$output/summary.json" cascade.cloud_infer.offloaded)" "$sent"

# ---- once more: nothing; the comparison: itself alone
expect 0 run "$task" --no-reuse --mode full_pipeline
ran
expect 0 run "$task" --no-reuse --mode device_to_cloud
ran cloud_direct_infer
same "the cloud alone" "$(report cloud_direct_infer summary.cloud_accuracy)" \
    "$(report cloud_infer summary.cloud_accuracy)"
same "the cloud alone has an edge" "$(report cloud_direct_infer summary.edge_accuracy)" null
expect 0 run "$task" --no-reuse --mode device_to_edge
ran
said err "edge_infer: up to date"
unsaid err "cloud_infer"

# ---- answers are a function of the inputs; times are not
answers() { (cd "$output" && sha256sum device_load/batches.safetensors */predictions.safetensors); }
answers >"$folder/answers"
expect 0 run "$task" --no-reuse $cascade --fresh --threads 1
ran device_load edge_infer cloud_infer
answers >"$folder/now"
true_that "one thread gives other answers" diff "$folder/answers" "$folder/now"

# ---- what runs again
cp -a "$output" "$folder/finished"
again() { # again "STEP ..." ARGUMENT...
    local wanted=$1
    shift
    expect 0 run "$task" --no-reuse $cascade "$@"
    ran $wanted
    rm -rf "$output" && cp -a "$folder/finished" "$output"
}
again ""
again "edge_infer cloud_infer" --set stages.edge_infer.threshold=0.6
again "cloud_infer" --set stages.cloud_infer.compare=false
again "device_load edge_infer cloud_infer" --set stages.device_load.num_batches=2
again "edge_infer cloud_infer" --set stages.edge_infer.model="$output/cloud_pretrain/model.safetensors"
expect 2 run "$task" --no-reuse $cascade --set seed=6
said err "run stage"

# ---- nothing goes to the cloud, and everything
expect 0 run "$task" --no-reuse $cascade --set stages.edge_infer.threshold=0
same "sent with threshold 0" "$(report cloud_infer summary.offloaded)" 0
same "accuracy with threshold 0" "$(report cloud_infer summary.accuracy)" "$(report cloud_infer summary.edge_accuracy)"
same "agreement over nothing" "$(report cloud_infer accuracy.agreement)" null
expect 0 run "$task" --no-reuse $cascade --set stages.edge_infer.threshold=0 --set stages.cloud_infer.compare=false
same "accuracy with threshold 0 and no teacher" "$(report cloud_infer summary.accuracy)" \
    "$(report edge_infer summary.accuracy)"
same "the cloud's accuracy without its answers" "$(report cloud_infer summary.cloud_accuracy)" null
expect 0 run "$task" --no-reuse $cascade --set stages.edge_infer.threshold=2
same "sent with threshold 2" "$(report cloud_infer summary.offloaded)" 120
same "accuracy with threshold 2" "$(report cloud_infer summary.accuracy)" "$(report cloud_infer summary.cloud_accuracy)"


# ---- limits of the devices
expect 0 run "$task" --no-reuse --stage device_load --set stages.device_load.max_files=5
same "five samples of four devices" "$("$helper" json "$output/device_load/stage.json" samples)" 20

# ---- targets, on validation samples
target() { # NAME VALUE ARGUMENT...
    local name=$1 value=$2
    shift 2
    expect 0 run "$task" --no-reuse $cascade --set "stages.edge_infer.threshold={$name: $value}" "$@"
    same "kind of target" "target_$(report cloud_infer threshold.kind)" "$name"
}
target target_offload 0.25 --set stages.edge_infer.calibrate=true
true_that "share is above its target" holds "$(report cloud_infer threshold.reached) <= 0.25"
true_that "no temperature" holds "$(report cloud_infer confidence.calibration.samples) == 80"
target target_accuracy 0
same "the easiest target" "$(report cloud_infer threshold.met)" true
same "sent for the easiest target" "$(report cloud_infer summary.offloaded)" 0
target target_time 1000
same "sent in ample time" "$(report cloud_infer summary.offloaded)" 120
target target_time 1e-9
same "sent in no time" "$(report cloud_infer summary.offloaded)" 0
same "a target that cannot be met" "$(report cloud_infer threshold.met)" false
said err "cannot be met"
true_that "no word of how much is missing" holds "$(report cloud_infer threshold.gap) > 0"

# ---- what is refused, and what is said
expect 2 run "$task" --no-reuse $cascade --set "stages.edge_infer.threshold={target_offload: 0.2, target_time: 3}"
said err "several targets"
expect 2 run "$task" --no-reuse $cascade --set stages.edge_infer.confidence=maximum
said err "max, margin, entropy, energy"
expect 2 run "$task" --no-reuse $cascade --set "stages.edge_infer.threshold={target_offload: 0.2}" --set data.validation=0
said err "data.validation"
expect 2 run "$task" --no-reuse --mode device_to_nowhere
said err "device_to_edge_to_cloud"
expect 1 run "$task" --no-reuse $cascade --set stages.edge_infer.model=nowhere.safetensors
said err "nowhere.safetensors"
grep -v device_load "$task/task.yaml" >"$folder/without.yaml"
expect 2 run "$folder/without.yaml" $cascade
said err "needs the stage device_load"

finish
