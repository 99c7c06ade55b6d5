#!/bin/bash
# Federated distillation: a federated teacher, soft labels that each client makes of its own samples, a federated student
# from labels and soft labels, and fine-tuning at the clients.
# Needs $FEDSTILL, the program, $FEDSTILL_HELPER, built from helper.c, and $FEDSTILL_SOURCE, the sources.
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/common.sh"
"$FEDSTILL_HELPER" data "$folder/mnist" 300 60 || exit 1
task=$folder/task
mkdir "$task"
topology="topology: {edges: 3, devices: 3, cloud_share: 0.2, alpha: 1}"
local="batch_size: 16, optimizer: {name: sgd, learning_rate: 0.05}"
plain="kind: federated_train, model: logistic_regression, init: random, rounds: 2, $local"
teacher="teacher: {kind: federated_train, model: mnist_student, init: random, rounds: 2, $local}"
labels="labels: {kind: cloud_kd, teacher: teacher, at_clients: true, temperature: 2}"
write() { # TOPOLOGY STAGES
    printf 'name: kd\nseed: 3\ndata: {source: idx, path: %s, normalise: {mean: 0.1, std: 0.3}, validation: 0.1}\n%s\nstages:\n%s\n' \
        "$folder/mnist" "$1" "$2" >"$task/task.yaml"
}
weights() { # STAGE: a digest of its model's tensors alone
    rm -f "$folder/weights.safetensors"
    "$FEDSTILL" model export "$task/output/$1/model.safetensors" --out "$folder/weights.safetensors" >/dev/null 2>&1 || echo "none of $1"
    sha256sum <"$folder/weights.safetensors"
}
value() { "$FEDSTILL_HELPER" json "$task/output/summary.json" "stages.$1"; }

write "$topology" "  $teacher
  $labels
  alone: {$plain}
  hard: {$plain, distillation: {soft_labels: labels, ce_weight: 1, kd_weight: 1e-30}}
  student: {$plain, distillation: labels}
  tuned: {kind: federated_train, init: student, rounds: 1, $local}"
expect 0 run "$task" --dry-run
said out "labels           mnist_student"
expect 0 run "$task" --no-reuse
ran teacher labels alone hard student tuned
# every training sample of the edges has a row, none of the cloud's; only the teacher travelled, once to each edge
owned=0
for k in 0 1 2; do owned=$((owned + $(value alone.edges.$k.samples))); done
same "samples with soft labels" "$(value labels.samples)" "$owned"
same "what is sent for them" "$(value labels.bytes_down)" "$((3 * ($(value teacher.bytes_down) / 6)))"
# soft labels of no weight change nothing, others do
same "a weight of nothing" "$(weights hard)" "$(weights alone)"
true_that "soft labels changed nothing" [ "$(weights student)" != "$(weights alone)" ]
for k in 1 2 3; do true_that "edge $k has no model" [ -s "$task/output/tuned/edge_${k}_model.safetensors" ]; done
# neither workers nor an interruption show in a bit
before=$(sha256sum <"$task/output/student/model.safetensors")
expect 0 run "$task" --no-reuse --stage student --fresh --workers 1
same "one worker" "$(sha256sum <"$task/output/student/model.safetensors")" "$before"
expect 0 run "$task" --no-reuse --set stages.student.rounds=1 --stage student
expect 0 run "$task" --no-reuse --set stages.student.rounds=3 --stage student
three=$(weights student)
expect 0 run "$task" --no-reuse --set stages.student.rounds=3 --stage student --fresh
same "rounds that went on" "$(weights student)" "$three"
# the student depends on the labels, the labels on the teacher
expect 0 run "$task" --set stages.labels.temperature=3
ran labels hard student tuned
expect 0 run "$task" --set stages.teacher.rounds=1
ran teacher labels hard student tuned

# ---- without a topology the clients are those of the section clients
write "clients: {count: 4}" "  $teacher
  $labels
  student: {$plain, distillation: {soft_labels: labels, kd_loss: mse_logits, ce_weight: 0.5, kd_weight: 0.5}}"
expect 0 run "$task" --no-reuse
same "samples with soft labels" "$(value labels.samples)" 270
same "what is sent for them" "$(value labels.bytes_down)" "$((4 * ($(value teacher.bytes_down) / 8)))"

# ---- errors
wrong() { # KEY MESSAGE STAGES
    write "$topology" "$3"
    expect 2 run "$task"
    said err "stages.$1: $2"
}
wrong student.distillation.soft_labels "labels labels the cloud's samples: set at_clients: true there" "  $teacher
  labels: {kind: cloud_kd, teacher: teacher}
  student: {$plain, distillation: labels}"
wrong small.soft_labels "labels labels the samples of the edges (at_clients), not the cloud's" "  $teacher
  $labels
  small: {kind: edge_kd, soft_labels: labels, model: logistic_regression}"
wrong student.distillation.temperature "differs from labels's temperature" "  $teacher
  $labels
  student: {$plain, distillation: {soft_labels: labels, temperature: 4}}"
wrong student.distillation.soft_labels 'teacher (federated_train) leaves a model; soft labels is wanted here' "  $teacher
  student: {$plain, distillation: teacher}"
wrong student.distillation "has no effect: the strategy fedntd brings a loss of its own" "  $teacher
  $labels
  student: {$plain, strategy: fedntd, distillation: labels}"
wrong labels.top_k "encoding top_k cannot hold logits, which student.distillation.kd_loss takes" "  $teacher
  labels: {kind: cloud_kd, teacher: teacher, at_clients: true, encoding: top_k}
  student: {$plain, distillation: {soft_labels: labels, kd_loss: mse_logits}}"

# ---- the tasks that come with the sources, with few samples and rounds
export FEDSTILL_DATA=$folder
few=(--set stages.teacher.rounds=1 --set stages.student.rounds=1 --set stages.student_alone.rounds=1)
small=(--set stages.teacher.model=mnist_student --set stages.student.model=logistic_regression --set stages.student_alone.model=logistic_regression)
expect 0 run "$FEDSTILL_SOURCE/tasks/federated-kd" --set output="$folder/mnist-kd" "${few[@]}" "${small[@]}"
ran teacher labels student student_alone fine_tuned
small=(--set stages.teacher.model=logistic_regression --set stages.student.model=logistic_regression --set stages.student_alone.model=logistic_regression)
expect 0 run "$FEDSTILL_SOURCE/tasks/federated-kd/link11.yaml" --set output="$folder/link11-kd" --set data.synth.windows=840 "${few[@]}" "${small[@]}"
ran teacher labels student student_alone fine_tuned
finish
