"""Run labels: what names a run, where it comes from, and which way its metrics are better, as far as that is what it should be. Runs anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asynctrack.journal import environment_file
from asynctrack.journal.manifest import METRICS, Manifest
from asynctrack.records.expressions import Goal


def labels_of(manifest: Manifest) -> dict[str, Any]:
    """Return the labels that are what they should be: a run may come from anywhere."""
    labels = manifest.labels
    found: dict[str, Any] = {
        name: labels[name] for name in ("entity", "group", "job_type", "notes") if isinstance(labels.get(name), str)
    }
    tags = labels.get("tags")
    return {**found, "tags": [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []}


def origin_of(run: Path, manifest: Manifest) -> dict[str, str | None]:
    """Return where the run comes from, in short."""
    known = environment_file.load(run) or environment_file.Environment()
    host = manifest.environment.get("host")
    return {
        "host": known.host or (host if isinstance(host, str) else None),
        "user": known.user,
        "commit": known.git.commit if known.git is not None else None,
    }


def goals_of(manifest: Manifest) -> dict[str, Goal]:
    """Return which way of a metric is better, as far as that was said."""
    metrics = manifest.config.get(METRICS)
    told = metrics.items() if isinstance(metrics, dict) else ()
    return {
        name: facts["goal"]
        for name, facts in told
        if isinstance(facts, dict) and facts.get("goal") in ("minimize", "maximize")
    }
