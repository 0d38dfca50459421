# What the benchmarks share: a local PostgreSQL cluster, PgBouncer and pgherds on ports of their own, all stopped at the
# end, and how CPU time is read. Sourced, not run.
#
#   PORT_BASE   first of the 200 ports that are used (21432)
#   PGBOUNCER   the PgBouncer to compare with; else benches/pgbouncer.sh finds or builds one
#   PGHERD      the pgherd to measure; else that of scripts/release-build.sh, built if this tree has changed since
set -euo pipefail
base=${PORT_BASE:-21432}
plain_port=$((base + 100)) routed_port=$((base + 101)) bouncer_port=$((base + 102))
export PATH=$PATH:/usr/sbin PGPASSWORD=app
scripts/prerequisites.sh --bench
bouncer=${PGBOUNCER:-$(benches/pgbouncer.sh)}
if [ -z "${PGHERD:-}" ]; then
    PGHERD=$(scripts/release-build.sh --fresh)
fi
dir=$(mktemp -d /tmp/pgherd-bench.XXXXXX)
chmod 777 "$dir"
pids=()
finish() {
    trap - EXIT
    for pid in "${pids[@]}"; do kill -INT "$pid" 2>/dev/null || true; done
    [ -f "$dir/bouncer.pid" ] && kill "$(cat "$dir/bouncer.pid")" 2>/dev/null || true
    "$PGHERD" cluster down --data-dir "$dir/herd" >/dev/null 2>&1 || true
    rm -rf "$dir"
}
trap finish EXIT
trap 'exit 130' INT TERM

start_cluster() {
    "$PGHERD" cluster up --data-dir "$dir/herd" --port-base "$base" >/dev/null
    "$PGHERD" setup -c "$(routed_config)" >/dev/null
}

# Lookups by the sharding key for the routed configuration, a script for each protocol: in the text the key is a literal,
# in the others a parameter. No such user: what is measured is the proxy.
write_lookups() {
    printf '\\set n random(100000, 109999)\nSELECT name FROM users WHERE user_id = '"':n'"';\n' >"$dir/simple.sql"
    printf '\\set n random(100000, 109999)\nSELECT name FROM users WHERE user_id = :n::text;\n' >"$dir/extended.sql"
    cp "$dir/extended.sql" "$dir/prepared.sql"
}

superuser() { PGPASSWORD=postgres psql -qX -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$base" -U postgres app "$@"; }

# One shard and one server: a plain pooler, as PgBouncer is. `workers`: as given, else one thread, as PgBouncer has.
plain_config() {
    cat >"$dir/plain.toml" <<TOML
[proxy]
listen = ["127.0.0.1:$plain_port"]
workers = ${1:-1}
max_clients = 20000
max_unauthenticated = 20000
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
    echo "$dir/plain.toml"
}

# Three shards: the shipped configuration, every statement routed by its key. `workers` as above.
routed_config() {
    local config=$dir/routed.toml i
    # Without [http]: it has a port of its own, and nobody asks there.
    awk '/^\[/ { http = /^\[http\]/ } !http { print } /^\[proxy\]/ { print "workers = '"${1:-1}"'" }' proxy.toml |
        sed -e "s/127.0.0.1:6432/127.0.0.1:$routed_port/" >"$config"
    for i in 0 1 2 3 4 5; do sed -i "s/port = 543$((i + 2))\b/port = $((base + i))/" "$config"; done
    echo "$config"
}

start_bouncer() { # further settings
    cat >"$dir/bouncer.ini" <<INI
[databases]
app = host=127.0.0.1 port=$base dbname=app
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $bouncer_port
auth_type = scram-sha-256
auth_file = $dir/users.txt
pool_mode = transaction
default_pool_size = 20
max_client_conn = 20000
$(has_prepared && echo "max_prepared_statements = 200")
unix_socket_dir =
${1:-}
logfile = $dir/bouncer.log
pidfile = $dir/bouncer.pid
INI
    # The server's own verifier, passed through: of a plain password PgBouncer derives one at each login, 2 ms of CPU.
    superuser -At -c "SELECT format('\"app\" \"%s\"', rolpassword) FROM pg_authid WHERE rolname = 'app'" >"$dir/users.txt"
    if [ "$(id -u)" = 0 ]; then
        chown postgres "$dir"/bouncer.ini "$dir"/users.txt
        setpriv --reuid postgres --regid postgres --init-groups "$bouncer" -q -d "$dir/bouncer.ini"
    else
        "$bouncer" -q -d "$dir/bouncer.ini"
    fi
    wait_for "$bouncer_port"
    bouncer_pid=$(cat "$dir/bouncer.pid")
}

bouncer_version() { "$bouncer" --version | sed -n 's/^PgBouncer //p'; }

# Prepared statements in transaction pooling came with 1.21.
has_prepared() { [ "$(printf '1.21\n%s\n' "$(bouncer_version)" | sort -V | head -1)" = 1.21 ]; }

# Starts a pgherd; its pid is in `herd_pid`. In a session of its own, as PgBouncer's `-d` makes one: Linux deals out CPU
# time by session first, and a proxy in that of pgbench is interrupted by it more often.
start_herd() { # configuration, port
    setsid "$PGHERD" -c "$1" 2>"$1.log" &
    herd_pid=$!
    pids+=("$herd_pid")
    wait_for "$2"
}

wait_for() { # port
    for _ in $(seq 300); do # under valgrind it takes its time
        psql -qX -h 127.0.0.1 -p "$1" -U app app -c 'SELECT 1' >/dev/null 2>&1 && return
        sleep 0.1
    done
    echo "nothing answers on port $1; see $dir" >&2
    trap - EXIT
    exit 1
}

cpu_ns() { # of all threads of a process
    local total=0 spent
    for task in /proc/"$1"/task/*/schedstat; do
        read -r spent _ <"$task" && total=$((total + spent))
    done
    echo $total
}

rss_kib() { awk '/^VmRSS/ { print $2 }' "/proc/$1/status"; }

median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

# The median of pairwise ratios: two files with a figure per round, in the same order.
ratio() { paste "$1" "$2" | awk '{ printf "%.4f\n", $1 / $2 }' | median; }
