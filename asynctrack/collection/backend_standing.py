"""Backend standing: how far each backend of a run is, and the books of the run, as its files and queues tell. Runs anywhere."""

from __future__ import annotations

from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from asynctrack.client.run_state import RunActivity
from asynctrack.collection.run_summary import seconds_between
from asynctrack.journal.cursor import Cursor, cursor_path, peek_cursor
from asynctrack.journal.manifest import Manifest
from asynctrack.queue.shm_paths import ring_paths
from asynctrack.reading.stats import RunStats, StatsCollector

# Fields of a cursor that are told beside the statistics, where it has them.
_CURSOR_FIELDS: Final = ("retries", "next_try_at", "paused", "closed")


def stats_of_run(activity: RunActivity, manifest: Manifest) -> RunStats:
    """Return the books of a run: what was offered, accepted, dropped and delivered."""
    rings = [path for directory in activity.directories for path in ring_paths(directory)]
    with closing(StatsCollector(activity.known_as)) as collector:
        return collector.collect([], rings, manifest.backends)


def backend_standing(run: Path, name: str, manifest: Manifest, stats: RunStats) -> dict[str, Any]:
    """Return a backend's statistics, and the other fields of its cursor."""
    cursor, backend_stats = peek_cursor(run, name) or Cursor(), stats.backends[name]
    saved_s = None
    with suppress(OSError):
        saved_at = datetime.fromtimestamp(cursor_path(run, name).stat().st_mtime, UTC).isoformat()
        saved_s = seconds_between(manifest.created_at, saved_at)
    return {
        "kind": manifest.backends[name].get("kind"),
        "delivered": backend_stats.delivered,
        "behind": backend_stats.behind,
        "skipped": backend_stats.skipped,
        "rejected": backend_stats.rejected,
        "records_per_s": backend_stats.delivered / saved_s
        if saved_s and saved_s > 0 and backend_stats.delivered
        else None,
        "last_error": backend_stats.last_error,
        "known": backend_stats.known,
        **{field: getattr(cursor, field) for field in _CURSOR_FIELDS},
    }
