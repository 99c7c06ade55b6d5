#!/bin/bash
# fedstill eval --task: the samples as the task deals them, and so the figures that its run wrote down.
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/common.sh"
named_task 200 40
cat >"$task/task.yaml" <<END
name: dealt
seed: 3
data: {source: array, path: data, validation: 0.2}
topology: {edges: 2, cloud_share: 0.4, alpha: 1}
stages:
  federated_train: {model: fedgen_mnist, init: random, rounds: 3, local_epochs: 2, batch_size: 8, select: best,
                    optimizer: {name: sgd, learning_rate: 0.05}}
END
expect 0 run "$task" --no-reuse
model=$task/output/federated_train/model.safetensors
record=$task/output/federated_train/stage.json
percent() { printf '%.6f' "$1"; }

right=0 samples=0
for k in 0 1; do
    expect 0 eval "$model" --task "$task" --split val --place edge-$((k + 1)) --json
    same "edge $((k + 1)): accuracy on its validation samples" "$(percent "$(figure accuracy)")" \
        "$(percent "$("$FEDSTILL_HELPER" json "$record" "edges.$k.global_accuracy")")"
    same "edge $((k + 1)): their number" "$(figure samples)" "$("$FEDSTILL_HELPER" json "$record" "edges.$k.validation")"
    right=$((right + $(figure correct))) samples=$((samples + $(figure samples)))
    expect 0 eval "$model" --task "$task" --split train --place edge-$((k + 1)) --json
    same "edge $((k + 1)): samples that it learns from" "$(figure samples)" \
        "$("$FEDSTILL_HELPER" json "$record" "edges.$k.samples")"
done
expect 0 eval "$model" --task "$task" --split val --place cloud --json
cloud=$(figure correct) cloud_samples=$(figure samples)
expect 0 eval "$model" --task "$task" --split val --json
same "all places: right" "$(figure correct)" $((right + cloud))
same "all places: samples" "$(figure samples)" $((samples + cloud_samples))
expect 0 eval "$model" --task "$task" --split test --json
same "accuracy on the test samples" "$(percent "$(figure accuracy)")" \
    "$(percent "$("$FEDSTILL_HELPER" json "$record" accuracy)")"
expect 0 eval "$model" --task "$task" --split val --limit 7 --json
same "limited" "$(figure samples)" 7
expect 0 eval "$model" --task "$task" --split val --set data.validation=0.5 --json
true_that "another share" test "$(figure samples)" -gt $((samples + cloud_samples))

expect 2 eval "$model"
said err "DATA, or --task TASK"
expect 2 eval "$model" "$task/data" --task "$task"
said err "and not both"
expect 2 eval "$model" --task "$task" --split val --place edge-3
said err "no place \"edge-3\"; there are cloud, edge-1"
expect 2 eval "$model" --task "$task" --place edge-1
said err "no effect with --split test"
expect 2 eval "$model" --task "$task" --split val --set data.validation=0 --set stages.federated_train.select=last
said err "keeps no samples for validation"
expect 2 eval "$model" "$task/data" --place edge-1
said err "no effect without --task"
finish
