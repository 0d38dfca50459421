#!/usr/bin/env bash
# The proxy's own CPU time per transaction, beside PgBouncer's, in one run.
#
#   benches/proxy_cpu.sh [ROUNDS] [TRANSACTIONS PER CLIENT]
#
# Starts a local cluster, PgBouncer (as user postgres when run as root) and two pgherds, on ports of their own, and stops
# them at the end. See benches/README.md for the method.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-3}
transactions=${2:-3000}
base=21432
scripts/prerequisites.sh --bench
cargo build --release --locked --quiet
pgherd=$PWD/target/release/pgherd
export PGPASSWORD=app PATH=$PATH:/usr/sbin
dir=$(mktemp -d /tmp/pgherd-bench.XXXXXX)
chmod 755 "$dir"
pids=()
finish() {
    for pid in "${pids[@]}"; do kill -INT "$pid" 2>/dev/null || true; done
    [ -f "$dir/bouncer.pid" ] && kill "$(cat "$dir/bouncer.pid")" 2>/dev/null || true
    "$pgherd" cluster down --data-dir "$dir/herd" >/dev/null 2>&1 || true
    rm -rf "$dir"
}
trap finish EXIT

"$pgherd" cluster up --data-dir "$dir/herd" --port-base $base >/dev/null
PGPASSWORD=postgres pgbench -h 127.0.0.1 -p $base -U postgres -i -s 5 -q app >/dev/null 2>&1
PGPASSWORD=postgres psql -qX -h 127.0.0.1 -p $base -U postgres app -c 'GRANT ALL ON ALL TABLES IN SCHEMA public TO app'

# One shard: a plain pooler, as PgBouncer is. One thread, as PgBouncer has.
cat >"$dir/plain.toml" <<TOML
[proxy]
listen = ["127.0.0.1:$((base + 100))"]
workers = 1
[pool]
size = 20
[[user]]
name = "app"
password = "app"
[[database]]
name = "app"
control = { user = "postgres", password = "postgres" }
[[database.shard]]
name = "shard1"
servers = [{ host = "127.0.0.1", port = $base, role = "primary" }]
TOML
# Three shards: the shipped configuration, every statement routed by its key.
sed -e "s/127.0.0.1:6432/127.0.0.1:$((base + 101))/" \
    -e "s/port = 543\([2-7]\)/port = 2143\1/" -e '/^listen/a workers = 1' proxy.toml >"$dir/routed.toml"
cat >"$dir/bouncer.ini" <<INI
[databases]
app = host=127.0.0.1 port=$base dbname=app user=app password=app
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $((base + 102))
auth_type = scram-sha-256
auth_file = $dir/users.txt
pool_mode = transaction
default_pool_size = 20
max_client_conn = 1000
unix_socket_dir =
logfile = $dir/bouncer.log
pidfile = $dir/bouncer.pid
INI
echo '"app" "app"' >"$dir/users.txt"
"$pgherd" setup -c "$dir/routed.toml" >/dev/null
for kind in plain routed; do
    "$pgherd" -c "$dir/$kind.toml" 2>"$dir/$kind.log" &
    pids+=($!)
done
if [ "$(id -u)" = 0 ]; then
    chown -R postgres "$dir"/bouncer.ini "$dir"/users.txt
    chmod 777 "$dir"
    setpriv --reuid postgres --regid postgres --init-groups pgbouncer -q -d "$dir/bouncer.ini"
else
    pgbouncer -q -d "$dir/bouncer.ini"
fi
for port in 100 101 102; do
    for _ in $(seq 100); do
        psql -qX -h 127.0.0.1 -p $((base + port)) -U app app -c 'SELECT 1' >/dev/null 2>&1 && break
        sleep 0.1
    done
done
"$pgherd" generate -c "$dir/routed.toml" --scale 0.02 >/dev/null 2>&1
# In the text the key is a literal, in the other protocols a parameter. No such user: what is measured is the proxy.
printf '\\set n random(100000, 109999)\nSELECT name FROM users WHERE user_id = '"':n'"';\n' >"$dir/simple.sql"
printf '\\set n random(100000, 109999)\nSELECT name FROM users WHERE user_id = :n::text;\n' >"$dir/extended.sql"
cp "$dir/extended.sql" "$dir/prepared.sql"

cpu_ns() { # of all threads of a process
    local total=0 spent
    for task in /proc/"$1"/task/*/schedstat; do
        read -r spent _ <"$task" && total=$((total + spent))
    done
    echo $total
}
measure() { # pid, port, protocol, clients, how to ask
    local pid=$1 port=$2 mode=$3 clients=$4 before after done_
    shift 4
    before=$(cpu_ns "$pid")
    done_=$(pgbench -h 127.0.0.1 -p $((base + port)) -U app -n -M "$mode" -c "$clients" -j 2 \
        -t $((transactions * 16 / clients)) "$@" app 2>/dev/null | sed -n 's/.*actually processed: \([0-9]*\).*/\1/p')
    after=$(cpu_ns "$pid")
    echo $(((after - before) / done_))
}
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

bouncer=$(cat "$dir/bouncer.pid")
echo "| protocol | clients | PgBouncer µs | pgherd, one shard µs | ratio | pgherd, routed over three µs |"
echo "|---|---|---|---|---|---|"
for clients in 16 64; do
    for mode in simple extended prepared; do
        : >"$dir/b"; : >"$dir/p"; : >"$dir/r"
        for _ in $(seq "$rounds"); do
            [ $mode = prepared ] || measure "$bouncer" 102 $mode $clients -S >>"$dir/b"
            measure "${pids[0]}" 100 $mode $clients -S >>"$dir/p"
            measure "${pids[1]}" 101 $mode $clients -f "$dir/$mode.sql" >>"$dir/r"
        done
        awk -v mode=$mode -v clients=$clients -v b="$(median <"$dir/b")" -v p="$(median <"$dir/p")" \
            -v r="$(median <"$dir/r")" 'BEGIN {
                printf "| %s | %s | %s | %.1f | %s | %.1f |\n", mode, clients, b ? sprintf("%.1f", b / 1000) : "n/a",
                    p / 1000, b ? sprintf("%.2f", p / b) : "", r / 1000 }'
    done
done
