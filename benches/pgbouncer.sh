#!/usr/bin/env bash
# Prints the path of the newest PgBouncer to be had: built from Debian's sources of a later release if apt can fetch them
# (into target/pgbouncer, the system stays as it is), else the one that is installed.
set -euo pipefail
cd "$(dirname "$0")/.."
version=1.24.1
built=$PWD/target/pgbouncer/pgbouncer
export PATH=$PATH:/usr/sbin

build() {
    local work=$PWD/target/pgbouncer/build options
    rm -rf "$work"
    mkdir -p "$work"/lists/partial "$work"/cache/archives/partial
    echo "deb-src http://deb.debian.org/debian trixie main" >"$work/sources.list"
    options=(-o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache")
    apt-get "${options[@]}" -qq update
    (cd "$work" && apt-get "${options[@]}" -qq source --download-only "pgbouncer/trixie")
    tar -C "$work" -xzf "$work"/pgbouncer_*.orig.tar.gz
    (cd "$work"/pgbouncer-*/ && ./configure --without-cares CFLAGS="-O2" && make -j2 pgbouncer)
    mv "$work"/pgbouncer-*/pgbouncer "$built"
    rm -rf "$work"
}

if [ ! -x "$built" ]; then
    (build) >"${TMPDIR:-/tmp}/pgbouncer-build.log" 2>&1 ||
        echo "PgBouncer $version could not be built (it needs libevent-dev, libssl-dev, pkg-config): see ${TMPDIR:-/tmp}/pgbouncer-build.log" >&2
fi
if [ -x "$built" ]; then echo "$built"; else command -v pgbouncer; fi
