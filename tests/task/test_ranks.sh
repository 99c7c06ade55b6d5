#!/bin/bash
# A simulation over ranks of MPI: the models of one process bit for bit with one, two and four, for strategies whose clients
# keep something, have models of their own, or learn from soft labels; a rank that is killed ends the run, which then
# goes on to the same bits; and what is refused. Where the program was built without MPI it says so, and no more is tried.
# Ranks that are stopped in the middle of a message leave nothing behind that the next one could get into.
# Needs $FEDSTILL, with ranks_stop (transport/ranks_stop.c) beside it, and $FEDSTILL_HELPER.
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/common.sh"
named_task 120 40

# ---- a program without the module, whoever built it
mkdir "$folder/alone"
cp "$FEDSTILL" "$folder/alone/fedstill"
write_task() { # ROUNDS
    cat >"$task/task.yaml" <<END
name: ranks
seed: 5
data: {source: array, path: data, public: 0.2}
clients: {count: 5, models: [fedgen_mnist], partition: dirichlet, alpha: 1}
stages:
  cloud_pretrain: {model: fedgen_mnist, epochs: 1, batch_size: 16}
  cloud_kd: {temperature: 2}
  shared: {kind: federated_train, model: fedgen_mnist, strategy: scaffold, init: cloud_pretrain, rounds: $1, local_epochs: 1,
           batch_size: 8, clients_per_round: 4, optimizer: {name: sgd, learning_rate: 0.02},
           distillation: {soft_labels: cloud_kd, temperature: 2, kd_weight: 0.5, ce_weight: 0.5},
           codec: {up: {kind: int8, rounding: stochastic}, down: {kind: int4, change: true}}}
  own: {kind: federated_train, model: fedgen_mnist, strategy: fedmd, init: cloud_pretrain, rounds: 2, local_epochs: 1,
        batch_size: 8, optimizer: {name: sgd, learning_rate: 0.02}, codec: {down: {kind: int8, change: true}}}
END
}
write_task 3
checks=$((checks + 1))
if OMPI_COMM_WORLD_SIZE=2 "$folder/alone/fedstill" run "$task" >"$folder/out" 2>"$folder/err" </dev/null; then
    fail "a program without MPI under mpirun: exit status 0"
fi
said err 'this is one of 2 processes of mpirun, and this fedstill is built without MPI'
true_that "nothing was begun" test ! -e "$task/output"

module=$(dirname "$FEDSTILL")/ranks-mpi.so
if [ ! -e "$module" ] || ! command -v mpirun >/dev/null; then
    echo "this build has no MPI: only that it says so was tried"
    finish
fi

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 \
    OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_hwloc_base_binding_policy=none
[ -z "${ASAN_OPTIONS:-}" ] || ASAN_OPTIONS+=:
export ASAN_OPTIONS=${ASAN_OPTIONS:-}detect_leaks=0 # MPI's own

# ranks STATUS N ARGUMENT...: as expect, of so many
ranks() {
    local wanted=$1 n=$2 got
    shift 2
    checks=$((checks + 1))
    last="mpirun -n $n fedstill $*"
    mpirun -n "$n" "$FEDSTILL" "$@" >"$folder/out" 2>"$folder/err" </dev/null
    got=$?
    if [ $got -ne "$wanted" ]; then
        fail "$last: exit status $got, wanted $wanted"
        tail -n 20 "$folder/err"
        return 1
    fi
}
models() { (cd "$1" && sha256sum shared/model.safetensors own/client_?_model.safetensors && cat own/clients.json); }
bytes() { for stage in shared own; do "$FEDSTILL_HELPER" json "$1/$stage/stage.json" bytes_up; done; }

# ---- stopped while a message is waited for, and while one is on its way
checks=$((checks + 1))
last="two ranks, one of them stopped"
mpirun -n 2 "$(dirname "$FEDSTILL")/ranks_stop" "$folder/stopped" >"$folder/out" 2>"$folder/err" </dev/null ||
    fail "$last: exit status $?"
same "$last: what went as it should" "$(grep -c ': yes$' "$folder/out")" 6
unsaid out ': no'

# ---- the bits of one process
expect 0 run "$task" --output "$folder/one" --no-reuse
models "$folder/one" >"$folder/want"
true_that "models to compare" [ "$(grep -c safetensors "$folder/want")" -ge 6 ]
for n in 1 2 4; do
    ranks 0 $n run "$task" --output "$folder/$n" --no-reuse
    same "$n ranks: models" "$(models "$folder/$n")" "$(cat "$folder/want")"
    same "$n ranks: bytes" "$(bytes "$folder/$n")" "$(bytes "$folder/one")"
    same "$n ranks: one of them writes" "$(grep -c '"event": "start"' "$folder/$n/events.jsonl")" 1
done
true_that "the ranks are the workers" grep -q '"workers": 4' "$folder/4/events.jsonl"
same "one of them prints" "$(grep -c 'ranks: models, summary.json and events.jsonl' "$folder/out")" 1
# what is up to date, and more rounds with other ranks than before
ranks 0 3 run "$task" --output "$folder/2" --no-reuse
said err 'shared: up to date'
expect 0 run "$task" --output "$folder/one" --no-reuse --set stages.shared.rounds=5
ranks 0 3 run "$task" --output "$folder/2" --no-reuse --set stages.shared.rounds=5
same "more rounds" "$(models "$folder/2")" "$(models "$folder/one")"

# ---- one is killed: all end, and others go on to the same bits
mpirun -n 3 "$FEDSTILL" run "$task" --output "$folder/killed" --no-reuse --set stages.shared.rounds=100000 \
    >"$folder/out" 2>"$folder/err" </dev/null &
launcher=$!
rank_of() { tr '\0' '\n' <"/proc/$1/environ" 2>/dev/null | sed -n 's/^OMPI_COMM_WORLD_RANK=//p'; }
rounds() { grep -c '"event": "round"' "$folder/killed/events.jsonl" 2>/dev/null || true; }
begun() { [ "0$(rounds)" -gt 2 ]; }
until begun || ! kill -0 $launcher 2>/dev/null; do sleep 0.05; done
true_that "the rounds have begun" begun
for process in $(ps -o pid= --ppid $launcher); do
    [ "$(rank_of "$process")" != 2 ] || kill -9 "$process"
done
wait $launcher
true_that "a killed rank: the run ends, and not well" [ $? -ne 0 ]
last="the run with a killed rank"
said err 'rank 2'
unsaid out 'models, summary.json'
more=$(($(rounds) + 2))
expect 0 run "$task" --output "$folder/one" --no-reuse --set stages.shared.rounds=$more
ranks 0 2 run "$task" --output "$folder/killed" --no-reuse --set stages.shared.rounds=$more
same "a killed rank: models of $more rounds" "$(models "$folder/killed")" "$(models "$folder/one")"

# ---- refused
ranks 2 2 run "$task" --output "$folder/2" --workers 2
said err '--workers has no effect under mpirun, whose 2 ranks are the workers'
ranks 2 2 run "$task" --output "$folder/2" --set stages.shared.rounds=0
same "one of them complains" "$(grep -c 'stages.shared.rounds: "\?0' "$folder/err")" 1
checks=$((checks + 1))
# shellcheck disable=SC2016
mpirun -n 2 bash -c '"$0" run "$1" --output "$2" --no-reuse --fresh --set seed=$((5 + OMPI_COMM_WORLD_RANK))' \
    "$FEDSTILL" "$task" "$folder/2" >"$folder/out" 2>"$folder/err" </dev/null && fail "ranks of two seeds: exit status 0"
last="ranks of two seeds"
said err 'rank 1 cannot go on: its task or its samples are others than those of rank 0'
finish
