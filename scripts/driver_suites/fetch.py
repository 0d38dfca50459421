"""Gets packages with the ordinary clients of their registries, into target/driver-suites, once.

Must not know how suites run.
"""

import os
import shutil
import subprocess
import tarfile
import threading
from pathlib import Path

WORK = Path("target/driver-suites").resolve()
VENV = WORK / "venv"
PYTHON = VENV / "bin" / "python"

# What the Python suites run on, and with.
WHEELS = [
    "pytest==8.4.2", "pytest-timeout==2.4.0", "distro", "python-dateutil", "pytz",
    "asyncpg==0.32.0", "psycopg2-binary==2.9.13", "psycopg[binary]==3.3.9", "sqlalchemy==2.1.9", "greenlet",
    "django==5.2.19", "pg8000==1.31.6",
]

_lock = threading.Lock()


def call(*command, cwd=None, env=None, timeout=600):
    done = subprocess.run(command, cwd=cwd, env=env, timeout=timeout, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stdout[-600:]}")
    return done.stdout


def venv(dir=VENV, wheels=WHEELS):
    """One environment for all Python suites, made anew when the list changes; or one for a suite that wants other versions. Its Python."""
    python = dir / "bin" / "python"
    with _lock:
        stamp = dir / "installed"
        wanted = "\n".join(wheels)
        if not stamp.exists() or stamp.read_text() != wanted:
            call("python3", "-m", "venv", "--clear", str(dir))
            call(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wheels)
            stamp.write_text(wanted)
    return python


def once(name, make):
    """The directory `name`, made whole or not at all."""
    final = WORK / name
    if not final.exists():
        unfinished = WORK / f"{name}.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        make(unfinished)
        unfinished.rename(final)
    return final


def unpack(archive, into):
    with tarfile.open(archive) as tar:
        tar.extractall(into, filter="data") if hasattr(tarfile, "data_filter") else tar.extractall(into)


def sdist(name, version):
    """The source distribution from PyPI: the tests are in it."""
    venv()

    def make(dir):
        # Only downloaded: its build needs nothing that the wheel does not bring.
        command = [str(PYTHON), "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", name]
        call(*command, f"{name}=={version}", "-d", str(dir))
        unpack(next(dir.glob("*.tar.*")), dir)

    return next(d for d in once(f"{name}-{version}", make).iterdir() if d.is_dir())


def checkout(url, tag, variable):
    """A repository's files at a tag, for tests that no package has: cloned, or in the directory that the environment names."""
    if os.environ.get(variable):
        return Path(os.environ[variable]).resolve()
    name = url.rsplit("/", 1)[-1]

    def make(dir):
        env = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
        call("git", "clone", "--quiet", "--depth", "1", "--branch", tag, url, str(dir / name), env=env, timeout=120)

    try:
        return once(f"{name}-{tag}", make) / name
    except (OSError, RuntimeError, subprocess.TimeoutExpired):
        raise RuntimeError(f"{url} cannot be cloned from here, and {variable} names no checkout of it") from None


def debian(suite):
    """Options of apt for one of Debian's releases, whatever the machine itself has: its own lists, nothing installed."""
    apt = WORK / f"apt-{suite}"
    options = [
        f"Dir::Etc::sourcelist={apt}/sources.list", "Dir::Etc::sourceparts=/dev/null",
        f"Dir::State::lists={apt}/lists", f"Dir::Cache={apt}", "APT::Sandbox::User=root",
    ]
    flags = [flag for option in options for flag in ("-o", option)]
    with _lock:
        if not (apt / "updated").exists():
            (apt / "lists" / "partial").mkdir(parents=True, exist_ok=True)
            (apt / "sources.list").write_text("".join(f"{kind} http://deb.debian.org/debian {suite} main\n" for kind in ("deb", "deb-src")))
            call("apt-get", *flags, "update", "-qq")
            (apt / "updated").touch()
    return flags


def debian_source(package, suite):
    """Debian's upstream tarball of a package."""

    def make(dir):
        # An archive of a component that is not needed may be missing: what counts is the main one.
        command = ["apt-get", *debian(suite), "source", "--tar-only", "--download-only", "-qq", package]
        done = subprocess.run(command, cwd=dir, capture_output=True, timeout=300, text=True)
        archive = next((a for a in dir.glob("*.orig.tar.*") if not a.name.endswith(".asc")), None)
        if archive is None:
            raise RuntimeError(f"no source of {package} in {suite}: {done.stderr[-300:]}")
        unpack(archive, dir)

    return next(d for d in once(package, make).iterdir() if d.is_dir())


def debian_packages(name, packages, suite):
    """What is in binary packages of another release, unpacked under one directory and not installed."""

    def make(dir):
        call("apt-get", *debian(suite), "download", "-qq", *packages, cwd=dir)
        for file in dir.glob("*.deb"):
            call("dpkg-deb", "-x", str(file), str(dir))
            file.unlink()

    return once(name, make)


def crate(name, version):
    """A crate's sources, as cargo has them in its registry."""

    def make(dir):
        (dir / "src").mkdir()
        (dir / "src" / "lib.rs").write_text("")
        (dir / "Cargo.toml").write_text(f'[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\n{name} = "={version}"\n[workspace]\n')
        call("cargo", "fetch", "--quiet", cwd=dir)
        home = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
        source = next(home.glob(f"registry/src/*/{name}-{version}"))
        shutil.copytree(source, dir / name)

    return once(f"{name}-{version}", make) / name


def npm(dir, *packages):
    if not (dir / "package.json").exists():
        (dir / "package.json").write_text('{"private": true}')
    call("npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", str(dir), *packages, cwd=dir)
