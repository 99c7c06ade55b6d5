#!/bin/bash
# Models that come as files: a teacher, and what training and the rounds start from.
# Needs $FEDSTILL, the program, and $FEDSTILL_HELPER, built from helper.c.
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/common.sh"
"$FEDSTILL_HELPER" data "$folder/data" 120 60 || exit 1
task=$folder/task other=$folder/other
mkdir "$task" "$other"
head="seed: 3
data: {source: idx, path: $folder/data, normalise: {mean: 0.1, std: 0.3}}"
student="{model: logistic_regression, epochs: 2, batch_size: 16}"
cat >"$task/task.yaml" <<END
name: maker
$head
stages:
  cloud_pretrain: {model: mnist_student, epochs: 1, batch_size: 16}
  cloud_kd: {temperature: 2}
  edge_kd: $student
END
write_other() { # STAGES
    printf 'name: other\n%s\nstages:\n%s\n' "$head" "$1" >"$other/task.yaml"
}
weights() { # FILE: a digest of its tensors alone, without what is said of their making
    rm -f "$folder/weights.safetensors"
    "$FEDSTILL" model export "$1" --out "$folder/weights.safetensors" >/dev/null 2>&1 || echo "cannot export $1"
    sha256sum <"$folder/weights.safetensors"
}
expect 0 run "$task"
teacher=$folder/teacher.safetensors
cp "$task/output/cloud_pretrain/model.safetensors" "$teacher"

# ---- a teacher from a file says what the same model of a stage says, and the student learns the same
write_other "  cloud_kd: {temperature: 2, teacher: ../teacher.safetensors}
  edge_kd: $student"
expect 0 run "$other" --dry-run
said out mnist_student
expect 0 run "$other" --no-reuse
ran cloud_kd edge_kd
true_that "the soft labels differ" cmp "$task/output/cloud_kd/soft_labels.safetensors" "$other/output/cloud_kd/soft_labels.safetensors"
same "the student" "$(weights "$other/output/edge_kd/model.safetensors")" "$(weights "$task/output/edge_kd/model.safetensors")"
expect 0 run "$other"
ran
# the file's content counts, not its name
mv "$teacher" "$folder/same.safetensors"
expect 0 run "$other" --set stages.cloud_kd.teacher=../same.safetensors
ran
expect 0 run "$task" --set stages.cloud_pretrain.epochs=2 --mode pretrain
cp "$task/output/cloud_pretrain/model.safetensors" "$teacher"
expect 0 run "$other"
ran cloud_kd edge_kd
mv "$folder/same.safetensors" "$teacher"

# ---- with a step too small to change anything, what comes out is what it started from
still="batch_size: 60, optimizer: {name: sgd, learning_rate: 1e-30}"
write_other "  cloud_pretrain: {model: mnist_student, init: ../teacher.safetensors, epochs: 1, $still}
  federated_train: {model: mnist_student, init: ../teacher.safetensors, rounds: 1, $still}"
expect 0 run "$other"
for stage in cloud_pretrain federated_train; do
    same "$stage" "$(weights "$other/output/$stage/model.safetensors")" "$(weights "$teacher")"
done
write_other "  edge_kd: {model: mnist_student, init: ../teacher.safetensors, kd_weight: 0, baseline: true, epochs: 1, $still}"
expect 0 run "$other"
for stage in edge_kd edge_alone; do
    same "$stage" "$(weights "$other/output/$stage/model.safetensors")" "$(weights "$teacher")"
done
unsaid err normalisation
cp "$teacher" "$folder/kept" && cp "$task/output/cloud_pretrain/model.safetensors" "$teacher"
expect 0 run "$other"
ran edge_alone edge_kd
mv "$folder/kept" "$teacher"
expect 0 run "$other" --set data.normalise=null
said err "another normalisation"

# ---- files that do not fit are found before anything runs, by the key
"$FEDSTILL_HELPER" data "$folder/small" 40 20 || exit 1
wrong() { # STATUS KEY TEXT SETTING...
    local status=$1 key=$2 text=$3 mode sets=()
    shift 3
    for setting; do sets+=(--set "$setting"); done
    for mode in --dry-run --quiet; do
        rm -rf "$other/output"
        expect "$status" run "$other" $mode "${sets[@]}"
        said err "$key"
        said err "$text"
        same "$last: artifacts" "$(find "$other/output" -name '*.safetensors' 2>/dev/null)" ""
    done
}
write_other "  cloud_pretrain: {model: mnist_student, epochs: 1}
  cloud_kd: {temperature: 2}
  edge_kd: $student
  federated_train: {rounds: 1}"
p=stages.cloud_pretrain.init
wrong 1 $p nowhere.safetensors $p=nowhere.safetensors
wrong 2 $p "the stage trains mnist_teacher" $p=../teacher.safetensors stages.cloud_pretrain.model=mnist_teacher
wrong 2 stages.edge_kd.init "the stage trains logistic_regression" stages.edge_kd.init=../teacher.safetensors
wrong 2 stages.cloud_kd.teacher "knows 10" stages.cloud_kd.teacher=../teacher.safetensors data.classes=12
wrong 1 stages.cloud_kd.teacher task.yaml stages.cloud_kd.teacher=task.yaml
wrong 2 stages.federated_train.init "there is no such model file" stages.federated_train.init=edge_dk
wrong 2 stages.federated_train.init "the stage trains logistic_regression" stages.federated_train.init=../teacher.safetensors
wrong 2 stages.cloud_kd "teacher: FILE" stages.cloud_pretrain=null

finish
