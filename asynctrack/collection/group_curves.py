"""Group curves: one curve of several runs, as users ask for it."""

from __future__ import annotations

import os
from collections.abc import Iterable

from asynctrack._system.suggestions import suggests
from asynctrack.curves.cuts import History
from asynctrack.curves.group import GroupCurve, group_curve
from asynctrack.reading.opening import open_run
from asynctrack.reading.reader import RunReader


@suggests
def curve_of_runs(
    runs: Iterable[RunReader | str | os.PathLike[str]],
    key: str,
    x: str = "step",
    *,
    x0: float | None = None,
    x1: float | None = None,
    buckets: int = 300,
    history: History = "last",
) -> GroupCurve:
    """Return one curve of several runs: mean, deviation, least and greatest of all of them, without a sample.

    Args:
        runs: readers, or paths of runs. Those without the metric do not count.
        key: the metric.
        x: as for `RunReader.curve`.
        x0: as for `RunReader.curve`; None for the first x of all runs.
        x1: the last x.
        buckets: how many, at most.
        history: as for `RunReader.curve`.

    Raises:
        NotARun: there is no run at one of the paths.
        InvalidSettings: there is no such window or history.
    """
    readers = [run if isinstance(run, RunReader) else open_run(run) for run in runs]
    return group_curve([reader._run_curves(history) for reader in readers], key, x, x0, x1, buckets)
