"""`show` and `export` find the same with the native core and without: in runs of any records and any bytes."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from reading_versions import both, tries
from test_scan import MIXED, RESUMED, RESUMED_WITH_A_NAME_TWICE, alike, made_run, payloads, run_of, sessions

from asynctrack._system.native import is_native
from asynctrack.cli import run_rows
from asynctrack.cli.curves import read_curves
from asynctrack.cli.exporting import Export, Format
from asynctrack.cli.media_counts import media_as_json
from asynctrack.cli.options import KeyFilter
from asynctrack.cli.run_rows import RunRows
from asynctrack.reading import scan
from asynctrack.reading.history import History
from asynctrack.reading.reader import RunReader
from asynctrack.testing import JournaledRun

HISTORIES: tuple[History, ...] = ("all", "last")

pytestmark = pytest.mark.skipif(not is_native, reason="the native core is not built")


Exported = tuple[str, int, tuple[int, int], list[str]]


def exported(
    run: Path, format: Format, keys: KeyFilter | None = None, history: History = "all", label: str | None = None
) -> Exported:
    """What is exported, how many records, how many repeats are not, and what was damaged."""
    export, out = Export([RunRows(run, keys, history=history, label=label)]), io.BytesIO()
    export.write(out, format)
    left_out = export.left_out.rows, export.left_out.values
    return out.getvalue().decode(), export.records, left_out, export.damage


def shown(run: Path, history: History = "all") -> tuple[dict[str, Any], Any, Any, list[str]]:
    """The curves and media that are shown, how many repeats are not, and what was damaged."""
    curves, left_out, media, damage = read_curves(RunReader(run), history=history)
    courses = curves.courses(curves.by_key, 20)
    figures = {key: (of.count, of.low, of.last, of.high, courses[key]) for key, of in curves.by_key.items()}
    return figures, media_as_json(media), tuple(left_out), list(map(str, damage))


@tries(sessions, known=((MIXED,), (RESUMED,), ([[(None, {"loss": None, "_step": None}), (None, {"__step": None})]],)))
def test_tables_of_csv_are_the_same(sessions: list[Any]) -> None:
    with made_run(sessions) as run:
        for history in HISTORIES:
            for label in (None, "p/run"):
                native, plain = both(lambda: exported(run.path, "csv", history=history, label=label))  # noqa: B023
                assert native == plain
                assert len(list(csv.reader(io.StringIO(native[0], newline="")))) == native[1] + 1
                assert native[1] == sum(1 for _ in run.records(history))


@tries(sessions, known=((MIXED,), (RESUMED,), (RESUMED_WITH_A_NAME_TWICE,)))
def test_exported_lines_are_the_same(sessions: list[Any]) -> None:
    with made_run(sessions) as run:
        for keys in (None, KeyFilter("loss,a/*")):
            for history in HISTORIES:
                for label in (None, "p/run"):
                    native, plain = both(lambda: exported(run.path, "jsonl", keys, history, label))  # noqa: B023
                    assert native == plain


@tries(sessions, known=((MIXED,), (RESUMED,), (RESUMED_WITH_A_NAME_TWICE,)))
def test_curves_are_the_same(sessions: list[Any]) -> None:
    with made_run(sessions) as run:
        for history in HISTORIES:
            native, plain = both(lambda: shown(run.path, history))  # noqa: B023
            assert alike(native, plain)


@tries(payloads)
def test_any_bytes_are_shown_and_exported_alike(payloads: list[bytes]) -> None:
    with run_of(payloads) as run:
        for read in (shown, lambda path: exported(path, "csv"), lambda path: exported(path, "jsonl")):
            native, plain = both(lambda read=read: read(run.path))  # type: ignore[misc]
            assert alike(native, plain)


def test_curves_of_long_runs_are_the_same(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "run") as run:
        for step in range(40 * 100):
            run.log(
                {"loss": (step * 7919) % 1000 / 7, "n": (step * 7919) % 1000}
                | ({"rare": step} if step % 37 == 0 else {}),
                step,
            )
            if step % 500 == 499:
                run.journal()
        run.end()
    native, plain = both(lambda: shown(run.path))
    assert alike(native, plain)
    assert native[0]["n"][0] == 40 * 100


@pytest.mark.parametrize(
    ("numbers", "low", "high"),
    [
        ([2**53, 2.0**53, 2**53 + 1], 2**53, 2**53 + 1),
        ([2**63 - 1, 2.0**63], 2**63 - 1, 2.0**63),
        ([-(2**63), -(2.0**63)], -(2**63), -(2**63)),
        ([-(2**63), -1e300], -1e300, -(2**63)),
        ([1, 1.5, -0.5, 0], -0.5, 1.5),
        ([-1, -1.5, -2], -2, -1),
        ([float("nan"), 3], 3, 3),
        ([float("inf"), 3, float("-inf")], 3, 3),
    ],
)
def test_integers_and_floats_are_compared_as_numbers(
    tmp_path: Path, numbers: list[float], low: float, high: float
) -> None:
    with JournaledRun(tmp_path / "p" / "run") as run:
        for number in numbers * 100:  # so that points are of several values
            run.log({"a": number})
        run.end()
    native, plain = both(lambda: shown(run.path))
    assert alike(native, plain)
    assert alike(native[0]["a"][1:4:2], (low, high))


def test_names_without_end_are_forgotten_between_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_MOST_KNOWN", 10)
    monkeypatch.setattr(scan, "_BLOCK_ROWS", 1)
    with JournaledRun(tmp_path / "p" / "run") as run:
        for step in range(100):
            run.log({f"name {step}": step, "loss": 0.5}, step)
            run.journal()
        run.end()
    native, plain = both(lambda: (shown(run.path), exported(run.path, "csv")))
    assert alike(native, plain)
    assert len(native[0][0]) == 101


def test_a_wide_table_is_made_some_rows_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_rows, "_MOST_CELLS", 20)
    with JournaledRun(tmp_path / "p" / "run") as run:
        for step in range(50):
            run.log({"a": step, "b": "x,y"} if step % 3 else {"c": step * 0.5, "d": None}, step)
        run.end()
    native, plain = both(lambda: exported(run.path, "csv"))
    assert native == plain and native[1] == 50


def test_records_that_come_while_a_table_is_written_are_left_for_the_next(tmp_path: Path, reading: str) -> None:
    """Their names are not among its columns."""
    with JournaledRun(tmp_path / "p" / "run") as run:
        run.log({"a": 1}, 0)
        run.journal()
        rows, out = RunRows(run.path), io.BytesIO()
        export, columns = Export([rows]), rows.columns

        def logging_meanwhile() -> Any:
            found = columns()
            run.log({"b": 2}, 1)
            run.journal()
            return found

        rows.columns = logging_meanwhile  # type: ignore[method-assign]
        export.write_csv(out)
        assert out.getvalue().decode().splitlines()[0] == "_step,_timestamp,a"
        assert export.records == 1
