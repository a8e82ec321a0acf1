#!/bin/sh
# Makes a Debian 13 (trixie) tree with PostgreSQL 17 and pgBackRest 2.55 below the folder in $1, or uses the one that is
# there, and prints where it is. Making it needs root and debootstrap and takes a minute or two; the packages come from
# the Debian mirror that apt on this machine uses.
#
# Its programs are for callers outside of it: they are given the tree's own loader and libraries by patchelf, so any
# account starts them, and they see the host's paths. With chroot alone, each start would need root, and the tests'
# folders would have to be bind-mounted, which a killed run leaves behind. `chroot <tree>` works as well: a link in it
# leads from its path on the host to its root.
set -eu

cache=${1:?usage: trixie.sh CACHE_FOLDER}
case $cache in /*) ;; *) cache=$PWD/$cache ;; esac
tree=$cache/trixie
major=17
# What the tests run beside these when the tree is a container (test_pgbackrest_container.py).
for_container='python3 lz4 zstd'

note() { echo "trixie: $*" >&2; }

mirror() {
    # $(NAME) is apt's own syntax, not the shell's.
    # shellcheck disable=SC2016
    apt-get indextargets --format '$(ORIGIN) $(LABEL) $(COMPONENT) $(REPO_URI)' 2>/dev/null \
        | awk '$1 == "Debian" && $2 == "Debian" && $3 == "main" { print $4; exit }'
}

install_packages() {
    from=$(mirror)
    [ -n "$from" ] || { apt-get update -qq >/dev/null 2>&1 || :; from=$(mirror); }
    [ -n "$from" ] || { note 'apt names no mirror of Debian'; exit 1; }
    debootstrap --variant=minbase trixie "$tree" "$from"
    # The tests make their own clusters, and nothing in the tree is to run as a service.
    mkdir -p "$tree/etc/postgresql-common/createcluster.d"
    echo 'create_main_cluster = false' >"$tree/etc/postgresql-common/createcluster.d/lifeboat-tests.conf"
    printf '#!/bin/sh\nexit 101\n' >"$tree/usr/sbin/policy-rc.d"
    chmod 755 "$tree/usr/sbin/policy-rc.d"
    # shellcheck disable=SC2086 - a list of words
    chroot "$tree" env DEBIAN_FRONTEND=noninteractive LC_ALL=C \
        apt-get install -y -qq --no-install-recommends "postgresql-$major" pgbackrest patchelf $for_container
    chroot "$tree" apt-get clean
    rm -rf "$tree/var/lib/apt/lists" "$tree/usr/share/doc" "$tree/usr/share/locale"
}

open_to_the_host() {
    mkdir -p "$tree$cache"
    ln -sfn / "$tree$tree"
    loader=$(chroot "$tree" patchelf --print-interpreter /usr/bin/pgbackrest)
    libraries=$(dirname "$(chroot "$tree" readlink -f "$loader")")
    # The old kind of search path (DT_RPATH) holds for what the libraries load in their turn, too.
    chroot "$tree" find "/usr/lib/postgresql/$major/bin" /usr/bin/pgbackrest -type f \
        -exec patchelf --force-rpath --set-rpath "$tree$libraries" --set-interpreter "$tree$loader" {} \;
}

if [ -e "$tree/.ready" ]; then
    echo "$tree"
    exit 0
fi
[ "$(id -u)" -eq 0 ] || { note "only root can make $tree"; exit 1; }
command -v debootstrap >/dev/null 2>&1 || { note 'debootstrap is not installed'; exit 1; }
mkdir -p "$cache"
exec 9>"$cache/.trixie.lock"
flock 9
if [ ! -e "$tree/.ready" ]; then
    # An interrupted run left half a tree. Nothing is mounted in it, so that removing it takes nothing else along.
    rm -rf --one-file-system "$tree"
    install_packages >"$cache/trixie.log" 2>&1 || { note "failed, see $cache/trixie.log"; exit 1; }
    open_to_the_host >>"$cache/trixie.log" 2>&1 || { note "failed, see $cache/trixie.log"; exit 1; }
    "$tree/usr/lib/postgresql/$major/bin/postgres" --version >&2
    "$tree/usr/bin/pgbackrest" version >&2
    touch "$tree/.ready"
fi
echo "$tree"
