"""A small W&B server on loopback: what `wandb-core` 0.31 asks of one, and faults on demand.

It keeps a run's history by line number, as `file_stream` sends it: a line that comes again for the same number is there once, and `changed` says
whether it was another. Control is by Python object, or from another process at `/control/runs`.
"""

from __future__ import annotations

import base64
import json
import re
import sys
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Any

from raw_server import Answer, Behaviour, Exchange, RawServer, Request, well

KEY = "local" + 35 * "0"
ENTITY = "we"

_OPERATION = re.compile(r"(?:query|mutation)\s+(\w+)")
_FILE_STREAM = re.compile(r"/files/([^/]+)/([^/]+)/([^/]+)/file_stream")
_UPLOAD = re.compile(r"/upload/([^/]+)/([^/]+)/([^/]+)/(.+)")


class StoredRun:
    """A run as the server has it.

    Attributes:
        lines: of its history, by number.
        came: how often each was sent.
        changed: numbers of lines that came again with other values.
        events: lines of its system statistics.
        facts: what `UpsertBucket` said last: displayName, tags, notes, groupName, jobType, state ...
        config: as W&B keeps it, `{"key": {"value": ...}}`.
        summary: what the file stream said last.
        files: that were uploaded.
        exit_code: None until the run was completed.
        upserts: how often it was opened or changed.
    """

    def __init__(self, entity: str, project: str, name: str) -> None:
        self.entity, self.project, self.name = entity, project, name
        self.lines: dict[int, str] = {}
        self.came: Counter[int] = Counter()
        self.changed: list[int] = []
        self.events: dict[int, str] = {}
        self.facts: dict[str, Any] = {}
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}
        self.exit_code: int | None = None
        self.upserts = 0

    def rows(self) -> list[dict[str, Any]]:
        """Its history; a hole in it is a failure."""
        assert sorted(self.lines) == list(range(len(self.lines))), f"holes: {sorted(self.lines)}"
        return [json.loads(self.lines[number]) for number in range(len(self.lines))]

    def values(self) -> dict[str, Any]:
        """Its config, without what W&B keeps there for itself."""
        return {key: item["value"] for key, item in self.config.items() if key != "_wandb"}

    def rules(self) -> list[dict[str, Any]]:
        """What `define_metric` said, in W&B's own numbers: 1 name, 2 name with a glob, 5 its step metric, from 1."""
        found: list[dict[str, Any]] = self.config["_wandb"]["value"].get("m", [])
        return found

    def write(self, files: dict[str, Any]) -> None:
        for name, chunk in files.items():
            at, content = chunk["offset"], chunk["content"]
            if name == "wandb-history.jsonl":
                for number, line in enumerate(content, at):
                    self._write_line(number, line)
            elif name == "wandb-events.jsonl":
                self.events.update(enumerate(content, at))
            elif name == "wandb-summary.json":
                self.summary = json.loads(content[-1])

    def _write_line(self, number: int, line: str) -> None:
        self.came[number] += 1
        if number in self.lines and _values(self.lines[number]) != _values(line):
            self.changed.append(number)
        self.lines[number] = line


def _values(line: str) -> dict[str, Any]:
    """A line without what depends on when it was sent."""
    return {key: value for key, value in json.loads(line).items() if key != "_runtime"}


class WandbServer(RawServer):
    """Serves W&B's protocol; a context manager.

    Args:
        key: the API key that it knows.
        port: to listen on; 0 for any.

    Attributes:
        runs: by id.
        operations: how often each GraphQL operation and each other request came.
        unknown: operations that it does not know.
        faults: what the next requests of a kind meet, in turn: "graphql", "file_stream", or an operation's name.
        lasting: what all requests of a kind meet, until it is removed.
    """

    def __init__(self, key: str = KEY, port: int = 0) -> None:
        self.key = key
        self.runs: dict[str, StoredRun] = {}
        self.operations: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()
        self.faults: defaultdict[str, deque[Behaviour]] = defaultdict(deque)
        self.lasting: dict[str, Behaviour] = {}
        super().__init__(self._answer, port=port)
        self.script = _Always(self._behave)  # type: ignore[assignment]

    def __enter__(self) -> WandbServer:
        return self

    def _behave(self, exchange: Exchange) -> None:
        request = exchange.read()
        exchange.read = lambda: request  # type: ignore[method-assign]  # a behaviour reads it, too
        kinds = ["graphql", _operation(request)] if request.path == "/graphql" else [_kind(request)]
        behaviour: Behaviour = well
        with self.lock:
            self.operations[kinds[-1]] += 1
            for kind in kinds:
                behaviour = self.lasting.get(kind, behaviour)
                if self.faults[kind]:
                    behaviour = self.faults[kind].popleft()
        behaviour(exchange)

    def _answer(self, request: Request) -> Answer:
        if request.path == "/control/runs":
            return Answer(200, {run.name: {"lines": len(run.lines)} for run in self.runs.values()})
        if found := _UPLOAD.fullmatch(request.path):  # signed addresses need no key
            self.runs[found[3]].files[found[4]] = request.body
            return Answer(200)
        if (
            request.headers.get("authorization", "")
            != "Basic " + base64.b64encode(b"api:" + self.key.encode()).decode()
        ):
            return Answer(401, {"errors": [{"message": "user is not logged in"}], "data": None})
        if request.path == "/graphql":
            return self._graphql(request)
        if found := _FILE_STREAM.fullmatch(request.path):
            sent = request.json()
            run = self.runs[found[3]]
            run.write(sent.get("files", {}))
            if sent.get("complete"):
                run.exit_code = sent.get("exitcode")
            return Answer(200, {"limits": {}})
        return Answer(404)

    def _graphql(self, request: Request) -> Answer:
        name = _operation(request)
        answer: Callable[[dict[str, Any]], dict[str, Any]] | None = getattr(self, f"_op_{name}", None)
        if answer is None:
            self.unknown[name] += 1
            return Answer(200, {"data": {}})
        return Answer(200, {"data": answer(request.json().get("variables") or {})})

    def _op_Viewer(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"viewer": {"id": "V", "entity": ENTITY, "username": ENTITY, "flags": "{}", "teams": {"edges": []}}}

    def _op_ServerFeaturesQuery(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def _op_RunStoppedStatus(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"run": {"stopped": False}}}

    def _op_RunResumeStatus(self, given: dict[str, Any]) -> dict[str, Any]:
        entity = given.get("entity") or ENTITY
        run = self.runs.get(given["name"])
        if run is None or (run.project, run.entity) != (given["project"], entity):
            return {
                "model": {"id": "M", "name": given["project"], "entity": {"id": "E", "name": entity}, "bucket": None}
            }
        last = run.lines.get(len(run.lines) - 1)
        bucket = {
            "id": run.name,
            "name": run.name,
            "displayName": run.facts.get("displayName"),
            "summaryMetrics": json.dumps(run.summary),
            "logLineCount": 0,
            "historyLineCount": len(run.lines),
            "eventsLineCount": len(run.events),
            "historyTail": json.dumps([last] if last else []),
            "eventsTail": "[]",
            "config": json.dumps(run.config),
            "tags": run.facts.get("tags") or [],
            "notes": run.facts.get("notes") or "",
            "wandbConfig": '{"t": 1}',
        }
        return {"model": {"id": "M", "name": run.project, "entity": {"id": "E", "name": entity}, "bucket": bucket}}

    def _op_UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:
        name, entity = given.get("name") or given["id"], given.get("entity") or ENTITY
        inserted = name not in self.runs
        run = self.runs.setdefault(name, StoredRun(entity, given.get("project") or "uncategorized", name))
        run.upserts += 1
        run.facts.update({key: value for key, value in given.items() if value not in (None, "", [])})
        if given.get("config"):
            run.config = json.loads(given["config"])
        if given.get("summaryMetrics"):
            run.summary = json.loads(given["summaryMetrics"])
        project = {"id": "P", "name": run.project, "entity": {"id": "E", "name": entity}}
        bucket = {"id": name, "name": name, "displayName": run.facts.get("displayName") or name, "project": project}
        return {
            "upsertBucket": {"bucket": {**bucket, "historyLineCount": len(run.lines)}, "inserted": inserted},
        }

    def _op_CreateRunFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        below = f"{self.url}/upload/{given['entity']}/{given['project']}/{given['run']}"
        files = [{"name": name, "uploadUrl": f"{below}/{name}"} for name in given["files"]]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}


class _Always:
    """A script that has the same behaviour for each connection."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour

    def popleft(self) -> Behaviour:
        return self._behaviour

    def __iter__(self) -> Iterator[Behaviour]:
        return iter([self._behaviour])


def _operation(request: Request) -> str:
    found = _OPERATION.search(request.json()["query"])
    return found[1] if found else "?"


def _kind(request: Request) -> str:
    return "file_stream" if request.path.endswith("/file_stream") else "other"


if __name__ == "__main__":
    with WandbServer() as server:
        print(server.url, flush=True)
        sys.stdin.read()
