#!/bin/bash
# Last batches: one of one sample says nothing to a batch norm that sees one value a channel of it, and drop_last leaves
# such batches out. Needs $FEDSTILL, the program, and $FEDSTILL_HELPER, built from helper.c.
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/common.sh"
helper=$FEDSTILL_HELPER
named_task 25 60
cat >"$task/task.yaml" <<END
name: batches
seed: 3
data: {source: array, path: data}
clients: {count: 25}
stages:
  cloud_pretrain:  {model: fedgen_mnist, epochs: 30, batch_size: 25, optimizer: {name: sgd, learning_rate: 0.02}}
  federated_train: {model: fedgen_mnist, init: cloud_pretrain, rounds: 10, local_epochs: 5, batch_size: 8,
                    optimizer: {name: sgd, learning_rate: 1.0e-6}}
END
warning="batch norm bn2 sees one value a channel"
loss() { "$helper" json "$task/output/summary.json" "stages.$1.loss"; }

# ---- clients of one sample: weights stand still, and so do the running statistics, on which the test loss depends
expect 0 run "$task"
said err "stages.federated_train: for 25 of 25 clients the last batch of an epoch has one sample"
said err "$warning"
same "warnings" "$(grep -c "$warning" "$folder/err")" 1
true_that "the loss went from $(loss cloud_pretrain) to $(loss federated_train)" \
    awk "BEGIN { d = $(loss federated_train) - $(loss cloud_pretrain); exit !(d * d < 0.01) }"

# ---- one sample left over; told before any work, a dry run included
expect 0 run "$task" --stage cloud_pretrain --dry-run --set stages.cloud_pretrain.batch_size=8
said err "stages.cloud_pretrain: the last batch of an epoch has one sample, of which $warning"
expect 0 run "$task" --stage cloud_pretrain --dry-run --set stages.cloud_pretrain.batch_size=1
said err "stages.cloud_pretrain.batch_size: $warning"
for batch in 7 23 25 26; do
    expect 0 run "$task" --stage cloud_pretrain --dry-run --set stages.cloud_pretrain.batch_size=$batch
    unsaid err "$warning"
done
# a network without norms
expect 0 run "$task" --dry-run --set stages.cloud_pretrain.model=logistic_regression --set stages.federated_train.model=logistic_regression \
    --set stages.cloud_pretrain.batch_size=8
unsaid err "sees one value"

# ---- drop_last
expect 0 run "$task" --stage cloud_pretrain --set stages.cloud_pretrain.batch_size=8 \
    --set stages.cloud_pretrain.drop_last=true
ran cloud_pretrain
unsaid err "$warning"
expect 2 run "$task" --set stages.cloud_pretrain.batch_size=26 --set stages.cloud_pretrain.drop_last=true
said err "stages.cloud_pretrain.drop_last: there are 25 samples to learn from, fewer than one batch of 26"
expect 2 run "$task" --set clients.count=4 --set stages.federated_train.drop_last=true
said err "stages.federated_train.drop_last: client 1 has fewer samples than one batch of 8"
expect 0 run "$task" --dry-run --set clients.count=2 --set stages.federated_train.drop_last=true
finish
