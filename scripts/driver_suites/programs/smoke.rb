# A program on ruby-pg: what an application does with it, one line of TAP for each thing.
require 'pg'

$number = 0
def test(name)
  $number += 1
  yield
  puts "ok #{$number} - #{name}"
rescue StandardError => e
  puts "not ok #{$number} - #{name} # #{e.message.tr("\n", ' ')}"
end

def same(want, got)
  raise "wanted #{want.inspect}, got #{got.inspect}" unless want == got
end

db = PG.connect
db.exec('set client_min_messages = warning; drop table if exists ruby; create table ruby (id int, name text)')
test('parameters and prepared statements') do
  db.prepare('insert', 'insert into ruby values ($1, $2)')
  20.times { |i| db.exec_prepared('insert', [i, "n#{i}"]) }
  same('n7', db.exec_params('select name from ruby where id = $1', [7]).getvalue(0, 0))
end
test('a transaction that raises is rolled back') do
  begin
    db.transaction { |t| t.exec('delete from ruby'); raise 'no' }
  rescue RuntimeError
    same('20', db.exec('select count(*) from ruby').getvalue(0, 0))
  end
end
test('an error has its SQLSTATE') do
  begin
    db.exec('select 1/0')
    raise 'no error'
  rescue PG::DivisionByZero => e
    same('22012', e.result.error_field(PG::Result::PG_DIAG_SQLSTATE))
  end
end
test('COPY in and out') do
  db.copy_data('copy ruby from stdin') { db.put_copy_data("100\tcopied\n") }
  rows = 0
  db.copy_data('copy ruby to stdout') { rows += 1 while db.get_copy_data }
  same(21, rows)
end
test('row by row') do
  db.send_query('select * from ruby')
  db.set_single_row_mode
  rows = 0
  while (result = db.get_result)
    rows += result.ntuples
  end
  same(21, rows)
end
test('a notification of another session') do
  other = PG.connect
  db.exec('listen smoke')
  other.exec("notify smoke, 'hello'")
  got = nil
  db.wait_for_notify(5) { |channel, _, payload| got = [channel, payload] }
  same(%w[smoke hello], got)
  db.exec('unlisten *')
end
test('large objects') do
  db.transaction do
    oid = db.lo_creat
    file = db.lo_open(oid, PG::INV_WRITE | PG::INV_READ)
    db.lo_write(file, 'large')
    db.lo_lseek(file, 0, PG::SEEK_SET)
    same('large', db.lo_read(file, 10))
    db.lo_close(file)
    db.lo_unlink(oid)
  end
end
test('cancel') do
  db.send_query('select pg_sleep(20)')
  db.cancel
  begin
    db.get_last_result
    raise 'no error'
  rescue PG::QueryCanceled
    same('1', db.exec('select 1').getvalue(0, 0))
  end
end
