"""What was logged to a directory comes back, whole and in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import asynctrack
from asynctrack.integrations.naming import directory_name
from asynctrack.integrations.restored import last_steps, nested, numbers_in, runs_in
from asynctrack.settings import check_name

pytestmark = pytest.mark.usefixtures("shared_host")


def log(log_dir: Path, run_id: str, steps: range) -> Path:
    with asynctrack.init("tianshou", id=run_id, dir=log_dir) as run:
        for step in steps:
            run.log({"training/env_step": step, "training/x": step * 0.1, "text": "not this"}, step)
    return run.path


@pytest.mark.system
def test_trainings_follow_each_other(tmp_path: Path) -> None:
    (tmp_path / "tianshou/killed/journal").mkdir(parents=True)
    first = log(tmp_path, "z", range(6_000))
    log(tmp_path, "a", range(6_000, 12_000))
    assert numbers_in(tmp_path)["training/x"] == [step * 0.1 for step in range(12_000)]
    assert numbers_in(first)["training/env_step"] == list(range(6_000))
    assert numbers_in(tmp_path / "nowhere") == {}


def test_the_last_step_is_the_last_that_was_written_up_to_a_limit(tmp_path: Path) -> None:
    log(tmp_path, "first", range(0, 1000, 100))
    log(tmp_path, "second", range(250, 800, 100))
    limits = {"training/env_step": 600, "training/x": 50, "text": 10_000, "none": 7}
    assert last_steps(runs_in(tmp_path), limits) == {"training/env_step": 550, "training/x": 0, "text": 750}


@pytest.mark.parametrize(
    ("flat", "whole"),
    [
        ({"a/b/c": 1, "a/d": 2, "e": 3}, {"a": {"b": {"c": 1}, "d": 2}, "e": 3}),
        ({"a": 1, "a/b": 2, "a/b/c": 3}, {"a": {"": 1, "b": {"": 2, "c": 3}}}),
        ({"a/b": 1, "a": 2, "/c": 3}, {"a": {"b": 1, "": 2}, "": {"c": 3}}),
    ],
)
def test_names_are_nested_at_their_slashes(flat: dict[str, Any], whole: dict[str, Any]) -> None:
    assert nested(flat) == whole


@pytest.mark.parametrize("name", ["exp", "a/b", "../up", ".hidden", "", "x" * 300, "ü=1", " "])
def test_every_name_has_one_that_a_directory_can_have(name: str) -> None:
    assert check_name("project", directory_name(name))
