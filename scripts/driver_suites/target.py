"""What a suite is run against: a PostgreSQL server, or a proxy in front of one.

Must not know any suite.
"""

import os
import shutil
import signal
import socket
import subprocess
import time

MODES = ("direct", "transaction", "session")

PGHERD = os.environ.get("PGHERD", "target/debug/pgherd")

CONFIG = """\
[proxy]
listen = ["127.0.0.1:{port}"]
[pool]
size = {size}
max_lifetime_ms = {lifetime}
queue_timeout_ms = 20000
[[database]]
name = "*"
mode = "{mode}"
read_consistency = "primary"
control = {{ user = "postgres", password = "postgres", probe_timeout_ms = 20000 }}
auth_query = "select rolname, rolpassword from pg_authid where rolname = $1 and rolcanlogin"
[[database.shard]]
name = "main"
servers = [{{ host = "127.0.0.1", port = {server} }}]
"""

# Roles that suites log in as, as their own instructions ask for.
ROLES = {
    "postgres": "postgres",
    "app": "app",
    "pass_user": "password",
    "md5_user": "password",
    "scram_user": "password",
}


class Target:
    """One server of its own, and for a pool mode the proxy before it. Suites connect to `port` as a superuser."""

    def __init__(self, mode, dir, port_base):
        self.mode, self.dir, self.server = mode, dir, port_base
        self.port = port_base if mode == "direct" else port_base + 10
        self.proxy = None

    def start(self):
        self.dir.mkdir(parents=True, exist_ok=True)
        data = self.dir / "data"
        up = ["cluster", "up", "--shards", "1", "--port-base", str(self.server), "--data-dir", str(data), "--fresh"]
        subprocess.run([PGHERD, *up], check=True, stdout=subprocess.DEVNULL)
        for role, password in ROLES.items():
            if role not in ("postgres", "app"):
                self.sql(f"create role {role} login password '{password}'")
        if self.mode != "direct":
            self.start_proxy()

    def start_proxy(self):
        # In session mode each client has a server: asyncpg's pools alone have more than 20.
        size = 60 if self.mode == "session" else 20
        # … and none that another has had: suites tell servers by the numbers of their processes.
        lifetime = 1 if self.mode == "session" else 3_600_000
        values = {"size": size, "lifetime": lifetime, "port": self.port, "mode": self.mode, "server": self.server}
        text = CONFIG.format(**values)
        for role, password in ROLES.items():
            text += f'[[user]]\nname = "{role}"\npassword = "{password}"\n'
        file = self.dir / "proxy.toml"
        file.write_text(text)
        file.chmod(0o600)
        log = open(self.dir / "proxy.log", "w")
        self.proxy = subprocess.Popen([PGHERD, "run", "-c", str(file)], stdout=log, stderr=log)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            if self.proxy.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError(f"the proxy does not listen: {self.dir / 'proxy.log'}")

    def stop(self):
        if self.proxy and self.proxy.poll() is None:
            self.proxy.send_signal(signal.SIGTERM)
            try:
                self.proxy.wait(5)
            except subprocess.TimeoutExpired:
                self.proxy.kill()
        data = self.dir / "data"
        if data.exists():
            subprocess.run([PGHERD, "cluster", "down", "--data-dir", str(data)], stdout=subprocess.DEVNULL)
            shutil.rmtree(data, ignore_errors=True)

    def crashed(self):
        """Why the proxy is no longer there, if so."""
        if self.proxy and self.proxy.poll() is not None:
            return f"the proxy ended with {self.proxy.returncode}: {self.dir / 'proxy.log'}"
        return None

    def env(self, database):
        """For libpq and all that reads its variables."""
        return {
            **os.environ,
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": "postgres",
            "PGPASSWORD": "postgres",
            "PGDATABASE": database,
            "NO_COLOR": "1",
        }

    def sql(self, sql, database="postgres"):
        """Preparations, always on the server itself."""
        env = {**self.env(database), "PGPORT": str(self.server)}
        command = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql]
        subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)

    def file(self, file, database):
        """A script of a suite, on the server itself; what is there already is no error."""
        env = {**self.env(database), "PGPORT": str(self.server)}
        subprocess.run(["psql", "-X", "-q", "-f", str(file)], env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def database(self, name, *statements):
        # Not of template1, in which a pool may have connections.
        self.sql(f"create database {name} template template0")
        for sql in statements:
            self.sql(sql, name)
        return name
