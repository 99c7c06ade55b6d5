#!/bin/bash
# MergeNet in tasks: a federation whose average is fused with a larger model, and both models on one machine; what is
# refused before any work, kills, continued rounds, and the names of the system that it comes from.
# Needs $FEDSTILL, the program, and $FEDSTILL_HELPER, built from helper.c.
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/common.sh"
new_task 260 60
RANDOM=1
local="batch_size: 16, optimizer: {name: sgd, learning_rate: 0.05}"
tensors="target: conv2.weight, source: fc2.weight"
plain="kind: federated_train, model: fedgen_mnist, init: random, rounds: 4, $local"
teacher="teacher: {kind: cloud_pretrain, model: mnist_teacher, epochs: 1, batch_size: 64}"
public="public: 0.2, " clients="clients: {count: 3}"
write() { # STAGES
    printf 'name: fusion\nseed: 3\ndata: {source: idx, path: %s, %snormalise: {mean: 0.1, std: 0.3}}\n%s\ncheckpoint: {seconds: 0}\nstages:\n%s\n' \
        "$folder/data" "$public" "$clients" "$1" >"$task/task.yaml"
}
weights() { # STAGE: a digest of its model's tensors alone
    rm -f "$folder/weights.safetensors"
    "$FEDSTILL" model export "$task/output/$1/model.safetensors" --out "$folder/weights.safetensors" >/dev/null 2>&1 || echo "none of $1"
    sha256sum <"$folder/weights.safetensors"
}
events() { # STAGE KEY: of its events "fusion", one after the other
    grep '"event": "fusion"' "$task/output/events.jsonl" | grep "\"stage\": \"$1\"" | sed "s/.*\"$2\": \([^,}]*\).*/\1/" | tr '\n' ' '
}

# ---- a federation
write "  $teacher
  plain: {$plain}
  shut: {$plain, fusion: {teacher: teacher, $tensors, rank: 4, learns: nothing}}
  average: {$plain, fusion: {teacher: teacher, $tensors, rank: 4, steps: 3, schedule: constant}}
  public: {$plain, strategy: fedavgm, fusion: {teacher: teacher, $tensors, learns_from: public, steps: 3, public_batch_size: 8}}"
expect 0 run "$task" --dry-run
said out "fusion at the server: adapter of "
said err "stages.shut.fusion: changes nothing: the gate is 0, and nothing is learnt"
unsaid err "stages.average.fusion: changes nothing"
expect 0 run "$task" --dry-run --set stages.average.fusion.start_round=4 --set stages.public.fusion.start_round=4
said err "stages.average.fusion: changes nothing: the gate is 0 until the adapter has learnt"
unsaid err "stages.public.fusion"
expect 0 run "$task" --dry-run --set stages.average.fusion.start_round=4 --set stages.average.fusion.gate=0.1
unsaid err "stages.average.fusion"
expect 0 run "$task" --no-reuse
ran teacher plain shut average public
same "rounds that fused" "$(events average fused)" "false true true true "
same "what the adapter learnt from" "$(events average learnt_from)" '"nothing" "nothing" "the next average" "the next average" '
same "the same with public samples" "$(events public learnt_from)" '"nothing" "public samples" "public samples" "public samples" '
same "gates at first" "$(events average gate | cut -d' ' -f1-2)" "0.0 0.0"
true_that "the gate stays shut" [ "$(events average gate | cut -d' ' -f4)" != 0.0 ]
# a gate of 0 is no fusion, another is one
same "a gate that stays shut" "$(weights shut)" "$(weights plain)"
true_that "the fusion changed nothing" [ "$(weights average)" != "$(weights plain)" ]
before=$(weights average) fused=$(weights public)
expect 0 run "$task" --no-reuse --stage average --fresh --workers 1
expect 0 run "$task" --no-reuse --stage public --fresh --workers 1
same "one worker" "$(weights average) $(weights public)" "$before $fused"
expect 0 run "$task" --no-reuse --set stages.average.rounds=2 --stage average --fresh
expect 0 run "$task" --no-reuse --stage average
same "rounds that went on" "$(weights average)" "$before"
said err "going on at round 3"

# ---- one machine
public="" clients=""
both="kind: fusion_train, model: fedgen_mnist, epochs: 2, $local"
write "  $teacher
  alone: {kind: cloud_pretrain, model: fedgen_mnist, epochs: 2, $local}
  full: {$both, fusion: {teacher: random, teacher_model: mnist_teacher, $tensors, every: 3}}
  low: {$both, fusion: {teacher: teacher, $tensors, rank: 4, schedule: constant}}
  more: {$both, init: low, fusion: {teacher: output/teacher/model.safetensors, $tensors, rank: 2}}"
expect 0 run "$task" --no-reuse --stage teacher
expect 0 run "$task" --no-reuse --dry-run
said out "fusion at the server: adapter of "
expect 0 run "$task" --no-reuse
ran alone full low more
same "fusions of an epoch, one in three batches" "$(events full fusions)" "6 6 "
low=$(weights low)
true_that "the gate stays shut" [ "$(events low gate | cut -d' ' -f2)" != 0.0 ]
expect 0 run "$task" --no-reuse --set stages.low.epochs=1 --stage low --fresh
expect 0 run "$task" --no-reuse --stage low
same "epochs that went on" "$(weights low)" "$low"

# ---- killed anywhere, both end with the same bits
clients="clients: {count: 3}"
write "  $teacher
  average: {$plain, strategy: fedadam, server: {learning_rate: 0.01}, fusion: {teacher: teacher, $tensors, rank: 4, start_round: 1, steps: 40}}
  low: {$both, fusion: {teacher: teacher, $tensors, rank: 4}}"
expect 0 run "$task" --no-reuse
want=$(weights average)$(weights low)
hits=0
for ((i = 0; i < ${FEDSTILL_KILLS:-4}; i++)); do
    rm -rf "$task/output/average" "$task/output/low"
    for ((k = 0; k < 3; k++)); do
        "$FEDSTILL" run "$task" --no-reuse >/dev/null 2>&1 &
        sleep "0.$((RANDOM % 500 + 100))"
        kill -9 $! 2>/dev/null && hits=$((hits + 1))
        wait $! 2>/dev/null
    done
    expect 0 run "$task" --no-reuse
    same "kill $i" "$(weights average)$(weights low)" "$want"
done
true_that "only $hits kills hit" [ $hits -ge 3 ]

# ---- refused before any work
wrong() { # STAGE MESSAGE
    write "  $teacher
  fused: {$1}"
    expect 2 run "$task" --dry-run
    said err "$2"
}
fusion() { echo "$plain, fusion: {teacher: teacher, $tensors$1}"; }
wrong "$plain, fusion: {$tensors}" "teacher: this key is required"
wrong "$plain, fusion: {teacher: tutor, $tensors}" "no stage of the task"
wrong "$plain, fusion: {teacher: random, $tensors}" "a random teacher needs its network"
wrong "$(fusion ", teacher_model: resnet8")" "the network of teacher is known"
wrong "$plain, fusion: {teacher: teacher, target: conv2.weights, source: fc2.weight}" "stages.fused.fusion.target: the network has no parameters"
wrong "$plain, fusion: {teacher: teacher, target: conv2.weight, source: fc2.bias}" "a matrix or a convolution's kernel is wanted"
wrong "$(fusion ", rank: 11")" "conv2.weight of the target (16 x 54) and fc2.weight of the source (10 x 128): rank 11"
wrong "$(fusion ", start_round: 5")" "is 5, there are 4 rounds"
wrong "$(fusion ", public_batch_size: 8")" "public_batch_size"
wrong "$plain, strategy: fedbuff, clients_per_round: 2, fusion: {teacher: teacher, $tensors}" "strategy fedbuff: only a model that all share"
clients=""
wrong "kind: fusion_train, model: fedgen_mnist, fusion: {teacher: random, teacher_model: mnist_teacher, target: conv2.weight, source: fc2.weights}" "stages.fused.fusion.source"
wrong "$(fusion ", learns_from: public")" "public needs public samples"

# ---- the names of the system that it comes from
stages=$folder/stages
mkdir -p "$stages/input"
cat >"$stages/input/cloud_pretrain.json" <<END
{"data_path": "../data", "model_type": "mnist_teacher", "epochs": 1}
END
cat >"$stages/input/federated_train.json" <<END
{"model_type": "fedgen_mnist", "num_rounds": 50, "min_fit_clients": 2, "local_epochs": 5, "learning_rate": 0.1, "momentum": 0.9,
 "milestones": [20, 40], "gamma": 0.2, "knowledge_fusion": {"target": "conv2.weight", "source": "fc2.weight", "start_round": 2,
 "fusion_frequency": 1, "d_attention": 64, "h": 8, "num_layers": 2, "lr": 0.001, "f": 1, "rank": 4}}
END
expect 0 run "$stages" --dry-run
for text in "rounds: 50" "quorum: 2" "local_epochs: 5" "name: sgd" "momentum: 0.9" "name: multistep" "heads: 8" "layers: 2" \
    "rank: 4" "steps: 1" "teacher: cloud_pretrain" "fusion at the server"; do said out "$text"; done
sed -i 's/"f": 1/"f": 3/; s/"fusion_frequency": 1/"fusion_frequency": 2/' "$stages/input/federated_train.json"
expect 2 run "$stages" --dry-run
said err "both say how often"
rm "$stages/input/cloud_pretrain.json"
sed -i 's/"f": 3/"f": 2/; s/{"model_type"/{"data_path": "..\/data", "model_type"/' "$stages/input/federated_train.json"
expect 2 run "$stages" --dry-run
said err "there is no cloud_pretrain.json"
finish
