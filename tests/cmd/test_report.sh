#!/bin/bash
# `fedstill report` and `fedstill data show` from outside: which run is meant, what the page and the pictures hold, what is
# refused. Needs $FEDSTILL, the program, and $FEDSTILL_HELPER.
set -u
: "${FEDSTILL:?the path of the program}" "${FEDSTILL_HELPER:?the path of task_helper}"
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
export FEDSTILL_HOME=$folder/home LC_ALL=C TERM=dumb COLUMNS=132
cd "$folder" || exit 1
failed=0 checks=0 last=

fail() {
    echo "FAILED: $last: $1"
    failed=$((failed + 1))
}
# expect STATUS ARGUMENT...: runs the program; its output is then in out and err.
expect() {
    local wanted=$1 got
    shift
    checks=$((checks + 1))
    "$FEDSTILL" "$@" >out 2>err </dev/null
    got=$?
    last="fedstill $*"
    [ $got -eq "$wanted" ] || { fail "exit status $got, wanted $wanted" && cat err; }
}
said() { # FILE TEXT
    checks=$((checks + 1))
    grep -qF -e "$2" "$1" || fail "\"$2\" is missing from $1"
}
not_said() {
    checks=$((checks + 1))
    ! grep -qF -e "$2" "$1" || fail "\"$2\" is in $1"
}
well_formed() {
    checks=$((checks + 1))
    "$FEDSTILL_HELPER" xml "$1" || fail "$1 is not well-formed"
}
begins() { # FILE HEX
    checks=$((checks + 1))
    [ "$(head -c $((${#2} / 2)) "$1" | od -An -tx1 | tr -d ' \n')" = "$2" ] || fail "$1 does not begin with $2"
}

# ---- a run

"$FEDSTILL_HELPER" data data 120 60 || exit 1
mkdir task
cat >task/task.yaml <<'END'
name: <b>tiny & co</b>
seed: 5
data: {source: idx, path: ../data, normalise: {mean: 0.2, std: 0.3}}
clients: {count: 3}
stages:
  edge_kd:         {model: mnist_student, epochs: 2, batch_size: 32, kd_weight: 0, ce_weight: 1}
  federated_train: {rounds: 2, batch_size: 16}
END
expect 2 report task
said err "nothing has run there yet"
expect 0 run task --set data.limit=100

# ---- the page

expect 0 report task --evaluate
said out "task/output/report.html"
page=task/output/report.html
well_formed $page
not_said $page "<b>tiny"
said $page "<h1>&lt;b&gt;tiny &amp; co&lt;/b&gt;</h1>"
said $page "Answers of the student federated"
said $page "scope=\"row\">client 3</th>"
not_said $page "scope=\"row\">client 0</th>"
said $page "what --set changed."
said $page "limit: 100"
for step in edge_kd federated_train; do
    for key in accuracy loss seconds; do
        number=$("$FEDSTILL_HELPER" json task/output/summary.json stages.$step.$key)
        said $page "data-value=\"$(printf %.17g "$number")\""
    done
    said $page "<code>$("$FEDSTILL_HELPER" json task/output/summary.json stages.$step.model.digest)</code>"
done
not_said $page "Not the run&#39;s test samples"
# the confusion of the federated student has as many on its diagonal as its accuracy says
checks=$((checks + 1))
right=$(sed -n '/Answers of the student federated/,/<\/table>/p' $page | grep -o '<td class="hit"[^>]*>[0-9]*' |
    sed 's/.*>//' | awk '{ n += $1 } END { print n / 60 }')
awk -v a="$right" -v b="$("$FEDSTILL_HELPER" json task/output/summary.json stages.federated_train.accuracy)" \
    'BEGIN { exit !(a - b < 1e-5 && b - a < 1e-5) }' || fail "the confusion's diagonal is $right of the samples"

# ---- the tables as CSV

expect 0 report task --evaluate --csv some/csv
for table in models stages rounds epochs-edge_kd classes confusion-federated_train places-by-class resources; do
    checks=$((checks + 1))
    [ -s some/csv/$table.csv ] || fail "$table.csv is missing"
    # lines end with CR LF, and each has as many cells as the first
    checks=$((checks + 1))
    awk -F, 'NR == 1 { n = NF } NF != n || !/\r$/ { exit 1 }' some/csv/$table.csv || fail "$table.csv is no table"
done
checks=$((checks + 1))
awk -F, -v a="$("$FEDSTILL_HELPER" json task/output/summary.json stages.federated_train.accuracy)" \
    '$1 == "student federated" { found = $2 == a + 0 } END { exit !found }' some/csv/models.csv ||
    fail "models.csv has another accuracy than summary.json"
checks=$((checks + 1))
[ "$(find some/csv -type f ! -name '*.csv' | wc -l)" -eq 0 ] || fail "something else than tables is in some/csv"
expect 1 report task --csv some/csv/models.csv

# ---- which run is meant, and where the page goes

expect 0 report 1 --out - --no-data
well_formed out
cp out by-number
not_said out "client 3"
expect 0 report task/output -o page.html --no-data
said out page.html
well_formed page.html
expect 0 report "<b>tiny & co</b>" -o by-name.html --no-data
checks=$((checks + 1))
cmp -s by-name.html by-number || fail "the page by name is not the page by number"
expect 2 report 99
said err "no run"
expect 2 report nowhere
expect 2 report task --evaluate --no-data
expect 2 report
mkfifo pipe
expect 1 report task -o pipe
checks=$((checks + 1))
[ -p pipe ] || fail "the pipe is no pipe any more"
expect 1 report task -o missing/page.html
checks=$((checks + 1))
[ -z "$(find . -name '*.tmp*')" ] || fail "something is left over"

# ---- what is damaged or missing is told in the page

mv data gone
expect 0 report task -o page.html
well_formed page.html
said page.html "The data cannot be opened"
expect 2 report task -o page.html --evaluate
"$FEDSTILL_HELPER" data data 120 60 7
expect 0 report task -o page.html
said page.html "Not the run&#39;s test samples"
rm -r data
mv gone data
echo '{"task": ' >task/output/summary.json
expect 0 report task -o page.html
well_formed page.html
said page.html "summary.json cannot be used"
said page.html "Accuracy by round"
rm task/output/summary.json
mkdir task/output/cloud_infer
echo '{"accuracy": {"confusion": {"edge": [[1, 2]]}}, "curve": [{}]}' >task/output/cloud_infer/report.json
expect 0 report task -o page.html
well_formed page.html
said page.html "summary.json is missing"
said page.html "id=\"cascade\""
echo 'stages: {none: 1}' >task/task.yaml
rm task/output/task.yaml
expect 0 report task -o page.html
said page.html "file cannot be read"

# ---- data show

expect 0 data synth modulation --count 44 --out s.safetensors
for kind in png svg; do
    expect 0 data show s.safetensors --index 7 --out w.$kind
    expect 0 data show s.safetensors --sheet --per-class 2 --out sheet.$kind
    expect 0 data show data --split test --index 59 -o digit.$kind
done
for file in w sheet digit; do
    begins $file.png 89504e470d0a1a0a
    well_formed $file.svg
done
said sheet.svg ">BPSK</text>"
said digit.svg ">9, sample 59</text>"
expect 2 data show data --split test --index 60 --out x.png
said err "0 ... 59"
expect 2 data show data
expect 2 data show data --out x.gif
expect 2 data show data --out x.png --sheet --index 1
expect 1 data show nowhere --out x.png
checks=$((checks + 1))
[ ! -e x.png ] || fail "a failure left a picture"

echo "$checks checks, $failed failed"
[ $failed -eq 0 ]
