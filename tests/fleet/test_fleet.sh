#!/bin/bash
# A fleet of real processes on this host: the models of one process bit for bit, also when cloud, sites and broker are killed
# at random moments; and what is refused. Needs $FEDSTILL, $FEDSTILL_HELPER and mosquitto.
#   FEDSTILL_KILLS      kill -9 of anything (default 12)
#   FEDSTILL_KILL_SEED  of the moments (default 1)
# shellcheck source=tests/fleet/common.sh
. "$(dirname "$0")/common.sh"
kills=${FEDSTILL_KILLS:-12}
RANDOM=${FEDSTILL_KILL_SEED:-1}
sites=3

named_task 120 40
write_task() { # ROUNDS EPOCHS STRATEGY [CODEC]
    cat >"$task/task.yaml" <<END
name: fleet
seed: 5
data: {source: array, path: data, validation: 0.1}
topology: {edges: $sites, cloud_share: 0.3, alpha: 1}
stages:
  cloud_pretrain:  {model: fedgen_mnist, epochs: 1, batch_size: 16}
  federated_train: {model: fedgen_mnist, strategy: $3, init: cloud_pretrain, rounds: $1, local_epochs: $2, batch_size: 8,
                    optimizer: {name: sgd, learning_rate: 0.02}${4:+, codec: $4}}
END
}
models() { (cd "$1" && sha256sum cloud_pretrain/model.safetensors {federated_train,moments}/*.safetensors 2>/dev/null); }

# ---- processes
start() { # broker | cloud | edge-K
    case $1 in
    broker) start_broker ;;
    cloud) run_as cloud "$FEDSTILL" cloud "$task" "${link[@]}" --output "$folder/fleet" --no-reuse ;;
    *) run_as "$1" "$FEDSTILL" edge "$task" --id "$1" "${link[@]}" --output "$folder/$1" ;;
    esac
}
everybody() {
    start cloud
    for ((k = 1; k <= sites; k++)); do start edge-$k; done
}
all_end() {
    ended cloud 0
    for ((k = 1; k <= sites; k++)); do ended edge-$k 0; done
}
anew() { rm -rf "$folder"/fleet "$folder"/edge-* "$folder"/err.*; }

# ---- the bits of one process; scaffold: clients keep something from round to round
start broker
for strategy in fedavg scaffold; do
    write_task 3 1 $strategy
    expect 0 run "$task" --output "$folder/one" --no-reuse --fresh
    models "$folder/one" >"$folder/want"
    anew
    everybody
    all_end
    same "$strategy: models" "$(models "$folder/fleet")" "$(cat "$folder/want")"
    true_that "$strategy: all sites are named" test "$(grep -c 'joined: ' "$folder/err.cloud")" -eq $sites
done
# more rounds on the same outputs, though they are of another run: scaffold's clients do not have what they kept any more
for strategy in fedavg scaffold; do
    write_task 2 1 $strategy
    anew
    everybody
    all_end
    write_task 3 1 $strategy
    everybody
    if [ $strategy = scaffold ]; then
        ended cloud 2
        true_that "more rounds of scaffold: refused" grep -q 'what clients kept of them is of that run' "$folder/err.cloud"
        for ((k = 1; k <= sites; k++)); do
            kill -TERM "${pid[edge-$k]}"
            ended edge-$k 1
        done
        continue
    fi
    all_end
    expect 0 run "$task" --output "$folder/one" --no-reuse --fresh
    same "$strategy: models of more rounds" "$(models "$folder/fleet")" "$(models "$folder/one")"
done

# two processes of one id at two places, which take each other's connection: the older one ends, and the rounds go on
write_task 2 1 fedavg
anew
start edge-1
pid[older]=${pid[edge-1]}
start cloud
for ((i = 0; i < 100; i++)); do
    grep -q 'edge-1 joined' "$folder/err.cloud" && break
    sleep 0.1
done
"$FEDSTILL" edge "$task" --id edge-1 "${link[@]}" --output "$folder/edge-newer" >/dev/null 2>"$folder/err.newer" </dev/null &
pid[newer]=$!
ended older 2
true_that "the older process is told" grep -q 'another process of edge-1 joined after this one' "$folder/err.edge-1"
start edge-2
start edge-3
ended cloud 0
for name in newer edge-2 edge-3; do ended $name 0; done
write_task 3 1 scaffold
anew
everybody
all_end
# everything is there: the cloud has nothing to do, and lets sites go that come in time
expect 0 cloud "$task" "${link[@]}" --output "$folder/fleet" --no-reuse
said err "federated_train: up to date"

# ---- killed at random moments; with codecs clients and cloud keep what was lost, too, and the model that was sent; and
# clients keep their optimisers' moments
codec='{up: {kind: top_k, share: 0.05, values: int8}, down: {kind: int4, scale: channel, change: true}}'
write_task 7 12 scaffold "$codec"
cat >>"$task/task.yaml" <<END
  moments: {kind: federated_train, init: federated_train, rounds: 7, local_epochs: 12, batch_size: 8,
            optimizer: {name: adam, learning_rate: 0.002}, optimizer_state: kept, codec: $codec}
END
expect 0 run "$task" --output "$folder/one" --no-reuse --fresh
models "$folder/one" >"$folder/want"
names=(cloud broker)
for ((k = 1; k <= sites; k++)); do names+=("edge-$k"); done
runs=0 done_kills=0
while [ $done_kills -lt "$kills" ] && [ $runs -lt $((kills + 5)) ]; do
    anew
    runs=$((runs + 1))
    everybody
    while [ $done_kills -lt "$kills" ]; do
        sleep "0.$((RANDOM % 9))$((RANDOM % 10))"
        kill -0 "${pid[cloud]}" 2>/dev/null || break
        one=${names[RANDOM % ${#names[@]}]}
        kill -9 "${pid[$one]}" 2>/dev/null || continue
        wait "${pid[$one]}" 2>/dev/null
        done_kills=$((done_kills + 1))
        sleep "0.0$((RANDOM % 10))"
        FEDSTILL_BLOB_IN_MEMORY=$((RANDOM % 2)) start $one # with 1 every message is a file, with 0 a large one
    done
    # a site that was let go before a killed cloud had finished is not needed again, and one that comes too late finds nobody
    ended cloud 0
    for ((k = 1; k <= sites; k++)); do
        kill -TERM "${pid[edge-$k]}" 2>/dev/null
        wait "${pid[edge-$k]}" 2>/dev/null
        unset "pid[edge-$k]"
    done
    same "killed $done_kills times so far: models" "$(models "$folder/fleet")" "$(cat "$folder/want")"
done
true_that "$done_kills of $kills kills in $runs runs" test $done_kills -eq "$kills"
rm -r "$folder/one" # its stage moments is not in what follows

# ---- the old names
write_task 3 1 fedavg
expect 0 run "$task" --output "$folder/one" --no-reuse --fresh
anew
for ((k = 1; k <= sites; k++)); do
    "$FEDSTILL" run "$task" --mode federated_edge --client-id $k "${link[@]}" --output "$folder/edge-$k" >/dev/null \
        2>"$folder/err.edge-$k" </dev/null &
    pid[edge-$k]=$!
done
expect 0 run "$task" --mode federated_server "${link[@]}" --output "$folder/fleet" --no-reuse
for ((k = 1; k <= sites; k++)); do ended edge-$k 0; done
same "by the old names: models" "$(models "$folder/fleet")" "$(models "$folder/one")"
expect 2 run "$task" --mode federated_edge "${link[@]}"
said err '--client-id N'
expect 2 run "$task" --mode federated_server --credentials "$folder"
said err 'that fedstill fleet init made'
expect 2 run "$task" --client-id 1
said err 'no effect without --mode federated_edge'
expect 2 run "$task" --plain-text
said err 'no effect without --mode federated_server'

# ---- nobody comes: the failure names who was waited for
write_task 2 1 fedavg
expect 2 cloud "$task" "${link[@]}" --output "$folder/alone" --no-reuse --join-deadline 1
said err 'too few clients joined in time; edge-1, edge-2, edge-3 did not join'

# ---- refused
anew
start cloud
expect 2 edge "$task" --id edge-1 "${link[@]}" --output "$folder/edge-1" --set stages.federated_train.rounds=3
said err 'refused by the cloud: the tasks differ: the cloud has stages.federated_train.rounds=2'
# other samples, and as many: a model of them would be another one
cp -r "$task" "$folder/other"
rm -r "$folder/other/data/train.safetensors" "$folder/other"/output 2>/dev/null
"$FEDSTILL_HELPER" named "$folder/other/data/train.safetensors" 120 a,b,c 1.01 1
expect 2 edge "$folder/other" --id edge-1 "${link[@]}" --output "$folder/edge-1"
said err 'refused by the cloud: its samples are not those that the cloud'
expect 2 edge "$task" --id edge-9 "${link[@]}" --output "$folder/edge-9"
said err 'there are edge-1 to edge-3'
expect 2 edge "$task" --id edge-1 --connect "mqtt://127.0.0.1:$port"
said err 'is not encrypted'
expect 2 edge "$task" --id edge-1 --connect mqtts://127.0.0.1 --credentials "$folder"
said err 'edge-1.fleet is missing'
expect 1 edge "$task" --id edge-1 --credentials "$folder/nowhere"
said err 'nowhere'
start edge-1
sleep 0.5
expect 1 edge "$task" --id edge-1 "${link[@]}" --output "$folder/edge-1"
said err 'edge-1/lock'
start edge-2
start edge-3
all_end

# ---- the whole fleet by one command, with certificates; and nothing of it is left running or lying about
write_task 3 1 fedavg
expect 0 run "$task" --output "$folder/one" --no-reuse --fresh
mkdir "$folder/tmp"
TMPDIR=$folder/tmp expect 0 fleet up "$task" --output "$folder/up" --no-reuse
same "fleet up: models" "$(models "$folder/up")" "$(models "$folder/one")"
true_that "fleet up: all sites joined" test "$(grep -c 'joined: ' "$folder/err")" -eq $sites
same "fleet up: left in the temporary folder" "$(ls "$folder/tmp")" ""
TMPDIR=$folder/tmp expect 2 fleet up "$task" --output "$folder/up" --no-reuse --set topology.edges=none

# ---- every way to federate one model
for strategy in fedavg fedprox fedavgm fedadam fednova fedntd fedbn median norm_clipping fedbuff fd_plus fedgen feddf fedkd; do
    public=0 drawn=$sites
    [ $strategy != feddf ] || public=0.3
    [ $strategy != fedbuff ] || drawn=2
    cat >"$task/task.yaml" <<END
name: strategy
seed: 9
data: {source: array, path: data, public: $public}
clients: {count: $sites}
stages:
  federated_train: {model: fedgen_mnist, strategy: $strategy, init: random, rounds: 2, local_epochs: 1, batch_size: 8,
                    clients_per_round: $drawn, optimizer: {name: sgd, learning_rate: 0.02}}
END
    rm -rf "$folder/one" "$folder/up"
    expect 0 run "$task" --output "$folder/one" --no-reuse
    TMPDIR=$folder/tmp expect 0 fleet up "$task" --output "$folder/up" --no-reuse
    same "$strategy" "$(sha256sum <"$folder/up/federated_train/model.safetensors")" \
        "$(sha256sum <"$folder/one/federated_train/model.safetensors")"
done

# ---- fused with a larger model at the cloud, which the sites never see
cat >"$task/task.yaml" <<END
name: fused
seed: 9
data: {source: array, path: data, public: 0.3}
clients: {count: $sites}
stages:
  teacher: {kind: cloud_pretrain, model: mnist_student, epochs: 1, batch_size: 16}
  average: {kind: federated_train, model: fedgen_mnist, init: random, rounds: 3, batch_size: 8,
            fusion: {teacher: teacher, target: conv2.weight, source: fc1.weight, rank: 4, start_round: 1}}
  public:  {kind: federated_train, model: fedgen_mnist, init: random, rounds: 2, batch_size: 8, strategy: fedadam,
            fusion: {teacher: teacher, target: conv2.weight, source: fc1.weight, start_round: 1, learns_from: public}}
END
rm -rf "$folder/one" "$folder/up"
expect 0 run "$task" --output "$folder/one" --no-reuse
TMPDIR=$folder/tmp expect 0 fleet up "$task" --output "$folder/up" --no-reuse
for stage in average public; do
    same "fused: $stage" "$(sha256sum <"$folder/up/$stage/model.safetensors")" "$(sha256sum <"$folder/one/$stage/model.safetensors")"
done

# ---- soft labels at clients who have their share of what all have
cat >"$task/task.yaml" <<END
name: labels
seed: 9
data: {source: array, path: data}
clients: {count: $sites}
stages:
  teacher: {kind: cloud_pretrain, model: mnist_student, epochs: 1, batch_size: 16}
  other:   {kind: cloud_pretrain, model: fedgen_mnist, epochs: 1, batch_size: 16}
  labels:  {kind: cloud_kd, teacher: [teacher, other], at_clients: true, temperature: 2}
  student: {kind: federated_train, model: fedgen_mnist, init: random, rounds: 2, batch_size: 8, distillation: labels,
            optimizer: {name: sgd, learning_rate: 0.02}}
END
rm -rf "$folder/one" "$folder/up"
expect 0 run "$task" --output "$folder/one" --no-reuse
TMPDIR=$folder/tmp expect 0 fleet up "$task" --output "$folder/up" --no-reuse
same "soft labels of two teachers" "$(sha256sum <"$folder/up/student/model.safetensors")" "$(sha256sum <"$folder/one/student/model.safetensors")"
# up to date, with other rounds for the student: the sites are new, and make their labels again
TMPDIR=$folder/tmp expect 0 fleet up "$task" --output "$folder/up" --no-reuse --set stages.student.rounds=3
said err "labels: up to date"
expect 0 run "$task" --output "$folder/one" --no-reuse --set stages.student.rounds=3
same "soft labels made again" "$(sha256sum <"$folder/up/student/model.safetensors")" "$(sha256sum <"$folder/one/student/model.safetensors")"

# ---- a different network at every client: their models stay with them, the same as in one process
cat >"$task/task.yaml" <<END
name: own
seed: 7
data: {source: array, path: data, public: 0.3}
clients: {count: $sites, models: [2 fedgen_mnist, logistic_regression]}
stages:
  alone: {kind: federated_train, model: fedgen_mnist, strategy: fd, gamma: 0, init: random, rounds: 2, local_epochs: 1,
          batch_size: 8, optimizer: {name: sgd, learning_rate: 0.05}}
  means: {kind: federated_train, model: fedgen_mnist, strategy: fd, init: random, rounds: 3, local_epochs: 1,
          batch_size: 8, optimizer: {name: sgd, learning_rate: 0.05}, clients_per_round: 2,
          codec: {up: {kind: int8, scale: channel}, down: {kind: levels, bits: 4, change: true}}}
  fedmd: {kind: federated_train, model: fedgen_mnist, strategy: fedmd, init: random, rounds: 3, local_epochs: 1,
          batch_size: 8, optimizer: {name: sgd, learning_rate: 0.05}, clients_per_round: 2}
  coded: {kind: federated_train, model: fedgen_mnist, strategy: dsfl, init: random, rounds: 3, local_epochs: 1,
          batch_size: 8, optimizer: {name: sgd, learning_rate: 0.05}, clients_per_round: 2, public_samples: 20,
          codec: {up: {kind: levels, bits: 2}, down: {kind: int4, scale: channel, rounding: stochastic, change: true}}}
END
own() { # OUTPUT STAGE: digests and figures of the clients' models
    for k in 0 1 2; do
        for key in digest arch rounds test_accuracy test_loss; do
            "$FEDSTILL_HELPER" json "$1/$2/clients.json" "$k.$key"
        done
    done
}
rm -rf "$folder/one"
expect 0 run "$task" --output "$folder/one" --no-reuse
TMPDIR=$folder/tmp expect 0 fleet up "$task" --output "$folder/own" --no-reuse --keep
for stage in alone means fedmd coded; do
    same "$stage: models of their own" "$(own "$folder/own" $stage)" "$(own "$folder/one" $stage)"
    for k in 1 2 3; do
        same "$stage: the file of client-$k, which is at its site" \
            "$(sha256sum <"$(echo "$folder"/tmp/*/client-$k/output/$stage/client_${k}_model.safetensors)")" \
            "$(sha256sum <"$folder/one/$stage/client_${k}_model.safetensors")"
        true_that "$stage: the model of client-$k is not at the cloud" test ! -e "$folder/own/$stage/client_${k}_model.safetensors"
    done
done
bytes() { for key in bytes_up bytes_down raw_bytes_up raw_bytes_down; do "$FEDSTILL_HELPER" json "$1/stage.json" $key; done; }
for stage in means coded; do
    same "$stage: bytes, as sent and raw" "$(bytes "$folder/own/$stage")" "$(bytes "$folder/one/$stage")"
done
same "rounds' figures" "$(grep '"event": "round"' "$folder/own/events.jsonl" | sed 's/.*"test_accuracy": \([^,]*\).*/\1/')" \
    "$(grep '"event": "round"' "$folder/one/events.jsonl" | sed 's/.*"test_accuracy": \([^,]*\).*/\1/')"

# ---- own models that start from a published one, on samples that each client keeps apart: as in one process
cat >"$task/task.yaml" <<END
name: fine
seed: 7
data: {source: array, path: data}
clients: {count: $sites, validation: 0.25}
stages:
  first: {kind: federated_train, model: fedgen_mnist, init: random, rounds: 1, batch_size: 8}
  local: {kind: federated_train, strategy: local, init: first, rounds: 2, batch_size: 8}
  fd:    {kind: federated_train, strategy: fd, init: first, rounds: 2, batch_size: 8, clients_per_round: 2}
  fedkd: {kind: federated_train, strategy: fedkd, init: first, rounds: 1, batch_size: 8}
END
own_validation() { # OUTPUT STAGE
    for k in 0 1 2; do
        for key in samples accuracy global_accuracy; do
            "$FEDSTILL_HELPER" json "$1/$2/clients.json" "$k.own_validation.$key"
        done
    done
    for key in samples accuracy global_accuracy; do
        "$FEDSTILL_HELPER" json "$1/$2/stage.json" "own_validation.$key"
    done
}
rm -rf "$folder/one"
expect 0 run "$task" --output "$folder/one" --no-reuse
TMPDIR=$folder/tmp expect 0 fleet up "$task" --output "$folder/fine" --no-reuse
for stage in local fd fedkd; do
    same "$stage from a published model" "$(own "$folder/fine" $stage)" "$(own "$folder/one" $stage)"
    same "$stage: samples of their own" "$(own_validation "$folder/fine" $stage)" "$(own_validation "$folder/one" $stage)"
done
true_that "the model that they start from was sent" [ "$("$FEDSTILL_HELPER" json "$folder/fine/local/stage.json" bytes_down)" -gt 0 ]

# ---- keys by the commands; a broker that cannot be told of a revocation is no success
hub=$("$FEDSTILL_HELPER" port)
expect 0 fleet init "$folder/keys" --host 127.0.0.1 --port "$hub"
expect 0 fleet request edge-1 --dir "$folder/site"
expect 2 fleet enroll "$folder/keys" "$folder/site/edge-1.csr"
said err 'nobody is there to be asked'
expect 0 fleet enroll "$folder/keys" "$folder/site/edge-1.csr" --yes
said out 'none runs on this machine'
expect 0 fleet install "$folder/keys/edge-1.fleet" --dir "$folder/site"
true_that "a finished or refused site is started again for ever" \
    grep -q 'RestartPreventExitStatus=2' "$folder/site/fedstill-edge-1.service"
mosquitto -c "$folder/keys/hub.conf" >/dev/null 2>&1 &
pid[hub]=$!
for ((i = 0; i < 100; i++)); do [ -s "$folder/keys/hub.pid" ] && break || sleep 0.1; done
mv "$folder/keys/hub.pid" "$folder/hub.pid"
expect 1 fleet revoke "$folder/keys" edge-1
said err "listens on port $hub could not be told"
mv "$folder/hub.pid" "$folder/keys/hub.pid"
expect 0 fleet revoke "$folder/keys" edge-1
said out 'reads its lists again'
said out 'connection     ended'
expect 0 fleet status "$folder/keys"
said out 'revoked'
expect 1 fleet enroll "$folder/keys" "$folder/site/edge-1.csr" --yes
kill "${pid[hub]}"
wait "${pid[hub]}" 2>/dev/null
unset "pid[hub]"

# ---- what a fleet cannot do it says before any work
cat >"$task/task.yaml" <<END
name: labels
data: {source: array, path: data}
clients: {count: 2}
stages:
  cloud_pretrain: {model: fedgen_mnist, epochs: 1}
  labels: {kind: cloud_kd, teacher: cloud_pretrain}
  federated_train: {model: fedgen_mnist, init: random, rounds: 1, distillation: {soft_labels: labels}}
END
expect 2 cloud "$task" "${link[@]}" --output "$folder/labels" --no-reuse
said err 'set at_clients: true there'
finish
