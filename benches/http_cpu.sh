#!/usr/bin/env bash
# The proxy's own CPU time per request over HTTP, beside the same query over the wire, in one run.
#
#   benches/http_cpu.sh [ROUNDS] [REQUESTS]
#
# See benches/README.md for the method.
cd "$(dirname "$0")/.."
. benches/common.sh
rounds=${1:-5}
requests=${2:-16000}
http_port=$((base + 120))

start_cluster
# The configuration of proxy_cpu.sh, with the HTTP server as shipped, but for its port.
config=$(routed_config)
awk '/^\[/ { http = /^\[http\]/ } http' proxy.toml | sed -e "s/127.0.0.1:3000/127.0.0.1:$http_port/" >>"$config"
start_herd "$config" "$routed_port"
url=http://127.0.0.1:$http_port
for _ in $(seq 100); do
    curl -sf "$url/ready" >/dev/null && break
    sleep 0.1
done
"$PGHERD" generate -c "$config" --scale 0.02 >/dev/null 2>&1
echo 'SELECT * FROM users WHERE user_id = :user;' >"$dir/read.sql"
read="$url/api/read?table=users&user_id=eq.user_000042"
curl -sf "$read" | grep -q '"count":1'

measure() { # how to ask $requests times
    local before after
    before=$(cpu_ns "$herd_pid")
    "$@" >/dev/null 2>&1
    after=$(cpu_ns "$herd_pid")
    echo $(((after - before) / requests))
}
wire() {
    pgbench -h 127.0.0.1 -p "$routed_port" -U app -n -M "$1" -c 16 -j 2 -t $((requests / 16)) \
        -D "user='user_000042'" -f "$dir/read.sql" app
}
http() { ab -q -k -c 16 -n "$requests" "$@"; }

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
    echo "| ${row#*:} | $(median <"$dir/${row%%:*}" | awk '{ printf "%.1f", $1 / 1000 }') |"
done
