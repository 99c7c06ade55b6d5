#!/bin/bash
# The cascade over a network: devices send windows, edges classify them, the cloud what edges are not sure of; the decisions,
# figures and models of `fedstill run`, also when devices, edges, cloud and broker are killed in mid-stream. Needs $FEDSTILL,
# $FEDSTILL_HELPER, mosquitto and its clients.
#   FEDSTILL_KILLS      kill -9 of anything (default 6)
#   FEDSTILL_KILL_SEED  of the moments (default 1)
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/../task/common.sh"
kills=${FEDSTILL_KILLS:-6}
RANDOM=${FEDSTILL_KILL_SEED:-1}
edges=2 devices=4
declare -A pid=()
clean_up() {
    for p in "${pid[@]}"; do kill -9 "$p" 2>/dev/null; done
    rm -rf "$folder"
}
command -v mosquitto >/dev/null || PATH=$PATH:/usr/sbin
true_that "mosquitto is installed" command -v mosquitto >/dev/null || finish

named_task 160 60
write_task() { # INTERVAL ASK_TIMEOUT
    cat >"$task/task.yaml" <<END
name: cascade
seed: 5
data: {source: array, path: data, validation: 0.2}
topology: {edges: $edges, devices: $devices, cloud_share: 0.4, alpha: 1}
stages:
  cloud_pretrain:  {model: fedgen_mnist, epochs: 1, batch_size: 16}
  federated_train: {model: fedgen_mnist, strategy: fedavg, init: random, rounds: 2, local_epochs: 1, batch_size: 8,
                    optimizer: {name: sgd, learning_rate: 0.02}}
  quantise: {samples: 20}
  device_load: {batch_size: 2, interval: $1}
  edge_infer: {model: quantise, batch_size: 16, threshold: {target_offload: 0.4}, ask_timeout: $2, runs: 1, repeats: 1}
  cloud_infer: {batch_size: 32, runs: 1, repeats: 1}
  cloud_direct_infer: {batch_size: 32, runs: 1, repeats: 1}
END
}
# What must be the same: models, who answered what and how surely, accuracy, calibration, shares.
decisions() {
    (cd "$1" && sha256sum cloud_pretrain/model.safetensors federated_train/*.safetensors quantise/model.safetensors edge_infer/predictions.safetensors \
        cloud_infer/predictions.safetensors)
}
figures() {
    for key in summary.accuracy summary.offloaded summary.threshold summary.temperature summary.corrected summary.spoiled; do
        "$FEDSTILL_HELPER" json "$1/cloud_infer/report.json" "$key"
    done
}
fleet() { "$FEDSTILL_HELPER" json "$1/cloud_infer/report.json" "fleet.$2"; }

# ---- the whole by one command, with certificates and a broker at each edge
write_task 0 0
expect 0 run "$task" --output "$folder/one" --no-reuse --mode full_pipeline
decisions "$folder/one" >"$folder/want"
figures "$folder/one" >"$folder/want.figures"
mkdir "$folder/tmp"
TMPDIR=$folder/tmp expect 0 fleet up "$task" --output "$folder/up" --no-reuse --mode full_pipeline
same "fleet up: decisions" "$(decisions "$folder/up")" "$(cat "$folder/want")"
same "fleet up: figures" "$(figures "$folder/up")" "$(cat "$folder/want.figures")"
same "fleet up: windows" "$(fleet "$folder/up" windows)" 60
same "fleet up: differ" "$(fleet "$folder/up" differ)" 0
same "fleet up: unsure" "$(fleet "$folder/up" unsure)" 0
true_that "fleet up: progress counts windows" grep -q '60 windows of devices' "$folder/err"
true_that "fleet up: the cloud was asked" grep -Eq 'cloud: [1-9][0-9]* windows answered' "$folder/err"
same "fleet up: left in the temporary folder" "$(ls "$folder/tmp")" ""

# ---- the cloud alone: edges pass on what devices send, and look at nothing
expect 0 run "$task" --output "$folder/one" --no-reuse --mode device_to_cloud
TMPDIR=$folder/tmp expect 0 fleet up "$task" --output "$folder/up" --no-reuse --mode device_to_cloud
same "the cloud alone: answers" "$(sha256sum <"$folder/up/cloud_direct_infer/predictions.safetensors")" \
    "$(sha256sum <"$folder/one/cloud_direct_infer/predictions.safetensors")"
direct() { "$FEDSTILL_HELPER" json "$folder/up/cloud_direct_infer/report.json" "$1"; }
same "the cloud alone: accuracy" "$(direct summary.accuracy)" \
    "$("$FEDSTILL_HELPER" json "$folder/one/cloud_direct_infer/report.json" summary.accuracy)"
same "the cloud alone: windows" "$(direct fleet.windows)" 60
same "the cloud alone: differ" "$(direct fleet.differ)" 0
true_that "the cloud alone: it answered all" grep -q 'cloud: 60 windows answered' "$folder/err"

# ---- the edges alone: nobody asks the cloud
cp -r "$folder/one" "$folder/one-edge" && cp -r "$folder/up" "$folder/up-edge"
alone=(--set stages.edge_infer.threshold.target_offload=0.3) # what was done is of another threshold
expect 0 run "$task" "${alone[@]}" --output "$folder/one-edge" --no-reuse --mode device_to_edge
TMPDIR=$folder/tmp expect 0 fleet up "$task" "${alone[@]}" --output "$folder/up-edge" --no-reuse --mode device_to_edge
same "the edges alone: answers" "$(sha256sum <"$folder/up-edge/edge_infer/predictions.safetensors")" \
    "$(sha256sum <"$folder/one-edge/edge_infer/predictions.safetensors")"
for key in windows:60 differ:0 unsure:0; do
    same "the edges alone: ${key%:*}" \
        "$("$FEDSTILL_HELPER" json "$folder/up-edge/edge_infer/report.json" "fleet.${key%:*}")" "${key#*:}"
done
rm -rf "$folder/one-edge" "$folder/up-edge"

# ---- edges with files of their own, and more devices than go around
mkdir -p "$task/e1" "$task/e2"
"$FEDSTILL_HELPER" named "$task/e1/train.safetensors" 60 a,b,c 1 11
"$FEDSTILL_HELPER" named "$task/e2/train.safetensors" 60 a,b,c 1 12
own=(--set data.edge_paths=[e1,e2] --set topology.devices=3)
sed -i 's/, cloud_share: 0.4, alpha: 1//' "$task/task.yaml"
expect 0 run "$task" "${own[@]}" --output "$folder/own-one" --no-reuse --mode full_pipeline
TMPDIR=$folder/tmp expect 0 fleet up "$task" "${own[@]}" --output "$folder/own-up" --no-reuse --mode full_pipeline
same "edges with files of their own: decisions" "$(sha256sum <"$folder/own-up/cloud_infer/predictions.safetensors")" \
    "$(sha256sum <"$folder/own-one/cloud_infer/predictions.safetensors")"
mv "$task/e1" "$task/e2" "$folder" # a device needs none of them: it comes as far as its number
expect 2 device "$task" "${own[@]}" --id device-9 --connect mqtt://127.0.0.1:1 --plain-text --output "$folder/device-9"
true_that "a device opens the test samples alone" grep -q 'there is no device-9' "$folder/err"
write_task 0 0

# ---- processes by hand, one broker in plain text
port=$("$FEDSTILL_HELPER" port) || exit 1
printf 'listener %d 127.0.0.1\nallow_anonymous true\nmax_packet_size 1050000\n' "$port" >"$folder/broker.conf"
link=(--connect "mqtt://127.0.0.1:$port" --plain-text)
start() { # broker | cloud | edge-K | device-K
    case $1 in
    broker) mosquitto -c "$folder/broker.conf" >/dev/null 2>&1 & ;;
    cloud) "$FEDSTILL" cloud "$task" "${link[@]}" --mode full_pipeline --output "$folder/fleet" --no-reuse \
        >"$folder/out.cloud" 2>>"$folder/err.cloud" </dev/null & ;;
    *) "$FEDSTILL" "${1%-*}" "$task" --id "$1" "${link[@]}" --output "$folder/$1" >"$folder/out.$1" 2>>"$folder/err.$1" \
        </dev/null & ;;
    esac
    pid[$1]=$!
}
ended() { # NAME STATUS: it ends within five minutes, with that status
    local status i
    for ((i = 0; i < 3000; i++)); do
        kill -0 "${pid[$1]}" 2>/dev/null || break
        sleep 0.1
    done
    kill -9 "${pid[$1]}" 2>/dev/null && fail "$1 does not end" && tail -n 5 "$folder/err.$1"
    wait "${pid[$1]}" 2>/dev/null
    status=$?
    checks=$((checks + 1))
    [ $status -eq "$2" ] || { fail "$1: exit status $status, wanted $2" && tail -n 20 "$folder/err.$1"; }
    unset "pid[$1]"
}
# Waiting for a broker takes no work.
ticks() { awk '{sub(/.*\) /, ""); print $12 + $13}' "/proc/$1/stat"; }
start device-1
for ((i = 0; i < 600; i++)); do
    grep -q 'Connection refused' "$folder/err.device-1" && break
    sleep 0.1
done
before=$(ticks "${pid[device-1]}")
sleep 2
worked=$(($(ticks "${pid[device-1]}") - before))
true_that "a device waits for its broker without spinning ($worked ticks)" test "$worked" -lt 10
kill "${pid[device-1]}"
ended device-1 1

names=(cloud)
for ((k = 1; k <= edges; k++)); do names+=("edge-$k"); done
for ((k = 1; k <= devices; k++)); do names+=("device-$k"); done
anew() { rm -rf "$folder"/fleet "$folder"/edge-* "$folder"/device-* "$folder"/err.*; }
all_start() { for name in "${names[@]}"; do start "$name"; done; }
all_end() { for name in "${names[@]}"; do ended "$name" 0; done; }
seen() { # NAME TEXT: within a minute, in its log
    local i
    for ((i = 0; i < 600; i++)); do
        grep -qs -e "$2" "$folder/err.$1" && return
        sleep 0.1
    done
    fail "$1 does not say \"$2\""
    return 1
}
start broker
all_start
all_end
same "by hand: decisions" "$(decisions "$folder/fleet")" "$(cat "$folder/want")"
mb=$(sed -n 's/.*since the cloud was away;.* \([0-9]*\) MB.*/\1/p' "$folder/err.edge-1")
true_that "an edge says what it takes of memory" test "${mb:-0}" -gt 0
grep -qF __asan_init "$FEDSTILL" || true_that "an edge takes $mb MB, 60 are enough" test "${mb:-0}" -lt 60

# ---- a bare sensor: one window's bytes, by the broker's own client. The device's process comes when that was answered.
anew
for name in cloud edge-1 edge-2 device-2 device-3 device-4; do start "$name"; done
seen edge-1 'answering 2 devices'
head -c 64 /dev/zero >"$folder/window"
: >"$folder/classes"
mosquitto_sub -h 127.0.0.1 -p "$port" -t fst/a/device-1/class -C 2 -W 60 >"$folder/classes" &
pid[sub]=$!
for ((i = 0; i < 60 && $(wc -l <"$folder/classes") < 2; i++)); do
    mosquitto_pub -h 127.0.0.1 -p "$port" -t fst/q/edge-1/device-1/raw -f "$folder/window"
    sleep 0.3
done
ended sub 0
true_that "a bare window is answered" \
    grep -q '"window":[0-9]*,"class":[0-2],"name":"[abc]","confidence":[01]\.' "$folder/classes"
same "the same window, the same answer" "$(sed 's/"window":[0-9]*//' "$folder/classes" | sort -u | wc -l)" 1
start device-1
all_end
same "beside a bare sensor: decisions" "$(decisions "$folder/fleet")" "$(cat "$folder/want")"

# ---- refused: another task, no such device
anew
for name in cloud edge-1 edge-2; do start "$name"; done
seen edge-1 'answering 2 devices'
expect 2 device "$task" --id device-1 "${link[@]}" --set data.validation=0.1
said err 'refused by edge-1: the tasks differ'
expect 2 device "$task" --id device-9 "${link[@]}"
said err 'there is no device-9'
expect 2 device "$task" --id camera "${link[@]}"
said err 'they are device-1'
expect 2 device "$task" "${link[@]}"
said err '--id ID is needed'
for ((k = 1; k <= devices; k++)); do start "device-$k"; done
all_end

# ---- killed in mid-stream
write_task 0.1 0
expect 0 run "$task" --output "$folder/slow" --no-reuse --mode full_pipeline
decisions "$folder/slow" >"$folder/want"
runs=0 done_kills=0
while [ $done_kills -lt "$kills" ] && [ $runs -lt $((kills + 5)) ]; do
    anew
    runs=$((runs + 1))
    all_start
    seen edge-1 'answering 2 devices'
    while [ $done_kills -lt "$kills" ]; do
        sleep "0.$((RANDOM % 6))$((RANDOM % 10))"
        kill -0 "${pid[cloud]}" 2>/dev/null || break
        one=${names[RANDOM % ${#names[@]}]}
        [ $((RANDOM % 8)) -gt 0 ] || one=broker
        kill -9 "${pid[$one]}" 2>/dev/null || continue
        wait "${pid[$one]}" 2>/dev/null
        done_kills=$((done_kills + 1))
        start "$one"
    done
    ended cloud 0
    for name in "${names[@]:1}"; do # one that was let go before the cloud ended is not needed again
        kill -TERM "${pid[$name]}" 2>/dev/null
        wait "${pid[$name]}" 2>/dev/null
        unset "pid[$name]"
    done
    same "killed $done_kills times so far: decisions" "$(decisions "$folder/fleet")" "$(cat "$folder/want")"
    same "killed: differ" "$(fleet "$folder/fleet" differ)" 0
done
true_that "$done_kills of $kills kills in $runs runs" test $done_kills -eq "$kills"

# ---- the cloud is away: edges answer themselves, and say so
write_task 0.2 0.5
anew
all_start
seen edge-1 'answering 2 devices'
seen edge-2 'answering 2 devices'
kill -STOP "${pid[cloud]}"
for ((k = 1; k <= devices; k++)); do seen "device-$k" 'windows answered'; done
kill -CONT "${pid[cloud]}"
all_end
true_that "answers of an edge that was alone are marked" test "$(fleet "$folder/fleet" unsure)" -gt 0
same "all windows were answered" "$(fleet "$folder/fleet" windows)" 60

# ---- in the cloud's process, without devices
write_task 0 0
anew
"$FEDSTILL" cloud "$task" "${link[@]}" --mode full_pipeline --no-devices --output "$folder/fleet" --no-reuse >/dev/null \
    2>"$folder/err.cloud" </dev/null &
pid[cloud]=$!
for ((k = 1; k <= edges; k++)); do start "edge-$k"; done
ended cloud 0
for ((k = 1; k <= edges; k++)); do ended "edge-$k" 0; done
same "no devices: no figures of a fleet" "$(grep -c '"fleet"' "$folder/fleet/cloud_infer/report.json")" 0
finish
