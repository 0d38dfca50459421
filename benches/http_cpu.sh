#!/usr/bin/env bash
# The proxy's own CPU time per request over HTTP, beside the same query over the wire, in one run.
#
#   benches/http_cpu.sh [ROUNDS] [REQUESTS]
#
# Starts a local cluster and one pgherd, on ports of their own, and stops them at the end. See benches/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-5}
requests=${2:-20000}
base=${BASE:-21632}
scripts/prerequisites.sh --bench
[ -n "${PGHERD:-}" ] || cargo build --release --locked --quiet
pgherd=${PGHERD:-$PWD/target/release/pgherd}
export PGPASSWORD=app
dir=$(mktemp -d /tmp/pgherd-bench.XXXXXX)
chmod 755 "$dir"
pid=
finish() {
    [ -z "$pid" ] || kill -INT "$pid" 2>/dev/null || true
    "$pgherd" cluster down --data-dir "$dir/herd" >/dev/null 2>&1 || true
    rm -rf "$dir"
}
trap finish EXIT

"$pgherd" cluster up --data-dir "$dir/herd" --port-base "$base" >/dev/null
# The shipped configuration on other ports, with one worker, as in proxy_cpu.sh.
sed -e "s/127.0.0.1:6432/127.0.0.1:$((base + 100))/" -e "s/127.0.0.1:3000/127.0.0.1:$((base + 101))/" \
    -e '/^listen = \[/a workers = 1' proxy.toml >"$dir/proxy.toml"
for i in 0 1 2 3 4 5; do sed -i "s/port = $((5432 + i)),/port = $((base + i)),/" "$dir/proxy.toml"; done
"$pgherd" setup -c "$dir/proxy.toml" >/dev/null
"$pgherd" -c "$dir/proxy.toml" 2>"$dir/log" &
pid=$!
url=http://127.0.0.1:$((base + 101))
for _ in $(seq 100); do
    curl -sf "$url/ready" >/dev/null && break
    sleep 0.1
done
"$pgherd" generate -c "$dir/proxy.toml" --scale 0.02 >/dev/null 2>&1
echo 'SELECT * FROM users WHERE user_id = :user;' >"$dir/read.sql"
read="$url/api/read?table=users&user_id=eq.user_000042"
curl -sf "$read" | grep -q '"count":1'

cpu_ns() { # of all threads of the proxy
    local total=0 spent
    for task in /proc/"$pid"/task/*/schedstat; do
        read -r spent _ <"$task" && total=$((total + spent))
    done
    echo $total
}
measure() { # how to ask $requests times
    local before after
    before=$(cpu_ns)
    "$@" >/dev/null 2>&1
    after=$(cpu_ns)
    echo $(((after - before) / requests))
}
wire() {
    pgbench -h 127.0.0.1 -p $((base + 100)) -U app -n -M "$1" -c 16 -j 2 -t $((requests / 16)) \
        -D "user='user_000042'" -f "$dir/read.sql" app
}
http() { ab -q -k -c 16 -n "$requests" "$@"; }
median() { sort -n | awk '{ v[NR] = $1 } END { printf "%.1f", v[int((NR + 1) / 2)] / 1000 }'; }

for _ in $(seq "$rounds"); do
    measure wire extended >>"$dir/extended"
    measure wire prepared >>"$dir/prepared"
    measure http "$read" >>"$dir/http"
    measure http -A app:app "$read" >>"$dir/basic"
    measure http "$url/health" >>"$dir/health"
done
echo "| one row by its key, 16 clients | CPU of the proxy, µs per request |"
echo "|---|---|"
for row in "extended:wire, extended protocol" "prepared:wire, prepared" "http:GET /api/read" \
    "basic:GET /api/read with name and password" "health:GET /health (no statement)"; do
    echo "| ${row#*:} | $(median <"$dir/${row%%:*}") |"
done
