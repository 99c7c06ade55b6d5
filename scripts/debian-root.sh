# shellcheck shell=bash
# A Debian in a folder, for the scripts that try fedstill in one. Sourced, as root, with $fail a function that ends the
# script with a message. The environment: DEBIAN_MIRROR another mirror than this machine's.

# In a mount namespace of its own: whatever is mounted is gone with this process, and nothing else sees it.
own_mounts() { # SCRIPT ARGUMENT...
    [ "$(id -u)" -eq 0 ] || fail "this needs root, for debootstrap and chroot"
    local tool
    for tool in debootstrap unshare; do
        command -v $tool >/dev/null || fail "$tool is missing; scripts/install-deps --full installs it"
    done
    [ "${FEDSTILL_OWN_MOUNTS:-}" = yes ] ||
        FEDSTILL_OWN_MOUNTS=yes exec unshare --mount --propagation private -- "$@"
}

# $root: FOLDER, or without one a folder that is removed in the end; made unless it holds that Debian already.
debian_root() { # SUITE VERSION [FOLDER]
    local settings
    root=${3:-}
    if [ -z "$root" ]; then
        root=$(mktemp -d "${TMPDIR:-/tmp}/fedstill-$1.XXXXXX")
        trap 'umount "$root/proc" 2>/dev/null || true; rm -rf --one-file-system "$root"' EXIT
    fi
    echo "== a Debian $2 in $root"
    if [ ! -e "$root/etc/debian_version" ]; then
        mkdir -p "$root"
        debootstrap --variant=minbase "$1" "$root" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} >"$root.log" 2>&1 ||
            { tail -n 20 "$root.log" >&2 && fail "debootstrap failed"; }
        rm -f "$root.log"
    fi
    grep -q "^$2" "$root/etc/debian_version" || fail "$root holds another Debian than $2"
    # How this machine reaches its mirror: names, proxies, certificates.
    cp /etc/resolv.conf "$root/etc/"
    for settings in /etc/apt/apt.conf.d /usr/local/share/ca-certificates /etc/ssl/certs; do
        [ ! -d $settings ] || { mkdir -p "$root$settings" && cp -r $settings/. "$root$settings/"; }
    done
    mountpoint -q "$root/proc" || mount -t proc proc "$root/proc"
}

inside() { # COMMAND-LINE: in the root's folder $inside_at
    DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 chroot "$root" /bin/bash -c "cd ${inside_at:-/root} && $1"
}
