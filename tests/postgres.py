"""A real PostgreSQL on loopback, for the tests that need one; they skip where it is not installed."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import wait_until

PASSWORD = "sesame-0815"
USER = "tester"


class PostgreSQL:
    """A server with a database `metrics`, whose user has a password; a context manager that starts it, and ends it for good."""

    def __init__(self, programs: Path, account: str | None) -> None:
        self._programs = programs
        self._as: dict[str, Any] = {}
        self._home = Path(tempfile.mkdtemp(prefix="asynctrack-postgresql-"))
        if account is not None:  # it refuses to run as root
            found = pwd.getpwnam(account)
            self._as = {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
            os.chown(self._home, found.pw_uid, found.pw_gid)
        self._process: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as held:
            self.port = held.getsockname()[1]

    def __enter__(self) -> PostgreSQL:
        secret = self._home / "secret"
        secret.write_text(PASSWORD)
        flags = ["-A", "scram-sha-256", "-U", USER, f"--pwfile={secret}", "--no-sync", "--locale=C", "-E", "UTF8"]
        self._run("initdb", "-D", str(self._home / "data"), *flags)
        self.start()
        self._run("createdb", *self._where(), "metrics")
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._home)

    def url(self, database: str = "metrics", user: str = USER) -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        settings = {"listen_addresses": "127.0.0.1", "fsync": "off", "shared_buffers": "16MB", "max_connections": "40"}
        chosen = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [str(self._programs / "postgres"), "-D", str(self._home / "data"), "-p", str(self.port)]
        with open(self._home / "log", "ab") as log:
            self._process = subprocess.Popen(
                [*command, "-k", str(self._home), *chosen], cwd=self._home, stdout=log, stderr=log, **self._as
            )
        wait_until(lambda: self._ask("pg_isready", *self._where()).returncode == 0, "PostgreSQL answers")

    def stop(self, how: int = signal.SIGINT) -> None:
        """End it, with all its connections: SIGINT orderly, SIGQUIT as a crash does."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=30)
            self._process = None

    def make_schema(self, name: str) -> str:
        """The address of an empty schema, where tables are apart from all others."""
        self.query("public", f"CREATE SCHEMA {name}")
        return f"{self.url()}?options=-csearch_path%3D{name}"

    def query(self, schema: str, query: str) -> list[list[str]]:
        """What `psql` answers."""
        flags = ["-q", "-A", "-t", "-F", "\t", "-d", "metrics", "-c", f"SET search_path TO {schema}", "-c", query]
        return [line.split("\t") for line in self._run("psql", *self._where(), *flags).splitlines()]

    def _where(self) -> list[str]:
        return ["-h", "127.0.0.1", "-p", str(self.port), "-U", USER]

    def _run(self, program: str, *arguments: str) -> str:
        done = self._ask(program, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _ask(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(self._programs / program), *arguments]
        environment = {**os.environ, "PGPASSWORD": PASSWORD, "LC_ALL": "C"}
        return subprocess.run(
            command, cwd=self._home, env=environment, capture_output=True, text=True, timeout=50, **self._as
        )


def _programs() -> Path | None:
    """Where PostgreSQL's programs lie; the newest."""
    on_path = shutil.which("initdb")
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    found = [Path(on_path), *packaged] if on_path else packaged
    return found[-1].parent if found else None


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A server that all tests share, each with a database of its own if it wants one."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install '.[test]'")
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    accounts = {entry.pw_name for entry in pwd.getpwall()}
    if os.geteuid() == 0 and "postgres" not in accounts:
        pytest.skip("PostgreSQL does not run as root, and there is no user 'postgres'")
    with PostgreSQL(programs, "postgres" if os.geteuid() == 0 else None) as server:
        yield server
