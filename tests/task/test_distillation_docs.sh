#!/bin/bash
# Every task file of docs/distillation.md is accepted: a dry run of it, over other samples, says what it would do.
# Needs $FEDSTILL, $FEDSTILL_HELPER, built from helper.c, and $FEDSTILL_SOURCE, the folder of the sources.
# shellcheck source=tests/task/common.sh
. "$(dirname "$0")/common.sh"
: "${FEDSTILL_SOURCE:?the folder of the sources}"
mkdir "$folder/data" && "$FEDSTILL_HELPER" data "$folder/data/mnist" 200 30 || exit 1
export FEDSTILL_DATA=$folder/data
awk -v folder="$folder" '/^```yaml$/ { file = folder "/" ++n ".yaml"; next } /^```$/ { file = ""; next }
     file { print >file }' "$FEDSTILL_SOURCE/docs/distillation.md"
tasks=0
for task in "$folder"/*.yaml; do
    expect 0 run "$task" --dry-run
    said out "edge_kd"
    tasks=$((tasks + 1))
done
true_that "there are task files" test $tasks -ge 2
finish
