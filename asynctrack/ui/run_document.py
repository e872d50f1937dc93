"""Run document: all that the page says of one run beside its curves. Runs in the server of the page, on a file thread."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from asynctrack.client.run_state import activity_of
from asynctrack.collection.run_summary import RunSummary
from asynctrack.collection.subject import RunSubject, goal_of
from asynctrack.curves.run_curves import RunCurves
from asynctrack.curves.session_begins import SessionBegin
from asynctrack.errors import AsynctrackError
from asynctrack.journal import environment_file
from asynctrack.journal.manifest import METRICS, UNREADABLE
from asynctrack.records.media_types import unicode
from asynctrack.ui.plain_json import number, plain
from asynctrack.ui.run_books import OpenBooks
from asynctrack.ui.run_list import ListedRun
from asynctrack.ui.run_rows import row_of
from asynctrack.ui.run_shelf import RunShelf
from asynctrack.ui.run_texts import LOG_NAME, is_text

# What one part of a run may raise: the others are told.
_OF_A_PART: Final = (AsynctrackError, OSError, *UNREADABLE)


def run_document(run: ListedRun, subject: RunSubject, shelf: RunShelf, books: OpenBooks) -> dict[str, Any]:
    """Return what is known of a run. What cannot be read of it is left out, and the damage says so.

    Args:
        run: the run.
        subject: a look at it.
        shelf: reads its journal.
        books: of the runs that were asked for.
    """
    path, summary = Path(run.path), subject.summary
    found: dict[str, Any] = row_of(run.key, summary) | {
        "path": unicode(run.path),
        "config": plain(summary.config),
        "summary": plain(summary.summary),
        "metrics": [],
        "has_log": is_text(path / LOG_NAME),
        "diff": is_text(path / environment_file.DIFF_NAME),
    }
    told = dict.fromkeys([summary.problem] if summary.problem else [])
    for part in (_numbers, _said):
        try:
            found |= part(run, summary, shelf, books, told)
        except _OF_A_PART as error:
            told[_without(path, str(error) or type(error).__name__)] = None
    return {**found, "damage": [unicode(one) for one in told]}


def _numbers(
    run: ListedRun, summary: RunSummary, shelf: RunShelf, books: OpenBooks, told: dict[str, None]
) -> dict[str, Any]:
    """Return what a run's metrics come to, and where its sessions begin."""
    shelf.prepare(run.path)
    curves, damage = shelf.curves_of(run.path)
    told.update((_without(Path(run.path), str(one)), None) for one in damage)
    return {"metrics": metrics_of(curves, summary.goals), "sessions": [_session(one) for one in curves.sessions()]}


def _without(path: Path, error: str) -> str:
    """Return an error with paths within the run."""
    return error.replace(f"{path}{os.sep}", "")


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


def _session(begin: SessionBegin) -> dict[str, Any]:
    said: dict[str, Any] = {"time": begin.time_ns / 1e9, "step": begin.step}
    with suppress(ValueError, OverflowError, OSError):  # a time that no calendar has
        said["started_at"] = datetime.fromtimestamp(begin.time_ns / 1e9, UTC).isoformat(timespec="milliseconds")
    return said


def _said(
    run: ListedRun, summary: RunSummary, shelf: RunShelf, books: OpenBooks, told: dict[str, None]
) -> dict[str, Any]:
    """Return what the manifest, the books and the journal of a run say beside its numbers."""
    path, found = Path(run.path), shelf.found_in(run.path)
    manifest, environment, activity = found.manifest(), environment_file.load(path), activity_of(path)
    known = {} if environment is None else plain(environment)
    return {
        "checkpoints": plain(found.checkpoints()),
        "media": [{"key": unicode(key), "kind": of.kind, "count": of.count} for key, of in found.media().items()],
        "environment": {**plain(manifest.environment), **{name: one for name, one in known.items() if one is not None}},
        "config": plain({name: value for name, value in manifest.config.items() if name != METRICS}),
        "summary": plain(manifest.summary),
        "traceback": plain(manifest.traceback),
        "failed_children": plain(manifest.failed_children),
        "checkpoint": plain(manifest.checkpoint),
        "hosts": plain(msgspec.to_builtins(manifest.hosts)),
        "conflicts": plain(msgspec.to_builtins(manifest.conflicts)),
        "callers": activity.callers,
        "worker": activity.worker,
        **plain(books.told(run.path, manifest, activity)),
    }
