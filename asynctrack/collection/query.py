"""Query: runs as tables for SQL, by DuckDB in this process. Runs anywhere; reads runs and writes nothing to them.

DuckDB asks for the rows of a table when a statement needs them, a batch after another, and for each time that the statement names it. So what no
statement names is not read, and a table of metrics is never in memory as a whole, unless the result is.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from asynctrack._system.suggestions import suggests
from asynctrack.collection.query_result import QueryResult, plain_types
from asynctrack.errors import InvalidQuery, QueryFailed
from asynctrack.reading.history import History
from asynctrack.records.libraries import import_library

if TYPE_CHECKING:
    import pyarrow

    from asynctrack.collection.query_tables import QueryTable

# QueryRows of the result that come at once. Arbitrary.
_BATCH_ROWS: Final = 20_000
# Nothing is installed or loaded, and no name of a table means a variable of Python.
_SETTINGS: Final = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
}


class QueryRows(NamedTuple):
    """The result of a statement, as it comes.

    Attributes:
        schema: of the batches.
        batches: the rows.
    """

    schema: pyarrow.Schema
    batches: Iterator[pyarrow.RecordBatch]


@suggests
def query(
    sql: str,
    dir: str | os.PathLike[str] | None = None,
    params: Sequence[Any] | Mapping[str, Any] | None = None,
    *,
    where: str | None = None,
    history: History = "last",
    external_access: bool = False,
) -> QueryResult:
    """Ask SQL of runs, by DuckDB. The tables are `runs`, `config`, `summary`, `metric_stats` and `metrics`.

    `asynctrack.query("SELECT name, config.lr FROM runs").to_pandas()` is a data frame. The result is in memory as a whole; what the statement reads is
    not, and what it sorts or groups is on disk where memory does not suffice.

    Args:
        sql: one statement, as DuckDB takes it.
        dir: holds the runs, as for `runs`.
        params: values for `?` or `$name` in it.
        where: a condition: other runs are left out, as by `runs`.
        history: counts for `metric_stats` and `metrics`, as for `runs`.
        external_access: lets the statement read and write files and reach the network. Without it there is nothing but these tables.

    Raises:
        LibraryMissing: DuckDB or pyarrow is not installed: `pip install 'asynctrack[query]'`.
        InvalidQuery: DuckDB does not take the statement, or may not do what it says.
        QueryFailed: DuckDB could not come to its end, for want of memory and disk.
        UsageError: `where` is no condition.
    """
    with open_query(sql, dir, params, where=where, history=history, external_access=external_access) as rows:
        return QueryResult(import_library("pyarrow", "query", "query").Table.from_batches(rows.batches, rows.schema))


@contextlib.contextmanager
def open_query(
    sql: str,
    dir: str | os.PathLike[str] | None = None,
    params: Sequence[Any] | Mapping[str, Any] | None = None,
    *,
    where: str | None = None,
    history: History = "last",
    external_access: bool = False,
) -> Iterator[QueryRows]:
    """Ask SQL of runs, as `query` does, for rows that come one batch after another. They can be read until this is left."""
    pyarrow, duckdb = (import_library(name, "query", "query") for name in ("pyarrow", "duckdb"))
    from asynctrack.collection.query_tables import tables_of

    tables = tables_of(dir, where=where, history=history)
    with contextlib.ExitStack() as cleanup:
        place = cleanup.enter_context(tempfile.TemporaryDirectory(prefix="asynctrack-query-"))
        connection = duckdb.connect(":memory:", config={**_SETTINGS, "temp_directory": os.path.join(place, "spilled")})
        cleanup.callback(connection.close)
        # It would be among what a command prints: DuckDB draws it on stdout where it takes the process for one that is used by hand.
        connection.execute("SET enable_progress_bar = false")
        for table in tables:
            connection.register(table.name, table)
        if not external_access:
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
        with _translated(duckdb, tables):
            relation = connection.sql(sql, params=params)
            found = None if relation is None else relation.to_arrow_reader(_BATCH_ROWS)
        schema = pyarrow.schema([]) if found is None else plain_types(pyarrow, found.schema)
        yield QueryRows(schema, iter(()) if found is None else _batches(found, schema, duckdb, tables))


def _batches(found: Any, schema: Any, duckdb: Any, tables: Sequence[QueryTable]) -> Iterator[pyarrow.RecordBatch]:
    """Yield the batches of a result."""
    while True:
        try:
            with _translated(duckdb, tables):
                batch = found.read_next_batch()
        except StopIteration:
            return
        try:
            yield batch if batch.schema.equals(schema) else batch.cast(schema)
        except ValueError as error:
            raise InvalidQuery(f"an integer has more than 64 bits; cast the sum to DOUBLE ({error})") from error


@contextlib.contextmanager
def _translated(duckdb: Any, tables: Sequence[QueryTable]) -> Iterator[None]:
    """Translate what goes wrong in DuckDB. What went wrong in the reading of a run, Ctrl-C too, comes as it was."""
    try:
        yield
    except (duckdb.Error, OSError, ValueError) as error:
        for table in tables:
            if table.failure is not None:
                raise table.failure from None
        if isinstance(error, (duckdb.OutOfMemoryException, duckdb.IOException, duckdb.InternalException, OSError)):
            raise QueryFailed(str(error)) from error
        raise InvalidQuery(str(error), is_denied=isinstance(error, duckdb.PermissionException)) from error
