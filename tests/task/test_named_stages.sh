#!/bin/bash
# Stages with names of their own: several of a kind in one file, references by name, errors before any work, resuming,
# and what reports make of them.
# Needs $FEDSTILL, the program, and $FEDSTILL_HELPER, built from helper.c.
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/common.sh"
"$FEDSTILL_HELPER" data "$folder/data" 200 60 || exit 1
task=$folder/task plain=$folder/plain
mkdir "$task" "$plain"
head="seed: 3
data: {source: idx, path: $folder/data, normalise: {mean: 0.1, std: 0.3}, validation: 0.1}
clients: {count: 3}"
teacher="{model: mnist_student, epochs: 1, batch_size: 20}"
student="model: logistic_regression, epochs: 2, batch_size: 20, baseline: true"
rounds="rounds: 3, batch_size: 16, optimizer: {name: sgd, learning_rate: 0.05}"
write() { # STAGES: the task's file
    printf 'name: named\n%s\nstages:\n%s\n' "$head" "$1" >"$task/task.yaml"
}
weights() { # FILE: a digest of its tensors alone
    rm -f "$folder/weights.safetensors"
    "$FEDSTILL" model export "$1" --out "$folder/weights.safetensors" >/dev/null 2>&1 || echo "cannot export $1"
    sha256sum <"$folder/weights.safetensors"
}
model() { echo "$task/output/$1/model.safetensors"; }

# ---- one of each, under the kinds' names: what the named ones are compared with
printf 'name: plain\n%s\nstages:\n  cloud_pretrain: %s\n  cloud_kd: {temperature: 2}\n  edge_kd: {%s}\n  federated_train: {%s}\n' \
    "$head" "$teacher" "$student" "$rounds" >"$plain/task.yaml"
expect 0 run "$plain"
ran cloud_pretrain cloud_kd edge_alone edge_kd federated_train

# ---- several of a kind, in an order of the file's own: a stage runs after those that it reads, else in the file's order
write "  quick: {kind: federated_train, init: small, $rounds, strategy: fedprox, prox_mu: 1}
  slow: {kind: federated_train, init: small, $rounds}
  again: {kind: cloud_kd, teacher: slow, temperature: 3}
  big: {kind: cloud_pretrain, ${teacher#\{}
  labels: {kind: cloud_kd, temperature: 2, teacher: big}
  small: {kind: edge_kd, soft_labels: labels, $student}
  smaller: {kind: edge_kd, soft_labels: again, model: logistic_regression, init: small, epochs: 1, batch_size: 20}"
expect 0 run "$task" --no-reuse
ran big labels small_alone small quick slow again smaller
for stage in quick slow again big labels small small_alone smaller; do
    true_that "no folder $stage" [ -s "$task/output/$stage/stage.json" ]
    same "$stage: kind" "$("$FEDSTILL_HELPER" json "$task/output/summary.json" "stages.$stage.kind")" \
        "$(case $stage in quick | slow) echo federated_train ;; again | labels) echo cloud_kd ;;
        big) echo cloud_pretrain ;; small_alone) echo edge_alone ;; *) echo edge_kd ;; esac)"
done
# the same settings give the same weights under any name, and other settings others
same "the teacher" "$(weights "$(model big)")" "$(weights "$plain/output/cloud_pretrain/model.safetensors")"
same "the baseline" "$(weights "$(model small_alone)")" "$(weights "$plain/output/edge_alone/model.safetensors")"
same "the student" "$(weights "$(model small)")" "$(weights "$plain/output/edge_kd/model.safetensors")"
same "the federated student" "$(weights "$(model slow)")" "$(weights "$plain/output/federated_train/model.safetensors")"
true_that "two strategies gave one model" [ "$(weights "$(model quick)")" != "$(weights "$(model slow)")" ]
expect 0 run "$task"
ran

# ---- --set, --stage, --mode and --dry-run
expect 0 run "$task" --set stages.slow.rounds=4
ran slow again smaller
said err "stages.slow.rounds was 3 and is 4"
expect 0 run "$task" --stage quick --set stages.quick.prox_mu=2
ran quick
expect 2 run "$task" --stage smaller --set stages.slow.rounds=2
said err "smaller needs again, which is missing or out of date: run stage again first"
expect 2 run "$task" --stage quik
said err 'has no stage quik; did you mean "quick"? there are'
expect 2 run "$task" --set stages.slow.round=4
said err 'stages.slow.round: unknown key; did you mean "rounds"?'
expect 0 run "$task" --mode knowledge_distillation --dry-run
said out "smaller"
unsaid out "  quick  "
expect 0 run "$task" # what was kept of the settings before comes back
ran

# ---- reports
expect 0 run "$task"
said out "big (on labels)"
said out "quick (federated)"
said out "small_alone (alone)"
said out "$task/output/slow/model.safetensors"
expect 0 report "$task" --evaluate --out "$folder/page.html" --csv "$folder/csv"
true_that "the page is no XML" "$FEDSTILL_HELPER" xml "$folder/page.html"
true_that "slow is not on the page" grep -q "slow (federated)" "$folder/page.html"
same "models of the page" "$(tail -n +2 "$folder/csv/models.csv" | cut -d, -f1 | tr -d '\r' | sort | tr '\n' ' ')" \
    "big (on labels) quick (federated) slow (federated) small (distilled) small_alone (alone on labels) smaller (distilled) "
expect 0 runs --limit 1
same "the run's student" "$(grep -c "named.*done.*%.*%" "$folder/out")" 1
expect 0 report "$task/output" --no-data --out - # its own task.yaml is read again
said out "slow (federated)"

# ---- resumed after a kill, with the same bits
for stage in big slow; do
    before=$(sha256sum <"$(model $stage)")
    rm -rf "${task:?}/output/$stage" "${task:?}/output/kept"
    "$FEDSTILL" run "$task" --no-reuse --stage $stage --set checkpoint.steps=1 >"$folder/out" 2>"$folder/err" &
    child=$!
    for _ in $(seq 400); do
        [ -e "$task/output/$stage/checkpoint.safetensors" ] && break
        sleep 0.01
    done
    kill -9 $child 2>/dev/null
    wait $child 2>/dev/null
    expect 0 run "$task" --no-reuse --stage $stage
    same "$stage after a kill" "$(sha256sum <"$(model $stage)")" "$before"
done

# ---- errors, all before any work
rm -r "$task/output"
wrong() { # KEY MESSAGE STAGES
    write "$3"
    expect 2 run "$task"
    said err "stages.$1: $2"
    true_that "there is an output" [ ! -e "$task/output/events.jsonl" ]
}
big="big: {kind: cloud_pretrain, ${teacher#\{}"
wrong labels.teacher 'is cloud_pretrain, and the task has no such stage; there is a, b' \
    "  a: {kind: federated_train, model: mnist_student, init: random}
  b: {kind: federated_train, model: mnist_student, init: random}
  labels: {kind: cloud_kd, teacher: cloud_pretrain}"
wrong labels 'there are several stages of kind cloud_pretrain (big, other): say which with teacher: NAME' \
    "  $big
  other: {kind: cloud_pretrain, ${teacher#\{}
  labels: {kind: cloud_kd}"
wrong small.soft_labels 'there is no stage "lables"; did you mean "labels"? labels leaves soft labels' \
    "  $big
  labels: {kind: cloud_kd}
  small: {kind: edge_kd, soft_labels: lables, $student}"
wrong small.soft_labels 'big (cloud_pretrain) leaves a model; soft labels is wanted here' \
    "  $big
  small: {kind: edge_kd, soft_labels: big, $student}"
wrong three 'no stage can be the first of these: three reads two reads one reads three' \
    "  one: {kind: cloud_pretrain, init: three, ${teacher#\{}
  two: {kind: cloud_pretrain, init: one, ${teacher#\{}
  three: {kind: cloud_pretrain, init: two, ${teacher#\{}"
wrong kept 'output/kept is not a stage' "  kept: {kind: cloud_pretrain, ${teacher#\{}"
wrong random 'settings that refer to stages mean something else by random' "  random: {kind: cloud_pretrain, ${teacher#\{}"
long=a234567890123456789012345678901234 # 34 characters, and 6 of _alone
wrong ${long}5 "its baseline would be ${long}5_alone, of 41 characters: choose a name of 34 at most" \
    "  $big
  labels: {kind: cloud_kd}
  ${long}5: {kind: edge_kd, $student}"
wrong small_alone 'another stage (a baseline) has the name small_alone already' \
    "  $big
  labels: {kind: cloud_kd}
  small: {kind: edge_kd, $student}
  small_alone: {kind: cloud_pretrain, ${teacher#\{}"
wrong big.kind '"cloud_pretrian" is no kind; did you mean "cloud_pretrain"? there are cloud_pretrain, cloud_kd' \
    "  big: {kind: cloud_pretrian, ${teacher#\{}"
wrong cloud_pretrian 'unknown key; did you mean "cloud_pretrain"? accepted: cloud_pretrain, cloud_kd' "  cloud_pretrian: $teacher"
wrong 'Big' 'a name is made of a-z, 0-9 and _' "  Big: {kind: cloud_pretrain, ${teacher#\{}"
wrong small.soft_labels 'kd_loss mse_logits takes logits, but the soft labels of labels hold probabilities for tiny' \
    "  $big
  labels: {kind: cloud_kd}
  tiny: {kind: edge_kd, model: logistic_regression}
  small: {kind: edge_kd, kd_loss: mse_logits, model: logistic_regression}"
head=$(grep -v '^clients' <<<"$head")
write "  $big
  labels: {kind: cloud_kd}
  $long: {kind: edge_kd, $student}"
expect 0 run "$task" --dry-run
said out "${long}_alone"
write "  $big
  other: {kind: cloud_pretrain, init: bigg, ${teacher#\{}"
expect 2 run "$task"
said err 'stages.other.init: "bigg" is no stage of the task (did you mean "big"?), and there is no such model file'
write "  $big
  other: {kind: cloud_pretrain, init: big, model: logistic_regression}"
expect 2 run "$task" --dry-run
said err "stages.other.init: big is a mnist_student, but the stage trains logistic_regression"

# ---- as many stages as there may be, each of which reads the one before by three settings
generations() { # N
    echo "  s0: {kind: cloud_pretrain, model: logistic_regression, epochs: 1}"
    for i in $(seq "$1"); do
        echo "  k$i: {kind: cloud_kd, teacher: s$((i - 1))}"
        echo "  s$i: {kind: edge_kd, model: logistic_regression, epochs: 1, soft_labels: k$i, init: s$((i - 1)),
    teacher: s$((i - 1)), fitnet: {student: fc, teacher: fc}}"
    done
}
write "$(generations 31)
  devices: {kind: device_load}"
expect 2 run "$task" --stage s31
said err "s31 needs s30, which is missing or out of date: run stage s30 first"
expect 0 run "$task" --stage s0
write "$(generations 32)"
expect 2 run "$task"
said err "stages: "

# ---- two cascades over the same devices
write "  $big
  devices: {kind: device_load}
  near: {kind: edge_infer, model: big, threshold: 0.5, calibrate: false, runs: 1, repeats: 1}
  nearer: {kind: edge_infer, model: big, threshold: 0.75, calibrate: false, runs: 1, repeats: 1}
  both: {kind: cloud_infer, edge: nearer, model: big, runs: 1, repeats: 1}
  all: {kind: cloud_direct_infer, model: big, runs: 1, repeats: 1}"
expect 0 run "$task"
ran big
said err "not run: devices, near, nearer, both (--mode full_pipeline), all (--mode device_to_cloud)"
expect 0 run "$task" --mode full_pipeline
ran devices near nearer both
said out "near (edge alone)"
said out "both (edge and cloud)"
same "the edge of the cascade" "$("$FEDSTILL_HELPER" json "$task/output/both/report.json" threshold.value)" 0.75
expect 0 run "$task" --mode device_to_cloud
said out "all (cloud alone)"
expect 0 report "$task" --out "$folder/page.html"
true_that "the cascade is not on the page" grep -q 'id="cascade"' "$folder/page.html"
finish
