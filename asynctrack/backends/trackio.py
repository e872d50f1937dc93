"""Trackio: write a run to Trackio's local SQLite, or send it to a Trackio server.

The local SQLite is written by Trackio's library, in a process of its own. The server gets HTTP requests from the
worker's loop.

Every record is one row with the log id `run:ring:number`. Trackio ignores a row whose log id it has already, so a
repeat is harmless. Nested names are joined by `/`. Names that Trackio keeps for itself get `__` in front, as its own
`log` does. A bool is 0 or 1: otherwise its curves would not show it. NaN and the infinities are kept as Trackio keeps
them. Texts, None and lists are kept in the row. Values that no row can hold (arrays, images and other media, integers
beyond a float) are left out, and a record without any other value is skipped. The server stamps rows with its own
clock.

The config is replaced as a whole with the rows that it travels with; changes of the summary are in it, as
`summary/KEY`. A run without a record is not in Trackio at all, since Trackio has no other place for one.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

import msgspec

from asynctrack.backends.base import (
    ActionRequired,
    Backend,
    Batch,
    Context,
    Execution,
    Outcome,
    Rejected,
    Sink,
    Update,
    WriterSelection,
)
from asynctrack.backends.endpoint import (
    Credentials,
    read_secret,
    secret_problems,
    set_variables,
    timeout_problems,
    url_problems,
    variables,
)
from asynctrack.backends.http import REQUEST_TIMEOUT_S, HTTPClient
from asynctrack.backends.requirements import lacking
from asynctrack.errors import InvalidSettings
from asynctrack.records.codec import flatten, to_json
from asynctrack.records.plain import as_float, flat

# Trackio's own columns.
_RESERVED: Final = frozenset({"project", "run", "timestamp", "step", "time", "metrics"})
_LARGEST: Final = (1 << 63) - 1
# Depth of lists in lists, at most: Trackio's encoder gives up at 254.
_MOST_DEEP: Final = 200
_NOTHING: Final = "nothing that Trackio can hold"
_STEP: Final = "a step beyond 63 bits"

_log = logging.getLogger("asynctrack.delivery")


class TrackioRow(msgspec.Struct, frozen=True):
    """A record as Trackio takes it.

    Attributes:
        log_id: `run:ring:number`.
        step: of the record.
        metrics: names to values.
        time_ns: wall clock, nanoseconds since the epoch.
    """

    log_id: str
    step: int
    metrics: dict[str, Any]
    time_ns: int = 0


class Trackio(Backend, frozen=True, kw_only=True, tag="trackio"):
    """Writes every record as a row of a Trackio project.

    Attributes:
        project: of Trackio. Default: the run's.
        server_url: address of a Trackio server. None writes Trackio's local SQLite, in `TRACKIO_DIR` or in Trackio's
            own folder.
        write_token: `env:NAME`, the environment's variable with the server's write token.
        request_timeout_s: seconds that a request to the server may take.
    """

    batch_age_s: ClassVar[float] = 1.0
    needs: ClassVar[Mapping[str, str]] = {"trackio": "asynctrack[trackio]"}

    project: str | None = None
    server_url: str | None = None
    write_token: str = "env:TRACKIO_WRITE_TOKEN"
    request_timeout_s: float = REQUEST_TIMEOUT_S
    writers: WriterSelection = "owner"

    @property
    def execution(self) -> Execution:  # type: ignore[override]  # importing the library takes seconds; a request takes nothing
        """Return "process" for the local library, whose import takes seconds, and "worker" for a server."""
        return "process" if self.server_url is None else "worker"

    @property
    def remote(self) -> bool:  # type: ignore[override]  # of the class elsewhere
        """Return whether a server is used."""
        return self.server_url is not None

    def __post_init__(self) -> None:
        problems = secret_problems("write_token", self.write_token)
        problems += timeout_problems("request_timeout_s", self.request_timeout_s)
        if self.server_url is not None:
            problems += url_problems("server_url", self.server_url)
        if self.project is not None and (not isinstance(self.project, str) or not self.project.strip()):
            problems.append(f"project must be the name of a Trackio project; got {self.project!r:.80}")
        if problems:
            raise InvalidSettings(problems)
        super().__post_init__()

    def lacking(self) -> list[str]:
        """List the library that is missing, or the server's token."""
        if self.server_url is None:
            return super().lacking()
        has_token = read_secret(self.write_token, for_header=False)
        return lacking({"httpx2": "asynctrack[trackio]"}) or ([] if has_token else [set_variables(self.write_token)])

    def external_targets(self) -> list[str]:
        """List the server's address, or Trackio's local projects."""
        return [self.server_url or "the Trackio projects of this machine"]

    def open(self, context: Context) -> Sink:
        """Open Trackio's SQLite, or a client for its server.

        Raises:
            ActionRequired: a library is missing, or Trackio does not take the project's name.
        """
        project = self.project or context.project
        if self.server_url is None:
            return _Local(context, project)
        credentials = Credentials.in_header("x-trackio-write-token", read_secret(self.write_token))
        needs = f"is {variables(self.write_token)} what the server printed when it started?"
        server = HTTPClient(
            self.server_url,
            name="Trackio",
            credentials=credentials,
            timeout_s=self.request_timeout_s,
            mend={401: needs, 403: needs, 404: "is server_url right?"},
        )
        return _Remote(context, project, server, self.write_token)


class _Rows:
    """One run's data for Trackio: its rows and its config.

    A config can only travel with a row. Where there is no new one, the last row goes again without its values. Trackio
    ignores that row, and takes the config.
    """

    def __init__(self, context: Context) -> None:
        state = context.state or {}
        self.run_id = context.run_id
        self.changed: dict[str, Any] = state.get("changed", {})
        self.removed: set[str] = set(state.get("removed", ()))
        self.carrier: list[Any] | None = state.get("carrier")
        self.stale = True
        self._config = {"_Created": context.created_at, **_as_config(context.config)}
        self._names: dict[str, str] = {}

    def state(self) -> dict[str, Any]:
        return {"changed": self.changed, "removed": sorted(self.removed), "carrier": self.carrier}

    def config(self) -> dict[str, Any]:
        return {**{name: value for name, value in self._config.items() if name not in self.removed}, **self.changed}

    def take(self, batch: Batch) -> tuple[list[TrackioRow], dict[str, int]]:
        """Build the rows of a batch, and count the records that have none, by reason."""
        for update in batch.updates:
            self._change(update)
            self.stale = True
        rows: list[TrackioRow] = []
        skipped: dict[str, int] = {}
        for record in batch.records:
            metrics = self._metrics(record.data)
            if metrics and -_LARGEST <= record.step <= _LARGEST:
                log_id = f"{self.run_id}:{record.ring:016x}:{record.number}"
                rows.append(TrackioRow(log_id, record.step, metrics, record.time_ns))
            else:
                reason = _STEP if metrics else _NOTHING
                skipped[reason] = skipped.get(reason, 0) + 1
        return self._with_carrier(rows), skipped

    def _change(self, update: Update) -> None:
        """Apply an update: a name that changes takes with it everything that was nested below it."""
        parent = "" if update.kind == "config" else "summary/"
        fresh = _as_config({f"{parent}{name}": value for name, value in update.data.items()})
        tops = {_config_name(f"{parent}{name}") for name in (*update.data, *update.removed)}
        inner = tuple(f"{top}/" for top in tops)
        gone = [name for name in self.config() if name in tops or name.startswith(inner)]
        for name in gone:
            self.changed.pop(name, None)
        self.changed.update(fresh)
        self.removed = self.removed.union(gone).difference(fresh) & self._config.keys()

    def given(self, rows: Sequence[TrackioRow]) -> None:
        """Note that Trackio has these rows, and the config."""
        if rows:
            self.carrier, self.stale = [rows[-1].log_id, rows[-1].step], False

    def _with_carrier(self, rows: list[TrackioRow]) -> list[TrackioRow]:
        if rows or not self.stale or self.carrier is None:
            return rows
        return [TrackioRow(self.carrier[0], self.carrier[1], {})]

    def _metrics(self, data: Mapping[str, Any]) -> dict[str, Any]:
        names, shown = self._names, {}
        for key, value in flat(data).items():
            if not (type(value) is float and math.isfinite(value)):
                value = _value(value)
                if value is _UNSHOWN:
                    continue
            name = names.get(key)
            if name is None:
                name = names[key] = f"__{key}" if key in _RESERVED or key.startswith("__") else key
            shown[name] = value
        return shown


class _Local(Sink):
    """Writes to Trackio's own SQLite, by its own library."""

    def __init__(self, context: Context, project: str) -> None:
        storage = _import_storage()
        validate = getattr(storage, "validate_project_name", None)
        try:
            if validate is not None:
                validate(project)
        except ValueError as error:
            raise ActionRequired(f"{error}; choose another with project=") from error
        self._storage = storage
        self._project = project
        self._name = context.name
        self._rows = _Rows(context)

    def write(self, batch: Batch) -> dict[str, int]:
        rows, skipped = self._rows.take(batch)
        if rows:
            self._storage.bulk_log(
                project=self._project,
                run=self._name,
                run_id=self._rows.run_id,
                metrics_list=[row.metrics for row in rows],
                steps=[row.step for row in rows],
                timestamps=[_iso(row.time_ns) for row in rows],
                config=self._rows.config() if self._rows.stale else None,
                log_ids=[row.log_id for row in rows],
            )
            self._rows.given(rows)
        return skipped

    def checkpoint(self) -> dict[str, Any]:
        return self._rows.state()


class _Remote(Sink):
    """Sends to a Trackio server."""

    def __init__(self, context: Context, project: str, server: HTTPClient, write_token: str) -> None:
        self._server = server
        self._run = {"project": project, "run": context.name, "run_id": context.run_id}
        self._write_token = write_token
        self._rows = _Rows(context)

    async def write(self, batch: Batch) -> dict[str, int]:
        rows, skipped = self._rows.take(batch)
        if rows:
            logs = [
                {**self._run, "metrics": row.metrics, "step": row.step, "log_id": row.log_id, "config": None}
                for row in rows
            ]
            if self._rows.stale:
                logs[0]["config"] = self._rows.config()
            try:
                await self._server.post("api/bulk_log", {"logs": logs, "hf_token": None})
            except Rejected as no:
                if "write_token" in str(no):  # Trackio answers 400 in place of 401
                    raise ActionRequired(f"{no}; {set_variables(self._write_token)}") from no
                raise
            self._rows.given(rows)
        return skipped

    async def checkpoint(self) -> dict[str, Any]:
        return self._rows.state()

    async def close(self, outcome: Outcome) -> None:
        await self._server.close()


_UNSHOWN: Final = object()


def _value(value: Any, depth: int = 0) -> Any:
    """Return a value as a row holds it, `_UNSHOWN` where none can."""
    if isinstance(value, float):
        return to_json(value)
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value if -_LARGEST <= value <= _LARGEST else as_float(value, _UNSHOWN)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and depth < _MOST_DEEP:
        items = [_value(item, depth + 1) for item in value]
        return _UNSHOWN if any(item is _UNSHOWN for item in items) else items
    return _UNSHOWN


def _as_config(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config as Trackio shows it: flat, and without names that Trackio keeps for itself."""
    shown = {}
    for key, value in flatten(data):
        held = value if isinstance(value, bool) else _value(to_json(value))
        shown[_config_name(key)] = str(value) if held is _UNSHOWN else held
    return shown


def _config_name(key: str) -> str:
    return f"_{key}" if key.startswith("_") else key


def _import_storage() -> Any:
    try:
        from trackio.sqlite_storage import SQLiteStorage
    except ImportError as error:
        raise ActionRequired(
            f"it needs trackio, which is not installed here: pip install 'asynctrack[trackio]' ({error})"
        ) from error
    return SQLiteStorage


def _iso(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat()
