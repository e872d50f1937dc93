"""Scopes that let through every so many steps as Tianshou's loggers do, go on where an earlier run was, and leave arrays out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from support import records, values

import asynctrack
from asynctrack import Scope
from asynctrack.errors import InvalidSettings, InvalidStep

pytestmark = pytest.mark.usefixtures("version")


class Kept:
    """What a scope lets through."""

    def __init__(self) -> None:
        self.steps: list[int | None] = []
        self.data: list[dict[str, Any]] = []

    def log(self, data: Mapping[str, Any], step: int | None = None) -> bool:
        self.steps.append(step)
        self.data.append(dict(data))
        return True


def tianshous(steps: list[int], interval: int, last: int = -1) -> list[int]:
    """The steps that `BaseLogger.log_*_data` of Tianshou 2 writes."""
    written = []
    for step in steps:
        if step - last >= interval:
            written.append(step)
            last = step
    return written


@given(steps=some.lists(some.integers(-5, 400)), interval=some.integers(1, 150), last=some.integers(-1, 200))
def test_interval_from_a_last_step_is_tianshous(steps: list[int], interval: int, last: int) -> None:
    kept = Kept()
    scope = Scope(kept).scope("training", every=interval, last=last)
    assert all(scope.log({"x": step}, step) for step in steps)
    assert kept.steps == tianshous(steps, interval, last)
    assert scope.last == (kept.steps or [last])[-1]


def test_grid_follows_the_steps_that_were_logged() -> None:
    kept = Kept()
    scope = Scope(kept).scope("training", every=100, last=-1)
    for step in (0, 50, 98, 99, 150, 198, 199, 199, 500):
        scope.log({"x": 1}, step)
    assert kept.steps == [99, 199, 500]


def test_step_that_repeats_is_left_out_also_with_an_interval_of_one() -> None:
    kept, plain = Kept(), Kept()
    gated, ungated = Scope(kept).scope("test", last=-1), Scope(plain).scope("test")
    for step in (0, 0, 1, 1, 0):
        gated.log({"x": 1}, step)
        ungated.log({"x": 1}, step)
    assert kept.steps == [0, 1]
    assert plain.steps == [0, 0, 1, 1, 0]


def test_without_a_last_step_the_interval_counts_in_both_directions() -> None:
    kept = Kept()
    scope = Scope(kept).scope("train", every=100)
    assert scope.last is None
    for step in (500, 550, 600, 20, 90, 120):
        scope.log({"x": 1}, step)
    assert kept.steps == [500, 600, 20, 120]


def test_last_step_can_be_restored_after_a_resume() -> None:
    kept = Kept()
    before = Scope(kept).scope("update", every=10, last=-1)
    for step in range(25):
        before.log({"x": 1}, step)
    after = Scope(kept).scope("update", every=10)
    assert before.last == 19
    after.last = before.last
    for step in range(15, 45):
        after.log({"x": 1}, step)
    assert kept.steps == [9, 19, 29, 39]


def test_calls_without_a_step_count_themselves_and_leave_the_last_step() -> None:
    kept = Kept()
    scope = Scope(kept).scope("info", every=2, last=-1)
    for call in range(5):
        scope.log({"call": call})
    assert [data["info/call"] for data in kept.data] == [0, 2, 4]
    assert scope.last == -1


def test_child_that_adds_fields_keeps_the_interval_and_what_it_excludes() -> None:
    kept = Kept()
    scope = Scope(kept).scope("test", every=10, last=4, arrays="exclude").bind({"seed": 1})
    for step in (10, 14, 20, 24):
        scope.log({"x": step, "lens": np.zeros(3)}, step)
    assert kept.data == [{"seed": 1, "test/x": 14}, {"seed": 1, "test/x": 24}]


def test_excluded_are_what_has_a_dimension_and_what_holds_nothing_else() -> None:
    kept = Kept()
    scope = Scope(kept).scope("training", arrays="exclude")
    returns = {"mean": np.float32(0.5), "returns": np.arange(3), "inner": {"lens": np.ones((2, 2))}, "none": {}}
    assert scope.log({"n": 3, "zero_d": np.array(7), "stats": returns, "texts": ["a"], "empty": np.zeros(0)}, 1)
    assert scope.log({"only": np.arange(3), "deep": {"too": np.arange(3)}}, 2)
    assert kept.data == [
        {
            "training/n": 3,
            "training/zero_d": np.array(7),
            "training/stats": {"mean": np.float32(0.5)},
            "training/texts": ["a"],
        }
    ]


@pytest.mark.system
def test_tianshous_four_scopes_of_a_run(runs: Path, own_host: Path) -> None:
    with asynctrack.init("p", dir=runs) as run:
        scopes = {
            "env_step": run.scope("training", every=1000, last=-1, arrays="exclude"),
            "test_step": run.scope("test", every=1, last=-1),
            "update_step": run.scope("update", every=1000, last=-1),
            "epoch": run.scope("info", every=1, last=-1),
        }
        for step in range(0, 4000, 7):
            for name, scope in scopes.items():
                assert scope.log({name: step, "returns": np.full(4, step)}, step)
    steps = list(range(0, 4000, 7))
    assert values(run.path, "training/env_step") == tianshous(steps, 1000)
    assert values(run.path, "update/update_step") == tianshous(steps, 1000)
    assert values(run.path, "test/test_step") == values(run.path, "info/epoch") == steps
    assert not values(run.path, "training/returns")
    assert np.asarray(values(run.path, "update/returns")[-1]).tolist() == [tianshous(steps, 1000)[-1]] * 4
    assert len(records(run.path)) == 2 * len(steps) + 2 * len(tianshous(steps, 1000))


@pytest.mark.parametrize("arrays", ["histogram", None, True])
def test_unknown_way_with_arrays_is_refused(arrays: Any) -> None:
    with pytest.raises(InvalidSettings, match="arrays must be one of 'keep', 'exclude'; got "):
        Scope(Kept(), arrays=arrays)


@pytest.mark.parametrize("last", [0.5, True, "9"])
def test_last_step_that_is_no_integer_is_refused(last: Any) -> None:
    with pytest.raises(InvalidStep):
        Scope(Kept()).scope("train", last=last)
    with pytest.raises(InvalidStep):
        Scope(Kept()).last = last
