#!/bin/sh
# Installs what the tests use beyond Python, where that is possible: as root, with apt. Never fails the run:
# a test that lacks something is skipped and says what. NO_SYSTEM_INSTALL=1 leaves the machine alone.
#
#   util-linux, mount   setpriv (programs run as another user), small tmpfs destinations
#   postgresql          a second server version, from the system: the embedded one is enough for most tests
#   pgbackrest          the engine pgbackrest, with that server version
#   zstd, lz4           read WAL segments that pgBackRest compressed with them
#   debootstrap, xz     to make a tree of Debian 13 (trixie.sh): PostgreSQL 17 with pgBackRest 2.55. TRIXIE_CACHE names
#                       the folder that keeps it (default /var/cache/lifeboat-tests); empty means none is made
set -u

note() { echo "install-system: $*" >&2; }

cache=${TRIXIE_CACHE-/var/cache/lifeboat-tests}
missing=''
need() { command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; }
need setpriv util-linux
need mount mount
need pgbackrest pgbackrest
need zstd zstd
need lz4 lz4
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"

tree=''
if [ -n "$cache" ] && [ ! -e "$cache/trixie/.ready" ]; then
    tree=' debian-13-tree'
    need debootstrap debootstrap
    need xz xz-utils
fi

[ -n "$missing$tree" ] || exit 0
if [ "${NO_SYSTEM_INSTALL:-0}" = 1 ]; then
    note "not installing$missing$tree, as asked; tests that need them are skipped"
    exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    note "cannot install$missing$tree without root and apt; tests that need them are skipped"
    exit 0
fi

# The tests make their own clusters: the package must not create and start one on the default port.
case $missing in *postgresql*)
    mkdir -p /etc/postgresql-common/createcluster.d
    echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.d/lifeboat-tests.conf
    ;;
esac

export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 - a list of words
install() { apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1; }
if [ -n "$missing" ]; then
    note "installing$missing"
    install || { apt-get update -qq >/dev/null 2>&1 && install; } \
        || note "apt could not install$missing; tests that need them are skipped"
fi
if [ -n "$tree" ]; then
    note "making a tree of Debian 13 in $cache, which takes a minute or two"
    sh "$(dirname "$0")/trixie.sh" "$cache" >/dev/null || note 'there is no tree; tests that need it are skipped'
fi
exit 0
