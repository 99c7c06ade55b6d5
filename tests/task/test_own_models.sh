#!/bin/bash
# A different network at every client: knowledge strategies leave each its own model, whatever the number of workers and
# however often the run was stopped; strategies of one model refuse. Needs $FEDSTILL, $FEDSTILL_HELPER and
# $FEDSTILL_SHIM (tests/faults/shim.c).
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/common.sh"
helper=$FEDSTILL_HELPER
named_task 90 30
cat >"$task/task.yaml" <<'END'
name: own
seed: 7
data: {source: array, path: data, public: 0.3}
clients: {count: 4, models: [3 fedgen_mnist, logistic_regression]}
stages:
  federated_train: {model: fedgen_mnist, strategy: fedmd, init: random, rounds: 3, local_epochs: 1, batch_size: 8,
                    optimizer: {name: sgd, learning_rate: 0.05}}
END
models() { (cd "$1/federated_train" && sha256sum client_?_model.safetensors); }
go() { # STRATEGY OUTPUT OPTION...
    local strategy=$1 output=$2 public=0.3
    shift 2
    case $strategy in fd | fedproto | fedensemble) public=0 ;; esac
    expect 0 run "$task" --threads 1 --set stages.federated_train.strategy="$strategy" --set data.public=$public \
        --output "$output" "$@"
}

# what is ahead: each network with the samples of the clients that have it; of 90 samples 27 are public, and learnt in two
# of the three rounds, and 16, 16, 16 and 15 are the clients'
expect 0 run "$task" --dry-run
same "networks" "$(grep -A1 '^  federated_train ' "$folder/out" | grep -o 'federated_train.*\|[0-9]* samples' | tr -s ' \n' ' ')" \
    "federated_train fedgen_mnist 306 samples federated_train logistic_regression 99 samples "

for strategy in fedmd fd dsfl cfd; do
    go $strategy "$folder/$strategy" --workers 1
    models "$folder/$strategy" >"$folder/want"
    same "$strategy: models" "$(wc -l <"$folder/want")" 4
    mean=$(sed -n 's/.*"test_accuracy": \([0-9.]*\).*/\1/p' "$folder/$strategy/federated_train/clients.json" | awk '{s += $1} END {printf "%.2f", 100 * s / NR}')
    said out "clients' own, mean $(printf %7s "$mean") %"
    go $strategy "$folder/two" --workers 3 --fresh --no-reuse
    same "$strategy: three workers" "$(models "$folder/two")" "$(cat "$folder/want")"
    # fewer rounds first, then the rest from where they ended
    go $strategy "$folder/short" --fresh --no-reuse --set stages.federated_train.rounds=1
    go $strategy "$folder/short" --no-reuse
    said err "at round 2"
    same "$strategy: one round, then two" "$(models "$folder/short" | cut -c 1-64)" "$(cut -c 1-64 "$folder/want")"
done

# ---- models kept beside a shared one: whose clients took part in a round, and what they say together
ensemble() { go fedensemble "$1" --set data.public=0 --set clients.models=null --set stages.federated_train.clients_per_round=2 \
    --set stages.federated_train.rounds=1 "${@:2}"; }
together() { sed -n 's/.*"event": "ensemble", "models": \([0-9]*\), "test_accuracy": \(.*\)}/\1 \2/p' "$1/events.jsonl"; }
ensemble "$folder/ensemble" --workers 1
ensemble "$folder/ensemble-two" --workers 2 --no-reuse
same "fedensemble: models" "$(find "$folder/ensemble/federated_train" -name 'client_*_model.safetensors' | wc -l)" 2
same "fedensemble: voices" "$(together "$folder/ensemble" | cut -d ' ' -f 1)" 2
same "fedensemble: two workers" "$(together "$folder/ensemble-two")" "$(together "$folder/ensemble")"
for k in "$folder"/ensemble/federated_train/client_*_model.safetensors; do
    same "fedensemble: two workers: $k" "$(sha256sum <"$k")" "$(sha256sum <"${k/ensemble/ensemble-two}")"
done
# another output takes the stage from there, and the clients' models with it
ensemble "$folder/ensemble-taken"
same "fedensemble: taken: not done again" "$(together "$folder/ensemble-taken")" ""
same "fedensemble: taken: models" "$(cd "$folder/ensemble-taken/federated_train" && sha256sum client_*)" \
    "$(cd "$folder/ensemble/federated_train" && sha256sum client_*)"
# one voice is its model's own
ensemble "$folder/alone" --workers 1 --set stages.federated_train.clients_per_round=1
own=$(sed -n 's/.*"test_accuracy": \([0-9.][0-9.]*\).*/\1/p' "$folder"/alone/federated_train/clients.json)
same "fedensemble: one model" "$(together "$folder/alone")" "1 $own"

# ---- the clients' models belong to the stage: one that was lost or changed is made again, and copies bring them along
go fedmd "$folder/first" --fresh
models "$folder/first" >"$folder/want"
go fedmd "$folder/second"
said err "taken from"
same "models of a stage that was taken from another output" "$(models "$folder/second")" "$(cat "$folder/want")"
rm "$folder/second/federated_train/client_2_model.safetensors"
go fedmd "$folder/second" --no-reuse
ran federated_train
same "a lost model is made again" "$(models "$folder/second")" "$(cat "$folder/want")"
printf x >>"$folder/second/federated_train/client_3_model.safetensors"
go fedmd "$folder/second" --no-reuse
ran federated_train
same "a changed model is made again" "$(models "$folder/second")" "$(cat "$folder/want")"
# beside a shared model too
go fedensemble "$folder/shared" --set data.public=0 --set clients.models='[fedgen_mnist]' --fresh
go fedensemble "$folder/copied" --set data.public=0 --set clients.models='[fedgen_mnist]'
said err "taken from"
same "models beside a shared one" "$(models "$folder/copied")" "$(models "$folder/shared")"

# ---- stopped by a signal inside a round: the rounds before it are kept, and the models are the same
stop_at() { # TEXT OUTPUT OPTION...: SIGTERM to a run when TEXT stands in its events
    local text=$1 output=$2
    shift 2
    last="run stopped at $text"
    FAULT_PREFIX=$output FAULT_MODE=term FAULT_TEXT=$text ASAN_OPTIONS=verify_asan_link_order=0 LD_PRELOAD=$FEDSTILL_SHIM \
        "$FEDSTILL" run "$task" --threads 1 --workers 1 --no-reuse --output "$output" --set checkpoint.seconds=1000 "$@" \
        >/dev/null 2>"$folder/err" </dev/null
    same "$last: exit status" $? 1
    said err "run the same command again to go on"
    unsaid err "saving progress"
}
long=(--set stages.federated_train.local_epochs=100 --set stages.federated_train.rounds=4)
go fedmd "$folder/undisturbed" --workers 2 "${long[@]}"
stop_at '"event": "round", "round": 2' "$folder/stopped" "${long[@]}"
go fedmd "$folder/stopped" --no-reuse "${long[@]}"
said err "going on at round"
same "stopped and continued" "$(models "$folder/stopped")" "$(models "$folder/undisturbed")"
# while the server learns, for hours
stop_at '"stage": "federated_train"' "$folder/server" --set clients.models='[fedgen_mnist]' \
    --set stages.federated_train.strategy=feddf --set stages.federated_train.distil_steps=10000000 \
    --set stages.federated_train.distil_patience=0

# ---- beyond the budget what clients keep is in files: the same models, killed at any moment
filed=(--no-reuse --set checkpoint.client_memory=0 --set checkpoint.steps=1)
models "$folder/fedmd" >"$folder/want"
go fedmd "$folder/filed" "${filed[@]}"
same "in files: models" "$(models "$folder/filed")" "$(cat "$folder/want")"
same "in files: files" "$(find "$folder/filed/federated_train/clients" -name '*.3' | wc -l)" 4
same "in files: nothing else" "$(find "$folder/filed/federated_train/clients" -type f | wc -l)" 4
for n in 40 70 100 130; do
    FAULT_PREFIX=$folder/killed FAULT_MODE=kill FAULT_N=$n ASAN_OPTIONS=verify_asan_link_order=0 LD_PRELOAD=$FEDSTILL_SHIM \
        "$FEDSTILL" run "$task" --threads 1 --output "$folder/killed" "${filed[@]}" >/dev/null 2>"$folder/err" </dev/null &
    wait $! 2>/dev/null
    same "killed at operation $n" $? 137
    go fedmd "$folder/killed" "${filed[@]}"
    same "killed at operation $n: models" "$(models "$folder/killed")" "$(cat "$folder/want")"
    same "killed at operation $n: nothing else" "$(find "$folder/killed/federated_train/clients" -type f | wc -l)" 4
    rm -r "$folder/killed"
done
go fedmd "$folder/filed-short" "${filed[@]}" --set stages.federated_train.rounds=1
go fedmd "$folder/filed-short" "${filed[@]}"
said err "at round 2"
same "in files: one round, then two" "$(models "$folder/filed-short" | cut -c 1-64)" "$(cut -c 1-64 "$folder/want")"

# ---- a mentor at each client, a shared mentee
kd() { # OUTPUT OPTION...
    local output=$1
    shift
    go fedkd "$output" --set data.public=0 --set clients.models='[2 mnist_student, 2 fedgen_mnist]' "$@"
    models "$output"
    sha256sum <"$output/federated_train/model.safetensors"
}
same "fedkd: workers" "$(kd "$folder/kd" --workers 1)" "$(kd "$folder/kd2" --workers 3 --no-reuse)"
same "fedkd: models" "$(models "$folder/kd" | wc -l)" 4
same "fedkd: mentors" "$(for k in 0 1 2 3; do "$helper" json "$folder/kd/federated_train/clients.json" "$k.arch"; done | tr '\n' ' ')" \
    "mnist_student mnist_student fedgen_mnist fedgen_mnist "
same "fedkd: in files" "$(kd "$folder/kd3" "${filed[@]}" --set stages.federated_train.rounds=1 >/dev/null && kd "$folder/kd3" "${filed[@]}")" \
    "$(kd "$folder/kd" --workers 1)"
expect 2 run "$task" --output "$folder/none" --set data.public=0 --set stages.federated_train.strategy=fedkd
said err "set hidden_weight to 0"

same "networks" "$(for k in 0 1 2 3; do "$helper" json "$folder/fd/federated_train/clients.json" "$k.arch"; done | tr '\n' ' ')" \
    "fedgen_mnist fedgen_mnist fedgen_mnist logistic_regression "
expect 0 eval "$folder/fd/federated_train/client_4_model.safetensors" "$task/data"
said out "of 30 samples"

# ---- one model, and public samples at the server
df() { # OUTPUT OPTION...
    local output=$1
    shift
    go feddf "$output" --set clients.models='[fedgen_mnist]' --set stages.federated_train.distil_steps=30 "$@"
    sha256sum <"$output/federated_train/model.safetensors"
}
same "feddf: workers and threads" "$(df "$folder/feddf" --workers 1)" "$(df "$folder/df2" --workers 3 --threads 2 --no-reuse)"

# ---- networks of as many features
proto() { # OUTPUT OPTION...
    local output=$1
    shift
    go fedproto "$output" --set clients.models='[fedgen_mnist]' "$@"
    models "$output"
}
same "fedproto: workers" "$(proto "$folder/proto" --workers 1)" "$(proto "$folder/proto2" --workers 3 --no-reuse)"
expect 2 run "$task" --output "$folder/none" --set data.public=0 --set stages.federated_train.strategy=fedproto
said err "fedproto compares features, and logistic_regression has no layer of them"
expect 2 run "$task" --output "$folder/none" --set data.public=0 --set stages.federated_train.strategy=fedproto \
    --set clients.models='[fedgen_mnist, mnist_student]'
said err "fedgen_mnist ends in 32 features, mnist_student in 64"

# ---- what a dry run cannot know it does not say: what fedmd sends is not the model
expect 0 run "$task" --dry-run
unsaid out ", down "

# ---- refusals, before any work
expect 2 run "$task" --output "$folder/none" --set data.public=0 --set stages.federated_train.strategy=fedavg
said err "clients.models: not all clients have the network fedgen_mnist of stages.federated_train, whose strategy fedavg"
said err "fedmd, fd, dsfl, cfd"
expect 2 run "$task" --output "$folder/none" --set stages.federated_train.strategy=feddf
said err "clients.models"
expect 2 run "$task" --output "$folder/none" --set stages.federated_train.strategy=fd
said err "data.public: has no effect but fewer samples to learn from: strategies with public samples: fedmd, dsfl, cfd, feddf"
expect 2 run "$task" --output "$folder/none" --set data.public=0
said err "fedmd needs public samples: set data.public"
expect 2 run "$task" --output "$folder/none" --set stages.federated_train.strategy=dsfl --set stages.federated_train.sharpen_beta=3
said err "sharpen_beta"
expect 0 run "$task" --dry-run --set stages.federated_train.strategy=dsfl --set stages.federated_train.sharpen=enhanced_era \
    --set stages.federated_train.sharpen_beta=3
expect 2 run "$task" --output "$folder/none" --set clients.models='[5 fedgen_mnist]'
said err "names the networks of 5 clients, there are 4"
expect 2 run "$task" --output "$folder/none" --set clients.models='[nonsense]'
said err "nonsense"
expect 2 run "$task" --output "$folder/none" --set stages.later.kind=federated_train --set stages.later.model=fedgen_mnist \
    --set stages.later.init=federated_train
said err "fedmd leaves a model of its own to each client, but later reads one that all have"
true_that "a refused run left an output" [ ! -e "$folder/none/federated_train" ]

finish
