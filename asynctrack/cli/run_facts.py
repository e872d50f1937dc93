"""Run facts: what `show` says of a run before its numbers: its names, times and processes."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from asynctrack._system.locks import in_words
from asynctrack.cli import output
from asynctrack.cli.hosts import describe_hosts
from asynctrack.cli.output import STATE_STYLES, Output, Styled, TableColumn
from asynctrack.client.run_state import RunActivity, State
from asynctrack.collection.run_summary import seconds_between
from asynctrack.journal.manifest import Manifest
from asynctrack.reading.catalog import name_of
from asynctrack.records.codec import flatten

# How many children that have failed are shown; `--json` has the others.
_MOST_CHILDREN: Final = 5
# Labels beside the tags, in the order in which they are shown, and how each is called.
_LABELS: Final = {"group": "group", "job_type": "job type", "entity": "entity"}
# Lines of notes that are shown; `--json` has the others. Arbitrary.
_MOST_LINES: Final = 10


def show_facts(
    out: Output, run: Path, manifest: Manifest, state: State, activity: RunActivity, writers: str | None
) -> None:
    """Print what a run is: one line with its id, name and status, and a table of facts."""
    name = [] if manifest.name == manifest.id else ["  ", manifest.name]
    out.line(Styled(name_of(run), "bold"), *name, "  ", Styled(state, STATE_STYLES.get(state, "bold")))
    out.line()
    environment = manifest.environment
    command = environment.get("command")
    command = shlex.join(map(str, command)) if isinstance(command, list) else ""
    facts = [
        ("error", manifest.error),
        *(
            ("child", f"process {child.get('pid')}: {child.get('error')}")
            for child in manifest.failed_children[:_MOST_CHILDREN]
        ),
        ("tags", _tags(manifest.labels)),
        *((told, manifest.labels.get(label)) for label, told in _LABELS.items()),
        *_notes(manifest.labels),
        ("hosts", describe_hosts(manifest.hosts)),
        ("writers", writers),
        ("started", _started(manifest)),
        ("command", command),
        (
            "on",
            f"{environment.get('host', '-')}, Python {environment.get('python', '-')}, {_who(activity, environment, ended=manifest.status != 'running')}",
        ),
        ("checkpoint", manifest.checkpoint and pairs(manifest.checkpoint)),
        ("path", os.path.relpath(run)),
    ]
    out.table(
        [TableColumn(), TableColumn(cut=True)],
        [[Styled(name, "dim"), str(fact)] for name, fact in facts if fact],
        indent=2,
        titles=False,
    )
    if state == "lost":
        out.line()
        out.line(
            Styled("its process and its worker have died; ", STATE_STYLES["lost"]),
            f"`asynctrack sync {shlex.quote(os.path.relpath(run))}` recovers what they left",
        )


def labels_as_json(labels: dict[str, Any]) -> dict[str, Any]:
    """Return a run's labels for `--json`, each that there may be."""
    return {"tags": labels.get("tags", []), **{label: labels.get(label) for label in (*_LABELS, "notes")}}


def pairs(data: dict[str, Any]) -> str:
    """Return values with their names, in one line."""
    return "  ".join(f"{key}={output.brief(value)}" for key, value in flatten(data))


def _tags(labels: dict[str, Any]) -> str:
    tags = labels.get("tags")
    return ", ".join(map(str, tags)) if isinstance(tags, Sequence) and not isinstance(tags, str) else str(tags or "")


def _notes(labels: dict[str, Any]) -> list[tuple[str, str]]:
    """Return a row for each line of the notes."""
    lines = [line for line in str(labels.get("notes") or "").splitlines() if line.strip()]
    shown = lines[:_MOST_LINES] + (
        [f"and {len(lines) - _MOST_LINES} more lines: --json shows them"] if len(lines) > _MOST_LINES else []
    )
    return [("notes" if at == 0 else " ", line) for at, line in enumerate(shown)]


def _started(manifest: Manifest) -> str:
    ago_s = seconds_between(manifest.created_at, datetime.now(UTC).isoformat())
    if ago_s is None:
        return manifest.created_at
    try:
        at = datetime.fromisoformat(manifest.created_at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError):  # so far from our time that no time zone has it
        return manifest.created_at
    took_s = seconds_between(manifest.created_at, manifest.ended_at) if manifest.ended_at else None
    took = (
        "" if took_s is None or took_s < 0 else f", ended after {output.duration(took_s)}"
    )  # clocks differ, and are set
    return f"{at}, {output.duration(round(ago_s))} ago{took}" if ago_s > -1 else f"{at}, by a clock that is ahead{took}"


def _who(activity: RunActivity, environment: dict[str, Any], *, ended: bool) -> str:
    if not activity.callers:
        return f"process {environment.get('pid', '-')}, which has ended"
    processes = "process" if len(activity.callers) == 1 else "processes"
    have = "has" if len(activity.callers) == 1 else "have"
    doing = f"idle: the run has ended without {'it' if have == 'has' else 'them'}" if ended else f"which {have} it open"
    return f"{processes} {in_words(activity.callers)}, {doing}"
