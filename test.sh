#!/usr/bin/env bash
# All tests, on a machine with a Rust toolchain: installs what else they need, then runs them.
# Arguments go to cargo test: ./test.sh --test config
set -euo pipefail
cd "$(dirname "$0")"

scripts/prerequisites.sh

# The drivers of the examples, each as its own world installs it. Done again only when their lists change.
fresh() { [ -f "$2" ] && [ ! "$1" -nt "$2" ]; }
if ! fresh examples/python/requirements.txt target/venv/installed || ! fresh tests/requirements.txt target/venv/installed; then
    python3 -m venv --clear target/venv
    target/venv/bin/python -m pip install --quiet --disable-pip-version-check \
        --requirement examples/python/requirements.txt --requirement tests/requirements.txt
    touch target/venv/installed
fi
if ! fresh examples/node/package-lock.json examples/node/node_modules/.package-lock.json; then
    npm ci --prefix examples/node --no-audit --no-fund --silent
    touch examples/node/node_modules/.package-lock.json
fi
if ! fresh tests/browser/package-lock.json tests/browser/node_modules/.package-lock.json; then
    npm ci --prefix tests/browser --no-audit --no-fund --silent
    touch tests/browser/node_modules/.package-lock.json
fi

exec cargo test --locked "$@"
