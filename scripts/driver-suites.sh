#!/usr/bin/env bash
# Runs the test-suites of real drivers against PostgreSQL itself and through pgherd, and prints a table of both in
# Markdown: which test of which suite tells them apart.
#
#   scripts/driver-suites.sh                     all three: --direct --transaction --session
#   scripts/driver-suites.sh --direct --transaction --only asyncpg,django
#   scripts/driver-suites.sh --list              the suites
#
# Everything is fetched when it runs, into target/driver-suites: sdists and wheels, npm's and cargo's packages,
# Debian's packages and sources. psycopg's tests are in its repository only: cloned from GitHub, or those of the checkout
# that PSYCOPG_SOURCE names. Suites that this machine cannot fetch or run are named in the table as such.
# Each way has a server of its own (ports 15000 and up; --port-base moves them). Needs Debian and root for apt.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/prerequisites.sh --suites
if [ -z "${PGHERD:-}" ]; then
    cargo build --locked --quiet
    export PGHERD="$PWD/target/debug/pgherd"
fi
exec python3 scripts/driver_suites/main.py "$@"
