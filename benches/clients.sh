#!/usr/bin/env bash
# Many clients: the proxy's memory for each idle one, beside PgBouncer's, and how fair the queue is to active ones.
#
#   benches/clients.sh [IDLE CLIENTS] [ACTIVE CLIENTS] [SECONDS]
#
# See benches/README.md for the method.
cd "$(dirname "$0")/.."
. benches/common.sh
idle=${1:-10000}
active=${2:-5000}
seconds=${3:-20}
ulimit -n "$(ulimit -Hn)"
[ "$(ulimit -n)" = unlimited ] || [ "$(ulimit -n)" -gt $((idle + 200)) ] || {
    echo "the limit of open files is $(ulimit -n): too low for $idle clients" >&2
    exit 1
}
cargo build --release --locked --quiet --example many_clients
many=target/release/examples/many_clients

start_cluster
start_bouncer
start_herd "$(plain_config)" "$plain_port"
url() { echo "postgres://app:app@127.0.0.1:$1/app"; }

echo "| idle clients | PgBouncer $(bouncer_version) bytes each | pgherd bytes each | goal |"
echo "|---|---|---|---|"
# A few come first: what is made once is not theirs.
bouncer_bytes=$("$many" idle "$(url "$bouncer_port")" "$idle" "$bouncer_pid")
herd_bytes=$("$many" idle "$(url "$plain_port")" "$idle" "$herd_pid")
echo "| $idle | $bouncer_bytes | $herd_bytes | 2048 |"
echo
echo "| active clients, 20 servers | transactions | of one client, least / most | wait ms, median | p99 | max | p99 / median |"
echo "|---|---|---|---|---|---|---|"
echo "| PgBouncer, $active | $("$many" active "$(url "$bouncer_port")" "$active" "$seconds") |"
echo "| pgherd, $active | $("$many" active "$(url "$plain_port")" "$active" "$seconds") |"
