#!/bin/bash
# scripts/install-deps with a dpkg-query, id, sudo and apt-get of our own: what it asks for, when, and as whom.
set -u
# shellcheck source=tests/tools/expect.bash
. "$(dirname "$0")/expect.bash"
deps=$FEDSTILL_SOURCE/scripts/install-deps
export LACKS="" WHO=0 SUDO_WORKS=no

# As the real one: a line for every package it knows, status 1 when one is unknown.
program "$scratch/bin/dpkg-query" <<'END'
#!/bin/bash
status=0
for p in "$@"; do
    case $p in -*) continue ;; esac
    case " $LACKS " in
    *" $p "*) status=1 ;;
    *" removed:$p "*) echo "config-files $p" ;;
    *) echo "installed $p" ;;
    esac
done
exit $status
END
program "$scratch/bin/id" <<'END'
#!/bin/bash
echo "$WHO"
END
program "$scratch/bin/sudo" <<'END'
#!/bin/bash
[ "$SUDO_WORKS" = yes ] || exit 1
shift # -n
BY_SUDO=yes exec "$@"
END
program "$scratch/bin/apt-get" <<'END'
#!/bin/bash
echo "apt-get[${BY_SUDO:-no}] $*"
END
export PATH=$scratch/bin:$PATH

expect 0 "$deps"
holds "it is silent when all is there" test ! -s "$scratch/said"

LACKS="libdnnl-dev removed:libcmocka-dev"
expect 0 "$deps"
said 'apt-get[no] -qq update'
said 'install --yes --no-install-recommends libdnnl-dev libcmocka-dev'

WHO=1000
expect 1 "$deps"
said 'apt-get install --no-install-recommends libdnnl-dev libcmocka-dev'
silent_about 'apt-get[' # it only says it

SUDO_WORKS=yes
expect 0 "$deps"
said 'apt-get[yes] -qq update'
said 'apt-get[yes] -qq install'

# The service of a broker that nobody asked for is masked before its package comes, and one that was there is left alone.
LACKS=mosquitto WHO=0
export SYSTEMD_FOLDER=$scratch/systemd
expect 0 "$deps"
said 'recommends mosquitto'
holds "mosquitto.service is masked" test "$(readlink "$SYSTEMD_FOLDER/mosquitto.service")" = /dev/null
echo mine >"$scratch/mine" && ln -sf "$scratch/mine" "$SYSTEMD_FOLDER/mosquitto.service"
expect 0 "$deps"
holds "a unit of one's own stays" grep -q mine "$SYSTEMD_FOLDER/mosquitto.service"
WHO=1000

LACKS="curl valgrind"
expect 0 "$deps"
silent_about apt-get
expect 0 "$deps" --download
said 'recommends curl'
silent_about valgrind
expect 0 "$deps" --full
said 'recommends valgrind'

expect 2 "$deps" --everything
finish
