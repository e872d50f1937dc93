"""Run rows: a run as a line of the page's table. Runs in the server of the page."""

from __future__ import annotations

from typing import Any, Final

from asynctrack.collection.run_summary import RunSummary
from asynctrack.records.media_types import unicode
from asynctrack.ui.plain_json import flat, plain

# Of config, summary and metrics in a row; the run's own page has all. Arbitrary.
_MOST_KEYS: Final = 500
# Characters of a text in a row. Arbitrary.
_LONGEST: Final = 300

_SINGLE: Final = (
    *("id", "project", "name", "created_at", "ended_at", "records", "records_per_s", "step"),
    *("group", "job_type", "notes", "error", "problem"),
)
_NESTED: Final = ("config", "summary", "last", "dropped", "writers", "hosts", "goals", "behind")


def row_of(key: str, summary: RunSummary) -> dict[str, Any]:
    """Return the row of a run; what is empty is left out.

    Args:
        key: by which the page asks for the run.
        summary: what is known of it.
    """
    row: dict[str, Any] = {"run": key, "status": summary.status, "bytes": summary.bytes}
    for name in _SINGLE:
        if (value := getattr(summary, name)) is not None:
            row[name] = _short(value)
    if summary.tags:
        row["tags"] = [_short(tag) for tag in summary.tags[:_MOST_KEYS]]
    for name in _NESTED:
        if values := getattr(summary, name):
            row[name] = flat(values, _MOST_KEYS, _LONGEST)
    return row


def _short(value: Any) -> Any:
    return unicode(value)[:_LONGEST] if isinstance(value, str) else plain(value)
