"""Checkpoints and media are the same whether a pass of their own finds them, or that of the curves, and the second reads the journal once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import asynctrack
from asynctrack.journal.frames import FrameBatch
from asynctrack.journal.reader import Reader
from asynctrack.testing import JournaledRun
from asynctrack.ui import journal_pass
from asynctrack.ui.run_shelf import RunShelf

RECORDS = 400


class CountingReader(Reader):
    batches = 0

    def __iter__(self) -> Iterator[FrameBatch]:
        for batch in super().__iter__():
            CountingReader.batches += 1
            yield batch


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_pass, "Reader", CountingReader)
    monkeypatch.setattr(CountingReader, "batches", 0)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[JournaledRun]:
    """A run whose journal has several segments."""
    with JournaledRun(tmp_path / "p" / "a", segment_bytes=4096) as run:
        log(run, range(RECORDS))
        yield run


def log(run: JournaledRun, steps: range) -> None:
    for step in steps:
        medium = {"image": asynctrack.Html(f"<p>{step}")} if step % 50 == 7 else {}
        if step % 50 == 31:  # within others, and in no other batch
            medium = {"pages": [1, asynctrack.Html(f"<p>{step}")], "deep": {"page": asynctrack.Html(f"<b>{step}")}}
        # What begins as a medium does, and is none.
        run.log({"loss": float(step), "text": "\x03\x96"[: step % 3], **medium}, step=step)
        if step % 20 == 19:
            run.journal()


def media_of(shelf: RunShelf, run: JournaledRun) -> list[tuple[str, int, list[journal_pass.MediumPlace]]]:
    found = shelf.found_in(str(run.path)).media()
    return [(key, of.count, list(of.places)) for key, of in found.items()]


def test_pass_of_the_curves_finds_media_too(run: JournaledRun) -> None:
    assert len([*(run.path / "journal").iterdir()]) > 3
    alone = media_of(RunShelf(cache=False), run)
    assert [(key, count) for key, count, _ in alone] == [
        (key, RECORDS // 50) for key in ("image", "pages", "deep/page")
    ]
    read_alone, CountingReader.batches = CountingReader.batches, 0
    shelf = RunShelf(cache=False)
    shelf.prepare(str(run.path))
    curves, _ = shelf.curves_of(str(run.path))
    assert curves.names() == ["loss"]
    assert media_of(shelf, run) == alone
    assert read_alone > 10 and CountingReader.batches == 0


def test_pass_goes_on_with_a_run_that_goes_on(run: JournaledRun) -> None:
    shelf = RunShelf(cache=False)
    shelf.prepare(str(run.path))
    shelf.curves_of(str(run.path))
    media_of(shelf, run)
    log(run, range(RECORDS, 2 * RECORDS))
    shelf.prepare(str(run.path))
    shelf.curves_of(str(run.path))
    assert media_of(shelf, run) == media_of(RunShelf(cache=False), run)
    read_anew = CountingReader.batches
    log(run, range(2 * RECORDS, 3 * RECORDS))
    shelf.curves_of(str(run.path), "all")  # begins at the first batch: of no use to the pass
    assert media_of(shelf, run) == media_of(RunShelf(cache=False), run)
    assert CountingReader.batches > read_anew


def test_curves_that_were_kept_leave_the_pass_to_read_by_itself(run: JournaledRun) -> None:
    shelf = RunShelf(cache=False)
    shelf.curves_of(str(run.path))
    shelf.prepare(str(run.path))
    log(run, range(RECORDS, RECORDS + 40))
    shelf.curves_of(str(run.path))  # reads the end alone
    assert media_of(shelf, run) == media_of(RunShelf(cache=False), run)
    assert CountingReader.batches > 0
