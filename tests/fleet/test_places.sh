#!/bin/bash
# Sites with files of their own (data.edge_paths): every process sees its own files and no others, and the models are those of
# one process over all files. Needs $FEDSTILL, $FEDSTILL_HELPER and mosquitto.
# shellcheck source=tests/fleet/common.sh
. "$(dirname "$0")/common.sh"
sites=3

# Each host's folder has the same task file and the files of its place alone; "all" has everything.
samples=(x 90 60 45)
for host in all cloud 1 2 3; do
    mkdir -p "$folder/$host"
    for place in cloud 1 2 3; do
        if [ $host = all ] || [ $host = $place ]; then
            mkdir -p "$folder/$host/at_$place"
        fi
    done
done
named() { "$FEDSTILL_HELPER" named "$@" || exit 1; }
named "$folder/all/at_cloud/train.safetensors" 60 a,b,c 1 1
named "$folder/all/at_cloud/test.safetensors" 40 a,b,c 1 2
for k in 1 2 3; do named "$folder/all/at_$k/train.safetensors" "${samples[k]}" a,b,c 1 1$k; done
for place in cloud 1 2 3; do cp "$folder/all/at_$place"/* "$folder/$place/at_$place"; done
write_task() { # DATA, and the stages from stdin
    local stages host
    stages=$(cat)
    for host in all cloud 1 2 3; do
        printf 'name: places\nseed: 5\ndata: {source: array, path: at_cloud, edge_paths: [at_1, at_2, at_3]%s}\n' "$1" \
            >"$folder/$host/task.yaml"
        printf 'topology: {edges: %d}\nstages:\n%s\n' $sites "$stages" >>"$folder/$host/task.yaml"
    done
}
start() { # cloud | edge-K [ARGUMENT...]
    local name=$1
    shift
    if [ "$name" = cloud ]; then
        run_as cloud "$FEDSTILL" cloud "$folder/cloud" "${link[@]}" --output "$folder/fleet" --no-reuse "$@"
    else
        run_as "$name" "$FEDSTILL" edge "$folder/${name#edge-}" --id "$name" "${link[@]}" --output "$folder/$name" "$@"
    fi
}
play() { # everybody, to the end
    rm -rf "$folder/fleet" "$folder"/edge-* "$folder"/err.*
    for name in cloud edge-1 edge-2 edge-3; do start $name; done
    for name in cloud edge-1 edge-2 edge-3; do ended $name 0; done
}
one() { # the same in one process, over all files
    rm -rf "$folder/one"
    expect 0 run "$folder/all" --output "$folder/one" --no-reuse
}
models() { (cd "$1" && find . -name '*model.safetensors' | sort | xargs sha256sum); }
figures() { # of the edges: numbers of samples, and what models are worth on their own validation samples
    for k in 0 1 2; do
        for key in samples validation own_accuracy global_accuracy accuracy missing_classes; do
            "$FEDSTILL_HELPER" json "$1/$2/stage.json" "edges.$k.$key"
        done
    done
    "$FEDSTILL_HELPER" json "$1/$2/stage.json" best_round
}
rounds() { grep '"event": "round"' "$1/events.jsonl" | sed 's/.*"test_accuracy": \([^,]*\), .*"validation_accuracy": \([^,]*\),.*/\1 \2/'; }
start_broker

# ---- the best round is chosen by the edges' own samples, which only they have
write_task ', validation: 0.25' <<END
  cloud_pretrain: {model: fedgen_mnist, epochs: 1, batch_size: 16}
  federated_train: {model: fedgen_mnist, strategy: fedavg, init: cloud_pretrain, rounds: 4, local_epochs: 2, batch_size: 8,
                    select: best, optimizer: {name: sgd, learning_rate: 0.05}}
END
one
play
same "models" "$(models "$folder/fleet")" "$(models "$folder/one")"
same "edges' figures" "$(figures "$folder/fleet" federated_train)" "$(figures "$folder/one" federated_train)"
same "rounds' figures" "$(rounds "$folder/fleet")" "$(rounds "$folder/one")"
for host in cloud 1 2 3; do
    same "what $host has of samples" "$(cd "$folder/$host" && echo at_*)" "at_$host"
done

# the same settings again: the cloud knows what the sites have, and there is nothing to do
expect 0 cloud "$folder/cloud" "${link[@]}" --output "$folder/fleet" --no-reuse
said err "federated_train: up to date"

# ---- killed in the middle, every one of them; and one of them comes back with other samples first. Messages are files
export FEDSTILL_BLOB_IN_MEMORY=1
rm -rf "$folder/fleet" "$folder"/edge-* "$folder"/err.*
more=(--set stages.federated_train.rounds=6 --set stages.federated_train.local_epochs=12)
rm -rf "$folder/one"
expect 0 run "$folder/all" --output "$folder/one" --no-reuse "${more[@]}"
for name in cloud edge-1 edge-2 edge-3; do start $name "${more[@]}"; done
awaited "$folder/err.edge-1" "round 2"
true_that "what was sent is no file" test -s "$folder/edge-1/fleet/edge-1/base"
kill -9 "${pid[edge-2]}"
wait "${pid[edge-2]}" 2>/dev/null
named "$folder/2/at_2/train.safetensors" 60 a,b,c 1 99
expect 2 edge "$folder/2" --id edge-2 "${link[@]}" --output "$folder/edge-2" "${more[@]}"
said err 'its samples are not those that this run began with'
cp "$folder/all/at_2/train.safetensors" "$folder/2/at_2/train.safetensors"
start edge-2 "${more[@]}"
for name in edge-2 cloud edge-1 edge-3; do
    kill -9 "${pid[$name]}"
    wait "${pid[$name]}" 2>/dev/null
    start $name "${more[@]}"
    sleep 0.3
done
ended cloud 0
# A site that came too late to be let go is stopped here, and keeps what it would go on with.
let_go=("$folder/fleet")
for name in edge-1 edge-2 edge-3; do
    for ((i = 0; i < 150; i++)); do
        kill -0 "${pid[$name]}" 2>/dev/null || break
        sleep 0.1
    done
    kill "${pid[$name]}" 2>/dev/null
    wait "${pid[$name]}" 2>/dev/null && let_go+=("$folder/$name")
    unset "pid[$name]"
done
same "killed: models" "$(models "$folder/fleet")" "$(models "$folder/one")"
unset FEDSTILL_BLOB_IN_MEMORY
same "messages that were left lying" "$(find "${let_go[@]}" -name 'from-*' -o -name base -o -name given)" ""

# ---- who does not come is named
rm -rf "$folder/fleet"
expect 2 cloud "$folder/cloud" "${link[@]}" --output "$folder/fleet" --no-reuse --join-deadline 1
said err 'edge-1, edge-2, edge-3 did not join, and their samples are theirs alone'

# ---- a site that does not fit is refused, and the right one taken
cp "$folder/2/at_2/train.safetensors" "$folder/right"
rm -rf "$folder/fleet" "$folder"/edge-* "$folder"/err.*
named "$folder/2/at_2/train.safetensors" 60 a,b,d 1 12
start cloud
start edge-1
start edge-3
expect 2 edge "$folder/2" --id edge-2 "${link[@]}" --output "$folder/edge-2"
said err 'its samples have other classes (3 of them) than the cloud'
mv "$folder/right" "$folder/2/at_2/train.safetensors"
start edge-2
for name in cloud edge-1 edge-2 edge-3; do ended $name 0; done

# ---- a teacher of all, soft labels that each site makes of its own samples, a student of all
write_task '' <<END
  teacher: {kind: federated_train, model: fedgen_mnist, init: random, rounds: 2, batch_size: 8,
            optimizer: {name: sgd, learning_rate: 0.05}}
  labels: {kind: cloud_kd, teacher: teacher, at_clients: true, temperature: 2}
  student: {kind: federated_train, model: logistic_regression, init: random, rounds: 2, batch_size: 8,
            optimizer: {name: sgd, learning_rate: 0.05}, distillation: labels}
END
one
play
same "soft labels at the sites: models" "$(models "$folder/fleet")" "$(models "$folder/one")"
for k in 1 2 3; do
    same "soft labels of edge-$k" "$("$FEDSTILL_HELPER" json "$folder/fleet/labels/labels.json" "$((k - 1)).samples")" \
        "${samples[k]}"
    same "soft labels of edge-$k" "$("$FEDSTILL_HELPER" json "$folder/fleet/labels/labels.json" "$((k - 1)).digest")" \
        "$(sha256sum <"$folder/edge-$k/labels/soft_labels.safetensors" | cut -d ' ' -f 1)"
done
true_that "soft labels are at the cloud" test ! -e "$folder/fleet/labels/soft_labels.safetensors"
# what can be looked at where the cloud is, without the sites' files
expect 0 report "$folder/fleet" --out "$folder/report.html" --evaluate
expect 0 eval "$folder/fleet/student/model.safetensors" --task "$folder/cloud" --split test --json
said out '"samples": 40,'
expect 2 eval "$folder/fleet/student/model.safetensors" --task "$folder/cloud" --split train --place edge-1
# killed while the student learns: a site has its labels on its disk, the cloud sees to it that all have
rm -rf "$folder/fleet" "$folder"/edge-* "$folder"/err.* "$folder/one"
more=(--set stages.student.rounds=6 --set stages.student.local_epochs=40)
expect 0 run "$folder/all" --output "$folder/one" --no-reuse "${more[@]}"
for name in cloud edge-1 edge-2 edge-3; do start $name "${more[@]}"; done
awaited "$folder/err.edge-1" "student: round 2"
for name in edge-1 cloud edge-3; do
    kill -9 "${pid[$name]}"
    wait "${pid[$name]}" 2>/dev/null
    start $name "${more[@]}"
done
ended cloud 0
for name in edge-1 edge-2 edge-3; do
    kill "${pid[$name]}" 2>/dev/null
    wait "${pid[$name]}" 2>/dev/null
    unset "pid[$name]"
done
same "killed with soft labels: models" "$(models "$folder/fleet")" "$(models "$folder/one")"
# one process does not take a list for labels
expect 0 run "$folder/all" --output "$folder/fleet" --no-reuse "${more[@]}"
true_that "labels of one process" test -s "$folder/fleet/labels/soft_labels.safetensors"

# ---- what a site takes of memory: its own share, and not what others have (seen: 28 MB; the cloud's samples alone are 27)
write_task '' <<END
  federated_train: {model: logistic_regression, init: random, rounds: 1, batch_size: 8,
                    optimizer: {name: sgd, learning_rate: 0.05}}
END
rm -rf "$folder/fleet" "$folder"/edge-* "$folder"/err.*
named "$folder/cloud/at_cloud/train.safetensors" 400000 a,b,c 1 1
start cloud
run_as edge-1 "$FEDSTILL_HELPER" peak "$folder/peak" "$FEDSTILL" edge "$folder/1" --id edge-1 "${link[@]}" --output "$folder/edge-1"
start edge-2
start edge-3
for name in cloud edge-1 edge-2 edge-3; do ended $name 0; done
most=45000
! grep -qF __asan_init "$FEDSTILL" || most=400000 # which holds back what was freed
true_that "a site took $(cat "$folder/peak") KiB, $most are enough" test "$(cat "$folder/peak")" -lt $most
cp "$folder/all/at_cloud/train.safetensors" "$folder/cloud/at_cloud/train.safetensors"

# ---- public samples and a model of its own at each site: these have what data.path has too, and of each other nothing
write_task ', public: 0.3' <<END
  fedmd: {kind: federated_train, model: fedgen_mnist, strategy: fedmd, init: random, rounds: 2, batch_size: 8,
          optimizer: {name: sgd, learning_rate: 0.05}}
END
for k in 1 2 3; do cp -r "$folder/all/at_cloud" "$folder/$k"; done
one
play
for k in 1 2 3; do
    same "the model of edge-$k" "$(sha256sum <"$folder/edge-$k/fedmd/edge_${k}_model.safetensors")" \
        "$(sha256sum <"$folder/one/fedmd/edge_${k}_model.safetensors")"
done
finish
