#!/usr/bin/env bash
# The proxy's own CPU time per GB of a large result and of COPY, beside PgBouncer's, in one run; and its memory meanwhile.
#
#   benches/large.sh [ROUNDS] [ROWS]
#
# See benches/README.md for the method.
cd "$(dirname "$0")/.."
. benches/common.sh
rounds=${1:-5}
rows=${2:-1000000}

start_cluster
superuser <<SQL
CREATE UNLOGGED TABLE large AS SELECT i AS id, repeat(md5(i::text), 3) AS text FROM generate_series(1, $rows) i;
CREATE UNLOGGED TABLE small (LIKE large);
GRANT ALL ON large, small TO app;
SQL
start_bouncer
start_herd "$(plain_config)" "$plain_port"
direct() { psql -qXAt -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$base" -U app app "$@"; }
direct -c 'COPY large TO STDOUT' >"$dir/rows"
bytes=$(stat -c %s "$dir/rows")

ask() { # kind, port
    local through=(psql -qXAt -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$2" -U app app)
    case $1 in
        SELECT) "${through[@]}" -c 'SELECT * FROM large' >/dev/null ;;
        "COPY OUT") "${through[@]}" -c 'COPY large TO STDOUT' >/dev/null ;;
        "COPY IN") "${through[@]}" -c 'COPY small FROM STDIN' <"$dir/rows" ;;
    esac
}
measure() { # pid, port, kind
    local before after
    before=$(cpu_ns "$1")
    ask "$3" "$2"
    after=$(cpu_ns "$1")
    [ "$3" != "COPY IN" ] || superuser -c 'TRUNCATE small'
    echo $((after - before))
}
echo "| $((bytes >> 20)) MiB, rows of $((bytes / rows)) bytes | PgBouncer $(bouncer_version) CPU-s per GB | pgherd CPU-s per GB | ratio | goal |"
echo "|---|---|---|---|---|"
for kind in SELECT "COPY OUT" "COPY IN"; do
    : >"$dir/b"; : >"$dir/p"
    measure "$herd_pid" "$plain_port" "$kind" >/dev/null
    for _ in $(seq "$rounds"); do
        measure "$bouncer_pid" "$bouncer_port" "$kind" >>"$dir/b"
        measure "$herd_pid" "$plain_port" "$kind" >>"$dir/p"
    done
    awk -v kind="$kind" -v b="$(median <"$dir/b")" -v p="$(median <"$dir/p")" -v r="$(ratio "$dir/p" "$dir/b")" \
        -v n="$bytes" 'BEGIN { printf "| %s | %.2f | %.2f | %.2f | 0.50 |\n", kind, b / n, p / n, r }'
done
echo
echo "pgherd's memory at its height (VmHWM): $(awk '/^VmHWM/ { print $2 }' "/proc/$herd_pid/status") KiB."
