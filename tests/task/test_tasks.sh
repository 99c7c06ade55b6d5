#!/bin/bash
# The tasks that come with the sources are read as they stand, and Link-11's run from signals to report, with fewer of them
# and logistic regressions.
# Needs $FEDSTILL, the program, $FEDSTILL_HELPER, built from helper.c, and $FEDSTILL_SOURCE, the sources.
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/common.sh"
tasks=$FEDSTILL_SOURCE/tasks

mkdir "$folder/mnist"
"$FEDSTILL_HELPER" data "$folder/mnist" 400 120 || exit 1
export FEDSTILL_DATA=$folder
few=(--set data.synth.windows=840)
small=(--set stages.cloud_pretrain.model=logistic_regression --set stages.edge_kd.model=logistic_regression)
for task in "$tasks"/*/; do
    task=$(basename "$task")
    options=()
    [[ $task != link11* && $task != mergenet-demo ]] || options=("${few[@]}")
    [[ $task != heterogeneous ]] || options=(--set clients.min_samples=2)
    if [[ $task = mergenet-cifar10 ]]; then # its images are not here: it says where to get them
        for file in task full; do
            expect 1 run "$tasks/$task/$file.yaml" --dry-run
            said err "CIFAR-10 as class folders"
        done
        continue
    fi
    expect 0 run "$tasks/$task" --dry-run "${options[@]}"
    stages="cloud_pretrain edge_kd federated_train cloud_infer"
    [[ $task != mergenet-demo ]] || stages="teacher federated fused labels distilled single"
    [[ $task != heterogeneous ]] || stages="alone fedmd dsfl cfd fd"
    [[ $task != federated-kd ]] || stages="teacher labels student student_alone fine_tuned"
    for stage in $stages; do said out "$stage"; done
done
for task in link11 link11-demo; do
    output=$folder/$task
    expect 0 run "$tasks/$task" --mode full_pipeline --set output="$output" "${few[@]}" "${small[@]}"
    said out "T2/T1 = "
    expect 0 run "$tasks/$task" --mode device_to_cloud --set output="$output" "${few[@]}" "${small[@]}"
    expect 0 report "$output" --evaluate
    true_that "$task: no report" [ -s "$output/report.html" ]
done
finish
