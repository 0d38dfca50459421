#!/usr/bin/env bash
# Installs what the tests need and the machine lacks, through apt; elsewhere, or without root, says what to install.
# With --bench also what the benchmarks compare with, with --suites what the suites of drivers run on. Nothing lacks: nothing is touched, nobody is asked.
set -euo pipefail

has() { command -v "$1" >/dev/null 2>&1; }
has_postgresql() { has initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; }
# Debian's python3 comes without what makes virtual environments.
has_venv() { python3 -c 'import ensurepip, venv' >/dev/null 2>&1; }

lacks=()
has cc || lacks+=(build-essential)
has_postgresql && has psql || lacks+=(postgresql postgresql-contrib)
has python3 && has_venv || lacks+=(python3 python3-venv)
has curl || lacks+=(curl)
has node || lacks+=(nodejs)
has npm || lacks+=(npm)
has chromium || has chromium-browser || has google-chrome || lacks+=(chromium)
has prometheus && has promtool || lacks+=(prometheus)
if [ "${1:-}" = --bench ]; then
    has pgbouncer || [ -x /usr/sbin/pgbouncer ] || lacks+=(pgbouncer)
    has ab || lacks+=(apache2-utils)
    # The newest BOLT there is, for scripts/release-build.sh, which does without where there is none.
    compgen -G '/usr/lib/llvm-*/lib/libbolt_rt_instr.a' >/dev/null || ! has apt-cache ||
        mapfile -t -O "${#lacks[@]}" lacks < <(apt-cache search --names-only '^(lib)?bolt-[0-9]+(-dev)?$' |
            cut -d' ' -f1 | sort -t- -k2,2Vr | head -2)
fi
if [ "${1:-}" = --suites ]; then
    has go || lacks+=(golang-go)
    [ -d /usr/share/gocode/src/github.com/lib/pq ] || lacks+=(golang-github-lib-pq-dev)
    has javac || lacks+=(default-jdk-headless)
    [ -e /usr/share/java/postgresql.jar ] || lacks+=(libpostgresql-jdbc-java)
    has php && php -m | grep -qx pdo_pgsql || lacks+=(php-cli php-pgsql)
    has ruby && ruby -e 'require "pg"' 2>/dev/null || lacks+=(ruby ruby-pg)
    has dpkg-source || lacks+=(dpkg-dev)
fi
[ "${#lacks[@]}" -gt 0 ] || exit 0

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
if ! has apt-get || ! as_root true 2>/dev/null; then
    echo "Please install, as root: ${lacks[*]} (the names of Debian's packages)" >&2
    exit 1
fi

echo "Installing ${lacks[*]}" >&2
# Their services would take the ports that the demo wants: no cluster is made, and nothing starts now.
as_root sh -s -- "${lacks[@]}" <<'SH' >&2
set -eu
export DEBIAN_FRONTEND=noninteractive
mkdir -p /etc/postgresql-common/createcluster.d
echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.d/pgherd.conf
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi
apt-get update -qq
apt-get install -y -qq --no-install-recommends "$@" </dev/null
SH
