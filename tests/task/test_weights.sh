#!/bin/bash
# Strategies of a shared model whose clients or server keep something between rounds: the model does not depend on the
# number of workers, nor on where the run was stopped. Needs $FEDSTILL and $FEDSTILL_HELPER.
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/common.sh"
named_task 90 30
cat >"$task/task.yaml" <<'END'
name: weights
seed: 7
data: {source: array, path: data}
clients: {count: 5}
stages:
  federated_train: {model: fedgen_mnist, strategy: scaffold, init: random, rounds: 3, clients_per_round: 3, batch_size: 8,
                    optimizer: {name: sgd, learning_rate: 0.05}}
END
model() { sha256sum "$1/federated_train/model.safetensors" | cut -c 1-64; }
go() { # STRATEGY OUTPUT OPTION...
    local strategy=$1 output=$2
    shift 2
    expect 0 run "$task" --threads 1 --set stages.federated_train.strategy="$strategy" --output "$output" "$@"
}

for strategy in scaffold fedbn; do
    go $strategy "$folder/$strategy" --workers 1
    want=$(model "$folder/$strategy")
    # fewer rounds first, then the rest from where they ended
    go $strategy "$folder/short" --workers 3 --fresh --no-reuse --set stages.federated_train.rounds=1
    go $strategy "$folder/short" --workers 3 --no-reuse
    said err "at round 2"
    same "$strategy: one round, then two, with three workers" "$(model "$folder/short")" "$want"
done

# ---- robust rules: memory is told, too few clients are refused
expect 0 run "$task" --dry-run --set stages.federated_train.strategy=median
said out "the server holds all updates of a round: 26.8 kB"
expect 2 run "$task" --output "$folder/none" --set stages.federated_train.strategy=bulyan
said err "stages.federated_train: strategy bulyan: needs the updates of 7 clients in a round; there are 3"
expect 2 run "$task" --dry-run --set stages.federated_train.strategy=krum
said err "strategy krum: needs the updates of 5 clients in a round; there are 3"
expect 0 run "$task" --dry-run --set stages.federated_train.strategy=krum --set stages.federated_train.clients_per_round=0

expect 2 run "$task" --dry-run --set stages.federated_train.strategy=trimmed_mean
said err "strategy trimmed_mean: needs the updates of 10 clients in a round; there are 3"
expect 0 run "$task" --dry-run --set stages.federated_train.strategy=trimmed_mean --set stages.federated_train.trim=0.34
five=(--set stages.federated_train.strategy=multi_krum --set stages.federated_train.clients_per_round=5)
expect 0 run "$task" --dry-run "${five[@]}" --set stages.federated_train.chosen=4
expect 2 run "$task" --dry-run "${five[@]}" --set stages.federated_train.chosen=5
said err "strategy multi_krum: needs the updates of 6 clients in a round; there are 5"

# ---- traffic is told where it is the model's and nothing else
expect 0 run "$task" --dry-run --set stages.federated_train.strategy=fedavg
said out ", down "
expect 0 run "$task" --dry-run
unsaid out ", down "

# ---- a method that would be another one
expect 2 run "$task" --dry-run --set stages.federated_train.strategy=fedbn --set stages.federated_train.model=logistic_regression
said err "strategy fedbn: clients keep their norm layers, and this network has none: use fedavg"

finish
