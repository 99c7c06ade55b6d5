#!/bin/bash
# model list, model info, eval, predict, data info and data split, driven from outside on data so small that every
# expected number can be worked out by hand. Needs $FEDSTILL, the program, and $FEDSTILL_SOURCE, the sources.
set -u
. "$(dirname "$0")/common.sh"
here=$FEDSTILL_SOURCE/tests/cmd

lines() {
    checks=$((checks + 1))
    [ "$(wc -l <"$folder/out")" -eq "$1" ] || fail "$(wc -l <"$folder/out") lines, wanted $1"
}

# ---- things to look at

number() { # number BYTES VALUE: little-endian
    local i v=$2
    for ((i = 0; i < $1; i++, v >>= 8)); do
        # shellcheck disable=SC2059
        printf "\\x$(printf %02x $((v & 255)))"
    done
}
big() { # the same in four bytes, the other way round
    number 1 $(($1 >> 24)) && number 1 $(($1 >> 16)) && number 1 $(($1 >> 8)) && number 1 "$1"
}
bytes() { # decimal numbers
    local b
    for b in "$@"; do number 1 "$b"; done
}
floats() { # only -1, 0, 1 and nan
    local f
    for f in "$@"; do
        case $f in
        0) printf '\x00\x00\x00\x00' ;;
        1) printf '\x00\x00\x80\x3f' ;;
        -1) printf '\x00\x00\x80\xbf' ;;
        nan) printf '\x00\x00\xc0\x7f' ;;
        esac
    done
}
safetensors() { # safetensors FILE HEADER, data on stdin
    { number 8 ${#2} && printf %s "$2" && cat; } >"$1"
}
npy() { # npy FILE DTYPE SHAPE, data on stdin
    {
        printf '\x93NUMPY\x01\x00\x76\x00'
        printf '%-117s\n' "{'descr': '$2', 'fortran_order': False, 'shape': $3, }"
        cat
    } >"$1"
}
idx() { # idx FOLDER PREFIX "LABEL P P P P" ...: images of 2 x 2 pixels
    local images=$1/$2-images-idx3-ubyte labels=$1/$2-labels-idx1-ubyte s
    mkdir -p "$1"
    { big 0x803 && big $(($# - 2)) && big 2 && big 2; } >"$images"
    { big 0x801 && big $(($# - 2)); } >"$labels"
    shift 2
    for s in "$@"; do
        # shellcheck disable=SC2086
        set -- $s
        bytes "$1" >>"$labels"
        shift
        bytes "$@" >>"$images"
    done
}

# The model: logistic regression on 2 x 2 pixels. Pixels become -1 and 1; class 0 looks at the first, class 1 at the
# second, class 2 adds the other two. A corner in the first pixel gives logits 1, -1, -2: probabilities 0.843795,
# 0.114195, 0.042010, cross entropy 0.169846 for class 0 and 2.169846 for class 1. The lower row gives -1, -1, 2:
# 0.909443 for class 2, cross entropy 0.094923.
meta() { # meta CLASSES NAMES [MORE]
    printf '"__metadata__":{"format":"fedstill-model-1","arch":"%s","classes":"%s","input":"1,2,2",' \
        logistic_regression "$1"
    printf '"normalise_mean":"0.5","normalise_std":"0.5","class_names":"%s"%s}' "$2" "${3:-}"
}
tensors='"fc.bias":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},'
tensors+='"fc.weight":{"dtype":"F32","shape":[3,4],"data_offsets":[12,60]}'
weights() {
    floats 0 0 0 1 0 0 0 0 1 0 0 0 0 1 1
}
names='[\"cat\",\"dog\",\"eel\"]'
plain=$folder/plain.safetensors named=$folder/named.safetensors
weights | safetensors "$plain" "{$(meta 3 '[]'),$tensors}"
weights | safetensors "$named" "{$(meta 3 "$names" ',"test_accuracy":"0.7500","task":"corners"'),$tensors}"

data=$folder/data
idx "$data" train "0 255 0 0 0" "0 255 0 0 0" "1 0 255 0 0" "1 0 255 0 0" "2 0 0 255 255" "2 0 0 255 255"
idx "$data" t10k "0 255 0 0 0" "1 0 255 0 0" "2 0 0 255 255" "1 255 0 0 0"

# ---- model list, model info
expect 2 model
said err "model list"
said err "model info"
expect 2 model lst
said err "did you mean model list?"
expect 0 model --help
said out "model info"
expect 0 model list
row "name input classes parameters MFLOPs summary"
# 784 x 10 weights and 10 shifts
row "logistic_regression (1, 28, 28) 10 7850 0.02 one linear layer"
silent err
expect 0 model list --json
said out '"name": "logistic_regression"'
said out '"parameters": 7850'
expect 2 model list logistic_regression
expect 2 model info
expect 0 model info mnist_student
# 16 x (3 x 3 + 1); twice 16 x 9 multiply-adds for each of 28 x 28 pixels
row "conv2d conv1 (16, 28, 28) 160 238k"
said out "total"
unsaid out "SHA-256"
expect 0 model info mnist_student --json
said out '"op": "conv2d"'
unsaid out '"sha256"'
expect 2 model info mnist_pupil
said err 'no model "mnist_pupil"'
said err "mnist_student"
expect 1 model info "$folder/none.safetensors"
said err "none.safetensors"
expect 0 model info "$named"
row "input (1, 2, 2)"
row "classes 3"
row "normalisation mean 0.5; std 0.5"
row "class names cat, dog, eel"
row "test accuracy 75.00 %"
row "task corners"
row "linear fc (3,) 15 27"
said out "$(sha256sum "$named" | cut -d' ' -f1)"
expect 0 model info "$named" --json
said out '"sha256": "'"$(sha256sum "$named" | cut -d' ' -f1)"'"'
said out '"test_accuracy": 0.75'
said out '"dog"'
said out '"task": "corners"'

# ---- damaged and odd model files
size=$(wc -c <"$named")
for n in 0 7 8 100 $((size - 61)) $((size - 60)) $((size - 1)); do
    head -c "$n" "$named" >"$folder/cut.safetensors"
    for command in "model info" "eval" "predict"; do
        more=()
        [ "$command" != eval ] || more=("$data")
        [ "$command" != predict ] || more=("$here/corner-2x2.png")
        # shellcheck disable=SC2086
        expect 1 $command "$folder/cut.safetensors" "${more[@]}"
        said err "cut.safetensors"
    done
done
expect 1 model info "$here/corner-2x2.png"
weights | safetensors "$folder/odd.safetensors" "{$(meta 4 '[]'),$tensors}"
expect 1 model info "$folder/odd.safetensors"
said err "fc.weight is (3, 4), not (4, 4)"
weights | safetensors "$folder/odd.safetensors" "{$(meta 3 '[]' | sed s/logistic_regression/sphinx/),$tensors}"
expect 1 model info "$folder/odd.safetensors"
said err 'no model "sphinx"'
weights | safetensors "$folder/odd.safetensors" "{$(meta 3 '[]' | sed 's/"normalise_std":"0.5"/"normalise_std":"0"/'),$tensors}"
expect 1 predict "$folder/odd.safetensors" "$here/corner-2x2.png"
said err 'normalise_std "0" must be above 0'
weights | safetensors "$folder/odd.safetensors" "{$tensors}"
expect 1 eval "$folder/odd.safetensors" "$data"
said err "not a fedstill model"

# ---- eval
expect 0 eval "$plain" "$data"
row "accuracy 75.00 % (3 of 4 samples)"
row "cross entropy 0.651115"
row "class name samples recall"
row "0 - 1 100.00 % ####################"
row "1 - 2 50.00 % ##########"
said err "4 samples"
unsaid out confusion
expect 0 eval "$named" "$data" --split train --quiet
row "accuracy 100.00 % (6 of 6 samples)"
row "2 eel 2 100.00 % ####################"
silent err
expect 0 eval "$plain" "$data" --confusion --batch 3 --threads 2 -q
row "accuracy 75.00 % (3 of 4 samples)"
row "1 1 1 ."
row "2 . . 1"
expect 0 eval "$plain" "$data" --limit 3 --json -q
said out '"accuracy": 1.0'
said out '"samples": 3'
unsaid out '"confusion"'
silent err
expect 0 eval "$plain" "$data" --json --confusion -q
said out '"accuracy": 0.75'
said out '"loss": 0.6511'
said out '"confusion": ['
"$FEDSTILL" eval "$plain" "$data" -q >"$folder/one" && LC_ALL=C.UTF-8 "$FEDSTILL" eval "$plain" "$data" -q >"$folder/out"
last="fedstill eval in UTF-8"
row "1 - 2 50.00 % ██████████"

expect 2 eval "$plain"
expect 2 eval "$plain" "$data" --split validation
said err "train"
expect 2 eval "$plain" "$data" --format tar
said err 'unknown data format "tar"'
expect 2 eval "$plain" "$data" --limit 0
expect 1 eval "$plain" "$folder/none"
said err "there is no such file"
expect 1 eval "$folder" "$data"
expect 1 eval mnist_student "$data"

# ---- eval: data that is damaged or does not fit
idx "$folder/label" t10k "0 255 0 0 0" "7 0 255 0 0"
expect 1 eval "$plain" "$folder/label"
said err "has 8 classes, but the model $plain knows 3"
npy "$folder/wide.npy" '|u1' '(2, 1, 3, 2)' < <(bytes 1 2 3 4 5 6 1 2 3 4 5 6)
mkdir "$folder/wide" && cp "$folder/wide.npy" "$folder/wide/x_test.npy"
npy "$folder/wide/y_test.npy" '|u1' '(2,)' < <(bytes 0 1)
expect 1 eval "$plain" "$folder/wide"
said err "samples have shape (1, 3, 2), but the model $plain takes (1, 2, 2)"
cp -r "$data" "$folder/short"
head -c 20 "$data/t10k-images-idx3-ubyte" >"$folder/short/t10k-images-idx3-ubyte"
expect 1 eval "$plain" "$folder/short"
said err "t10k-images-idx3-ubyte"
for name in cat dog; do
    for split in train test; do
        mkdir -p "$folder/beasts/$split/$name" && cp "$here/corner-2x2.png" "$folder/beasts/$split/$name"
    done
done
expect 0 eval "$named" "$folder/beasts" -q
row "accuracy 50.00 % (1 of 2 samples)"
for split in train test; do
    mv "$folder/beasts/$split/dog" "$folder/beasts/$split/cow"
done
expect 1 eval "$named" "$folder/beasts"
said err 'class 1 is "cow"'
said err 'calls it "dog"'
expect 0 eval "$plain" "$folder/beasts" -q
floats nan 0 0 1 0 0 0 0 1 0 0 0 0 1 1 | safetensors "$folder/nan.safetensors" "{$(meta 3 '[]'),$tensors}"
expect 1 eval "$folder/nan.safetensors" "$data"
said err "sample 0 makes the model's output infinite or not a number"

# ---- predict
expect 0 predict "$named" "$here/corner-2x2.png"
said out "corner-2x2.png       0      0  cat       84.38 %"
row "1 dog 11.42 % ##"
row "2 eel 4.20 % #"
silent err
expect 0 predict "$plain" "$here/corner-2x2.png" --top 1
lines 3
said out "0  -         84.38 %"
expect 0 predict "$plain" "$here/corner-2x2.png" --top 9
lines 5
expect 0 predict "$named" "$here/corner-2x2.png" --json -k2
lines 1
said out '"sample":0,"top":[{"class":0,"name":"cat","probability":0.84379'
said out '{"class":1,"name":"dog","probability":0.11419'
unsaid out eel

bytes 255 0 0 0 | npy "$folder/one.npy" '|u1' '(2, 2)'
bytes 255 0 0 0 0 0 255 255 | npy "$folder/two.npy" '|u1' '(2, 1, 2, 2)'
floats 1 0 0 0 0 1 0 0 | npy "$folder/floats.npy" '<f4' '(2, 2, 2)'
floats 0 0 1 1 | safetensors "$folder/x.safetensors" '{"x":{"dtype":"F32","shape":[1,1,2,2],"data_offsets":[0,16]}}'
expect 0 predict "$plain" "$folder/one.npy" "$folder/two.npy" "$folder/floats.npy" "$folder/x.safetensors" \
    "$here/halves.npz" "$here/corner-2x2.png" --json -k 1
sed 's/.*"sample":\([0-9]*\).*"class":\([0-9]*\).*"probability":\(0.....\).*/\1 \2 \3/' "$folder/out" >"$folder/got"
cat >"$folder/wanted" <<'END'
0 0 0.8437
0 0 0.8437
1 2 0.9094
0 0 0.8437
1 1 0.8437
0 2 0.9094
0 0 0.8437
1 2 0.9094
0 0 0.8437
END
checks=$((checks + 1))
diff "$folder/wanted" "$folder/got" || fail "other classes"

# ---- predict: nothing is printed when one input is bad
expect 1 predict "$plain" "$here/corner-2x2.png" "$here/colour-3x2.png"
said err "colour-3x2.png: is 3 x 2 pixels, but the model takes 2 x 2"
head -c 50 "$here/corner-2x2.png" >"$folder/cut.png"
expect 1 predict "$plain" "$here/corner-2x2.png" "$folder/cut.png"
said err "cut.png"
expect 1 predict "$plain" "$folder/one.npy" "$folder/none.png"
said err "none.png"
expect 1 predict "$plain" "$folder/one.npy" "$folder/none.npy"
expect 1 predict "$plain" "$folder"
said err "is a folder"
expect 1 predict "$plain" "$folder/wanted"
said err "neither PNG nor JPEG"
expect 1 predict "$plain" "$folder/wide.npy"
said err "has shape (2, 1, 3, 2), but the model takes (1, 2, 2), or N of those"
expect 1 predict "$plain" "$named"
said err 'there is no tensor "x"'
npy "$folder/none.npy" '|u1' '(0, 2, 2)' </dev/null
expect 1 predict "$plain" "$folder/none.npy"
head -c 130 "$folder/one.npy" >"$folder/cut.npy"
expect 1 predict "$plain" "$folder/cut.npy"
number 16 0 | npy "$folder/int.npy" '<i4' '(2, 2)'
expect 1 predict "$plain" "$folder/int.npy"
said err "samples are I32; U8 or floats are needed"
floats 0 nan 0 0 | npy "$folder/nan.npy" '<f4' '(2, 2)'
expect 1 predict "$plain" "$folder/nan.npy"
said err "element 1 is"
expect 1 predict "$folder/nan.safetensors" "$here/corner-2x2.png"
said err "infinite or not a number"
expect 2 predict "$plain"
expect 2 predict "$plain" "$folder/one.npy" --top 0

# ---- data info
expect 0 data info "$data"
row "samples 6"
row "classes 3"
row "class name samples share"
row "0 - 2 33.33 % ##############################"
# 8 of 24 pixels are 1: the mean is 1/3, the deviation the root of 1/3 x 2/3
row "0 0.333333 0.471405"
said out "shape          (1, 2, 2) of U8 (24 B in all)"
digest=$(sed -n 's/^SHA-256 *//p' "$folder/out")
[ ${#digest} -eq 64 ] || fail "no digest"
silent err
expect 0 data info "$data" --split test --format idx --limit 2
row "samples 4"
row "1 - 2 50.00 % ##############################"
said out "1 more classes are not shown"
expect 0 data info "$data" --json
said out '"samples": 6'
said out "\"digest\": \"$digest\""
expect 0 data info "$folder/beasts" --split test
row "0 cat 1 50.00 % ##############################"
expect 1 data info "$folder/none"
expect 1 data info "$folder/wanted"
expect 1 data info "$folder/short" --split test
expect 1 data info "$plain"
said err "fedstill model info"
for kills in dies-1 dies-2 grows; do # of libhdf5's process
    expect 1 data info "$FEDSTILL_SOURCE/fuzz/corpus/hdf5/$kills.hdf5"
    said err "$kills.hdf5: "
done
expect 2 data info "$data" --format tar
expect 2 data info

# ---- data split
split=$folder/split.safetensors
expect 2 data split "$data" --partition iid --output "$split"
said err "--clients is needed"
expect 2 data split "$data" --clients 2 --output "$split"
said err "--partition is needed"
expect 2 data split "$data" --clients 2 --partition iid
said err "--output is needed"
expect 2 data split "$data" --clients 2 --partition fair --output "$split"
said err "dirichlet"
expect 2 data split "$data" --clients 2 --partition iid --alpha 1 --output "$split"
said err "--alpha means nothing"
expect 2 data split "$data" --clients 2 --partition dirichlet --classes-per-client 1 --output "$split"
expect 2 data split "$data" --clients 7 --partition iid --output "$split"
said err "6 samples are too few"
[ ! -e "$split" ] || fail "left $split"
expect 0 data split "$data" --clients 3 --partition shards --classes-per-client 1 --output "$split"
row "method shards(1)"
row "samples 6 of 6 given out"
row "samples each smallest 2, median 2, largest 2"
row "all 6 2 2 2"
said out "data digest    $digest"
silent err
cp "$folder/out" "$folder/first"
# each client has both samples of one class: its row is "K 2" and twice nothing
[ "$(grep -cE '^ +[1-3] +2( +\.)* +2( +\.)*$' "$folder/first")" -eq 3 ] || fail "other clients than wanted"
[ "$(grep -cE '^ +[1-3]\|( *)##( *)\|$' "$folder/first")" -eq 3 ] || fail "another picture than wanted"
expect 0 data info "$split"
checks=$((checks + 1))
diff "$folder/first" "$folder/out" || fail "data split and data info show different things"
expect 1 data split "$data" --clients 2 --partition iid --output "$split"
said err "--force"
expect 0 data split "$data" --clients 2 --partition iid --output "$split" --force
row "method iid"
row "samples each smallest 3, median 3, largest 3"
expect 0 data split "$data" --clients 2 --partition dirichlet --alpha 0.3 --seed 5 --output "$folder/a.part"
row "seed 5"
row "method dirichlet(0.3)"
expect 0 data split "$data" --clients 2 --partition dirichlet --alpha 0.3 --seed 5 --output "$folder/b.part"
cmp "$folder/a.part" "$folder/b.part" || fail "the same seed gave another split"
expect 0 data split "$data" --clients 2 --partition quantity --min-samples 2 --output "$folder/q.part" --split test
row "samples each smallest 2, median 2, largest 2"
expect 0 data split "$data" --clients 6 --partition iid --limit 2 --output "$folder/six.part"
said out "4 more clients are not shown"
expect 0 data info "$folder/six.part" --limit 5 --ascii
said out "1 more clients are not shown"
expect 0 data info "$folder/a.part" --json
said out '"kind":"partition"'
said out "\"data_digest\":\"$digest\""
head -c 200 "$split" >"$folder/cut.safetensors"
expect 1 data info "$folder/cut.safetensors"
expect 1 data split "$data" --clients 2 --partition iid --output "$folder/no/such/folder/x"
LC_ALL=C.UTF-8 "$FEDSTILL" data info "$split" >"$folder/out" && last="data info in UTF-8" && said out "│"
LC_ALL=C.UTF-8 "$FEDSTILL" data info "$split" --ascii >"$folder/out" && last="data info --ascii" && unsaid out "│"

# ---- names of classes that are no text are found when the data are opened
mkdir -p "$folder/names/a" "$folder/names/b"$'\377'
for name in a b$'\377'; do cp "$here/corner-2x2.png" "$folder/names/$name/"; done
expect 1 data info "$folder/names"
said err "$folder/names: the name of class 1, \"b"
said err "is not UTF-8"

# ---- many classes: columns are shared, counts become pictures
mkdir "$folder/many"
for name in train test; do
    # shellcheck disable=SC2046
    bytes $(seq 0 59) $(seq 0 59) | npy "$folder/many/y_$name.npy" '|u1' '(120,)'
    head -c 480 /dev/zero | npy "$folder/many/x_$name.npy" '|u1' '(120, 1, 2, 2)'
done
expect 0 data info "$folder/many"
row "29 - 2 1.67 % ##############################"
said out "30 more classes are not shown"
expect 0 data split "$folder/many" --clients 2 --partition iid --output "$folder/many.part" -q
row "client samples classes"
row "all 120 60"
said out "classes, 2 a column"
zeros='"fc.bias":{"dtype":"F32","shape":[60],"data_offsets":[0,240]},'
zeros+='"fc.weight":{"dtype":"F32","shape":[60,4],"data_offsets":[240,1200]}'
head -c 1200 /dev/zero | safetensors "$folder/zeros.safetensors" "{$(meta 60 '[]'),$zeros}"
# every logit is equal: the first class wins, and the cross entropy is the logarithm of 60
expect 0 eval "$folder/zeros.safetensors" "$folder/many" --confusion -q
row "accuracy 1.67 % (2 of 120 samples)"
row "cross entropy 4.09434"
said out "mistakes: "
[ "$(grep -cE '^ *[0-9]+\|## +\|$' "$folder/out")" -eq 59 ] || fail "59 classes should be taken for the first"
expect 0 predict "$folder/zeros.safetensors" "$here/corner-2x2.png" --top 2
said out "1.67 %"
row "1 - 1.67 % #"

# ---- names that a terminal would obey or turn round: none of them is printed, and --json escapes them
csi=$'\xc2\x9b' turn=$'\xe2\x80\xae'
for name in "a${turn}b" "c${csi}d"; do
    mkdir -p "$folder/hostile/$name" && cp "$here/corner-2x2.png" "$folder/hostile/$name"
done
expect 0 data info "$folder/hostile" --format folder
said out "a?b"
unsaid out "$turn"
unsaid out "$csi"
expect 0 data info "$folder/hostile" --format folder --json
said out '"a\u202eb"'
said out '"c\u009bd"'
unsaid out "$turn"
unsaid out "$csi"
cat >"$folder/hostile.yaml" <<'END'
name: "c\u009Bd\u202Ee"
seed: 1
data: {source: synth, synth: {generator: modulation, windows: 88}, test: 0.5}
stages:
  cloud_pretrain: {model: real_resnet20_link11_h width=0.05, epochs: 1, batch_size: 16}
END
expect 0 run "$folder/hostile.yaml" --output "$folder/hostile-run" -q
said out "c?d?e: models, "
expect 0 run "$folder/hostile.yaml" --output "$folder/hostile-run" -q --json
said out '"c\u009bd\u202ee"'
unsaid out "$turn"
unsaid out "$csi"
expect 1 data info "$folder/none$turn$csi"
unsaid err "$turn"
unsaid err "$csi"

# ---- a full disk
if [ -w /dev/full ]; then
    "$FEDSTILL" predict "$plain" "$folder/one.npy" >/dev/full 2>"$folder/err"
    [ $? -eq 1 ] || { last="predict >/dev/full" && fail "no exit status 1"; }
fi

echo "$checks checks, $failed failed"
[ $failed -eq 0 ]
