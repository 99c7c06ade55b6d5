#!/bin/bash
# Whatever is wrong with what a run is given - data, task file, numbers, disk - ends it with a clear message,
# the documented exit status, and nothing half-written.
# Needs $FEDSTILL, the program, and $FEDSTILL_HELPER, built from helper.c.
# shellcheck source=tests/task/common.sh disable=SC2046,SC2086 # lists of options are split on purpose
. "$(dirname "$0")/common.sh"
helper=$FEDSTILL_HELPER
mounted=""
clean_up() {
    [ -z "$mounted" ] || umount "$mounted"
    chmod -R u+rwx "$folder" 2>/dev/null
    rm -rf "$folder"
}
task=$folder/task
mkdir "$task"
"$helper" data "$folder/good" 300 100 || exit 1

write_task() { # [DATA-LINE]: the task over $folder/data, or what the line says
    cat >"$task/task.yaml" <<END
name: bad
seed: 5
data: ${1:-{source: idx, path: $folder/data\}}
clients: {count: 3}
checkpoint: {steps: 1}
stages:
  cloud_pretrain:  {model: mnist_teacher, epochs: 1, batch_size: 64}
  cloud_kd:        {temperature: 4.0}
  edge_kd:         {model: mnist_student, epochs: 1, batch_size: 64}
  federated_train: {rounds: 2, batch_size: 16, optimizer: {name: sgd, learning_rate: 0.05}}
END
}

# refused STATUS TEXT... : a run from nothing ends so, says all of this, and leaves no artifact and no litter.
refused() {
    local status=$1 text
    shift
    rm -rf "$task/output"
    if expect "$status" run "$task" "${set[@]}"; then :; fi
    for text; do said err "$text"; done
    unsaid err Sanitizer
    same "$last: artifacts" "$(find "$task/output" -name '*.safetensors' -o -name '*.tmp.*' -o -name '*.json' 2>/dev/null)" ""
}
set=()

# ---- IDX
images=train-images-idx3-ubyte labels=train-labels-idx1-ubyte
spoil() { # a fresh copy of the data; then the command runs inside
    rm -rf "$folder/data"
    cp -r "$folder/good" "$folder/data"
    (cd "$folder/data" && "$@") || fail "cannot spoil the data: $*"
}
put() { printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; } # FILE OFFSET BYTES
write_task
spoil truncate -s 100000 $images
refused 1 "data/$images"
spoil truncate -s 7 $images
refused 1 "data/$images" header
spoil truncate -s 0 $images
refused 1 "data/$images"
spoil truncate -s 0 $labels
refused 1 "data/$labels"
spoil truncate -s +1 $images
refused 1 "data/$images"
spoil truncate -s +5 $labels
refused 1 "data/$labels"
spoil put $images 4 '\xff\xff\xff\xff' # four thousand million images
refused 1 "data/$images" "promise more than a file of"
spoil put $images 8 '\xff\xff\xff\xff'
refused 1 "data/$images"
spoil put $images 4 '\0\0\0\0'
refused 1 "data/$images" "hold nothing"
spoil put $images 0 'PK'
refused 1 "data/$images" "not IDX"
spoil put $images 2 '\x0d'
refused 1 "data/$images" "unsigned bytes"
spoil put $images 3 '\x09'
refused 1 "data/$images" dimensions
spoil put $images 4 '\0\0\x01\x2b' # one image fewer than labels
refused 1 "data/$images"
spoil rm $labels
refused 1 "$labels"
spoil put t10k-labels-idx1-ubyte 20 '\x0b' # class 11 is in the test labels alone
refused 1 "10 classes" "12"
spoil put $labels 30 '\xc8'
set=(--set data.classes=10)
refused 1 "$folder/data" "sample 22 has label 200, labels must be 0 ... 9"
set=()
spoil put t10k-images-idx3-ubyte 8 '\0\0\0\x0e\0\0\0\x38' # 14 x 56 pixels
refused 1 "(1, 28, 28)" "(1, 14, 56)"

zip_all() { gzip "$folder/data/"*; }
spoil zip_all
expect 0 run "$task"
spoil zip_all && truncate -s 20000 "$folder/data/$images.gz"
refused 1 "data/$images.gz"
spoil zip_all && put "$folder/data/$images.gz" 30000 'spoilt'
refused 1 "data/$images.gz"
spoil zip_all && put "$folder/data/$images.gz" 0 'PK'
refused 1 "data/$images.gz"
lie() { put $images 4 '\x7f\xff\xff\xff' && gzip ./*; }
spoil lie
refused 1 "data/$images.gz"
bomb() { (cat $images && head -c 300000000 /dev/zero) | gzip -1 >$images.gz && rm $images; }
spoil bomb
refused 1 "data/$images.gz"

# ---- one class: every model would be right
"$helper" named "$folder/one.safetensors" 30 a 1 1 || exit 1
write_task "{source: array, path: $folder/one.safetensors, test: 0.3}"
refused 2 "are of one class, \"a\": two at least are needed"
expect 2 run "$task" --dry-run
said err "are of one class"

# ---- CIFAR-10
rm -rf "$folder/cifar" && mkdir "$folder/cifar"
cifar_batch() { # FILE COUNT LABEL
    for _ in $(seq "$2"); do
        printf "\\x$(printf %02x "$3")"
        head -c 3072 /dev/zero
    done >"$folder/cifar/$1"
}
for i in 1 2 3 4 5; do cifar_batch data_batch_$i.bin 4 $i; done
cifar_batch test_batch.bin 4 2
write_task "{source: cifar10, path: $folder/cifar}"
set=(--set stages.cloud_pretrain.model=cifar_teacher --set stages.edge_kd.model=cifar_student --set data.classes=10)
rm -rf "$task/output"
expect 0 run "$task" "${set[@]}"
truncate -s -1 "$folder/cifar/data_batch_3.bin"
refused 1 data_batch_3.bin
cifar_batch data_batch_3.bin 4 11
refused 1 "$folder/cifar" "sample 8 has label 11"
: >"$folder/cifar/data_batch_3.bin"
refused 1 data_batch_3.bin
cifar_batch data_batch_3.bin 4 3
rm "$folder/cifar/test_batch.bin"
refused 1 test_batch.bin
set=()

# ---- class folders: tiny images, written byte by byte
png='\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0\x3a\x7e\x9b\x55\0\0\0\nIDATx\x9cc`\0\0\0\x02\0\x01\x48\xaf\xa4\x71\0\0\0\0IEND\xae\x42\x60\x82'
make_images() {
    rm -rf "$folder/images"
    local split class i
    for split in train test; do
        for class in cat dog; do
            mkdir -p "$folder/images/$split/$class"
            for i in 1 2 3; do [ $split$i = test3 ] || printf "$png" >"$folder/images/$split/$class/$i.png"; done
        done
    done
}
write_task "{source: folder, path: $folder/images, channels: 1}"
set=(--set stages.cloud_pretrain.model=logistic_regression --set stages.edge_kd.model=logistic_regression --set clients.count=2)
make_images
rm -rf "$task/output"
expect 0 run "$task" "${set[@]}"
truncate -s 40 "$folder/images/train/dog/2.png"
refused 1 train/dog/2.png
printf 'no image at all' >"$folder/images/train/dog/2.png"
refused 1 train/dog/2.png
: >"$folder/images/train/dog/2.png"
refused 1 train/dog/2.png
printf "$png" >"$folder/images/train/dog/2.png"
put "$folder/images/train/dog/2.png" 16 '\x7f\xff\xff\xff\x7f\xff\xff\xff' # a header that lies
refused 1 train/dog/2.png
rm "$folder/images/train/dog/2.png"
printf '\xff\xd8\xff\xe0\0\x10JFIF\0\x01' >"$folder/images/train/dog/2.jpg"
refused 1 train/dog/2.jpg
make_images
mv "$folder/images/test/dog" "$folder/images/test/wolf"
refused 1 wolf
make_images
rm "$folder/images/test/"*/*
refused 1 images/test "no PNG or JPEG"
set=()

# ---- arrays
"$helper" array "$folder/x.safetensors" 60 -1 || exit 1
write_task "{source: array, path: $folder/x.safetensors}"
rm -rf "$task/output"
expect 0 run "$task"
truncate -s -4 "$folder/x.safetensors"
refused 1 x.safetensors
truncate -s 5 "$folder/x.safetensors"
refused 1 x.safetensors
printf '\xff\xff\xff\xff\xff\xff\xff\x7f{}' >"$folder/x.safetensors"
refused 1 x.safetensors
text='{"x":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,16]}}'
{ printf "\\x$(printf %02x ${#text})\0\0\0\0\0\0\0%s" "$text" && head -c 16 /dev/zero; } >"$folder/x.safetensors"
refused 1 x.safetensors
write_task "{source: array, path: $folder/x.npy}"
{ printf '\x93NUMPY\x01\0\x46\0%-69s\n' "{'descr': '<i8', 'fortran_order': False, 'shape': (4,)}" && head -c 32 /dev/zero; } \
    >"$folder/y.npy"
printf '\x93NUMPY\x01\0\x46\0%-69s\n' "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999, 784)}" >"$folder/x.npy"
refused 1 x.npy
printf '\x93NUMPY\x01\0' >"$folder/x.npy"
refused 1 x.npy
write_task "{source: array, path: $folder/x.npz}"
printf 'PK\x03\x04 and then nothing' >"$folder/x.npz"
refused 1 x.npz
write_task "{path: $folder/nowhere}"
refused 1 "$folder/nowhere"

# ---- the task file
write_task "{source: idx, path: $folder/good}"
cp "$task/task.yaml" "$folder/task.yaml"
said_of_task() { # TEXT...: the edited task file is refused as configuration, with its name
    refused 2 "$task/task.yaml" "$@"
    same "$last: output" "$(ls "$task/output" 2>/dev/null)" ""
    cp "$folder/task.yaml" "$task/task.yaml"
}
edit() { sed -i "$1" "$task/task.yaml"; }
edit 's/temperature/temprature/'
said_of_task "task.yaml:8" temprature 'did you mean "temperature"?'
edit 's/epochs: 1/epochs: many/'
said_of_task "stages.cloud_pretrain.epochs" '"many"' "whole number"
edit 's/epochs: 1/epochs: 0/'
said_of_task "stages.cloud_pretrain.epochs" "from 1 to"
edit 's/learning_rate: 0.05/learning_rate: 1e30/'
said_of_task "stages.federated_train.optimizer.learning_rate" "1e30"
edit 's/learning_rate: 0.05/learning_rate: .nan/'
said_of_task "learning_rate"
edit 's/{count: 3}/[3]/'
said_of_task "clients" "list"
edit 's/^seed: 5/\tseed: 5/'
said_of_task "task.yaml:2"
edit 's/^seed: 5/seed: 5\nseed: 6/'
said_of_task "task.yaml:3" seed
edit 's/sgd/sdg/'
said_of_task '"sdg"' 'did you mean "sgd"?'
edit '/cloud_kd/d'
said_of_task "edge_kd" "needs the stage cloud_kd"
edit 's/^data: .*/data: {path: "x/'
said_of_task
head -c 4000 /dev/urandom >"$task/task.yaml"
said_of_task
: >"$task/task.yaml"
said_of_task
{ cat "$folder/task.yaml" && yes '# much text' | head -c 2097152; } >"$task/task.yaml"
said_of_task "too large for a task file"
{ echo 'a: &a [x, x, x, x, x, x, x, x, x]'
    for pair in ba cb dc ed fe gf hg ih; do
        a=*${pair#?}
        echo "${pair%?}: &${pair%?} [$a, $a, $a, $a, $a, $a, $a, $a, $a]"
    done; } >"$task/task.yaml"
said_of_task
rm "$task/task.yaml"
refused 2 "$task" "no task.yaml"
cp "$folder/task.yaml" "$task/task.yaml"

# ---- settings that only the data can tell to be wrong: before anything is trained
set=(--set stages.edge_kd.model=mnist_studnet)
refused 2 "stages.edge_kd.model" 'no model "mnist_studnet"' mnist_student
set=(--set stages.federated_train.model=mnist_teacher)
refused 2 "stages.federated_train" "init"
set=(--set clients.count=301)
refused 2 clients 301
set=(--set data.normalise.mean=[0.1,0.2] --set data.normalise.std=[1,1])
refused 2 "data.normalise has 2 values"
set=(--set stages.cloud_pretrain.modle=x)
refused 2 modle 'did you mean "model"?'
set=()

# ---- numbers that are none
diverges() { # STAGE SETTING...
    local stage=$1
    shift
    rm -rf "$task/output"
    expect 1 run "$task" "$@"
    said err "$stage"
    unsaid err Sanitizer
    true_that "$last: $stage has a record or a model" \
        [ ! -e "$task/output/$stage/stage.json" ] && [ ! -e "$task/output/$stage/model.safetensors" ]
    same "$last: left over" "$(find "$task/output" -name '*.tmp.*')" ""
    "$FEDSTILL" runs "$task/output" --json >"$folder/out"
    said out '"status": "failed"'
}
# L2 ten thousand times too strong: parameters grow ten-thousandfold with every step, with changing sign
huge() { printf -- '--set stages.%s.optimizer.%s ' $1 name=sgd $1 learning_rate=1000 $1 weight_decay=10; }
diverging="--set stages.cloud_pretrain.epochs=50 --set stages.cloud_pretrain.batch_size=16 $(huge cloud_pretrain)"
diverges cloud_pretrain $diverging
said err "epoch 1 of 50, step "
said err "finite number"
checkpoint=$task/output/cloud_pretrain/checkpoint.safetensors
said err "the last good state is in $checkpoint"
true_that "the checkpoint that the message names is not there" [ -s "$checkpoint" ]
# it is good: a run goes on from it, to fail at the same step
grep -o 'epoch [0-9]* of 50, step [0-9]* of [0-9]*' "$folder/err" | tail -n 1 >"$folder/first"
expect 1 run "$task" $diverging
said err "cloud_pretrain: going on at epoch"
grep -o 'epoch [0-9]* of 50, step [0-9]* of [0-9]*' "$folder/err" | tail -n 1 >"$folder/second"
true_that "going on from the last good state fails elsewhere" cmp -s "$folder/first" "$folder/second"
# with other settings the same folder comes to its end
expect 0 run "$task"

diverges edge_kd $(huge edge_kd) --set stages.edge_kd.epochs=50 --set stages.edge_kd.batch_size=16
said err "edge_kd: epoch 1 of 50, step "
true_that "the stages before are not kept" [ -s "$task/output/cloud_kd/soft_labels.safetensors" ]
diverges federated_train $(huge federated_train) --set stages.federated_train.local_epochs=9
said err "round 1"
said err "step "
said err "finite number"
true_that "the stages before are not kept" [ -s "$task/output/edge_kd/model.safetensors" ]
expect 0 run "$task"

"$helper" array "$folder/nan.safetensors" 60 30 || exit 1
write_task "{source: array, path: $folder/nan.safetensors}"
refused 1 "$folder/nan.safetensors: sample 30, element 400 is nan"
write_task "{source: idx, path: $folder/good}"

# ---- a disk that is full, in two ways: no file can be longer than so much, and no block is left
rm -rf "$task/output"
expect 0 run "$task" --no-reuse --set output=whole
reference=$(cd "$task/whole" && sha256sum -- */*.safetensors)
whole() { # OUTPUT: what a run that came to its end left is all there
    same "$1: after the disk was full" "$(cd "$1" && sha256sum -- */*.safetensors)" "$reference"
}
for blocks in 1 30 600 2500; do
    rm -rf "$task/output"
    checks=$((checks + 1))
    last="fedstill run with files of at most $blocks KiB"
    (ulimit -f $blocks && exec "$FEDSTILL" run "$task" --no-reuse) >"$folder/out" 2>"$folder/err" </dev/null
    same "$last: exit status" $? 1
    said err "cannot write $task/output/"
    said err "File too large"
    same "$last: left over" "$(find "$task/output" -name '*.tmp.*')" ""
    expect 0 run "$task" --no-reuse
    whole "$task/output"
done

disk=$folder/disk
mkdir "$disk"
if mount -t tmpfs -o size=256k fedstill-test "$disk" 2>"$folder/mount"; then
    mounted=$disk
    for size in 256k 1500k 3m 7m; do
        rm -rf "$disk/output"
        mount -o remount,size=$size "$disk" || fail "cannot limit $disk to $size"
        expect 1 run "$task" --no-reuse --set output="$disk/output"
        said err "$disk/output"
        said err "No space left on device"
        same "$last: left over" "$(find "$disk/output" -name '*.tmp.*')" ""
        mount -o remount,size=64m "$disk"
        expect 0 run "$task" --no-reuse --set output="$disk/output"
        whole "$disk/output"
    done
    # what was there before stays: beside the work that could not be done, and it comes back with its settings
    head -c 70000000 /dev/zero >"$disk/filler" 2>/dev/null
    expect 1 run "$task" --no-reuse --set output="$disk/output" --set stages.cloud_pretrain.epochs=2
    said err "No space left on device"
    expect 1 run "$task" --no-reuse --set output="$disk/output" --set stages.federated_train.rounds=3
    said err "No space left on device"
    expect 0 run "$task" --no-reuse --set output="$disk/output"
    said err "federated_train: kept from an earlier run"
    whole "$disk/output"
    umount "$disk" && mounted=""
else
    # The same check with the other limit: files that are there already are longer than allowed now.
    echo "NOTE: no tmpfs can be mounted here ($(cat "$folder/mount")): a full disk is played by a limit of file sizes only"
    (ulimit -f 8 && exec "$FEDSTILL" run "$task" --no-reuse --set stages.federated_train.rounds=3) >"$folder/out" 2>"$folder/err"
    last="fedstill run over what is there, with files of at most 8 KiB"
    same "$last: exit status" $? 1
    said err "File too large"
    expect 0 run "$task" --no-reuse
    whole "$task/output"
fi
last="fedstill run >/dev/full"
"$FEDSTILL" run "$task" >/dev/full 2>"$folder/err"
same "$last: exit status" $? 1
said err "cannot write to standard output"

# ---- an output folder that cannot be
: >"$folder/file"
expect 1 run "$task" --no-reuse --set output="$folder/file"
said err "cannot make folder $folder/file: there is a file of this name"
same "the file" "$(stat -c %s "$folder/file")" 0
expect 1 run "$task" --no-reuse --set output="$folder/file/below"
said err "cannot make folder $folder/file"
expect 1 run "$task" --no-reuse --set output=/proc/fedstill
said err "cannot make folder /proc/fedstill"
mkdir "$folder/locked" "$folder/locked/output"
chmod 555 "$folder/locked" "$folder/locked/output"
cp "$FEDSTILL" "$folder/fedstill"
mkdir -m 777 "$folder/everybody"
chmod 711 "$folder"
chmod -R a+rX "$folder/good" "$task"
if [ "$(id -u)" -ne 0 ]; then
    as_user=()
elif setpriv --reuid=65534 --regid=65534 --clear-groups "$folder/fedstill" --version >/dev/null 2>&1; then
    as_user=(setpriv --reuid=65534 --regid=65534 --clear-groups)
else
    fail "NOT CHECKED: an output folder without permission: root may write anywhere, and setpriv does not work here"
    finish
fi
for output in "$folder/locked/new" "$folder/locked/output"; do
    last="fedstill run with output $output, which may not be written"
    FEDSTILL_HOME=$folder/everybody "${as_user[@]}" "$folder/fedstill" run "$task" --no-reuse --set output="$output" \
        >"$folder/out" 2>"$folder/err" </dev/null
    same "$last: exit status" $? 1
    said err "$output"
    said err "Permission denied"
done
same "files in folders that may not be written" "$(find "$folder/locked" -type f)" ""
# a registry that cannot be written is worth a warning only
rm -rf "$folder/everybody/"*
last="fedstill run without a registry"
FEDSTILL_HOME=$folder/locked/home "${as_user[@]}" "$folder/fedstill" run "$task" --no-reuse --set output="$folder/everybody/output" \
    >"$folder/out" 2>"$folder/err" </dev/null
same "$last: exit status" $? 0
said err "will not be listed"
whole "$folder/everybody/output"

finish
