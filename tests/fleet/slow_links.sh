#!/bin/bash
# Real links: a namespace for the hub and one for each of two sites, 64 Mbit/s between them (tc tbf), a model of 69 MB. It
# takes as long as the link needs and no time-out ends it; a site, and the cloud, that are killed while a message is on its way
# go on with what is there; a link that is cut for a while is no end either. Part of `make check-full` alone (ctest -C full):
# it needs root, ip and tc, and three minutes. Needs $FEDSTILL, $FEDSTILL_HELPER and mosquitto.
# shellcheck source=tests/fleet/common.sh
. "$(dirname "$0")/common.sh"
true_that "this test must be run by root" [ "$(id -u)" -eq 0 ] || finish
true_that "ip and tc are installed (iproute2)" command -v ip tc >/dev/null || finish
tag=fst$$
remove_links() {
    for name in hub 1 2; do ip netns del $tag-$name 2>/dev/null; done
}
trap 'clean_up; remove_links' EXIT

# ---- the links
for name in hub 1 2; do
    ip netns add $tag-$name && ip -n $tag-$name link set lo up || { fail "no namespaces here" && finish; }
done
rate=64mbit
shape() { tc -n "$1" qdisc replace dev "$2" root tbf rate $rate burst 64kb latency 200ms; }
for k in 1 2; do
    ip link add a$k netns $tag-hub type veth peer name b$k netns $tag-$k &&
        ip -n $tag-hub address add 10.77.$k.1/24 dev a$k && ip -n $tag-$k address add 10.77.$k.2/24 dev b$k &&
        ip -n $tag-hub link set a$k up && ip -n $tag-$k link set b$k up && shape $tag-hub a$k && shape $tag-$k b$k ||
        { fail "no link for site $k" && finish; }
done
at() { # PLACE COMMAND...
    local place=$1
    shift
    ip netns exec "$tag-$place" "$@"
}
received() { # PLACE DEVICE: bytes
    at "$1" cat "/sys/class/net/$2/statistics/rx_bytes"
}

# ---- the task: one linear layer, so that it is large and soon trained
task=$folder/task
mkdir "$task" && "$FEDSTILL_HELPER" data "$folder/data" 90 20 || exit 1
cat >"$task/task.yaml" <<END
name: slow
seed: 5
data: {source: idx, path: $folder/data, classes: 22000}
topology: {edges: 2, cloud_share: 0.2, alpha: 1}
stages:
  federated_train: {model: logistic_regression, init: random, rounds: 1, batch_size: 32,
                    optimizer: {name: sgd, learning_rate: 0.02}}
END
expect 0 run "$task" --output "$folder/one" --no-reuse
want=$(sha256sum <"$folder/one/federated_train/model.safetensors")
size=$(stat -c %s "$folder/one/federated_train/model.safetensors")
true_that "a model of $size bytes is too small for this test" test "$size" -gt $((65 << 20))

printf 'listener 1883 0.0.0.0\nallow_anonymous true\nmax_packet_size 1050000\n' >"$folder/broker.conf"
run_as broker ip netns exec $tag-hub mosquitto -c "$folder/broker.conf"
start() { # cloud | edge-K
    case $1 in
    cloud) run_as cloud ip netns exec $tag-hub "$FEDSTILL" cloud "$task" --connect mqtt://127.0.0.1 --plain-text \
        --output "$folder/fleet" --no-reuse ;;
    *) run_as "$1" ip netns exec "$tag-${1#edge-}" "$FEDSTILL" edge "$task" --id "$1" --plain-text \
        --connect "mqtt://10.77.${1#edge-}.1" --output "$folder/$1" ;;
    esac
}
kill_it() {
    kill -9 "${pid[$1]}"
    wait "${pid[$1]}" 2>/dev/null
}
begin() {
    rm -rf "$folder/fleet" "$folder"/edge-* "$folder"/err.*
    for name in cloud edge-1 edge-2; do start $name; done
}
all_end() {
    for name in cloud edge-1 edge-2; do ended $name 0; done
    same "$1: the model" "$(sha256sum <"$folder/fleet/federated_train/model.safetensors")" "$want"
}
grown() { # FILE BYTES: within a minute it has so many blocks on its disk
    local i
    for ((i = 0; i < 600; i++)); do
        [ -e "$1.have" ] && [ "$(tr -cd 1 <"$1.have" | wc -c)" -ge "$2" ] && return
        sleep 0.1
    done
    fail "$1 does not grow"
}

# ---- undisturbed: each link carries the model down and up once
before=$(received 1 b1)
begin
all_end "undisturbed"
down=$(($(received 1 b1) - before))
true_that "the model went down more than once: $down bytes" test $down -lt $((size * 11 / 10))
true_that "somebody was lost" test -z "$(grep -E 'is lost|started again' "$folder/err.cloud")"

# ---- a site is killed in the middle of the way down, the cloud in the middle of the way up
before=$(received 1 b1)
up=$(received hub a1)
begin
grown "$folder/edge-1/fleet/edge-1/base" 60 # of 132 parts
kill_it edge-1
start edge-1
grown "$folder/fleet/fleet/cloud/from-edge-1" 60
kill_it cloud
start cloud
all_end "killed"
down=$(($(received 1 b1) - before)) up=$(($(received hub a1) - up))
echo "a model of $size bytes: $down went down to a site that was killed, $up up to a cloud that was"
true_that "what a killed site had was sent again: $down bytes of $size" test $down -lt $((size * 5 / 4))
true_that "what a killed cloud had was sent again: $up bytes of $size" test $up -lt $((size * 5 / 4))

# ---- a link that is cut for eight seconds
begin
grown "$folder/edge-2/fleet/edge-2/base" 40
ip -n $tag-hub link set a2 down
sleep 8
ip -n $tag-hub link set a2 up
all_end "cut"
finish
