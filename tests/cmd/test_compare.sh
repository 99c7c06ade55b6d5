#!/bin/bash
# `fedstill compare` from outside: which runs are one method, what it says of them (compare.py reckons it again from the
# runs' files), every format, and what it refuses or names: runs that are not finished, there twice, or on other data.
# Needs $FEDSTILL, $FEDSTILL_HELPER and python3.
#   FEDSTILL_BROWSER    also opens the page in headless Chromium (needs it)
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/../task/common.sh"
here=$(cd "$(dirname "$0")" && pwd)
new_task 80 60
cd "$folder" || exit 1
task_file() { # DATA MORE
    printf 'name: %s\nseed: 1\ndata: {source: idx, path: %s, normalise: {mean: 0.1, std: 0.3}%s}\n%s\n' "$1" "$2" "$3" "$4" >"$task/task.yaml"
}
federated="clients: {count: 3}
stages:
  federated_train: {model: fedgen_mnist, init: random, rounds: 5, batch_size: 16, optimizer: {name: adam, learning_rate: 0.0006}}"
task_file small "$folder/data" "" "$federated"
play() { # OUTPUT SETTING...
    local output=$1
    shift
    settings_of "$@"
    expect 0 run "$task" --no-reuse --quiet --output "$output" "${sets[@]}"
}
f=stages.federated_train
for seed in 1 2 3; do
    play made/plain-$seed seed=$seed
    play made/slow-$seed seed=$seed $f.optimizer.learning_rate=0.0003
done
json() { "$FEDSTILL_HELPER" json "$folder/json" "$1"; }
compare_json() { # ARGUMENT...: also reckoned again
    expect 0 compare "$@" --format json
    cp "$folder/out" "$folder/json"
    python3 "$here/compare.py" "$folder/json" >"$folder/reckoned"
    same "$last: reckoned again" "$? $(cat "$folder/reckoned")" "0 $(tail -n 1 "$folder/reckoned")"
}

# ---- rows, and every figure again
compare_json made/slow-* made/plain-*
same "rows" "$(tail -n 1 "$folder/reckoned")" "2 rows, 6 runs, 1 differences"
same "what they are called" "$(json rows.0.method), $(json rows.1.method)" \
    "optimizer.learning_rate=0.0003, optimizer.learning_rate=0.0006"
same "pairs" "$(json differences.0.pairs)" 3
true_that "there are notes" grep -q '"notes": \[\]' "$folder/json"
compare_json made/plain-* made/slow-* --target 0.3 --target 0.95 --against 2
same "the reference" "$(json differences.0.row) against $(json differences.0.against)" "1 against 2"
same "the targets" "$(printf '%.6f %.6f' "$(json rows.0.targets.0.accuracy)" "$(json rows.0.targets.1.accuracy)")" "0.300000 0.950000"
compare_json made/plain-1 made/slow-1 --against optimizer.learning_rate=0.0003
same "one pair" "$(json differences.0.pairs) $(json differences.0.p_t)" "1 null"
said out "nothing can be said of chance"

# ---- formats
for width in 40 80; do
    COLUMNS=$width expect 0 compare made/*
    true_that "a line is longer than $width" awk -v most=$width 'length > most { exit 1 }' "$folder/out"
done
said out "on test"
said out "chosen by looking at"
said out "90 % of what row 1 had in its last"
expect 0 compare made/* --format markdown
said out "| row | method | seeds | accuracy, % |"
expect 0 compare made/* --format csv
same "lines of the table" "$(wc -l <"$folder/out")" 3
said out "row,method,seeds,accuracy [share]"
expect 0 compare made/* --format html --out page.html --csv tables
true_that "the page is not well-formed" "$FEDSTILL_HELPER" xml page.html
true_that "the page loads something" test -z "$(grep -oE '(src|href)="[^#d][^"]*"|url\(|@import' page.html)"
true_that "curves with bands over rounds and bytes" test "$(grep -c '<path class="band"' page.html)" -ge 4
true_that "points say what they are" grep -q '<title>1: optimizer.learning_rate=0.0006, round 2: ' page.html
same "tables" "$(cd tables && echo *)" "by_bytes.csv by_round.csv by_time.csv curves.csv differences.csv methods.csv runs.csv targets.csv"
same "runs in their table" "$(wc -l <tables/runs.csv)" 7

# ---- a sweep's folder, numbers of runs, the same run by two names
mkdir -p sweep && echo '{}' >sweep/sweep.json && cp -r made sweep/runs && mkdir sweep/runs/none
compare_json sweep
same "runs of the sweep" "$(tail -n 1 "$folder/reckoned")" "2 rows, 6 runs, 1 differences"
said err "1 runs of the sweep have not come to their end"
echo "{\"runs\": [{\"name\": \"plain-1\", \"status\": \"stopped\"}, {\"name\": \"plain-2\", \"status\": \"done\"}]}" \
    >sweep/sweep.json
compare_json sweep
same "runs of the sweep but for the one that was stopped" "$(tail -n 1 "$folder/reckoned")" "2 rows, 5 runs, 1 differences"
said err "2 runs of the sweep have not come to their end"
compare_json 1 2 made/plain-1
same "runs by number" "$(tail -n 1 "$folder/reckoned")" "2 rows, 2 runs, 1 differences"

# ---- more rounds later: the curve has all of them
cp -r made/plain-1 longer
settings_of seed=1 $f.rounds=7
expect 0 run "$task" --no-reuse --output longer "${sets[@]}"
said err "going on at round 6"
compare_json longer
same "rounds of a run that went on" "$(json rows.0.rounds.mean) $(json rows.0.runs.0.curve.6.round)" "7.0 7"
# and other settings, then back to the first: nothing is computed, and the events of the others do not count
play longer seed=1 $f.rounds=7 $f.batch_size=8
same "other rounds in between" "$(grep -c '"event": "round"' longer/events.jsonl)" 14
play longer seed=1 $f.rounds=7
mv json before
expect 0 compare longer --format json
same "what is said of it" "$(cat "$folder/out")" "$(cat before)"

# ---- what is named, and what is refused
cp -r made/plain-1 again
compare_json again made/plain-* made/slow-*
said out "have the same settings and seed: only the first counts"
same "a run that is there twice" "$(tail -n 1 "$folder/reckoned")" "2 rows, 6 runs, 1 differences"
cp -r made/plain-2 open && sed -i '/"event": "run"/d' open/events.jsonl
expect 2 compare open
said err "its last run has not come to its end"
compare_json open made/plain-1
same "a run that is left out" "$(tail -n 1 "$folder/reckoned")" "1 rows, 1 runs, 0 differences"
"$FEDSTILL_HELPER" data other 80 50
play elsewhere seed=1 data.path="$folder/other"
expect 0 compare made/plain-1 elsewhere
said out "OTHER TEST"
compare_json made/plain-* elsewhere --stage federated_train
same "pairs with other samples" "$(json differences.0.pairs) $(json differences.0.left_out) $(json rows.1.other_test_data)" "0 1 true"
mkdir empty
expect 2 compare made/plain-1 empty
expect 2 compare made/plain-1 --stage cloud_kd
said err "no finished stage cloud_kd"
expect 2 compare made/plain-1 --against 2
said err "there is no row \"2\""
for target in 1.5 0 x nan ""; do
    expect 2 compare made/plain-1 --target "$target"
done
expect 2 compare made/plain-1 --format pdf

# ---- the round that validation samples chose, and several stages of one run
printf 'name: chosen\nseed: 1\ndata: {source: idx, path: %s, validation: 0.2, normalise: {mean: 0.1, std: 0.3}}\n%s' "$folder/data" \
    "topology: {edges: 2, cloud_share: 0.3, alpha: 1}
stages:
  teacher: {kind: cloud_pretrain, model: fedgen_mnist, epochs: 2, batch_size: 16}
  short: {kind: federated_train, model: fedgen_mnist, init: random, rounds: 3, select: best, batch_size: 8}
  long: {kind: federated_train, model: fedgen_mnist, init: teacher, rounds: 4, select: best, batch_size: 8}
" >"$task/task.yaml"
play two
expect 0 compare two --stage short --stage long --stage teacher
unsaid out "chosen by looking at"
said out "the one that validation samples chose"
compare_json two --stage short --stage long
same "stages" "$(json rows.0.method) $(json rows.1.method)" "short long"
same "the best was chosen on validation" "$(json rows.0.runs.0.best_on_validation)" true
same "the stage kept it" "$(json rows.0.best_accuracy.mean)" "$(json rows.0.accuracy.mean)"
[ -z "${FEDSTILL_BROWSER:-}" ] || . "$here/compare_browser.sh"
finish
