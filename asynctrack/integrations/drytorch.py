"""DRYTorch: record its events in a run, and run any of its own trackers on a thread. Runs in the caller.

    experiment.trackers.subscribe(AsyncTracker(backends=["jsonl", "tensorboard"]))
    experiment.trackers.subscribe(AsyncTracker(CSVDumper()))

DRYTorch removes a tracker for good when `notify` raises. So `notify` raises only at the start of an experiment, when a
setting is wrong.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Unpack

from asynctrack._system import messages
from asynctrack._system.wording import counted
from asynctrack.backends.base import Backend
from asynctrack.client.disabled_run import DisabledRun
from asynctrack.client.init_arguments import check_settings
from asynctrack.client.run import Run
from asynctrack.client.run_arguments import RunOptions
from asynctrack.errors import AsynctrackError, FrameworkMissing, InvalidSettings
from asynctrack.integrations.background_caller import BackgroundCaller
from asynctrack.integrations.drytorch_run import ExperimentRun, History, load

try:
    from drytorch.core import exceptions, log_events
    from drytorch.core.tracking import Tracker
    from drytorch.trackers.base_classes import MetricLoader
except ImportError as _error:
    raise FrameworkMissing("DRYTorch", "drytorch==0.1.0rc11", _error) from _error

_FINISH_TIMEOUT_S: Final = 30.0
# Seconds in which a tracker must take all events before its first batch: bars and consoles take microseconds. Arbitrary.
_CATCH_UP_S: Final = 1.0


class _Settings(RunOptions, total=False):
    dir: str | os.PathLike[str] | None


class AsyncTracker(MetricLoader):  # type: ignore[misc]  # DRYTorch is not there when types are checked
    """Tracks a DRYTorch experiment; the training does not wait for it.

    With backends, or without arguments, each experiment is a run in the project of its name below
    `par_dir/asynctrack_runs`. Events that were notified survive SIGKILL.

    With a DRYTorch tracker, that tracker gets the events on a thread of this process, in order. An event for which it
    raises is tried again and then reported; the tracker is not removed. Events that it has not taken are lost with the
    process, unless `backends` are given beside it.

    DRYTorch names a tracker after its class: "AsyncTracker", "AsyncCSVDumper", ... Trackers that draw (bars, consoles,
    plots) should be subscribed themselves or be given `synchronous=True`: most of them need the main thread.

    Args:
        tracker: one of DRYTorch's, or your own.
        backends: of the run. Default: `[JSONLines()]`; with a tracker no run.
        project: of the runs. Default: the experiment's name.
        synchronous: whether the tracker gets each event at once; its exceptions then come out of `notify`.
        settings: the other arguments of `asynctrack.init`; id, name, config and resume are the experiment's.

    Attributes:
        tracker: as given.
        path: of the run that was opened last; None before, and where runs are disabled.
        lost: number of events that the tracker has not taken.

    Raises:
        InvalidSettings: a setting is out of range, or needs a tracker or a run that is not there.
    """

    def __new__(cls, tracker: Tracker | None = None, **_: Any) -> AsyncTracker:
        made: AsyncTracker = super().__new__(cls if tracker is None else _class_for(cls, type(tracker)))
        return made

    def __init__(
        self,
        tracker: Tracker | None = None,
        *,
        backends: Iterable[Backend | str] | None = None,
        project: str | None = None,
        synchronous: bool = False,
        **settings: Unpack[_Settings],
    ) -> None:
        super().__init__()
        backends = backends if backends is None or isinstance(backends, str | Backend) else list(backends)
        _check(tracker, synchronous, backends is not None, {**settings, **({"project": project} if project else {})})
        check_settings(project or "drytorch", {**settings, "backends": backends})
        self.tracker = tracker
        self.path: Path | None = None
        self.lost: int = 0
        self._records = tracker is None or backends is not None
        self._settings = {**settings, "backends": backends}
        self._project = project
        self._synchronous = synchronous
        self._timeout_s = float(settings.get("finish_timeout_s", _FINISH_TIMEOUT_S))
        self._recorded: ExperimentRun | None = None
        self._background_caller: BackgroundCaller | None = None
        self._started = False
        self._around: BaseException | None = None
        self._pid = os.getpid()
        # Of its messages: its `id` may have been that of another, of which the same was said just now.
        self._identity = object()

    def __repr__(self) -> str:
        of = "" if self.tracker is None else f" of {self.tracker!r}, {self.lost} lost"
        return f"<{type(self).__name__}{of}, {self.run!r}>"

    @property
    def run(self) -> Run | None:
        """Return the open run, None where there is none."""
        return None if self._recorded is None else self._recorded.run

    def notify(self, event: log_events.Event) -> None:
        """Take an event. DRYTorch calls it for each, in the training loop.

        Args:
            event: of DRYTorch.

        Raises:
            AsynctrackError: the run cannot be opened.
            Exception: from the tracker, when an experiment starts or with `synchronous=True`.
        """
        if isinstance(event, log_events.StartExperimentEvent):
            self._start(event)
        elif os.getpid() != self._pid:  # in a forked child, whose parent owns the experiment
            return
        elif isinstance(event, log_events.StopExperimentEvent):
            self._stop(event)
        else:
            self._record(event)
            if self._started and self.tracker is not None:
                self._pass_on(event, self.tracker)

    def flush(self, timeout_s: float = _FINISH_TIMEOUT_S) -> bool:
        """Wait until the tracker has every event and the backends every record.

        Args:
            timeout_s: seconds that each of the two may take.

        Returns:
            Whether they have.
        """
        taken = self._background_caller is None or self._background_caller.wait(timeout_s)
        stats = self.run.flush("delivered", timeout_s).backends.values() if self.run is not None else ()
        return taken and not any(backend.behind for backend in stats)

    def clean_up(self) -> None:
        """End the run and the tracker.

        DRYTorch calls it when an experiment stops or the tracker is removed; a second call does nothing.
        """
        if os.getpid() != self._pid:
            return
        begun, self._started = self._started, False
        if self._let_go() and begun and self.tracker is not None:
            self.tracker.clean_up()
        self._finish(None)

    @classmethod
    def _set_current(cls, tracker: Any) -> None:
        """Set the answer of `get_current()` for this class and its bases up to `AsyncTracker`.

        The wrapped tracker does so for its own class.
        """
        for kind in cls.__mro__[: cls.__mro__.index(AsyncTracker) + 1]:
            kind._current = tracker  # type: ignore[attr-defined]  # of DRYTorch's Tracker

    @classmethod
    def _reset_current(cls) -> None:
        cls._set_current(None)

    def _start(self, event: log_events.StartExperimentEvent) -> None:
        self.clean_up()  # ends an experiment that never stopped
        self._pid = os.getpid()
        self._around = sys.exception()
        if self._records:
            self._recorded = ExperimentRun(event, self._project, self._settings)
            run = self._recorded.run
            self.path = None if isinstance(run, DisabledRun) else run.path
        if self.tracker is not None:
            self._started = True
            self.tracker.notify(event)
            if not self._synchronous:
                self._background_caller = BackgroundCaller(self.tracker.notify, type(self.tracker).__name__, self._lose)
        super().notify(event)

    def _stop(self, event: log_events.StopExperimentEvent) -> None:
        error = sys.exception()  # in the `__exit__` of a `with` block: the exception that ended it
        begun, self._started = self._started, False
        try:
            if self._let_go(event) and begun and self.tracker is not None:
                self._give(event, self.tracker)
        finally:
            self._finish(None if error is self._around else error)
            super().notify(event)

    def _let_go(self, last: log_events.StopExperimentEvent | None = None) -> bool:
        """Wait for the thread. Where it is late, it goes on, up to the event `last`.

        Returns:
            Whether the thread has done everything.
        """
        background_caller, self._background_caller = self._background_caller, None
        if background_caller is None or background_caller.end(self._timeout_s, last):
            return True
        self._warn(
            "late", f"{type(self.tracker).__name__} has not yet taken {counted(background_caller.waiting, 'event')}"
        )
        return False

    def _finish(self, error: BaseException | None) -> None:
        run, self._recorded = self.run, None
        if run is not None:
            run.__exit__(type(error) if error is not None else None, error, None)

    def _record(self, event: log_events.Event) -> None:
        if self._recorded is not None:
            try:
                self._recorded.record(event)
            except (
                AsynctrackError
            ) as error:  # such as no room in the queue; raising would make DRYTorch remove this tracker
                self._warn(type(event).__name__, f"{type(event).__name__} is not recorded: {error}")

    def _pass_on(self, event: log_events.Event, tracker: Tracker) -> None:
        if isinstance(event, log_events.IterateBatchEvent) and _takes_batches(type(tracker)):
            self._iterate(event, tracker)
        elif self._background_caller is not None:
            self._background_caller.put(event)
        else:
            self._give(event, tracker)

    def _iterate(self, event: log_events.IterateBatchEvent, tracker: Tracker) -> None:
        """Give the event to the tracker before the first batch.

        The tracker leaves functions in the event that are called for each batch.
        """
        if self._background_caller is not None and not self._background_caller.wait(_CATCH_UP_S):
            self._lose(event, f"it has not taken the earlier events in {_CATCH_UP_S:g} s")
            return
        before = len(event.push_updates)
        self._give(event, tracker)
        event.push_updates[before:] = [self._guarded(update) for update in event.push_updates[before:]]

    def _give(self, event: log_events.Event, tracker: Tracker) -> None:
        try:
            tracker.notify(event)
        except Exception as error:
            if self._synchronous:
                raise
            self._lose(event, error)

    def _guarded(self, update: Callable[..., None]) -> Callable[..., None]:
        def guarded(*args: Any, **kwargs: Any) -> None:
            try:
                update(*args, **kwargs)
            except Exception as error:  # DRYTorch does not catch it, so it would end the training
                self._lose("a batch", error)

        return guarded

    def _lose(self, what: object, why: object) -> None:
        self.lost += 1
        name = what if isinstance(what, str) else type(what).__name__
        self._warn(name, f"{type(self.tracker).__name__} did not take {name} ({self.lost} lost so far): {why!r}")

    def _warn(self, about: str, text: str) -> None:
        messages.start()
        messages.warn((self._identity, about), f"asynctrack: {text}")

    def _load_metrics(self, model_name: str, max_epoch: int = -1) -> dict[str, History]:
        """Load metrics from the run, which has every event; without a run from the tracker.

        Raises:
            AccessOutsideScopeError: there is neither.
        """
        if self.path is not None:
            if self.run is not None:
                self.run.flush("journaled", self._timeout_s)
            return load(self.path, model_name, max_epoch)
        if self.run is not None:  # a disabled run
            return {}
        if not isinstance(self.tracker, MetricLoader):
            raise exceptions.AccessOutsideScopeError()
        if self._background_caller is not None:
            self._background_caller.wait(self._timeout_s)
        found: dict[str, History] = self.tracker.load_metrics(model_name, max_epoch)
        return found


def _check(tracker: object, synchronous: object, records: bool, settings: Mapping[str, Any]) -> None:
    problems = []
    if tracker is not None and not isinstance(tracker, Tracker):
        problems.append(
            f"tracker must be one of DRYTorch's, and backends must be given as backends=[...]; got {tracker!r:.80}"
        )
    if synchronous not in (True, False) or (synchronous and tracker is None):
        problems.append(
            f"synchronous must be True or False, and needs a tracker; got {synchronous!r:.80} and {tracker!r:.80}"
        )
    alone = tracker is not None and not records
    if alone and (idle := [name for name in settings if name != "finish_timeout_s"]):
        problems.append(f"{', '.join(idle)}: these need a run; with a tracker, backends=[...] opens one")
    if problems:
        raise InvalidSettings(problems)


def _class_for(base: type[AsyncTracker], kind: type[Tracker]) -> type[AsyncTracker]:
    """Return a subclass for this class of trackers.

    DRYTorch registers trackers by the names of their classes, and finds the current one by its class.
    """
    if (base, kind) not in _classes:
        own = {"__module__": __name__, "__doc__": base.__doc__}
        _classes[base, kind] = type(f"Async{kind.__name__}", (base,), own)
    return _classes[base, kind]


def _takes_batches(kind: type[Tracker]) -> bool:
    """Return whether trackers of this class handle the beginning of batches themselves."""
    notifies = [vars(base).get("notify") for base in kind.__mro__]
    own = [notify for notify in notifies if isinstance(notify, functools.singledispatchmethod)]
    return any(log_events.IterateBatchEvent in notify.dispatcher.registry for notify in own)


_classes: dict[tuple[type, type], type[AsyncTracker]] = {}
