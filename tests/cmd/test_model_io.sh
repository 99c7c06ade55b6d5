#!/bin/bash
# model import, model export and what model info says of memory, driven from outside. Needs $FEDSTILL, the program, and
# $FEDSTILL_SOURCE, the sources.
set -u
. "$(dirname "$0")/common.sh"
files=$FEDSTILL_SOURCE/tests/models

# As in common.sh, but a failed import may write its report to stdout.
expect() {
    local wanted=$1 got
    shift
    checks=$((checks + 1))
    "$FEDSTILL" "$@" >"$folder/out" 2>"$folder/err" </dev/null
    got=$?
    last="fedstill $*"
    [ $got -eq "$wanted" ] || { fail "exit status $got, wanted $wanted" && cat "$folder/err"; }
}
# As in common.sh, blanks counting as one.
said() {
    checks=$((checks + 1))
    if ! tr -s ' ' <"$folder/$1" | grep -qF -e "$2"; then
        fail "\"$2\" is missing from std$1:"
        cat "$folder/$1"
    fi
}
absent() {
    checks=$((checks + 1))
    [ ! -e "$1" ] || fail "$1 is there"
}

# ---- import
in=$files/resnet8-kuangliu.safetensors out=$folder/model.safetensors
expect 2 model import "$in" --out "$out"
said err "--as is needed"
expect 2 model import "$in" --as resnet8
said err "--out is needed"
expect 2 model import "$in" --as resnet9 --out "$out"
said err 'no model "resnet9"'
expect 2 model import "$in" --as resnet8 --out "$out" --set width=0.5
said err 'resnet8 has no option "width"'
expect 2 model import "$in" --as resnet8 --out "$out" --mean 0.5
said err "--mean and --std go together"
expect 2 model import "$in" --as resnet8 --out "$out" --prefix state_dict. --mean 0.5,0.5 --std 1,1
said err "one number each, or 3 by comma"
expect 2 model import "$in" --as resnet8 --out "$out" --prefix state_dict. --mean 0.5 --std 0
said err "not above 0"
absent "$out"

# the test's own tensors are too many: all is told, nothing written
expect 1 model import "$in" --as resnet8 --out "$out"
silent out
said err "extra test.logits (2, 10)"
said err "2 tensors do not fit resnet8: extra test"
absent "$out"
expect 1 model import "$in" --as resnet20 --prefix state_dict. --out "$out" --json
said out '"complete": false'
said out '"kind": "missing"'
said out '"ours": "layer1.1.conv1.weight"'
said out 'tensors do not fit resnet20'
said err 'tensors do not fit resnet20'
absent "$out"

printf 'one\ntwo\r\nthree\nfour\nfive\nsix\nseven\neight\nnine\nten\n' >"$folder/names"
printf '# the rest of the test\ntest.* -\nnever.seen -\n' >"$folder/map"
expect 0 model import "$in" --as resnet8 --map "$folder/map" --out "$out" --class-names "$folder/names" \
    --mean 0.5,0.25,0.125 --std 1,2,3
silent err
said out "taken 56 tensors"
said out "unused never.seen: no tensor"
said out "left out test.x (2, 3, 32, 32)"
said out "written $out: 10 classes"
expect 0 model info "$out" --json
said out '"ten"'
said out '"imported_digest": "'"$(sha256sum "$in" | cut -d' ' -f1)"'"'
tr -d '\n' <"$folder/out" >"$folder/line" && mv "$folder/line" "$folder/out"
said out '"normalise_mean": [ 0.5, 0.25, 0.125 ]'
head -9 "$folder/names" >"$folder/nine"
expect 1 model import "$in" --as resnet8 --map "$folder/map" --out "$folder/none" --class-names "$folder/nine"
said err "9 lines for 10 classes"
absent "$folder/none"

# heads
expect 1 model import "$in" --as resnet8 --prefix state_dict. --classes 4 --out "$folder/none"
said err "misshaped fc.weight: BF16 (10, 64) in the file, (4, 64) in the network"
absent "$folder/none"
for seed in 1 1 2; do
    expect 0 model import "$in" --as resnet8 --prefix state_dict. --classes 4 --head fresh --seed $seed \
        --out "$folder/fresh$checks"
    said out "fresh fc.weight (4, 64)"
    said out "initialised from seed $seed"
    digests=$(sha256sum "$folder"/fresh* | cut -d' ' -f1 | sort -u | wc -l)
    [ "$digests" -eq $seed ] || fail "$digests different files of seeds up to $seed"
done

# option A
expect 1 model import "$files/resnet8-akamaster.safetensors" --as resnet8 --prefix state_dict. --out "$folder/none"
said err "shortcuts without parameters can be padded"
expect 0 model import "$files/resnet8-akamaster.safetensors" --as resnet8 --prefix state_dict. --pad-shortcuts \
    --out "$folder/padded.safetensors" --json
said out '"complete": true'
said out '"zero": 9'
said out '"padded": 10'

# files of torch.save, new and old: the same tensors
for kind in logistic logistic_legacy best_acc objects stream4 version1 \
    prefix_opacus prefix_compiled prefix_fsdp prefix_peft prefix_inside; do
    expect 0 model import "$FEDSTILL_SOURCE/tests/tensor/pth/$kind.pth" --as logistic_regression --input 1,1,2 --classes 2 \
        --out "$folder/$kind.safetensors"
    checks=$((checks + 1))
    tail -c 24 "$folder/$kind.safetensors" >"$folder/$kind.data"
done
# fc.bias 0, 0.25, then fc.weight 1, -1, 0.5, 2
printf '\0\0\0\0\0\0\x80\x3e\0\0\x80\x3f\0\0\x80\xbf\0\0\0\x3f\0\0\0\x40' >"$folder/wanted.data"
for data in "$folder"/*.data; do
    cmp "$data" "$folder/wanted.data" || fail "$data is not what was saved"
done
pth=$FEDSTILL_SOURCE/tests/tensor/pth
expect 1 model import "$pth/prefix_unusual.pth" --as logistic_regression --input 1,1,2 --out "$folder/none"
said err "the whole network is there after the prefix trunk.stage2."
expect 0 model import "$pth/prefix_unusual.pth" --as logistic_regression --input 1,1,2 --prefix trunk.stage2. \
    --out "$folder/unusual"
# a file of two models: the one that is asked for
expect 0 model import "$pth/with_ema.pth" --as logistic_regression --input 1,1,2 --out "$folder/nines"
expect 0 model import "$pth/with_ema.pth" --as logistic_regression --input 1,1,2 --prefix ema. --out "$folder/ema"
for name in unusual ema; do
    tail -c 24 "$folder/$name" | cmp - "$folder/wanted.data" || fail "$name is not what was saved"
done
tail -c 24 "$folder/nines" | cmp -s - "$folder/wanted.data" && fail "the average was taken for the model"
expect 1 model import "$pth/module.pth" --as logistic_regression --out "$folder/none"
said err "holds a whole module"
expect 1 model import "$pth/npz.pth" --as logistic_regression --out "$folder/none"
said err "an npz of NumPy arrays"
expect 1 model import "$FEDSTILL_SOURCE/tests/tensor/pth/evil.pth" --as logistic_regression --out "$folder/none"
said err "posix.system is not allowed"

# what is no state_dict
printf 'PK\3\4and more' >"$folder/zip"
expect 1 model import "$folder/zip" --as resnet8 --out "$folder/none"
said err "not a readable PyTorch (zip) file"
head -c 100000 "$in" >"$folder/cut"
expect 1 model import "$folder/cut" --as resnet8 --out "$folder/none"
said err "$folder/cut"
expect 1 model import "$folder/nowhere" --as resnet8 --out "$folder/none"
said err "$folder/nowhere"
expect 1 model import "$out" --as resnet20 --out "$folder/none"
said err "its metadata say that it is a resnet8, not a resnet20"
absent "$folder/none"

# ---- export, and back
for name in x.PTH x.h5 x.npz; do
    expect 2 model export "$out" --out "$folder/$name"
    said err "models are written as safetensors, not as"
    said err "name it $folder/x.safetensors"
    absent "$folder/$name"
done
expect 2 model import "$in" --as resnet8 --prefix state_dict. --out "$folder/x.pt"
said err "models are written as safetensors, not as"
# ONNX, by the name or by the option; its bytes are looked at in models/test_onnx_*.c
expect 2 model export "$out" --onnx --out "$folder/x.safetensors"
said err "name it FILE.onnx"
expect 2 model export "$out" --fold --out "$folder/x.safetensors"
said err "--fold needs --onnx"
expect 2 model export "$out" --dtype f16 --out "$folder/x.onnx"
said err "--dtype is of safetensors"
expect 2 model export "$out" --names ours --out "$folder/x.ONNX"
said err "--names is of safetensors"
absent "$folder/x.onnx"
expect 0 model export "$out" --out "$folder/x.onnx" --json
said out "\"sha256\": \"$(sha256sum "$folder/x.onnx" | cut -d' ' -f1)\""
expect 0 model export "$out" --onnx --fold --out "$folder/folded.onnx"
said out "resnet8"
for word in class_names normalise_mean imported_digest BatchNormalization; do
    grep -qa $word "$folder/x.onnx" || fail "x.onnx has no $word"
done
grep -qa BatchNormalization "$folder/folded.onnx" && fail "folded.onnx has batch norms"
# and back: the network is known by its layers, options and names by the file's metadata
expect 0 model import "$folder/x.onnx" --out "$folder/back.safetensors"
silent err
said out "file $folder/x.onnx (ONNX)"
said out "network resnet8"
expect 0 model info "$folder/back.safetensors"
said out "normalisation mean 0.5, 0.25, 0.125; std 1, 2, 3"
said out "class names one, two, three, four"
tail -c 300000 "$out" | cmp - <(tail -c 300000 "$folder/back.safetensors") || fail "the weights that came back are others"
expect 0 model import "$folder/folded.onnx" --as resnet8 --out "$folder/back.safetensors"
said out "made 27 tensors: batch norms folded into their convolutions"
expect 0 model info "$folder/back.safetensors" --json
said out '"imported_norms": "folded"'
expect 0 model import "$files/onnx-real_resnet20.onnx" --mean 0 --std 2 --out "$folder/student.safetensors" --json
said out '"arch": "real_resnet20_link11_h"'
said out '"format": "ONNX"'
expect 1 model import "$folder/x.onnx" --as resnet20 --out "$folder/none"
said err "its metadata say that it is a resnet8, not a resnet20"
expect 1 model import "$files/onnx-resnet8.onnx" --as resnet20 --out "$folder/none"
said err "is not resnet20. It differs: resnet20 has"
expect 2 model import "$files/onnx-resnet8.onnx" --prefix module. --out "$folder/none"
said err "are of a state_dict"
expect 1 predict "$folder/x.onnx" "$in"
said err 'an ONNX model; `fedstill model import` makes a model file of it'
head -c 20000 "$files/onnx-resnet8.onnx" >"$folder/cut"
expect 1 model import "$folder/cut" --out "$folder/none"
said err "not a sound ONNX file, or cut off"
absent "$folder/none"
# options, normalisation and class names come back, unless others are given
expect 0 model export "$out" --dtype f16 --out "$folder/kept.safetensors"
expect 0 model import "$folder/kept.safetensors" --as resnet8 --out "$folder/again.safetensors"
expect 0 model info "$folder/again.safetensors"
said out "normalisation mean 0.5, 0.25, 0.125; std 1, 2, 3"
said out "class names one, two, three, four"
expect 0 model import "$folder/kept.safetensors" --as resnet8 --mean 0.75 --std 0.5 --out "$folder/again.safetensors"
expect 0 model info "$folder/again.safetensors"
said out "normalisation mean 0.75; std 0.5"
expect 1 model import "$folder/kept.safetensors" --as resnet20 --out "$folder/none"
said err "its metadata say that it is a resnet8, not a resnet20"
# what is no model file says what it is
expect 1 model info "$pth/logistic.pth"
said err "\`fedstill model import\` makes one of a state_dict"
printf 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n' >"$folder/pointer.safetensors"
expect 1 model info "$folder/pointer.safetensors"
said err "is a pointer of Git LFS"
expect 2 model export "$out"
said err "--out is needed"
expect 2 model export "$out" --out "$folder/none" --dtype f64
expect 0 model export "$out" --out "$folder/bare.safetensors"
said out "56 tensors"
expect 1 model info "$folder/bare.safetensors"
said err 'not a fedstill model'
expect 0 model import "$folder/bare.safetensors" --as resnet8 --class-names "$folder/names" \
    --mean 0.5,0.25,0.125 --std 1,2,3 --out "$folder/back.safetensors"
expect 0 model export "$folder/back.safetensors" --out "$folder/bare2.safetensors"
checks=$((checks + 1))
cmp -s "$folder/bare.safetensors" "$folder/bare2.safetensors" || fail "there and back is not the same"
expect 0 model export "$out" --names ours --dtype bf16 --out "$folder/half.safetensors" --json
said out '"dtype": "bf16"'
expect 0 model info "$folder/half.safetensors"
said out "imported_digest"
# the weights were bf16 before: nothing is lost
expect 0 model export "$folder/half.safetensors" --out "$folder/bare3.safetensors"
checks=$((checks + 1))
cmp -s "$folder/bare.safetensors" "$folder/bare3.safetensors" || fail "bf16 and back is not the same"
expect 0 model export "$out" --names ours --out "$folder/same.safetensors"
checks=$((checks + 1))
cmp -s "$out" "$folder/same.safetensors" || fail "ours in f32 is not the same file"

# ---- info
expect 0 model info mnist_student --batch 32
said out "Memory for a batch of 32"
# 105,866 floats
said out "parameters 423 kB, gradients as much again"
said out "SGD 0 B; SGD with momentum 423 kB; Adam and AdamW 847 kB"
expect 0 model info mnist_student --json
said out '"adam": 846928'
expect 0 model info mobilenet_v2 --set width=0.25 --set classes=7 --set input=3,64,64
said out "input (3, 64, 64)"
said out "classes 7"
said out "conv2d features.0.0 (8, 32, 32)"
expect 2 model info mobilenet_v2 --set stem=cifar
said err "it has classes, input, dropout1, width, stem_stride, stage_strides"
expect 2 model info "$out" --set classes=7
said err "--set is for networks"
expect 0 model info resnet50 --batch 65536 # far more than any machine has

# ---- what is only named like an ONNX file is refused for what it is
printf '<html>' >"$folder/page.onnx"
: >"$folder/empty.onnx"
for file in page empty; do
    expect 1 model import "$folder/$file.onnx" --out "$folder/none.safetensors"
    said err "$file.onnx is"
    unsaid err "--as"
done
[ ! -e "$folder/none.safetensors" ] || fail "a refused import left a file"

echo "$checks checks, $failed failed"
[ $failed -eq 0 ]
