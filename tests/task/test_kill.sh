#!/bin/bash
# A run that is killed at random moments, again and again, ends with the same bits as one that was left alone.
# Needs $FEDSTILL, the program, and $FEDSTILL_HELPER, built from helper.c.
#   FEDSTILL_KILLS      kill -9 that hit a running process (default 50; at least 30 % each in training and in rounds)
#   FEDSTILL_KILL_SEED  of the moments (default 1)
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/common.sh"
helper=$FEDSTILL_HELPER
kills=${FEDSTILL_KILLS:-50}
RANDOM=${FEDSTILL_KILL_SEED:-1}
task=$folder/task
child=0
clean_up() {
    [ $child -eq 0 ] || kill -9 $child 2>/dev/null
    rm -rf "$folder"
}

new_task 500 100
# Everything that a checkpoint holds is in use: moments of clients and server, dropout, validation's best
# epoch, augmentation, what codecs lost at clients and server.
cat >"$task/task.yaml" <<END
name: tiny
seed: 11
data:
  source: idx
  path: $folder/data
  normalise: {mean: 0.2, std: 0.3}
  validation: 0.1
  crop_padding: 2
clients: {count: 8, partition: dirichlet, alpha: 0.5}
stages:
  cloud_pretrain:  {model: mnist_teacher, epochs: 2, batch_size: 50, schedule: cosine}
  cloud_kd:        {temperature: 4.0}
  edge_kd:         {model: mnist_student, epochs: 3, batch_size: 40, baseline: true, optimizer: {name: sgd, learning_rate: 0.05, momentum: 0.9}}
  federated_train: {strategy: fedadam, server: {learning_rate: 0.01}, rounds: 40, batch_size: 8, fraction: 0.5, optimizer: {name: sgd, learning_rate: 0.02, momentum: 0.5},
                    codec: {up: {kind: int4, rounding: stochastic}, down: {kind: top_k, share: 0.1, change: true}}}
END

expect 0 run "$task" --no-reuse --set output=reference
digests "$task/reference" >"$folder/reference" || exit 1
for step in $steps; do
    "$helper" json "$task/reference/summary.json" "stages.$step" | sed 's/"seconds":[^,]*,//; s/reference/OUTPUT/' \
        >"$folder/reference.$step"
done

now_ms() { echo $(($(date +%s%N) / 1000000)); }

# A killed program's last event tells where it was; before the first stage there is none of this process.
where() { # OUTPUT LINES-BEFORE
    tail -n "+$(($2 + 1))" "$1/events.jsonl" 2>/dev/null | tail -n 1 | grep -vE '"state": "(up to date|done)"' | sed -n 's/.*"stage": "\([a-z_]*\)".*/\1/p'
}
lines() { wc -l 2>/dev/null <"$1/events.jsonl" || echo 0; }

check_finished() { # OUTPUT
    local step
    digests "$1" >"$folder/now"
    true_that "$1: other bits than the undisturbed run" diff "$folder/reference" "$folder/now"
    same "$1: left over" "$(left_overs "$1")" ""
    true_that "$1: a line of events.jsonl is no event" "$helper" events "$1/events.jsonl" >"$folder/count"
    # figures too, but for the seconds
    for step in $steps; do
        same "$1: figures of $step" "$("$helper" json "$1/summary.json" "stages.$step" |
            sed "s/\"seconds\":[^,]*,//; s/${1##*/}/OUTPUT/")" "$(cat "$folder/reference.$step")"
    done
}

# How long a whole run takes under these settings tells where to aim.
saves() { # settings by which progress is saved often, in many ways
    case $((RANDOM % 3)) in
    0) echo "--set checkpoint.steps=$((1 + RANDOM % 7)) --set checkpoint.seconds=1000" ;;
    1) echo "--set checkpoint.seconds=0" ;;
    2) echo "--set checkpoint.seconds=0.0$((1 + RANDOM % 9))" ;;
    esac
}
begun=$(now_ms)
expect 0 run "$task" --no-reuse --set output=timed --set checkpoint.steps=3
whole=$(($(now_ms) - begun))
check_finished "$task/timed"

# ---- kill -9
hit=0 early=0 training=0 rounds=0 cycle=0 ended=0 attempts=0
cycle_began=0 # this cycle was killed behind its start, so that the registry knows it
quota=$((kills * 3 / 10))
cycle_kills=0
while [ $hit -lt "$kills" ] || [ $training -lt $quota ] || [ $rounds -lt $quota ]; do
    attempts=$((attempts + 1))
    if [ $attempts -gt $((20 * kills + 200)) ]; then
        fail "only $hit kills hit, $training in training, $rounds in rounds, after $attempts attempts"
        break
    fi
    output=$task/cycle-$cycle before=$(lines "$task/cycle-$cycle")
    # Many short lives, some that get far. After eight kills a cycle may come to its end.
    if [ $((RANDOM % 8)) -eq 0 ]; then delay=$((RANDOM % 15)); else delay=$((RANDOM % (whole / 3 + 1))); fi
    # shellcheck disable=SC2046 # several words
    "$FEDSTILL" run "$task" --no-reuse --set output="cycle-$cycle" $(saves) --workers $((1 + RANDOM % 3)) \
        --threads $((1 + RANDOM % 3)) >/dev/null 2>"$folder/child.err" &
    child=$!
    sleep "$(printf '%d.%03d' $((delay / 1000)) $((delay % 1000)))"
    kill -9 $child 2>/dev/null
    { wait $child; } 2>/dev/null
    status=$?
    child=0
    case $status in
    137)
        hit=$((hit + 1)) cycle_kills=$((cycle_kills + 1))
        case $(where "$output" "$before") in
        cloud_pretrain | edge_alone | edge_kd) training=$((training + 1)) cycle_began=1 ;;
        federated_train) rounds=$((rounds + 1)) cycle_began=1 ;;
        *) early=$((early + 1)) ;;
        esac
        ;;
    0)
        ended=$((ended + 1))
        # the machine is faster now than when the whole run was timed: aim earlier
        [ $cycle_kills -gt 2 ] || whole=$((whole * 3 / 4 + 20))
        check_finished "$output"
        expect 0 runs "$output" --json
        said out '"status": "done"'
        rm -rf "$output"
        cycle=$((cycle + 1)) cycle_kills=0 cycle_began=0
        ;;
    *)
        fail "cycle $cycle: exit status $status after $cycle_kills kills:"
        cat "$folder/child.err"
        rm -rf "$output"
        cycle=$((cycle + 1)) cycle_kills=0 cycle_began=0
        ;;
    esac
done
# the last cycle, from wherever it was killed
output=$task/cycle-$cycle
if [ $cycle_began -eq 1 ]; then
    expect 0 runs "$output" --json
    # killed between the run's last word and the end of its process: then all of it must be there
    if grep -q '"status": "done"' "$folder/out"; then check_finished "$output"; else said out '"status": "interrupted"'; fi
fi
expect 0 run "$task" --no-reuse --set output="cycle-$cycle"
check_finished "$output"
expect 0 runs "$output"
said out done
echo "$hit kills: $training in training, $rounds in rounds, $early elsewhere; $((ended + 1)) runs came to their end" \
    "(a run takes $whole ms)"
true_that "fewer than $kills kills hit" [ $hit -ge "$kills" ]
true_that "fewer than $quota kills in training" [ $training -ge $quota ]
true_that "fewer than $quota kills in rounds" [ $rounds -ge $quota ]

# ---- killed inside an atomic write: what it leaves is removed, and nothing else
mkdir -p "$task/litter/edge_kd"
touch "$task/litter/.summary.json.tmp.fedstill-0123456789abcdef" \
    "$task/litter/edge_kd/.model.safetensors.tmp.fedstill-fedcba9876543210" \
    "$task/litter/edge_kd/notes.tmp.txt" "$task/litter/thesis.tmp.2024"
expect 0 run "$task" --no-reuse --set output=litter
same "temporary files" "$(find "$task/litter" -name '*.tmp.*' | sort | tr '\n' ' ')" \
    "$task/litter/edge_kd/notes.tmp.txt $task/litter/thesis.tmp.2024 "

# ---- killed between a record and the removal of its checkpoint: the checkpoint goes with the next run
cp -a "$task/reference" "$task/spent"
"$FEDSTILL" run "$task" --no-reuse --set output=half --stage cloud_pretrain --set checkpoint.steps=1 >/dev/null 2>&1 &
child=$!
for _ in $(seq 2000); do
    [ -e "$task/half/cloud_pretrain/checkpoint.safetensors" ] && break
    sleep 0.005
done
kill -9 $child
{ wait $child; } 2>/dev/null
child=0
true_that "no checkpoint to try with" cp "$task/half/cloud_pretrain/checkpoint.safetensors" "$task/spent/cloud_pretrain/"
expect 0 run "$task" --no-reuse --set output=spent
said err "cloud_pretrain: up to date"
same "spent checkpoint" "$(left_overs "$task/spent")" ""

# ---- a checkpoint that is damaged, cut off or of something else is never gone on from
spoil() { # HOW: a checkpoint in the middle of cloud_pretrain, spoilt, must not change the result
    rm -rf "$task/spoilt"
    mkdir -p "$task/spoilt/cloud_pretrain"
    cp "$task/half/cloud_pretrain/checkpoint.safetensors" "$task/spoilt/cloud_pretrain/checkpoint.safetensors"
    local file=$task/spoilt/cloud_pretrain/checkpoint.safetensors size
    size=$(stat -c %s "$file")
    case $1 in
    cut) truncate -s $((size / 2)) "$file" ;;
    empty) : >"$file" ;;
    flipped) printf 'Z' | dd of="$file" bs=1 seek=$((size / 2)) conv=notrunc status=none ;;
    foreign) cp "$task/reference/edge_kd/model.safetensors" "$file" ;;
    esac
    expect 0 run "$task" --no-reuse --set output=spoilt
    [ "$1" = sound ] || said err "starting anew"
    check_finished "$task/spoilt"
}
for how in sound cut empty flipped foreign; do spoil $how; done

# ---- SIGTERM stops in good order, inside a round, too
stop_in() { # SIGNAL STAGE
    local output=$task/stopped before status
    before=$(lines "$output")
    # with no checkpoints but the last one
    "$FEDSTILL" run "$task" --no-reuse --set output=stopped --set checkpoint.seconds=1000 >/dev/null 2>"$folder/err" &
    child=$!
    last="run stopped by SIG$1 in $2"
    for _ in $(seq 2000); do
        [ "$(where "$output" "$before")" = "$2" ] && break
        kill -0 $child 2>/dev/null || break
        sleep 0.002
    done
    sleep 0.0$((10 + RANDOM % 40))
    kill -"$1" $child
    { wait $child; } 2>/dev/null
    status=$?
    child=0
    same "$last: exit status" $status 1
    said err "run the same command again to go on"
    expect 0 runs "$output" --json
    said out '"status": "stopped"'
    true_that "$last: events.jsonl" grep -q '"status": "stopped"' "$output/events.jsonl"
}
stop_in TERM cloud_pretrain
stop_in TERM edge_kd
for _ in 1 2 3; do stop_in TERM federated_train; done
expect 0 run "$task" --no-reuse --set output=stopped
check_finished "$task/stopped"
finish
