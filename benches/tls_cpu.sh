#!/usr/bin/env bash
# The proxy's own CPU time per transaction where clients come over TLS, beside PgBouncer's, in one run.
#
#   benches/tls_cpu.sh [ROUNDS] [TRANSACTIONS PER CLIENT, of 16]
#
# See benches/README.md for the method.
cd "$(dirname "$0")/.."
. benches/common.sh
rounds=${1:-5}
transactions=${2:-1000}

openssl req -new -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj /CN=localhost -days 2 \
    -keyout "$dir/key.pem" -out "$dir/cert.pem" 2>/dev/null
chmod 644 "$dir/key.pem" # PgBouncer runs as another user
start_cluster
PGPASSWORD=postgres pgbench -h 127.0.0.1 -p "$base" -U postgres -i -s 5 -q app >/dev/null 2>&1
superuser -c 'GRANT ALL ON ALL TABLES IN SCHEMA public TO app'
start_bouncer "client_tls_sslmode = allow
client_tls_key_file = $dir/key.pem
client_tls_cert_file = $dir/cert.pem"
config=$(plain_config)
printf '[tls]\ncert = "%s"\nkey = "%s"\n' "$dir/cert.pem" "$dir/key.pem" >>"$config"
start_herd "$config" "$plain_port"
export PGSSLMODE=require

measure() { # pid, port, protocol, clients
    local before after done_
    before=$(cpu_ns "$1")
    done_=$(pgbench -h 127.0.0.1 -p "$2" -U app -n -M "$3" -c "$4" -j 2 -t $((transactions * 16 / $4)) -S app 2>/dev/null |
        sed -n 's/.*actually processed: \([0-9]*\).*/\1/p')
    after=$(cpu_ns "$1")
    echo $(((after - before) / done_))
}
echo "| protocol, TLS | clients | PgBouncer $(bouncer_version) µs | pgherd µs | ratio |"
echo "|---|---|---|---|---|"
for clients in 16 64; do
    for mode in simple extended prepared; do
        has_prepared || [ "$mode" != prepared ] || continue
        : >"$dir/b"; : >"$dir/p"
        for _ in $(seq "$rounds"); do
            measure "$bouncer_pid" "$bouncer_port" "$mode" "$clients" >>"$dir/b"
            measure "$herd_pid" "$plain_port" "$mode" "$clients" >>"$dir/p"
        done
        awk -v mode="$mode" -v clients="$clients" -v b="$(median <"$dir/b")" -v p="$(median <"$dir/p")" \
            -v r="$(ratio "$dir/p" "$dir/b")" \
            'BEGIN { printf "| %s | %s | %.1f | %.1f | %.2f |\n", mode, clients, b / 1000, p / 1000, r }'
    done
done
