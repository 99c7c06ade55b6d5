#!/bin/bash
# What people read in a terminal fits 80 columns: every --help, the list of networks, and a dry run.
set -u
. "$(dirname "$0")/common.sh"
export COLUMNS=80

fits() {
    checks=$((checks + 1))
    if grep -qE '.{81}' "$folder/out"; then
        fail "lines of more than 80 columns:"
        grep -E '.{81}' "$folder/out"
    fi
}

expect 0 --help
fits
sed -n '/^Commands:/,/^$/s/^  \([a-z]\+\( [a-z]\+\)\?\)  .*/\1/p' "$folder/out" >"$folder/commands"
[ "$(wc -l <"$folder/commands")" -ge 15 ] || fail "only $(wc -l <"$folder/commands") commands are listed"
while read -r command; do
    # shellcheck disable=SC2086
    expect 0 $command --help
    said out "Usage: fedstill $command"
    fits
done <"$folder/commands"

# An example that was cut into lines is still one command.
expect 0 model info --help
said out ' \'

expect 0 model list
row "name input classes parameters MFLOPs"
row "logistic_regression (1, 28, 28) 10 7850 0.02"
row "one linear layer"
fits

expect 0 data synth modulation --out "$folder/train.safetensors" --count 240
expect 0 init "$folder/task" --data "$folder/train.safetensors"
expect 0 run "$folder/task" --dry-run --mode full_pipeline
sed -i '/path: /d' "$folder/out" # as long as the test's folder
fits

echo "$((checks - failed)) passed, $failed failed"
[ $failed -eq 0 ]
