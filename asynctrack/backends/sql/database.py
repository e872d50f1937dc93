"""SQL database: its connection, its transactions, and the signal that each of its errors becomes.

Runs where the sink runs.

| Error | Raised |
| --- | --- |
| no connection, a server that starts or ends, a lock that is not given | `Retry` |
| a wrong password, no such database, no right to write, a full disk, a file that is no database, tables of another program | `ActionRequired`, with advice |
| a value that the database does not take | `Rejected` |
| a table, a run or a file that is gone | `Resend` |
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from asynctrack.backends.base import ActionRequired, Rejected, Resend, Retry, Signal
from asynctrack.backends.sql.tables import Row, make_all, metrics

SQLITE: Final = "sqlite:///"
# Another writer holds SQLite's lock for the milliseconds of a batch; this is enough for a hundred writers. Arbitrary.
_BUSY_S: Final = 10.0
_CONNECT_S: Final = 10
# After so long without a packet from the server's machine, the connection counts as lost.
_SILENCE_MS: Final = 30_000
_MOST_WORDS: Final = 300
# The lock's number spells "asynct". Under it, two runs that find no tables do not both make them.
_LOCK: Final = 0x6173796E6374

_COLUMNS: Final = ", ".join(metrics.c.keys())
# As text, with rows as tuples: through SQLAlchemy's compiler a row takes 5.6 us of CPU, not 2.3 (SQLite). PostgreSQL unnests arrays: 4.6 us
# a row and 65,000 rows/s, where one by one took 17 and 38,000. COPY into a temporary table: 100,000 rows/s, but four statements.
_INSERT_SQLITE: Final = f"INSERT INTO metrics ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_INSERT_POSTGRESQL: Final = (
    f"INSERT INTO metrics ({_COLUMNS}) SELECT * FROM unnest(%s::int[], %s::text[], %s::int[], %s::bigint[], %s::bigint[], "
    "%s::bigint[], %s::text[], %s::double precision[], %s::text[]) ON CONFLICT DO NOTHING"
)


class Database:
    """A database, which connects when it is first used.

    Args:
        url: its address, without a password.
        password: None for none.
        mend: advice for a wrong password.
        writes: whether it will be written to. If not, it keeps no writer waiting.

    Raises:
        ActionRequired: the database's driver is not installed.
    """

    def __init__(self, url: str, password: str | None = None, mend: str = "", *, writes: bool = True) -> None:
        self.url = url
        self._mend = mend
        self._path = url.removeprefix(SQLITE) if url.startswith(SQLITE) else None
        self._inode: tuple[int, int] | None = None
        if self._path is not None:
            address = sa.URL.create("sqlite", database=self._path)
            self._engine = sa.create_engine(address, pool_size=1, connect_args={"timeout": _BUSY_S})
            sa.event.listen(self._engine, "connect", _set_up_sqlite if writes else _own_transactions)
            sa.event.listen(self._engine, "begin", _begin_writing if writes else _begin_reading)
        else:
            self._engine = _postgresql(sa.make_url(url), password)
        self.insert: Any = sqlite.insert if self._path is not None else postgresql.insert

    def __repr__(self) -> str:
        return f"<Database {self.url}>"

    @contextlib.contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """Open a transaction: all of it is written, or nothing.

        Raises:
            Retry, ActionRequired, Rejected, Resend: see the table at the top of this module.
        """
        self._check_file()
        try:
            with self._engine.begin() as connection:
                yield connection
        except sa.exc.DBAPIError as error:
            raise self._signal_of(error.orig) from error

    def make_tables(self, connection: sa.Connection) -> None:
        """Make the tables that are missing."""
        if self._path is None:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        make_all(connection)
        self._inode = self._find()

    def insert_metrics(self, connection: sa.Connection, rows: Sequence[Row]) -> None:
        """Insert the rows that are not there yet."""
        if self._path is not None:
            connection.exec_driver_sql(_INSERT_SQLITE, list(rows))
        else:
            connection.exec_driver_sql(_INSERT_POSTGRESQL, tuple(map(list, zip(*rows, strict=True))))

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def _check_file(self) -> None:
        """Raise `Resend` where the file was removed or replaced: SQLite goes on writing to it, and these rows are lost."""
        if self._inode is not None and self._find() != self._inode:
            raise Resend(f"{self._path} was removed, or another took its place")

    def _find(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path or "")
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _signal_of(self, error: Any) -> Signal:
        line = " ".join(str(error).split())[:_MOST_WORDS]
        said = f"{self.url}: {line}"
        if self._path is not None:
            return _sqlite_signal(getattr(error, "sqlite_errorcode", 0) & 0xFF, said)
        return _postgresql_signal(getattr(error, "sqlstate", None) or "", said, self._mend)


def _postgresql(address: sa.URL, password: str | None) -> sa.Engine:
    options: dict[str, Any] = {"connect_timeout": _CONNECT_S, "tcp_user_timeout": _SILENCE_MS}
    if password:
        options["password"] = password
    try:
        return sa.create_engine(address.set(drivername="postgresql+psycopg"), pool_size=1, connect_args=options)
    except ImportError as error:
        raise ActionRequired(
            f"it needs psycopg, which is not installed here: pip install 'asynctrack[postgres]' ({error})"
        ) from error


def _own_transactions(connection: Any, _: object) -> None:
    connection.isolation_level = None  # Python's sqlite3 then begins no transaction by itself


def _set_up_sqlite(connection: Any, _: object) -> None:
    _own_transactions(connection, _)
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")  # readers and the writer do not wait for each other
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_writing(connection: sa.Connection) -> None:
    # A transaction that begins with reading and then finds another writer fails at once; one that waits at its beginning does not.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_reading(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN")


_ANOTHERS: Final = "its tables are another program's; choose another database"
_SQLITE_MENDS: Final = {
    3: "may this user write there?",  # SQLITE_PERM
    8: "it is read-only; may this user write there?",  # SQLITE_READONLY
    11: "it is damaged; move it away, and a new one is filled from the journals",  # SQLITE_CORRUPT
    13: "make room on its disk",  # SQLITE_FULL
    14: "is there such a directory, and may this user write there?",  # SQLITE_CANTOPEN
    26: "choose another file",  # SQLITE_NOTADB
}


def _sqlite_signal(code: int, said: str) -> Signal:
    if code in _SQLITE_MENDS:
        return ActionRequired(f"{said}; {_SQLITE_MENDS[code]}")
    if "no such table" in said or "FOREIGN KEY" in said:
        return Resend(f"{said}: somebody has deleted this run")
    if "no column" in said or "no such column" in said:
        return ActionRequired(f"{said}; {_ANOTHERS}")
    return Rejected(said) if code == 18 else Retry(said)  # SQLITE_TOOBIG


def _postgresql_signal(state: str, said: str, mend: str) -> Signal:
    """Return the signal for an error's code. An error of connecting has no code, and is known by its words."""
    if state in ("42P01", "23503"):  # no such table, no such row to refer to
        return Resend(f"{said}: somebody has deleted this run")
    if state[:2] in ("22", "54"):  # a value, or a limit
        return Rejected(said)
    if state == "42703":
        return ActionRequired(f"{said}; {_ANOTHERS}")
    if state[:2] in ("28", "3D", "42") or state == "25006":
        return ActionRequired(f"{said}; {mend}")
    if not state and "database" in said and "does not exist" in said:
        return ActionRequired(f"{said}; `createdb` makes it")
    if not state and any(words in said for words in ("password", "authentication", "does not exist", "pg_hba.conf")):
        return ActionRequired(f"{said}; {mend}")
    return Retry(said)
