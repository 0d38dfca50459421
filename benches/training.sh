#!/usr/bin/env bash
# The load whose profile a build is optimised by: what clients do all day, in all protocols, with and without routing.
#
#   PGHERD=an instrumented build  benches/training.sh [TRANSACTIONS PER CLIENT, of 16]
#
# Reports nothing: it is run for what it leaves. See scripts/release-build.sh.
cd "$(dirname "$0")/.."
. benches/common.sh
transactions=${1:-2000}

start_cluster
PGPASSWORD=postgres pgbench -h 127.0.0.1 -p "$base" -U postgres -i -s 5 -q app >/dev/null 2>&1
superuser -c 'GRANT ALL ON ALL TABLES IN SCHEMA public TO app'
start_herd "$(plain_config)" "$plain_port"
plain_pid=$herd_pid
start_herd "$(routed_config 2)" "$routed_port" # several workers are scheduled by other code than one
LLVM_PROFILE_FILE=/dev/null "$PGHERD" generate -c "$dir/routed.toml" --scale 0.02 >/dev/null 2>&1
write_lookups

ask() { # port, protocol, clients, transactions of each, how
    local port=$1 mode=$2 clients=$3 each=$4
    shift 4
    pgbench -h 127.0.0.1 -p "$port" -U app -n -M "$mode" -c "$clients" -j 2 -t "$each" "$@" app >/dev/null 2>&1
}
for mode in simple extended prepared; do
    for clients in 16 64; do
        ask "$plain_port" "$mode" "$clients" $((transactions * 16 / clients)) -S
        ask "$routed_port" "$mode" "$clients" $((transactions * 8 / clients)) -f "$dir/$mode.sql"
    done
    ask "$plain_port" "$mode" 8 $((transactions / 20)) # TPC-B: transactions of several statements, writes
done
echo 'SELECT 1' >"$dir/one.sql"
ask "$plain_port" simple 4 $((transactions / 10)) -C -f "$dir/one.sql" # logins
plain() { psql -qX -h 127.0.0.1 -p "$plain_port" -U app app "$@"; }
plain -c 'SELECT * FROM pgbench_accounts LIMIT 100000' >/dev/null
plain -c 'CREATE TABLE accounts_again (LIKE pgbench_accounts)' 2>/dev/null ||
    superuser -c 'CREATE TABLE accounts_again (LIKE pgbench_accounts); ALTER TABLE accounts_again OWNER TO app'
plain -c 'COPY pgbench_accounts TO STDOUT' | plain -c 'COPY accounts_again FROM STDIN'
# Instrumented builds write their profile when they have ended.
for pid in "$plain_pid" "$herd_pid"; do
    kill -INT "$pid"
    tail --pid="$pid" -f /dev/null
done
pids=()
