#!/bin/bash
# A cloud's web page and metrics beside a fleet that plays rounds: what they say agrees with the run's events, every line
# of the metrics is one that Prometheus reads, streams hold all events, and the token is asked for. And what a fleet on
# one machine leaves when it is killed. Needs $FEDSTILL, $FEDSTILL_HELPER and mosquitto.
#   FEDSTILL_BROWSER    also opens the page in headless Chromium (needs it)
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/../task/common.sh"
sites=3
declare -A pid=()
clean_up() {
    for p in "${pid[@]}"; do
        kill -CONT "$p" 2>/dev/null
        kill -9 "$p" 2>/dev/null
    done
    rm -rf "$folder"
}
command -v mosquitto >/dev/null || PATH=$PATH:/usr/sbin
true_that "mosquitto is installed" command -v mosquitto >/dev/null || finish

named_task 120 40
cat >"$task/task.yaml" <<END
name: page
seed: 5
data: {source: array, path: data, validation: 0.1}
topology: {edges: $sites, cloud_share: 0.3, alpha: 1}
stages:
  cloud_pretrain:  {model: fedgen_mnist, epochs: 2, batch_size: 16}
  federated_train: {model: fedgen_mnist, strategy: fedavg, init: cloud_pretrain, rounds: 100000, local_epochs: 1,
                    batch_size: 8, optimizer: {name: sgd, learning_rate: 0.02}}
END
port=$("$FEDSTILL_HELPER" port) || exit 1
printf 'listener %d 127.0.0.1\nallow_anonymous true\nmax_packet_size 1050000\n' "$port" >"$folder/broker.conf"
link=(--connect "mqtt://127.0.0.1:$port" --plain-text)
start_cloud() { # OPTION ...
    rm -f "$folder/err.cloud"
    "$FEDSTILL" cloud "$task" "${link[@]}" --output "$folder/fleet" --no-reuse --http 0 "$@" >/dev/null \
        2>"$folder/err.cloud" </dev/null &
    pid[cloud]=$!
    await_page cloud
}
await_page() { # NAME: $http, its port, while the process that was started last lives
    for ((i = 0; i < 6000; i++)); do
        http=$(sed -n 's/.*page: http:[^ ]*:\([0-9]*\)\/ .*/\1/p' "$folder/err.$1" 2>/dev/null)
        [ -z "$http" ] || return
        kill -0 $! 2>/dev/null || break
        sleep 0.05
    done
    fail "$1 does not say where its page is"
}
# ask METHOD PATH [LINE-OF-THE-HEAD ...]: the whole answer, for at most $patience seconds
ask() {
    local first="$1 $2 HTTP/1.1"
    shift 2
    exec 9<>"/dev/tcp/127.0.0.1/$http" || return
    printf '%s\r\n' "$first" "$@" "" >&9
    timeout "${patience:-20}" cat <&9
    exec 9>&-
}
here_host="Host: 127.0.0.1"
body() { sed '1,/^\r$/d'; }
get() { ask GET "$1" "$here_host" | body; }
code() { ask "$@" | sed -n '1s/HTTP\/1.1 \([0-9]*\).*/\1/p'; }
metric() { # SAMPLE: its value in $folder/metrics
    grep -F "$1 " "$folder/metrics" | grep -v '^#' | sed 's/.* //'
}
# well_formed: $folder/metrics has names, labels and numbers; each family has its type once, before its samples.
well_formed() {
    same "lines that Prometheus does not read" "$(grep -vE \
        '^(# (HELP [a-z_]+ .+|TYPE [a-z_]+ (counter|gauge|histogram))|[a-z_]+(\{[a-z]+="([^"\\]|\\.)*"(,[a-z]+="([^"\\]|\\.)*")*\})? (-?[0-9.]+(e[+-]?[0-9]+)?|NaN|[+-]Inf))$' \
        "$folder/metrics")" ""
    same "families whose type is said twice" "$(sed -n 's/^# TYPE \([^ ]*\) .*/\1/p' "$folder/metrics" | sort | uniq -d)" ""
    same "samples without a type" "$(awk '/^# TYPE/ { t[$3] = 1; next } /^#/ { next }
        { n = $1; sub(/\{.*/, "", n); b = n; sub(/_(bucket|sum|count)$/, "", b); if (!(n in t) && !(b in t)) print n }' "$folder/metrics")" ""
}
lines_of() { cat "$2" 2>/dev/null | grep -c "$1"; } # 0 for a file that is not there yet
rounds_there() { lines_of '"event": "round"' "$folder/fleet/events.jsonl"; }
# sum EVENT KEY: over the events of that kind
sum() {
    grep "\"event\": \"$1\"" "$folder/fleet/events.jsonl" | sed -n "s/.*\"$2\": \([0-9]*\).*/\1/p" |
        awk '{ s += $1 } END { printf "%.0f\n", s }'
}

mosquitto -c "$folder/broker.conf" >/dev/null 2>&1 &
pid[broker]=$!
start_cloud
# ---- before anybody is there
get /metrics >"$folder/metrics"
same "sites that are not there" "$(metric 'fedstill_clients{state="absent"}')" $sites
same "the page" "$(code GET / "$here_host")" 200
same "another name that leads here" "$(code GET /state "Host: evil.example")" 403
same "nothing can be changed" "$(code DELETE /state "$here_host")" 405

# ---- rounds, until the broker stands still: nobody is lost for that, and nothing more happens
patience=600 get /events >"$folder/stream" &
pid[stream]=$!
for ((k = 1; k <= sites; k++)); do
    "$FEDSTILL" edge "$task" --id "edge-$k" "${link[@]}" --output "$folder/edge-$k" >/dev/null 2>&1 </dev/null &
    pid[edge-$k]=$!
done
for ((i = 0; i < 6000 && $(rounds_there) < 5; i++)); do sleep 0.05; done
true_that "five rounds were played" test "$(rounds_there)" -ge 5
kill -STOP "${pid[broker]}"
before=-1
for ((i = 0; i < 100 && before != $(rounds_there); i++)); do
    before=$(rounds_there)
    sleep 0.5
done
get /metrics >"$folder/metrics"
rounds=$(rounds_there)
same "rounds that ended" "$(metric fedstill_rounds_total)" "$rounds"
same "the open round" "$(metric fedstill_round)" $((rounds + 1))
same "bytes up" "$(metric 'fedstill_bytes_total{dir="up",kind="update"}')" "$(sum round bytes_up)"
same "bytes down" "$(metric 'fedstill_bytes_total{dir="down",kind="update"}')" "$(sum round bytes_down)"
same "who reported" "$(metric 'fedstill_clients_total{result="reported"}')" "$(sum round reported)"
true_that "updates: those of rounds that ended, and of the open one" \
    test "$(metric fedstill_update_seconds_count)" -ge "$(sum round reported)" -a \
    "$(metric fedstill_update_seconds_count)" -lt $(((rounds + 1) * sites))
same "the last bucket has all" "$(metric 'fedstill_update_seconds_bucket{le="+Inf"}')" "$(metric fedstill_update_seconds_count)"
same "batches of windows, before any" "$(metric fedstill_batches_total)" 0
same "accuracy" "$(metric 'fedstill_accuracy{model="federated_train"}' | awk '{ printf "%.6f", $1 }')" \
    "$(grep '"event": "round"' "$folder/fleet/events.jsonl" | tail -1 |
        sed 's/.*"test_accuracy": \([^,]*\).*/\1/' | awk '{ printf "%.6f", $1 }')"
same "what is done" "$(metric 'fedstill_phase{phase="collect"}')" 1
well_formed
get /state >"$folder/state"
same "the sites" "$("$FEDSTILL_HELPER" json "$folder/state" sites.2.id)" edge-3
pending=$("$FEDSTILL_HELPER" json "$folder/state" cohort.pending)
same "who has reported and who has not" $((pending + $("$FEDSTILL_HELPER" json "$folder/state" cohort.folded))) $sites
same "who is waited for" "$(grep -o '"awaited":true' "$folder/state" | wc -l)" "$pending"
same "all are drawn" "$(grep -o '"drawn":true' "$folder/state" | wc -l)" $sites

# ---- streams: what was missed
lines=$(grep -c . "$folder/fleet/events.jsonl")
half=$(head -n $((lines / 2)) "$folder/fleet/events.jsonl" | wc -c)
said_by_stream() { sed -n '/^event: state/{n;d}; s/^data: //p' "$1"; }
patience=2 ask GET /events "$here_host" "Last-Event-ID: $half" | body >"$folder/rest"
same "a stream goes on from an id" "$(said_by_stream "$folder/rest" | grep -v '"resources"')" \
    "$(tail -n +$((lines / 2 + 1)) "$folder/fleet/events.jsonl" | grep -v '"resources"')"

# shellcheck source=tests/fleet/browser.sh
[ -z "${FEDSTILL_BROWSER:-}" ] || . "$(dirname "$0")/browser.sh" cloud

# ---- the end: a stream has every event, the last one too
kill -TERM "${pid[cloud]}"
wait "${pid[cloud]}" 2>/dev/null
wait "${pid[stream]}" 2>/dev/null
unset "pid[cloud]" "pid[stream]"
same "a stream to the end has all events" "$(said_by_stream "$folder/stream")" "$(cat "$folder/fleet/events.jsonl")"
true_that "state is in it too" grep -q '^event: state' "$folder/stream"

# ---- a token
expect 2 cloud "$task" "${link[@]}" --output "$folder/fleet" --http 0.0.0.0:0
said err 'needs a token'
expect 2 cloud "$task" "${link[@]}" --output "$folder/fleet" --http-token "$folder/token"
said err 'no effect without --http'
expect 2 edge "$task" --id edge-1 "${link[@]}" --output "$folder/edge-token" --http 0.0.0.0:0
said err 'needs a token'
expect 2 edge "$task" --id edge-1 "${link[@]}" --output "$folder/edge-token" --http-token "$folder/token"
said err 'no effect without --http'
printf 'a-token-of-some-length\n' >"$folder/token"
chmod 644 "$folder/token"
expect 2 cloud "$task" "${link[@]}" --output "$folder/fleet" --http 0 --http-token "$folder/token"
said err 'chmod 600'
chmod 600 "$folder/token"
start_cloud --http-token "$folder/token"
for what in state metrics events; do
    same "$what without the token" "$(code GET /$what "$here_host")" 401
    same "$what with a part of it" "$(code GET /$what "$here_host" "Authorization: Bearer a-token-of-some-lengt")" 401
done
same "with the token" "$(code GET /state "$here_host" "Authorization: Bearer a-token-of-some-length")" 200
for name in "${!pid[@]}"; do
    kill -CONT "${pid[$name]}" 2>/dev/null
    kill -9 "${pid[$name]}" 2>/dev/null
    wait "${pid[$name]}" 2>/dev/null
    unset "pid[$name]"
done

# ---- a fleet on one machine that was killed: the next one removes what it left, and nothing else
mkdir "$folder/tmp" "$folder/tmp/fedstill-fleet-abcdef"
echo mine >"$folder/tmp/fedstill-fleet-abcdef/file"
TMPDIR=$folder/tmp "$FEDSTILL" fleet up "$task" --output "$folder/up" --no-reuse >/dev/null 2>"$folder/err.up" </dev/null &
pid[up]=$!
for ((i = 0; i < 6000 && $(lines_of 'joined: ' "$folder/err.up") < sites; i++)); do sleep 0.05; done
left=$(sed -n 's/.*files and logs in //p' "$folder/err.up")
sed -i 's/100000/2/' "$task/task.yaml"
TMPDIR=$folder/tmp expect 0 fleet up "$task" --output "$folder/second" --no-reuse
true_that "a fleet that lives keeps its folder" test -d "$left/hub"
kill -9 "${pid[up]}"
wait "${pid[up]}" 2>/dev/null
unset "pid[up]"
TMPDIR=$folder/tmp expect 0 fleet up "$task" --output "$folder/second" --no-reuse --fresh --keep
true_that "what a killed fleet left is removed" test ! -e "$left"
true_that "what is none of ours stays" test -e "$folder/tmp/fedstill-fleet-abcdef/file"
TMPDIR=$folder/tmp expect 0 fleet up "$task" --output "$folder/second" --no-reuse --fresh
same "what was to be kept is kept" "$(ls "$folder/tmp" | wc -l)" 2

# ---- the cascade: what an edge has answered, and the cloud, while the devices of another edge are not there yet
cat >"$task/task.yaml" <<END
name: cascade
seed: 5
data: {source: array, path: data, validation: 0.2}
topology: {edges: 2, devices: 2, cloud_share: 0.4, alpha: 1}
stages:
  cloud_pretrain:  {model: fedgen_mnist, epochs: 1, batch_size: 16}
  federated_train: {model: fedgen_mnist, strategy: fedavg, init: random, rounds: 1, local_epochs: 1, batch_size: 8,
                    optimizer: {name: sgd, learning_rate: 0.02}}
  device_load: {batch_size: 2}
  edge_infer: {batch_size: 16, threshold: {target_offload: 0.4}, ask_timeout: 0, runs: 1, repeats: 1}
  cloud_infer: {batch_size: 32, runs: 1, repeats: 1}
END
rm -rf "$folder/fleet" "$folder"/edge-*
mosquitto -c "$folder/broker.conf" >/dev/null 2>&1 &
pid[broker]=$!
start_cloud --mode full_pipeline
cloud_http=$http
patience=600 get /events >"$folder/stream" &
pid[stream]=$!
run() { # NAME OPTION ...
    "$FEDSTILL" "${1%-*}" "$task" --id "$1" "${link[@]}" --output "$folder/$1" "${@:2}" >/dev/null 2>"$folder/err.$1" </dev/null &
    pid[$1]=$!
}
value() { "$FEDSTILL_HELPER" json "$folder/state" "$1" 2>/dev/null; }
# hear NAME TOPIC: from now on the payloads there are in $folder/heard.NAME, a line each, in hexadecimal.
hear() {
    mosquitto_sub -h 127.0.0.1 -p "$port" -t "$2" -t "test/$1" -F %x >"$folder/heard.$1" 2>/dev/null &
    pid[heard-$1]=$!
    for ((i = 0; i < 600 && $(lines_of . "$folder/heard.$1") == 0; i++)); do
        mosquitto_pub -h 127.0.0.1 -p "$port" -t "test/$1" -m listening
        sleep 0.05
    done
}
await_heard() { # NAME PATTERN COUNT
    for ((i = 0; i < 1200 && $(lines_of "$2" "$folder/heard.$1") < $3; i++)); do sleep 0.05; done
    true_that "$1 is heard" test "$(lines_of "$2" "$folder/heard.$1")" -ge "$3"
}
# queued PID: the bytes that wait for it in its sockets
queued() {
    local sockets queues inode sum=0
    sockets=" $(find "/proc/$1/fd" -lname 'socket:*' -printf '%l ' | tr -d '[]a-z:')"
    while read -r _ _ _ _ queues _ _ _ _ inode _; do
        case $sockets in *" $inode "*) sum=$((sum + 16#${queues#*:})) ;; esac
    done </proc/net/tcp
    echo $sum
}
welcome=^4653543109 hello=^4653543101 # FST1 and the kind
run edge-2
hear call fst/a/device-1/ctl
run edge-1 --http 0
await_page edge-1
edge_http=$http
# Its devices need not wait until they say hello again: an edge calls them when it connects.
await_heard call $welcome 1
# It computes all that is there, and not what one message brought: what came while it stood still is one batch.
for ((i = 0; i < 6000; i++)); do
    get /state >"$folder/state"
    [ "$(value decides.batch)" != 16 ] || break
    sleep 0.05
done
hear class fst/a/device-1/class
head -c 64 /dev/zero >"$folder/window"
kill -STOP "${pid[edge-1]}"
bare=12
mosquitto_pub -h 127.0.0.1 -p "$port" -t fst/q/edge-1/device-1/raw -f "$folder/window" --repeat $bare --repeat-delay 0
for ((i = 0; i < 1200 && $(queued "${pid[edge-1]}") < bare * (64 + 25); i++)); do sleep 0.05; done # and their topic
kill -CONT "${pid[edge-1]}"
await_heard class ^7b22 $bare
for ((i = 0; i < 600; i++)); do # what is seen is some tenths of a second old
    get /metrics >"$folder/metrics"
    [ $(($(metric 'fedstill_windows_total{tier="edge"}') + $(metric 'fedstill_windows_total{tier="cloud"}'))) -lt $bare ] || break
    sleep 0.05
done
same "windows that came one a message are one batch" "$(metric fedstill_batches_total)" 1

run device-1
for ((i = 0; i < 6000; i++)); do
    get /metrics >"$folder/metrics"
    [ "$(metric 'fedstill_devices{state="done"}') $(metric 'fedstill_phase{phase="keep"}')" != "1 1" ] || break
    sleep 0.05
done
windows=$(sed -n 's/.*: \([0-9]*\) windows answered.*/\1/p' "$folder/err.device-1")
here=$(metric 'fedstill_windows_total{tier="edge"}') there=$(metric 'fedstill_windows_total{tier="cloud"}')
well_formed
true_that "the edge answered some, and the cloud some ($here, $there)" test "$here" -gt 0 -a "$there" -gt 0
all=$((windows + bare))
same "answers, all together" $((here + there)) $all
same "windows that were received" "$(metric fedstill_windows_received_total)" $all
same "... decided" "$(metric fedstill_windows_decided_total)" $all
same "... sent on" "$(metric fedstill_windows_offloaded_total)" "$there"
same "... their share" "$(metric fedstill_offload_ratio | awk '{ printf "%.9f", $1 }')" \
    "$(awk -v a="$there" -v b=$all 'BEGIN { printf "%.9f", a / b }')"
same "nothing waits" "$(metric fedstill_windows_waiting) $(metric fedstill_windows_away)" "0 0"
for tier in edge:$here cloud:$there; do
    same "latencies of answers by the ${tier%:*}" "$(metric "fedstill_latency_seconds_count{tier=\"${tier%:*}\"}")" "${tier#*:}"
    same "... in the last bucket" "$(metric "fedstill_latency_seconds_bucket{tier=\"${tier%:*}\",le=\"+Inf\"}")" "${tier#*:}"
done
same "who it is" "$(metric 'fedstill_info{tier="edge",id="edge-1"}')" 1
same "rounds that it worked on, this one too" "$(metric fedstill_rounds_total)" 2
true_that "bytes of devices: their windows at least" test "$(metric 'fedstill_bytes_total{dir="up",kind="devices"}')" -gt $((windows * 64))
get /state >"$folder/state"
same "its device" "$(value devices.0.id) $(value devices.0.state) $(value devices.0.answered)" "device-1 done $windows"
same "it is an edge" "$(value tier) $(value id)" "edge edge-1"
true_that "half of the answers come no later than 99 of 100" \
    awk -v a="$(value cascade.p50)" -v b="$(value cascade.p99)" 'BEGIN { exit !(a > 0 && a <= b) }'
true_that "what came of its round is told" grep -q 'the cloud has the update' "$folder/state"
same "another name that leads to the edge" "$(code GET /state "Host: evil.example")" 403
same "nothing can be changed there" "$(code POST /metrics "$here_host")" 405
[ -z "${FEDSTILL_BROWSER:-}" ] || . "$(dirname "$0")/browser.sh" edge
# A device that is called says hello at once, also where it would say it no more.
hear hello fst/q/edge-1/device-1/ctl
printf "$(grep -m 1 $welcome "$folder/heard.call" | sed 's/../\\x&/g')" >"$folder/call"
mosquitto_pub -h 127.0.0.1 -p "$port" -t fst/a/device-1/ctl -f "$folder/call"
await_heard hello $hello 1

# ---- the same at the cloud
http=$cloud_http
get /metrics >"$folder/metrics"
well_formed
same "windows that the cloud answered" "$(metric 'fedstill_windows_total{tier="cloud"}')" "$there"
same "... that it was sent" "$(metric fedstill_windows_received_total)" "$there"
same "... and how long that took" "$(metric 'fedstill_latency_seconds_count{tier="cloud"}')" "$there"
same "... of how many that its edges decided" "$(metric fedstill_windows_decided_total)" $all
same "... so that the share is the edge's" "$(metric fedstill_offload_ratio | awk '{ printf "%.9f", $1 }')" \
    "$(awk -v a="$there" -v b=$all 'BEGIN { printf "%.9f", a / b }')"
true_that "batches: no more than windows" test "$(metric fedstill_batches_total)" -ge 1 -a "$(metric fedstill_batches_total)" -le "$there"

# ---- to the last window
http=$edge_http patience=600 get /events >"$folder/stream.edge" &
pid[stream.edge]=$!
run device-2
for name in stream stream.edge cloud edge-1 edge-2 device-1 device-2; do
    wait "${pid[$name]}"
    same "$name" $? 0
    unset "pid[$name]"
done
last_of() { grep -o "\"$1\":[0-9]*" "$2" | tail -1 | sed 's/.*://'; }
same "windows that the cloud answered, to the last" "$(last_of cloud "$folder/stream")" \
    "$(sed -n 's/.*cloud: \([0-9]*\) windows answered.*/\1/p' "$folder/err.cloud")"
same "windows that the edge answered, to the last" "$(last_of edge "$folder/stream.edge")" "$here"
finish
