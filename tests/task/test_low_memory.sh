#!/bin/bash
# A run and a measurement under every limit on the address space, from one that lets the program begin to one that is
# plenty: it ends well or says what it lacks; nothing ends it by a signal. oneDNN makes code without looking whether it got
# memory for it, and threads that end want memory too. Sanitizers need a vast address space: there the sweep is one
# run without a limit.
# Needs $FEDSTILL, the program, and $FEDSTILL_HELPER, built from helper.c.
#   FEDSTILL_MEMORY_STEP  kilobytes from one limit to the next (default 23000)
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/common.sh"
step=${FEDSTILL_MEMORY_STEP:-23000}

new_task 64 32
cat >"$task/task.yaml" <<END
name: low
seed: 7
data: {source: idx, path: $folder/data}
clients: {count: 2, partition: iid}
stages:
  cloud_pretrain:  {model: mnist_teacher, epochs: 1, batch_size: 32}
  cloud_kd:        {temperature: 4.0}
  edge_kd:         {model: mnist_student, epochs: 1, batch_size: 32}
  federated_train: {rounds: 1, batch_size: 16, init: edge_kd}
END
ends() { # LIMIT ARGUMENT...: $status is 0, or 1 with a reason
    local limit=$1
    shift
    checks=$((checks + 1))
    (ulimit -c 0 && ulimit -v "$limit" && exec "$FEDSTILL" "$@") >"$folder/out" 2>"$folder/err" </dev/null
    status=$?
    { [ $status -eq 0 ] || { [ $status -eq 1 ] && [ -s "$folder/err" ]; }; } && return
    fail "fedstill $* with ulimit -v $limit: exit status $status"
    tail -n 3 "$folder/err"
}
sweep() { # ARGUMENT...: some limits are too low, and some are enough
    local limit good=0 bad=0
    for ((limit = first; limit < 420000; limit += step)); do
        ends "$limit" "$@"
        [ $status -eq 0 ] && good=$((good + 1)) || bad=$((bad + 1))
    done
    echo "fedstill $*: $bad limits were too low, $good enough"
    true_that "fedstill $*: no limit is too low, or none enough" [ $((good * bad)) -gt 0 ]
}

run=(run "$task" -q --no-reuse --fresh --threads 2 --workers 2)
if ! ldd "$FEDSTILL" | grep -q 'libasan\|libtsan' && ! nm "$FEDSTILL" 2>/dev/null | grep -q '__asan_init\|__tsan_init'; then
    # the lowest limit with which it begins at all
    first=60000
    until (ulimit -v $first && exec "$FEDSTILL" --version) >/dev/null 2>&1; do
        first=$((first + 1000))
    done
    sweep "${run[@]}"
    sweep bench mnist_teacher --threads 2 --seconds 0.01 --steps-only
fi
expect 0 "${run[@]}"
finish
