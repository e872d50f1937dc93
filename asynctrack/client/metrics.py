"""Metrics: what a run has been told of its metrics, and what its summary has of them for that. Runs in the caller."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final

from asynctrack.errors import InvalidSettings
from asynctrack.journal.manifest import METRICS

SUMMARIES: Final = ("last", "first", "min", "max", "mean", "none")
GOALS: Final = ("minimize", "maximize")


def define(config: MutableMapping[str, Any], name: str, told: Mapping[str, Any], *, overwrite: bool) -> None:
    """Note in a run's config what is said of a metric.

    Raises:
        InvalidSettings: the summary or the goal is none that there is.
    """
    if wrong := set(kinds_of(told.get("summary"))) - {*SUMMARIES}:
        expected = ", ".join(map(repr, SUMMARIES))
        raise InvalidSettings(
            [f"summary must be one of {expected}, or several with commas between; got {wrong.pop()!r:.80}"]
        )
    if told.get("goal") not in (None, *GOALS):
        raise InvalidSettings([f"goal must be one of {', '.join(map(repr, GOALS))}; got {told['goal']!r:.80}"])
    metrics = dict(config.get(METRICS) or {})
    before = {} if overwrite else metrics.get(name, {})
    config[METRICS] = {**metrics, name: {**before, **{key: value for key, value in told.items() if value is not None}}}


def kinds_of(summary: Any) -> list[str]:
    """The kinds that `summary` of `define_metric` names."""
    return [] if summary is None else [kind.strip().lower() for kind in str(summary).split(",")]


def summary_of(metrics: Mapping[str, Any], name: str) -> list[str]:
    """What a run's summary is to have of a metric: kinds as `define_metric` takes them; none were named where it is empty."""
    patterns = sorted((key for key in metrics if key.endswith("*") and name.startswith(key[:-1])), key=len)
    for key in (name, *reversed(patterns)):
        if "summary" in metrics.get(key, {}):
            return kinds_of(metrics[key]["summary"])
    return []


def summarise(kinds: list[str], find: Callable[[str], Any], name: str) -> Any:
    """The summary of a metric: one value, or by their names where several kinds are asked for.

    Args:
        kinds: of `summary_of`.
        find: called with a kind; returns its value.
        name: of the metric.

    Raises:
        KeyError: there is none.
    """
    if "none" in kinds:
        raise KeyError(name)
    if len(kinds) < 2:
        return find(kinds[0] if kinds else "last")
    return {kind: find(kind) for kind in kinds}
