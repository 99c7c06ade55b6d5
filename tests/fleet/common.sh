# shellcheck shell=bash
# What the scripts of this folder share: a broker in plain text on a port of its own, and processes with names. Sourced
# after nothing else; needs $FEDSTILL, $FEDSTILL_HELPER and mosquitto.
# shellcheck source=tests/task/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../task/common.sh"
declare -A pid=()
clean_up() {
    for p in "${pid[@]}"; do kill -9 "$p" 2>/dev/null; done
    wait 2>/dev/null
    rm -rf "$folder"
}
command -v mosquitto >/dev/null || PATH=$PATH:/usr/sbin
true_that "mosquitto is installed" command -v mosquitto >/dev/null || finish

# ended NAME STATUS: it ends within five minutes, with that status.
ended() {
    local status i
    for ((i = 0; i < 3000; i++)); do
        kill -0 "${pid[$1]}" 2>/dev/null || break
        sleep 0.1
    done
    kill -9 "${pid[$1]}" 2>/dev/null && fail "$1 does not end"
    wait "${pid[$1]}" 2>/dev/null
    status=$?
    checks=$((checks + 1))
    [ $status -eq "$2" ] || { fail "$1: exit status $status, wanted $2" && tail -n 20 "$folder/err.$1"; }
    unset "pid[$1]"
}

# awaited FILE TEXT: within a minute the text stands there.
awaited() {
    local i
    for ((i = 0; i < 600; i++)); do
        grep -qF -e "$2" "$1" 2>/dev/null && return
        sleep 0.1
    done
    fail "\"$2\" is not said in $1" && tail -n 20 "$1"
}

# shellcheck disable=SC2034 # the scripts use it
port=$("$FEDSTILL_HELPER" port) || exit 1
printf 'listener %d 127.0.0.1\nallow_anonymous true\nmax_packet_size 1050000\n' "$port" >"$folder/broker.conf"
link=(--connect "mqtt://127.0.0.1:$port" --plain-text)
start_broker() {
    mosquitto -c "$folder/broker.conf" >/dev/null 2>&1 &
    pid[broker]=$!
}
# run_as NAME COMMAND...: in the background; its output is in out.NAME and err.NAME.
run_as() {
    local name=$1
    shift
    "$@" >"$folder/out.$name" 2>>"$folder/err.$name" </dev/null &
    pid[$name]=$!
}
# hub_with SITES: a hub with certificates, for mosquitto -c "$keys/hub.conf" on port $hub, and edge-1 ... enrolled, whose keys
# are in $folder/keys-K.
hub_with() {
    local k
    hub=$("$FEDSTILL_HELPER" port)
    keys=$folder/keys
    expect 0 fleet init "$keys" --host 127.0.0.1 --port "$hub"
    for ((k = 1; k <= $1; k++)); do
        expect 0 fleet request edge-$k --dir "$folder/keys-$k"
        expect 0 fleet enroll "$keys" "$folder/keys-$k/edge-$k.csr" --yes
        expect 0 fleet install "$keys/edge-$k.fleet" --dir "$folder/keys-$k"
    done
}
