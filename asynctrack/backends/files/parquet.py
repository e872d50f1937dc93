"""Parquet: a part per batch in `parquet/` of the run's directory, and one table when the run has ended.

Runs in a process of its own.

Each record is a row: `_step`, `_timestamp` in seconds since the epoch, `_number`, and a column per key. Nested names
are joined by `/`; a user's keys of these three names get one more underscore in front. A column is bool, int64, double
or text, as its values are, and null where a record has none. When a value does not fit, the column of later parts, and
of the table, becomes the next of these types that holds it without loss, as `column_types` explains. Arrays and lists
are text, as JSON has them. NaN stays NaN.

A live run can be read. A new key is a new column from that part on, so unite the columns by name:

    duckdb.sql("SELECT * FROM read_parquet('asynctrack_runs/demo/first/parquet/*.parquet', union_by_name=true)")
    polars.concat(map(polars.scan_parquet, sorted(glob("asynctrack_runs/demo/first/parquet/*.parquet"))), how="diagonal_relaxed")

Each record is there once, also after a crash: the state holds the number of parts, and rows that come again replace the
parts behind that number. The table is made beside the parts, and their directories swap names at once, so that no
reader finds a record in both. A reader that had listed the parts before finds them gone.

    pip install 'asynctrack[parquet]'
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from asynctrack._system import permissions
from asynctrack.backends.base import ActionRequired, Backend, Batch, Context, Execution, Outcome, Resend, Sink
from asynctrack.backends.files.writer_folders import directory_of
from asynctrack.errors import InvalidSettings
from asynctrack.journal.segment import sync_directory
from asynctrack.records.codec import Record
from asynctrack.settings import check_name

if TYPE_CHECKING:
    from asynctrack.records.column_types import Kind

# Bytes of a part in memory before it is written, as they were logged. Arbitrary.
_PART_BYTES: Final = 32 << 20
_LARGEST_STEP: Final = (1 << 63) - 1
_STEP: Final = "a step beyond 63 bits"


class Parquet(Backend, frozen=True, kw_only=True, tag="parquet"):
    """Writes every record as a row of Parquet.

    Attributes:
        folder: its name in the run's directory.
        part_rows: rows in a part, at most.
        part_age_s: seconds that the first row of a part waits for others, at most. Each `flush` also writes a part.
        stall_timeout_s: seconds that a call may take before its process is killed; making the table is one call.
    """

    execution: ClassVar[Execution] = "process"
    can_split: ClassVar[bool] = True
    batch_bytes: ClassVar[int] = _PART_BYTES
    needs: ClassVar[Mapping[str, str]] = {"pyarrow": "asynctrack[parquet]"}

    folder: str = "parquet"
    part_rows: int = 100_000
    part_age_s: float = 30.0
    stall_timeout_s: float = 3600.0

    @property
    def batch_records(self) -> int:  # type: ignore[override]  # of the class elsewhere
        """Return `part_rows`: a batch becomes a part."""
        return self.part_rows

    @property
    def batch_age_s(self) -> float:  # type: ignore[override]
        """Return `part_age_s`: a batch becomes a part."""
        return self.part_age_s

    def __post_init__(self) -> None:
        check_name("folder", self.folder)
        problems = []
        if type(self.part_rows) is not int or self.part_rows < 1:
            problems.append(f"part_rows must be a whole number, 1 or more; got {self.part_rows!r:.80}")
        if type(self.part_age_s) not in (int, float) or not 0 <= self.part_age_s <= 3600:
            problems.append(f"part_age_s must be from 0 to 3600 seconds; got {self.part_age_s!r:.80}")
        if problems:
            raise InvalidSettings(problems)
        super().__post_init__()

    def open(self, context: Context) -> Sink:
        """Open the folder in the run's directory.

        Raises:
            ActionRequired: pyarrow is missing, or the folder is a link.
            Resend: the folder has fewer rows than were written.
        """
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise ActionRequired(
                f"it needs pyarrow, which is not installed here: pip install 'asynctrack[parquet]' ({error})"
            ) from error
        return _Parts(directory_of(context) / self.folder, context.state)


class _Parts(Sink):
    def __init__(self, folder: Path, state: dict[str, Any] | None) -> None:
        from asynctrack.backends.files import parquet_table

        state = state or {"parts": 0, "rows": 0, "kinds": {}}
        self._table = parquet_table
        self._folder = folder
        self._count: int = state["parts"]
        self._rows: int = state["rows"]
        self._kinds: dict[str, Kind] = state["kinds"]
        self._tidy = False
        if folder.is_symlink():
            raise ActionRequired(f"{folder} is a link, which may lead anywhere; make it a directory")
        parquet_table.recover(folder)
        if self._rows > parquet_table.count_rows(self._known()):
            raise Resend(f"{folder.name} has fewer than the {self._rows} rows that were written")

    def write(self, batch: Batch) -> dict[str, int] | None:
        records = [record for record in batch.records if -_LARGEST_STEP - 1 <= record.step <= _LARGEST_STEP]
        self._make_tidy()
        if records:
            self._write(records)
        skipped = len(batch.records) - len(records)
        return {_STEP: skipped} if skipped else None

    def checkpoint(self) -> dict[str, Any]:
        if self._folder.is_dir():
            sync_directory(os.fspath(self._folder))
        return {"parts": self._count, "rows": self._rows, "kinds": self._kinds}

    def close(self, outcome: Outcome) -> None:
        if outcome != "stopped":
            self._table.merge(self._folder)

    def _write(self, records: list[Record]) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._folder, permissions.DIRECTORY)
        kinds = dict(self._kinds)
        self._table.write_part(self._folder / self._table.part_name(self._count), records, kinds)
        self._kinds, self._count, self._rows = kinds, self._count + 1, self._rows + len(records)

    def _make_tidy(self) -> None:
        """Remove parts whose records come again.

        This waits for the first write: where the journal is gone, the parts are all that is left of the run.
        """
        if not self._tidy:
            known = {*self._known()}
            for path in self._table.files(self._folder):
                if path not in known:
                    os.unlink(path)
            self._tidy = True

    def _known(self) -> Iterable[Path]:
        """Return the files that hold what was delivered."""
        names = {self._table.part_name(index) for index in range(self._count)} | (
            {self._table.TABLE} if self._count else set()
        )
        return [path for path in self._table.files(self._folder) if path.name in names]
