-- One statement a line, run on PostgreSQL and on a virtual table with the same rows.
select * from t
select t.* from pgherd.t
select pgherd.t.id from pgherd.t
select x.id, x.name as n from t x
select id from t where id = 1
select id from t where id > 2 and name is not null
select id from t where not ok
select id from t where ok is not true
select id from t where ok is unknown
select id from t where ok is not false
select id from t where ok = 'yes'
select id from t where ok and name = 'alpha' or share < 0
select id from t where (ok or null) is null
select id from t where null
select id from t where 'true'
select id from t where name = 'alpha'
select id from t where name > 'a'
select id from t where name <> ''
select id from t where id = '3'
select id from t where id = 1.0
select id from t where id > 1.5
select id from t where id = 9007199254740992.0
select id from t where id = 9007199254740992::float8
select id from t where small = id
select id from t where share = 'NaN'
select id from t where share > 1000
select id from t where share = price
select id from t where price = 1.5
select id from t where at = '2026-01-01'
select id from t where at > '2026-01-01 01:00:00+01'
select id from t where at < 'infinity'
select id from t where at between '2026-01-01' and '2026-02-01'
select id from t where id in (1, 2, 99)
select id from t where id in (1, null)
select id from t where id not in (1, 2)
select id from t where id not in (1, null)
select id from t where small in (id, 10)
select id from t where id in ('1', '2')
select id from t where id in (1.0, 2.5, '3')
select id from t where name in ('alpha', 'Beta')
select id from t where name in (1, 2)
select id from t where null in (1)
select id from t where id between 1 and 3
select id from t where id not between 1 and 3
select id from t where id between null and 3
select id from t where small between 0 and price
select id from t where name between 'a' and 'b'
select id from t where name like 'a%'
select id from t where name like '%a'
select id from t where name like 'a\_c\%'
select id from t where name like '_'
select id from t where name like ''
select id from t where name not like 'a%'
select id from t where name ilike 'B%'
select id from t where name not ilike '%A%'
select id from t where name like '%\'
select id from t where 'abc' like 'abc\'
select id from t where name like null
select id from t where name is distinct from 'alpha'
select id from t where name is not distinct from null
select id from t where id is distinct from 1.0
select id from t order by id
select id from t order by name, id desc
select id, name from t order by name desc, 1
select id from t order by name nulls first, id
select id from t order by name desc nulls last, id
select id from t order by share, id
select id from t order by share desc, id
select id from t order by price desc nulls last, id
select id from t order by at, id
select id from t order by ok, id
select id, small as id2 from t order by id2, id
select id as name from t order by name
select small as id from t order by id + 0
select id from t order by -id
select id, name from t order by 2, 1
select id from t order by 3
select id from t order by 0
select id from t order by 'x'
select id as a, small as a from t order by a
select id as a, id as a from t order by a
select id from t order by id limit 2
select id from t order by id limit 2 offset 1
select id from t order by id offset 5
select id from t order by id offset 100
select id from t order by id limit 0
select id from t order by id limit null
select id from t order by id limit all
select id from t order by id limit 1 + 1
select id from t order by id limit '2'
select id from t order by id fetch first 2 rows only
select id from t order by id offset 1 rows fetch next row only
select id from t limit -1
select id from t offset -1
select id from t limit 1.5
select id from t limit 'x'
select id from t limit id
select id from t limit count(*)
select distinct small from t order by small
select distinct name, small from t
select distinct price from t order by price
select distinct share from t
select distinct small from t order by id
select distinct small + 1 as s from t order by s
select distinct small + 1 from t order by small + 1
select distinct id from t order by id desc limit 2
select count(*) from t
select count(name), count(distinct name), count(distinct small) from t
select count(*) from t where false
select count(*), sum(id), min(id), max(id), avg(id) from t where false
select sum(id), sum(small), sum(share), sum(price) from t where id < 5 and share <> 'NaN'
select avg(id), avg(small), avg(share), avg(price) from t where id in (1, 4, -6)
select avg(small), avg(price) from t
select sum(share), avg(share), min(share), max(share) from t
select min(name), max(name), min(at), max(at), min(price), max(price) from t
select min(ok) from t
select bool_and(ok), bool_or(ok), every(ok) from t
select sum(name) from t
select sum('1') from t
select min('b') from t
select count(*) filter (where ok), sum(id) filter (where small = 10) from t
select small, count(*) from t group by small
select small, count(*) from t group by small order by count(*) desc, small
select small, count(*) as n from t group by small order by n desc, 1 limit 2
select small, count(*) from t group by 1
select name, small, sum(id) from t group by name, small
select small + 1 as s, count(*) from t group by s
select small + 1, count(*) from t group by small + 1
select small as id, count(*) from t group by id
select price, count(*) from t group by price
select small from t group by small having count(*) > 1
select small, count(*) from t group by small having small > 0 and max(id) > 5
select count(*) from t having count(*) > 100
select 1 from t having true
select small, id from t group by small
select id, count(*) from t
select count(*) from t group by small order by id
select sum(count(*)) from t
select id from t where count(*) > 1
select small from t group by count(*)
select count(*) + 1 as more, -count(*) from t
select small, case when count(*) > 1 then 'many' else 'one' end from t group by small
select count(*) as c from t group by 1
select 1, 'a', null, 1.5, true, 2147483648, 9223372036854775808
select -2147483648, -9223372036854775808, - 5, -1.50
select 1 + 1, 7 / 2, -7 / 2, 7 % 3, -7 % 3, 2 * 3.5, 7 / 2.0, 1e3
select 2147483647 + 1
select 2147483648 + 1
select 9223372036854775807 + 1
select 9223372036854775807::int8 * 2
select 1 / 0
select 1.0 / 0
select 1 % 0
select 1::float8 / 0
select id / 0 from t
select '1e200'::float8 * '1e200'::float8
select '1e-200'::float8 * '1e-200'::float8
select 5.5 % 2, -5.5 % 2
select 5::float8 % 2
select id + small, id * price, small + share, price / 3, id / small from t where small <> 0
select 1 / 3.0, 2 / 3.0, 10 / 4.0, 0 / 7.0, 0.0001 / 3, 123456789.123 / 0.007, 1000000 / 7.0
select 1.1 * 1.10, 1.1 + 1.123, 1.10 - 1.1, 5.0 / 1.0000000000000000000000001
select price * price, price + 1, price - 0.001, -price, abs(price) from t
select 'a' || 'b', 'a' || 1, 1.5 || 'x', true || 'x', null || 'x', name || id from t
select 1 || 2
select at || '' from t where id = 2
select share || '' from t
select 1 = 'x'
select 1 = true
select name = id from t
select name + 1 from t
select -name from t
select '1' + '2'
select - '5'
select 1 + '2'
select '1' = '1', '1' < '2'
select id like 'x' from t
select not 1
select 1 and true
select id from t where id
select id from t where id + 1
select nothing from t
select t.nothing from t
select y.id from t
select nothing(1)
select lower(1)
select lower('ABC'), upper('abc'), lower(name), length('é'), char_length(name) from t
select round(1.5), round(2.5), round(-2.5), round(1.25, 1), round(1250, -2), round(1.5, 3)
select round(2.5::float8), round(3.5::float8), round(5), round('1.5'), round(share) from t
select round(share, 1) from t
select round(price, 1), ceil(price), floor(price), ceil(share), floor(share) from t
select ceil(1.2), floor(-1.2), ceiling(-0.5), floor(5), ceil(5)
select abs(-5), abs(-5::int8), abs(-1.5), abs('-1'), abs(share) from t
select abs(-2147483648)
select coalesce(name, 'none'), coalesce(null, small, 0), coalesce(small, 1.5) from t
select coalesce(name, 1) from t
select coalesce(null, null)
select nullif(small, 10), nullif(name, ''), nullif(1, 1.0) from t
select greatest(1, 2.5, null), least(1, 2, null), greatest('a', 'b'), least(null, null)
select greatest(name, 1) from t
select case when ok then 'yes' when not ok then 'no' else 'unknown' end from t
select case small when 10 then 'ten' when 7 then 'seven' end from t
select case when ok then 1 else 2.5 end, case when ok then small end from t
select case when id = 4 then 0 else 10 / (id - 4) end from t
select case when 1 then 2 end
select case when true then 1 else 'x' end
select case when true then 1 else 'x'::text end
select case name when 1 then 2 end from t
select case when ok then name else id end from t
select 1::int8, '5'::int4, 1.5::int4, 2.5::int4, 2.5::float8::int4, 3.5::float8::int8, '1.5'::numeric
select 'x'::int4
select '99999999999'::int4
select 99999999999::int4
select 1e20::int8
select 'nan'::float8::int4
select true::int4, 0::bool, 'on'::bool, 'f'::bool, 1::text, true::text, 1.50::text
select true::int8
select 1::int8::bool
select at::int8 from t
select id::text, share::text, price::text, ok::text, at::text from t
select '1e400'::float8
select ' 12 '::int8, ' 1.5 '::numeric, ' nan '::float8
select 0.1::float8, 1e15::float8, 1e14::float8, 123456789012345678::float8, 1e-5::float8, 0.0001::float8, 1e23::float8
select '5e-324'::float8, '1.7976931348623157e308'::float8, 9007199254740993::float8, 4.35::float8, 0.3::float8 + 0.1::float8
select 0.1::float8::numeric, 1e20::float8::numeric, (1::float8 / 3)::numeric, 123456789.123456789::float8::numeric
select 12345678901234567890.5::float8, 1.5::float8 + 1, 1 + 1.5::float8
select int8 '5', timestamptz '2026-01-31 12:00:00+02', bool 'yes', numeric '1.10', text 'x'
select '2026-02-30'::timestamptz
select '2026-01-01 25:00'::timestamptz
select '2024-02-29 23:59:59.1'::timestamptz, 'epoch'::timestamptz, '-infinity'::timestamptz, '0001-01-01'::timestamptz
select 1 is null, null is null, null is not null, null is true, null is not true, null is unknown
select null is distinct from null, 1 is distinct from null, 1 is not distinct from 1
select null and false, null and true, null or true, null or false, not null
select 1 < 2 = true
select (1 < 2) = true, not 1 = 2, not null is null, 1 + 2 || 'x', 'x' || 1 + 2
select 'abc' like 'a' || '%', 2 + 3 * 4 - 1, (2 + 3) * 4, - 2 * 3, 2 - -3
select 1 between 0 and 2 and true, 1 = 1 is true, 1 in (1) = true
select id from t where id > 0 and id < 3 or id = 7 and not ok is null
select id as "Id", name "N", small select_me from t where id = 1
select count(*) count, max(id) "max" from t
select (id), (name) from t where id = 1
select id::text, lower(name)::text, 1::bigint, true, cast(id as numeric), case when ok then id else small end from t
select current_x from t
select * from t where true order by id limit 1 offset 1
select *, id + 1 from t where id = 2
select *
select distinct * from t
select $1
select nullif(small, id), nullif(id, small), nullif(small, price), nullif(id, share), nullif('a', 'a') from t
select id from t order by id limit 1.5
select id from t limit true
select id from t where 1.5
select '1e22'::float8, '1e23'::float8, '-1e23'::float8, '2e23'::float8, '8.41e21'::float8, '9.5e-5'::float8, '5e22'::float8
select '2.0919495182368195e19'::float8, '4.5035996273704985e15'::float8, '1.8014398509481985e16'::float8, '3.6028797018963966e16'::float8
