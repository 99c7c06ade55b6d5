#!/bin/bash
# The documents that are made from the program's tables say what this program says.
set -euo pipefail

made=$(mktemp)
trap 'rm -f "$made"' EXIT
"$FEDSTILL" --task-reference >"$made"
if ! diff -u "$FEDSTILL_SOURCE/docs/task-file.md" "$made"; then
    echo "FAILED: docs/task-file.md is out of date; run make docs" >&2
    exit 1
fi
echo "1 passed, 0 failed"
