"""Trust: a run directory from elsewhere sends nothing anywhere, runs no code of its own, and writes nowhere but into itself."""

from __future__ import annotations

import os
import socket
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from delivery_support import cursor, journal, rough_shared_memory
from support import lines, run_child, wait_until

import asynctrack
from asynctrack import JSONLines
from asynctrack._system import trust
from asynctrack.backends.base import kind_of
from asynctrack.backends.registry import execution_of, from_stored, name_backends, stored
from asynctrack.cli import diagnostics
from asynctrack.cli.sync_job import SyncJob, SyncProgress
from asynctrack.errors import BackendUnavailable
from asynctrack.journal import manifest
from asynctrack.journal.cursor import cursor_path
from asynctrack.journal.manifest import Manifest
from asynctrack.testing import JournaledRun, Scripted, ScriptedInCaller, ScriptedInProcess, Trouble, deliver
from asynctrack.worker.policy import Policy

pytestmark = pytest.mark.usefixtures("own_state")

PRECIOUS = b"a line\n" * 20 + b"another, not whole"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    """A folder of ours beside the run."""
    with rough_shared_memory():
        yield tmp_path


@pytest.fixture
def precious(here: Path) -> Iterator[Path]:
    """A file of ours that a run from elsewhere would like to write to."""
    file = here / "precious"
    file.write_bytes(PRECIOUS)
    yield file
    assert file.read_bytes() == PRECIOUS


def from_elsewhere(here: Path, backends: dict[str, Any] | None = None, *, end: bool = True) -> Path:
    """A run that another has made, with what its `run.json` says of backends."""
    run = journal(here / "runs" / "p" / "theirs", 20, end=end)
    told = Manifest(id="theirs", name="theirs", project="p", created_at="", status="finished" if end else "running")
    manifest.save(run.path, told)
    content = msgspec.json.decode((run.path / "run.json").read_bytes())
    content["backends"] = {"jsonl": {"kind": "jsonl"}} if backends is None else backends
    (run.path / "run.json").write_bytes(msgspec.json.encode(content))
    return run.path


def sync(run: Path, seconds: float = 20.0, **policy: bool) -> SyncProgress:
    """`asynctrack sync` of a run, for some seconds at most."""
    deadline = time.monotonic() + seconds
    with SyncJob([run], Policy(**policy)) as work:
        work.poll()
        while not work.done and time.monotonic() < deadline:
            time.sleep(0.01)
            work.poll()
        (progress,) = work.poll()
    return progress


def test_run_from_elsewhere_is_delivered_to_its_own_directory(here: Path) -> None:
    run = from_elsewhere(here)
    assert sync(run).state == "done"
    assert [line["i"] for line in lines(run)] == list(range(20))


EVIL = """
from pathlib import Path
from asynctrack import JSONLines

Path(__file__).with_name("was imported").touch()

class Evil(JSONLines, frozen=True, kw_only=True):
    pass
"""


@pytest.fixture
def evil(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that code leaves when it is imported, from a module that could be."""
    folder = here / "modules"
    folder.mkdir()
    (folder / "evil_backend.py").write_text(EVIL)
    monkeypatch.syspath_prepend(folder)
    yield folder / "was imported"
    sys.modules.pop("evil_backend", None)


@pytest.mark.parametrize(
    "kind", ["evil_backend.Evil", "evil_backend", "asynctrack.testing.scripted.Scripted", "", "no"]
)
def test_code_that_a_run_names_is_not_imported(kind: str, here: Path, evil: Path) -> None:
    run = from_elsewhere(here, {"jsonl": {"kind": "jsonl"}, "evil": {"kind": kind}})
    progress = sync(run)
    assert progress.state == "done"
    assert "`asynctrack sync --trust` runs it" in progress.left_out["evil"]
    assert not evil.exists()
    assert len(lines(run)) == 20
    assert not cursor_path(run, "evil").exists()


def test_code_that_a_run_names_is_imported_when_it_is_trusted(here: Path, evil: Path) -> None:
    run = from_elsewhere(here, {"evil": {"kind": "evil_backend.Evil", "file": "theirs.jsonl"}})
    progress = sync(run, trust=True)
    assert (progress.state, progress.left_out) == ("done", {})
    assert evil.exists()
    assert len(lines(run, "theirs.jsonl")) == 20


@pytest.mark.parametrize("file", ["../../../escaped", "{here}/escaped", "a/../../../../escaped", "sub/escaped"])
def test_file_outside_of_the_run_is_not_written(file: str, here: Path) -> None:
    (here / "runs" / "p" / "theirs" / "sub").mkdir(parents=True)
    run = from_elsewhere(here, {"jsonl": {"kind": "jsonl", "file": file.format(here=here)}})
    progress = sync(run)
    assert "`asynctrack sync --trust` goes there" in progress.left_out["jsonl"]
    assert not list(here.rglob("escaped*"))
    if ".." not in file and "sub" not in file:
        assert sync(run, trust=True).state == "done"
        assert len((here / "escaped").read_bytes().splitlines()) == 20


@pytest.mark.system
@pytest.mark.parametrize("name", ["metrics.jsonl", "lock", "cursors/jsonl.lock", "cursors/.jsonl.json.new"])
def test_link_in_place_of_a_file_is_not_followed(name: str, here: Path, precious: Path) -> None:
    run = from_elsewhere(here)
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).symlink_to(precious)
    sync(run, seconds=0.5)


def test_link_in_place_of_the_dead_letters_is_not_followed(here: Path, precious: Path) -> None:
    run = from_elsewhere(here)
    (run / "dead_letters.jsonl").symlink_to(precious)
    with pytest.raises(TimeoutError):
        deliver(run, Scripted(troubles=(Trouble(does="refuse", step=3, times=None),)), timeout_s=0.5)
    assert "Too many levels of symbolic links" in str(cursor(run).last_error)


@pytest.mark.parametrize("ends", [True, False])
def test_link_in_place_of_a_segment_is_not_cut(ends: bool, here: Path, precious: Path) -> None:
    run = from_elsewhere(here, end=ends)
    (run / "journal" / "000002.atj").symlink_to(precious)
    sync(run, seconds=0.5)


@pytest.mark.parametrize("name", ["cursors", "journal"])
def test_link_in_place_of_a_folder_is_not_written_through(name: str, here: Path) -> None:
    run = from_elsewhere(here, end=False)
    ours = journal(here / "runs" / "p" / "ours", 5, end=False).path
    (ours / "cursors").mkdir()
    (ours / "cursors" / "jsonl.json").write_bytes(msgspec.json.encode(cursor(ours, "x")))
    if (run / name).exists():
        (run / name).rename(run / "aside")
    (run / name).symlink_to(ours / name)
    before = {path: path.read_bytes() for path in ours.rglob("*") if path.is_file()}
    sync(run, seconds=0.5)
    assert {path: path.read_bytes() for path in ours.rglob("*") if path.is_file()} == before


def test_state_of_a_cursor_leads_nowhere_else(here: Path, precious: Path) -> None:
    run = from_elsewhere(here)
    found = cursor(run, "jsonl")
    found.state = {"file": "../../../precious", "bytes": 0}
    cursor_path(run, "jsonl").parent.mkdir()
    cursor_path(run, "jsonl").write_bytes(msgspec.json.encode(found))
    assert sync(run).state == "done"
    assert (run / "precious").exists()


@pytest.mark.parametrize("name", ["../../../escaped", "/tmp/escaped", "a/b", "", ".", "jsonl\n"])
def test_name_that_is_a_path_is_none(name: str, here: Path) -> None:
    run = from_elsewhere(here, {name: {"kind": "jsonl"}, "jsonl": {"kind": "jsonl"}})
    progress = sync(run)
    assert list(progress.stats.backends) == ["jsonl"]
    assert not list(here.rglob("escaped*"))


def test_no_address_of_a_run_is_contacted(here: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.setblocking(False)
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        theirs = {
            "mlflow": {"kind": "mlflow", "tracking_uri": url},
            "trackio": {"kind": "trackio", "server_url": url, "write_token": "env:HOME"},
            "tensorboard": {"kind": "tensorboard", "dir": str(here / "escaped")},
        }
        progress = sync(from_elsewhere(here, theirs))
        assert set(progress.left_out) == set(theirs)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert not (here / "escaped").exists()


# Seals


def sealed(run_id: str = "a", name: str = "scripted", **settings: Any) -> dict[str, Any]:
    return stored(Scripted(**settings), run_id, name)


def test_seal_is_good_for_these_settings_in_this_run_under_this_name(own_state: Path) -> None:
    settings = sealed(file="x.jsonl")
    assert trust.is_sealed("a", "scripted", settings)
    kept = msgspec.json.decode(msgspec.json.encode(settings))
    assert trust.is_sealed("a", "scripted", kept)
    assert from_stored(kept) == Scripted(file="x.jsonl")
    assert not trust.is_sealed("b", "scripted", settings)
    assert not trust.is_sealed("a", "scripted-2", settings)
    for changed in ({"file": "y.jsonl"}, {"kind": "jsonl"}, {"more": 1}, {"seal": ""}, {"seal": None}, {"seal": 1}):
        assert not trust.is_sealed("a", "scripted", {**settings, **changed})
    assert not trust.is_sealed("a", "scripted", {key: settings[key] for key in settings if key != "seal"})


def test_what_stays_in_the_run_needs_no_seal(own_state: Path) -> None:
    assert "seal" not in stored(JSONLines(), "a", "jsonl")
    assert "seal" in stored(JSONLines(file="/elsewhere/x"), "a", "jsonl")
    assert not (own_state / "asynctrack").exists() or (own_state / "asynctrack" / "key").exists()


def test_sealed_run_is_delivered_without_asking_and_a_changed_one_is_not(here: Path) -> None:
    run = from_elsewhere(here, {"mine": stored(Scripted(), "theirs", "mine")})
    content = (run / "run.json").read_bytes()
    (run / "run.json").write_bytes(content.replace(b'"mine":{', b'"mine":{"file":"changed",'))
    assert list(sync(run).left_out) == ["mine"]
    (run / "run.json").write_bytes(content)
    assert sync(run).state == "done"
    assert cursor(run, "mine").delivered == 20
    assert not (run / "changed").exists()


def test_key_is_for_its_owner_alone(own_state: Path) -> None:
    settings = sealed()
    key = own_state / "asynctrack" / "key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert os.listdir(key.parent) == ["key"]
    for mode in (0o640, 0o604, 0o620, 0o660, 0o666):
        key.chmod(mode)
        assert not trust.is_sealed("a", "scripted", settings)
        assert sealed()["seal"] == ""
    key.chmod(0o600)
    assert trust.is_sealed("a", "scripted", settings)
    os.chown(key, 54321, -1)
    assert not trust.is_sealed("a", "scripted", settings)


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_key_of_the_wrong_size_is_none(content: bytes, own_state: Path) -> None:
    key = own_state / "asynctrack" / "key"
    key.parent.mkdir(parents=True)
    key.write_bytes(content)
    key.chmod(0o600)
    assert sealed()["seal"] == ""
    assert not trust.is_sealed("a", "scripted", sealed())


def test_key_is_not_looked_for_behind_a_link(own_state: Path, tmp_path: Path) -> None:
    settings = sealed()
    key = own_state / "asynctrack" / "key"
    key.rename(tmp_path / "key")
    key.symlink_to(tmp_path / "key")
    assert not trust.is_sealed("a", "scripted", settings)


def test_without_a_home_nothing_is_sealed_nor_taken_from_the_current_folder(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = sealed()
    monkeypatch.chdir(here)
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "relative")
    (here / "relative" / ".local").mkdir(parents=True)
    (here / "state").rename(here / "relative" / ".local" / "state")
    assert not trust.is_sealed("a", "scripted", settings)
    assert sealed()["seal"] == ""
    monkeypatch.setenv("XDG_STATE_HOME", "relative/.local/state")
    assert not trust.is_sealed("a", "scripted", settings)


def test_without_a_home_a_run_of_ones_own_is_delivered_by_its_worker(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nowhere")
    backend = Scripted(file="mine.jsonl")
    with asynctrack.init("p", dir=here / "runs", backends=[backend]) as run:
        run.log({"i": 0})
    assert run.finish().backends["Scripted"].delivered == 1


# What can be stored


class Outer:
    class Nested(Scripted, frozen=True, kw_only=True):
        pass


def test_what_cannot_be_imported_elsewhere_runs_in_its_caller() -> None:
    class Local(Scripted, frozen=True, kw_only=True):
        pass

    made: dict[str, Any] = {"__name__": "made", "Scripted": Scripted}
    exec("class Made(Scripted, frozen=True, kw_only=True): pass", made)
    for backend in (Local(), Outer.Nested(), made["Made"](), ScriptedInCaller()):
        assert execution_of(backend) == "caller"
        kept = stored(backend, "a", "x")
        assert (kept["kind"], kept["execution"]) == (kind_of(backend), "caller")
        assert ("class" in kept) == (type(backend) is ScriptedInCaller)
        with pytest.raises(BackendUnavailable, match="lives in the process that logs"):
            from_stored(kept)
    assert (execution_of(Scripted()), execution_of(ScriptedInProcess())) == ("worker", "process")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "jsonl", "file": 3}, "file must be text; got 3"),
        ({"kind": "jsonl", "max_records_s": -1}, "max_records_s"),
        ({"kind": "jsonl", "max_records_s": "fast"}, "max_records_s must be .*; got 'fast'"),
        ({"kind": "os.path.join"}, "it is a function, and not the class of a backend"),
        ({"kind": "no.such.module"}, "it cannot be imported"),
        ({"kind": "this"}, "there is none of this name"),
        ({}, "there is none of this name"),
    ],
)
def test_settings_that_are_no_backends_are_told(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(BackendUnavailable, match=said):
        from_stored(settings)


@pytest.mark.parametrize("code", ["raise ValueError('broken')", "import sys; sys.exit(1)", "def broken(:", "1/0"])
def test_module_that_fails_when_it_is_imported_is_told(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_backend.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendUnavailable, match="cannot be imported"):
        from_stored({"kind": "broken_backend.Broken"})


def test_names_of_backends_are_names_of_files() -> None:
    odd = Scripted.__class__("Größe", (Scripted,), {"__module__": __name__}, frozen=True, kw_only=True, tag="../x y")
    assert list(name_backends([odd(), odd(), "jsonl"])) == ["_x_y", "_x_y-2", "jsonl"]


def test_file_beside_a_named_one_stays_beside_it_when_the_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    backend = JSONLines(file=str(tmp_path / "logs" / "x.jsonl"))
    with JournaledRun(tmp_path / "p" / "a") as run:
        for step in range(20):
            run.log({"i": step}, step)
            if step in (9, 19):
                run.journal()
                deliver(run.path, backend)
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["x.jsonl"]
    assert len((tmp_path / "logs" / "x.jsonl").read_bytes().splitlines()) == 20


def test_live_run_of_ones_own_may_go_where_it_likes(own_host: Path, runs: Path, tmp_path: Path) -> None:
    backend = JSONLines(file=str(tmp_path / "mine.jsonl"))
    with asynctrack.init("p", dir=runs, backends=[backend]) as run:
        run.log({"i": 0})
    assert run.finish().backends["jsonl"].delivered == 1
    wait_until((tmp_path / "mine.jsonl").exists, "the file is there")


@pytest.mark.system
@pytest.mark.parametrize("worker", ["process", "thread"])
def test_files_logged_by_path_are_copied_where_no_key_can_be_kept(worker: str, own_host: Path, tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text("weights")
    (tmp_path / "no-home").touch()
    run_child(
        """
import sys
import asynctrack
from asynctrack.cli import diagnostics
before = asynctrack.Artifact("early", path=sys.argv[1] + "/m.txt")
run = asynctrack.init(project="p", id="r", dir=sys.argv[1] + "/runs", worker=sys.argv[2])
run.log({"early": before, "late": asynctrack.Artifact("late", path=sys.argv[1] + "/m.txt")})
run.finish()
""",
        tmp_path,
        worker,
        XDG_STATE_HOME=str(tmp_path / "no-home" / "state"),
    )
    copies = [path for path in (tmp_path / "runs" / "p" / "r" / "media").rglob("*") if path.is_file()]
    assert [path.read_text() for path in copies if path.name.endswith("m.txt")]
    assert not [path for path in copies if "missing" in path.name]


def test_doctor_says_that_no_key_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert diagnostics._key().status == "ok"
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file" / "state"))
    found = diagnostics._key()
    assert found.status == "warning"
    assert "XDG_STATE_HOME" in found.message
