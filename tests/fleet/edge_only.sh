#!/bin/bash
# fedstill-edge: the answers of `fedstill` from a model file, and a cascade whose edges and devices it is. Run by
# scripts/check-edge with $FEDSTILL, $FEDSTILL_EDGE, $FEDSTILL_HELPER, $FEDSTILL_SOURCE and mosquitto.
# shellcheck source=tests/fleet/common.sh
. "$(dirname "$0")/common.sh"
: "${FEDSTILL_EDGE:?the path of fedstill-edge}"

named_task 160 60
cat >"$task/task.yaml" <<END
name: cascade
seed: 5
data: {source: array, path: data, validation: 0.2}
topology: {edges: 2, devices: 4, cloud_share: 0.4, alpha: 1}
stages:
  cloud_pretrain:  {model: fedgen_mnist, epochs: 1, batch_size: 16}
  federated_train: {model: fedgen_mnist, strategy: fedavg, init: random, rounds: 2, local_epochs: 1, batch_size: 8,
                    optimizer: {name: sgd, learning_rate: 0.02}}
  quantise: {samples: 20}
  device_load: {batch_size: 2}
  edge_infer: {model: quantise, batch_size: 16, threshold: {target_offload: 0.4}, runs: 1, repeats: 1}
  cloud_infer: {batch_size: 32, runs: 1, repeats: 1}
END
expect 0 run "$task" --output "$folder/one" --no-reuse --mode full_pipeline
model=$folder/one/quantise/model.safetensors

# ---- a model file: the same bits, since it is int8
expect 0 predict "$model" "$task/data/test.safetensors" --json
cp "$folder/out" "$folder/want"
expect 0 eval "$model" --task "$task" --json
cp "$folder/out" "$folder/want.eval"
whole=$FEDSTILL FEDSTILL=$FEDSTILL_EDGE
expect 0 predict "$model" "$task/data/test.safetensors" --json
same "predict" "$(cat "$folder/out")" "$(cat "$folder/want")"
expect 0 eval "$model" --task "$task" --json
for key in accuracy loss samples; do
    same "eval: $key" "$("$FEDSTILL_HELPER" json "$folder/out" $key)" "$("$FEDSTILL_HELPER" json "$folder/want.eval" $key)"
done
expect 1 predict "$folder/one/events.jsonl" "$task/data/test.safetensors"
expect 2 run "$task"
true_that "it has no other commands" grep -q 'unknown command "run"' "$folder/err"
FEDSTILL=$whole

# ---- a cascade: what is trained was trained before, by others
decisions() { (cd "$1" && sha256sum edge_infer/predictions.safetensors cloud_infer/predictions.safetensors); }
fleet() { "$FEDSTILL_HELPER" json "$1/cloud_infer/report.json" "fleet.$2"; }
start_broker
cp -r "$folder/one" "$folder/fleet"
again=(--set stages.edge_infer.threshold.target_offload=0.3)
expect 0 run "$task" "${again[@]}" --output "$folder/one" --no-reuse --mode full_pipeline
run_as cloud "$FEDSTILL" cloud "$task" "${again[@]}" "${link[@]}" --mode full_pipeline --output "$folder/fleet" --no-reuse
for site in edge-1 edge-2 device-1 device-2 device-3 device-4; do
    run_as $site "$FEDSTILL_EDGE" "${site%-*}" "$task" "${again[@]}" --id $site "${link[@]}" --output "$folder/$site"
done
for site in cloud edge-1 edge-2 device-1 device-2 device-3 device-4; do
    ended $site 0
done
same "decisions" "$(decisions "$folder/fleet")" "$(decisions "$folder/one")"
same "windows" "$(fleet "$folder/fleet" windows)" 60
same "differ" "$(fleet "$folder/fleet" differ)" 0

# ---- asked to train, it says that it does not
run_as cloud "$FEDSTILL" cloud "$task" "${link[@]}" --output "$folder/new" --no-reuse
run_as edge-1 "$FEDSTILL_EDGE" edge "$task" --id edge-1 "${link[@]}" --output "$folder/new-1"
run_as edge-2 "$FEDSTILL_EDGE" edge "$task" --id edge-2 "${link[@]}" --output "$folder/new-2"
awaited "$folder/err.edge-1" "this program does not train"
awaited "$folder/err.edge-2" "this program does not train"
finish
