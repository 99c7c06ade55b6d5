#!/bin/bash
# The version is the same wherever it is told, and the library shows what src/libfedstill.symbols lists: no function less,
# none more, nothing internal.
# shellcheck source=tests/cmd/common.sh
. "$(dirname "$0")/../cmd/common.sh"
build=$(cd "$(dirname "$FEDSTILL")" && pwd)
list=$FEDSTILL_SOURCE/src/libfedstill.symbols
export PKG_CONFIG_PATH=$build

compare() { # WANTED-STATUS LIST LIBRARY
    last="symbols of $3"
    checks=$((checks + 1))
    SYMBOLS=$2 "$FEDSTILL_SOURCE/scripts/symbols" "$3" >"$folder/out" 2>"$folder/err"
    [ $? -eq "$1" ] || { fail "not exit status $1" && tail -n 20 "$folder/out" "$folder/err"; }
}
says() { # TEXT
    checks=$((checks + 1))
    grep -qF "$1" "$folder/out" || { fail "does not say \"$1\"" && cat "$folder/out"; }
}

# ---- the version
version=$(sed -n 's/^#define FST_VERSION_[MP][A-Z]* "\{0,1\}\([^ "]*\)"\{0,1\}.*/\1/p' "$FEDSTILL_SOURCE/include/fedstill/version.h" |
    awk 'NR < 4 { printf "%s%s", (NR > 1 ? "." : ""), $0 } NR == 4 { printf "%s", $0 }')
same() { # WHERE TEXT
    last=$1
    checks=$((checks + 1))
    [ "$2" = "${3:-$version}" ] || fail "\"$2\" is not \"${3:-$version}\""
}
same "fedstill --version" "$("$FEDSTILL" --version)" "fedstill $version"
same "fedstill.pc" "$(pkg-config --modversion fedstill)" "${version/-/\~}"
same "debian/changelog" "$(sed -n '1s/.*(\(.*\)).*/\1/p' "$FEDSTILL_SOURCE/debian/changelog")" "${version/-/\~}"
case $version in
0.*) soversion=$(cut -d . -f 1,2 <<<"$version") ;;
*) soversion=${version%%.*} ;;
esac
same "python/fedstill.py" "$(sed -n 's/^SONAME = "\(.*\)".*/\1/p' "$FEDSTILL_SOURCE/python/fedstill.py")" \
    "libfedstill.so.$soversion"
same "debian/control" "$(sed -n 's/^Package: \(libfedstill[0-9].*\)/\1/p' "$FEDSTILL_SOURCE/debian/control")" \
    "libfedstill$soversion"

# ---- the symbols, of the archive and of the shared library
libraries=("$build/libfedstill.a")
[ ! -e "$build/libfedstill.so" ] || libraries+=("$build/libfedstill.so")
for library in "${libraries[@]}"; do
    compare 0 "$list" "$library"
done
if [ -e "$build/libfedstill.so" ]; then
    same "its name" "$(readelf -d "$build/libfedstill.so" | sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p')" "libfedstill.so.$soversion"
fi
sed '/^fst_model_load /d' "$list" >"$folder/shorter"
compare 1 "$folder/shorter" "${libraries[-1]}"
says "fst_model_load is in the library, but not in the list"
{ cat "$list" && echo "fst_was_once 0.1"; } >"$folder/longer"
compare 1 "$folder/longer" "${libraries[-1]}"
says "fst_was_once is in the list, but not in the library"

echo "$checks checks, $failed failed"
[ $failed -eq 0 ]
