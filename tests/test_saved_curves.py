"""Curves of long runs are kept in the user's cache: what is found there is used where it is right, and does no harm where it is not."""

from __future__ import annotations

import math
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest

import asynctrack
from asynctrack._system import user_cache
from asynctrack.cli.curves import read_curves
from asynctrack.collection.metric_stats import stats_of
from asynctrack.curves import saved
from asynctrack.curves.run_curves import RunCurves
from asynctrack.reading.reader import RunReader
from asynctrack.testing import JournaledRun


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that keeps runs of 1,000 records and more."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(saved, "LEAST_RECORDS", 1000)
    return tmp_path / "cache" / "asynctrack" / "curves"


def log(run: JournaledRun, first: int, end: int) -> None:
    for step in range(first, end):
        run.log({"loss": 50.0 if step == 777 else float(step % 100), "rare" if step % 90 == 0 else "often": step}, step)
        if step % 333 == 0:
            run.journal()
    run.journal()


def shown(run: Path, cache: bool = True, history: Any = "last") -> Any:
    """All that two pictures show, and the totals."""
    reader = RunReader(run)
    found = [reader.curves(cache=cache, history=history), reader.curves(x0=700, x1=800, cache=cache, history=history)]
    pictures = [
        {key: (list(of.x), list(of.min), list(of.max), list(of.mean), list(of.count)) for key, of in each.items()}
        for each in found
    ]
    curves = reader._run_curves(history)
    return pictures, [(name, repr(curves.totals(name))) for name in curves.names()]


def was_read(run: Path, history: Any = "last") -> bool:
    """Whether a reader goes on from the cache."""
    curves = RunCurves(run, history, cache=True)
    curves.grow()
    return any(not isinstance(lane.rows[0], bytearray) for lane in curves._pyramid.lanes)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    with JournaledRun(tmp_path / "p" / "r") as run:
        log(run, 0, 30_000)
        run.end()
    return run.path


def test_cache_has_the_same_curves(run: Path, cache: Path) -> None:
    expected = shown(run, cache=False)
    assert not cache.exists()
    assert shown(run) == expected
    assert len(list(cache.iterdir())) == 1
    assert was_read(run)
    assert shown(run) == expected


def test_short_run_is_not_kept(tmp_path: Path, cache: Path) -> None:
    with JournaledRun(tmp_path / "p" / "r") as run:
        log(run, 0, 900)
        run.end()
    shown(run.path)
    assert not cache.exists()


@pytest.mark.parametrize("history", ["all", "last"])
def test_run_that_goes_on_is_read_from_where_the_cache_ends(tmp_path: Path, history: Any) -> None:
    with JournaledRun(tmp_path / "p" / "r") as run:
        log(run, 0, 5000)
        shown(run.path, history=history)
        log(run, 5000, 5100)
        assert was_read(run.path, history)
        assert counts(shown(run.path, history=history)) == counts(shown(run.path, cache=False, history=history))
        run.start()
        log(run, 4000, 9000)
        assert counts(shown(run.path, history=history)) == counts(shown(run.path, cache=False, history=history))
        run.end()
    assert counts(shown(run.path, history=history)) == counts(shown(run.path, cache=False, history=history))


def counts(found: Any) -> Any:
    """What two pictures share where rows begin at other records: what is exact, and the totals."""
    (whole, near), totals = found
    return near, {key: (sum(of[4]), min(of[1]), max(of[2])) for key, of in whole.items()}, [name for name, _ in totals]


def test_file_that_is_harmed_is_as_none(run: Path, cache: Path) -> None:
    expected = shown(run, cache=False)
    shown(run)
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    for harmed in (
        b"",
        whole[:40],
        whole[: len(whole) // 2],
        whole[:-1],
        bytes(len(whole)),
        whole[:200] + bytes(200) + whole[400:],
        whole[:-200] + bytes(200),
        whole.replace(saved.MAGIC, b"ATCURV0<", 1),
    ):
        path.write_bytes(harmed)
        assert not was_read(run)
        path.write_bytes(harmed)
        assert shown(run) == expected
    assert was_read(run)


def test_large_file_that_is_harmed_breaks_nothing(run: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too large to be checked whole may be wrong, but never leads out of the file."""
    monkeypatch.setattr(user_cache, "_CHECKED_BYTES", 0)
    shown(run)
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-100_000] + b"\xff" * 100_000)
    shown(run)


def test_cache_of_another_journal_is_not_used(run: Path, tmp_path: Path) -> None:
    shown(run)
    shutil.rmtree(run)
    with JournaledRun(run) as other:
        for step in range(2000):
            other.log({"other": step}, step)
        other.end()
    assert not was_read(run)
    assert {*RunReader(run).curves()} == {"other"}


def test_journal_of_which_less_is_there_is_read_anew(run: Path) -> None:
    shown(run)
    (segment,) = (run / "journal").glob("*.atj")
    os.truncate(segment, segment.stat().st_size // 2)
    assert not was_read(run)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_cache_on_a_disk_that_is_only_read_does_no_harm(run: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert shown(run) == shown(run, cache=False)


def test_cache_that_cannot_be_made_does_no_harm(run: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the directory should be")
    assert shown(run) == shown(run, cache=False)


@pytest.mark.parametrize("history", ["all", "last"])
def test_stats_of_a_run_come_from_what_was_kept_and_what_has_come_since(
    tmp_path: Path, history: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with JournaledRun(tmp_path / "p" / "r") as run:
        log(run, 0, 5000)
        shown(run.path, history=history)
        assert saved.is_kept(run.path, history)
        run.start()
        for step in range(4000, 6000):
            run.log({"loss": math.nan if step == 4500 else -step, "ok": step % 2 == 0, "big": 2**53 + step}, step)
        run.end()
    kept = stats_of(run.path, history)
    user_cache.clear()
    assert not saved.is_kept(run.path, history)
    read = stats_of(run.path, history)
    assert kept.keys() == read.keys()
    for key, of in read.items():
        assert kept[key].mean == pytest.approx(of.mean)
        one, other = (msgspec.structs.replace(each, mean=0.0) for each in (kept[key], of))
        assert repr(one) == repr(other)


def test_numbers_beyond_64_bits_are_exact_in_stats_though_curves_round_them(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "r") as run:
        for step in range(2000):
            run.log({"loss": 2**70 + step, "small": step}, step)
        run.end()
    RunReader(run.path).curve("loss")
    assert saved.is_kept(run.path, "last")
    assert stats_of(run.path)["loss"].max == 2**70 + 1999
    assert RunReader(run.path).summarise("loss", "max") == 2**70 + 1999


def test_show_says_damage_and_media_that_an_earlier_reading_met(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "r") as run:
        log(run, 0, 3000)
        for step in range(3):
            run.log({"page": asynctrack.Html("<b>x</b>"), "loss": 1}, 3000 + step)
        run.end()
    segment = run.path / "journal" / "000001.atj"
    content = bytearray(segment.read_bytes())
    content[2000:2010] = b"x" * 10
    segment.write_bytes(content)
    first = read_curves(RunReader(run.path))
    assert saved.is_kept(run.path, "last")
    second = read_curves(RunReader(run.path))
    assert first.damage and second.damage == first.damage
    assert second.media.by_kind == first.media.by_kind == {"html": 3}
    assert list(second.media.newest) == list(first.media.newest)
    assert second.curves.by_key == first.curves.by_key
