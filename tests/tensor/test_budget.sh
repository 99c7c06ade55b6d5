#!/bin/bash
# Small files that would take much: each is refused in words, before the memory is taken. What is allowed grows with the
# file (32 bytes for each of its bytes, and 1 MiB), so every refusal is tried again with little address space;
# under the address sanitizer, whose own space is vast, with little resident memory instead.
# Needs $FEDSTILL, the program, and $FEDSTILL_SOURCE, the sources.
set -u
. "$(dirname "$0")/../cmd/common.sh"
pth=$FEDSTILL_SOURCE/tests/tensor/pth
asan=
if ldd "$FEDSTILL" | grep -q 'libasan\|libtsan' || nm "$FEDSTILL" 2>/dev/null | grep -q __asan_init; then asan=yes; fi

# bounded MEGABYTES STATUS ARGUMENT...: as expect, with so much memory besides what the program itself takes (64).
bounded() {
    local most=$((64 + $1)) program=$FEDSTILL
    shift
    if [ -n "$asan" ]; then
        cat >"$folder/limited" <<END
#!/bin/bash
export ASAN_OPTIONS=hard_rss_limit_mb=$((4 * most)):quarantine_size_mb=4:\${ASAN_OPTIONS:-}
exec "$program" "\$@"
END
    else
        cat >"$folder/limited" <<END
#!/bin/bash
ulimit -v $((192 * 1024 + most * 1024))
exec "$program" "\$@"
END
    fi
    chmod +x "$folder/limited"
    FEDSTILL=$folder/limited
    expect "$@"
    FEDSTILL=$program
}
# as_safetensors FILE: stdin is a header.
as_safetensors() {
    local n i
    cat >"$folder/header"
    n=$(stat -c %s "$folder/header")
    for i in 0 8 16 24 32 40 48 56; do
        printf "\\x$(printf %x $((n >> i & 255)))"
    done | cat - "$folder/header" >"$1"
}
# le NUMBER BYTES: little-endian
le() {
    local i
    for ((i = 0; i < $2; i++)); do printf "\\x$(printf %x $(($1 >> 8 * i & 255)))"; done
}
# as_zip ARCHIVE FILE...: deflated members; gzip makes the stream and the checksum
as_zip() {
    local archive=$1 file entry at name
    : >"$archive" && : >"$folder/directory"
    shift
    for file in "$@"; do
        name=$(basename "$file")
        gzip -1n <"$file" | tail -c +11 >"$folder/deflated"
        entry() {
            le 20 2 && le 0 2 && le 8 2 && le 0 4 && tail -c 8 "$folder/deflated" | head -c 4 &&
                le $(($(stat -c %s "$folder/deflated") - 8)) 4 && le "$(stat -c %s "$file")" 4 && le ${#name} 2 && le 0 2
        }
        at=$(stat -c %s "$archive")
        { printf 'PK\1\2' && le 20 2 && entry && le 0 10 && le "$at" 4 && printf %s "$name"; } >>"$folder/directory"
        { printf 'PK\3\4' && entry && printf %s "$name" && head -c -8 "$folder/deflated"; } >>"$archive"
    done
    at=$(stat -c %s "$archive")
    cat "$folder/directory" >>"$archive"
    { printf 'PK\5\6' && le 0 4 && le $# 2 && le $# 2 && le "$(stat -c %s "$folder/directory")" 4 && le "$at" 4 && le 0 2; } \
        >>"$archive"
}
# repeat BYTES COUNT
repeat() {
    yes "$1" | tr -d '\n' | head -c $((${#1} * $2))
}

import() { # FILE: at most what is named in MEGABYTES
    bounded "$2" 1 model import "$1" --as mnist_student --out "$folder/none"
    [ ! -e "$folder/none" ] || fail "$1 left a file"
}

# ---- tensors and dictionaries that stand for more than there is
import "$pth/stride0.pth" 8 # (32768, 32768) of one element
said err "bytes that are allowed for a file of its size"
import "$pth/shared_dicts.pth" 8 # dictionaries in dictionaries, a million tensors by name
said err "bytes that are allowed"
import "$pth/deflated.pth" 8 # 16 MB of empty lists in 16 kB
said err "a data.pkl of more than"

# ---- 2 MB of pickle: values, copies
for op in ']' '}'; do
    { printf '\x80\x02(' && repeat "$op" 2000000 && printf 'l.'; } >"$folder/values.pkl"
    bounded 80 1 data info --format radioml "$folder/values.pkl"
    said err "its values take more than the 65048736 bytes"
done
# None, numbers and texts, of which every sound pickle is full, are no reason to refuse it
for op in 'N' 'K\x01' 'M\x01\x02' 'U\x01a'; do
    { printf '\x80\x02(' && repeat "$op" 500000 | sed 's/\\x01/\x01/g;s/\\x02/\x02/g' && printf 'l.'; } >"$folder/values.pkl"
    bounded 80 1 data info --format radioml "$folder/values.pkl"
    said err "the pickle holds no dictionary"
done
# a list of pairs made a dictionary again and again
{
    printf '\x80\x02ccollections\nOrderedDict\nq\x01((' && repeat 'NN_' 20000 | tr _ '\206' &&
        printf 'lq\x02\x85q\x03' && repeat 'h1h3R' 20000 | tr 13 '\001\003' && printf 'l.'
} >"$folder/copies.pkl"
bounded 16 1 data info --format radioml "$folder/copies.pkl"
said err "its values take more than"
# a memo number far ahead
printf '\x80\x02Nr\xff\xff\xff\x00.' >"$folder/memo.pkl"
bounded 8 1 data info --format radioml "$folder/memo.pkl"
said err "a memo number that is too large"

# ---- headers and other JSON: 2 MB of empty objects and lists
for piece in '{},' '[],' '[0],'; do
    { printf '{"x":[' && repeat "$piece" $((2000000 / ${#piece})) && printf '0]}'; } | as_safetensors "$folder/json.safetensors"
    bounded 80 1 model info "$folder/json.safetensors"
    said err "its JSON takes more memory than the"
    bounded 80 1 data info "$folder/json.safetensors"
    said err "its JSON takes more memory than the"
done
expect 0 model import "$pth/logistic.pth" --as logistic_regression --input 1,1,2 --out "$folder/model.safetensors"
# names of classes that are none
{
    printf '{"__metadata__":{"format":"fedstill-model-1","arch":"logistic_regression","classes":"2","input":"1,1,2","class_names":"['
    repeat '{},' 600000
    printf '0]"},"fc.bias":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
    printf '"fc.weight":{"dtype":"F32","shape":[2,2],"data_offsets":[8,24]}}'
} | as_safetensors "$folder/names.safetensors"
tail -c 24 "$folder/model.safetensors" >>"$folder/names.safetensors"
bounded 80 1 model info "$folder/names.safetensors"
said err "its JSON takes more memory than the"

# ---- ONNX: a graph of 2 MB of empty nodes, tensors, and fields that are passed over, each some 100 bytes in memory
for field in '\012' '\052' '\032'; do
    { printf '\x08\x08\x3a' && le $((2000000 & 127 | 128)) 1 && le $((2000000 >> 7 & 127 | 128)) 1 && le $((2000000 >> 14)) 1 &&
        repeat 'N_' 1000000 | tr 'N_' "$field\\000"; } >"$folder/nodes.onnx"
    bounded 80 1 model import "$folder/nodes.onnx" --out "$folder/none"
    said err "its graph takes more memory than a file of its size may"
done
bounded 24 0 model import "$FEDSTILL_SOURCE/tests/models/onnx-resnet8.onnx" --out "$folder/sound.safetensors"

# ---- numbers in headers
printf '\x93NUMPY\1\0v\0%-117s\n' "{'descr': '<f4', 'fortran_order': False, 'shape': (100000, 100000), }" >"$folder/x.npy"
bounded 8 1 data info "$folder/x.npy"
printf '{"x":{"dtype":"F32","shape":[1000000000,1000000000],"data_offsets":[0,0]}}' | as_safetensors "$folder/big.safetensors"
bounded 8 1 model info "$folder/big.safetensors"
printf '{"__metadata__":{"format":"fedstill-model-1","arch":"resnet50","classes":"65536","input":"3,4096,4096"}}' |
    as_safetensors "$folder/promise.safetensors"
bounded 8 1 model info "$folder/promise.safetensors"
said err "tensors do not fit the network"

# ---- 20 MB of SigMF metadata that say something of 8 samples, refused before they are parsed
{
    printf '{"global": {"core:datatype": "cu8", "core:version": "1.0.0"}, "captures": [], "annotations": ['
    repeat '{"core:sample_start": 0, "core:label": "x"},' 460000
    printf '{"core:sample_start": 0, "core:label": "x"}]}'
} >"$folder/much.sigmf-meta"
head -c 16 /dev/zero >"$folder/much.sigmf-data"
bounded 8 1 data info "$folder/much.sigmf-meta" --window 1
said err "bytes of metadata of 16 bytes of samples"

# ---- a limit: of 235 MB of images that 230 kB inflate to, only those that it leaves are kept; 9 of each of two labels
mkdir "$folder/idx"
{ printf '\0\0\10\3\0\4\223\340\0\0\0\34\0\0\0\34' && head -c 235200000 /dev/zero; } |
    gzip -1 >"$folder/idx/train-images-idx3-ubyte.gz"
{ printf '\0\0\10\1\0\4\223\340' && repeat '01' 150000 | tr 01 '\000\001'; } |
    gzip >"$folder/idx/train-labels-idx1-ubyte.gz"
bounded 16 0 data import "$folder/idx" --limit 18 --out "$folder/few.npz"
expect 0 data info "$folder/few.npz"
row "0 0 9 50.00 % ##############################"
# Without the limit they do not fit; the address sanitizer's bound is too wide to show it.
[ -n "$asan" ] || bounded 16 1 data import "$folder/idx" --out "$folder/none.npz"

# The same of arrays, in C and in Fortran order, of doubles, and of CIFAR's records: only the rows that a limit leaves are
# kept. Files of holes, which take no room on the disk; 300,000 labels of two classes take 16 MB themselves.
# as_npy FILE DESCR FORTRAN SHAPE BYTES
as_npy() {
    printf '\x93NUMPY\1\0v\0%-117s\n' "{'descr': '$2', 'fortran_order': $3, 'shape': ($4), }" >"$1"
    truncate -s $((128 + $5)) "$1"
}
limited() { # ARGUMENT...: with a limit it fits, without it does not
    bounded 24 0 data import "$@" --limit 18 --out "$folder/few.npz"
    expect 0 data info "$folder/few.npz"
    row "0 0 9 50.00 % ##############################"
    [ -n "$asan" ] || bounded 24 1 data import "$@" --out "$folder/none.npz"
    rm -f "$folder/few.npz"
}
mkdir "$folder/npy" "$folder/cifar" && rm -f "$folder/few.npz"
{ printf '\x93NUMPY\1\0v\0%-117s\n' "{'descr': '|u1', 'fortran_order': False, 'shape': (300000,), }" &&
    repeat '01' 150000 | tr 01 '\000\001'; } >"$folder/npy/y.npy"
as_npy "$folder/npy/x.npy" '|u1' False '300000, 28, 28' 235200000
limited "$folder/npy"
as_zip "$folder/packed.npz" "$folder/npy/x.npy" "$folder/npy/y.npy"
limited "$folder/packed.npz"
as_npy "$folder/npy/x.npy" '<f8' True '300000, 100' 240000000
limited "$folder/npy"
printf '{"x":{"dtype":"F64","shape":[300000,200],"data_offsets":[0,480000000]},"y":{"dtype":"U8","shape":[300000],"data_offsets":[480000000,480300000]}}' |
    as_safetensors "$folder/rows.safetensors"
truncate -s $(($(stat -c %s "$folder/rows.safetensors") + 480000000)) "$folder/rows.safetensors"
repeat '01' 150000 | tr 01 '\000\001' >>"$folder/rows.safetensors"
limited "$folder/rows.safetensors"
for i in 1 2 3 4 5; do
    truncate -s $((20000 * 3073)) "$folder/cifar/data_batch_$i.bin"
done
bounded 24 0 data import "$folder/cifar" --limit 18 --out "$folder/few.npz"
[ -n "$asan" ] || bounded 24 1 data import "$folder/cifar" --out "$folder/none.npz"

# ---- task files and parameters: aliases, depth, objects
{
    printf 'name: laugh\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n'
    for i in 1 2 3 4 5 6 7 8 9; do
        printf 'a%d: &a%d [' $i $i && repeat "*a$((i - 1)), " 10 && printf 'x]\n'
    done
} >"$folder/laugh.yaml"
bounded 16 2 run "$folder/laugh.yaml"
repeat '[' 500000 >"$folder/deep.yaml"
bounded 64 1 run "$folder/deep.yaml"
said err "more than 32 maps and lists inside each other"
{ printf '{"x":[' && repeat '{},' 300000 && printf '0]}'; } >"$folder/params.json"
bounded 64 1 data synth link11 --params "$folder/params.json" --out "$folder/none.safetensors"
said err "its JSON takes more memory than the"

# ---- and what is sound is read with as little: 2 MB of header in 20000 tensors
{
    printf '{"__metadata__":{"format":"pt"}'
    for i in $(seq 20000); do
        printf ',"layer.%d.weight":{"dtype":"F32","shape":[1],"data_offsets":[%d,%d]}' "$i" $((4 * i - 4)) $((4 * i))
    done
    printf '}'
} | as_safetensors "$folder/many.safetensors"
head -c 80000 /dev/zero >>"$folder/many.safetensors"
bounded 80 1 model import "$folder/many.safetensors" --as logistic_regression --out "$folder/none"
said err "20002 tensors do not fit logistic_regression"

echo "$checks checks, $failed failed"
[ $failed -eq 0 ]
