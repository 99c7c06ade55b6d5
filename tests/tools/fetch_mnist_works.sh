#!/bin/bash
# scripts/fetch-mnist without a network: mirrors that are not there or hold something else. It must fail, say
# what to do, and leave nothing that looks like data.
set -u
# shellcheck source=tests/tools/expect.bash
. "$(dirname "$0")/expect.bash"
fetch=$FEDSTILL_SOURCE/scripts/fetch-mnist
# The script asks for curl's package first; only what it does with curl's answer is tried here.
mkdir -p "$scratch/scripts"
cp "$fetch" "$scratch/scripts/fetch-mnist"
program "$scratch/scripts/install-deps" <<'END'
#!/bin/bash
END
# A curl that knows file:// only.
program "$scratch/bin/curl" <<'END'
#!/bin/bash
while [ $# -gt 1 ]; do
    [ "$1" = --output ] && to=$2
    shift
done
case $1 in file://*) cp "${1#file://}" "$to" ;; *) echo "curl: no network" >&2; exit 6 ;; esac
END
export PATH=$scratch/bin:$PATH
mkdir "$scratch/mirror"

export FEDSTILL_MNIST_MIRRORS="https://one.invalid/ https://two.invalid/"
expect 1 "$scratch/scripts/fetch-mnist" "$scratch/data/mnist"
said 'fetching https://one.invalid/train-images-idx3-ubyte.gz'
said 'fetching https://two.invalid/train-images-idx3-ubyte.gz'
said 'no mirror gave a right train-images-idx3-ubyte.gz'
said 'FEDSTILL_DATA=/path/to/data make demo-mnist'
said "put them into $scratch/data/mnist"
holds "nothing is left behind" test -z "$(ls -A "$scratch/data/mnist")"

echo 'not what was asked for' | gzip >"$scratch/mirror/train-images-idx3-ubyte.gz"
export FEDSTILL_MNIST_MIRRORS="file://$scratch/mirror/"
expect 1 "$scratch/scripts/fetch-mnist" "$scratch/data/mnist"
said 'does not have the right SHA-256'
holds "nothing is left behind" test -z "$(ls -A "$scratch/data/mnist")"

# A script with the digests of four small texts: all is fetched, then found; a damaged file is fetched again.
for name in train-images-idx3 train-labels-idx1 t10k-images-idx3 t10k-labels-idx1; do
    echo "$name" | gzip >"$scratch/mirror/$name-ubyte.gz"
    sed -E -i "s/^[0-9a-f]{64} $name-ubyte/$(echo $name | sha256sum | cut -c 1-64) $name-ubyte/" "$scratch/scripts/fetch-mnist"
done
export FEDSTILL_MNIST_MIRRORS="https://one.invalid/ file://$scratch/mirror/"
expect 0 "$scratch/scripts/fetch-mnist" "$scratch/data/mnist"
holds "four files and no other" test "$(find "$scratch/data/mnist" -type f -name '*-ubyte.gz' | wc -l) $(find "$scratch/data/mnist" -type f | wc -l)" = "4 4"
expect 0 "$scratch/scripts/fetch-mnist" "$scratch/data/mnist"
silent_about fetching
echo damaged >"$scratch/data/mnist/t10k-labels-idx1-ubyte.gz"
expect 0 "$scratch/scripts/fetch-mnist" "$scratch/data/mnist"
said 'fetching file://'
silent_about train-images
holds "the damaged file is whole again" cmp "$scratch/mirror/t10k-labels-idx1-ubyte.gz" "$scratch/data/mnist/t10k-labels-idx1-ubyte.gz"
finish
