"""MLflow: send a run to MLflow's tracking server by REST, without its library. Runs in the worker's loop.

| Here | In MLflow |
| --- | --- |
| a number at a step | a metric, with the time at which it was logged: an identical resend is a no-op in its SQL store |
| NaN; an infinity | NaN; the largest float with that sign, since SQL has no infinity |
| config | params, clipped at 6,000 characters; MLflow never changes one: a later value is a tag, `config/KEY` |
| summary | a metric `summary/KEY`, or a tag of that name where it is no number |
| how the run ended | FINISHED, FAILED, or KILLED where the process died or was preempted |

Nested names are joined by `/`. MLflow's names have letters, digits, `_ - . : /` and space; every other character
becomes `_`. A name longer than 250 characters keeps its beginning and gets a checksum. Values other than numbers are
left out. A record without any number is skipped.

The run in MLflow has tags with our run's id and time of creation. A run with these tags is looked for before one is
made, so a crash between making it and saving its id makes no second one. With `writers="split"` each further writer
has a run of its own, `NAME rank3`, which MLflow shows as a child of the owner's: by its tag `mlflow.parentRunId`. It has
the tags `asynctrack.writer` and `asynctrack.writer_of` in place of the id. MLflow answers 200 to a batch that it cannot
parse, and drops it; so nothing is sent that it could misread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, ClassVar, Final, NamedTuple

import msgspec

from asynctrack.backends.base import (
    ActionRequired,
    Backend,
    Batch,
    Context,
    Execution,
    Outcome,
    Rejected,
    Retry,
    Sink,
    TooLarge,
    Update,
    WriterSelection,
)
from asynctrack.backends.endpoint import (
    Credentials,
    address_of,
    read_secret,
    secret_problems,
    set_variables,
    timeout_problems,
    url_problems,
    variables,
)
from asynctrack.backends.http import REQUEST_TIMEOUT_S, Answer, HTTPClient
from asynctrack.backends.mlflow.items import (
    MOST_METRICS,
    MOST_OTHERS,
    MOST_PARAM,
    MOST_TAG,
    REMOVED,
    Kind,
    as_items,
    as_metric,
    as_number,
    as_pairs,
    as_text,
    chunks,
    clean_name,
)
from asynctrack.errors import InvalidSettings
from asynctrack.records.codec import flatten

_STATUS: Final = {"finished": "FINISHED", "failed": "FAILED", "crashed": "KILLED", "preempted": "KILLED"}
_LARGEST: Final = (1 << 63) - 1
_NO_NUMBER: Final = "no number"
_STEP: Final = "a step beyond 63 bits"
_USER: Final = "env:MLFLOW_TRACKING_USERNAME"
_PASSWORD: Final = "env:MLFLOW_TRACKING_PASSWORD"
_ADDRESS: Final = "MLFLOW_TRACKING_URI"

_log = logging.getLogger("asynctrack.delivery")


class MLflow(Backend, frozen=True, kw_only=True, tag="mlflow"):
    """Sends every number as a metric of an MLflow run.

    Attributes:
        tracking_uri: address of the tracking server, HTTP or HTTPS. Default: the environment's `MLFLOW_TRACKING_URI`.
        experiment: its name; made where there is none. Default: the run's project.
        run_name: default: the run's name.
        tags: of the MLflow run.
        token: `env:NAME`, the environment's variable with a bearer token. Where the environment has both
            `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`, these come first, as they do in MLflow.
        request_timeout_s: seconds that a request may take.
    """

    execution: ClassVar[Execution] = "worker"
    remote: ClassVar[bool] = True
    can_split: ClassVar[bool] = True
    needs: ClassVar[Mapping[str, str]] = {"httpx2": "asynctrack[mlflow]"}
    batch_bytes: ClassVar[int] = 32 * 1024  # some 1,200 metrics: 3 ms of the worker's loop, and two requests
    batch_age_s: ClassVar[float] = 1.0

    tracking_uri: str | None = None
    experiment: str | None = None
    run_name: str | None = None
    tags: dict[str, str] = msgspec.field(default_factory=dict)
    token: str = "env:MLFLOW_TRACKING_TOKEN"
    request_timeout_s: float = REQUEST_TIMEOUT_S
    writers: WriterSelection = "owner"

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be text; got {value!r:.80}"
            for name, value in {"experiment": self.experiment, "run_name": self.run_name}.items()
            if value is not None and (not isinstance(value, str) or not value.strip())
        ]
        if not isinstance(self.tags, Mapping) or not all(
            isinstance(item, str) for pair in self.tags.items() for item in pair
        ):
            problems.append(f"tags must be a dict of texts; got {self.tags!r:.80}")
        if self.tracking_uri is not None:
            problems += url_problems("tracking_uri", self.tracking_uri)
        problems += secret_problems("token", self.token)
        problems += timeout_problems("request_timeout_s", self.request_timeout_s)
        if problems:
            raise InvalidSettings(problems)
        super().__post_init__()

    def prepare(self) -> Backend:
        """Fill in the server's address from the environment.

        Raises:
            InvalidSettings: there is no address, or it cannot be used.
        """
        address = address_of(self.tracking_uri, _ADDRESS)
        if not address:
            raise InvalidSettings([f"MLflow needs its server's address: give tracking_uri=, or set {_ADDRESS}"])
        if problems := url_problems(_ADDRESS, address):
            raise InvalidSettings(problems)
        return msgspec.structs.replace(self, tracking_uri=address)

    def external_targets(self) -> list[str]:
        """List the server's address."""
        return [self.tracking_uri or f"the MLflow server of {_ADDRESS}"]

    def open(self, context: Context) -> Sink:
        """Open a client for the server; the run in MLflow is found or made at the first write.

        Raises:
            ActionRequired: the server's address is missing, or httpx2 is.
        """
        address = address_of(self.tracking_uri, _ADDRESS)
        if not address or url_problems(_ADDRESS, address):
            raise ActionRequired(
                f"it needs the address of an MLflow server: {set_variables(_ADDRESS)}, or give tracking_uri="
            )
        needs = f"{set_variables(self.token)}, or {variables(_USER)} and {variables(_PASSWORD)}"
        server = HTTPClient(
            address.rstrip("/") + "/api/2.0/mlflow",
            name="MLflow",
            credentials=_credentials(self.token),
            timeout_s=self.request_timeout_s,
            mend={
                401: needs,
                403: f"may this user write there? {needs}",
                404: "is tracking_uri right, and is the run still there?",
            },
        )
        return _MLflowSink(server, self, context)


class _Found(NamedTuple):
    """A run in MLflow.

    Attributes:
        id: its id in MLflow.
        status: in MLflow's words.
        params: names to values.
        tags: names to values.
    """

    id: str
    status: str
    params: dict[str, str]
    tags: dict[str, str]


class _MLflowSink(Sink):
    """Sends one run to one server."""

    def __init__(self, server: HTTPClient, settings: MLflow, context: Context) -> None:
        self._server = server
        self._settings = settings
        self._context = context
        self._config = dict(context.config)  # a copy: the worker goes on changing its own
        state = context.state or {}
        self._id: str | None = state.get("run_id")
        self._last_ms: int = state.get("last_ms", 0)
        self._found: _Found | None = None
        self._names: dict[str, str] = {}
        self._begun: tuple[Any, int] = (None, 0)

    async def write(self, batch: Batch) -> dict[str, int]:
        run = await self._ready()
        await self._update(run, batch.updates)
        metrics, skipped = self._metrics(batch)
        batches = list(chunks(metrics, MOST_METRICS))
        # A batch that failed in the middle goes on there: MLflow takes twice as long for metrics that it has already.
        identity = [(record.ring, record.number) for record in batch.records]
        sent = self._begun[1] if self._begun[0] == identity else 0
        for chunk in batches[sent:]:
            await self._log(run, "metrics", chunk)
            sent += 1
            self._begun = (identity, sent)
        return skipped

    async def checkpoint(self) -> dict[str, Any] | None:
        return {"run_id": self._id, "last_ms": self._last_ms} if self._id else None

    async def close(self, outcome: Outcome) -> None:
        if outcome in _STATUS:
            run = await self._ready()
            end = {"run_id": run.id, "status": _STATUS[outcome], "end_time": self._last_ms or _now_ms()}
            await self._settle(self._server.post("runs/update", end))
        await self._server.close()

    def _metrics(self, batch: Batch) -> tuple[list[msgspec.Raw], dict[str, int]]:
        """Encode the metrics of a batch, and count the records that have none, by reason."""
        metrics: list[msgspec.Raw] = []
        skipped: dict[str, int] = {}
        for record in batch.records:
            time_ms, before = max(0, record.time_ns // 1_000_000), len(metrics)
            in_range = -_LARGEST <= record.step <= _LARGEST
            if in_range:
                for key, value in flatten(record.data):
                    if (number := as_number(value)) is not None:
                        metrics.append(as_metric(self._name(key), number, time_ms, record.step))
            if len(metrics) == before:
                reason = _NO_NUMBER if in_range else _STEP
                skipped[reason] = skipped.get(reason, 0) + 1
            self._last_ms = max(self._last_ms, time_ms)
        return metrics, skipped

    def _name(self, key: str) -> str:
        name = self._names.get(key)
        if name is None:
            name = self._names[key] = clean_name(key)
        return name

    async def _ready(self) -> _Found:
        """Return the run in MLflow with status RUNNING: the one that was made before, or a new one."""
        if self._found is None:
            found = await self._get(self._id) if self._id else await self._find_or_create()
            self._id = found.id
            if found.status != "RUNNING":
                await self._settle(self._server.post("runs/update", {"run_id": found.id, "status": "RUNNING"}))
            await self._configure(found, self._config, again=bool(found.params))
            self._found = found
        return self._found

    async def _get(self, run_id: str) -> _Found:
        answer = await self._settle(self._server.get("runs/get", {"run_id": run_id}))
        return self._read_run(answer.data["run"])

    async def _find_or_create(self) -> _Found:
        experiment = await self._experiment()
        context = self._context
        name, since = self._settings.run_name or context.name, {"asynctrack.created_at": context.created_at}
        owners = await self._find_or_create_by(experiment, {"asynctrack.run_id": context.run_id, **since}, name)
        if context.writer is None:
            return owners
        ours = {"asynctrack.writer_of": context.run_id, "asynctrack.writer": context.writer, **since}
        parent = {"mlflow.parentRunId": owners.id}
        return await self._find_or_create_by(experiment, ours, f"{name} {context.writer}", parent)

    async def _find_or_create_by(
        self, experiment: str, ours: dict[str, str], name: str, more: Mapping[str, str] | None = None
    ) -> _Found:
        """Return the run with certain tags, which is made where there is none, with those of the settings and further ones."""
        wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in ours.items())
        # The oldest: when an answer got lost, there may be two.
        search = {"experiment_ids": [experiment], "filter": wanted, "max_results": 1, "order_by": ["start_time ASC"]}
        runs = (await self._settle(self._server.post("runs/search", search))).data.get("runs")
        if runs:
            return self._read_run(runs[0])
        tags = {
            **{clean_name(key): value[:MOST_TAG] for key, value in self._settings.tags.items()},
            **(more or {}),
            **ours,
        }
        create = {
            "experiment_id": experiment,
            "run_name": name,
            "start_time": _epoch_ms(self._context.created_at),
            "tags": as_pairs(tags),
        }
        return self._read_run((await self._settle(self._server.post("runs/create", create))).data["run"])

    async def _experiment(self) -> str:
        name = self._settings.experiment or self._context.project
        for _ in range(2):  # somebody else may make it between our two requests
            ask = self._server.get("experiments/get-by-name", {"experiment_name": name}, also=(404,))
            found = await self._settle(ask)
            if found.status == 200:
                experiment = found.data["experiment"]
                if experiment.get("lifecycle_stage", "active") != "active":
                    raise ActionRequired(
                        f"the MLflow experiment {name!r} is deleted; restore it there, or choose another"
                    )
                return str(experiment["experiment_id"])
            if found.data.get("error_code") != "RESOURCE_DOES_NOT_EXIST":
                raise ActionRequired(
                    f"{self._server.url} answers 404, but not as an MLflow server does; is tracking_uri right?"
                )
            made = await self._settle(self._server.post("experiments/create", {"name": name}, also=(400,)))
            if made.status == 200:
                return str(made.data["experiment_id"])
        raise ActionRequired(f"MLflow refuses to make the experiment {name!r}: {made.data.get('message', '')!s:.300}")

    def _read_run(self, run: dict[str, Any]) -> _Found:
        info, data = run["info"], run.get("data", {})
        if info.get("lifecycle_stage", "active") != "active":
            raise ActionRequired(f"the MLflow run {info['run_id']} is deleted; restore it there, and delivery goes on")
        params, tags = (
            {item["key"]: item.get("value", "") for item in data.get(kind, [])} for kind in ("params", "tags")
        )
        return _Found(info["run_id"], info.get("status", "RUNNING"), params, tags)

    async def _update(self, run: _Found, updates: Iterable[Update]) -> None:
        """Send changes of config and summary; each replaces the earlier value."""
        metrics: list[msgspec.Raw] = []
        tags: dict[str, str] = {}
        for update in updates:
            time_ms = max(0, update.time_ns // 1_000_000)
            self._last_ms = max(self._last_ms, time_ms)
            if update.kind == "config":
                await self._configure(run, update.data, removed=update.removed)
                continue
            tags |= {clean_name(f"summary/{name}"): REMOVED for name in update.removed}
            for key, value in flatten(update.data, "summary/"):
                name = clean_name(key)
                if (number := as_number(value)) is not None:
                    metrics.append(as_metric(name, number, time_ms, 0))
                if (
                    number is None or name in tags or name in run.tags
                ):  # MLflow cannot remove a metric, so its tag has the latest value
                    tags[name] = as_text(value, MOST_TAG)
        run.tags.update(tags)
        await self._log_items(run, "metrics", metrics)
        await self._log_items(run, "tags", as_items(tags))

    async def _configure(
        self, run: _Found, config: Mapping[str, Any], *, again: bool = False, removed: Collection[str] = ()
    ) -> None:
        """Log a config: new names as params, changed values as tags, and removed names as tags that say so.

        Args:
            run: in MLflow.
            config: whole, or a part of it.
            again: whether the run has had its config before. A value that is as it was then says nothing about later
                changes.
            removed: names that were removed from the config.
        """
        params, tags = {}, {}
        if not again:
            tops = {clean_name(str(name)) for name in (*removed, *config)}
            inner = tuple(f"{top}/" for top in tops)
            gone = [name for name in run.params if name in tops or name.startswith(inner)]
            tags = {clean_name(f"config/{name}"): REMOVED for name in gone}
        for key, value in flatten(config):
            name, text = clean_name(key), as_text(value, MOST_PARAM)
            tag = clean_name(f"config/{key}")
            tags.pop(tag, None)
            if name not in run.params:
                params[name] = text
            elif text != run.params[name] or (tag in run.tags and not again):
                tags[tag] = text
        run.params.update(params)
        run.tags.update(tags)
        try:
            await self._log_items(run, "params", as_items(params))
            await self._log_items(run, "tags", as_items(tags))
        except BaseException:
            for name in params:
                run.params.pop(name, None)
            raise

    async def _log_items(self, run: _Found, kind: Kind, items: list[msgspec.Raw]) -> None:
        """Log params, tags or summary. A refused item is reported and left out: it must not hold up the records."""
        for chunk in chunks(items, MOST_METRICS if kind == "metrics" else MOST_OTHERS):
            try:
                await self._log(run, kind, chunk)
            except (Rejected, TooLarge) as no:
                if len(chunk) > 1:
                    half = len(chunk) // 2
                    await self._log_items(run, kind, chunk[:half])
                    await self._log_items(run, kind, chunk[half:])
                else:
                    _log.warning("MLflow refuses one of the %s of %s: %s", kind, self._context.run_id, no)

    async def _log(self, run: _Found, kind: Kind, items: list[msgspec.Raw]) -> None:
        try:
            await self._server.post("runs/log-batch", {"run_id": run.id, kind: items})
        except Rejected as no:
            _check_database(no)
            await self._get(run.id)  # raises `ActionRequired` where the run is deleted and so refuses everything
            raise

    async def _settle(self, asking: Awaitable[Answer]) -> Answer:
        """Wait for an answer without which no record can be logged. A refusal is then for a person to solve.

        Raises:
            ActionRequired: MLflow refuses the request.
        """
        try:
            return await asking
        except (Rejected, TooLarge) as no:
            _check_database(no)
            raise ActionRequired(str(no)) from no


def _check_database(no: Rejected | TooLarge) -> None:
    """Raise `Retry` where MLflow's database failed: a refusal by MLflow itself says INVALID_PARAMETER_VALUE."""
    if "BAD_REQUEST" in str(no):
        raise Retry(str(no)) from no


def _credentials(token: str) -> Credentials:
    """Read user and password where the environment has both, else a token: the order of MLflow's own client."""
    user, password, bearer = read_secret(_USER), read_secret(_PASSWORD), read_secret(token)
    if user and password:
        return Credentials.of_user(user, password)
    return Credentials.in_header("authorization", bearer, "Bearer")


def _epoch_ms(iso: str) -> int:
    try:
        return int(datetime.fromisoformat(iso).timestamp() * 1000)
    except ValueError:
        return _now_ms()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
