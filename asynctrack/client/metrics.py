"""Metrics: the definitions that `define_metric` makes, and the summaries that follow from them. Runs in the caller."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final

from asynctrack.errors import InvalidSettings
from asynctrack.journal.manifest import METRICS

SUMMARIES: Final = ("last", "first", "min", "max", "mean", "none")
GOALS: Final = ("minimize", "maximize")


def define(config: MutableMapping[str, Any], name: str, told: Mapping[str, Any], *, overwrite: bool) -> None:
    """Record the definition of a metric in a run's config.

    Args:
        config: The run's config.
        name: The name of the metric, or a pattern that ends with `*`.
        told: The arguments of `define_metric`; None stands for one that was not given.
        overwrite: True to drop the definition that the metric had before.

    Raises:
        InvalidSettings: The summary or the goal has an unknown value.
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
    """List the kinds of summary that the argument `summary` of `define_metric` names."""
    return [] if summary is None else [kind.strip().lower() for kind in str(summary).split(",")]


def summary_of(metrics: Mapping[str, Any], name: str) -> list[str]:
    """List the kinds of summary that were defined for a metric, by its name or by the longest pattern that fits it; empty if there are none."""
    patterns = sorted((key for key in metrics if key.endswith("*") and name.startswith(key[:-1])), key=len)
    for key in (name, *reversed(patterns)):
        if "summary" in metrics.get(key, {}):
            return kinds_of(metrics[key]["summary"])
    return []


def summarise(kinds: list[str], find: Callable[[str], Any], name: str) -> Any:
    """Make the summary of a metric.

    Args:
        kinds: The kinds of summary, as `summary_of` lists them.
        find: Returns the value of a kind.
        name: The name of the metric.

    Returns:
        The value of the kind; if there are several, a dict of values by kind.

    Raises:
        KeyError: The metric has no summary.
    """
    if "none" in kinds:
        raise KeyError(name)
    if len(kinds) < 2:
        return find(kinds[0] if kinds else "last")
    return {kind: find(kind) for kind in kinds}
