"""SQL sink: write one run's rows to a database, with their cursor in the same transaction.

Runs in a process of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from asynctrack.backends.base import Batch, Context, Outcome, Resend, Sink, Update
from asynctrack.backends.sql.database import Database
from asynctrack.backends.sql.tables import Row, as_json, cell, fit, merged, rings, runs, sources, split, tags, writers
from asynctrack.records.codec import Record
from asynctrack.records.plain import flat

_STEPS: Final = range(-(1 << 63), 1 << 63)
_NOTHING: Final = "no values"
_STEP: Final = "a step beyond 63 bits"


class SQLSink(Sink):
    """Writes a run to a database.

    Args:
        database: where.
        context: of the run.
        tags: of the run.

    Raises:
        Retry, ActionRequired: the database cannot be reached or used.
        Resend: the database has less than it had: it was removed, or restored from a backup.
    """

    def __init__(self, database: Database, context: Context, tags: Iterable[str]) -> None:
        self._database = database
        self._places: dict[str, tuple[int, str]] = {}
        self._sources: dict[str, int] = {}
        self._labelled: set[int] = set()
        with database.begin() as connection:
            database.make_tables(connection)
            self._run = self._open(connection, context, tags)
            found = connection.execute(
                sa.select(rings.c.id, rings.c.ring, rings.c.upto).where(rings.c.run == self._run)
            )
            self._rings = {int(ring, 16): (row, upto) for row, ring, upto in found}
        for ring, upto in (context.state or {}).get("upto", {}).items():
            if self._rings.get(int(ring, 16), (0, -1))[1] < upto:
                raise Resend(f"{database.url} has less of this run than it had")

    def write(self, batch: Batch) -> dict[str, int]:
        """Insert the rows of a batch, and move the cursor, in one transaction."""
        rows, skipped = self._rows(batch.records)
        upto = {record.ring: record.number for record in batch.records}
        with self._database.begin() as connection:
            if rows:
                self._database.insert_metrics(connection, rows)
            for ring, number in upto.items():
                self._move(connection, ring, number)
            self._update(connection, batch.updates)
        for ring, number in upto.items():
            row, before = self._rings[ring]
            self._rings[ring] = row, max(before, number)
        return skipped

    def checkpoint(self) -> dict[str, Any]:
        """Return the number of the last record from each ring."""
        return {"upto": {f"{ring:016x}": upto for ring, (_, upto) in self._rings.items()}}

    def close(self, outcome: Outcome) -> None:
        """Write the run's outcome, and close the database."""
        if outcome != "stopped":
            with self._database.begin() as connection:
                connection.execute(sa.update(runs).where(runs.c.id == self._run).values(status=outcome))
        self._database.close()

    def _open(self, connection: sa.Connection, context: Context, its_tags: Iterable[str]) -> int:
        """Return the id of the run's row, which is made where there is none."""
        identity = {"project": context.project, "run_id": context.run_id, "created_at": context.created_at}
        empty = {"config": as_json(context.config), "summary": "{}", "status": "running", "name": fit(context.name)}
        run = self._find_or_insert(connection, runs, identity, empty)
        connection.execute(sa.update(runs).where(runs.c.id == run).values(status="running"))
        for tag in its_tags:
            connection.execute(self._database.insert(tags).values(run=run, tag=fit(tag)).on_conflict_do_nothing())
        return run

    def _rows(self, records: Sequence[Record]) -> tuple[list[Row], dict[str, int]]:
        """Build the rows of these records, and count the records that have none, by reason."""
        rows: list[Row] = []
        skipped: dict[str, int] = {}
        for record in records:
            data = flat(record.data)
            if record.ring not in self._rings:
                self._learn_ring(record.ring)
            if record.writer is not None and record.ring not in self._labelled:
                self._label(record.ring, record.writer)
            if data and record.step in _STEPS:
                self._add(rows, record, data)
            else:
                reason = _STEP if data else _NOTHING
                skipped[reason] = skipped.get(reason, 0) + 1
        return rows, skipped

    def _add(self, rows: list[Row], record: Record, data: Mapping[str, Any]) -> None:
        """Add the rows of a record."""
        ring, number, step, time_ns = self._rings[record.ring][0], record.number, record.step, record.time_ns
        for path, value in data.items():
            place = self._places.get(path)
            if place is None:
                self._learn(data)
                place = self._places[path]
            rows.append((*place, ring, number, step, time_ns, *cell(value)))

    def _learn(self, paths: Iterable[str]) -> None:
        """Find source and key of new names, and make rows for new sources.

        It has a transaction of its own: whatever is remembered here must be in the database.
        """
        places = {path: split(path) for path in paths}
        fresh = {source for source, _ in places.values()} - self._sources.keys()
        if fresh:
            with self._database.begin() as connection:
                found = {
                    name: self._find_or_insert(connection, sources, {"run": self._run, "name": name}, {})
                    for name in sorted(fresh)
                }
            self._sources.update(found)
        self._places.update({path: (self._sources[source], key) for path, (source, key) in places.items()})

    def _learn_ring(self, ring: int) -> None:
        with self._database.begin() as connection:
            row = self._find_or_insert(connection, rings, {"run": self._run, "ring": f"{ring:016x}"}, {"upto": -1})
        self._rings[ring] = row, -1

    def _label(self, ring: int, writer: str) -> None:
        """Write down who has put a ring's records."""
        with self._database.begin() as connection:
            row = self._database.insert(writers).values(ring=self._rings[ring][0], label=writer)
            connection.execute(row.on_conflict_do_nothing())
        self._labelled.add(ring)

    def _find_or_insert(
        self, connection: sa.Connection, table: sa.Table, identity: dict[str, Any], rest: dict[str, Any]
    ) -> int:
        """Return the id of a row, which is made where there is none."""
        connection.execute(self._database.insert(table).values(**identity, **rest).on_conflict_do_nothing())
        same = [table.c[name] == value for name, value in identity.items()]
        return int(connection.execute(sa.select(table.c.id).where(*same)).scalar_one())

    def _move(self, connection: sa.Connection, ring: int, number: int) -> None:
        """Move a ring's cursor, but never backward."""
        row, before = self._rings[ring]
        still_there = sa.exists().where(runs.c.id == self._run)
        moved = connection.execute(
            sa.update(rings).where(rings.c.id == row, still_there).values(upto=max(before, number))
        )
        if moved.rowcount != 1:
            raise Resend(f"{self._database.url} has lost this run: somebody has deleted it")

    def _update(self, connection: sa.Connection, updates: Iterable[Update]) -> None:
        """Write changes of config and summary."""
        for update in updates:
            if update.kind == "checkpoint":
                continue
            column = runs.c.summary if update.kind == "summary" else runs.c.config
            before = connection.execute(sa.select(column).where(runs.c.id == self._run)).scalar_one_or_none()
            if before is None:
                raise Resend(f"{self._database.url} has lost this run: somebody has deleted it")
            changed = {column: merged(before, update.data, update.removed)}
            connection.execute(sa.update(runs).where(runs.c.id == self._run).values(changed))
