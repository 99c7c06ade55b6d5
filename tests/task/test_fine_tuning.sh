#!/bin/bash
# Fine-tuning: every client goes on from the published model on its own samples (strategy local), and is measured before
# and after on samples of its own that nobody learnt from. Needs $FEDSTILL and $FEDSTILL_HELPER.
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/common.sh"
helper=$FEDSTILL_HELPER
json() { "$helper" json "$folder/$1" "$2"; }
named_task 240 60
cat >"$task/task.yaml" <<'END'
name: fine
seed: 5
data: {source: array, path: data}
clients: {count: 4, partition: dirichlet, alpha: 0.5, min_samples: 20, validation: 0.25}
stages:
  federated: {kind: federated_train, model: logistic_regression, init: random, rounds: 2, batch_size: 8,
              optimizer: {name: sgd, learning_rate: 0.05}}
  fine_tuned: {kind: federated_train, strategy: local, init: federated, rounds: 1, local_epochs: 3, batch_size: 8,
               optimizer: {name: sgd, learning_rate: 0.02}}
END
expect 0 run "$task" --output "$folder/out1" --workers 1
stage=out1/fine_tuned/stage.json clients=out1/fine_tuned/clients.json
same "models" "$(find "$folder/out1/fine_tuned" -name 'client_?_model.safetensors' | wc -l)" 4
same "nothing is sent" "$(json $stage bytes_up)/$(json $stage bytes_down)" 0/0

# what clients keep apart is nobody's, and all that they have is one or the other
sum=0 learn=0 right=0 before=0
for k in 0 1 2 3; do
    n=$(json $clients $k.own_validation.samples)
    sum=$((sum + n))
    learn=$((learn + $(json $clients $k.samples)))
    right=$(awk "BEGIN { print $right + $n * $(json $clients $k.own_validation.accuracy) }")
    before=$(awk "BEGIN { print $before + $n * $(json $clients $k.own_validation.global_accuracy) }")
done
same "samples" $((sum + learn)) 240
true_that "about a quarter is kept apart: $sum" [ "$sum" -ge 50 -a "$sum" -le 70 ]
same "after" "$(awk "BEGIN { printf \"%.4f\", $(json $stage own_validation.accuracy) }")" "$(awk "BEGIN { printf \"%.4f\", $right / $sum }")"
same "before" "$(awk "BEGIN { printf \"%.4f\", $(json $stage own_validation.global_accuracy) }")" \
    "$(awk "BEGIN { printf \"%.4f\", $before / $sum }")"

# every client starts from the published model: with a rate of nearly nothing it stays what it was
expect 0 run "$task" --output "$folder/still" --set stages.fine_tuned.optimizer.learning_rate=1e-12
for k in 0 1 2 3; do
    same "client $k did not move" "$(json still/fine_tuned/clients.json $k.own_validation.accuracy)" \
        "$(json still/fine_tuned/clients.json $k.own_validation.global_accuracy)"
done
same "the published model" "$(json still/fine_tuned/clients.json 0.test_accuracy)" "$(json still/federated/stage.json accuracy)"

# workers, and a second run
expect 0 run "$task" --output "$folder/out2" --workers 3 --no-reuse
same "workers" "$(cd "$folder/out2/fine_tuned" && sha256sum client_* clients.json)" \
    "$(cd "$folder/out1/fine_tuned" && sha256sum client_* clients.json)"
expect 0 report "$folder/out1"
true_that "the report tells before" grep -q "the model that all have or started from" "$folder/out1/report.html"
true_that "the report tells after" grep -q "own models, on validation samples of their own" "$folder/out1/report.html"

# with a topology the edges' validation samples are those: what the rounds say of the global model there is where the
# fine-tuning starts
cat >"$task/task.yaml" <<'END'
name: fine
seed: 5
data: {source: array, path: data, validation: 0.25}
topology: {edges: 3, devices: 3, cloud_share: 0.1, alpha: 1}
stages:
  federated: {kind: federated_train, model: logistic_regression, init: random, rounds: 2, batch_size: 8,
              optimizer: {name: sgd, learning_rate: 0.05}}
  fine_tuned: {kind: federated_train, strategy: local, init: federated, rounds: 1, local_epochs: 3, batch_size: 8,
               optimizer: {name: sgd, learning_rate: 0.02}}
END
expect 0 run "$task" --output "$folder/edges"
for k in 0 1 2; do
    same "edge $k before" "$(json edges/fine_tuned/clients.json $k.own_validation.global_accuracy)" \
        "$(json edges/federated/stage.json edges.$k.global_accuracy)"
    same "edge $k samples" "$(json edges/fine_tuned/clients.json $k.own_validation.samples)" \
        "$(json edges/federated/stage.json edges.$k.validation)"
done
true_that "edges' models" [ -f "$folder/edges/fine_tuned/edge_3_model.safetensors" ]

finish
