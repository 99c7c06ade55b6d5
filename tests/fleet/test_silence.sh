#!/bin/bash
# Somebody who connects and then says nothing, or stops in the handshake of TLS: at the broker, at the cloud's page, and in the
# broker's place. Nobody else waits for him, every wait has a limit and says what for, and the run ends with the bits of one
# process. Needs $FEDSTILL, $FEDSTILL_HELPER, mosquitto and python3.
# shellcheck source=tests/fleet/common.sh
. "$(dirname "$0")/common.sh"
python=/usr/bin/python3
true_that "python3 is installed" "$python" -c '' || finish
sites=2
named_task 120 40
cat >"$task/task.yaml" <<END
name: silence
seed: 5
data: {source: array, path: data, validation: 0.1}
topology: {edges: $sites, cloud_share: 0.3, alpha: 1}
stages:
  federated_train: {model: fedgen_mnist, strategy: scaffold, init: random, rounds: 3, batch_size: 8,
                    optimizer: {name: sgd, learning_rate: 0.02}}
END
expect 0 run "$task" --output "$folder/one" --no-reuse
models() { (cd "$1" && sha256sum federated_train/*.safetensors); }

# ---- keys, and a broker with certificates
hub_with $sites
everybody() {
    run_as cloud "$FEDSTILL" cloud "$task" --credentials "$keys" --output "$folder/fleet" --no-reuse --http 0
    for ((k = 1; k <= sites; k++)); do
        run_as edge-$k "$FEDSTILL" edge "$task" --id edge-$k --credentials "$folder/keys-$k" --output "$folder/edge-$k"
    done
}

# ---- in the broker's place somebody who takes connections and says nothing: what the others began he never answers
cat >"$folder/mute.py" <<'END'
import socket, sys
s = socket.create_server(("127.0.0.1", int(sys.argv[1])))
held = []
while True:
    held.append(s.accept()[0])
END
run_as mute "$python" "$folder/mute.py" "$hub"
everybody
for name in cloud edge-1 edge-2; do awaited "$folder/err.$name" "127.0.0.1:$hub: no answer within 5 s"; done
kill "${pid[mute]}"
wait "${pid[mute]}" 2>/dev/null
unset "pid[mute]"

# ---- a crowd that opens connections and says nothing, or the beginning of something: first at the page, which answers others
# ---- all the same, then at the broker as soon as there is one
awaited "$folder/err.cloud" "page: http:"
page=$(sed -n 's/.*page: http:[^ ]*:\([0-9]*\)\/ .*/\1/p' "$folder/err.cloud")
cat >"$folder/crowd.py" <<'END'
import socket, sys, time
held = []
def connect(port):
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except OSError:
            time.sleep(0.05)
for i in range(10):
    held.append(connect(int(sys.argv[1])))
    if i % 2:
        held[-1].sendall(b"GET /state HTTP/1.1\r\nHost:")
print("page", flush=True)
for i in range(60):
    held.append(connect(int(sys.argv[2])))
    if i % 3 == 1:
        held[-1].sendall(bytes.fromhex("160301020001000201fc0303"))  # a ClientHello of 512 bytes that ends here
    if i % 3 == 2:
        held[-1].sendall(b"\x10\x7f\x00\x04MQTT")
print("broker", flush=True)
time.sleep(3600)
END
run_as crowd "$python" "$folder/crowd.py" "$page" "$hub"
awaited "$folder/out.crowd" "page"
exec 9<>"/dev/tcp/127.0.0.1/$page"
printf 'GET /state HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n' >&9
first=$(timeout 60 head -n 1 <&9)
exec 9>&-
same "the page beside silent clients" "${first:0:12}" "HTTP/1.1 200"
mosquitto -c "$keys/hub.conf" >/dev/null 2>&1 &
pid[broker]=$!
awaited "$folder/out.crowd" "broker"
for name in cloud edge-1 edge-2; do ended $name 0; done
true_that "the crowd is still there" kill -0 "${pid[crowd]}"
same "models" "$(models "$folder/fleet")" "$(models "$folder/one")"
finish
