"""The suites: how each is fetched and run.

Must not know how results are compared.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import fetch
import parse

HERE = Path(__file__).resolve().parent
LIMIT = 1200  # seconds for one suite against one target


def limited(command, cwd, env, log, timeout=LIMIT):
    """Runs it; its output, also when it was stopped because time was over."""
    with open(log, "w") as out:
        try:
            subprocess.run(command, cwd=cwd, env=env, timeout=timeout, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        except subprocess.TimeoutExpired:
            out.write(f"\nstopped after {timeout} s\n")
    return Path(log).read_text(errors="replace")


class Suite:
    """One suite. `run` is called once per target, on a database of its own; `again` for what differed."""

    name = title = ""

    def fetch(self):
        """Makes all ready that `run` needs."""

    def run(self, target):
        """Outcomes by test."""
        raise NotImplementedError

    def again(self, target, tests, outcome):
        """Asks single tests again and puts right what passes now. Suites that cannot, do not."""

    def log(self, target, ending="log"):
        return target.dir / f"{self.name}.{ending}"


class Pytest(Suite):
    """A suite that pytest runs."""

    tests, flags, variables = ["tests"], [], {}
    python, within = fetch.PYTHON, []

    def source(self):
        raise NotImplementedError

    def fetch(self):
        self.dir = self.source()

    def prepare(self, target):
        """Makes its database; variables for the run."""
        return target.env(target.database(self.name))

    def arguments(self, target):
        return self.tests

    def pytest(self, target, env, selection, report, timeout=LIMIT):
        report.unlink(missing_ok=True)
        command = [str(self.python), "-m", "pytest", "-q", "--tb=native", "--timeout=40", "-p", "no:cacheprovider"]
        command += ["-o", "junit_family=xunit2", f"--junitxml={report}", f"--basetemp={target.dir / 'tmp'}-{self.name}", *self.flags, *selection]
        limited([*self.within, *command], self.dir, env, self.log(target, report.stem + ".log"), timeout)
        return parse.junit(report)

    def run(self, target):
        self.env = getattr(self, "env", {})
        self.env[target.mode] = self.prepare(target)
        return self.pytest(target, self.env[target.mode], self.arguments(target), self.log(target, "xml"))

    def again(self, target, tests, outcome):
        if not tests or len(tests) > 60:
            return
        names = {test.rsplit(".", 1)[-1].split("[")[0] for test in tests}
        selection = [*self.arguments(target), "-k", " or ".join(sorted(names))]
        second = self.pytest(target, self.env[target.mode], selection, self.log(target, "again.xml"), 120)
        for test in tests:
            if second.get(test, ("", ""))[0] == "pass":
                outcome[test] = second[test]


class Asyncpg(Pytest):
    name, title = "asyncpg", "asyncpg 0.32"

    def source(self):
        dir = fetch.sdist("asyncpg", "0.32.0")
        shutil.rmtree(dir / "asyncpg", ignore_errors=True)  # the wheel's is built
        return dir

    def prepare(self, target):
        return target.env("postgres")  # it makes and drops databases of its own


class Psycopg(Pytest):
    """psycopg 3. Its tests are in its repository only, which GitHub has; they want the version that they are of."""

    name, title, version = "psycopg", "psycopg 3 (its own tests)", "3.3.9"
    # A COPY in a pipeline may be read without end until memory is over, in front of whatever server: of that it gets a share.
    within = ["prlimit", f"--as={2 << 30}"]
    # Not those of other servers, of programs and services beside the server, and of what takes long for its own sake.
    flags = ["-m", "not slow and not proxy and not dns and not subprocess and not postgis and not mypy and not flakey"]

    def source(self):
        dir = fetch.checkout("https://github.com/psycopg/psycopg", self.version, "PSYCOPG_SOURCE")
        if not (dir / "tests" / "conftest.py").exists():
            raise RuntimeError(f"{dir} has no tests/conftest.py")
        version = self.version_of(dir)
        # Until 3.2 tests of coroutines are for a plugin of pytest that was young then.
        plugins = ["pytest==8.4.2", "anyio"] if [int(n) for n in version.split(".")[:2]] >= [3, 2] else ["pytest<8", "pytest-asyncio==0.20.3"]
        wheels = [f"psycopg[binary,pool]=={version}", "pytest-timeout==2.4.0", *plugins]
        self.python = fetch.venv(fetch.WORK / f"venv-psycopg-{version}", wheels)
        return dir

    def version_of(self, dir):
        for file in ("pyproject.toml", "psycopg/version.py"):
            file = dir / "psycopg" / file
            found = file.exists() and re.search(r"""^(?:__)?version(?:__)? = ["'](\S+)["']""", file.read_text(), re.M)
            if found:
                return found[1]
        raise RuntimeError(f"{dir} does not say of which version it is")

    def prepare(self, target):
        dsn = f"host=127.0.0.1 port={target.port} user=postgres password=postgres dbname={target.database(self.name)} sslmode=disable"
        return {**os.environ, "PSYCOPG_TEST_DSN": dsn}


class Psycopg2(Pytest):
    name, title = "psycopg2", "psycopg2 2.9"

    def source(self):
        return fetch.sdist("psycopg2", "2.9.13")

    def prepare(self, target):
        extensions = [f"create extension {e}" for e in ("hstore",)]
        env = target.env(target.database("psycopg2_test", *extensions))
        return {**env, "PSYCOPG2_TESTDB": "psycopg2_test", "PYTHONPATH": str(self.dir)}


class Pg8000(Pytest):
    name, title = "pg8000", "pg8000 1.31"
    tests = ["test/native", "test/dbapi", "--ignore=test/native/auth", "--ignore=test/dbapi/auth"]

    def source(self):
        return fetch.sdist("pg8000", "1.31.6")

    def prepare(self, target):
        for extension in ("hstore",):
            target.sql(f"create extension if not exists {extension}")
        return target.env("postgres")


class SqlAlchemy(Pytest):
    """Its PostgreSQL dialect's tests and those that every dialect must pass."""

    tests = [f"test/dialect/postgresql/test_{name}.py" for name in ("query", "on_conflict", "dialect", "reflection")]
    tests += ["test/engine/test_transaction.py"]
    flags = ["-p", "no:warnings"]

    def __init__(self, driver):
        self.driver = driver
        self.name, self.title = f"sqlalchemy-{driver}", f"SQLAlchemy 2.1 on {driver}"

    def source(self):
        return fetch.sdist("sqlalchemy", "2.1.9")

    def prepare(self, target):
        name = f"sqlalchemy_{self.driver}"
        target.database(
            name, "create schema test_schema", "create schema test_schema_2", "create extension hstore", "create extension citext",
            f"alter database {name} set default_text_search_config = 'pg_catalog.english'",
        )
        return target.env(name)

    def arguments(self, target):
        url = f"postgresql+{self.driver}://postgres:postgres@127.0.0.1:{target.port}/sqlalchemy_{self.driver}"
        return [*self.tests, "--dburi", url]


class Django(Suite):
    name, title = "django", "Django 5.2 on psycopg 3"
    apps = """migrations migrations2 schema backends transactions transaction_hooks introspection inspectdb
        custom_migration_operations migration_test_data_persistence select_for_update bulk_create get_or_create
        raw_query constraints indexes""".split()

    def fetch(self):
        self.dir = fetch.sdist("django", "5.2.19")

    def django(self, target, labels, outcome_file, timeout=LIMIT):
        env = {
            **target.env("postgres"),
            "PYTHONPATH": f"{HERE}:{self.dir}",
            "PGHERD_OUTCOME": str(outcome_file),
            "TMPDIR": str(target.dir),
        }
        outcome_file.unlink(missing_ok=True)
        command = [str(fetch.PYTHON), "runtests.py", "--settings=django_settings", "--parallel=1", "--noinput", *labels]
        text = limited(command, self.dir / "tests", env, self.log(target, outcome_file.stem + ".log"), timeout)
        if not outcome_file.exists():
            return {"the run": ("fail", text[-800:])}
        return {name: tuple(result) for name, result in json.loads(outcome_file.read_text()).items()}

    def run(self, target):
        return self.django(target, self.apps, self.log(target, "json"))

    def again(self, target, tests, outcome):
        labels = [test for test in tests if test.count(".") >= 3]
        if not labels or len(labels) > 60:
            return
        second = self.django(target, labels, self.log(target, "again.json"), 120)
        for test in labels:
            if second.get(test, ("", ""))[0] == "pass":
                outcome[test] = second[test]


class NodePostgres(Suite):
    """Each file of its integration tests is a program."""

    name, title = "node-postgres", "node-postgres 8.16 (programs)"

    def fetch(self):
        self.dir = fetch.debian_source("node-postgres", "sid") / "packages" / "pg"
        if not (self.dir / "node_modules" / "pg-copy-streams").exists():
            package = json.loads((self.dir / "package.json").read_text())
            for key in ("devDependencies", "peerDependencies", "peerDependenciesMeta", "optionalDependencies"):
                package.pop(key, None)
            (self.dir / "package.json").write_text(json.dumps(package))
            fetch.npm(self.dir, "async@2.6.4", "bluebird@3.7.2", "co@4.6.0", "pg-copy-streams@0.3.0")

    def one(self, target, file):
        env = target.env("node")
        env.pop("NO_COLOR")
        try:
            done = subprocess.run(["node", str(file)], cwd=self.dir, env=env, timeout=40, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        except subprocess.TimeoutExpired:
            return "fail", "did not end within 40 s"
        return ("pass" if done.returncode == 0 else "fail"), (done.stdout + done.stderr)[-1500:]

    def run(self, target):
        target.database("node")
        subprocess.run(["node", "script/create-test-tables.js"], cwd=self.dir, env=target.env("node"), timeout=60, capture_output=True)
        files = sorted((self.dir / "test" / "integration").rglob("*-tests.js"))
        return {str(file.relative_to(self.dir / "test" / "integration")): self.one(target, file.relative_to(self.dir)) for file in files}

    def again(self, target, tests, outcome):
        for test in tests[:20]:
            second = self.one(target, Path("test/integration") / test)
            outcome[test] = second if second[0] == "pass" else outcome[test]


class TokioPostgres(Suite):
    name, title = "tokio-postgres", "tokio-postgres 0.7"

    def fetch(self):
        self.dir = fetch.crate("tokio-postgres", "0.7.18")
        manifest = self.dir / "Cargo.toml"
        text = manifest.read_text()
        # Benchmarks are not run, and what measures them takes longer to build than all the rest.
        text = re.sub(r"\[\[bench\]\].*?(?=^\[)", "", text, flags=re.M | re.S)
        text = re.sub(r"\[dev-dependencies\.criterion\].*?(?=^\[)", "", text, flags=re.M | re.S)
        manifest.write_text(text + ("" if "[workspace]" in text else "\n[workspace]\n"))
        shutil.rmtree(self.dir / "benches", ignore_errors=True)
        # The port is read when it runs, not fixed in the text.
        for file in (self.dir / "tests").rglob("*.rs"):
            text = file.read_text()
            text = text.replace('TcpStream::connect("127.0.0.1:5433")', 'TcpStream::connect(format!("127.0.0.1:{}", std::env::var("PGPORT").unwrap()))')
            # Only the superuser needs no password there; here it has one.
            text = re.sub(r'"((?:host=\S+ )?(?:port=\S+ )?)user=postgres"', r'"\1user=postgres password=postgres"', text)
            file.write_text(text)
        env = {**os.environ, "CARGO_TARGET_DIR": str(fetch.WORK / "cargo"), "CARGO_INCREMENTAL": "0", "CARGO_PROFILE_TEST_DEBUG": "0", "CARGO_PROFILE_DEV_DEBUG": "0"}
        features = "with-uuid-1,with-serde_json-1,with-chrono-0_4,array-impls"
        out = fetch.call("cargo", "test", "--no-run", "--test", "test", "--features", features, "--message-format=json", cwd=self.dir, env=env, timeout=900)
        self.program = next(m["executable"] for line in out.splitlines() if line.startswith("{") for m in [json.loads(line)] if m.get("executable") and m["target"]["name"] == "test")

    def run(self, target):
        for statement in ("create extension if not exists hstore", "create extension if not exists citext", "create extension if not exists ltree"):
            target.sql(statement)
        # Names of hosts and ports in the text of `runtime` cannot be moved: these tests are left out.
        command = [self.program, "--test-threads=2", "--skip", "runtime::"]
        return parse.cargo(limited(command, self.dir, target.env("postgres"), self.log(target)))

    def again(self, target, tests, outcome):
        for test in tests[:20]:
            text = limited([self.program, "--exact", test], self.dir, target.env("postgres"), self.log(target, "again.log"), 40)
            second = parse.cargo(text).get(test, ("fail", ""))
            outcome[test] = second if second[0] == "pass" else outcome[test]


class Go(Suite):
    """Packages that `go test` tests, found below a GOPATH."""

    go, gopath, root, packages, database = "go", "/usr/share/gocode", "", [""], ""

    def environment(self, target):
        """Variables that tell the tests where the server is."""
        return target.env(self.database)

    def prepare(self, target):
        target.database(self.database)

    def test(self, target, log, limit, *flags):
        packages = [f"{self.root}/{package}".rstrip("/") for package in self.packages]
        command = [self.go, "test", "-json", "-vet=off", "-count=1", "-p=1", "-timeout", f"{limit - 20}s", *flags, *packages]
        env = {**self.environment(target), "GO111MODULE": "off", "GOPATH": str(self.gopath), "GOCACHE": str(fetch.WORK / "go"), "GOFLAGS": ""}
        return parse.go(limited(command, fetch.WORK, env, self.log(target, log), limit), self.root)

    def run(self, target):
        self.prepare(target)
        return self.test(target, "log", LIMIT)

    def again(self, target, tests, outcome):
        if not tests or len(tests) > 40:
            return
        names = "|".join(sorted({test.split(":")[-1].split("/")[0] for test in tests}))
        second = self.test(target, "again.log", 120, "-run", f"^({names})$")
        for test in tests:
            if second.get(test, ("", ""))[0] == "pass":
                outcome[test] = second[test]


class LibPq(Go):
    """The tests are in Debian's package, beside the sources."""

    name, title = "lib-pq", "lib/pq 1.10 (Go)"
    root, database = "github.com/lib/pq", "pqgotest"

    def fetch(self):
        if not Path(self.gopath, "src", self.root).exists():
            raise RuntimeError("golang-github-lib-pq-dev is not installed")

    def environment(self, target):
        return {**super().environment(target), "PGSSLMODE": "disable", "PQGOSSLTESTS": "0"}


class Pgx(Go):
    """Needs a newer Go than Debian's stable releases have: unpacked beside it."""

    name, title = "pgx", "pgx 5.9 (Go)"
    root, database = "github.com/jackc/pgx/v5", "pgx_test"
    packages = ["", "pgconn", "pgtype", "pgtype/zeronull", "pgxpool", "stdlib"]
    lent = """golang-1.26-go golang-1.26-src golang-github-jackc-pgx-v5-dev golang-github-jackc-pgpassfile-dev
        golang-github-jackc-pgservicefile-dev golang-github-jackc-puddle-v2-dev golang-github-stretchr-testify-dev
        golang-github-davecgh-go-spew-dev golang-github-pmezard-go-difflib-dev golang-github-stretchr-objx-dev
        golang-golang-x-sync-dev golang-golang-x-text-dev golang-gopkg-yaml.v3-dev""".split()

    def fetch(self):
        dir = fetch.debian_packages("pgx-go", self.lent, "sid")
        self.go, self.gopath = str(dir / "usr/lib/go-1.26/bin/go"), dir / "usr/share/gocode"
        # The script that makes types and roles is in the sources only.
        self.setup = fetch.debian_source("golang-github-jackc-pgx-v5", "sid") / "testsetup" / "postgresql_setup.sql"
        env = {**os.environ, "GO111MODULE": "off", "GOPATH": str(self.gopath), "GOCACHE": str(fetch.WORK / "go"), "GOFLAGS": ""}
        fetch.call(self.go, "test", "-vet=off", "-run", "^$", *(f"{self.root}/{p}".rstrip("/") for p in self.packages), env=env)

    def prepare(self, target):
        super().prepare(target)
        target.file(self.setup, self.database)

    def environment(self, target):
        def at(user, password):
            return f"host=127.0.0.1 port={target.port} user={user} password={password} dbname={self.database}"

        # Those of TLS and of PostgreSQL's other ways of authentication are left out.
        return {
            **os.environ, "PGX_TEST_DATABASE": at("postgres", "postgres"), "PGX_TEST_TCP_CONN_STRING": at("postgres", "postgres"),
            "PGX_TEST_PGBOUNCER_CONN_STRING": at("postgres", "postgres"),
            "PGX_TEST_SCRAM_PASSWORD_CONN_STRING": at("scram_user", "password") + " channel_binding=disable",
        }


class Program(Suite):
    """A program of `programs/` that prints TAP."""

    def __init__(self, name, title, command):
        self.name, self.title, self.command = name, title, command

    def fetch(self):
        if not shutil.which(self.command[0]):
            raise RuntimeError(f"{self.command[0]} is not installed")

    def run(self, target):
        env = target.env(target.database(self.name))
        text = limited(self.command, HERE / "programs", env, self.log(target), 120)
        outcome = parse.tap(text)
        return outcome or {"the program": ("fail", text[-800:])}


ALL = [
    SqlAlchemy("psycopg"),
    Django(),
    Psycopg(),
    Asyncpg(),
    NodePostgres(),
    TokioPostgres(),
    LibPq(),
    Pgx(),
    Psycopg2(),
    Pg8000(),
    Program("tools", "psql, pg_dump, pgbench 15", ["bash", "tools.sh"]),
    Program("jdbc", "JDBC 42.5 (program)", ["java", "-cp", "/usr/share/java/postgresql.jar", "Smoke.java"]),
    Program("php", "PHP 8.2: PDO, pgsql (program)", ["php", "smoke.php"]),
    Program("ruby", "Ruby: pg 1.4 (program)", ["ruby", "smoke.rb"]),
]
