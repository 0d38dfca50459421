#!/usr/bin/env bash
# The proxy's own CPU time per transaction, beside PgBouncer's, in one run.
#
#   benches/proxy_cpu.sh [ROUNDS] [TRANSACTIONS PER CLIENT, of 16]
#
# See benches/README.md for the method.
cd "$(dirname "$0")/.."
. benches/common.sh
rounds=${1:-7}
transactions=${2:-1000}

start_cluster
PGPASSWORD=postgres pgbench -h 127.0.0.1 -p "$base" -U postgres -i -s 5 -q app >/dev/null 2>&1
superuser -c 'GRANT ALL ON ALL TABLES IN SCHEMA public TO app'
start_bouncer
start_herd "$(plain_config)" "$plain_port"
plain_pid=$herd_pid
start_herd "$(routed_config)" "$routed_port"
"$PGHERD" generate -c "$dir/routed.toml" --scale 0.02 >/dev/null 2>&1
write_lookups

measure() { # pid, port, protocol, clients, how to ask
    local pid=$1 port=$2 mode=$3 clients=$4 before after done_
    shift 4
    before=$(cpu_ns "$pid")
    done_=$(pgbench -h 127.0.0.1 -p "$port" -U app -n -M "$mode" -c "$clients" -j 2 \
        -t $((transactions * 16 / clients)) "$@" app 2>/dev/null | sed -n 's/.*actually processed: \([0-9]*\).*/\1/p')
    after=$(cpu_ns "$pid")
    echo $(((after - before) / done_))
}
one_round() { # protocol, clients
    has_prepared || [ "$1" != prepared ] && measure "$bouncer_pid" "$bouncer_port" "$1" "$2" -S >>"$dir/b"
    measure "$plain_pid" "$plain_port" "$1" "$2" -S >>"$dir/p"
    measure "$herd_pid" "$routed_port" "$1" "$2" -f "$dir/$1.sql" >>"$dir/r"
}
echo "| protocol | clients | PgBouncer $(bouncer_version) µs | pgherd, one shard µs | ratio | goal | pgherd, routed over three µs |"
echo "|---|---|---|---|---|---|---|"
for clients in 16 64; do
    goal=$([ "$clients" = 16 ] && echo 1.00 || echo 0.85)
    for mode in simple extended prepared; do
        : >"$dir/b"; : >"$dir/p"; : >"$dir/r"
        for _ in $(seq "$rounds"); do one_round "$mode" "$clients" || true; done
        if [ -s "$dir/b" ]; then b=$(median <"$dir/b") r=$(ratio "$dir/p" "$dir/b"); else b=0 r=; fi
        awk -v mode="$mode" -v clients="$clients" -v b="$b" -v ratio="$r" -v goal="$goal" -v p="$(median <"$dir/p")" \
            -v r="$(median <"$dir/r")" 'BEGIN {
                printf "| %s | %s | %s | %.1f | %s | %s | %.1f |\n", mode, clients, b ? sprintf("%.1f", b / 1000) : "n/a",
                    p / 1000, ratio == "" ? "" : sprintf("%.2f", ratio), goal, r / 1000 }'
    done
done
