# What the tests of scripts share: a scratch folder, and statements about one command's status and output.
# Sourced; $FEDSTILL_SOURCE is the source folder.
: "${FEDSTILL_SOURCE:?the source folder}"
export LC_ALL=C
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
failed=0 checks=0

# expect STATUS COMMAND ...: runs it; its output (both streams) is then in $scratch/said.
expect() {
    local wanted=$1 got=0
    shift
    checks=$((checks + 1))
    last=$*
    "$@" >"$scratch/said" 2>&1 </dev/null || got=$?
    if [ $got -ne "$wanted" ]; then
        echo "FAILED: $last: exit status $got, wanted $wanted"
        cat "$scratch/said"
        failed=$((failed + 1))
    fi
}

# said TEXT / silent_about TEXT: about the last command.
said() {
    checks=$((checks + 1))
    if ! grep -qF -e "$1" "$scratch/said"; then
        echo "FAILED: $last: did not say \"$1\" but:"
        cat "$scratch/said"
        failed=$((failed + 1))
    fi
}
silent_about() {
    checks=$((checks + 1))
    if grep -qF -e "$1" "$scratch/said"; then
        echo "FAILED: $last: said \"$1\":"
        cat "$scratch/said"
        failed=$((failed + 1))
    fi
}

# holds WHAT COMMAND ...: the command must succeed.
holds() {
    local what=$1
    shift
    checks=$((checks + 1))
    if ! "$@"; then
        echo "FAILED: $what"
        failed=$((failed + 1))
    fi
}

# program PATH: a script of that name from stdin.
program() {
    mkdir -p "$(dirname "$1")"
    cat >"$1"
    chmod +x "$1"
}

finish() {
    echo "$checks checks, $failed failed"
    [ $failed -eq 0 ]
    exit
}
