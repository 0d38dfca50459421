<?php
// A program on PDO and pgsql: what an application does with them, one line of TAP for each thing.
$number = 0;
function test(string $name, callable $body): void {
    global $number;
    $number++;
    try {
        $body();
        echo "ok $number - $name\n";
    } catch (Throwable $error) {
        echo "not ok $number - $name # " . str_replace("\n", ' ', $error->getMessage()) . "\n";
    }
}
function same($want, $got): void {
    if ($want !== $got) throw new Exception('wanted ' . var_export($want, true) . ', got ' . var_export($got, true));
}
$dsn = sprintf('pgsql:host=%s;port=%s;dbname=%s', getenv('PGHOST'), getenv('PGPORT'), getenv('PGDATABASE'));
$pdo = new PDO($dsn, getenv('PGUSER'), getenv('PGPASSWORD'), [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION]);
$pdo->exec('drop table if exists php; create table php (id serial primary key, name text)');
test('statements prepared by the server', function () use ($pdo) {
    $insert = $pdo->prepare('insert into php (name) values (?)');
    for ($i = 0; $i < 50; $i++) $insert->execute(["n$i"]);
    $select = $pdo->prepare('select name from php where id = ?');
    $select->execute([7]);
    same('n6', $select->fetchColumn());
});
test('the last id', fn () => same('50', $pdo->lastInsertId()));
test('statements that PDO fills in', function () use ($pdo) {
    $select = $pdo->prepare('select ?::text', [PDO::ATTR_EMULATE_PREPARES => true]);
    $select->execute(["it's"]);
    same("it's", $select->fetchColumn());
});
test('a transaction that is rolled back', function () use ($pdo) {
    $pdo->beginTransaction();
    $pdo->exec('delete from php');
    $pdo->rollBack();
    same(50, $pdo->query('select count(*)::int from php')->fetchColumn());
});
test('an error has its SQLSTATE', function () use ($pdo) {
    try {
        $pdo->query('select 1/0');
        throw new Exception('no error');
    } catch (PDOException $error) {
        same('22012', $error->getCode());
    }
});
test('COPY in and out', function () use ($pdo) {
    $pdo->pgsqlCopyFromArray('php', ["1000\tcopied"]);
    same(51, count($pdo->pgsqlCopyToArray('php')));
});
test('a persistent connection of pgsql', function () {
    $text = sprintf("host=%s port=%s dbname=%s user=%s password=%s", getenv('PGHOST'), getenv('PGPORT'), getenv('PGDATABASE'), getenv('PGUSER'), getenv('PGPASSWORD'));
    $db = pg_pconnect($text);
    pg_prepare($db, 'mine', 'select $1::int * 2');
    same('42', pg_fetch_result(pg_execute($db, 'mine', [21]), 0, 0));
    same('3', pg_fetch_result(pg_query_params($db, 'select $1::int', [3]), 0, 0));
    pg_send_query($db, 'select 1; select 2');
    same('1', pg_fetch_result(pg_get_result($db), 0, 0));
    same('2', pg_fetch_result(pg_get_result($db), 0, 0));
});
