"""Run document: all that the page says of one run beside its curves. Runs in the server of the page, on a file thread."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from asynctrack.client.run_state import activity_of
from asynctrack.collection.backend_standing import backend_standing, stats_of_run
from asynctrack.collection.subject import RunSubject, goal_of
from asynctrack.curves.run_curves import RunCurves
from asynctrack.errors import AsynctrackError
from asynctrack.journal import environment_file
from asynctrack.journal.manifest import METRICS, UNREADABLE, Manifest
from asynctrack.journal.reader import Damage
from asynctrack.reading.reader import RunReader
from asynctrack.records.media_types import unicode
from asynctrack.ui.plain_json import number, plain
from asynctrack.ui.run_list import ListedRun
from asynctrack.ui.run_rows import row_of

LOG_NAME: Final = "worker.log"
# What one part of a run may raise: the others are told.
_OF_A_PART: Final = (AsynctrackError, OSError, *UNREADABLE)


def run_document(run: ListedRun, subject: RunSubject, curves: RunCurves, damage: Sequence[Damage]) -> dict[str, Any]:
    """Return what is known of a run. What cannot be read of it is left out, and the damage says so.

    Args:
        run: the run.
        subject: a look at it.
        curves: of it, up to date.
        damage: that was met while they were read.
    """
    path, summary = Path(run.path), subject.summary
    found: dict[str, Any] = row_of(run.key, summary)
    told = {str(one).replace(f"{path}{os.sep}", ""): None for one in damage}
    found |= {
        "path": unicode(run.path),
        "config": plain(summary.config),
        "summary": plain(summary.summary),
        "metrics": metrics_of(curves, summary.goals),
        "sessions": [{"step": one.step, "time": one.time_ns / 1e9} for one in curves.sessions()],
        "has_log": os.path.isfile(path / LOG_NAME),
        "diff": os.path.isfile(path / environment_file.DIFF_NAME),
    }
    with suppress(*_OF_A_PART):
        found |= _said(path)
    return {**found, "damage": [*([summary.problem] if summary.problem else []), *told]}


def metrics_of(curves: RunCurves, goals: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what each metric comes to."""
    found = []
    for key in curves.names():
        totals = curves.totals(key)
        if totals is None:
            continue
        low, high = totals.min, totals.max
        said = {
            "key": unicode(key),
            "count": totals.count,
            "not_finite": totals.not_finite,
            "first": number(totals.first.value),
            "last": number(totals.last.value),
            "mean": number(totals.mean),
            "min": None if low is None else number(low.value),
            "max": None if high is None else number(high.value),
            "min_step": None if low is None else low.step,
            "max_step": None if high is None else high.step,
            "goal": goal_of(goals, key),
        }
        found.append({name: value for name, value in said.items() if value is not None})
    return found


def _said(path: Path) -> dict[str, Any]:
    """Return what the manifest and the books of a run say."""
    reader = RunReader(path)
    manifest, environment = reader.manifest(), reader.environment
    activity = activity_of(path)
    stats = stats_of_run(activity, manifest)
    known = {} if environment is None else plain(environment)
    return {
        "environment": {**plain(manifest.environment), **{name: one for name, one in known.items() if one is not None}},
        "config": plain({name: value for name, value in manifest.config.items() if name != METRICS}),
        "summary": plain(manifest.summary),
        "traceback": plain(manifest.traceback),
        "failed_children": plain(manifest.failed_children),
        "checkpoint": plain(manifest.checkpoint),
        "callers": activity.callers,
        "worker": activity.worker,
        "stats": {
            "offered": stats.offered,
            "accepted": stats.accepted,
            "journaled": stats.journaled,
            "queued": stats.queued,
            "dropped": stats.dropped,
        },
        "backends": {name: plain(backend_standing(path, name, manifest, stats)) for name in manifest.backends},
        "writers": _writers(reader, manifest),
        "hosts": plain(msgspec.to_builtins(manifest.hosts)),
        "conflicts": plain(msgspec.to_builtins(manifest.conflicts)),
    }


def _writers(reader: RunReader, manifest: Manifest) -> Any:
    with suppress(*_OF_A_PART):
        return plain(msgspec.to_builtins(reader.writers))
    return plain(msgspec.to_builtins(manifest.writers))
