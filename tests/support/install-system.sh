#!/bin/sh
# Installs what the tests use beyond Python, where that is possible: as root, with apt. Never fails the run:
# a test that lacks something is skipped and says what. NO_SYSTEM_INSTALL=1 leaves the machine alone.
#
#   util-linux, mount   setpriv (programs run as another user), small tmpfs destinations
#   postgresql          a second server version, from the system: the embedded one is enough for most tests
set -u

note() { echo "install-system: $*" >&2; }

missing=''
need() { command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; }
need setpriv util-linux
need mount mount
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"

[ -n "$missing" ] || exit 0
if [ "${NO_SYSTEM_INSTALL:-0}" = 1 ]; then
    note "not installing$missing, as asked; tests that need them are skipped"
    exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    note "cannot install$missing without root and apt; tests that need them are skipped"
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
note "installing$missing"
install || { apt-get update -qq >/dev/null 2>&1 && install; } \
    || note "apt could not install$missing; tests that need them are skipped"
exit 0
