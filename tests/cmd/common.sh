# What the tests of commands share: a scratch folder, and statements about what the program said and did. Sourced, with
# $FEDSTILL, the program, and $FEDSTILL_SOURCE, the sources, set.
: "${FEDSTILL:?the path of the program}" "${FEDSTILL_SOURCE:?the source folder}"
[ -x "$FEDSTILL" ] || { echo "no program $FEDSTILL"; exit 1; }
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
export FEDSTILL_HOME=$folder/home LC_ALL=C TERM=dumb COLUMNS=132 # room for whole rows
failed=0 checks=0 last=

fail() {
    echo "FAILED: $last: $1"
    failed=$((failed + 1))
}

# expect STATUS ARGUMENT...: runs the program; its output is then in $folder/out and $folder/err. A failure must
# explain itself on stderr and leave stdout empty.
expect() {
    local wanted=$1 got
    shift
    checks=$((checks + 1))
    "$FEDSTILL" "$@" >"$folder/out" 2>"$folder/err" </dev/null
    got=$?
    last="fedstill $*"
    if [ $got -ne "$wanted" ]; then
        fail "exit status $got, wanted $wanted"
        cat "$folder/err"
    elif [ $got -ne 0 ] && { [ -s "$folder/out" ] || [ ! -s "$folder/err" ]; }; then
        fail "failed, but stdout is not empty or stderr is"
    fi
}

# said out|err TEXT: the last run wrote TEXT there. unsaid: it did not.
said() {
    checks=$((checks + 1))
    if ! grep -qF -e "$2" "$folder/$1"; then
        fail "\"$2\" is missing from std$1:"
        cat "$folder/$1"
    fi
}
unsaid() {
    checks=$((checks + 1))
    if grep -qF -e "$2" "$folder/$1"; then
        fail "\"$2\" is in std$1:"
        cat "$folder/$1"
    fi
}
silent() {
    checks=$((checks + 1))
    [ ! -s "$folder/$1" ] || { fail "std$1 is not empty:" && cat "$folder/$1"; }
}
# row TEXT: stdout has this line, blanks counting as one.
row() {
    checks=$((checks + 1))
    if ! tr -s ' ' <"$folder/out" | sed 's/^ //;s/ $//' | grep -qxF -e "$1"; then
        fail "no line \"$1\" in stdout:"
        cat "$folder/out"
    fi
}
