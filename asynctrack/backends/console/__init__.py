"""Console: show a run's records in the process that logs: as lines or bars on its standard output, or in its log.

A thread of the worker chooses records and makes them into text; the process that logs only prints it (see
`caller_display`). In `style="lines"`:

    === berlin52/first | lr=0.0003 | model=mlp
    step=   0/5000 | train/loss=2.3026 | train/accuracy=0.1000
    === finished | best=0.1200

Each scope (`train/`, `val/`) has a line of its own, at most once in `every_s` seconds. Records in between are skipped;
the last one of a run is always shown. After the process that logs has ended nobody reads any more, and the other
records are skipped. A stream that is closed pauses the backend. Characters that would move a cursor or end a line are
shown escaped. A record that is given twice is shown twice.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal, TextIO, get_args

import msgspec

from asynctrack._system.printable import printable
from asynctrack.backends.base import Backend, Batch, Context, Execution, Outcome, Sink, Update, WriterSelection
from asynctrack.backends.caller_display import GONE, Display, Link, Stream, open_display
from asynctrack.backends.console.bars import Bars, can_draw
from asynctrack.backends.console.choice import Chosen, RecordFilter
from asynctrack.backends.console.text import Lines, TROPTLines, pairs, show
from asynctrack.backends.metric_selection import MetricSelection, key_problems
from asynctrack.errors import InvalidSettings
from asynctrack.records.codec import flatten, split_source, to_json

Style = Literal["lines", "print", "bars", "log"]

# Default seconds between two lines of a scope.
_EVERY_S: Final[dict[Style, float]] = {"lines": 0.5, "print": 0.0, "bars": 0.1, "log": 0.5}
# The default where bars cannot be drawn, as in a file that somebody follows.
_PLAIN_BARS_S: Final = 10.0
_LONGEST_S: Final = 86_400.0
# Usual names of the setting that holds the number of steps.
_TOTALS: Final = ("total_steps", "max_steps", "num_steps", "n_steps", "steps", "total_timesteps")


class Console(Backend, frozen=True, kw_only=True, tag="console"):
    """Shows records on a terminal, in a notebook or in a log while the run goes on.

    Attributes:
        style: "lines", one aligned line a record; "print", the output of TROPT's `PrintTracker`; "bars", a progress bar
            per scope, by tqdm (`pip install 'asynctrack[console]'`), or lines where none can be drawn; "log", records
            of the standard library's `logging`.
        keys: names or patterns (`*/loss`) of the metrics to show, None for all. Texts are shown, arrays are not.
        every: show a record when its step differs by this much from that of the last one shown, scope by scope.
        every_s: seconds between two lines of a scope at least; 0 for each record. Default: 0.5 for lines and log
            records, 0.1 for bars (10 where none can be drawn), 0 for "print" and wherever `every` is given.
        total: number of steps in all, for every scope or by scope; or the name of that setting in the config. Default:
            the setting `total_steps`, `max_steps`, `num_steps`, `n_steps`, `steps` or `total_timesteps`.
        stream: "stdout" or "stderr", as it is when the run is opened. Default: "stderr" for bars, else "stdout".
        logger: the name of a logger, for "log".
        level: of its records.
        display: name by which the worker finds the process that logs; set when a run is opened.
    """

    execution: ClassVar[Execution] = "worker"
    batch_records: ClassVar[int] = 10_000

    style: Style = "lines"
    keys: list[str] | None = None
    every: int | None = None
    every_s: float | None = None
    total: int | str | dict[str, int] | None = None
    stream: Literal["stdout", "stderr"] | None = None
    logger: str = "asynctrack.console"
    level: int | str = "INFO"
    display: str = ""
    writers: WriterSelection = "owner"

    @property
    def pace_s(self) -> float:
        """Return the seconds between two lines of a scope."""
        if self.every_s is not None:
            return self.every_s
        return 0.0 if self.every is not None else _EVERY_S[self.style]

    @property
    def batch_age_s(self) -> float:  # type: ignore[override]  # of the class elsewhere
        """Return `pace_s`: more batches would show no more lines."""
        return self.pace_s

    def __post_init__(self) -> None:
        styles = get_args(Style)
        checks = [
            ("style", self.style in styles, f"one of {', '.join(map(repr, styles))}"),
            ("every", self.every is None or (_is_whole(self.every) and self.every > 0), "a number of steps, 1 or more"),
            ("every_s", self.every_s is None or _is_pause(self.every_s), "from 0 to 86,400 seconds (a day)"),
            ("total", _is_total(self.total), "steps, steps by scope, or the name of a setting"),
            ("stream", self.stream in ("stdout", "stderr", None), "'stdout', 'stderr' or None"),
            ("logger", isinstance(self.logger, str), "the name of a logger"),
            ("level", _is_level(self.level), "one of logging's levels"),
        ]
        problems = [
            f"{name} must be {what}; got {getattr(self, name)!r:.80}" for name, good, what in checks if not good
        ]
        if problems := [*key_problems(self.keys), *problems]:
            raise InvalidSettings(problems)
        super().__post_init__()

    def prepare(self) -> Console:
        """Open a display in this process; bars that cannot be drawn become lines."""
        stream: TextIO | None = getattr(sys, self.stream or ("stderr" if self.style == "bars" else "stdout"))
        if self.style == "log":
            return msgspec.structs.replace(self, display=open_display(LogDisplay(self.logger, self.level)))
        if self.style != "bars":
            return msgspec.structs.replace(self, display=open_display(Stream(stream)))
        if can_draw(stream):
            return msgspec.structs.replace(self, display=open_display(Bars(stream)))
        every_s = _PLAIN_BARS_S if self.every_s is None and self.every is None else self.every_s
        return msgspec.structs.replace(self, style="lines", every_s=every_s, display=open_display(Stream(stream)))

    def open(self, context: Context) -> Sink:
        """Open a sink that chooses records and makes their text."""
        writers = {"lines": _LinesWriter, "log": _LinesWriter, "print": _TROPTWriter, "bars": _BarsWriter}
        return _ConsoleSink(self, context, writers[self.style](self, context))


class LogDisplay(Display):
    """Gives lines to a logger of the standard library.

    Args:
        name: of the logger.
        level: of the records.
    """

    def __init__(self, name: str, level: int | str) -> None:
        self._logger = logging.getLogger(name)
        self._level = level if isinstance(level, int) else logging.getLevelNamesMapping()[level]

    def __repr__(self) -> str:
        return f"<LogDisplay {self._logger.name}>"

    def show(self, items: list[Any]) -> None:
        """Log each line."""
        for line in items:
            self._logger.log(self._level, "%s", line)


class _LinesWriter:
    """Makes the items to show. A subclass per style; this one makes our own lines."""

    def __init__(self, settings: Console, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._totals = _totals(settings.total, context.config)
        self._lines = Lines()

    def head(self) -> list[Any]:
        """Return the items that begin a run."""
        name = f"{self._context.project}/{self._context.name}"
        return [_title(name, self._context.config)]

    def changed(self, data: Mapping[str, Any]) -> list[Any]:
        """Return the items for a change of the config."""
        return [_title("config", data)]

    def of(self, chosen: Chosen, values: Mapping[str, Any]) -> Any:
        """Return the item of a record."""
        return self._lines.of(chosen.record.step, self._total(chosen.scope), values)

    def foot(self, outcome: Outcome, summary: Mapping[str, Any]) -> list[Any]:
        """Return the items that end a run."""
        return [_title(outcome, summary)]

    def state(self) -> dict[str, Any]:
        """Return the state from which another writer can go on."""
        return {}

    def _total(self, scope: str) -> int | None:
        return self._totals.get(scope, self._totals.get(""))


class _TROPTWriter(_LinesWriter):
    """Makes lines like TROPT's `PrintTracker`."""

    def __init__(self, settings: Console, context: Context) -> None:
        super().__init__(settings, context)
        self._tropt = TROPTLines((context.state or {}).get("count", 0))

    def head(self) -> list[Any]:
        return [*filter(None, [self._tropt.head(self._context.config)])]

    def changed(self, data: Mapping[str, Any]) -> list[Any]:
        return []

    def of(self, chosen: Chosen, values: Mapping[str, Any]) -> Any:
        names = self._settings.keys or []
        return self._tropt.of({**{name: values[name] for name in names if name in values}, **values}.items())

    def foot(self, outcome: Outcome, summary: Mapping[str, Any]) -> list[Any]:
        return [*filter(None, [self._tropt.foot(summary)])]

    def state(self) -> dict[str, Any]:
        return {"count": self._tropt.count}


class _BarsWriter(_LinesWriter):
    """Makes the items of `Bars`."""

    def head(self) -> list[Any]:
        return []

    def changed(self, data: Mapping[str, Any]) -> list[Any]:
        return []

    def of(self, chosen: Chosen, values: Mapping[str, Any]) -> Any:
        total, done = self._total(chosen.scope), chosen.record.step + 1
        text = ", ".join(f"{printable(split_source(key)[1])}={show(value)}" for key, value in values.items())
        done = done if total is None else min(done, total)
        return [printable(chosen.scope), done, total, text, chosen.first.step, chosen.first.time_ns / 1e9]

    def foot(self, outcome: Outcome, summary: Mapping[str, Any]) -> list[Any]:
        return []


class _ConsoleSink(Sink):
    def __init__(self, settings: Console, context: Context, writer: _LinesWriter) -> None:
        state = context.state or {}
        self._writer = writer
        self._choice = RecordFilter(
            MetricSelection(settings.keys), settings.every, settings.pace_s, blank=settings.style == "print"
        )
        self._link = Link(settings.display)
        self._display_name = settings.display
        self._begun = state.get("begun") == settings.display  # a resumed run has another display
        self._summary: dict[str, Any] = state.get("summary", {})
        self._made: tuple[Batch, list[Any], dict[str, int]] | None = None

    def write(self, batch: Batch) -> Mapping[str, int]:
        if self._made is None or self._made[0] is not batch:  # otherwise the batch could not be shown, and comes again
            self._made = (batch, *self._make(batch))
        _, items, skipped = self._made
        if items and not self._link.show(items):
            return {GONE: len(batch.records)}
        return skipped

    def checkpoint(self) -> dict[str, Any]:
        return {
            "begun": self._display_name if self._begun else None,
            "summary": to_json(self._summary),
            **self._writer.state(),
        }

    def close(self, outcome: Outcome) -> None:
        if outcome != "stopped":
            rest = [self._item(chosen) for chosen in self._choice.rest()]
            self._link.show([*self._head(), *rest, *self._writer.foot(outcome, self._summary)], end=True)
        self._link.close()

    def _make(self, batch: Batch) -> tuple[list[Any], dict[str, int]]:
        chosen, skipped = self._choice.take(batch.records)
        changes = [item for update in batch.updates for item in self._changed(update)]
        return [*self._head(), *changes, *map(self._item, chosen)], skipped

    def _head(self) -> list[Any]:
        head = [] if self._begun else self._writer.head()
        self._begun = True
        return head

    def _changed(self, update: Update) -> list[Any]:
        if update.kind == "config":
            return self._writer.changed(update.data)
        update.change(self._summary)
        return []

    def _item(self, chosen: Chosen) -> Any:
        return self._writer.of(chosen, self._choice.values(chosen.record))


def _title(what: str, data: Mapping[str, Any]) -> str:
    return " | ".join(filter(None, [f"=== {printable(what)}", pairs(data)]))


def _totals(total: int | str | dict[str, int] | None, config: Mapping[str, Any]) -> dict[str, int]:
    """Return the number of steps by scope; "" is for scopes without one of their own."""
    if isinstance(total, dict):
        return total
    if isinstance(total, int):
        return {"": total}
    flat = dict(flatten(config))
    for name in [total] if total is not None else _TOTALS:
        steps = flat.get(name)
        if isinstance(steps, int) and not isinstance(steps, bool) and steps > 0:
            return {"": steps}
    return {}


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_pause(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LONGEST_S


def _is_total(total: object) -> bool:
    if isinstance(total, dict):
        return all(isinstance(scope, str) and _is_total(steps) and _is_whole(steps) for scope, steps in total.items())
    return total is None or isinstance(total, str) or (isinstance(total, int) and _is_whole(total) and total > 0)


def _is_level(level: object) -> bool:
    return _is_whole(level) or level in logging.getLevelNamesMapping()
