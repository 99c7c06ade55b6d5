#!/bin/bash
# Figures of a federation count those that took part: an edge or client whose updates were all refused, or that no round
# drew, gave the model nothing. Needs $FEDSTILL, the program, and $FEDSTILL_HELPER, built from helper.c.
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/common.sh"
helper=$FEDSTILL_HELPER task=$folder/task output=$folder/task/output
mkdir -p "$task/cloud" || exit 1
data() { "$helper" named "$task/$1.safetensors" "$2" a,b,c "$3" "$4" || exit 1; } # NAME SAMPLES SCALE SEED
data cloud/train 45 1 1
data cloud/test 60 1 2
data edge1 12 1 3
data edge2 18 1e30 4 # finite, but its updates are not
data edge3 30 1 5
cat >"$task/task.yaml" <<END
name: lost
seed: 7
data: {source: array, path: cloud, edge_paths: [edge1.safetensors, edge2.safetensors, edge3.safetensors]}
topology: {edges: 3}
stages:
  cloud_pretrain:  {model: fedgen_mnist, epochs: 2, batch_size: 15, optimizer: {name: sgd, learning_rate: 0.05}}
  federated_train: {model: fedgen_mnist, init: cloud_pretrain, rounds: 3, local_epochs: 2, batch_size: 6,
                    optimizer: {name: sgd, learning_rate: 0.05}}
END
stage() { "$helper" json "$output/federated_train/stage.json" "$1"; }
summary() { "$helper" json "$output/summary.json" "stages.federated_train.$1"; }

# ---- an edge that never finished a round; the file of an earlier run does not stand for it
mkdir -p "$output/federated_train" && echo old >"$output/federated_train/edge_2_model.safetensors"
expect 0 run "$task"
said err "round 1: edge 2 was lost"
said err "round 3: edge 2 was lost"
said err "nothing of edge 2 entered the model"
unsaid err "client"
unsaid err "round 0"
same "samples" "$(summary samples)" 42
same "samples of the record" "$(stage samples)" 42
for key in accuracy own_accuracy model digest; do
    same "$key of edge 2" "$(summary edges.1.$key)" null
done
same "rounds of the edges" "$(summary edges.0.rounds) $(summary edges.1.rounds) $(summary edges.2.rounds)" "3 0 3"
same "edge numbers" "$(stage edges.0.edge) $(stage edges.2.edge)" "1 3"
same "the model of edge 3" "$(summary edges.2.model)" edge_3_model.safetensors
true_that "edge 2 has a model" [ ! -e "$output/federated_train/edge_2_model.safetensors" ]
true_that "edge 3 has none" [ -s "$output/federated_train/edge_3_model.safetensors" ]
tr -d ' ' <"$output/events.jsonl" | grep '"event":"client_lost"' | head -n 1 >"$folder/event"
true_that "no such event: $(cat "$folder/event")" grep -q '"round":1,"edge":2,' "$folder/event"
# ---- every edge of every round, with what it did
tr -d ' ' <"$output/events.jsonl" | grep '"event":"client",' >"$folder/clients"
same "events of clients" "$(wc -l <"$folder/clients")" 9
for edge in "1 12" "3 30"; do
    same "events of edge ${edge% *}" "$(grep -c "\"edge\":${edge% *},\"reported\":true,\"samples\":${edge#* },\"train_loss\":[0-9.]*,\"seconds\":[0-9.e-]*,\"bytes_up\":[1-9][0-9]*,\"bytes_down\":[1-9][0-9]*,\"raw_bytes_up\":[1-9][0-9]*,\"raw_bytes_down\":[1-9][0-9]*}" "$folder/clients")" 3
done
same "events of edge 2" "$(grep -c '"edge":2,"reported":false,"samples":18,.*"reason":"..*"}' "$folder/clients")" 3
same "reasons" "$(grep -c reason "$folder/clients")" 3
same "rounds of the events" "$(sed 's/.*"round":\([0-9]*\).*/\1/' "$folder/clients" | tr -d '\n')" 111222333
total() { tr -d ' ' <"$folder/$1" | sed -n "s/.*\"round\":1,.*\"$2\":\([0-9]*\).*/\1/p" | awk '{ n += $1 } END { print n }'; }
grep -E '"event": ?"round"' "$output/events.jsonl" >"$folder/rounds"
for way in up down; do
    same "bytes $way of round 1" "$(total clients bytes_$way)" "$(total rounds bytes_$way)"
done
checks=$((checks + 1))
grep -q 'edge 2, local  *-  *-' "$folder/out" || fail "the table gives edge 2 an accuracy: $(cat "$folder/out")"
said out "edge 2 did not take part"
expect 0 run "$task"
ran

# ---- too few for a quorum: who, and when
expect 1 run "$task" --set stages.federated_train.quorum=3
said err "round 1: 2 updates, the quorum is 3; 1 edge failed, edge 2:"
unsaid err "client"

# ---- lost in the first round only, whose learning rate is too large for it: it took part in the others
expect 0 run "$task" --set output=partly --set stages.federated_train.model=logistic_regression \
    --set stages.federated_train.init=random --set stages.federated_train.schedule.name=multistep \
    --set stages.federated_train.schedule.milestones=1 --set stages.federated_train.schedule.gamma=1e-36
output=$task/partly
said err "round 1: edge 2 was lost"
unsaid err "round 2: edge 2"
unsaid err "nothing of edge 2"
same "samples, edge 2 among them" "$(summary samples)" 60
same "rounds of the edges" "$(summary edges.0.rounds) $(summary edges.1.rounds) $(summary edges.2.rounds)" "3 2 3"
same "the model of edge 2" "$(summary edges.1.model)" edge_2_model.safetensors
true_that "edge 2 has no model" [ -s "$output/federated_train/edge_2_model.safetensors" ]
tr -d ' ' <"$output/events.jsonl" | grep '"event":"client",.*"edge":2' | sed 's/.*"round":\([0-9]\).*"reported":\([a-z]*\).*/\1\2/' >"$folder/edge2"
same "what edge 2 reported" "$(tr '\n' ' ' <"$folder/edge2")" "1false 2true 3true "

# ---- a run that is stopped and goes on counts the rounds before the stop too
cut=$folder/cut
cp -r "$task" "$cut" && rm -rf "$cut/output"
sed -i 's/rounds: 3/rounds: 40/; s/^stages/checkpoint: {steps: 1}\n&/' "$cut/task.yaml"
"$FEDSTILL" run "$cut" >"$folder/out" 2>"$folder/err" &
pid=$!
for _ in $(seq 600); do
    tr -d " " 2>/dev/null <"$cut/output/events.jsonl" | grep -q "\"event\":\"round\"" && break
    sleep 0.02
done
kill -INT $pid 2>/dev/null
wait $pid
expect 0 run "$cut"
output=$cut/output
same "rounds of a run that was stopped" "$(summary edges.0.rounds) $(summary edges.1.rounds)" "40 0"
same "samples of a run that was stopped" "$(summary samples)" 42

# ---- clients that no round drew, and one whose samples diverge
cat >"$task/drawn.yaml" <<END
name: drawn
seed: 7
output: drawn
data: {source: array, path: cloud}
clients: {count: 9}
stages:
  cloud_pretrain:  {model: fedgen_mnist, epochs: 1, batch_size: 15}
  federated_train: {model: fedgen_mnist, init: cloud_pretrain, rounds: 1, clients_per_round: 4, batch_size: 5}
END
expect 0 run "$task/drawn.yaml"
said err "nothing of 5 of 9 clients entered the model"
same "samples of the clients drawn" "$("$helper" json "$task/drawn/summary.json" stages.federated_train.samples)" 20
finish
