"""W&B's sink: number the rows, track which of them W&B has, and send the others. Runs in a process of its own.

Each row has its number before anything is sent. A row handed to `run.log` is only in `wandb-core`'s memory. So rows are
kept until W&B has counted them, and only then is the cursor saved. When `wandb-core` or this process dies, the run is
opened again, W&B reports how many rows it has, and these are not logged again.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec

from asynctrack._system import descendants, permissions
from asynctrack.backends.base import ActionRequired, Batch, Context, Outcome, Rejected, Resend, Retry, Sink
from asynctrack.backends.single_thread import SingleThread
from asynctrack.backends.wandb import core as core
from asynctrack.backends.wandb.aggregates import Aggregates, kinds_of
from asynctrack.backends.wandb.rows import Rows, as_config, changes_in, in_order, is_too_large, merged, metrics_in
from asynctrack.backends.wandb.session import Session
from asynctrack.journal.manifest import replace_file

if TYPE_CHECKING:
    from asynctrack.backends.wandb.settings import WandBSettings

_log = logging.getLogger("asynctrack.delivery")

# Rows that W&B has not confirmed, at most: this process keeps them. Arbitrary: seconds of the SDK's work.
_MOST_UNCONFIRMED: Final = 20_000
# Seconds that one call waits for W&B to have all rows; the next call goes on waiting.
_PATIENCE_S: Final = 20.0
# Pauses between two questions for W&B's number of rows, each longer than the one before. The SDK sends rows once a second.
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 2.0
# If W&B answers, but has got no rows for so long, `wandb-core` has given up. Arbitrary: longer than its pauses between tries.
_STUCK_S: Final = 90.0

_NOTHING: Final = "nothing that W&B can hold"
_TOO_LARGE: Final = "a row of more than 10 MB, which W&B leaves out"


class WandBSink(Sink):
    """Sends one run to W&B.

    Args:
        settings: of the backend.
        context: of the run.
    """

    def __init__(self, settings: WandBSettings, context: Context) -> None:
        state = context.state or {}
        self._settings = settings
        self._context = context
        self._id = settings.id or context.run_id
        self._rows = Rows()
        self._config = as_config(context.config)
        # The summary's values that no later row has replaced: at W&B both rows and updates set the summary.
        self._summary: dict[str, Any] = dict(state.get("summary", {}))
        self._aggregates = Aggregates(settings.aggregates(), state.get("aggregates"))
        # Names, tags and notes that were changed during the run; and those that W&B does not have yet.
        self._labels: dict[str, Any] = dict(state.get("labels", {}))
        self._labels_to_send: dict[str, Any] = {}
        self._metrics: dict[str, Any] = {}
        self._fresh: dict[str, Any] = {}
        self._define(state.get("metrics") or metrics_in(context.config))
        # Rows are counted from the run's first; W&B may have had others under this id before.
        self._before: int | None = state.get("before")
        self._confirmed: int = state.get("rows", 0)
        self._unconfirmed: deque[dict[str, Any]] = deque()
        self._there = 0  # at W&B when the session was opened
        self._logged = 0
        self._moved_at = 0.0
        self._session: Session | None = None
        self._thread = SingleThread(f"asynctrack-wandb-{self._id}")
        core.library()
        descendants.kill_orphans()

    def __repr__(self) -> str:
        return f"<WandBSink of {self._id}, {self._confirmed} rows confirmed of {self._given}>"

    def begin(self) -> None:
        """Open the run at W&B, so that a wrong key, for example, is reported before there are records.

        Raises:
            Retry, ActionRequired: it cannot be opened now.
        """
        self._thread.call(self._ready)

    def write(self, batch: Batch) -> dict[str, int]:
        """Hand over the rows of a batch."""
        return self._thread.call(self._write, batch)

    def checkpoint(self) -> dict[str, Any]:
        """Wait until W&B has all rows, and return their number."""
        return self._thread.call(self._checkpoint)

    def close(self, outcome: Outcome) -> None:
        """End the run at W&B, or leave it."""
        self._thread.call(self._close, outcome)

    @property
    def _given(self) -> int:
        return self._confirmed + len(self._unconfirmed)

    def _write(self, batch: Batch) -> dict[str, int]:
        if len(self._unconfirmed) > _MOST_UNCONFIRMED:
            self._confirm()
        rows = [self._rows.of(record) for record in batch.records]
        if large := [index for index, row in enumerate(rows) if row is not None and is_too_large(row)]:
            raise Rejected(_TOO_LARGE, large)
        session, known = self._ready(), self._given
        summary = self._take(rows, batch)
        try:
            session.define(self._undefined())
            self._log(session, known)
            session.configure(merged(batch, "config"))
            session.label(self._labels_to_send)
            self._labels_to_send = {}
            session.summarise({**summary, **self._aggregates.fresh()})
        except Exception as error:  # the rows are kept here; the next session gets them
            _log.info("the session of %s is lost: %s", self._id, core.classify_error(error))
            self._lose()
        skipped = rows.count(None)
        return {_NOTHING: skipped} if skipped else {}

    def _checkpoint(self) -> dict[str, Any]:
        if self._unconfirmed:
            self._confirm()
        aggregates = self._aggregates.state
        return {
            "rows": self._confirmed,
            "before": self._before,
            "summary": self._summary,
            "aggregates": aggregates,
            "metrics": self._metrics,
            "labels": self._labels,
        }

    def _close(self, outcome: Outcome) -> None:
        if outcome == "stopped":
            self._lose()
            return
        session = self._ready()
        self._session = None
        session.finish(outcome)

    def _take(self, rows: list[dict[str, Any] | None], batch: Batch) -> dict[str, Any]:
        """Remember the rows and updates of a batch.

        Returns:
            The summary's values that the batch sets and none of its later rows replaces.
        """
        told: dict[str, Any] = {}
        for item in in_order(rows, batch):
            if isinstance(item, dict):
                self._unconfirmed.append(item)
                self._aggregates.add(item)
                for key in self._summary.keys() & item.keys():
                    del self._summary[key]
            elif item.kind == "config":
                self._config.update(changes_in(item))
                self._define(metrics_in(item.data))
            elif item.kind == "labels":
                own = {"name": self._settings.name, "tags": self._settings.tags, "notes": self._settings.notes}
                fresh = {label: value for label, value in item.data.items() if not own.get(label)}
                self._labels.update(fresh)
                self._labels_to_send.update(fresh)
            elif item.kind == "summary":
                fresh = changes_in(item)
                self._summary.update(fresh)
                told.update(fresh)
        return {key: value for key, value in told.items() if key in self._summary}

    def _define(self, metrics: Mapping[str, Mapping[str, Any]]) -> None:
        """Take a script's arguments of `define_metric`; the backend's own settings come first."""
        for name, facts in metrics.items():
            if name not in self._settings.metrics and self._metrics.get(name) != facts:
                self._metrics[name] = self._fresh[name] = dict(facts)
                self._aggregates.want(name, kinds_of(facts.get("summary")))

    def _undefined(self) -> dict[str, Any]:
        """Return the metrics that the session has not been told of."""
        fresh, self._fresh = self._fresh, {}
        return fresh

    def _ready(self) -> Session:
        """Return the open session. Where it has died, open another, and give it the rows that W&B does not have."""
        if self._session is not None and not self._session.lives:
            self._lose()
        if self._session is None:
            self._session = self._open()
        return self._session

    def _lose(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.leave()

    def _open(self) -> Session:
        session = Session(self._settings, self._id, self._context.directory, self._facts())
        try:
            self._resume(session)
            self._log(session, self._confirmed)
            session.summarise({**self._summary, **self._aggregates.all()})
            session.label(self._labels)
        except Exception as error:
            session.leave()
            raise core.classify_error(error) from error
        self._moved_at = time.monotonic()
        return session

    def _facts(self) -> dict[str, Any]:
        """Return the arguments of `wandb.init`.

        Online, name, tags and notes come only the first time: a person may have changed them at W&B since.
        """
        settings, context, labels = self._settings, self._context, self._context.labels
        facts: dict[str, Any] = {
            "project": settings.project or context.project,
            "entity": settings.entity or labels.get("entity"),
            "group": settings.group or labels.get("group"),
            "job_type": settings.job_type or labels.get("job_type"),
            "config": self._config,
            "resume": "allow",
        }
        if self._before is None:
            self._before = load_before(self._note())
        if self._before is None or settings.mode == "offline":
            tags, notes = settings.tags or labels.get("tags", ()), settings.notes or labels.get("notes")
            facts |= {"name": settings.name or context.name, "tags": list(tags) or None, "notes": notes}
        if self._before is None and settings.resume == "must":
            facts["resume"] = "must"
        return facts

    def _resume(self, session: Session) -> None:
        """Find the row at which to go on.

        Raises:
            ActionRequired: W&B has another run with this id, and `resume` is "never".
            Resend: W&B has fewer rows than it had.
        """
        if self._before is None:
            if session.rows and self._settings.resume == "never":
                raise ActionRequired(f"W&B has a run {self._id!r} of {session.rows} rows; give another with id=")
            save_before(self._note(), session.rows)
            self._before = session.rows
        there = session.rows - self._before
        if there < self._confirmed:
            lost = f"W&B has {there} of the {self._confirmed} rows that it had"
            raise Resend(lost, {"before": min(self._before, session.rows)})
        self._there = self._logged = there
        session.define({**self._metrics, **self._settings.metrics})
        self._fresh.clear()

    def _note(self) -> Path:
        """Return the path of the note that says how many rows W&B had before ours.

        It is written before the first row is sent.
        """
        settings, context = self._settings, self._context
        name = "/".join((settings.entity or "", settings.project or context.project, self._id))
        return context.directory / "wandb" / f"{quote(name, safe='')}.json"

    def _log(self, session: Session, since: int) -> None:
        """Hand over the rows that neither W&B nor this session has.

        W&B's summary may lack values from rows that it has. So the values of those from `since` on are sent to the
        summary again.
        """
        missed: dict[str, Any] = {}
        for row in islice(self._unconfirmed, since - self._confirmed, max(0, self._there - self._confirmed)):
            missed.update({key: value for key, value in row.items() if isinstance(value, bool | int | float | str)})
        if missed:
            missed.pop("_timestamp", None)
            session.summarise(missed)
        for row in islice(self._unconfirmed, max(0, self._logged - self._confirmed), None):
            session.log(row)
            self._logged += 1

    def _confirm(self) -> None:
        """Wait until W&B has all rows.

        Raises:
            Retry, ActionRequired: it does not have them yet, or does not answer.
        """
        deadline, pause_s = time.monotonic() + _PATIENCE_S, _FIRST_PAUSE_S
        while (there := self._ask()) < self._given:
            if time.monotonic() - self._moved_at > _STUCK_S:
                core.kill()
            if time.monotonic() > deadline:
                raise Retry(f"W&B has {there} of {self._given} rows so far")
            time.sleep(pause_s)
            pause_s = min(1.5 * pause_s, _LONGEST_PAUSE_S)
        if self._session is not None:
            self._session.sync()

    def _ask(self) -> int:
        """Ask W&B for the number of its rows, and forget the rows that it has."""
        session = self._ready()
        try:
            there = session.count() - (self._before or 0)
        except Exception:
            self._moved_at = time.monotonic()  # without an answer, W&B does not count as stuck
            raise
        for _ in range(min(there, self._given) - self._confirmed):
            self._unconfirmed.popleft()
            self._confirmed += 1
            self._moved_at = time.monotonic()
        return there


def load_before(path: Path) -> int | None:
    """Read the number that `save_before` has written; None where there is none."""
    try:
        return int(msgspec.json.decode(path.read_bytes())["rows_before"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save_before(path: Path, rows: int) -> None:
    """Write down how many rows W&B had before ours."""
    permissions.make_directories(path.parent)
    replace_file(path, msgspec.json.encode({"rows_before": rows}))
