#!/bin/bash
# What a run leaves, read by python/fedstill.py. Needs $FEDSTILL, $FEDSTILL_HELPER, $FEDSTILL_SOURCE, and a python3 with
# numpy: Debian's own.
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/common.sh"

new_task 64 32
cat >"$task/task.yaml" <<END
name: python
seed: 7
data: {source: idx, path: $folder/data, normalise: {mean: 0.25, std: 0.5}}
clients: {count: 3, partition: dirichlet, alpha: 0.5}
stages:
  cloud_pretrain:  {model: logistic_regression, epochs: 2, batch_size: 16}
  cloud_kd:        {temperature: 1.0}
  few:             {kind: cloud_kd, temperature: 1.0, encoding: top_k, top_k: 3}
  federated_train: {model: logistic_regression, rounds: 2, batch_size: 16, init: cloud_pretrain}
END
expect 0 run "$task" -q --no-reuse
expect 0 data info "$task/output/federated_train/partition.safetensors" --json
cp "$folder/out" "$folder/partition.json"
checks=$((checks + 1))
/usr/bin/python3 "$FEDSTILL_SOURCE/tests/task/check_python.py" "$FEDSTILL_SOURCE" "$task" "$folder/data" \
    "$folder/partition.json" || fail "python/fedstill.py"
finish
