"""Config and summary of a run with several writers are the same in whatever order their changes arrive."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

import asynctrack
from asynctrack.delivery.batcher import Batcher
from asynctrack.journal.cursor import Cursor
from asynctrack.journal.manifest import load, save
from asynctrack.journal.registers import Stamps, admit
from asynctrack.queue.layout import CONFIG, SUMMARY
from asynctrack.records.codec import encode
from asynctrack.testing import JournaledRun

Change = tuple[int, dict[str, int], list[str]]
"""Time, what is set, and what is removed before that."""

SEEDS = range(60)


def changes(chance: random.Random, writers: int) -> dict[str, list[Change]]:
    """The changes that each of some writers makes, in its order. Times repeat, and clocks are set back."""

    def one() -> Change:
        fresh = {key: chance.randrange(10**9) for key in chance.sample("abc", chance.randrange(3))}
        return chance.randrange(6), fresh, chance.sample("abc", chance.randrange(2))

    return {f"{ring:016x}": [one() for _ in range(4)] for ring in chance.sample(range(1, 99), writers)}


def shuffled(chance: random.Random, by_ring: dict[str, list[Change]]) -> list[tuple[str, Change]]:
    """All changes in an order in which those of one ring stay in theirs."""
    rings = [ring for ring, made in by_ring.items() for _ in made]
    chance.shuffle(rings)
    left = {ring: iter(made) for ring, made in by_ring.items()}
    return [(ring, next(left[ring])) for ring in rings]


@pytest.mark.parametrize("seed", SEEDS)
def test_any_order_of_arrival_gives_the_same(seed: int) -> None:
    chance = random.Random(seed)
    by_ring = changes(chance, 3)

    def applied() -> dict[str, int]:
        stamps: Stamps = {}
        content: dict[str, int] = {}
        for ring, (time_ns, fresh, removed) in shuffled(chance, by_ring):
            counts, gone = admit(stamps, "config", (time_ns, ring), fresh, removed)
            for name in gone:
                content.pop(name, None)
            content.update(counts)
        return content

    first = applied()
    assert all(applied() == first for _ in range(20))


def test_changes_of_one_process_count_in_their_order_whatever_its_clock_does() -> None:
    stamps: Stamps = {}
    assert admit(stamps, "config", (9, "a"), {"k": 1}, ()) == ({"k": 1}, ())
    assert admit(stamps, "config", (3, "a"), {"k": 2}, ()) == ({"k": 2}, ())
    assert admit(stamps, "config", (8, "b"), {"k": 3, "other": 4}, ("k",)) == ({"other": 4}, ())
    assert admit(stamps, "config", (9, "b"), {}, ("k",)) == ({}, ("k",))
    assert admit(stamps, "config", (9, "a"), {"k": 5}, ()) == ({}, ())


def journaled(path: Path, order: list[tuple[str, Change]]) -> JournaledRun:
    """A run of three writers whose changes of config and summary are journaled in an order."""
    run = JournaledRun(path, config={"opened": 1, "a": 0})
    by_ring = {}
    for number, (ring, (time_ns, fresh, removed)) in enumerate(order):
        if ring not in by_ring:
            by_ring[ring] = run if not by_ring else run.join(f"rank{len(by_ring)}")
        writer = by_ring[ring]
        writer._add((CONFIG, SUMMARY)[number % 2], encode((time_ns, fresh, removed)))
        writer.journal()
    run.end()
    return run


class Kept(asynctrack.Backend, frozen=True):
    """Gets one update at a time."""

    batch_records = 1


def delivered(run: Path) -> dict[str, dict[str, Any]]:
    """Config and summary as a backend has them, which begins anew after each batch."""
    found: dict[str, dict[str, Any]] = {"config": {"opened": 1, "a": 0}, "summary": {}}
    cursor = Cursor()
    while True:
        batcher = Batcher(run, cursor, Kept())
        cut = batcher.next()
        batcher.close()
        if cut is None:
            return found
        for update in cut.batch.updates:
            update.change(found[update.kind])
        cursor = Cursor(position=cut.position, ends=cut.ends, writers=cut.writers)


@pytest.mark.parametrize("seed", SEEDS[:10])
def test_readers_and_backends_have_what_was_set_last(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    order = shuffled(chance, changes(chance, 3))
    with journaled(tmp_path / "p" / "r", order) as run:
        manifest = asynctrack.open_run(run.path).manifest()
        save(run.path, manifest)
        assert load(run.path).stamps == manifest.stamps
        assert delivered(run.path) == {"config": manifest.config, "summary": manifest.summary}


def test_opening_a_run_again_begins_anew_whatever_the_clock_of_the_other_machine_says(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "r") as run:
        run._add(CONFIG, encode((9**19, {"lr": 1}, [])))
        run.end()
        run.manifest = msgspec.structs.replace(run.manifest, config={"seed": 2})
        run._ring += 2
        run._end = 0
        run.start()
        run._add(CONFIG, encode((1, {"lr": 3}, [])))
        run.journal()
        assert asynctrack.open_run(run.path).config == {"seed": 2, "lr": 3}
        assert asynctrack.open_run(run.path).manifest().stamps["config"].keys() == {"lr"}
