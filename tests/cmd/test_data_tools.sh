#!/bin/bash
# data import, data split --out and data info on signals, driven from outside. Needs $FEDSTILL, the program, and
# $FEDSTILL_SOURCE, the sources.
set -u
. "$(dirname "$0")/common.sh"
pickles=$FEDSTILL_SOURCE/tests/data/pickles
cd "$folder" || exit 1

same() {
    checks=$((checks + 1))
    cmp -s "$1" "$2" || fail "$1 and $2 differ"
}

# ---- a SigMF recording: 40 bursts of 2 windows of 4 samples, two classes in turn, cu8

{
    printf '{"global": {"core:datatype": "cu8", "core:version": "1.0.0"}, "captures": [{"core:sample_start": 0}],\n'
    printf ' "annotations": ['
    for ((i = 0; i < 40; i++)); do
        [ $i -eq 0 ] || printf ',\n  '
        printf '{"core:sample_start": %d, "core:sample_count": 8, "core:label": "%s",' $((8 * i)) $((i % 2 ? 1 : 0))nd
        printf ' "fedstill:snr_db": %d, "fedstill:burst": %d}' $((i / 2)) "$i"
    done
    printf ']}\n'
} >r.sigmf-meta
for ((i = 0; i < 640; i++)); do
    # shellcheck disable=SC2059
    printf "\\x$(printf %02x $((i * 7 % 256)))"
done >r.sigmf-data

expect 0 data info r.sigmf-meta --window 4
row "samples 80"
row "shape (2, 4) of F32 (2.6 kB in all)"
row "SNR 0 ... 19 dB"
row "bursts 40"
row "0 0nd 40 50.00 % ##############################"
expect 1 data info r.sigmf-meta --window 9
said err "annotation 0 has 8 samples, fewer than a window of 9"
expect 2 data info r.sigmf-meta --format sigmv
said err "sigmf, radioml"

# ---- import

expect 0 data import r.sigmf-meta --window 4 --out r.safetensors
row "samples 80 of shape (2, 4), F32"
row "beside them SNR, bursts"
expect 1 data import r.sigmf-meta --window 4 --out r.safetensors
said err "is there already; --force replaces it"
expect 0 data import r.sigmf-meta --window 4 --out r.safetensors --force
expect 0 data import r.safetensors --out r.npz
expect 0 data import r.npz --out again.safetensors
same r.safetensors again.safetensors
expect 2 data import r.npz
said err "--out is needed"
expect 2 data import r.npz --out r.csv
said err ".safetensors or .npz"
expect 1 data import "$pickles/evil4.pkl" --out evil.npz
said err "posix.system is not allowed"
[ ! -e evil.npz ] || fail "evil.npz was written"
expect 0 data import "$pickles/python2.pkl" --out p.npz
row "samples 6 of shape (2, 4), F32"
row "beside them SNR"
expect 0 data import "$pickles/splits.pkl" --split val --out v.npz
row "samples 1 of shape (2, 4), F32"

expect 0 data import r.npz --limit 11 --out few.npz # 6 and 5: every class its share, the odd one to the first
row "samples 11 of shape (2, 4), F32"
expect 0 data info few.npz
row "0 0nd 6 54.55 % ##############################"
expect 0 data split r.npz --samples 8 --clients 2 --partition iid --output few.part
row "samples 8 of 8 given out"

# ---- split for cloud and edges: 20 bursts of each class, 10 for the cloud; 8 of these, 1 and 1

expect 0 data split r.npz --out split --edges 1 --seed 3
row "bursts 40, none of them cut"
row "cloud train 32 16 16"
row "cloud val 4 2 2"
row "cloud test 4 2 2"
row "edge_1 train 32 16 16"
for part in cloud/train cloud/val cloud/test edge_1/train edge_1/val edge_1/test; do
    wanted=$(sha256sum "split/$part.safetensors" | cut -d' ' -f1)
    last=split.json
    said split/split.json "$wanted"
    expect 0 data info "split/$part.safetensors"
    row "classes 2"
done
expect 0 data split r.npz --out other/ --edges 1 --seed 3
for file in split.json cloud/train.safetensors edge_1/test.safetensors; do
    same split/$file other/$file
done
expect 0 data split r.npz --out third --edges 1 --seed 4
cmp -s split/cloud/train.safetensors third/cloud/train.safetensors && fail "the seed changes nothing"
expect 0 data info split/cloud --split test
expect 1 data split r.npz --out split --edges 1
said err "is there already; --force replaces it"
expect 0 data split r.npz --out split --edges 3 --alpha 0.05 --seed 1 --force
said out "has no samples of"
expect 0 data split r.npz --out split --cloud 1 --force
[ ! -e split/edge_1 ] || fail "the older split's edges are still there"
: >split/mine
expect 1 data split r.npz --out split --force
said err "holds more than a split"
[ -e split/mine ] && [ -e split/cloud/train.safetensors ] || fail "a folder that is not replaced lost files"
expect 2 data split r.npz --out x --clients 2
said err "--clients is for a partition file"
expect 2 data split r.npz --clients 2 --partition iid --output x --edges 2
said err "--edges means nothing without --out"
expect 2 data split r.npz --out x --val 0.6 --test 0.6
said err "leave something for training"
expect 2 data split r.npz --out x --edges 1000
said err "without any sample"
expect 1 data split r.npz --out r.npz/x
[ ! -e x ] || fail "a failed split left a folder"
leftover=$(find . -name '*.new-*' -o -name '*.old-*')
[ -z "$leftover" ] || fail "left behind: $leftover"

# ---- a task reads what was written

mkdir task
cat >task/task.yaml <<END
name: signals
data: {source: sigmf, path: ../r.sigmf-meta, window: 4}
stages: {cloud_pretrain: {model: logistic_regression, epochs: 1}}
END
expect 1 run task --dry-run
said err "one recording has no test split"

# ---- names by split: the test samples are never those of training

mkdir arrays
"$FEDSTILL" data synth link11 -n 240 -o arrays/x.safetensors >out 2>err || fail "$(cat err)"
task() { # DATA
    printf 'name: t\nseed: 1\ndata: {%s}\nstages: {cloud_pretrain: {model: logistic_regression, epochs: 1}}\n' "$1" \
        >task/task.yaml
}
task 'path: ../arrays/x.safetensors, x: x, y: y'
expect 1 run task --dry-run
said err 'no array "x_test" in it, and "x" holds training samples'
said err "for instance test: 0.2"
task 'path: ../arrays/x.safetensors, x: x, y: y, test: 0.25, layout: nchw'
expect 0 run task --dry-run
expect 2 data info arrays/x.safetensors --layout chw
expect 1 data info arrays/x.safetensors --layout nhwc --split test
expect 2 eval arrays/x.safetensors arrays/x.safetensors --layout chw
said err "nchw"

# ---- data without samples for testing: eval says what else there is to measure on

task 'path: ../arrays/x.safetensors, test: 0.25, layout: nchw'
expect 0 run task --quiet
expect 1 eval task/output/cloud_pretrain/model.safetensors arrays/x.safetensors
said err "--split train measures on the samples that models learn from"
expect 0 eval task/output/cloud_pretrain/model.safetensors arrays/x.safetensors --split train
expect 1 eval task/output/cloud_pretrain/model.safetensors arrays/none.safetensors
unsaid err "--split train"

# ---- the scale that a network would see

expect 0 run task --dry-run
unsaid err "data.normalise"
for scale in 'mean: 0, std: 0.001' 'mean: -300, std: 1'; do
    task "path: ../arrays/x.safetensors, test: 0.25, layout: nchw, normalise: {$scale}"
    expect 0 run task --dry-run
    said err "data.normalise: with these mean and std the samples' values are around"
done

echo "$checks checks, $failed failed"
[ $failed -eq 0 ]
