#!/bin/bash
# The program's command line from outside: exit status, messages for wrong usage, help, the manual page,
# and `fedstill runs` with and without a registry. Needs $FEDSTILL, the program,
# and $FEDSTILL_SOURCE, the sources.
# shellcheck disable=SC2086 # a command may be two words
set -u
. "$(dirname "$0")/common.sh"

# ---- the program itself
expect 0 --version
said out "fedstill "
silent err
expect 2
said err "Usage: fedstill COMMAND"
silent out
for word in help --help -h; do
    expect 0 $word
    said out "Usage: fedstill COMMAND"
    silent err
done
expect 2 --nonsense
said err "unknown option --nonsense"
expect 2 runss
said err 'unknown command "runss"'
said err "did you mean runs?"
silent out
expect 2 help runss
said err "did you mean runs?"
expect 2 xylophone
said err 'unknown command "xylophone"'
if grep -q "did you mean" "$folder/err"; then
    echo "FAILED: xylophone resembles no command"
    failed=$((failed + 1))
fi

# ---- help of every command, by both ways
"$FEDSTILL" --help | sed -n '/^Commands:/,/^$/p' | sed -n 's/^  \([a-z][a-z ]*[a-z]\)  .*/\1/p' >"$folder/commands"
grep -qx runs "$folder/commands" || { echo "FAILED: the overview does not list runs"; failed=$((failed + 1)); }
while read -r command; do
    expect 0 $command --help
    said out "Usage: fedstill $command"
    said out "--quiet"
    silent err
    cp "$folder/out" "$folder/first"
    expect 0 help $command
    cmp -s "$folder/first" "$folder/out" || { echo "FAILED: two helps of $command differ"; failed=$((failed + 1)); }
    if [ "$(wc -L <"$folder/out")" -gt 80 ] && grep -vE '^Usage|^  [a-z-]' "$folder/out" | grep -qE '.{81}'; then
        echo "FAILED: the help of $command is wider than 80 columns"
        failed=$((failed + 1))
    fi
    expect 2 $command --no-such-option
    said err "unknown option --no-such-option"
    said err "fedstill $command --help"
    silent out
done <"$folder/commands"

# ---- options
expect 2 runs --limt 3
said err "did you mean --limit?"
said err 'try "fedstill runs --help"'
expect 2 runs --limit
said err "--limit needs an argument"
expect 2 runs --limit=
said err "needs a whole number"
expect 2 runs --limit=3x
said err '"3x"'
expect 2 runs --limit=" 3"
expect 2 runs --limit=0
said err "1 to 1000000"
expect 2 runs --limit=99999999999999999999
said err "outside"
expect 2 runs --json=yes
said err "takes no argument"
expect 2 runs -x
said err "unknown option -x"
expect 2 runs -5
said err "negative number"
expect 2 runs one two
said err 'unexpected argument "two"'
expect 2 runs --limit=0 --help
expect 0 runs --help --limit=0
for form in "--limit=3" "--limit 3" "-n3" "-n 3" "-qn3" "-q --limit=3"; do
    expect 0 runs $form
done
expect 2 runs -- --json
said err 'no run "--json"'

# ---- runs without a registry
expect 0 runs
said out "no runs yet"
expect 0 runs --json
said out "[]"
expect 2 runs 1
said err 'no run "1"'
[ ! -e "$FEDSTILL_HOME" ] || { echo "FAILED: looking made $FEDSTILL_HOME"; failed=$((failed + 1)); }

# ---- a damaged registry
mkdir -p "$FEDSTILL_HOME"
head -c 5000 /dev/zero | tr '\0' 'x' >"$FEDSTILL_HOME/runs.sqlite"
expect 1 runs
said err "runs.sqlite"
said err "move it away"
silent out
rm "$FEDSTILL_HOME/runs.sqlite"

# ---- a registry as schema 1 wrote it, which every later version must read
cp "$FEDSTILL_SOURCE/tests/cmd/runs-schema1.sqlite" "$FEDSTILL_HOME/runs.sqlite"
chmod u+w "$FEDSTILL_HOME/runs.sqlite"
export TZ=UTC
expect 0 runs
cat >"$folder/wanted" <<'END'
run  task   status  stage            started                duration  teacher  student
---  -----  ------  ---------------  -------------------  ----------  -------  -------
  2  radar  failed  federated_train  2025-01-31 12:00:05  2 min 05 s        -        -
  1  mnist  done    edge_kd          2025-01-31 12:00:05  2 min 05 s  95.00 %  98.00 %
END
checks=$((checks + 1))
diff "$folder/wanted" "$folder/out" || { echo "FAILED: the table of runs"; failed=$((failed + 1)); }
# 80 columns, as where nothing says how wide the output is: the least important columns are left out
unset COLUMNS
expect 0 runs
cat >"$folder/wanted" <<'END'
run  task   status  started                duration  teacher  student
---  -----  ------  -------------------  ----------  -------  -------
  2  radar  failed  2025-01-31 12:00:05  2 min 05 s        -        -
  1  mnist  done    2025-01-31 12:00:05  2 min 05 s  95.00 %  98.00 %
END
checks=$((checks + 1))
diff "$folder/wanted" "$folder/out" || { echo "FAILED: the table of runs at 80 columns"; failed=$((failed + 1)); }
export COLUMNS=132
expect 0 runs --limit=1
said out radar
[ "$(wc -l <"$folder/out")" -eq 3 ] || { echo "FAILED: --limit=1 shows other than one run"; failed=$((failed + 1)); }
for run in 1 mnist /data/mnist/output; do
    expect 0 runs $run
    said out "all stages"
    said out "edge_kd         accuracy      0.98    0.98   0.9871"
    said out "0123abcd"
    silent err
done
expect 0 runs 2 --json
said out '"status": "failed"'
said out '"seed": "18446744073709551615"'
said out '"accuracy": null'
said out '"figures": []'
said out '"settings": {}'
expect 0 runs --json
[ "$(grep -c '"id"' "$folder/out")" -eq 2 ] || { echo "FAILED: --json lists other than two runs"; failed=$((failed + 1)); }
expect 2 runs sonar
said err 'no run "sonar"'

# ---- a registry that cannot be placed, and output that cannot be written
(unset FEDSTILL_HOME XDG_STATE_HOME HOME && "$FEDSTILL" runs >"$folder/out" 2>"$folder/err")
status=$? last="fedstill runs without HOME" checks=$((checks + 1))
[ $status -eq 2 ] || { echo "FAILED: $last: exit status $status"; failed=$((failed + 1)); }
said err "FEDSTILL_HOME"
if [ -w /dev/full ]; then
    "$FEDSTILL" --help >/dev/full 2>"$folder/err"
    status=$? last="fedstill --help >/dev/full" checks=$((checks + 1))
    [ $status -eq 1 ] || { echo "FAILED: $last: exit status $status"; failed=$((failed + 1)); }
    said err "cannot write to standard output"
fi

# ---- completions: what bash would offer for a line, the last word being the one to complete
expect 0 --completion bash
cp "$folder/out" "$folder/completion.bash"
offers() { # WORD...
    (
        # shellcheck disable=SC2034 # bash's own names
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
        . "$folder/completion.bash"
        _fedstill
        echo "${COMPREPLY[*]}"
    )
}
same_words() { # WANTED WORD...
    local wanted=$1 got
    shift
    got=$(offers "$@")
    checks=$((checks + 1))
    [ "$got" = "$wanted" ] || { echo "FAILED: \"$*\" offers \"$got\", not \"$wanted\""; failed=$((failed + 1)); }
}
while read -r command; do
    checks=$((checks + 1))
    # shellcheck disable=SC2086 # two words of some
    [[ $(offers fedstill $command) == *"${command##* }"* ]] || { echo "FAILED: $command is not offered"; failed=$((failed + 1)); }
done <"$folder/commands"
same_words "info import" fedstill data i
same_words "--layout --limit" fedstill eval --l
same_words "--help" fedstill fleet status --h
same_words "train test val" fedstill eval --split ''
same_words "test" fedstill eval --split = te
same_words "" fedstill eval --threads ''
same_words "" fedstill run tas
expect 0 --completion zsh
if command -v zsh >/dev/null; then
    zsh -n "$folder/out" 2>"$folder/err"
    last="zsh -n"
    silent err
fi
expect 2 --completion fish
said err "bash or zsh"

# ---- the manual page
expect 0 --man-page
cp "$folder/out" "$folder/fedstill.1"
for section in NAME SYNOPSIS DESCRIPTION OPTIONS COMMANDS "EXIT STATUS" ENVIRONMENT FILES EXAMPLES; do
    said out ".SH $section"
done
while read -r command; do
    said out ".SS \"fedstill $command"
done <"$folder/commands"
said out '\-\-limit=N'
if command -v groff >/dev/null; then
    groff -man -ww -Tascii -z "$folder/fedstill.1" 2>"$folder/err"
    last="groff -ww fedstill.1"
    silent err
elif command -v mandoc >/dev/null; then
    mandoc -Tlint -W warning "$folder/fedstill.1" >"$folder/err" 2>&1
    last="mandoc -Tlint fedstill.1"
    silent err
else
    # No formatter here: every macro must at least be one of man(7) that the page uses.
    grep -E "^[.']" "$folder/fedstill.1" | grep -vE '^\.(\\"|TH|SH|SS|TP|PP)' >"$folder/err"
    last="macros of fedstill.1"
    silent err
fi

echo "$checks checks, $failed failed"
[ $failed -eq 0 ]
