"""Our backends, and our fakes, keep what a backend promises."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from support import lines

from asynctrack import Backend, Batch, Context, JSONLines, Memory, Refused, Sink, testing
from asynctrack.record import flatten, from_json, to_json
from asynctrack.testing import BackendContract, ScriptedInProcess, taken

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


class TestScripted(BackendContract):
    keeps = EVERYTHING

    def make_backend(self, run: Path) -> Backend:
        return ScriptedInProcess()

    def read(self, run: Path) -> Iterator[tuple[int, str, Any]]:
        for record in taken(run):
            yield from ((record.step, key, from_json(value)) for key, value in flatten(record.data))


class Cut(Backend, frozen=True, kw_only=True):
    """Writes a file that it cuts back to its last checkpoint: each record is there once if cursor and state belong together."""

    place = "worker"

    def open(self, context: Context) -> Sink:
        return CutSink(context)


class CutSink(Sink):
    def __init__(self, context: Context) -> None:
        self.file = open(context.directory / "cut.jsonl", "ab", buffering=0)  # noqa: SIM115  # until `close`
        self.file.truncate((context.state or {"bytes": 0})["bytes"])

    def write(self, batch: Batch) -> dict[str, int]:
        if odd := [index for index, record in enumerate(batch.records) if "odd" in record.data]:
            raise Refused("it is odd", odd)
        shown = [record for record in batch.records if record.data.get("some", 0) is not None]
        self.file.write(msgspec.json.Encoder().encode_lines([(r.step, to_json(dict(flatten(r.data)))) for r in shown]))
        return {"nothing": len(batch.records) - len(shown)}

    def checkpoint(self) -> dict[str, int]:
        return {"bytes": self.file.seek(0, 2)}

    def close(self, outcome: str) -> None:
        self.file.close()


class TestCut(BackendContract):
    exactly_once = True
    keeps = EVERYTHING
    refuses: ClassVar[dict[str, Any]] = {"odd": 1}

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
