// A program on JDBC: what an application does with it, one line of TAP for each thing.
import java.sql.*;
import java.util.Properties;

public class Smoke {
    static int number = 0;

    interface Body { void run() throws Exception; }

    static void test(String name, Body body) {
        number++;
        try {
            body.run();
            System.out.println("ok " + number + " - " + name);
        } catch (Throwable error) {
            System.out.println("not ok " + number + " - " + name + " # " + String.valueOf(error).replace('\n', ' '));
        }
    }

    static void same(Object want, Object got) {
        if (!want.equals(got)) throw new IllegalStateException("wanted " + want + ", got " + got);
    }

    static Connection open(String... more) throws SQLException {
        var env = System.getenv();
        var given = new Properties();
        given.setProperty("user", env.get("PGUSER"));
        given.setProperty("password", env.get("PGPASSWORD"));
        for (int i = 0; i < more.length; i += 2) given.setProperty(more[i], more[i + 1]);
        return DriverManager.getConnection("jdbc:postgresql://" + env.get("PGHOST") + ":" + env.get("PGPORT") + "/" + env.get("PGDATABASE"), given);
    }

    static String one(Connection c, String sql) throws SQLException {
        try (var s = c.createStatement(); var r = s.executeQuery(sql)) {
            r.next();
            return r.getString(1);
        }
    }

    public static void main(String[] args) throws Exception {
        try (var c = open(); var s = c.createStatement()) {
            s.execute("drop table if exists jdbc; create table jdbc (id serial primary key, name text, at timestamptz default now(), raw bytea)");
            test("a prepared statement, also when it has become one of the server's", () -> {
                try (var p = c.prepareStatement("select ?::int + 1, ?::text")) {
                    for (int i = 0; i < 20; i++) {
                        p.setInt(1, i);
                        p.setString(2, "é" + i);
                        try (var r = p.executeQuery()) {
                            r.next();
                            same(i + 1, r.getInt(1));
                            same("é" + i, r.getString(2));
                        }
                    }
                }
            });
            test("generated keys and a batch", () -> {
                try (var p = c.prepareStatement("insert into jdbc (name, raw) values (?, ?)", Statement.RETURN_GENERATED_KEYS)) {
                    for (int i = 0; i < 500; i++) {
                        p.setString(1, "row " + i);
                        p.setBytes(2, new byte[] {0, (byte) i});
                        p.addBatch();
                    }
                    same(500, p.executeBatch().length);
                    try (var keys = p.getGeneratedKeys()) {
                        int n = 0;
                        while (keys.next()) n++;
                        same(500, n);
                    }
                }
            });
            test("a transaction that is rolled back, and one with a savepoint", () -> {
                c.setAutoCommit(false);
                s.executeUpdate("delete from jdbc");
                c.rollback();
                var savepoint = c.setSavepoint();
                s.executeUpdate("delete from jdbc");
                c.rollback(savepoint);
                c.commit();
                c.setAutoCommit(true);
                same("500", one(c, "select count(*) from jdbc"));
            });
            test("rows in portions of a portal", () -> {
                c.setAutoCommit(false);
                try (var p = c.prepareStatement("select id from jdbc order by id")) {
                    p.setFetchSize(7);
                    try (var r = p.executeQuery()) {
                        int n = 0;
                        while (r.next()) n++;
                        same(500, n);
                    }
                }
                c.commit();
                c.setAutoCommit(true);
            });
            test("an error keeps the session, and its SQLSTATE", () -> {
                try {
                    s.execute("select 1/0");
                    throw new IllegalStateException("no error");
                } catch (SQLException error) {
                    same("22012", error.getSQLState());
                }
                same("1", one(c, "select 1"));
            });
            test("metadata of tables, columns and keys", () -> {
                var m = c.getMetaData();
                try (var r = m.getColumns(null, "public", "jdbc", null)) {
                    int n = 0;
                    while (r.next()) n++;
                    same(4, n);
                }
                try (var r = m.getPrimaryKeys(null, "public", "jdbc")) {
                    r.next();
                    same("id", r.getString("COLUMN_NAME"));
                }
            });
            test("schema, isolation, read only and the name of the application", () -> {
                c.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
                same(Connection.TRANSACTION_SERIALIZABLE, c.getTransactionIsolation());
                c.setReadOnly(true);
                c.setAutoCommit(false);
                same("on", one(c, "show transaction_read_only"));
                c.rollback();
                c.setAutoCommit(true);
                c.setReadOnly(false);
                c.setTransactionIsolation(Connection.TRANSACTION_READ_COMMITTED);
                c.setClientInfo("ApplicationName", "smoke");
                same("smoke", one(c, "show application_name"));
                c.setSchema("pg_catalog");
                same("pg_catalog", one(c, "select current_schema()"));
                c.setSchema("public");
            });
            test("a timeout cancels the statement", () -> {
                try (var slow = c.createStatement()) {
                    slow.setQueryTimeout(1);
                    slow.execute("select pg_sleep(20)");
                    throw new IllegalStateException("no error");
                } catch (SQLException error) {
                    same("57014", error.getSQLState());
                }
                same("1", one(c, "select 1"));
            });
            test("another connection in simple mode", () -> {
                try (var simple = open("preferQueryMode", "simple"); var p = simple.prepareStatement("select ?::text")) {
                    p.setString(1, "it's");
                    try (var r = p.executeQuery()) {
                        r.next();
                        same("it's", r.getString(1));
                    }
                }
            });
        }
    }
}
