#!/usr/bin/env bash
# Once, in a primary's new data directory: the roles, the database, a slot for the replica, and the replica's way in.
# The image runs it from /docker-entrypoint-initdb.d against a server that only local sockets reach.
set -euo pipefail
: "${PGDATA:?}" "${APP_PASSWORD:?}" "${REPLICATION_PASSWORD:?}"

psql -v ON_ERROR_STOP=1 --no-psqlrc --username "${POSTGRES_USER:-postgres}" --dbname postgres \
    -v app="$APP_PASSWORD" -v replicator="$REPLICATION_PASSWORD" <<'SQL'
CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'replicator';
CREATE ROLE app LOGIN PASSWORD :'app';
CREATE DATABASE app OWNER app;
-- Reserved at once, so that a replica copied now finds its WAL whenever it first connects.
SELECT pg_create_physical_replication_slot('replica', true);
SQL

# The image's own line for "all" does not cover replication.
echo 'host replication replicator all scram-sha-256' >>"$PGDATA/pg_hba.conf"
