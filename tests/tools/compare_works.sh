#!/bin/bash
# bench/compare over a fedstill and a PyTorch that print made-up figures: medians, the better layout, ratios and
# their geometric mean, and what it does when a side has nothing to say.
set -u
# shellcheck source=tests/tools/expect.bash
. "$(dirname "$0")/expect.bash"
compare=$FEDSTILL_SOURCE/bench/compare

# The n-th call with a workload prints its n-th figure.
program "$scratch/fedstill" <<'END'
#!/bin/bash
echo "$*" >>"$0.calls"
n=$(grep -c " $2 " "$0.calls")
case $2 in
slow) rates=(0 900 100 300) ;;
fast) rates=(0 4000 4000 4000) ;;
whole) printf '{"workload": "whole", "threads": 1, "precision": "f32", "samples_per_s": 1, "peak_rss_bytes": 52428800, "seconds": 0.25}\n'; exit ;;
esac
printf '{"workload": "%s", "threads": 1, "precision": "f32", "samples_per_s": %d, "step_ms": 1.2e1, "kernel_ms": 10.0, "peak_rss_bytes": 104857600}\n' "$2" "${rates[n]}"
END
program "$scratch/peer" <<'END'
[ "$1" = unknown ] && { echo "unknown 1 bf16 unsupported (needs f32)"; exit; }
rate=100 layout=f32 more=
for a in "$@"; do [ "$a" = --channels-last ] && rate=200 layout=f32/nhwc; done
[ "$1" = fast ] && [ $layout = f32 ] && rate=500
[ "$1" = whole ] && more="  total_s 1.00"
echo "$1 1 $layout $rate 411$more"
END
export PYTHON=bash FEDSTILL_PEER=$scratch/peer

# slow: the median 300 over the better layout's 200; fast: 4000 over 500; whole: 1.00 s over 0.25 s.
expect 0 "$compare" --program "$scratch/fedstill" --threads 1 slow fast whole
said '1 threads, f32, medians of 3 alternating passes'
said '| slow | 300 | 200 | channels-last | 1.50 | 1.20 | 100 | 411 | - | - |'
said '| fast | 4000 | 500 | default | 8.00 | 1.20 | 100 | 411 | - | - |'
said '| whole | 1 | 200 | channels-last | 4.00 | - | 50 | 411 | 0.250 | 1.00 |'
said 'Geometric mean of the ratios: 3.63 (3 of 3 workloads)' # the cube root of 48
holds "three passes of three workloads" test "$(wc -l <"$scratch/fedstill.calls")" -eq 9
holds "they take turns" test "$(sed -n 4p "$scratch/fedstill.calls")" = "bench slow --threads 1 --precision f32 --seconds 2 --json"

rm "$scratch/fedstill.calls"
expect 1 "$compare" --program "$scratch/fedstill" --passes 1 --raw "$scratch/raw" fast unknown
said '| unknown |'
said 'some workloads gave no figure'
said 'Geometric mean of the ratios: 8.00 (1 of 2 workloads)'
holds "every measurement is kept" test "$(grep -c '^fast' "$scratch/raw")" -eq 3

expect 2 "$compare" --program "$scratch/none" fast
said 'is not there'
expect 2 "$compare" --program "$scratch/fedstill" --passes none fast
expect 2 "$compare" --program "$scratch/fedstill" --seconds long fast
expect 2 "$compare" --program "$scratch/fedstill" --precision f64 fast
expect 2 "$compare" --program "$scratch/fedstill" --peer "$scratch/none" fast
said 'no peer'
expect 0 "$compare" --help
said '--channels-last'
finish
