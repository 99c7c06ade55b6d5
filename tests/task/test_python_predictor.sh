#!/bin/bash
# Models run by python/fedstill.py through the shared library: the bits of `fedstill predict`. Needs what test_python.sh
# needs, and a build with the shared library.
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/common.sh"

new_task 64 70
cat >"$task/task.yaml" <<END
name: python
seed: 7
data: {source: idx, path: $folder/data, normalise: {mean: 0.25, std: 0.5}}
stages:
  cloud_pretrain: {model: mnist_student, epochs: 1, batch_size: 16}
END
expect 0 run "$task" -q --no-reuse
checks=$((checks + 1))
FEDSTILL_LIBRARY=$(dirname "$FEDSTILL")/libfedstill.so FEDSTILL=$FEDSTILL /usr/bin/python3 \
    "$FEDSTILL_SOURCE/tests/task/check_predictor.py" "$FEDSTILL_SOURCE" \
    "$task/output/cloud_pretrain/model.safetensors" "$folder/data/t10k-images-idx3-ubyte" "$folder" || fail "Predictor"
finish
