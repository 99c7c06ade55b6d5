#!/bin/bash
# bench/inference over a fedstill and an ONNX Runtime that print made-up figures: medians, ratios, who is asked for what, and
# what it does when a side fails.
set -u
# shellcheck source=tests/tools/expect.bash
. "$(dirname "$0")/expect.bash"
inference=$FEDSTILL_SOURCE/bench/inference

# The n-th measurement prints the n-th figure; an export writes what the peer must be given.
program "$scratch/fedstill" <<'END'
#!/bin/bash
echo "$*" >>"$0.calls"
if [ "$1" = model ]; then
    while [ "$1" != --out ]; do shift; done
    echo "as ONNX" >"$2"
    exit
fi
rates=(900 100 300)
n=$(grep -c '^bench' "$0.calls")
echo "{\"workload\": \"$2\", \"samples_per_s\": ${rates[n - 1]}, \"p50_ms\": 1.5, \"p99_ms\": $n}"
END
program "$scratch/peer" <<'END'
#!/bin/bash
echo "${*: -3}" >>"$0.calls"
[ "$(cat)" = "as ONNX" ] || exit 3
echo '{"version": "1.21.0", "samples_per_s": 200, "p50_ms": 5, "p99_ms": 6.25}'
END
touch "$scratch/small.safetensors"

expect 0 "$inference" --program "$scratch/fedstill" --peer "$scratch/peer" --batch 32 --threads 2 --json "$scratch/kept" \
    "$scratch/small.safetensors"
said 'Beside ONNX Runtime 1.21.0; medians of 3 alternating passes'
said '| `small` | 32 | 2 | 300 | 1.500, 2.000 | 200 | 5.000, 6.250 | 1.50 |'
holds "the peer is asked for the same" test "$(sort -u "$scratch/peer.calls")" = "32 2 0.5"
holds "every measurement is kept" test "$(grep -c '"batch": 32' "$scratch/kept")" -eq 6
holds "fedstill is asked for the same" grep -q -- "--batch 32 --threads 2 --seconds 0.1" "$scratch/fedstill.calls"

rm "$scratch/fedstill.calls"
expect 0 "$inference" --program "$scratch/fedstill" --peer "$scratch/peer" --passes 1 --batch 1 --threads 1,2 --busy \
    "$scratch/small.safetensors"
said 'and a spinning process'
said '| `small` | 1 | 1 | 900 |'
said '| `small` | 1 | 2 | 100 |'

expect 1 "$inference" --program "$scratch/fedstill" --peer false "$scratch/small.safetensors"
said 'ended with 1'
expect 1 "$inference" --program "$scratch/none" "$scratch/small.safetensors"
said 'is not there'
expect 1 "$inference" --program "$scratch/fedstill" "$scratch/none.safetensors"
said 'a model file is wanted'
expect 2 "$inference" --batch 0 "$scratch/small.safetensors"
said 'whole numbers above 0'

finish
