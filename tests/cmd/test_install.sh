#!/bin/bash
# An installed tree: programs find the library by pkg-config and by CMake, the example classifies as `fedstill predict`
# does, and every public header compiles by itself, as C17 and as C++17.
# shellcheck source=tests/cmd/common.sh
. "$(dirname "$0")/common.sh"
build=$(cd "$(dirname "$FEDSTILL")" && pwd) prefix=$folder/prefix here=$FEDSTILL_SOURCE/tests/cmd
sanitize=$(sed -n 's/^FEDSTILL_SANITIZE:[A-Z]*=//p' "$build/CMakeCache.txt")
flags=${sanitize:+-fsanitize=$sanitize}

works() { # WHAT COMMAND...
    last=$1
    checks=$((checks + 1))
    shift
    "$@" >"$folder/out" 2>"$folder/err" || { fail "exit status $?" && tail -n 20 "$folder/out" "$folder/err"; }
}

works "cmake --install" cmake --install "$build" --prefix "$prefix"
shared=
[ ! -e "$build/libfedstill.so" ] || shared=lib/libfedstill.so
export LD_LIBRARY_PATH=$prefix/lib
for file in bin/fedstill $shared lib/libfedstill.a lib/pkgconfig/fedstill.pc lib/cmake/fedstill/fedstillConfig.cmake \
    include/fedstill/infer.h share/doc/fedstill/docs/formats.md share/doc/fedstill/tasks/mnist/task.yaml share/doc/fedstill/examples/classify.c; do
    works "$file" test -s "$prefix/$file"
done
works "what the program prints" "$FEDSTILL_SOURCE/scripts/install-made" "$FEDSTILL" "$prefix/share"
for file in man/man1/fedstill.1 bash-completion/completions/fedstill zsh/site-functions/_fedstill; do
    works "$file" grep -q fedstill "$prefix/share/$file"
done

# ---- every header alone
for header in "$prefix"/include/fedstill/*.h; do
    name=$(basename "$header")
    echo "#include <fedstill/$name>" >"$folder/alone.c"
    works "$name as C17" gcc -std=c17 -D_POSIX_C_SOURCE=200809L -Wall -Wextra -Werror -fsyntax-only -I"$prefix/include" \
        "$folder/alone.c"
    works "$name as C++17" g++ -x c++ -std=c++17 -Wall -Wextra -Werror -fsyntax-only -I"$prefix/include" "$folder/alone.c"
done
cat >"$folder/version.cc" <<END
#include <fedstill/base.h>
#include <fedstill/task.h>
int main() { if (fst_version_number() != FST_VERSION_NUMBER) return 2; fst_sha256 s; char hex[FST_DIGEST_HEX]; fst_sha256_init(&s); fst_sha256_final(&s, hex); return hex[0] != 'e'; }
END
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig
# shellcheck disable=SC2046,SC2086 # flags are words
works "C++ links" g++ -std=c++17 $flags "$folder/version.cc" $(pkg-config --cflags --libs fedstill) -o "$folder/version"
works "C++ calls" "$folder/version"

# ---- the example, by pkg-config and by CMake
example=$prefix/share/doc/fedstill/examples
# shellcheck disable=SC2046,SC2086
works "the example by pkg-config" gcc -std=c17 $flags "$example/classify.c" $(pkg-config --cflags --libs fedstill) \
    -o "$folder/classify"
# shellcheck disable=SC2046,SC2086
works "the example with the archive" gcc -std=c17 $flags "$example/classify.c" \
    $(pkg-config --cflags --libs fedstill-static) -o "$folder/classify-static"
works "the example by CMake" cmake -S "$example" -B "$folder/by-cmake" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_FLAGS="$flags"
works "the example by CMake, built" cmake --build "$folder/by-cmake"

# A model of 2x2 grey images, mean 0.25 and std 0.5, whose classes have names. A second dog, so that the test samples are
# not those of training.
task=$folder/task
for split in train test; do
    for name in cat dog; do
        mkdir -p "$task/data/$split/$name" && cp "$here/corner-2x2.png" "$task/data/$split/$name/"
    done
done
cp "$here/corner-2x2.png" "$task/data/test/dog/second.png"
cat >"$task/task.yaml" <<END
name: two
data: {source: folder, path: data, channels: 1, normalise: {mean: 0.25, std: 0.5}}
stages:
  cloud_pretrain: {model: logistic_regression, epochs: 1, batch_size: 2}
END
works "a model" "$FEDSTILL" run "$task"
model=$task/output/cloud_pretrain/model.safetensors
works "predict" "$FEDSTILL" predict "$model" "$here/corner-2x2.png" --top 1 --json
wanted=$(sed -n 's/.*"class": *\([0-9]*\), *"name": *"\([a-z]*\)", *"probability": *\([0-9.]*\).*/\1 \2 \3/p' "$folder/out" |
    awk '{ printf "class %d (%s), probability %.4f", $1, $2, $3 }')
for program in "$folder/classify" "$folder/classify-static" "$folder/by-cmake/classify"; do
    works "$program" "$program" "$model" "$here/corner-2x2.png"
    checks=$((checks + 1))
    [ "$(cat "$folder/out")" = "$wanted" ] || fail "\"$(cat "$folder/out")\" is not \"$wanted\""
done
checks=$((checks + 1))
"$folder/classify" "$model" "$here/colour-3x2.png" 2>"$folder/err" && fail "an image of another size was classified"

echo "$checks checks, $failed failed"
[ $failed -eq 0 ]
