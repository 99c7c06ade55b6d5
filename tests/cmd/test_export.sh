#!/bin/bash
# `fedstill export`: TensorBoard's event files, read back by tfevents.py, and CSV of everything, whose numbers are those of the
# run's own files. Rounds of other settings in the same folder, and rounds that were played again, are not in either.
# Needs $FEDSTILL, $FEDSTILL_HELPER and python3.
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/../task/common.sh"
here=$(cd "$(dirname "$0")" && pwd)
new_task 90 30
cd "$folder" || exit 1
cat >"$task/task.yaml" <<END
name: small
seed: 1
data: {source: idx, path: $folder/data, normalise: {mean: 0.1, std: 0.3}}
clients: {count: 3}
stages:
  teacher: {kind: cloud_pretrain, model: mnist_teacher, epochs: 1, batch_size: 64}
  plain: {kind: federated_train, model: fedgen_mnist, init: random, rounds: 3, batch_size: 16,
    fusion: {teacher: teacher, target: conv2.weight, source: fc2.weight, rank: 2, steps: 1}}
END
expect 0 run "$task" --no-reuse --output one
expect 2 export one
said err "--tensorboard DIR or --csv DIR"
expect 2 export nowhere --csv tables
expect 0 export one --tensorboard logs --csv tables
said out "logs/events.out.tfevents."
true_that "the event file agrees with the events" python3 "$here/tfevents.py" logs/* one >read
same "how many scalars" "$(cat read)" "$(sed -n 's/.*: \([0-9]* scalars\)$/\1/p' out)"
python3 "$here/tfevents.py" logs/* >scalars
for tag in "plain/test_accuracy 3" "plain/client 3/train_loss 2" "plain/fusion/gate 3" "teacher/accuracy 1" "resources/rss_bytes [0-9]*"; do # of resources the step is a second
    true_that "no $tag" grep -q "^$tag " scalars
done
cp logs/* before
expect 0 export one --tensorboard logs
same "a second export has the same name and bytes" "$(sha256sum <before) $(echo logs/* | wc -w)" "$(cat logs/* | sha256sum) 1"

# ---- CSV: every number of the events, where it belongs
same "tables" "$(cd tables && echo *)" "clients.csv ends.csv epochs.csv fusions.csv processes.csv resources.csv results.csv rounds.csv stages.csv states.csv"
cat >check.py <<'END'
import csv, json, sys
names = {"round": "rounds", "epoch": "epochs", "client": "clients", "fusion": "fusions", "resources": "resources", "result": "results",
         "stage": "states", "start": "processes", "run": "ends"}
events = [json.loads(l) for l in open("one/events.jsonl")]
cells = 0
for kind, name in names.items():
    rows = list(csv.DictReader(open(f"tables/{name}.csv", newline="")))
    mine = [e for e in events if e["event"] == kind]
    assert len(rows) == len(mine), name
    for row, e in zip(rows, mine):
        for key, value in row.items():
            v = e.get(key)
            if v is None:
                assert value == "", (name, key)
            elif isinstance(v, bool) or isinstance(v, str):
                assert value == (str(v).lower() if isinstance(v, bool) else v), (name, key)
            else:
                assert float(value) == v, (name, key, value, v)
            cells += 1
        assert set(e) - {"event"} <= set(row), name
stages = json.load(open("one/summary.json"))["stages"]
for row in csv.DictReader(open("tables/stages.csv", newline="")):
    s = stages.pop(row["stage"])
    assert float(row["accuracy"]) == s["accuracy"] and row["digest"] == s["model"]["digest"] and row["kind"] == s["kind"]
assert not stages
print(cells > 100)
END
same "CSV and events" "$(python3 check.py)" True

# ---- other settings before and behind: only what the folder shows
settings_of stages.plain.rounds=2 stages.plain.batch_size=8
expect 0 run "$task" --no-reuse --output one "${sets[@]}"
expect 0 export one --csv other
same "rounds of these settings" "$(sed 1d other/rounds.csv | wc -l)" 2
same "clients of them" "$(sed 1d other/clients.csv | wc -l)" 6
expect 0 run "$task" --no-reuse --output one
expect 0 export one --csv again
same "rounds of the first settings" "$(cat again/rounds.csv)" "$(cat tables/rounds.csv)"
same "clients of them" "$(cat again/clients.csv)" "$(cat tables/clients.csv)"

# ---- a folder where nothing has happened yet, and a damaged file
mkdir bare && echo '{}' >bare/summary.json
expect 2 export bare --tensorboard logs2
said err "no epochs, rounds or resources yet"
true_that "a folder was made" test ! -e logs2
printf 'no event\n{"time": "t", "run": 1, "stage": "s", "event": "stage", "state": "runs"}\n{"time": "t", "run": 1, "stage": "s", "event": "round", "round": 1, "test_accuracy": 1e300, "x\\u202e,y": 2}\n' >bare/events.jsonl
expect 0 export bare --csv odd --tensorboard logs3
same "a number beyond 32 bits is left out" "$(python3 "$here/tfevents.py" logs3/* | sed 's/.* 1 /1 /')" "1 2.0"
same "columns" "$(head -n 1 odd/rounds.csv | tr -d '\r')" 'time,run,stage,round,test_accuracy,"x?,y"'
finish
