# shellcheck shell=bash
# What the scripts of this folder share: a scratch folder, counted checks, a small task. Sourced, not run.
set -u
: "${FEDSTILL:?the path of the program}" "${FEDSTILL_HELPER:?the path of task_helper}"
folder=$(mktemp -d) || exit 1
trap 'clean_up' EXIT
export FEDSTILL_HOME=$folder/home LC_ALL=C TERM=dumb
unset FEDSTILL_DATA
failed=0 checks=0 last=""

# A script that mounts or starts something adds to it.
clean_up() { rm -rf "$folder"; }

fail() {
    failed=$((failed + 1))
    echo "FAILED: $*"
}

# expect STATUS ARGUMENT...: runs the program; its output is then in $folder/out and $folder/err.
expect() {
    local wanted=$1 got
    shift
    checks=$((checks + 1))
    last="fedstill $*"
    "$FEDSTILL" "$@" >"$folder/out" 2>"$folder/err" </dev/null
    got=$?
    if [ $got -ne "$wanted" ]; then
        fail "$last: exit status $got, wanted $wanted"
        tail -n 20 "$folder/err"
        return 1
    fi
}

# figure PATH: what the JSON that the program printed last has there.
figure() { "$FEDSTILL_HELPER" json "$folder/out" "$1"; }

# new_task TRAIN TEST: $task, a folder for a task.yaml, and $folder/data, so many samples in the form of MNIST's files.
new_task() {
    task=$folder/task
    mkdir "$task" && "$FEDSTILL_HELPER" data "$folder/data" "$1" "$2" || exit 1
}

# named_task TRAIN TEST: $task, a folder for a task.yaml, with a folder data of so many samples of the classes a, b, c.
named_task() {
    task=$folder/task
    mkdir -p "$task/data" && "$FEDSTILL_HELPER" named "$task/data/train.safetensors" "$1" a,b,c 1 1 &&
        "$FEDSTILL_HELPER" named "$task/data/test.safetensors" "$2" a,b,c 1 2 || exit 1
}

# settings_of SETTING...: $sets becomes the options that give a run these settings.
settings_of() {
    sets=()
    for setting; do sets+=(--set "$setting"); done
}

# said out|err TEXT, unsaid out|err TEXT: the last run wrote TEXT there, or did not.
said() {
    checks=$((checks + 1))
    grep -qF -e "$2" "$folder/$1" && return
    fail "$last: \"$2\" is missing from std$1:"
    tail -n 20 "$folder/$1"
}
unsaid() {
    checks=$((checks + 1))
    grep -qF -e "$2" "$folder/$1" || return
    fail "$last: \"$2\" stands in std$1:"
    tail -n 20 "$folder/$1"
}

# same WHAT A B
same() {
    checks=$((checks + 1))
    [ "$2" = "$3" ] || fail "$1: \"$2\" is not \"$3\""
}

# true_that WHAT COMMAND...: the command succeeds.
true_that() {
    local what=$1
    shift
    checks=$((checks + 1))
    "$@" || fail "$what"
}

# shellcheck disable=SC2034 # the scripts use it
steps="cloud_pretrain cloud_kd edge_alone edge_kd federated_train"

# ran STEP...: the last run made these steps anew, in this order, and no others.
ran() {
    same "$last: steps that ran" "$(sed -n 's/^\([a-z_]*\): done.*$/\1/p' "$folder/err" | tr '\n' ' ')" \
        "${*:+$* }"
}

# digests OUTPUT: of everything that a finished run is about.
digests() {
    (cd "$1" && sha256sum cloud_pretrain/model.safetensors cloud_kd/soft_labels.safetensors \
        edge_alone/model.safetensors edge_kd/model.safetensors federated_train/model.safetensors \
        federated_train/partition.safetensors)
}

# left_overs OUTPUT: temporary files and checkpoints that should be gone.
left_overs() { find "$1" -name '*.tmp.*' -o -name 'checkpoint.*'; }

finish() {
    echo "$checks checks, $failed failed"
    [ $failed -eq 0 ]
    exit
}
