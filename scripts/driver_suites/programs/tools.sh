#!/usr/bin/env bash
# PostgreSQL's own programs: psql with what it is used for, pg_dump | pg_restore, pgbench in three protocols; one line
# of TAP for each. What they print must be what the lines below say.
set -uo pipefail
number=0
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# same NAME WANT: compares with standard input.
same() {
    number=$((number + 1))
    local got
    got=$(cat)
    if [ "$got" = "$2" ]; then echo "ok $number - $1"; else echo "not ok $number - $1 # got ${got//$'\n'/ | }"; fi
}
psql() { command psql -X -A -t -q "$@" 2>&1; }

psql -c 'drop schema if exists tools cascade; create schema tools; create table tools.t (a int primary key, b text); create view tools.v as select a from tools.t'
psql -c '\d tools.t' | same 'psql \d of a table' $'a|integer||not null|\nb|text|||'
psql -c '\dv tools.*' | same 'psql \dv' 'tools|v|view|postgres'
psql -c '\sf pg_catalog.abs(int)' | head -1 | same 'psql \sf' 'CREATE OR REPLACE FUNCTION pg_catalog.abs(integer)'
printf '1\tone\n2\ttwo\n' | psql -c '\copy tools.t from stdin' -c '\copy tools.t to stdout csv' | same 'psql \copy' $'1,one\n2,two'
psql <<<"select 1 as a, 'x'::text as b \gdesc" | same 'psql \gdesc' $'a|integer\nb|text'
psql <<<"select 'select ' || g from generate_series(1, 3) g \gexec" | same 'psql \gexec' $'1\n2\n3'
psql <<<"select a, b, 1 from tools.t \crosstabview" | same 'psql \crosstabview' $'1|1|\n2||1'
psql -v FETCH_COUNT=3 -c 'select generate_series(1, 7)' | same 'psql FETCH_COUNT' $'1\n2\n3\n4\n5\n6\n7'
psql -v ON_ERROR_ROLLBACK=on <<<$'begin;\nselect 1/0;\nselect 2;\ncommit;' | same 'psql ON_ERROR_ROLLBACK' $'ERROR:  division by zero\n2'
timeout 20 psql -h "$PGHOST" <<<$'select 3 \\watch 0.2' 2>/dev/null | grep -x -m 2 ' *3' | wc -l | same 'psql \watch' 2
psql -1 -v ON_ERROR_STOP=1 -c 'insert into tools.t values (3)' -c 'select 1/0' >/dev/null
psql -c 'select count(*) from tools.t' | same 'psql --single-transaction' 2
printf 'new\nnew\n' | psql -c "create role tools_user" -c 'drop role tools_user' | same 'psql roles' ''
psql -c 'select 1; select 2' -c $'begin; insert into tools.t values (4); rollback' -c 'select count(*) from tools.t' | same 'psql several statements' $'1\n2\n2'
psql <<<$'select 5 as five \\gset\nselect :five + 1;' | same 'psql \gset' 6

psql <<<$'select 1/0;\n\\errverbose' | sed -n 2p | same 'psql \errverbose' 'ERROR:  22012: division by zero'
psql <<<$'\\timing on\nselect 7;' | sed 's/[0-9.]* ms.*/ms/' | same 'psql \timing' $'7\nTime: ms'
psql -c '\dt+ tools.*' | cut -d'|' -f1-4 | same 'psql \dt+' 'tools|t|table|postgres'
printf 'large' >"$tmp/large"
psql <<<"\lo_import $tmp/large
\lo_export :LASTOID $tmp/exported
\lo_unlink :LASTOID" >/dev/null
same 'psql \lo_import, \lo_export' large <"$tmp/exported"

for format in custom plain directory; do
    psql -d postgres -c "drop database if exists tools_$format" -c "create database tools_$format"
    case $format in
        custom) pg_dump -Fc -n tools | pg_restore -d "tools_$format" ;;
        plain) pg_dump -Fp -n tools | psql -d "tools_$format" >/dev/null ;;
        directory) pg_dump -Fd -j 2 -n tools -f "$tmp/dump" && pg_restore -j 2 -d "tools_$format" "$tmp/dump" ;;
    esac
    psql -d "tools_$format" -c 'select a, b from tools.t order by a' | same "pg_dump, pg_restore: $format" $'1|one\n2|two'
done

pgbench -i -q -s 2 2>/dev/null
for mode in simple extended prepared; do
    pgbench -n -M "$mode" -c 8 -j 2 -t 40 2>&1 | grep -E 'processed|failed' | same "pgbench TPC-B, $mode" \
        $'number of transactions actually processed: 320/320\nnumber of failed transactions: 0 (0.000%)'
done
psql -c 'select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history)
    and (select sum(bbalance) from pgbench_branches) = (select sum(tbalance) from pgbench_tellers), count(*) from pgbench_history' |
    same 'pgbench: the books balance' 't|960'
