#!/usr/bin/env bash
# What recording all statistics costs: the same proxy with `statistics = true` and `false`, in one run.
#
#   benches/statistics_cpu.sh [ROUNDS] [TRANSACTIONS PER CLIENT]
#
# CPU time of the proxy's threads, the two taking turns; then, where valgrind is installed, instructions per transaction
# in user space, which do not depend on what else the machine does. See benches/README.md for the method.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-5}
transactions=${2:-3000}
base=${PORT_BASE:-22432}
cargo build --release --locked --quiet
pgherd=$PWD/target/release/pgherd
export PGPASSWORD=app
dir=$(mktemp -d /tmp/pgherd-bench.XXXXXX)
chmod 755 "$dir"
pids=()
finish() {
    for pid in "${pids[@]}"; do kill -INT "$pid" 2>/dev/null || true; done
    "$pgherd" cluster down --data-dir "$dir/herd" >/dev/null 2>&1 || true
    rm -rf "$dir"
}
trap finish EXIT

"$pgherd" cluster up --data-dir "$dir/herd" --port-base "$base" >/dev/null
PGPASSWORD=postgres pgbench -h 127.0.0.1 -p "$base" -U postgres -i -s 5 -q app >/dev/null 2>&1
PGPASSWORD=postgres psql -qX -h 127.0.0.1 -p "$base" -U postgres app -c 'GRANT ALL ON ALL TABLES IN SCHEMA public TO app'

config() { # port, statistics
    cat <<TOML
[proxy]
listen = ["127.0.0.1:$1"]
workers = 1
statistics = $2
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
}
wait_for() { # port
    for _ in $(seq 300); do
        psql -qX -h 127.0.0.1 -p "$1" -U app app -c 'SELECT 1' >/dev/null 2>&1 && return
        sleep 0.1
    done
    echo "nothing answers on port $1" >&2
    exit 1
}
for kind in true false; do
    port=$((base + 100 + $([ $kind = true ] && echo 0 || echo 1)))
    config "$port" $kind >"$dir/$kind.toml"
    "$pgherd" -c "$dir/$kind.toml" 2>"$dir/$kind.log" &
    pids+=($!)
    wait_for "$port"
done

cpu_ns() { # of all threads of a process
    local total=0 spent
    for task in /proc/"$1"/task/*/schedstat; do
        read -r spent _ <"$task" && total=$((total + spent))
    done
    echo $total
}
run() { # port, protocol, clients, transactions per client: how many were processed
    pgbench -h 127.0.0.1 -p "$1" -U app -n -S -M "$2" -c "$3" -j 2 -t "$4" app 2>/dev/null |
        sed -n 's/.*actually processed: \([0-9]*\).*/\1/p'
}
measure() { # pid, port, protocol
    local before after done_
    before=$(cpu_ns "$1")
    done_=$(run "$2" "$3" 16 "$transactions")
    after=$(cpu_ns "$1")
    echo $(((after - before) / done_))
}
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

echo "| protocol | on µs | off µs | difference |"
echo "|---|---|---|---|"
for mode in simple extended prepared; do
    : >"$dir/on"; : >"$dir/off"
    for _ in $(seq "$rounds"); do
        measure "${pids[0]}" $((base + 100)) $mode >>"$dir/on"
        measure "${pids[1]}" $((base + 101)) $mode >>"$dir/off"
    done
    awk -v mode=$mode -v on="$(median <"$dir/on")" -v off="$(median <"$dir/off")" \
        'BEGIN { printf "| %s | %.2f | %.2f | %+.1f %% |\n", mode, on / 1000, off / 1000, 100 * (on - off) / off }'
done

command -v valgrind >/dev/null || exit 0
instructions() { # statistics, protocol, transactions
    local port=$((base + 102)) out="$dir/callgrind.$1.$2.$3" pid
    sed "s/^listen.*/listen = [\"127.0.0.1:$port\"]/" "$dir/$1.toml" >"$dir/counted.toml"
    valgrind --tool=callgrind --callgrind-out-file="$out" "$pgherd" -c "$dir/counted.toml" 2>"$dir/valgrind.log" &
    pid=$!
    wait_for $port
    run $port "$2" 4 "$3" >/dev/null
    kill -INT $pid
    wait $pid || true
    sed -n 's/^totals: *//p; s/^summary: *//p' "$out" | head -1
}
echo
echo "| protocol | instructions on | off | difference |"
echo "|---|---|---|---|"
for mode in simple prepared; do
    for kind in true false; do
        few=$(instructions $kind $mode 500)
        many=$(instructions $kind $mode 1500)
        echo $(((many - few) / 4000)) >"$dir/instructions.$kind"
    done
    awk -v mode=$mode -v on="$(cat "$dir/instructions.true")" -v off="$(cat "$dir/instructions.false")" \
        'BEGIN { printf "| %s | %d | %d | %+d |\n", mode, on, off, on - off }'
done
