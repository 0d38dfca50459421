#!/usr/bin/env bash
# The proxy's own CPU time per login (SCRAM-SHA-256), beside PgBouncer's, in one run.
#
#   benches/logins.sh [ROUNDS] [LOGINS]
#
# See benches/README.md for the method.
cd "$(dirname "$0")/.."
. benches/common.sh
rounds=${1:-5}
logins=${2:-2000}

start_cluster
start_bouncer
start_herd "$(plain_config)" "$plain_port"
# Nothing is asked: a login, and Terminate.
printf '\\set nothing 1\n' >"$dir/login.sql"

measure() { # pid, port
    local before after done_
    before=$(cpu_ns "$1")
    done_=$(pgbench -h 127.0.0.1 -p "$2" -U app -n -C -f "$dir/login.sql" -c 4 -j 2 -t $((logins / 4)) app 2>/dev/null |
        sed -n 's/.*actually processed: \([0-9]*\).*/\1/p')
    after=$(cpu_ns "$1")
    echo $(((after - before) / done_))
}
: >"$dir/b"; : >"$dir/p"
measure "$bouncer_pid" "$bouncer_port" >/dev/null
measure "$herd_pid" "$plain_port" >/dev/null
for _ in $(seq "$rounds"); do
    measure "$bouncer_pid" "$bouncer_port" >>"$dir/b"
    measure "$herd_pid" "$plain_port" >>"$dir/p"
done
echo "| login | PgBouncer $(bouncer_version) µs | pgherd µs | ratio | goal |"
echo "|---|---|---|---|---|"
awk -v b="$(median <"$dir/b")" -v p="$(median <"$dir/p")" -v r="$(ratio "$dir/p" "$dir/b")" \
    'BEGIN { printf "| SCRAM-SHA-256 | %.0f | %.0f | %.2f | 1.10 |\n", b / 1000, p / 1000, r }'
