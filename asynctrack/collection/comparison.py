"""Comparison: what differs between runs, and what they have logged side by side. Runs anywhere."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from asynctrack._system.suggestions import suggests
from asynctrack.client import run_state
from asynctrack.collection.aligned_curve import AlignedCurve, align
from asynctrack.collection.differences import differing, flat
from asynctrack.collection.metric_stats import MetricStats
from asynctrack.collection.runs import Runs
from asynctrack.collection.subject import RunSubject
from asynctrack.errors import InvalidSettings, NoSuchMetric
from asynctrack.journal.environment_file import Environment
from asynctrack.reading import catalog
from asynctrack.reading.history import History
from asynctrack.reading.reader import RunReader
from asynctrack.records.expressions import Goal
from asynctrack.records.libraries import import_library
from asynctrack.settings import DEFAULT_DIR

if TYPE_CHECKING:
    import pandas

Given = str | os.PathLike[str] | RunReader
Values = dict[str, dict[str, Any]]

# Fields of an environment that are of the file, and no property of the run.
_OF_THE_FILE: Final = ("version", "collected_at", "opened_at")
# Differences that a `repr` shows.
_SHOWN: Final = 10


class Comparison:
    """Shows several runs side by side. What is asked for is read then, once.

    Attributes:
        runs: their readers.
        labels: what each is called here: its name, or its id where names are alike.
    """

    @suggests
    def __init__(self, subjects: Sequence[RunSubject]) -> None:
        self.subjects: list[RunSubject] = list(subjects)
        self.runs: list[RunReader] = [RunReader(subject.path) for subject in subjects]
        self.labels: list[str] = _labels(self.subjects)

    def __repr__(self) -> str:
        lines = [f"<Comparison of {', '.join(self.labels[:_SHOWN])}>"]
        for key, values in [*self.config.items(), *self.environment.items()][:_SHOWN]:
            lines.append(f"{key}: " + ", ".join(f"{label}={value!r:.40}" for label, value in values.items()))
        return "\n".join(lines)

    @cached_property
    def config(self) -> Values:
        """Return what differs in the config, for each key the value of each run that has it. Nested keys are joined by `/`."""
        return self._differing([flat(subject.summary.config) for subject in self.subjects])

    @cached_property
    def summary(self) -> Values:
        """Return what differs in the summary, as `config` does."""
        return self._differing([flat(subject.summary.summary) for subject in self.subjects])

    @cached_property
    def environment(self) -> Values:
        """Return what differs in where the runs come from, as `config` does: `git/commit`, `packages/torch`, `gpus`. Runs of which that is not known are left out."""
        known = [
            (label, found)
            for label, subject in zip(self.labels, self.subjects, strict=True)
            if (found := environment_of(subject.environment))
        ]
        return _values([label for label, _ in known], [found for _, found in known])

    @cached_property
    def metrics(self) -> dict[str, dict[str, MetricStats]]:
        """Return the first, last, least, greatest and mean value of each metric, for each run that has it."""
        names = dict.fromkeys(name for subject in self.subjects for name in subject.metrics)
        pairs = list(zip(self.labels, self.subjects, strict=True))
        return {
            name: {label: subject.metrics[name] for label, subject in pairs if name in subject.metrics}
            for name in names
        }

    @cached_property
    def goals(self) -> dict[str, Goal]:
        """Return for the metrics of which a run says it whether less or more of them is better."""
        found: dict[str, Goal] = {}
        for name in self.metrics:
            goal = next((goal for subject in self.subjects if (goal := subject.goal(name)) is not None), None)
            if goal is not None:
                found[name] = goal
        return found

    @suggests
    def best(self, key: str) -> str | None:
        """Return the label of the run with the best value of a metric; None where nobody has said which way is better, or no run has one.

        Args:
            key: the metric.
        """
        goal, found = self.goals.get(key), self.metrics.get(key, {})
        values = {label: stats.min if goal == "minimize" else stats.max for label, stats in found.items()}
        there = {label: value for label, value in values.items() if value is not None}
        if goal is None or not there:
            return None
        return (min if goal == "minimize" else max)(there, key=there.__getitem__)

    @suggests
    def curve(self, key: str, x: Literal["step", "time"] = "step") -> AlignedCurve:
        """Return the values of a metric, one column a run, on the steps that any run has.

        Args:
            key: the metric.
            x: "step", or "time" for the seconds since the run's first record.

        Raises:
            NoSuchMetric: no run has it. It is a `KeyError`.
            InvalidSettings: `x` is neither.
            LibraryMissing: NumPy is not installed.
        """
        if x not in ("step", "time"):
            raise InvalidSettings([f"x must be 'step' or 'time'; got {x!r:.80}"])
        if key not in self.metrics:
            raise NoSuchMetric(key, self.metrics, "number")
        having = [at for at, subject in enumerate(self.subjects) if key in subject.metrics]
        return align(key, x, {self.labels[at]: self.subjects[at] for at in having})

    @suggests
    def to_pandas(self) -> pandas.DataFrame:
        """Return a data frame with a row for each run: what differs in config and environment, and the last, least and greatest value of each metric.

        Raises:
            LibraryMissing: pandas is not installed.
        """
        library = import_library("pandas", "to_pandas")
        rows: dict[str, dict[str, Any]] = {
            label: {"status": subject.summary.status} for label, subject in zip(self.labels, self.subjects, strict=True)
        }
        for prefix, values in (("config", self.config), ("environment", self.environment)):
            for key, by_label in values.items():
                for label, value in by_label.items():
                    rows[label][f"{prefix}.{key}"] = value
        for key, stats in self.metrics.items():
            for label, found in stats.items():
                rows[label] |= {f"last({key})": found.last, f"min({key})": found.min, f"max({key})": found.max}
        frame: pandas.DataFrame = library.DataFrame.from_dict(rows, orient="index")
        return frame

    def _differing(self, values: Sequence[Any]) -> Values:
        return _values(self.labels, values)


@suggests
def compare(
    runs: Runs | Iterable[Given], dir: str | os.PathLike[str] | None = None, *, history: History = "last"
) -> Comparison:
    """Compare runs: what differs in config and environment, and their metrics side by side.

    Args:
        runs: what `runs()` has found, or readers, paths, ids or names of runs.
        dir: the directory in which ids and names are looked up. Without it, `asynctrack_runs`.
        history: of their metrics, as for `runs`. Runs that `runs()` has found have that which it was asked for.

    Raises:
        InvalidSettings: there is no run.
        NoSuchRun: one of them is not there.
        AmbiguousRun: an id or a name fits several.
    """
    if isinstance(runs, str | os.PathLike):
        raise InvalidSettings([f"compare() takes several runs, in a list; got {os.fspath(runs)!r:.80}"])
    workers = run_state.other_workers()
    subjects = (
        list(runs.subjects())
        if isinstance(runs, Runs)
        else [RunSubject(_path(given, dir), workers, history) for given in runs]
    )
    if not subjects:
        raise InvalidSettings(["compare() needs runs, and was given none"])
    return Comparison(subjects)


def environment_of(environment: Environment) -> dict[str, Any]:
    """Return where a run comes from by flat names; empty where it is not known."""
    said = msgspec.to_builtins(environment)
    found: dict[str, Any] = {}
    for name, value in said.items():
        if name in _OF_THE_FILE or value is None:
            continue
        if name == "gpus":
            counts = Counter(str(gpu.get("name")) for gpu in value)
            found[name] = ", ".join(f"{count} x {kind}" for kind, count in counts.items())
        elif isinstance(value, dict):
            found.update((f"{name}/{key}", item) for key, item in value.items() if item is not None)
        else:
            found[name] = " ".join(map(str, value)) if isinstance(value, list) else value
    return found


def _values(labels: Sequence[str], values: Sequence[Any]) -> Values:
    """Return the values that differ, of each run that has one."""
    return {
        key: {label: found[key] for label, found in zip(labels, values, strict=True) if key in found}
        for key in differing(values)
    }


def _path(given: Given, dir: str | os.PathLike[str] | None) -> Any:
    if isinstance(given, RunReader):
        return given.path
    return catalog.find(given, DEFAULT_DIR if dir is None else dir)


def _labels(subjects: Sequence[RunSubject]) -> list[str]:
    """Return a name for each run that no other has: as short a one as will do."""
    found = [subject.summary for subject in subjects]
    names, ids = Counter(run.name for run in found), Counter(run.id for run in found)
    labels = [
        run.name if names[run.name] == 1 else run.id if ids[run.id] == 1 else f"{run.project}/{run.id}" for run in found
    ]
    times: Counter[str] = Counter()
    for at, label in enumerate(labels):
        times[label] += 1
        if times[label] > 1:  # a run that was given twice, or a copy of it
            labels[at] = f"{label} ({times[label]})"
    return labels
