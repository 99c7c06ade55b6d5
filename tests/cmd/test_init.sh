#!/bin/bash
# fedstill init: task files for several kinds of data, which run accepts as they are, and nothing else touched.
set -u
. "$(dirname "$0")/common.sh"
cd "$folder" || exit 1

holds() { # holds FILE LINE: blanks and comments after it do not count
    checks=$((checks + 1))
    sed 's/ *#.*//;s/^ *//' "$1" | grep -qxF -e "$2" || { fail "no line \"$2\" in $1" && cat "$1"; }
}
number() { # number BYTES VALUE: little-endian
    local i v=$2
    for ((i = 0; i < $1; i++, v >>= 8)); do
        # shellcheck disable=SC2059
        printf "\\x$(printf %02x $((v & 255)))"
    done
}
bmp() { # bmp FILE SIDE GREY: one colour, SIDE a multiple of 4
    local size=$((3 * $2 * $2)) byte
    byte=$(printf '\\%03o' "$3")
    {
        printf BM && number 4 $((54 + size)) && number 4 0 && number 4 54
        number 4 40 && number 4 "$2" && number 4 "$2" && number 2 1 && number 2 24 && number 4 0
        number 4 $size && number 4 0 && number 4 0 && number 4 0 && number 4 0
        head -c $size /dev/zero | tr '\0' "$byte"
    } >"$1"
}

# ---- a folder of images, without test samples

mkdir -p 'my birds/photos/owl' 'my birds/photos/wren'
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
    bmp "my birds/photos/owl/$i.bmp" 12 $((i * 4))
    bmp "my birds/photos/wren/$i.bmp" 12 $((i * 4 + 128))
done
expect 0 init 'my birds/task' --data 'my birds/photos'
said out "folder, 30 samples of (3, 12, 12), 2 classes"
task='my birds/task/task.yaml'
holds "$task" 'source: folder'
holds "$task" 'path: "../photos"'
holds "$task" 'name: "task"'
holds "$task" 'test: 0.2'
holds "$task" 'validation: 0.1'
holds "$task" 'model: resnet20'
holds "$task" 'model: resnet8'
# (32 + 32 + 128) / 2 / 255 of bytes 4 i and 4 i + 128
holds "$task" 'mean: [0.376471, 0.376471, 0.376471]'
checks=$((checks + 1))
grep -qF '# 2 classes: owl, wren.' "$task" || fail "classes are not in the file"
expect 0 run 'my birds/task' --dry-run
expect 0 run 'my birds/task' --mode full_pipeline --set stages.cloud_pretrain.epochs=1 \
    --set stages.edge_kd.epochs=1 --set stages.federated_train.rounds=1
[ -f 'my birds/task/output/federated_train/model.safetensors' ] || fail "no model"

# An image that data show wrote is the sample.
expect 0 data show 'my birds/photos' --index 22 --plain --out pixels.png
expect 0 predict 'my birds/task/output/edge_kd/model.safetensors' 'my birds/photos/wren/2.bmp' --json
grep -o '"prob.*' "$folder/out" >by-file
expect 0 predict 'my birds/task/output/edge_kd/model.safetensors' pixels.png --json
grep -o '"prob.*' "$folder/out" >by-show
checks=$((checks + 1))
[ -s by-file ] && cmp -s by-file by-show || fail "the picture is another sample"
expect 2 data show 'my birds/photos' --plain --sheet --out pixels.png
said err "--plain"

# ---- what is there stays

cp "$task" before
expect 1 init 'my birds/task' --data 'my birds/photos'
said err "is there already"
cmp -s before "$task" || fail "task.yaml changed"

# ---- grey images; another student; a folder that is named by its absolute path

expect 0 init grey --data "$folder/my birds/photos" --channels 1 --model 'mobilenet_v2 width=0.25'
holds grey/task.yaml 'channels: 1'
holds grey/task.yaml 'mean: [0.376471]'
holds grey/task.yaml 'model: mobilenet_v2 width=0.25'
holds grey/task.yaml "path: \"$folder/my birds/photos\""
expect 0 run grey --dry-run

# ---- signals: of the networks' length, and of another one

expect 0 data synth link11 --out 'link$$11.safetensors' --count 840 --snr 20
expect 0 init link11 --data 'link$$11.safetensors'
holds link11/task.yaml 'path: "../link$$$$11.safetensors"'
holds link11/task.yaml 'model: real_resnet20_link11_h width=0.125 hidden=32'
holds link11/task.yaml 'validation: 0.1'
expect 0 run link11 --dry-run
echo '{"burst": {"window": 128}}' >params.json
expect 0 data synth modulation --out short.safetensors --count 440 --params params.json
expect 0 init short --data short.safetensors
holds short/task.yaml 'model: logistic_regression'
expect 0 run short --dry-run
expect 0 data synth modulation --out record.sigmf --format sigmf --count 220
expect 0 init record --data record.sigmf-meta --window 256
holds record/task.yaml 'source: sigmf'
holds record/task.yaml 'window: 256'
expect 0 run record --dry-run

# ---- test and validation samples of the data's own

mkdir split
for split in train val test; do
    expect 0 data synth modulation --out split/$split.safetensors --count 220 --params params.json --seed 1
done
expect 0 data synth modulation --out split/test.safetensors --count 44 --first 220 --params params.json --force
expect 0 data synth modulation --out split/val.safetensors --count 44 --first 264 --params params.json --force
expect 0 init own --data split
holds own/task.yaml 'own_validation: true'
checks=$((checks + 1))
sed 's/ *#.*//' own/task.yaml | grep -q '^ *test:' && fail "a share for testing, beside test samples"
said out "44 samples of the data's own"
expect 0 run own --dry-run

# ---- what cannot be is said, and leaves nothing

expect 2 init nothing
said err "--data is needed"
expect 1 init nothing --data nowhere
said err "nowhere"
expect 2 init nothing --data short.safetensors --model resnet8
said err "resnet8"
expect 2 init nothing --data short.safetensors --model resnet9
said err 'no model "resnet9"'
[ ! -e nothing ] || fail "a folder was left"

echo "$((checks - failed)) passed, $failed failed"
[ $failed -eq 0 ]
