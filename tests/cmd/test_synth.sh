#!/bin/bash
# fedstill data synth from outside: files that other commands read, the same bytes for any number of threads, and mistakes
# that are named. Needs $FEDSTILL, the program.
set -u
: "${FEDSTILL:?the path of the program}"
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
export FEDSTILL_HOME=$folder/home LC_ALL=C TERM=dumb
cd "$folder" || exit 1
failed=0 checks=0

check() { # WHAT, then a command that must succeed
    local what=$1
    shift
    checks=$((checks + 1))
    "$@" || { echo "FAILED: $what" && failed=$((failed + 1)); }
}
synth() { "$FEDSTILL" data synth "$@" --quiet >out 2>err; }
# refused STATUS TEXT ARGUMENT...
refused() {
    local status=$1 text=$2 got
    shift 2
    synth "$@"
    got=$?
    check "data synth $*: status $got, wanted $status" [ $got -eq "$status" ]
    check "data synth $*: \"$text\" is missing in: $(cat err)" grep -qF -e "$text" err
    check "data synth $*: stdout is not empty" [ ! -s out ]
}

fails() { # TEXT COMMAND...: fails and says TEXT
    local text=$1
    shift
    ! "$@" >out 2>err && grep -qF -e "$text" err
}

for threads in 1 2 3; do
    check "threads $threads" synth link11 -o t$threads.safetensors -n 600 -t $threads --snr 0:20
done
check "two threads give other bytes" cmp -s t1.safetensors t2.safetensors
check "three threads give other bytes" cmp -s t1.safetensors t3.safetensors
check "summary" grep -qF "600 of 1024 samples in 150 bursts" out
"$FEDSTILL" data info t1.safetensors --json >info
check "data info reads it" grep -qF '"samples": 600' info
check "seven classes" grep -qF '"classes": 7' info

check "modulation to npz" synth modulation -o m.npz -n 88 --snr 10 --windows-per-burst 8
"$FEDSTILL" data info m.npz --json >info
check "eleven classes of eight" [ "$(tr -d ' \n' <info | grep -o '"counts":\[8,8,8,8,8,8,8,8,8,8,8\]' | wc -l)" -eq 1 ]

check "sigmf" synth link11 -o s.sigmf-meta -n 4 --classes P-8A_3,E-2D_1 --classes P-3C_2
check "sigmf data: 4 windows of 1024 pairs" [ "$(stat -c %s s.sigmf-data)" -eq 32768 ]
check "sigmf classes" grep -qF '"fedstill:classes":["P-8A_3","E-2D_1","P-3C_2"]' s.sigmf-meta

check "sigmf is read" "$FEDSTILL" data info s.sigmf-meta
cp s.sigmf-meta before
check "sigmf of another seed" synth link11 -o s.sigmf-meta -n 4 --classes P-8A_3,E-2D_1 --classes P-3C_2 --seed 7 --force
cp before s.sigmf-meta
check "old annotations beside new data are taken" fails "core:sha512" "$FEDSTILL" data info s.sigmf-meta

cp before s.sigmf-meta
sed -i 's/"core:label":"[^"]*"/"core:label":"\\u001b]0;owned\\u0007"/; s/,"core:sha512":"[0-9a-f]*"//' s.sigmf-meta
check "a label of control characters is told" fails "]0;owned" "$FEDSTILL" data info s.sigmf-meta
check "control characters reach the terminal" [ "$(tr -d -c '\033\007' <err | wc -c)" -eq 0 ]

echo '{"burst": {"window": 1020, "preamble": false}}' >p.json # the last sample may lie in the frame behind the stop code
check "a burst's last frame" synth link11 -o last.npz -n 2000 --params p.json

echo '{"burst": {"window": 256}}' >p.json
check "parameters" synth link11 -o p.safetensors -n 8 --params p.json
check "shorter windows" [ "$(stat -c %s p.safetensors)" -lt 20000 ]
printf '\xef\xbb\xbf%s' "$(cat p.json)" >marked.json # as editors on Windows begin a text
check "a byte order mark" synth link11 -o m.safetensors -n 8 --params marked.json
check "a byte order mark changes nothing" cmp p.safetensors m.safetensors
echo '{"burst": {"windows": 256}}' >p.json
refused 2 'p.json: link11 has no parameter "burst.windows"' link11 -o q.npz --params p.json

refused 2 "--out is needed" link11
refused 2 "no format has this ending" link11 -o x.npy
refused 2 "no kind of signals" qam -o x.npz
refused 2 "MIN:MAX" link11 -o x.npz --snr 20:10
refused 2 "MIN:MAX" link11 -o x.npz --snr 1:2:3
refused 2 'no class "FM"; it has E-2D_1' link11 -o x.npz --classes FM
refused 2 "twice" link11 -o x.npz --classes E-2D_1,E-2D_1
refused 2 "not the first window of a burst of 4" link11 -o x.npz --first 2
refused 1 "--force" link11 -o t1.safetensors
check "nothing is written on errors" [ ! -e x.npz ]
check "--force replaces" synth link11 -o t1.safetensors -n 8 --force
check "it was replaced" [ "$(stat -c %s t1.safetensors)" -lt 80000 ]

# Test windows behind the training windows are those that a longer file has there.
check "long" synth modulation -o long.sigmf -n 24 --seed 3
check "later" synth modulation -o later.sigmf -n 8 --first 16 --seed 3
check "later windows differ" cmp -s <(tail -c 65536 long.sigmf-data) later.sigmf-data

echo "$((checks - failed)) passed, $failed failed"
[ $failed -eq 0 ]
