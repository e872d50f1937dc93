"""SQL: write runs, their tags, sources and metrics to SQLite or PostgreSQL, several runs in one database.

Runs in a process of its own.

Each value is a row, once, whatever is killed or sent again: rows and the cursor that covers them are written in one
transaction, and a row's key is that of its record. A run that is resumed keeps its row. `sql.tables` describes the
tables.

The last value of a key, and its curve:

    SELECT m.value FROM metrics m JOIN sources s ON s.id = m.source JOIN runs r ON r.id = s.run
    WHERE r.run_id = '20261121-122022-464d0e' AND s.name = 'train' AND m.key = 'loss'
    ORDER BY m.ring DESC, m.number DESC LIMIT 1;

    SELECT m.step, m.value FROM metrics m JOIN sources s ON s.id = m.source JOIN runs r ON r.id = s.run
    WHERE r.run_id = '20261121-122022-464d0e' AND s.name = 'train' AND m.key = 'loss' ORDER BY m.step;

Where several processes have written to a run, `writers` has their labels:

    SELECT w.label, m.step, m.value FROM metrics m JOIN writers w ON w.ring = m.ring JOIN sources s ON s.id = m.source
    JOIN runs r ON r.id = s.run WHERE r.run_id = '20261121-122022-464d0e' AND s.name = 'train' AND m.key = 'loss'
    ORDER BY w.label, m.step;

To delete a run, delete its row of `runs`. PostgreSQL then deletes all its other rows; SQLite does so after `PRAGMA
foreign_keys=ON`. A run that is still being delivered comes back, whole.

The backend runs in a process of its own, since a driver that hangs can be killed there. SQLAlchemy's 25 MB and its
import of 0.3 s also stay out of the worker, which goes on journaling.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import parse_qsl, urlsplit

import msgspec

from asynctrack.backends.base import ActionRequired, Backend, Context, Execution, Signal, Sink
from asynctrack.backends.endpoint import read_secret, secret_problems, set_variables
from asynctrack.backends.requirements import lacking
from asynctrack.errors import BackendUnavailable, InvalidSettings
from asynctrack.records.codec import Record

if TYPE_CHECKING:
    from asynctrack.backends.sql.database import Database

_PASSWORD: Final = "env:PGPASSWORD"
_FILE: Final = "metrics.db"
_SQLITE: Final = "sqlite:///"
_SECRETS: Final = frozenset({"password", "sslpassword"})
_POSTGRESQL: Final = re.compile(r"postgresql(\+psycopg)?://")


class SQL(Backend, frozen=True, kw_only=True, tag="sql"):
    """Writes every value as a row of a database.

    Attributes:
        url: `sqlite:///PATH` or `postgresql://USER@HOST:PORT/DATABASE`. A path that is not absolute begins at the
            directory in which the run is opened. Default: `metrics.db` in the project's directory, which the runs of a
            project share.
        password: `env:NAME`, the environment's variable with PostgreSQL's password.
        tags: of the run.
    """

    # A thread would do, but a driver may hang in C, and a process can be killed.
    execution: ClassVar[Execution] = "process"
    batch_age_s: ClassVar[float] = 1.0
    milestones: ClassVar[bool] = True
    needs: ClassVar[Mapping[str, str]] = {"sqlalchemy": "asynctrack[sql]"}

    url: str | None = None
    password: str = _PASSWORD
    tags: list[str] = msgspec.field(default_factory=list)

    @property
    def remote(self) -> bool:  # type: ignore[override]  # of the class elsewhere
        """Return whether the database is PostgreSQL."""
        return self.url is not None and not self.url.startswith(_SQLITE)

    def __post_init__(self) -> None:
        problems = secret_problems("password", self.password)
        if self.url is not None:
            problems += _url_problems(self.url)
        if not isinstance(self.tags, list) or not all(isinstance(tag, str) and tag for tag in self.tags):
            problems.append(f"tags must be a list of texts; got {self.tags!r:.80}")
        if problems:
            raise InvalidSettings(problems)
        super().__post_init__()

    def prepare(self) -> SQL:
        """Make SQLite's path absolute."""
        if self.url is None or self.remote:
            return self
        path = os.path.abspath(os.path.expanduser(self.url.removeprefix(_SQLITE)))
        return msgspec.structs.replace(self, url=f"{_SQLITE}{path}")

    def lacking(self) -> list[str]:
        """List the libraries that are missing for this kind of database."""
        return lacking({**self.needs, "psycopg": "asynctrack[postgres]"} if self.remote else self.needs)

    def external_targets(self) -> list[str]:
        """List the database."""
        return [self.url or f"{_FILE} beside the run"]

    def open(self, context: Context) -> Sink:
        """Connect to the database, and make its tables and the run's row.

        Raises:
            Retry: the database cannot be reached now.
            ActionRequired: a library is missing, or the database cannot be used.
            Resend: the database has less of this run than it had.
        """
        url = self.url or f"{_SQLITE}{context.directory.absolute().parent / _FILE}"
        database = _database(url, self.password)
        from asynctrack.backends.sql.sink import SQLSink

        try:
            return SQLSink(database, context, self.tags)
        except BaseException:
            database.close()
            raise


def read_records(url: str, run_id: str, *, project: str | None = None, password: str = _PASSWORD) -> Iterator[Record]:
    """Yield the records of a run from a database, with flat keys.

    Those of one process are in order, those of several by time.

    Args:
        url: as in `SQL`.
        run_id: of the run. Where several runs have this id, the newest is read.
        project: of the run; None for any.
        password: as in `SQL`.

    Yields:
        Records.

    Raises:
        InvalidSettings: the address or the reference to the password cannot be used.
        BackendUnavailable: the database cannot be read, or has no such run.
    """
    if problems := _url_problems(url) + secret_problems("password", password):
        raise InvalidSettings(problems)
    path = url.removeprefix(_SQLITE)
    if url.startswith(_SQLITE) and not os.path.isfile(path):
        raise BackendUnavailable("sql", f"there is no file {path}")
    try:
        database = _database(url, password, writes=False)
        from asynctrack.backends.sql.tables import find_run, records_of

        try:
            with database.begin() as connection:
                if (run := find_run(connection, run_id, project)) is None:
                    raise BackendUnavailable("sql", f"{url} has no run {run_id!r}")
                yield from records_of(connection, run)
        finally:
            database.close()
    except Signal as no:
        raise BackendUnavailable("sql", str(no)) from no


def _database(url: str, password: str, *, writes: bool = True) -> Database:
    """Connect to a database.

    Raises:
        ActionRequired: a library is not installed.
    """
    try:
        from asynctrack.backends.sql.database import Database
    except ImportError as error:
        raise ActionRequired(
            f"it needs SQLAlchemy, which is not installed here: pip install 'asynctrack[sql]' ({error})"
        ) from error
    return Database(
        url,
        read_secret(password, for_header=False),
        f"is the user in the address right? If it takes a password, {set_variables(password)}",
        writes=writes,
    )


def _url_problems(url: Any) -> list[str]:
    """List what is wrong with an address. The messages do not repeat one that may hold a password."""
    shapes = "url must be 'sqlite:///PATH' or 'postgresql://USER@HOST:PORT/DATABASE'"
    if not isinstance(url, str):
        return [f"{shapes}; got {type(url).__name__}"]
    got = "" if "@" in url else f"; got {url!r:.80}"
    if url.startswith(_SQLITE):
        path = url.removeprefix(_SQLITE)
        return [f"{shapes}, and lead to a file{got}"] if path in ("", ":memory:") or "?" in path else []
    if _holds_password(url):
        return [
            "url must not hold a password, since it is stored with the run: leave it out, and set PGPASSWORD in the environment, "
            "or give password='env:NAME' for another variable"
        ]
    if not _POSTGRESQL.match(url) or not urlsplit(url).path.strip("/"):
        return [f"{shapes}{got}"]
    return []


def _holds_password(url: str) -> bool:
    try:
        parts = urlsplit(url)
        given = {name.lower() for name, _ in parse_qsl(parts.query)} & _SECRETS
        return bool(parts.password is not None or given or (parts.port or 0) < 0)
    except ValueError:  # a port that is no number: perhaps a password with a slash
        return "@" in url
