"""Restored: read back the records of all trainings in a directory. Runs in the caller; needs no framework."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from typing import Any, Final

from asynctrack.errors import NotARun
from asynctrack.reading.catalog import newest_first, runs_under
from asynctrack.reading.opening import open_run
from asynctrack.reading.reader import RunReader
from asynctrack.records.codec import flatten

PROJECT: Final = "tianshou"


def runs_in(log_dir: str | os.PathLike[str]) -> list[RunReader]:
    """Return the runs in a log directory, or the directory itself if it is a run; the oldest first."""
    below = os.path.join(log_dir, PROJECT)
    found = []
    for path in reversed(list(newest_first(runs_under(below if os.path.isdir(below) else log_dir)))):
        with contextlib.suppress(NotARun):  # its process was killed before it had logged anything
            found.append(open_run(path))
    return found


def numbers_in(log_dir: str | os.PathLike[str]) -> dict[str, list[float]]:
    """Collect the numbers in these runs by name, all of them and in order."""
    values: dict[str, list[float]] = {}
    for run in runs_in(log_dir):
        for record in run.records():
            for key, value in flatten(record.data):
                if isinstance(value, int | float):
                    values.setdefault(key, []).append(float(value))
    return values


def last_steps(runs: Iterable[RunReader], most: Mapping[str, int]) -> dict[str, int]:
    """Find the last step of each name that is not beyond a limit.

    Args:
        runs: the oldest first.
        most: the limit of each name.
    """
    last = {}
    for run in runs:
        for record in run.records():
            for name in most.keys() & record.data.keys():
                if record.step <= most[name]:
                    last[name] = record.step
    return last


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Split names at slashes and put their values into nested dicts.

    A value whose name also begins other names is at "" in their dict.
    """
    whole: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, last = key.split("/")
        place = whole
        for parent in parents:
            if not isinstance(place.setdefault(parent, {}), dict):
                place[parent] = {"": place[parent]}
            place = place[parent]
        if isinstance(place.get(last), dict):
            place, last = place[last], ""
        place[last] = value
    return whole
