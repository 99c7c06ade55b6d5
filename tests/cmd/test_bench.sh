#!/bin/bash
# fedstill bench: its JSON is JSON, says what the machine was doing, and leaves out what was not measured. How fast
# anything is, is not looked at.
set -u
. "$(dirname "$0")/common.sh"
: "${FEDSTILL_HELPER:?reads JSON}"

# member PATH REGEX: what the line has there.
member() {
    local got
    checks=$((checks + 1))
    got=$("$FEDSTILL_HELPER" json "$folder/out" "$1") || fail "no $1 in the JSON"
    [[ $got =~ $2 ]] || fail "$1 is $got, not $2"
}

expect 0 bench pfl_cifar --seconds 0.01 --threads 1 --json
member workload '^"?pfl_cifar"?$'
for name in samples_per_s step_ms kernel_ms peak_rss_bytes; do
    member $name '[1-9]'
done
member machine.cpus '^[1-9][0-9]*$'
member machine.backend '^"?(oneDNN |vectors of |plain loops)'
for name in load_before load_after; do
    member machine.$name '^([0-9]+(\.[0-9]+)?|null)$'
done
for name in idle steal; do
    member machine.$name '^([01](\.[0-9]+)?|null|[0-9.]+e-[0-9]+)$'
done

expect 0 bench pfl_cifar --seconds 0.01 --threads 1 --json --steps-only
member kernel_ms '^null$'
expect 0 bench pfl_cifar --seconds 0.01 --threads 1 --steps-only
unsaid out kernels

# A model file: inference with it, and the times of single calls.
model=$folder/model.safetensors
expect 0 model import "$FEDSTILL_SOURCE/tests/models/onnx-resnet8.onnx" --out "$model"
for batch in 1 20; do
    expect 0 bench "$model" --batch $batch --seconds 0.01 --threads 2 --json --steps-only
    for name in samples_per_s step_ms p50_ms p99_ms; do
        member $name '[1-9]'
    done
done
expect 0 bench pfl_cifar --seconds 0.01 --threads 1 --steps-only
unsaid out p99
expect 2 bench pfl_cifar --batch 5
said err 'has its own'

# Threads of kernels must not spin: the program runs with settings for that, unless the user has others.
environment_has() { # PATTERN VARIABLE=VALUE ...: of the running program, which is still known by its name
    local pattern=$1 i found= name= wanted
    shift
    wanted=$(basename "$FEDSTILL" | cut -c1-15)
    env -u OMP_WAIT_POLICY -u GOMP_SPINCOUNT "$@" "$FEDSTILL" bench pfl_cifar --seconds 60 --threads 1 --steps-only \
        >/dev/null 2>&1 &
    # It has the environment before it has set its name.
    for ((i = 0; i < 400; i++)); do
        sleep 0.05
        found=$(tr '\0' '\n' 2>/dev/null <"/proc/$!/environ" | grep -x "$pattern")
        name=$(cat "/proc/$!/comm")
        [ -z "$found" ] || [ "$name" != "$wanted" ] || break
    done
    kill $!
    wait $! 2>/dev/null
    checks=$((checks + 2))
    [ -n "$found" ] || fail "the program's environment has no $pattern"
    [ "$name" = "$wanted" ] || fail "the process is called $name"
}
environment_has OMP_WAIT_POLICY=passive FEDSTILL_UNUSED=1
environment_has OMP_WAIT_POLICY=active OMP_WAIT_POLICY=active

# What starts once more is the same program with the same arguments, files and exit status, wherever it lies.
again() { # STATUS COMMAND...: without settings for threads
    local wanted=$1 got
    shift
    checks=$((checks + 1))
    last=$*
    env -u OMP_WAIT_POLICY -u GOMP_SPINCOUNT "$@" >"$folder/out" 2>"$folder/err" </dev/null
    got=$?
    [ $got -eq "$wanted" ] || { fail "exit status $got, wanted $wanted" && cat "$folder/err"; }
}
again 2 "$FEDSTILL" bench "no such network"
said err '"no such network"'
again 1 "$FEDSTILL" predict "$folder/a  b.safetensors" -
said err "$folder/a  b.safetensors"
again 0 bash -c 'exec <&-; exec "$0" bench pfl_cifar --seconds 0.01 --threads 1 --steps-only' "$FEDSTILL"
# by the dynamic linker, which /proc/self/exe then is
linker=$(readelf -l "$FEDSTILL" 2>/dev/null | sed -n 's/.*interpreter: \(.*\)]$/\1/p')
[ -z "$linker" ] || again 0 "$linker" "$FEDSTILL" bench pfl_cifar --seconds 0.01 --threads 1 --steps-only

# The script that measures beside a spinning process.
script=$FEDSTILL_SOURCE/bench/under-load
if ! bash "$script" --help | grep -q -- '--goal R'; then
    fail "$script --help does not explain itself"
fi
if bash "$script" --program "$folder/none" 2>"$folder/err"; then
    fail "$script runs without a program"
fi
said err "is not there"

echo "$((checks - failed)) passed, $failed failed"
[ $failed -eq 0 ]
