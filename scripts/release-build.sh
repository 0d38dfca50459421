#!/usr/bin/env bash
# Builds pgherd as it is to be used where its CPU time matters: compiled twice, the second time by the profile of a run
# under load, then laid out anew by what another such run passed through, so that what a transaction needs lies together.
# The result is target/release-profiled/pgherd.
#
#   scripts/release-build.sh            builds, runs, builds again; about three times as long as cargo build --release
#   scripts/release-build.sh --fresh    the same only if the result is older than what it is built from
#
# The runs are those of benches/training.sh: PostgreSQL and pgbench on loopback, a minute each. Of the toolchain it needs
# the component llvm-tools, which rustup adds. The layout is BOLT's (Debian's bolt-NN and libbolt-NN-dev; any version
# will do); where there is none, or it cannot take the binary apart, the build by profile is the result, and it says so.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$PWD/target/release-profiled profile=$PWD/target/profile

if [ "${1:-}" = --fresh ] && [ -x "$out/pgherd" ] &&
    [ -z "$(find src Cargo.toml Cargo.lock benches/training.sh scripts/release-build.sh -newer "$out/pgherd" -print -quit)" ]; then
    echo "$out/pgherd"
    exit 0
fi

host=$(rustc -vV | sed -n 's/^host: //p')
profdata=$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata
[ -x "$profdata" ] || rustup component add llvm-tools >&2

# A target that is named keeps the flags from build scripts and macros. Names without dots: BOLT takes those that end in
# .cold or .warm for parts of others. Relocations are what it moves code by.
build() { # directory, flags
    RUSTFLAGS="${RUSTFLAGS:-} -Csymbol-mangling-version=v0 -Clink-arg=-Wl,--emit-relocs $2" \
        cargo build --release --locked --bin pgherd --target "$host" --target-dir "$1" >&2
}

build "$profile/instrumented" "-Cprofile-generate=$profile/raw"
rm -rf "$profile/raw"
PGHERD=$profile/instrumented/$host/release/pgherd benches/training.sh >&2
"$profdata" merge -o "$profile/pgherd.profdata" "$profile/raw"

build "$profile/optimized" "-Cprofile-use=$profile/pgherd.profdata"
built=$profile/optimized/$host/release/pgherd

# The newest BOLT that has all its parts.
bolt_tools() {
    local bin
    for bin in $(compgen -G '/usr/lib/llvm-*/bin' | sort -rV); do
        [ -x "$bin/llvm-bolt" ] && [ -x "$bin/merge-fdata" ] && [ -e "${bin%/bin}/lib/libbolt_rt_instr.a" ] || continue
        echo "$bin" && return
    done
}

# Writes pgherd as BOLT lays it out to the file named; what it says is kept beside it.
lay_out() { # where the tools are, file
    local bin=$1 file=$2 dir=$profile/bolt
    rm -rf "$dir" && mkdir -p "$dir"
    # What is not Rust is left as it is, for it may be assembly by hand, whose authors have placed what they refer to. Names
    # of Rust begin with _R, or _ZN in the old form.
    local flags=(-skip-funcs='([^_]|_[^RZ]).*')
    "$bin/llvm-bolt" "$built" "${flags[@]}" -instrument -instrumentation-file="$dir/ran" -instrumentation-file-append-pid \
        -o "$dir/instrumented" >"$dir/log" 2>&1 || return
    PGHERD=$dir/instrumented benches/training.sh >&2 || return
    "$bin/merge-fdata" "$dir"/ran.* >"$dir/fdata" 2>>"$dir/log" || return
    "$bin/llvm-bolt" "$built" "${flags[@]}" -data="$dir/fdata" -reorder-blocks=ext-tsp -reorder-functions=hfsort \
        -split-functions -split-all-cold -split-eh -o "$file" >>"$dir/log" 2>&1 || return
    "$file" --version >>"$dir/log"
}

mkdir -p "$out"
tools=$(bolt_tools)
if [ -n "$tools" ] && lay_out "$tools" "$profile/laid-out"; then
    install "$profile/laid-out" "$out/pgherd"
else
    echo "release-build: ${tools:+$tools/llvm-bolt failed, see $profile/bolt/log; }not laid out anew" >&2
    install "$built" "$out/pgherd"
fi
echo "$out/pgherd"
