"""Our backends, and our fakes, keep what a backend promises."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import polars
import pyarrow
import pyarrow.parquet
import pytest
from support import lines

from asynctrack import CSV, JSON, YAML, Backend, Batch, Context, JSONLines, Memory, Parquet, Rejected, Sink, testing
from asynctrack.records.codec import flatten, from_json, to_json
from asynctrack.testing import BackendContract, Row, ScriptedInProcess, taken

EVERYTHING = frozenset({"float", "int", "bool", "text", "nan", "inf", "big", "list"})


class TestJSONLines(BackendContract):
    exactly_once = True
    keeps = EVERYTHING

    def make_backend(self, run: Path) -> Backend:
        return JSONLines()

    def read(self, run: Path) -> Iterator[tuple[int, str, Any]]:
        for line in lines(run):
            step = line.pop("_step")
            line.pop("_timestamp")
            yield from ((step, key, from_json(value)) for key, value in line.items())


@pytest.mark.system
class TestJSON(BackendContract):
    exactly_once = True
    keeps = EVERYTHING

    def make_backend(self, run: Path) -> Backend:
        return JSON(aligned=True)

    def read(self, run: Path) -> Iterator[tuple[int, str, Any]]:
        columns = json.loads((run / "metrics.json").read_text())
        steps = columns.pop("_step", [])
        for key in columns.keys() - {"config", "run_summary", "_timestamp"}:
            for step, value in zip(steps, columns[key], strict=True):
                if value is not None:
                    yield step, key, from_json(value)


@pytest.mark.system
class TestCSV(BackendContract):
    exactly_once = True
    keeps = EVERYTHING

    def make_backend(self, run: Path) -> Backend:
        return CSV()

    def read(self, run: Path) -> Iterator[tuple[int, str, Any]]:
        for path in (run / "csv").glob("*.csv"):
            source = "" if path.stem == "metrics" else f"{path.stem}/"
            for row in polars.read_csv(path, infer_schema=False).iter_rows(named=True):
                cells = ((key, cell) for key, cell in row.items() if cell is not None and key[0] != "_")
                yield from ((int(row["_step"]), source + key, plain(key, cell)) for key, cell in cells)


def plain(key: str, cell: str) -> Any:
    """What a cell of this key stands for."""
    if key == "text":
        return cell
    return float(cell) if key in ("nan", "inf", "float", "half") else json.loads(cell)


@pytest.mark.system
class TestYAML(BackendContract):
    """None of the records is in its files: those have tests of their own."""

    keeps = frozenset()
    nested = False

    def make_backend(self, run: Path) -> Backend:
        return YAML()

    def read(self, run: Path) -> Iterator[tuple[int, str, Any]]:
        return iter(())

    def _log(self, *arguments: Any, **how: Any) -> list[Row]:
        super()._log(*arguments, **how)
        return []

    def _log_by_turns(self, *arguments: Any) -> list[Any]:
        super()._log_by_turns(*arguments)
        return []


@pytest.mark.system
class TestParquet(BackendContract):
    exactly_once = True
    keeps = EVERYTHING

    def make_backend(self, run: Path) -> Backend:
        return Parquet(part_age_s=0)

    def read(self, run: Path) -> Iterator[tuple[int, str, Any]]:
        parts = [pyarrow.parquet.read_table(path) for path in sorted((run / "parquet").glob("*.parquet"))]
        if not parts:
            return
        for row in pyarrow.concat_tables(parts, promote_options="permissive").to_pylist():
            step = row["_step"]
            yield from ((step, key, value) for key, value in row.items() if value is not None and key[0] != "_")

    def same(self, given: Any, found: Any) -> bool:
        if isinstance(found, str) and not isinstance(given, str):
            found = json.loads(found)  # a list, or an integer beyond 64 bits
        return super().same(given, found)


@pytest.mark.system
class TestMemory(BackendContract):
    exactly_once = True
    keeps = EVERYTHING

    def make_backend(self, run: Path) -> Backend:
        backends[run] = Memory()
        return backends[run]

    def read(self, run: Path) -> Iterator[tuple[int, str, Any]]:
        memory = backends[run]
        for step, record in zip(memory.steps, memory.records, strict=True):
            yield from ((step, key, value) for key, value in flatten(record))


backends: dict[Path, Memory] = {}


@pytest.mark.system
class TestScripted(BackendContract):
    keeps = EVERYTHING

    def make_backend(self, run: Path) -> Backend:
        return ScriptedInProcess()

    def read(self, run: Path) -> Iterator[tuple[int, str, Any]]:
        for record in taken(run):
            yield from ((record.step, key, from_json(value)) for key, value in flatten(record.data))


class Cut(Backend, frozen=True, kw_only=True):
    """Writes a file that it cuts back to its last checkpoint: each record is there once if cursor and state belong together."""

    execution = "worker"

    def open(self, context: Context) -> Sink:
        return CutSink(context)


class CutSink(Sink):
    def __init__(self, context: Context) -> None:
        self.file = open(context.directory / "cut.jsonl", "ab", buffering=0)  # noqa: SIM115  # until `close`
        self.file.truncate((context.state or {"bytes": 0})["bytes"])

    def write(self, batch: Batch) -> dict[str, int]:
        if odd := [index for index, record in enumerate(batch.records) if "odd" in record.data]:
            raise Rejected("it is odd", odd)
        shown = [record for record in batch.records if record.data.get("some", 0) is not None]
        self.file.write(msgspec.json.Encoder().encode_lines([(r.step, to_json(dict(flatten(r.data)))) for r in shown]))
        return {"nothing": len(batch.records) - len(shown)}

    def checkpoint(self) -> dict[str, int]:
        return {"bytes": self.file.seek(0, 2)}

    def close(self, outcome: str) -> None:
        self.file.close()


@pytest.mark.system
class TestCut(BackendContract):
    exactly_once = True
    keeps = EVERYTHING
    rejects: ClassVar[dict[str, Any]] = {"odd": 1}

    def make_backend(self, run: Path) -> Backend:
        return Cut()

    def read(self, run: Path) -> Iterator[tuple[int, str, Any]]:
        for line in (run / "cut.jsonl").read_bytes().splitlines():
            step, data = msgspec.json.decode(line)
            yield from ((step, key, from_json(value)) for key, value in data.items())


def test_what_the_docstring_shows_is_a_contract_that_is_kept(tmp_path: Path) -> None:
    shown: dict[str, Any] = {}
    exec(textwrap.dedent(str(testing.__doc__).split("\n\n", 1)[1].rpartition("\n\n")[0]), shown)
    mine = shown["TestMine"]()
    for test in (
        mine.test_every_record_in_order,
        mine.test_values_survive,
        mine.test_nested_keys_are_joined_by_slashes,
    ):
        test(tmp_path / test.__name__)
