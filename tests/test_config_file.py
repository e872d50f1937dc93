"""Trackers and backends from files and mappings: what they mean, what is wrong with them, what they keep of the environment, and who offers more."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cli_support import COMMAND
from support import lines, manifest, run_child, wait_until

import asynctrack
from asynctrack import ActionRequired, Context, JSONLines, Memory, MLflow, TensorBoard, Tracker, Trackio
from asynctrack.backends.base import Backend
from asynctrack.backends.registry import KINDS, class_of, from_stored, stored
from asynctrack.client.config_file import tracker_arguments
from asynctrack.errors import BackendUnavailable, InvalidSettings
from asynctrack.testing import JournaledRun

TREE: dict[str, Any] = {
    "project": "sweep",
    "dir": "runs",
    "finish_timeout_s": 5,
    "config": {"lr": 0.001, "layers": [64, 64]},
    "backends": [
        "jsonl",
        {"kind": "tensorboard", "flush_s": 2},
        {"_target_": "asynctrack.Memory", "_convert_": "all"},
        None,
        "disabled",
    ],
}
YAML = """
project: sweep
dir: runs
finish_timeout_s: 5
config: {lr: 0.001, layers: [64, 64]}
backends:
  - jsonl
  - kind: tensorboard
    flush_s: 2
  - {_target_: asynctrack.Memory, _convert_: all}
  - null
  - disabled
"""
TOML = """
project = "sweep"
dir = "runs"
finish_timeout_s = 5
backends = ["jsonl", {kind = "tensorboard", flush_s = 2}, {_target_ = "asynctrack.Memory"}, "disabled"]
[config]
lr = 0.001
layers = [64, 64]
"""


def problems_of(tree: object) -> list[str]:
    with pytest.raises(InvalidSettings) as caught:
        Tracker.from_config(tree)  # type: ignore[arg-type]  # what is wrong is the test's matter
    return list(caught.value.problems)


def backends_of(tree: object) -> list[Backend]:
    found: list[Backend] = tracker_arguments({"project": "p", "backends": tree})["backends"]
    return found


# What they mean


@pytest.mark.parametrize("source", ["mapping", "omegaconf", "c.yaml", "c.yml", "c.toml", "c.json"])
def test_configuration_means_the_same_in_every_form(tmp_path: Path, source: str) -> None:
    given: Any = TREE
    if source == "omegaconf":
        given = pytest.importorskip("omegaconf", reason="Hydra is not installed").OmegaConf.create(TREE)
    elif source != "mapping":
        given = tmp_path / source
        given.write_text({"json": json.dumps(TREE), "toml": TOML}.get(source[2:], YAML))
    arguments = tracker_arguments(given)
    assert arguments == {**TREE, "backends": [JSONLines(), TensorBoard(flush_s=2.0), Memory()]}
    assert type(arguments["config"]) is dict
    tracker = Tracker.from_config(given)
    assert (tracker.project, tracker.config) == ("sweep", TREE["config"])


def test_tracker_from_a_file_opens_runs(tmp_path: Path, runs: Path, shared_host: Path) -> None:
    path = tmp_path / "tracker.json"
    path.write_text(json.dumps({**TREE, "dir": str(runs)}))
    tracker = Tracker.from_config(str(path))
    run = tracker.init({"lr": 0.1})
    tracker.log({"loss": 0.5})
    stats = tracker.finish()
    assert stats is not None
    assert {name: backend_stats.delivered for name, backend_stats in stats.backends.items()} == dict.fromkeys(
        ["jsonl", "tensorboard", "memory"], 1
    )
    assert manifest(run.path)["config"] == {"lr": 0.1, "layers": [64, 64]}


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (["jsonl", {"kind": "jsonl", "file": "b.jsonl"}], [JSONLines(), JSONLines(file="b.jsonl")]),
        ({"jsonl": {}, "tensorboard": {"flush_s": 3.0}}, [JSONLines(), TensorBoard(flush_s=3.0)]),
        ({"jsonl": None, "all": {"kind": "jsonl"}, "memory": "disabled"}, [JSONLines()]),
        ({"tb": {"_target_": "asynctrack.backends.tensorboard.TensorBoard"}}, [TensorBoard()]),
        ({"kind": "jsonl", "file": "one.jsonl"}, [JSONLines(file="one.jsonl")]),
        ("jsonl", [JSONLines()]),
        (["asynctrack.Memory"], [Memory()]),
        ([JSONLines(file="made.jsonl")], [JSONLines(file="made.jsonl")]),
        ([], []),
        (None, []),
        ("disabled", []),
    ],
)
def test_backends_may_be_written_in_many_ways(tree: object, expected: list[Backend]) -> None:
    assert backends_of(tree) == expected


@pytest.mark.parametrize("nothing", [None, "disabled"])
def test_tracker_that_is_switched_off_does_nothing(
    tmp_path: Path, nothing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    empty = tmp_path / "empty.json"
    empty.write_text("null")
    for source in (nothing, empty):
        tracker = Tracker.from_config(source)
        tracker.init({"lr": 1})
        assert tracker.log({"x": 1})
        tracker.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["empty.json"]


def test_without_backends_the_defaults_are_taken() -> None:
    assert "backends" not in tracker_arguments({"project": "p"})


# What is wrong with them


def test_unknown_field_is_named_with_its_place_and_what_was_meant() -> None:
    tree = {"project": "p", "backends": [{"kind": "tensorboard", "flsh": 2}]}
    assert problems_of(tree) == ["unknown field `flsh` at `backends[0]`; did you mean `flush_s`?"]


WRONG: list[tuple[Any, str]] = [
    ({"project": "p", "projekt": "q"}, "unknown field `projekt`; did you mean `project`?"),
    ({}, "`project` is missing"),
    ([1], "expected a mapping of names to settings, got [1]"),
    ({"project": "p", "id": "twice"}, "unknown field `id`; there are project, name,"),
    ({"project": "a/b"}, "project names a directory"),
    ({"project": "p", "mode": "on"}, "mode must be one of 'online', 'offline', 'disabled'; got 'on'"),
    ({"project": "p", "tags": 3}, "tags must be a list of texts; got 3"),
    ({"project": "p", "finish_timeout_s": "soon"}, "finish_timeout_s must be a number; got 'soon'"),
    ({"project": "p", "config": [1]}, "config takes a mapping of names to values"),
    ({"project": "p", "_target_": "asynctrack.Memory"}, "`_target_` must be `asynctrack.Tracker`; got 'asynctrack.Memory'"),
    ({"project": "p", "backends": 3}, "expected the kind of a backend, or a mapping, got 3 at `backends`"),
    ({"project": "p", "backends": [{"flush_s": 2}]}, "say which backend it is, by either `kind` or `_target_` at `backends[0]`"),
    ({"project": "p", "backends": [{"kind": "jsonl", "_target_": "asynctrack.Memory"}]}, "by either `kind` or `_target_`"),
    ({"project": "p", "backends": ["tensorbord"]}, "unknown kind `tensorbord` at `backends[0]`; did you mean `tensorboard`?"),
    ({"project": "p", "backends": {"zzz": {}}}, "unknown kind `zzz` at `backends.zzz`; there are "),
    ({"project": "p", "backends": {"tensorboard": True}}, "or a mapping, got True at `backends.tensorboard`"),
    ({"project": "p", "backends": {"tensorboard": {"flush_s": "2"}}}, "backends.tensorboard.flush_s must be a number; got '2'"),
    ({"project": "p", "backends": ["no.such.Class"]}, "it cannot be imported: No module named 'no' at `backends[0]`"),
    ({"project": "p", "backends": [{"kind": "mlflow", "tags": {"a": [1]}}]}, "a value of backends[0].tags must be text; got a list"),
    ({"project": "p", "backends": [{"kind": "jsonl", "max_records_s": -1}]}, "max_records_s must be a number greater than 0; got -1.0 at `backends[0]`"),
    ({"project": "p", "backends": [{"kind": "jsonl", "references": {}}]}, "unknown field `references` at `backends[0]`"),
]  # fmt: skip


@pytest.mark.parametrize(("tree", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_is_wrong_is_said_with_its_place(tree: object, message: str) -> None:
    (problem,) = problems_of(tree)
    assert message in problem


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(
        """
        projct: p
        worker: fork
        backends:
          - {kind: tensorboard, flsh: 2, serve: 7}
          - {kind: jsonl, fil: x}
          - wandbb.Wandb
          - {kind: trackio, server_url: 'ftp://x', request_timeout_s: -1}
        """
    )
    with pytest.raises(InvalidSettings, match=r"^\d+ settings of .*wrong\.yaml cannot be used:") as caught:
        Tracker.from_config(path)
    text = "\n".join(caught.value.problems)
    for expected in (
        "unknown field `projct`; did you mean `project`?",
        "unknown field `flsh` at `backends[0]`; did you mean `flush_s`?",
        "backends[0].serve must be true or false; got 7",
        "unknown field `fil` at `backends[1]`; did you mean `file`?",
        "No module named 'wandbb' at `backends[2]`",
        "server_url must be the address of an HTTP server",
        "request_timeout_s must be a number of seconds greater than 0; got -1.0 at `backends[3]`",
        "`project` is missing",
    ):
        assert expected in text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.yaml", None, "it cannot be read: No such file or directory"),
        ("c.ini", "", "its name must end with .yaml, .yml, .toml or .json"),
        ("c.yaml", "a: [1", "it cannot be read as YAML: "),
        ("c.json", "{", "it cannot be read as JSON: "),
        ("c.toml", "a = ", "it cannot be read as TOML: "),
        ("c.json", b"\xff", "it cannot be read as JSON: "),
    ],
)
def test_file_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: str | bytes | None, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidSettings, match=f"of {path} cannot be used") as caught:
        Tracker.from_config(path)
    assert message in caught.value.problems[0]


def test_yaml_without_its_library_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("project: p")
    script = """
import sys
sys.modules["yaml"] = None
import asynctrack, json
try:
    asynctrack.Tracker.from_config(sys.argv[1])
except asynctrack.errors.InvalidSettings as error:
    print(json.dumps(str(error)))
"""
    path = tmp_path / "c.yaml"
    assert run_child(script, path) == (
        f"1 setting of {path} cannot be used:\n  - YAML needs PyYAML: pip install 'asynctrack[yaml]'"
    )


# What must not be constructed


class NotOne:
    """Would leave a trace if somebody called it."""

    made = 0

    def __init__(self, **_: object) -> None:
        type(self).made += 1


@pytest.mark.parametrize("key", ["kind", "_target_"])
@pytest.mark.parametrize(
    "target",
    ["os.system", "subprocess.Popen", "builtins.exec", f"{__name__}.NotOne", "asynctrack.init", "asynctrack.Backend", "asynctrack.Tracker"],
)  # fmt: skip
def test_nothing_but_a_backend_is_constructed(target: str, key: str) -> None:
    (problem,) = problems_of({"project": "p", "backends": [{key: target, "command": "touch /tmp/never"}]})
    assert problem.startswith(f"backend '{target}' cannot be opened: it is ")
    assert re.search(r"not the class of a backend|not a backend itself|not derived from asynctrack\.Backend", problem)
    assert NotOne.made == 0


@pytest.mark.parametrize("target", ["asynctrack.Memory.open", "..x", ".", "a.", "asynctrack.nothing", "os.path.join.x"])
def test_path_that_leads_to_no_class_is_refused(target: str) -> None:
    (problem,) = problems_of({"project": "p", "backends": [{"_target_": target}]})
    assert "cannot be opened: it cannot be imported" in problem


# The environment


@pytest.mark.parametrize("source", ["mapping", "omegaconf"])
def test_reference_is_what_run_json_keeps_and_its_value_what_the_sink_gets(
    runs: Path, own_host: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.setenv("LINES_FILE", "secret-4711.jsonl")
    monkeypatch.setenv("LINES_RATE", "2500")
    reference = "${oc.env:LINES_FILE}" if source == "omegaconf" else "${env:LINES_FILE}"
    tree: Any = {
        "project": "p",
        "dir": str(runs),
        "config": {"user": reference, "lr": 0.5},
        "backends": [{"kind": "jsonl", "file": reference, "max_records_s": reference.replace("FILE", "RATE")}],
    }
    if source == "omegaconf":
        omegaconf = pytest.importorskip("omegaconf", reason="Hydra is not installed").OmegaConf
        tree["config"]["lr"] = "${lr}"
        tree = omegaconf.create({"tracker": tree, "lr": 0.5}).tracker
    tracker = Tracker.from_config(tree)
    run = tracker.init()
    tracker.log({"x": 1})
    tracker.finish()
    assert lines(run.path, "secret-4711.jsonl")[0]["x"] == 1
    assert JSONLines in {type(backend) for backend in run.backends.values()}
    kept = manifest(run.path)
    assert kept["backends"]["jsonl"]["references"] == {
        "file": reference, "max_records_s": reference.replace("FILE", "RATE")
    }  # fmt: skip
    assert kept["config"] == {"user": reference, "lr": 0.5}
    assert "secret-4711" in repr(os.listdir(run.path))
    for file in [run.path / "run.json", run.path / "worker.log", *(run.path / "journal").iterdir()]:
        assert b"secret-4711" not in file.read_bytes()
    assert "secret-4711" not in repr(run.backends["jsonl"])
    assert reference in repr(run.backends["jsonl"])


def test_references_are_looked_up_within_texts_and_have_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "127.0.0.1:5000")
    monkeypatch.setenv("WHO", "me")
    monkeypatch.delenv("NOT_SET", raising=False)
    (backend,) = backends_of(
        [
            {
                "kind": "mlflow",
                "tracking_uri": "http://${env:HOST}/${env:NOT_SET,a}",
                "tags": {"user": "${env:WHO}", "plain": "x"},
                "request_timeout_s": "${env:NOT_SET,7}",
            }
        ]
    )
    assert isinstance(backend, MLflow)
    assert (backend.tracking_uri, backend.tags) == ("http://127.0.0.1:5000/a", {"user": "me", "plain": "x"})
    assert backend.request_timeout_s == 7.0
    kept = stored(backend, "r", "mlflow")
    assert kept["references"]["tags"] == {"user": "${env:WHO}", "plain": "x"}
    assert "tracking_uri" not in kept
    assert from_stored(json.loads(json.dumps(kept))) == backend


def test_key_is_never_looked_up_before_the_sink_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "hf_secret")
    (backend,) = backends_of([{"kind": "trackio", "server_url": "http://127.0.0.1:1", "write_token": "${env:MY_KEY}"}])
    assert isinstance(backend, Trackio)
    assert backend.write_token == "env:MY_KEY"
    assert "hf_secret" not in json.dumps(stored(backend, "r", "trackio"))
    assert backends_of([{"kind": "trackio", "write_token": "env:MY_KEY"}]) == [Trackio(write_token="env:MY_KEY")]


@pytest.mark.parametrize("token", ["hf_secret", "x${env:MY_KEY}", "${env:MY_KEY,hf_secret}"])
def test_key_that_is_written_down_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("MY_KEY", "hf_secret")
    (problem,) = problems_of({"project": "p", "backends": [{"kind": "trackio", "write_token": token}]})
    assert problem.startswith("write_token must be 'env:NAME'")
    assert "hf_secret" not in problem


def test_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    tree = {"project": "p", "dir": "${env:NOT_SET}/runs", "backends": [{"kind": "jsonl", "file": "${env:NOT_SET}"}]}
    assert problems_of(tree) == [
        "dir refers to NOT_SET, which is not set in the environment",
        "backends[0].file refers to NOT_SET, which is not set in the environment",
    ]


def test_what_is_wrong_with_a_value_is_said_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER", "ftp://user.secret")
    (problem,) = problems_of({"project": "p", "backends": [{"kind": "mlflow", "tracking_uri": "${env:SERVER}"}]})
    assert "got '${env:SERVER}'" in problem
    assert "secret" not in problem


def test_references_of_others_are_not_looked_up_without_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_KEY", "secret")
    kept = {"kind": "jsonl", "references": {"file": "${env:AWS_KEY}"}}
    assert from_stored(kept) == JSONLines(file="secret", references={"file": "${env:AWS_KEY}"})
    with pytest.raises(BackendUnavailable, match=r"it reads the environment; `asynctrack sync --trust` lets it"):
        from_stored(kept, trusted=False)
    monkeypatch.delenv("AWS_KEY")
    with pytest.raises(
        ActionRequired, match="it needs AWS_KEY: set it in the environment of the process that opens the run"
    ):
        from_stored(kept).open(Context(run_id="r", name="r", project="p", directory=Path(), config={}))


def test_what_goes_wrong_later_is_told_without_the_value(
    runs: Path, rough_host: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DATABASE", "sqlite://u:hunter22@x")
    plug_in(monkeypatch, tmp_path, "leaky", LEAKY, "leaky = leaky:Leaky")
    tracker = Tracker.from_config(
        {
            "project": "p",
            "dir": str(runs),
            "finish_timeout_s": 0.2,
            "backends": [{"kind": "leaky", "url": "${env:DATABASE}"}],
        }
    )
    run = tracker.init()
    tracker.log({"x": 1})
    wait_until(lambda: run.stats().backends["Leaky"].last_error, "it has failed")
    error = str(run.stats().backends["Leaky"].last_error)
    assert error == "OSError: cannot connect to ${env:DATABASE}"
    tracker.finish()
    for file in (path for path in run.path.rglob("*") if path.is_file()):
        assert b"hunter22" not in file.read_bytes(), file


LEAKY = """
import asynctrack

class Leaky(asynctrack.Backend, frozen=True, kw_only=True):
    '''Tells what it cannot connect to.'''
    execution = "worker"
    url: str

    def open(self, context):
        raise OSError(f"cannot connect to {self.url}")
"""


def test_run_that_is_behind_is_delivered_where_the_variable_is_set(
    tmp_path: Path, own_state: Path, monkeypatch: pytest.MonkeyPatch, shm: Path
) -> None:
    monkeypatch.setenv("LINES_FILE", "named.jsonl")
    (backend,) = backends_of([{"kind": "jsonl", "file": "${env:LINES_FILE}"}])
    with JournaledRun(tmp_path / "p" / "r", backends={"jsonl": backend}) as run:
        run.log({"x": 1})
        run.end("crashed")
    monkeypatch.delenv("LINES_FILE")
    script = """
import json, pathlib, sys, time
from asynctrack.cli.sync_job import SyncJob
with SyncJob([pathlib.Path(sys.argv[1])]) as work:
    while not (backend_stats := work.poll()[0].stats.backends["jsonl"]).paused:
        time.sleep(0.01)
print(json.dumps(backend_stats.last_error))
"""
    assert run_child(script, run.path).startswith("it needs LINES_FILE: set it in the environment of the process that")
    assert not (run.path / "named.jsonl").exists()
    monkeypatch.setenv("LINES_FILE", "named.jsonl")
    done = subprocess.run([*COMMAND, "sync", str(run.path)], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (0, "")
    assert lines(run.path, "named.jsonl")[0]["x"] == 1


# Hydra


def test_hydra_instantiates_backends_and_trackers() -> None:
    hydra = pytest.importorskip("hydra.utils", reason="Hydra is not installed")
    made = hydra.instantiate({"_target_": "asynctrack.TensorBoard", "flush_s": 0.5, "downsample_interval_s": 1.0})
    assert made == TensorBoard(flush_s=0.5, downsample_interval_s=1.0)
    tree = {
        "_target_": "asynctrack.Tracker",
        "project": "sweep",
        "backends": [{"_target_": "asynctrack.JSONLines"}, {"_target_": "asynctrack.Memory"}],
        "config": {"lr": 0.1},
    }
    by_hydra, by_us = hydra.instantiate(tree), Tracker.from_config(tree)
    assert (by_hydra.project, by_hydra.config) == (by_us.project, by_us.config) == ("sweep", {"lr": 0.1})


def test_hydras_tracker_opens_runs(runs: Path, shared_host: Path) -> None:
    hydra = pytest.importorskip("hydra.utils", reason="Hydra is not installed")
    tree = {
        "_target_": "asynctrack.Tracker",
        "project": "sweep",
        "dir": str(runs),
        "backends": [{"_target_": "asynctrack.JSONLines"}],
        "config": {"optimizer": {"lr": 0.1}, "layers": [1, 2]},
    }
    tracker = hydra.instantiate(tree)
    run = tracker.init()
    tracker.log({"x": 1})
    tracker.finish()
    assert manifest(run.path)["config"] == {"optimizer": {"lr": 0.1}, "layers": [1, 2]}
    assert len(lines(run.path)) == 1


# Plug-ins


SHOUTER = """
import asynctrack

class Shouter(asynctrack.Backend, frozen=True, kw_only=True):
    '''Writes every record in capitals.'''
    execution = "worker"
    needs = {"no_such_library": "shouter[loud]"} if __name__ == "needy" else {}
    suffix: str = "!"

    def open(self, context):
        return Sink(self, context)

class Sink(asynctrack.Sink):
    def __init__(self, settings, context):
        self.path, self.suffix = context.directory / "shouts", settings.suffix

    def write(self, batch):
        with open(self.path, "a") as file:
            file.writelines(f"{record.data}{self.suffix}\\n".upper() for record in batch.records)
"""


def plug_in(monkeypatch: pytest.MonkeyPatch, where: Path, name: str, code: str, *points: str) -> None:
    """Install a distribution of one module that offers backends."""
    where.mkdir(exist_ok=True)
    (where / f"{name}.py").write_text(textwrap.dedent(code))
    info = where / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[asynctrack.backends]\n" + "\n".join(points) + "\n")
    (info / "RECORD").write_text(f"{name}.py,,\n{name}-1.0.dist-info/METADATA,,\n")
    monkeypatch.syspath_prepend(where)
    monkeypatch.setenv("PYTHONPATH", f"{where}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")


@pytest.fixture
def plugged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where distributions are installed that offer backends: one works, one does not, one needs more, one would replace ours."""
    where = tmp_path / "site"
    plug_in(monkeypatch, where, "shouter", SHOUTER, "shouter = shouter:Shouter", "jsonl = shouter:Shouter")
    plug_in(monkeypatch, where, "broken", "raise RuntimeError('half installed')", "broken = broken:Broken")
    plug_in(monkeypatch, where, "needy", SHOUTER, "needy = needy:Shouter")
    plug_in(monkeypatch, where, "strange", "strange = print", "strange = strange:strange")
    return where


def test_backend_of_another_distribution_is_known_by_its_short_name(
    runs: Path, plugged: Path, own_host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with asynctrack.init("p", dir=runs, backends=["jsonl", "shouter"]) as run:
        run.log({"loss": 0.5})
    assert (run.path / "shouts").read_text() == "{'LOSS': 0.5}!\n"
    assert len(lines(run.path)) == 1
    assert manifest(run.path)["backends"]["Shouter"]["kind"] == "shouter.Shouter"
    (backend,) = backends_of([{"kind": "shouter", "suffix": "?"}])
    assert backend == class_of("shouter.Shouter")(suffix="?")  # type: ignore[call-arg]  # it has it
    monkeypatch.setenv("ASYNCTRACK_BACKENDS", "shouter")
    assert list(asynctrack.init("p", mode="disabled").backends) == ["Shouter"]
    asynctrack.finish()


def test_plug_in_that_is_broken_harms_only_who_asks_for_it(runs: Path, plugged: Path, own_host: Path) -> None:
    with pytest.raises(InvalidSettings, match=r"backends\[1\] is 'broken': it cannot be imported: half installed"):
        asynctrack.init("p", dir=runs, backends=["jsonl", "broken"])
    (problem,) = problems_of({"project": "p", "backends": ["broken"]})
    assert problem.endswith("it cannot be imported: half installed at `backends[0]`")
    with pytest.raises(BackendUnavailable, match="it is a function, and not the class of a backend"):
        class_of("strange")
    info = plugged / "garbled-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: garbled\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[asynctrack.backends]\nno entry point\n")
    with asynctrack.init("p", dir=runs, backends=["shouter"]) as run:
        run.log({"x": 1})
    assert run.stats().backends["Shouter"].delivered == 1


def test_plug_ins_do_not_replace_ours_and_are_among_what_may_have_been_meant(plugged: Path) -> None:
    assert class_of("jsonl") is JSONLines
    (problem,) = problems_of({"project": "p", "backends": ["shoutr"]})
    assert problem == "unknown kind `shoutr` at `backends[0]`; did you mean `shouter`?"
    with pytest.raises(
        InvalidSettings, match=r"must be a backend or one of .*jsonl, .*shouter.*; did you mean `shouter`"
    ):
        asynctrack.init("p", backends=["shoutr"])


@pytest.mark.system
def test_plug_ins_are_looked_at_only_when_a_name_is_not_ours(plugged: Path, runs: Path) -> None:
    script = """
import asynctrack, json, sys
tracker = asynctrack.Tracker.from_config({"project": "p", "dir": sys.argv[1], "backends": ["jsonl", "asynctrack.Memory"]})
run = tracker.init()
tracker.finish()
looked = "importlib.metadata" in sys.modules
asynctrack.Tracker.from_config({"project": "p", "backends": ["shouter"]})
print(json.dumps([looked, *(name in sys.modules for name in ("shouter", "broken", "needy", "strange"))]))
"""
    assert run_child(script, runs, PYTHONPATH=f"{plugged}{os.pathsep}{Path(asynctrack.__file__).parent.parent}") == [
        False, True, False, False, False
    ]  # fmt: skip


# The command


def listed(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, "backends", *arguments], capture_output=True, text=True, timeout=50)


@pytest.mark.system
def test_command_lists_every_backend_and_whether_it_works(plugged: Path) -> None:
    done = listed("--json")
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Mapping[str, Any]] = {entry["kind"]: entry for entry in json.loads(done.stdout)}
    assert found.keys() == {*KINDS, "shouter", "broken", "needy", "strange"}
    assert list(found)[: len(KINDS)] == sorted(KINDS)
    assert all(found[kind]["writes"] and found[kind]["offered_by"] == "asynctrack" for kind in KINDS)
    assert (found["jsonl"]["works"], found["jsonl"]["runs_in"], found["memory"]["runs_in"]) == (
        True,
        "worker",
        "caller",
    )
    assert found["trackio"]["install"] == ["asynctrack[trackio]"]
    assert found["trackio"]["runs_in"] == "process"
    assert found["shouter"]["offered_by"] == "shouter"
    assert found["shouter"]["writes"] == "Writes every record in capitals."
    assert found["needy"]["problem"] == "pip install 'shouter[loud]'"
    assert "half installed" in found["broken"]["problem"]
    assert "it is a function, and not the class" in found["strange"]["problem"]
    assert not any(found[kind]["works"] for kind in ("needy", "broken", "strange"))


@pytest.mark.system
def test_command_prints_a_table_and_what_to_do(plugged: Path) -> None:
    done = listed()
    assert (done.returncode, done.stderr) == (0, "")
    table, _, trouble = done.stdout.partition("What does not work here")
    (row,) = [line for line in table.splitlines() if line.startswith("jsonl ")]
    assert row.split(maxsplit=4)[1:4] == ["yes", "worker", "-"]
    assert "needy: pip install 'shouter[loud]'" in trouble
    assert "broken: backend 'broken' cannot be opened" in trouble


@pytest.mark.system
def test_library_that_is_missing_is_named_by_what_installs_it() -> None:
    code = "import sys; sys.modules['httpx2'] = None; from asynctrack import cli; sys.exit(cli.main(['backends', '--json']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    found = {entry["kind"]: entry for entry in json.loads(done.stdout)}
    assert found["mlflow"]["problem"] == "pip install 'asynctrack[mlflow]'"
