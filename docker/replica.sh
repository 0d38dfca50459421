#!/usr/bin/env bash
# A streaming replica's entry point: copies the primary once, then follows it. Arguments go to postgres.
set -euo pipefail
: "${PGDATA:?}" "${PRIMARY_HOST:?}" "${REPLICATION_PASSWORD:?}"

if [ "$(id -u)" = 0 ]; then # postgres refuses to run as root; the volume is root's at first
    mkdir -p "$(dirname "$PGDATA")"
    chown postgres:postgres "$(dirname "$PGDATA")"
    exec gosu postgres "$0" "$@"
fi

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    # Copied beside its place and then moved there: a copy that was cut off is never taken for a whole one.
    rm -rf "$PGDATA.copying"
    PGPASSWORD="$REPLICATION_PASSWORD" pg_basebackup \
        --host "$PRIMARY_HOST" --port "${PRIMARY_PORT:-5432}" --username replicator --no-password \
        --pgdata "$PGDATA.copying" --wal-method stream --checkpoint fast \
        --write-recovery-conf --slot replica
    rmdir "$PGDATA" 2>/dev/null || true
    mv -T "$PGDATA.copying" "$PGDATA"
fi

exec postgres "$@"
