"""Many merged runs at once: they share a sync, and what is acknowledged is as safe as by one of its own. A run that another may write to is left alone."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from merged_rings import assert_merged, make_part

from asynctrack.carriers.cutter import Cut, Cutter
from asynctrack.carriers.message import Place
from asynctrack.carriers.wire import PartName
from asynctrack.errors import MergedElsewhere
from asynctrack.merging.merger import Merger
from asynctrack.merging.server import group_sync
from asynctrack.merging.server.guarded_merger import BatchPost, Sign
from asynctrack.merging.server.limits import ServerLimits
from asynctrack.merging.server.served_runs import ServedRuns

RUNS = 40


def cuts_of(part: Path) -> list[Cut]:
    found = []
    with contextlib.closing(Cutter(part / "journal", Place())) as cutter:
        while (cut := cutter.cut(1000)) is not None:
            found.append(cut)
    return found


async def bring(directory: Path, parts: list[Path]) -> None:
    """Have the next message of each run taken, all at once, until none is left."""
    runs = ServedRuns(directory, ServerLimits(keep_free_bytes=0), {}, lambda _: None)
    for messages in zip(*map(cuts_of, parts), strict=True):
        await asyncio.gather(
            *(
                runs.take(
                    PartName("p", part.name.partition("@")[0], "a"),
                    BatchPost(Sign("a", time.time_ns(), None), cut.after, cut.upto, cut.message, False),
                )
                for part, cut in zip(parts, messages, strict=True)
            )
        )
    await runs.close()


@pytest.mark.parametrize("answer", [0, -1], ids=["a file system that says so", "a file system with an error"])
def test_many_runs_share_a_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: int) -> None:
    syncs: list[int] = []

    def find() -> Callable[[int], int]:
        def syncfs(fd: int) -> int:
            syncs.append(fd)
            return answer

        return syncfs

    monkeypatch.setattr(group_sync, "_find_syncfs", find)
    parts = [make_part(tmp_path / "parts", "a", rank=0, run=f"r{at}") for at in range(RUNS)]
    asyncio.run(bring(tmp_path / "runs", parts))
    messages = RUNS * len(cuts_of(parts[0]))
    assert 0 < len(syncs) < messages / 4
    assert answer == 0 or len(syncs) == 1  # whose the error is it does not say: each run asks itself from then on
    for part in parts:
        assert_merged(tmp_path / "runs" / "p" / part.name.partition("@")[0], [part])


def test_file_system_is_synced_in_one_call_where_the_system_can(tmp_path: Path) -> None:
    sync = group_sync.GroupSync(tmp_path / "not there yet")

    async def ask() -> list[bool]:
        return await asyncio.gather(*(sync.sync(tmp_path.stat().st_dev) for _ in range(5)), sync.sync(0))

    assert asyncio.run(ask()) == [True] * 5 + [False]
    sync.close()


def test_merger_that_may_not_write_any_more_writes_nothing(tmp_path: Path) -> None:
    part, run, may = make_part(tmp_path, "a", rank=0), tmp_path / "merged" / "p" / "r", [True]
    first, *rest = cuts_of(part)
    with Merger(run, may_write=lambda: may[0]) as merger:
        merger.take("a", first.after, first.upto, first.message)
        assert merger.sync()
        may[0] = False
        before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        with pytest.raises(MergedElsewhere):
            merger.take("a", rest[0].after, rest[0].upto, rest[0].message)
        with pytest.raises(MergedElsewhere):
            merger.name_lost(-1.0)
        with pytest.raises(MergedElsewhere):
            merger.sync()
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    with Merger(run) as merger:
        for cut in rest:
            merger.take("a", cut.after, cut.upto, cut.message)
    assert_merged(run, [part])
