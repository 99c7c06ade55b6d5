#!/bin/bash
# Distillation from a task file: several teachers, values that move over the epochs or are learnt, what a student starts
# from.
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

# stop_at_epoch EPOCH SETTING...: a run that gets SIGINT once edge_kd has begun that epoch. One that was too fast is tried
# again, with less to wait for.
stop_at_epoch() {
    local epoch=$1 pid args=() status=0
    shift
    for setting; do args+=(--set "$setting"); done
    for ((; epoch > 1 && status == 0; epoch--)); do
        rm -rf "$task/output" "${folder:?}/home"
        "$FEDSTILL" run "$task" "${args[@]}" >"$folder/out" 2>"$folder/err" </dev/null &
        pid=$!
        until grep -qs "\"edge_kd\", \"event\": \"epoch\", \"epoch\": $((epoch - 1))," "$task/output/events.jsonl"; do
            kill -0 $pid 2>/dev/null || break
        done
        kill -INT $pid 2>/dev/null
        wait $pid
        status=$?
    done
    true_that "the run was stopped" test $status -ne 0
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

# ---- a temperature that is learnt: the first epoch has no strength yet, theta is 1
learnt="$e.curriculum.t_end=20 $e.curriculum.over=2"
# shellcheck disable=SC2086
distil $learnt $e.epochs=4
whole=$(model)
same "the first temperature" "$(values temperature 4 | cut -c1-7)" "15.6211"
true_that "later ones are others" test "$(values temperature 4 | tr ' ' '\n' | sort -u | wc -l)" -ge 4
rm -rf "$task/output"
# shellcheck disable=SC2086
distil $learnt $e.epochs=2
# shellcheck disable=SC2086
distil $learnt $e.epochs=4
said err "edge_kd: going on at epoch 3"
same "two epochs and two more" "$(model)" "$whole"

# ---- several teachers: two that are the same are one; how they are weighed matters
labels() { tail -c 3600 "$task/output/cloud_kd/soft_labels.safetensors" | sha256sum; } # 90 samples of 10 classes
other=stages.other
second="$other.kind=cloud_pretrain $other.model=logistic_regression $other.epochs=1 $other.batch_size=8"
k=stages.cloud_kd
# shellcheck disable=SC2086
distil $second $k.teacher=cloud_pretrain
one=$(labels)
# shellcheck disable=SC2086
distil $second "$k.teacher=[cloud_pretrain, cloud_pretrain]"
same "a teacher twice" "$(labels)" "$one"
all=$one
for weights in mean_probabilities mean_logits entropy confidence; do
    # shellcheck disable=SC2086
    distil $second "$k.teacher=[cloud_pretrain, other]" $k.teacher_weights=$weights
    all+=" $(labels)"
done
same "different labels" "$(echo "$all" | tr -d '-' | tr ' ' '\n' | grep . | sort -u | wc -l)" 5
# shellcheck disable=SC2086
distil $second "$k.teacher=[cloud_pretrain, other]" # as without the setting
same "mean_probabilities is the default" "$(labels)" "$(echo "$all" | sed 's/-/-\n/g' | sed -n 2p | sed 's/^ //')"

# ---- what a student starts from: with a rate of nothing it stays that
still="$e.optimizer.learning_rate=1e-30 $e.epochs=1 $e.optimizer.name=sgd"
# shellcheck disable=SC2086
distil $still $e.init=cloud_pretrain $e.init_matching=true
said err "2 of 2 tensors of parameters are those of cloud_pretrain"
same "the teacher's parameters" "$(model)" "$(tail -c 31400 "$task/output/cloud_pretrain/model.safetensors" | sha256sum)"
# shellcheck disable=SC2086
distil $still $e.init=cloud_pretrain $e.init_matching=true stages.cloud_pretrain.model=pfl_cifar $e.model=mnist_teacher \
    stages.cloud_pretrain.epochs=1
said err "7 of 8 tensors of parameters are those of cloud_pretrain, the others are random"

# ---- feature maps: a student that is its teacher has nothing to learn from them
nets="stages.cloud_pretrain.model=mnist_student stages.cloud_pretrain.epochs=1 $e.model=mnist_student"
pairs="$e.attention.student=[conv1,conv2] $e.attention.teacher=[conv1,conv2]"
# shellcheck disable=SC2086
distil $nets $still $e.init=cloud_pretrain
without=$(values loss 1)
# shellcheck disable=SC2086
distil $nets $still $e.init=cloud_pretrain $pairs $e.attention.weight=1e6
same "the loss of equal maps" "$(values loss 1)" "$without"
# shellcheck disable=SC2086
distil $nets $still $pairs $e.attention.weight=1e6
true_that "maps of others differ" test "$(values loss 1)" != "$without"
# what is saved is the student alone, and two epochs and two more are four
hint="$e.fitnet.student=conv2 $e.fitnet.teacher=conv2 $pairs $e.kd_weight=0 data.limit=40"
# shellcheck disable=SC2086
distil $nets $hint $e.epochs=3
whole=$(sha256sum <"$task/output/edge_kd/model.safetensors")
expect 0 model info "$task/output/edge_kd/model.safetensors"
said out 105866
unsaid out regressor
rm -rf "$task/output"
# shellcheck disable=SC2086
distil $nets $hint $e.epochs=2
# shellcheck disable=SC2086
distil $nets $hint $e.epochs=3
said err "edge_kd: going on at epoch 3"
same "two epochs and one more" "$(sha256sum <"$task/output/edge_kd/model.safetensors")" "$whole"
# the teacher is a part of what the result depends on
# shellcheck disable=SC2086
distil $nets $hint $e.epochs=3 stages.cloud_pretrain.epochs=2
said err "edge_kd is done again: its input cloud_pretrain is another"

# ---- peers: with next to no weight they change nothing, else they do
peers="$e.online.peers=[mnist_student,logistic_regression]"
distil $e.kd_weight=0 $e.ce_weight=1
without=$(model)
distil "$peers" $e.kd_weight=1e-30 $e.ce_weight=1
same "peers that nobody listens to" "$(model)" "$without"
ran edge_kd
distil "$peers" $e.kd_weight=1 $e.ce_weight=1 $e.epochs=3
whole=$(model)
true_that "peers are listened to" test "$whole" != "$without"
true_that "the loss says so" grep -q "distillation (kl, temperature 1) from 2 peers" "$task/output/events.jsonl"
same "peers in the events" "$(grep -c '"event": "peer"' "$task/output/events.jsonl")" 12
distil "$peers" $e.kd_weight=1 $e.ce_weight=1 $e.online.learn=alone
true_that "peers that learn alone are other teachers" test "$(model)" != "$whole"
rm -rf "$task/output"
distil "$peers" $e.kd_weight=1 $e.ce_weight=1 $e.epochs=2
distil "$peers" $e.kd_weight=1 $e.ce_weight=1 $e.epochs=3
said err "edge_kd: going on at epoch 3"
same "two epochs and one more" "$(model)" "$whole"

# the peers that learn from labels do so with the stage's weights and smoothing, whatever the student does
distil "$peers" $e.ce_weight=0 $e.online.learn=alone
whole=$(model)
for setting in label_smoothing=0.3 "class_weights=[9,1,1,1,1,1,1,1,1,1]"; do
    distil "$peers" $e.ce_weight=0 $e.online.learn=alone "$e.$setting"
    true_that "$setting reaches the peers" test "$(model)" != "$whole"
done

# ---- iterated soft targets: part A by labels, then rounds until the validation accuracy stops rising
rounds="$e.model=mnist_student $e.batch_size=4 $e.epochs=2 $e.iterated.rounds=6 $e.iterated.part_a=0.3 $e.iterated.part_b=0.4"
# epochs: validation accuracies of the last run, in order
epochs() { sed -n 's/.*"event": "epoch".*"validation_accuracy": \([0-9.]*\).*"kd_weight".*/\1/p' "$task/output/events.jsonl"; }
rm -rf "$task/output"
# shellcheck disable=SC2086
distil $rounds
whole=$(sha256sum <"$task/output/edge_kd/model.safetensors")
count=$(epochs | wc -l)
said err "edge_kd: over after round $((count / 2 - 1)) of at most 6"
same "part A learns from labels" "$(values kd_weight "$count" | cut -d' ' -f1-4)" "0.0 0.0 0.7 0.7"
# over where the rounds' last epochs first fail to be better than all before
same "the last round" "$(epochs | awk 'NR % 2 == 0 { if (NR > 2 && $1 <= best) { print NR; exit } best = $1 }
    END { if (NR == 14) print 14 }' | head -n 1)" "$count"
# part A learns with the stage's weights, even if the rounds have none for labels
# shellcheck disable=SC2086
distil $rounds $e.ce_weight=0 $e.epochs=1 $e.iterated.rounds=1
other=$(tail -c 400000 "$task/output/edge_kd/model.safetensors" | sha256sum) # of 105866 parameters
# shellcheck disable=SC2086
distil $rounds $e.ce_weight=0 $e.epochs=1 $e.iterated.rounds=1 "$e.class_weights=[9,1,1,1,1,1,1,1,1,1]"
true_that "part A has weights" test "$(tail -c 400000 "$task/output/edge_kd/model.safetensors" | sha256sum)" != "$other"
# stopped in the middle of a round, and continued
rm -rf "$task/output"
# shellcheck disable=SC2086
stop_at_epoch 5 $rounds
# shellcheck disable=SC2086
distil $rounds
said err "edge_kd: going on at epoch"
same "stopped and continued" "$(sha256sum <"$task/output/edge_kd/model.safetensors")" "$whole"

# ---- what is not wrong but hardly meant
distil $e.temperature_schedule.from=8 $e.epochs=1
said err "edge_kd.temperature_schedule: there is one epoch, which has the last value already"
distil $e.curriculum.t_end=5 $e.epochs=2
said err "edge_kd.curriculum.over: its whole strength comes after 10 epochs, and there are 2"
distil $e.curriculum.t_end=5 $e.curriculum.over=1 $e.epochs=2
unsaid err "whole strength"

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
refused $e.temperature_schedule.from "nothing would change" $e.temperature_schedule.from=4 # as cloud_kd's is
refused $e.temperature_schedule.from "nothing would change" "$peers" $e.temperature_schedule.from=1
refused $e.temperature_schedule.over "the first of 1 epoch has the last value already" $e.temperature_schedule.from=8 \
    $e.temperature_schedule.over=1
refused $e.class_weights "has no effect: ce_weight is 0" $e.class_weights=balanced $e.ce_weight=0
refused $e.label_smoothing "has no effect: ce_weight is 0" $e.label_smoothing=0.1 $e.ce_weight=0
refused $e.label_smoothing "has no effect: ce_weight is 0" $e.label_smoothing=0.1 $e.ce_weight=0 "$peers"
refused $k.at_clients "clients come from a topology or a stage federated_train" $k.at_clients=true
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
refused $e.curriculum "only with kd_loss kl" $e.curriculum.t_end=5 $e.kd_loss=dkd
refused $e.temperature "has no effect with curriculum" $e.curriculum.t_end=5 $e.temperature=4
refused $k.teacher_weights "has no effect with one teacher" $k.teacher=cloud_pretrain $k.teacher_weights=entropy
refused $k.teacher_weights "has no effect with" $k.teacher_weights=entropy
# shellcheck disable=SC2086
refused $k.teacher_weights "set teacher_weights: mean_logits" $second "$k.teacher=[cloud_pretrain, other]" $e.kd_loss=dkd
refused $e.init_matching "has no effect without init" $e.init_matching=true
refused $e.init "the stage trains mnist_student" $e.init=cloud_pretrain $e.model=mnist_student
# shellcheck disable=SC2086
refused $e.fitnet.student "the network of the student has no layer \"conv3\"" $nets $e.fitnet.student=conv3 \
    $e.fitnet.teacher=conv2
# shellcheck disable=SC2086
refused $e.fitnet "layer conv1 of the student is (16, 28, 28), layer conv2 of the teacher (32, 14, 14)" $nets \
    $e.fitnet.student=conv1 $e.fitnet.teacher=conv2
# shellcheck disable=SC2086
refused $e.attention "maps of equal height and width are needed" $nets $e.attention.student=fc1 $e.attention.teacher=fc1
# shellcheck disable=SC2086
refused $e.attention.teacher "names 1 layers, student names 2" $nets "$e.attention.student=[conv1, conv2]" \
    $e.attention.teacher=conv1
refused $e.teacher "has no effect without fitnet or attention" $e.teacher=cloud_pretrain
refused $e.online "only with kd_loss kl or cross_entropy" "$peers" $e.kd_loss=dkd
refused $e.online "has no effect without kd_weight" "$peers" $e.kd_weight=0
refused $e.online "no_such_network" "$e.online.peers=no_such_network"
refused $e.soft_labels "has no effect with online" "$peers" $e.soft_labels=cloud_kd
refused $e.curriculum "has no effect with online" "$peers" $e.curriculum.t_end=5
refused $e.iterated "set data.validation" $e.iterated.rounds=2 data.validation=0
refused $e.iterated "a part B 0" $e.iterated.rounds=2 $e.iterated.part_b=0.001
refused $e.iterated "make no full batch of 64" $e.iterated.rounds=2 $e.batch_size=64 $e.drop_last=true
refused $e.iterated "has no effect with online" $e.iterated.rounds=2 "$peers"
refused $e.early_stopping "has no effect with iterated" $e.iterated.rounds=2 $e.early_stopping=2
finish
