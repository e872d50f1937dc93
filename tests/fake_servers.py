"""What a Trackio server and an MLflow server know, for `raw_server`: their contracts as the real ones of 0.43 and 3.17 were found to have them.

Both count what came and keep what is new, as the real ones do by their keys; a repeat is so visible, and harmless.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any

from raw_server import Answer, Request

_INT64 = range(-(1 << 63), 1 << 63)


class TrackioApp:
    """`POST /api/bulk_log`.

    Attributes:
        rows: by run id, each row once, in the order in which it came first.
        came: how often each log id came.
        configs: by run id.
        token: that it wants to see; None for none.
    """

    def __init__(self, token: str | None = None) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.came: Counter[str] = Counter()
        self.configs: dict[str, dict[str, Any]] = {}
        self.token = token

    def __call__(self, request: Request) -> Answer:
        if request.path != "/api/bulk_log":
            return Answer(404, {"error": f"Unknown API: {request.path}"})
        if self.token is not None and request.headers.get("x-trackio-write-token") != self.token:
            return Answer(400, {"error": "A write_token is required to log metrics or upload to this server."})
        logs = request.json()["logs"]
        for problem in filter(None, map(_trackio_problem, logs)):
            return Answer(500, {"error": problem})
        for log in logs:
            if log.get("config"):
                self.configs[log["run_id"]] = log["config"]
            if not self.came[log["log_id"]]:
                self.rows.setdefault(log["run_id"], []).append(log)
            self.came[log["log_id"]] += 1
        return Answer(200, {"data": None})


def _trackio_problem(log: dict[str, Any]) -> str | None:
    values = [*log["metrics"].values(), *(log.get("config") or {}).values()]
    if any(type(value) is int and value not in _INT64 for value in values):
        return "Integer exceeds 64-bit range"
    return "Python int too large to convert to SQLite INTEGER" if log["step"] not in _INT64 else None


class MLflowApp:
    """The part of MLflow's REST that we use.

    Attributes:
        experiments: names to ids.
        deleted: ids of experiments and runs that are deleted.
        runs: by id: info, tags, params, and metrics as (key, timestamp, step, value), each once, in the order in which it came first.
        came: how often each metric of each run came.
        authorization: the header that it wants to see; None for none.
    """

    def __init__(self, authorization: str | None = None) -> None:
        self.experiments: dict[str, str] = {}
        self.deleted: set[str] = set()
        self.runs: dict[str, dict[str, Any]] = {}
        self.came: Counter[tuple[Any, ...]] = Counter()
        self.authorization = authorization

    def __call__(self, request: Request) -> Answer:
        if self.authorization is not None and request.headers.get("authorization") != self.authorization:
            return Answer(401, {"message": "You are not authenticated."})
        name = request.path.removeprefix("/api/2.0/mlflow/").replace("/", "_").replace("-", "_")
        endpoint = getattr(self, f"_{name}", None)
        if endpoint is None:
            return Answer(404, b"<!doctype html><title>404 Not Found</title>")
        body = request.query if request.method == "GET" else request.json()
        answer = endpoint(body)
        assert isinstance(answer, Answer)
        return answer

    def the_run(self) -> dict[str, Any]:
        """The one run there is."""
        (run,) = self.runs.values()
        return run

    def _experiments_get_by_name(self, body: dict[str, Any]) -> Answer:
        name = body["experiment_name"]
        if name not in self.experiments:
            return _error(404, "RESOURCE_DOES_NOT_EXIST", f"Could not find experiment with name '{name}'")
        found = self.experiments[name]
        stage = "deleted" if found in self.deleted else "active"
        return Answer(200, {"experiment": {"experiment_id": found, "name": name, "lifecycle_stage": stage}})

    def _experiments_create(self, body: dict[str, Any]) -> Answer:
        if body["name"] in self.experiments:
            return _error(400, "RESOURCE_ALREADY_EXISTS", f"Experiment(name={body['name']}) already exists.")
        self.experiments[body["name"]] = str(len(self.experiments) + 1)
        return Answer(200, {"experiment_id": self.experiments[body["name"]]})

    def _runs_create(self, body: dict[str, Any]) -> Answer:
        run_id = f"{len(self.runs) + 1:032x}"
        info = {
            "run_id": run_id,
            "run_name": body["run_name"],
            "experiment_id": body["experiment_id"],
            "start_time": body["start_time"],
            "status": "RUNNING",
        }
        tags = {item["key"]: item["value"] for item in body["tags"]}
        self.runs[run_id] = {"info": info, "tags": tags, "params": {}, "metrics": []}
        return Answer(200, {"run": self._shown(run_id)})

    def _runs_get(self, body: dict[str, Any]) -> Answer:
        if body["run_id"] not in self.runs:
            return _error(404, "RESOURCE_DOES_NOT_EXIST", f"Run with id={body['run_id']} not found")
        return Answer(200, {"run": self._shown(body["run_id"])})

    def _runs_search(self, body: dict[str, Any]) -> Answer:
        wanted = dict(re.findall(r"tags\.`([^`]+)` = '([^']*)'", body["filter"]))
        found = [
            self._shown(run_id)
            for run_id, run in self.runs.items()
            if run["info"]["experiment_id"] in body["experiment_ids"]
            and run_id not in self.deleted
            and wanted.items() <= run["tags"].items()
        ]
        return Answer(200, {"runs": found[: body["max_results"]]} if found else {})

    def _runs_update(self, body: dict[str, Any]) -> Answer:
        info = self.runs[body["run_id"]]["info"]
        info.update({key: value for key, value in body.items() if key in ("status", "end_time")})
        return Answer(200, {"run_info": info})

    def _runs_log_batch(self, body: dict[str, Any]) -> Answer:
        run_id = body["run_id"]
        if run_id not in self.runs:
            return _error(404, "RESOURCE_DOES_NOT_EXIST", f"Run with id={run_id} not found")
        if run_id in self.deleted:
            return _invalid(f"The run {run_id} must be in the 'active' state. Current state is deleted.")
        metrics, params, tags = (body.get(kind, []) for kind in ("metrics", "params", "tags"))
        if len(metrics) > 1000 or len(params) > 100 or len(tags) > 100:
            return _invalid("A batch logging request can contain at most 1000 metrics.")
        for item in (*metrics, *params, *tags):
            if problem := _name_problem(item["key"]):
                return _invalid(problem)
        if any(item["step"] not in _INT64 or isinstance(item["value"], bool) for item in metrics):
            return Answer(200)  # as the real one: it cannot parse it, says so to nobody, and drops it
        run = self.runs[run_id]
        for param in params:
            if run["params"].setdefault(param["key"], param["value"][:6000]) != param["value"][:6000]:
                return _invalid(f"Changing param values is not allowed. Params were already logged='[{param}]'")
        for metric in metrics:
            self._take(run_id, metric)
        run["tags"].update({tag["key"]: tag["value"][:8000] for tag in tags})
        return Answer(200)

    def _take(self, run_id: str, metric: dict[str, Any]) -> None:
        value = float(str(metric["value"]).replace("Infinity", "inf"))
        value = math.copysign(1.7976931348623157e308, value) if math.isinf(value) else value
        shown = "NaN" if math.isnan(value) else value
        row = (metric["key"], metric["timestamp"], metric["step"], shown)
        if not self.came[(run_id, *row)]:
            self.runs[run_id]["metrics"].append(row)
        self.came[(run_id, *row)] += 1

    def _shown(self, run_id: str) -> dict[str, Any]:
        run = self.runs[run_id]
        stage = "deleted" if run_id in self.deleted else "active"
        data = {kind: [{"key": key, "value": value} for key, value in run[kind].items()] for kind in ("params", "tags")}
        return {
            "info": {**run["info"], "lifecycle_stage": stage},
            "data": {kind: items for kind, items in data.items() if items},
        }


def _name_problem(name: str) -> str | None:
    if not name or not re.match(r"^[/\w.\- :]*$", name):
        return f"Invalid value {name!r}: Names may only contain alphanumerics"
    if len(name) > 250:
        return "'Metric name' exceeds the maximum length of 250 characters"
    unclear = any(part in ("", ".", "..") for part in name.split("/"))
    return f"Invalid value {name!r}: Names may be treated as files" if unclear else None


def _error(status: int, code: str, message: str) -> Answer:
    return Answer(status, {"error_code": code, "message": message})


def _invalid(message: str) -> Answer:
    return _error(400, "INVALID_PARAMETER_VALUE", message)
