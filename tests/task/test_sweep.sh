#!/bin/bash
# A sweep: what it refuses, what its runs share, that neither jobs nor kills show in any model, what a halving stops,
# and for whom it does not wait.
# Needs $FEDSTILL, the program, $FEDSTILL_HELPER, built from helper.c, and $FEDSTILL_SHIM, built from tests/faults/shim.c.
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/common.sh"
: "${FEDSTILL_SHIM:?the path of the shim}"
helper=$FEDSTILL_HELPER
rate=stages.federated_train.optimizer.learning_rate rounds=stages.federated_train.rounds
sweep=0
clean_up() {
    [ $sweep -eq 0 ] || kill -9 $sweep 2>/dev/null # its runs end with it
    rm -rf "$folder"
}

new_task 160 60
cat >"$task/task.yaml" <<END
name: swept
seed: 5
data: {source: idx, path: $folder/data, validation: 0.25}
clients: {count: 2, partition: iid}
checkpoint: {steps: 1}
stages:
  cloud_pretrain:  {model: logistic_regression, epochs: 1, batch_size: 64}
  cloud_kd:        {temperature: 4.0}
  edge_kd:         {model: logistic_regression, epochs: 1, batch_size: 50}
  federated_train: {rounds: 4, batch_size: 20, init: random, optimizer: {name: sgd, learning_rate: 0.05}}
END
grid=(--grid "$rate=0.000001,0.05" --grid "stages.edge_kd.epochs=1,2" --seeds 2 --no-reuse)

models() { (cd "$1/runs" && sha256sum -- */*/*.safetensors); } # of a sweep
# processes below a folder; the script's own sub-shells have no such argument
at_work() { pgrep -f -- "--output $1/" || true; }
gone() { # WHERE: all processes of a sweep that was killed have ended
    for _ in $(seq 500); do
        [ -n "$(at_work "$1")" ] || return 0
        sleep 0.02
    done
    return 1
}
disturbed() { # PREFIX MODE TEXT ARGUMENT...
    local prefix=$1 mode=$2 text=$3
    shift 3
    last="fedstill $* ($mode)"
    FAULT_PREFIX=$prefix FAULT_MODE=$mode FAULT_TEXT=$text ASAN_OPTIONS=verify_asan_link_order=0 \
        LD_PRELOAD=$FEDSTILL_SHIM "$FEDSTILL" "$@" >"$folder/out" 2>"$folder/err" </dev/null
}

# ---- what is refused, before anything is written
refused() { # TEXT ARGUMENT...
    local text=$1
    shift
    expect 2 sweep "$task" --output "$folder/refused" "$@"
    said err "$text"
    true_that "$last: wrote something" [ ! -e "$folder/refused" ]
}
refused "nothing varies"
refused "expected KEY=VALUE,VALUE" --grid rounds
refused "value 2 is empty" --grid "$rounds=1,,2"
refused "2 stands there twice" --grid "$rounds=1,2,2"
refused "rounds=1 and rounds=1.0 are the same settings" --grid "$rounds=1,1.0"
refused "is given twice" --grid "$rounds=1,2" --grid "$rounds=3"
refused "did you mean \"rounds\"" --grid stages.federated_train.round=1,2
refused "\"0\" is not a whole number" --grid "$rounds=1,0"
refused "no model \"nothing\"" --grid stages.edge_kd.model=logistic_regression,nothing
refused "clients.alpha: has no effect with partition iid" --grid clients.alpha=0.1,1
refused "make no difference to any stage that is run" --grid stages.edge_kd.epochs=1,2 --mode pretrain
refused "are the same settings" --grid checkpoint.seconds=1,2
refused "seeds are given by --seeds" --grid seed=1,2
refused "an output of its own" --grid output=a,b
refused "has no effect: --grid gives" --grid "$rounds=1,2" --set "$rounds=3"
refused "is not closed" --grid "stages.edge_kd.schedule={name: cosine"
refused "expected how many" --grid "$rounds=1,2" --seeds 1,x
refused "2 stands there twice" --seeds 1,2,2
refused "a sweep has 1000 at most" --grid "$rounds=1,2" --seeds 501
refused "no stage of this name trains a model" --grid "$rounds=1,2" --by cloud_kd
refused "never on test samples" --grid "$rate=0.1,0.2" --halving --set data.validation=0
refused "changes how many there are" --grid "$rounds=1,2" --halving
refused "have stage edge_kd in common" --grid "$rate=0.1,0.2" --halving --by edge_kd --set stages.edge_kd.epochs=2
disturbed "$folder/full" deny fedstill-sweep-1 sweep "$task" --grid "$rounds=1,2" --output "$folder/full"
same "$last: exit status on a full disk" $? 1
said err "sweep.json: No space left on device"
same "$last: runs that were started" "$(ls "$folder/full/runs")" ""
touch "$folder/file"
expect 1 sweep "$task" --grid "$rounds=1,2" --output "$folder/file/sweep"
said err "cannot make folder"

# ---- what a dry run says
expect 0 sweep "$task" "${grid[@]}" --output "$folder/one" --dry-run
said out "8 runs in $folder/one, 0 of them done."
# a teacher and its soft labels for each seed, a student for each number of epochs, rounds for each rate
there() { true_that "$last: stages that are there, shared, to be made" grep -qE "^all +$1 +$2 +$3\$" "$folder/out"; }
there 0 20 12
true_that "a dry run wrote something" [ ! -e "$folder/one" ]

# ---- one job: every stage is made once; the table
expect 0 sweep "$task" "${grid[@]}" --output "$folder/one"
for stage in cloud_pretrain:2 cloud_kd:2 edge_kd:4 federated_train:4; do
    same "$last: times that ${stage%:*} was made" "$(cat "$folder"/one/logs/*.log | grep -c "^${stage%:*}: done")" \
        "${stage#*:}"
done
true_that "seeds that are done" grep -qE "^learning_rate=0.05,epochs=1 +2/2 " "$folder/out"
said out "fedstill compare $folder/one"
said out "Choose by validation"
true_that "the best setting comes first" grep -q "^learning_rate=0.05" <(sed -n 3p "$folder/out")
same "lines wider than 80 columns" "$(grep -cE '.{81}' "$folder/out")" 0
models "$folder/one" >"$folder/models"
same "runs" "$(ls "$folder/one/runs" | wc -l)" 8
run=$folder/one/runs/learning_rate=0.05,epochs=2,seed=6
expect 0 run "$task" --no-reuse -q --set seed=6 --output "$folder/alone" --set "$rate=0.05"
same "the model of a run by itself" "$(sha256sum <"$folder/alone/federated_train/model.safetensors")" \
    "$(sha256sum <"$run/federated_train/model.safetensors")"
same "a run in sweep.json" "$("$helper" json "$folder/one/sweep.json" runs.7.status)" done
same "its validation" "$("$helper" json "$folder/one/sweep.json" runs.7.validation_accuracy)" \
    "$("$helper" json "$run/summary.json" stages.federated_train.validation_accuracy)"

# ---- again: nothing is run; more values: only they are
expect 0 sweep "$task" "${grid[@]}" --output "$folder/one"
unsaid err "runs"
expect 0 sweep "$task" "${grid[@]}" --seeds 3 --output "$folder/one" --dry-run
said out "8 of them done"
there 32 10 6

# ---- three jobs: the same models, and nothing made twice
expect 0 sweep "$task" "${grid[@]}" --output "$folder/three" --jobs 3
models "$folder/three" >"$folder/now"
true_that "$last: other models than with one job" diff "$folder/models" "$folder/now"
same "stages that were made" "$(cat "$folder"/three/logs/*.log | grep -cE '^[a-z_]+: done')" 12

# ---- killed when the first run is done, and once more, and gone on with
for at in '"status": "done",
' '"status": "running",
'; do
    disturbed "$folder/killed" die "$at" sweep "$task" "${grid[@]}" --output "$folder/killed" --jobs 3
    same "$last: exit status" $? 137
    true_that "$last: a process is left" gone "$folder/killed"
done
expect 0 sweep "$task" "${grid[@]}" --output "$folder/killed" --jobs 2
models "$folder/killed" >"$folder/now"
true_that "$last: other models than without a kill" diff "$folder/models" "$folder/now"

# ---- a run that is killed is started again; one that is killed again and again has failed, and the others have not
small=(--grid "$rate=0.000001,0.05" --no-reuse)
name=learning_rate=0.05,seed=5
disturbed "$folder/mortal/runs/$name" die '"event": "round", "round": 3' \
    sweep "$task" "${small[@]}" --output "$folder/mortal" --jobs 2
same "$last: exit status" $? 1
said err "$name: killed; it is started again"
said err "1 of 2 runs failed"
said out "$name failed: ended by signal 9"
said out "again: fedstill run $task --set $rate=0.05 --set seed=5 --output $folder/mortal/runs/$name"
same "the other" "$("$helper" json "$folder/mortal/sweep.json" runs.0.status)" done
again=$(sed -n 's/^  again: fedstill //p' "$folder/out")
# shellcheck disable=SC2086 # several words
expect 0 $again
model() { sha256sum <"$1/federated_train/model.safetensors"; }
same "the model of a run that was killed three times" "$(model "$folder/mortal/runs/$name")" \
    "$(model "$folder/one/runs/learning_rate=0.05,epochs=1,seed=5")"
expect 0 sweep "$task" "${small[@]}" --output "$folder/mortal"
same "runs that are done" "$("$helper" json "$folder/mortal/sweep.json" runs | grep -o '"status":"done"' | wc -l)" 2

# ---- what all others wait for is made with all threads, by a process that then makes room for them
expect 0 sweep "$task" "${small[@]}" --output "$folder/ahead" --jobs 2 --threads 6
# (3 of 6 afterwards, or all of them if the other one is done by then)
true_that "$last: threads of the processes of the run that was ahead" grep -qxE "6 [36] " \
    <(sed -n 's/^# .* --threads \([0-9]*\) .*/\1/p' "$folder"/ahead/logs/*0001,*.log | tr '\n' ' ' && echo)
same "the model of the other one" "$(model "$folder/ahead/runs/$name")" "$(model "$folder/mortal/runs/$name")"
expect 0 run "$task" --output "$folder/ahead/whole" --no-reuse --until cloud_kd
said err "stopped after cloud_kd, as was asked for"
true_that "$last: it went on" [ ! -e "$folder/ahead/whole/edge_kd" ]
expect 2 run "$task" --until cloud_kd=2
said err "has no epochs or rounds"

# the baseline, which a stage implies, may be the last that they wait for
expect 0 sweep "$task" --grid stages.edge_kd.kd_weight=0.5,0.7 --set stages.edge_kd.baseline=true --set stages.federated_train.init=edge_kd \
    --no-reuse --output "$folder/baseline" --jobs 2
same "$last: times that the baseline was made" "$(cat "$folder"/baseline/logs/*.log | grep -c "^edge_alone: done")" 1
true_that "$last: nobody went ahead" grep -q -- "--until edge_alone" "$folder"/baseline/logs/*.log

# ---- --fail-fast ends with the first that fails
disturbed "$folder/fast/runs/learning_rate=0.000001,seed=5" deny '"artifact"' \
    sweep "$task" "${small[@]}" --output "$folder/fast" --fail-fast
same "$last: exit status" $? 1
said out "learning_rate=0.000001,seed=5 failed:"
same "runs that were started" "$(ls "$folder/fast/logs" | wc -l)" 1

# ---- told to stop: the runs save their progress, and nobody is left
"$FEDSTILL" sweep "$task" --grid "$rate=0.05,0.1" --set "$rounds=1000000" --output "$folder/long" --jobs 2 --no-reuse \
    >"$folder/out" 2>"$folder/err" </dev/null &
sweep=$!
for _ in $(seq 3000); do
    [ "$(ls "$folder"/long/runs/*/federated_train/checkpoint.safetensors 2>/dev/null | wc -l)" -eq 2 ] && break
    sleep 0.02
done
expect 1 sweep "$task" --grid "$rate=0.05,0.1" --set "$rounds=1000000" --output "$folder/long"
said err "another process is working here"
kill -TERM $sweep
wait $sweep
status=$? sweep=0
same "exit status of a sweep that was told to stop" $status 1
same "processes that are left" "$(at_work "$folder/long")" ""
true_that "it does not say how to go on" grep -q "run the same command again" "$folder/err"
same "what sweep.json says" "$("$helper" json "$folder/long/sweep.json" runs | grep -o '"status":"[a-z]*"' | sort -u)" \
    '"status":"missing"'

# ---- another task's folder; a task file that was changed
sed 's/name: swept/name: other/' "$task/task.yaml" >"$folder/other.yaml"
expect 2 sweep "$folder/other.yaml" "${grid[@]}" --output "$folder/one" --dry-run
said err "holds a sweep of task swept, not of other"
before=$(model "$folder/mortal/runs/$name")
sed -i 's/batch_size: 20/batch_size: 30/' "$task/task.yaml"
expect 0 sweep "$task" "${small[@]}" --output "$folder/mortal"
said err "then: stages.federated_train.batch_size=20"
true_that "$last: the model is that of the old settings" [ "$(model "$folder/mortal/runs/$name")" != "$before" ]
same "teachers that were made anew" "$(cat "$folder"/mortal/logs/*.log | grep -c "^cloud_pretrain: done")" 1
sed -i 's/batch_size: 30/batch_size: 20/' "$task/task.yaml"
expect 0 sweep "$task" "${small[@]}" --output "$folder/mortal"
same "the model of the first settings, again" "$(model "$folder/mortal/runs/$name")" "$before"

# ---- halving: four settings, then two, then one, by validation alone; the same with other jobs and after a kill
halves=(--grid "$rate=0.000001,0.05,0.000002,0.01" --seeds 2 --no-reuse --halving)
expect 0 sweep "$task" "${halves[@]}" --output "$folder/half"
said err "round 1 of federated_train: 2 of 4 settings go on"
said err "round 2 of federated_train: 1 of 2 settings go on"
said out "Stopped before their end:"
said out "round 1 of federated_train:"
same "runs that came to their end" "$(find "$folder/half/runs" -path '*federated_train/stage.json' | wc -l)" 2
same "rounds of the worst" "$(grep -c '"event": "round"' "$folder/half/runs/learning_rate=0.000001,seed=5/events.jsonl")" 1
same "why it was stopped" "$("$helper" json "$folder/half/sweep.json" runs.0.stopped |
    sed 's/"validation_accuracy":[^,]*,//; s/"rank":[34]/"rank":R/')" \
    '{"stage":"federated_train","unit":"round","at":1,"rank":R,"of":4}'
states() { "$helper" json "$1/sweep.json" runs | grep -oE '"(name|status)":"[^"]*"|"stopped":\{[^}]*\}'; }
states "$folder/half" >"$folder/states"
models "$folder/half" | grep -v checkpoint >"$folder/models"
disturbed "$folder/half2" die '"status": "stopped",
' sweep "$task" "${halves[@]}" --output "$folder/half2" --jobs 3
same "$last: exit status" $? 137
true_that "$last: a process is left" gone "$folder/half2"
expect 0 sweep "$task" "${halves[@]}" --output "$folder/half2" --jobs 3
states "$folder/half2" >"$folder/now"
true_that "$last: other settings were stopped" diff "$folder/states" "$folder/now"
models "$folder/half2" | grep -v checkpoint >"$folder/now"
true_that "$last: other models" diff "$folder/models" "$folder/now"
expect 0 sweep "$task" "${halves[@]}" --output "$folder/half"
states "$folder/half" >"$folder/now"
true_that "$last: decided otherwise the second time" diff "$folder/states" "$folder/now"
# one that does not come to its rung keeps nobody waiting whose place is certain without it
quarter=(--grid "$rate=0.000001,0.05,0.000002,0.01" --no-reuse --halving)
expect 0 sweep "$task" "${quarter[@]}" --output "$folder/waited"
states "$folder/waited" >"$folder/states"
FAULT_PREFIX=$folder/held/runs/learning_rate=0.000002,seed=5 FAULT_MODE=stop FAULT_TEXT='"event": "round"' \
    ASAN_OPTIONS=verify_asan_link_order=0 LD_PRELOAD=$FEDSTILL_SHIM "$FEDSTILL" sweep "$task" "${quarter[@]}" \
    --output "$folder/held" --jobs 2 >"$folder/out" 2>"$folder/err" </dev/null &
sweep=$!
last="a sweep with a run that is held"
rounds_of() { cat "$folder/held/runs/$1/events.jsonl" 2>/dev/null | grep -c '"event": "round"' || true; }
gone_on() { grep -q '"event": "round", "round": 2' "$folder"/held/runs/*/events.jsonl && grep -q '"status": "stopped"' "$folder/held/sweep.json"; }
until gone_on 2>/dev/null || ! kill -0 $sweep 2>/dev/null; do sleep 0.02; done
true_that "$last: the best goes on, and the worst was stopped" gone_on
same "$last: its rounds meanwhile" "$(rounds_of "learning_rate=0.000002,seed=5")" 0
while kill -0 $sweep 2>/dev/null; do
    for process in $(at_work "$folder/held"); do # (a sanitizer stops its own at the end, for which it must not be woken)
        ! grep -q '^State:.*(stopped)' "/proc/$process/status" 2>/dev/null || kill -CONT "$process"
    done
    sleep 0.02
done
wait $sweep
status=$? sweep=0
same "$last: exit status" $status 0
states "$folder/held" >"$folder/now"
true_that "$last: other settings were stopped" diff "$folder/states" "$folder/now"

# ---- signals that a task makes are made once for all runs of a seed, and are not believed for their place
cat >"$folder/signals.yaml" <<END
name: signals
data: {source: synth, synth: {generator: modulation, windows: 240}, test: 0.2}
stages: {cloud_pretrain: {model: logistic_regression, epochs: 1, batch_size: 16}}
END
signals=(sweep "$folder/signals.yaml" --grid stages.cloud_pretrain.epochs=1,2)
expect 0 "${signals[@]}" --output "$folder/signals"
same "$last: times that signals were made" "$(cat "$folder"/signals/logs/*.log | grep -c '^signals ')" 1
made=$folder/signals/runs/epochs=1,seed=0
model() { sha256sum <"$1/cloud_pretrain/model.safetensors"; }
expect 0 run "$folder/signals.yaml" -q --no-reuse --output "$folder/unshared" --set stages.cloud_pretrain.epochs=2
same "the model of shared signals" "$(model "$folder/signals/runs/epochs=2,seed=0")" "$(model "$folder/unshared")"
cp "$made/data/signals.safetensors" "$folder/copy"
printf X | dd of="$folder/copy" bs=1 seek=2000 conv=notrunc status=none
mv "$folder/copy" "$made/data/signals.safetensors"
rm -r "$folder/signals/runs/epochs=2,seed=0/data" "$folder/signals/runs/epochs=2,seed=0/cloud_pretrain"
expect 0 run "$folder/signals.yaml" --no-reuse --output "$folder/signals/runs/epochs=2,seed=0" \
    --beside "$folder/signals/runs" --set stages.cloud_pretrain.epochs=2
same "the model after signals were damaged" "$(model "$folder/signals/runs/epochs=2,seed=0")" "$(model "$folder/unshared")"
finish
