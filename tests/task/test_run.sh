#!/bin/bash
# `fedstill run` from outside: what it leaves, that the result is a function of the inputs alone, and that
# stages run again exactly when these changed.
# Needs $FEDSTILL, the program, and $FEDSTILL_HELPER, built from helper.c.
# shellcheck source=tests/task/common.sh disable=SC2086 # lists of steps are split on purpose
. "$(dirname "$0")/common.sh"
helper=$FEDSTILL_HELPER
task=$folder/task output=$folder/task/output

new_task 600 200
write_task() { # to FILE with STRATEGY
    cat >"$1" <<END
name: tiny
seed: 5
data:
  source: idx
  path: $folder/data
  normalise: {mean: 0.2, std: 0.3}
clients: {count: 6, partition: dirichlet, alpha: 0.5}
stages:
  cloud_pretrain:  {model: mnist_teacher, epochs: 2, batch_size: 64}
  cloud_kd:        {temperature: 4.0}
  edge_kd:         {model: mnist_student, epochs: 2, batch_size: 48, baseline: true}
  federated_train: {strategy: $2, rounds: 3, batch_size: 16, fraction: 0.5, optimizer: {name: sgd, learning_rate: 0.05}}
END
}
write_task "$task/task.yaml" fedavg

# ---- a dry run writes nothing
expect 0 run "$task" --no-reuse --dry-run
said out "cloud_pretrain"
said out "mnist_teacher"
said out "600 training samples, 0 for validation, 200 for testing"
true_that "--dry-run made $output" [ ! -e "$output" ]
true_that "--dry-run made $FEDSTILL_HOME" [ ! -e "$FEDSTILL_HOME" ]

# ---- the first run leaves everything
expect 0 run "$task" --no-reuse
ran $steps
said out "student distilled"
for file in summary.json events.jsonl cloud_pretrain/model.safetensors cloud_kd/soft_labels.safetensors \
    edge_alone/model.safetensors edge_kd/model.safetensors federated_train/model.safetensors \
    federated_train/partition.safetensors; do
    true_that "$file is missing" [ -s "$output/$file" ]
done
same "left over" "$(left_overs "$output")" ""
digests "$output" >"$folder/reference"
true_that "events.jsonl has a line that is no event" "$helper" events "$output/events.jsonl" >"$folder/count"
same "rounds in events.jsonl" "$(grep -c '"event": "round"' "$output/events.jsonl")" 3
same "epochs in events.jsonl" "$(grep -c '"event": "epoch"' "$output/events.jsonl")" 6
version=$("$FEDSTILL" --version | sed 's/^fedstill //')
same "starts in events.jsonl" "$(grep -c "\"event\": \"start\", \"version\": \"$version\", \"commit\": " "$output/events.jsonl")" 1
same "epochs that name their loss and rate" \
    "$(grep -c '"loss_kind": "0.3 cross entropy + 0.7 distillation (kl, temperature 4)", "learning_rate": 0.001' "$output/events.jsonl")" 2
for step in $steps; do # each begins and ends with a sample; CPU time never falls
    true_that "$step has no sample of resources" grep -q "\"stage\": \"$step\", \"event\": \"resources\", .*\"rss_bytes\": [1-9]" "$output/events.jsonl"
done
true_that "CPU time falls" sort -g -c <(sed -n 's/.*"cpu_seconds": \([0-9.e-]*\).*/\1/p' "$output/events.jsonl")

# ---- the summary tells the truth about the files
summary() { "$helper" json "$output/summary.json" "$1"; }
at_least() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a >= b) }'; }
for step in $steps; do
    if [ $step = cloud_kd ]; then file=artifact; else file=model; fi
    path=$(summary stages.$step.$file.path)
    same "digest of $step" "$(summary stages.$step.$file.digest)" "$(sha256sum "$path" | cut -d ' ' -f 1)"
    true_that "$step has no seconds" at_least "$(summary stages.$step.seconds)" 0.000001
    for key in bytes_up bytes_down; do
        true_that "$step has no $key" at_least "$(summary stages.$step.$key)" 0
    done
    [ $step = cloud_kd ] && continue
    true_that "accuracy of $step" at_least "$(summary stages.$step.accuracy)" 0.9
    true_that "loss of $step" at_least 1 "$(summary stages.$step.loss)"
done
same "parameters of the teacher" "$(summary stages.cloud_pretrain.parameters)" 421642
same "parameters of the student" "$(summary stages.edge_kd.parameters)" "$(summary stages.federated_train.parameters)"
true_that "the student is not smaller" at_least 421641 "$(summary stages.edge_kd.parameters)"
# 3 clients a round, 3 rounds, 4 bytes a parameter, both ways
same "bytes up" "$(summary stages.federated_train.bytes_up)" $((9 * 4 * $(summary stages.edge_kd.parameters)))
same "bytes down" "$(summary stages.federated_train.bytes_down)" "$(summary stages.federated_train.bytes_up)"
same "bytes to the edge" "$(summary stages.edge_kd.bytes_down)" "$(stat -c %s "$output/cloud_kd/soft_labels.safetensors")"

# ---- the second run does nothing
stamps() { (cd "$output" && stat -c '%n %Y %Z %i' summary.json */*); }
before=$(stamps)
expect 0 run "$task" --no-reuse
for step in $steps; do said err "$step: up to date"; done
ran
same "files of a run that had nothing to do" "$(stamps)" "$before"

# ---- --json
expect 0 run "$task" --no-reuse --json
true_that "--json does not print JSON" "$helper" json "$folder/out" stages.federated_train.accuracy >/dev/null
true_that "--json is not summary.json" cmp -s "$folder/out" "$output/summary.json"

# ---- the registry
expect 0 runs
same "runs listed" "$(grep -c tiny "$folder/out")" 1
said out done

# ---- the result does not depend on threads and workers, whatever the size of a batch
for strategy in fedavg fedyogi fedprox; do
    mkdir "$folder/$strategy"
    write_task "$folder/$strategy/task.yaml" $strategy
    for batch in 64 10; do
        for n in 1 2 3; do
            expect 0 run "$folder/$strategy" --no-reuse --workers $((n == 3 ? 4 : n)) --threads $n --set output=$n-$batch \
                --set stages.cloud_pretrain.batch_size=$batch --set stages.edge_kd.batch_size=$batch
            digests "$folder/$strategy/$n-$batch" >"$folder/now"
            [ $n = 1 ] && cp "$folder/now" "$folder/first"
            true_that "$strategy, batches of $batch: $n threads give other bits than one" \
                diff "$folder/first" "$folder/now"
        done
    done
done
true_that "fedprox is fedavg" [ "$(tail -n 2 "$folder/first" | head -n 1)" != "$(sed -n 5p "$folder/reference")" ]
# threads and workers apart from each other
expect 0 run "$task" --no-reuse --threads 1 --workers 3 --set output=threads-1
digests "$task/threads-1" >"$folder/now"
true_that "1 thread, 3 workers: other bits" diff "$folder/reference" "$folder/now"
expect 0 run "$task" --no-reuse --threads 3 --workers 1 --set output=threads-3
digests "$task/threads-3" >"$folder/now"
true_that "3 threads, 1 worker: other bits" diff "$folder/reference" "$folder/now"
# and it does depend on the seed
expect 0 run "$task" --no-reuse --set seed=6 --set output=seed-6
digests "$task/seed-6" >"$folder/now"
true_that "another seed gives the same bits" [ "$(grep -cxFf "$folder/reference" "$folder/now")" -eq 0 ]

# ---- decoupled distillation: logits are kept for it, and its weight rises over the epochs of the warm-up
student() { # WARMUP: accuracy and loss of the student distilled; its file records the settings
    expect 0 run "$task" --no-reuse --set output=dkd --set stages.edge_kd.kd_loss=dkd --set stages.edge_kd.dkd.warmup_epochs=$1
    "$helper" json "$task/dkd/summary.json" stages.edge_kd.accuracy
    "$helper" json "$task/dkd/summary.json" stages.edge_kd.loss
}
without=$(student 0)
same "a warm-up of one epoch is none" "$(student 1)" "$without"
true_that "a warm-up of two epochs does nothing" [ "$(student 2)" != "$without" ]
rm -rf "$task/dkd"

# ---- what runs again, and what does not. Each case starts from the finished run.
cp -a "$output" "$folder/finished"
restore() { rm -rf "$output" && cp -a "$folder/finished" "$output"; }
again() { # again "STEP ..." ARGUMENT...
    local wanted=$1
    shift
    expect 0 run "$task" --no-reuse "$@"
    ran $wanted
    restore
}
again ""
again "cloud_kd edge_kd federated_train" --set stages.cloud_kd.temperature=2
again "edge_kd federated_train" --set stages.edge_kd.kd_weight=0.5
again "edge_alone edge_kd federated_train" --set stages.edge_kd.epochs=1
again "cloud_kd edge_kd federated_train" --set stages.edge_kd.kd_loss=standardised
again "federated_train" --set stages.federated_train.rounds=2
again "federated_train" --set clients.alpha=5
again "federated_train" --set stages.federated_train.strategy=fedprox
again "cloud_pretrain cloud_kd edge_kd federated_train" --set stages.cloud_pretrain.epochs=1
again "$steps" --set seed=9
again "$steps" --set data.limit=500
again "$steps" --fresh
again "" --set checkpoint.steps=3 --set checkpoint.seconds=1
again "" --set stages.federated_train.evaluate_every=2
again "" --set stages.edge_kd.baseline=false
cp -a "$folder/data" "$folder/elsewhere"
again "" --set data.path="$folder/elsewhere"
cp -a "$output" "$folder/moved"
expect 0 run "$task" --no-reuse --set output="$folder/moved"
ran
find "$folder/data" "$output" -type f -exec touch {} +
again ""
gzip -k "$folder/elsewhere/"* && rm "$folder/elsewhere/"*ubyte
again "" --set data.path="$folder/elsewhere"
"$helper" data "$folder/elsewhere" 600 200 2
rm "$folder/elsewhere/"*.gz
again "$steps" --set data.path="$folder/elsewhere"
# back and forth ends where it began
expect 0 run "$task" --no-reuse --set stages.cloud_kd.temperature=2
expect 0 run "$task" --no-reuse
digests "$output" >"$folder/now"
true_that "going back to the first settings gives other bits" diff "$folder/reference" "$folder/now"
restore

# ---- a byte that changed on disk
flip() { # FILE: the last byte but 100
    local size byte
    size=$(stat -c %s "$1")
    byte=$(od -An -tu1 -j $((size - 100)) -N 1 "$1" | tr -d ' ')
    printf "\\x$(printf %02x $((byte ^ 64)))" | dd of="$1" bs=1 seek=$((size - 100)) conv=notrunc status=none
}
for file in cloud_pretrain/model cloud_kd/soft_labels edge_alone/model edge_kd/model federated_train/model \
    federated_train/partition; do
    flip "$output/$file.safetensors"
    expect 0 run "$task" --no-reuse
    ran "${file%/*}"
    digests "$output" >"$folder/now"
    true_that "$file changed on disk: other bits afterwards" diff "$folder/reference" "$folder/now"
    restore
done
for file in edge_kd/model.safetensors edge_kd/stage.json; do
    rm "$output/$file"
    expect 0 run "$task" --no-reuse
    ran edge_kd
    restore
done
# figures that somebody else wrote are not believed, with the record's own digest or without it
sed -i 's/"accuracy": [0-9.]*/"accuracy": 0.9999/' "$output/edge_kd/stage.json"
expect 0 run "$task" --no-reuse
said err "edge_kd/stage.json was changed after its stage wrote it"
ran edge_kd
unsaid out "99.99"
restore
sed -i -z 's/,\n *"record_digest": "[0-9a-f]*"//' "$output/edge_kd/stage.json"
sed -i 's/"accuracy": [0-9.]*/"accuracy": 0.9999/' "$output/edge_kd/stage.json"
true_that "the test did not take the digest away" [ -z "$(grep record_digest "$output/edge_kd/stage.json")" ]
expect 0 run "$task" --no-reuse
said err "edge_kd/stage.json was changed after its stage wrote it"
ran edge_kd
unsaid out "99.99"
restore
printf '{"format": "fedstill-stage-1"' >"$output/edge_kd/stage.json"
expect 0 run "$task" --no-reuse
ran edge_kd
restore
rm "$output/summary.json"
expect 0 run "$task" --no-reuse
ran
true_that "summary.json was not made again" cmp -s "$output/summary.json" "$folder/finished/summary.json"

# ---- single stages and modes
expect 0 run "$task" --no-reuse --stage cloud_pretrain
said err "cloud_pretrain: up to date"
unsaid err "edge_kd: up to date"
true_that "a single stage shortened summary.json" cmp -s "$output/summary.json" "$folder/finished/summary.json"
rm -rf "$output"
expect 2 run "$task" --no-reuse --stage edge_kd
said err "edge_kd needs cloud_kd"
said err "run stage cloud_kd first"
expect 2 run "$task" --no-reuse --stage cloud_kd
said err "run stage cloud_pretrain first"
expect 2 run "$task" --no-reuse --mode federated_learning
said err "run stage edge_kd first"
same "artifacts of refused stages" "$(find "$output" -name '*.safetensors' -o -name stage.json)" ""
expect 0 run "$task" --no-reuse --mode pretrain
ran cloud_pretrain
expect 0 run "$task" --no-reuse --mode knowledge_distillation
ran cloud_kd edge_alone edge_kd
expect 0 run "$task" --no-reuse --stage federated_train
ran federated_train
digests "$output" >"$folder/now"
true_that "stage by stage gives other bits" diff "$folder/reference" "$folder/now"
expect 2 run "$task" --no-reuse --mode pretrian
expect 2 run "$task" --no-reuse --stage cloud
expect 2 run "$folder/nowhere"
said err "$folder/nowhere"

# ---- one process at a time
slow="--set stages.cloud_pretrain.epochs=100000 --set output=busy"
"$FEDSTILL" run "$task" --no-reuse $slow >/dev/null 2>"$folder/first.err" &
first=$!
for _ in $(seq 200); do
    grep -q '"stage": "cloud_pretrain"' "$task/busy/events.jsonl" 2>/dev/null && break
    sleep 0.05
done
expect 1 run "$task" --no-reuse $slow
said err "$task/busy/lock"
said err "another process is working here"
true_that "the first process died" kill -0 $first
kill -TERM $first
wait $first
same "exit status after SIGTERM" $? 1
true_that "SIGTERM: no word about going on" grep -q "run the same command again" "$folder/first.err"

finish
