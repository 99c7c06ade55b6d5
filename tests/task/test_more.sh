#!/bin/bash
# More epochs and more rounds: a stage that is done goes on where no learning rate depends on their number, and ends with
# the bytes of a run that had so many from the start; otherwise it begins anew, and says why.
# Needs $FEDSTILL, the program, and $FEDSTILL_HELPER, built from helper.c.
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/common.sh"
new_task 120 60
# all that a state holds is in use: moments of clients and server, the best epoch, steps of the learning rate
cat >"$task/task.yaml" <<END
name: more
seed: 7
data: {source: idx, path: $folder/data, validation: 0.2}
clients: {count: 4}
stages:
  cloud_pretrain: {model: mnist_student, epochs: 2, batch_size: 32, schedule: {name: step, step_size: 1, gamma: 0.7}}
  cloud_kd: {temperature: 2}
  edge_kd: {model: logistic_regression, epochs: 2, batch_size: 32, baseline: true, optimizer: {name: sgd, learning_rate: 0.1, momentum: 0.9}}
  federated_train: {strategy: fedadam, server: {learning_rate: 0.01}, rounds: 2, batch_size: 16, clients_per_round: 3, optimizer: {name: sgd, learning_rate: 0.05, momentum: 0.5}}
END
models() { (cd "$1" && sha256sum -- */model.safetensors); }
rounds=stages.federated_train.rounds
epochs=(--set stages.cloud_pretrain.epochs=4 --set stages.edge_kd.epochs=4)

expect 0 run "$task" --no-reuse --set output=few
expect 0 run "$task" --no-reuse --set output=many --set $rounds=5
cp -r "$task/few" "$task/grown"
expect 0 run "$task" --no-reuse --set output=grown --set $rounds=5 --workers 1
ran federated_train
said err "federated_train: going on at round 3"
same "5 rounds after 2" "$(models "$task/grown")" "$(models "$task/many")"
for figure in bytes_up bytes_down accuracy loss samples; do
    same "$figure" "$("$FEDSTILL_HELPER" json "$task/grown/federated_train/stage.json" $figure)" \
        "$("$FEDSTILL_HELPER" json "$task/many/federated_train/stage.json" $figure)"
done
# fewer: from the start, where they are not kept
rm -r "$task/grown/kept"
expect 0 run "$task" --no-reuse --set output=grown
ran federated_train
said err "federated_train: starting anew"
same "2 rounds after 5" "$(models "$task/grown")" "$(models "$task/few")"
# another setting beside it: from the start
expect 0 run "$task" --no-reuse --set output=grown --set $rounds=3 --set stages.federated_train.batch_size=8
ran federated_train
unsaid err "federated_train: going on"

rm -rf "$task/grown" "$task/many"
cp -r "$task/few" "$task/grown"
expect 0 run "$task" --no-reuse --set output=many "${epochs[@]}"
expect 0 run "$task" --no-reuse --set output=grown "${epochs[@]}"
for stage in cloud_pretrain edge_alone; do said err "$stage: going on at epoch 3, step 1"; done
unsaid err "edge_kd: going on" # the teacher is another
same "4 epochs after 2" "$(models "$task/grown")" "$(models "$task/many")"
same "what is left over" "$(left_overs "$task/grown")" ""

# a rate that depends on the number of epochs is another from the first epoch on
cosine=(--set stages.cloud_pretrain.schedule=cosine --mode pretrain)
expect 0 run "$task" --no-reuse --set output=cosine "${cosine[@]}"
expect 0 run "$task" --no-reuse --set output=cosine "${cosine[@]}" --set stages.cloud_pretrain.epochs=4
unsaid err "going on"
said err "epochs was 2 and is 4; it begins anew, since the learning rate of cosine depends on the number of epochs"
expect 0 run "$task" --no-reuse --set output=whole "${cosine[@]}" --set stages.cloud_pretrain.epochs=4
same "4 epochs of cosine" "$(models "$task/cosine")" "$(models "$task/whole")"

# --fresh forgets
expect 0 run "$task" --no-reuse --set output=few --set $rounds=3 --fresh
unsaid err "going on"
finish
