#!/usr/bin/env bash
# What recording all statistics costs: the same proxy with `statistics = true` and `false`, in one run.
#
#   benches/statistics_cpu.sh [ROUNDS] [TRANSACTIONS PER CLIENT]
#
# CPU time of the proxy's threads, the two taking turns; then, where valgrind is installed, instructions per transaction
# in user space, which do not depend on what else the machine does. See benches/README.md for the method.
cd "$(dirname "$0")/.."
. benches/common.sh
rounds=${1:-7}
transactions=${2:-2000}
goal="3 %"

start_cluster
PGPASSWORD=postgres pgbench -h 127.0.0.1 -p "$base" -U postgres -i -s 5 -q app >/dev/null 2>&1
superuser -c 'GRANT ALL ON ALL TABLES IN SCHEMA public TO app'

config() { # statistics, port
    sed -e "s/:$plain_port\"/:$2\"/" -e "/^workers/a statistics = $1" "$(plain_config)" >"$dir/$1.$2.toml"
    echo "$dir/$1.$2.toml"
}
on_port=$((base + 110)) off_port=$((base + 111)) counted_port=$((base + 112))
start_herd "$(config true $on_port)" $on_port
on_pid=$herd_pid
start_herd "$(config false $off_port)" $off_port
off_pid=$herd_pid

ask() { # port, protocol, clients, transactions per client: how many were processed
    pgbench -h 127.0.0.1 -p "$1" -U app -n -S -M "$2" -c "$3" -j 2 -t "$4" app 2>/dev/null |
        sed -n 's/.*actually processed: \([0-9]*\).*/\1/p'
}
measure() { # pid, port, protocol
    local before after done_
    before=$(cpu_ns "$1")
    done_=$(ask "$2" "$3" 16 "$transactions")
    after=$(cpu_ns "$1")
    echo $(((after - before) / done_))
}

echo "| protocol, 16 clients | recorded µs | not recorded µs | difference | goal |"
echo "|---|---|---|---|---|"
for mode in simple extended prepared; do
    : >"$dir/on"; : >"$dir/off"
    # First one, then the other comes first, so that neither always finds the machine as the other left it.
    for round in $(seq "$rounds"); do
        if [ $((round % 2)) = 0 ]; then measure "$on_pid" $on_port $mode >>"$dir/on"; fi
        measure "$off_pid" $off_port $mode >>"$dir/off"
        if [ $((round % 2)) = 1 ]; then measure "$on_pid" $on_port $mode >>"$dir/on"; fi
    done
    awk -v mode=$mode -v on="$(median <"$dir/on")" -v off="$(median <"$dir/off")" -v r="$(ratio "$dir/on" "$dir/off")" \
        -v goal="$goal" 'BEGIN { printf "| %s | %.2f | %.2f | %+.1f %% | %s |\n", mode, on / 1000, off / 1000, 100 * (r - 1), goal }'
done

command -v valgrind >/dev/null || exit 0
instructions() { # statistics, protocol, transactions per client
    local out="$dir/callgrind.$1.$2.$3" pid
    valgrind --tool=callgrind --callgrind-out-file="$out" "$PGHERD" -c "$(config "$1" $counted_port)" 2>"$dir/valgrind.log" &
    pid=$!
    pids+=("$pid")
    wait_for $counted_port
    ask $counted_port "$2" 16 "$3" >/dev/null
    kill -INT $pid
    wait $pid || true
    sed -n 's/^totals: *//p; s/^summary: *//p' "$out" | head -1
}
echo
echo "| protocol, 16 clients | instructions, recorded | not recorded | difference |"
echo "|---|---|---|---|"
for mode in simple extended prepared; do
    for kind in true false; do
        few=$(instructions $kind $mode 300)
        many=$(instructions $kind $mode 1300)
        echo $(((many - few) / 16000)) >"$dir/instructions.$kind"
    done
    awk -v mode=$mode -v on="$(cat "$dir/instructions.true")" -v off="$(cat "$dir/instructions.false")" \
        'BEGIN { printf "| %s | %d | %d | %+d |\n", mode, on, off, on - off }'
done
