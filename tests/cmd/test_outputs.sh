#!/bin/bash
# Where commands write: names that are no files, links, closed descriptors, pipes in the place of files, what is left after
# a signal. Needs $FEDSTILL, the program, and $FEDSTILL_SOURCE, the sources. Nothing here touches /dev.
set -u
. "$(dirname "$0")/common.sh"

same() { # WHAT A B
    checks=$((checks + 1))
    [ "$2" = "$3" ] || fail "$1: \"$2\" is not \"$3\""
}
synth=(data synth link11 -n 100 -q)
expect 0 "${synth[@]}" -o "$folder/wanted.safetensors"
whole() { # FILE: the hundred windows
    checks=$((checks + 1))
    cmp -s "$folder/wanted.safetensors" "$1" || fail "$1 is not what it should be"
}

# ---- what is no file stays what it is
mkfifo "$folder/pipe.safetensors"
mkdir "$folder/sub.safetensors"
ln -s /proc/self/fd/1 "$folder/stdout.safetensors"
for name in pipe sub stdout; do
    expect 1 "${synth[@]}" --force -o "$folder/$name.safetensors"
    said err "cannot write $folder/$name.safetensors"
    silent out
done
same "the pipe" "$(stat -c %F "$folder/pipe.safetensors")" fifo
same "the link to standard output" "$(readlink "$folder/stdout.safetensors")" /proc/self/fd/1
if mknod "$folder/null.safetensors" c 1 3 2>/dev/null; then
    expect 1 "${synth[@]}" --force -o "$folder/null.safetensors"
    same "the device" "$(stat -c %F "$folder/null.safetensors")" "character special file"
else
    echo "NOTE: devices are not tried: only root makes them"
fi

# ---- a link stays a link, and the file that it points to is written
mkdir "$folder/store"
ln -s store/real.safetensors "$folder/link.safetensors"
expect 0 "${synth[@]}" -o "$folder/link.safetensors"
same "the link" "$(readlink "$folder/link.safetensors")" store/real.safetensors
whole "$folder/store/real.safetensors"

# ---- names of temporary files are not guessed: a planted link of the old form is not followed
echo precious >"$folder/victim"
ln -s victim "$folder/s.safetensors.tmp.$$"
expect 0 "${synth[@]}" -o "$folder/s.safetensors"
same "the victim" "$(cat "$folder/victim")" precious
rm "$folder/s.safetensors.tmp.$$"

# Two writers that believe to be the same process (two containers that share a folder): one of the two files, whole.
if unshare -pf true 2>/dev/null; then
    for seed in 1 2; do expect 0 data synth link11 -n 2000 -s $seed -q -o "$folder/ref$seed.safetensors"; done
    for seed in 1 2; do
        unshare -pf "$FEDSTILL" data synth link11 -n 2000 -s $seed -q --force -o "$folder/shared.safetensors" >/dev/null &
    done
    wait
    checks=$((checks + 1))
    cmp -s "$folder/shared.safetensors" "$folder/ref1.safetensors" ||
        cmp -s "$folder/shared.safetensors" "$folder/ref2.safetensors" || fail "a file that is neither writer's"
else
    echo "NOTE: containers are not tried: only root makes them"
fi

# ---- standard descriptors that are closed: nothing of the program's own takes their number
for closed in "0<&-" "2>&-" "0<&- 2>&-"; do
    eval "\"\$FEDSTILL\" \"\${synth[@]}\" --force -o \"\$folder/closed.safetensors\" >\"\$folder/out\" $closed"
    same "exit status with $closed" $? 0
    whole "$folder/closed.safetensors"
done
"$FEDSTILL" data synth link11 -n 100 -o "$folder/loud.safetensors" >"$folder/out" 2>&- # with its bar
whole "$folder/loud.safetensors"
"$FEDSTILL" runs >&- 2>"$folder/err"
same "exit status with >&-" $? 1
said err "cannot write to standard output"

# ---- a signal, and a killed process whose file the next one removes
litter() { find "$folder/slow" -name '.*.tmp.fedstill-*' | wc -l; }
mkdir "$folder/slow"
start() { # waits until it writes
    "$FEDSTILL" data synth link11 -n 10000000 -q -o "$folder/slow/x.safetensors" >/dev/null 2>&1 &
    child=$!
    for _ in $(seq 500); do
        [ "$(litter)" -gt 0 ] && break
        sleep 0.02
    done
}
start
same "temporary files of a writer" "$(litter)" 1
kill -TERM $child
{ wait $child; } 2>/dev/null
same "exit status after SIGTERM" $? 143
same "temporary files after SIGTERM" "$(litter)" 0
start
kill -KILL $child
{ wait $child; } 2>/dev/null
same "temporary files after SIGKILL" "$(litter)" 1
echo mine >"$folder/slow/thesis.tmp.2024"
expect 0 "${synth[@]}" -o "$folder/slow/y.safetensors"
same "temporary files after the next command" "$(litter)" 0
same "somebody's own file" "$(cat "$folder/slow/thesis.tmp.2024")" mine

# ---- the same for a split, which is a folder
split=(data split "$folder/wanted.safetensors" --edges 1 --force -q --out "$folder/split")
expect 0 "${split[@]}"
mkdir -p "$folder/.split.tmp.fedstill-0123456789abcdef/cloud" "$folder/.split.tmp.fedstill-notours"
echo half >"$folder/.split.tmp.fedstill-0123456789abcdef/cloud/train.safetensors"
echo half >"$folder/.split.tmp.fedstill-0123456789abcdef/cloud/.val.safetensors.tmp.fedstill-0123456789abcdef"
digest=$(sha256sum <"$folder/split/cloud/train.safetensors")
expect 0 "${split[@]}"
same "the split again" "$(sha256sum <"$folder/split/cloud/train.safetensors")" "$digest"
same "what stays beside a split" "$(find "$folder" -maxdepth 1 -name '*split*' -printf '%f\n' | sort | tr '\n' ' ')" \
    ".split.tmp.fedstill-notours split "

# ---- a pipe or a folder as a task's file: an error, not a wait without end
mkdir "$folder/task"
mkfifo "$folder/task/task.yaml"
for command in "run --dry-run" run report; do
    # shellcheck disable=SC2086
    timeout 20 "$FEDSTILL" $command "$folder/task" >"$folder/out" 2>"$folder/err"
    status=$? last="fedstill $command on a pipe"
    checks=$((checks + 1))
    case $status in 1 | 2) ;; *) fail "exit status $status" ;; esac
    said err "is a pipe that nobody writes to"
done
rm "$folder/task/task.yaml"
mkdir "$folder/task/task.yaml"
expect 1 run "$folder/task"
said err "is a folder"

# ---- the reason stands at the end of a message, however long the path
long=$folder
for _ in 1 2 3 4 5 6 7 8 9 10; do long=$long/$(printf 'd%.0s' $(seq 120)); done
expect 1 "${synth[@]}" -o "$long/x.safetensors"
said err "No such file or directory"

echo "$checks checks, $failed failed"
[ $failed -eq 0 ]
