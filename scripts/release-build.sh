#!/usr/bin/env bash
# Builds pgherd as it is to be used where its CPU time matters: compiled twice, the second time by the profile of a run
# under load, so that what a transaction passes through lies together. The result is target/release-profiled/pgherd.
#
#   scripts/release-build.sh            builds, runs, builds again; about three times as long as cargo build --release
#   scripts/release-build.sh --fresh    the same only if the result is older than what it is built from
#
# The run is that of benches/training.sh: PostgreSQL and pgbench on loopback, a minute. Of the toolchain it needs the
# component llvm-tools, which rustup adds.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$PWD/target/release-profiled profile=$PWD/target/profile

if [ "${1:-}" = --fresh ] && [ -x "$out/pgherd" ] &&
    [ -z "$(find src Cargo.toml Cargo.lock benches/training.sh -newer "$out/pgherd" -print -quit)" ]; then
    echo "$out/pgherd"
    exit 0
fi

host=$(rustc -vV | sed -n 's/^host: //p')
profdata=$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata
[ -x "$profdata" ] || rustup component add llvm-tools >&2

# A target that is named keeps the flags from build scripts and macros.
build() { # directory, flags
    RUSTFLAGS="${RUSTFLAGS:-} $2" cargo build --release --locked --bin pgherd --target "$host" --target-dir "$1" >&2
}

build "$profile/instrumented" "-Cprofile-generate=$profile/raw"
rm -rf "$profile/raw"
PGHERD=$profile/instrumented/$host/release/pgherd benches/training.sh >&2
"$profdata" merge -o "$profile/pgherd.profdata" "$profile/raw"

build "$profile/optimized" "-Cprofile-use=$profile/pgherd.profdata"
mkdir -p "$out"
install "$profile/optimized/$host/release/pgherd" "$out/pgherd"
echo "$out/pgherd"
