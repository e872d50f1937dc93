"""Where a run comes from: what is kept of commit, script, packages and machine, how it is switched off, and that nothing is left where it cannot be kept."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support import DEADLINE_S, ROOT, wait_until

import asynctrack
from asynctrack._system.spawn import spawn
from asynctrack.errors import InvalidSettings
from asynctrack.journal.environment_file import Environment
from asynctrack.journal.manifest import now_iso
from asynctrack.provenance import scheduler
from asynctrack.reading.opening import open_run
from asynctrack.settings import Settings
from asynctrack.worker.provenance import Provenance

pytestmark = pytest.mark.usefixtures("own_host")
IDENTITY = ("-c", "user.name=a", "-c", "user.email=a@b")
SCRIPT = """
import sys, asynctrack
run = asynctrack.init("p", id=sys.argv[1], dir=sys.argv[2])
run.log({"loss": 1.0})
"""


@pytest.fixture
def switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCTRACK_ENVIRONMENT", "1")


def git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *IDENTITY, *arguments], cwd=directory, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def repository(path: Path) -> Path:
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    (path / "model.py").write_text("layers = 1\n")
    (path / "train.py").write_text(SCRIPT)
    git(path, "add", ".")
    git(path, "commit", "-q", "-m", "first")
    return path


def run_script(code: Path, runs: Path, run: str = "a", *, more: tuple[str, ...] = (), **variables: str) -> Path:
    done = subprocess.run(
        [sys.executable, str(code / "train.py"), run, str(runs), *more],
        cwd=code, env={**os.environ, "PYTHONPATH": str(ROOT), "ASYNCTRACK_ENVIRONMENT": "1", **variables}, capture_output=True, text=True, timeout=DEADLINE_S,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return runs / "p" / run


def environment_of(run: Path) -> Environment:
    wait_until(lambda: open_run(run).environment is not None, "where the run comes from")
    found = open_run(run).environment
    assert found is not None
    return found


@pytest.mark.system
def test_a_run_keeps_where_it_comes_from_and_its_code_can_be_had_again(tmp_path: Path, runs: Path) -> None:
    code = repository(tmp_path / "code")
    git(code, "remote", "add", "origin", "https://me:secret@example.org/code.git")
    (code / "model.py").write_text("layers = 2\n")
    (code / "new.py").write_text("new\n")
    git(code, "add", "new.py")
    run = run_script(code, runs, more=("--lr", "0.1", "--api-key", "abc"), SLURM_JOB_ID="17", MY_TOKEN="hunter22")
    found = environment_of(run)
    assert found.git is not None
    assert (found.git.commit, found.git.branch, found.git.dirty) == (git(code, "rev-parse", "HEAD"), "main", True)
    assert (found.git.remote, found.git.root) == ("https://example.org/code.git", str(code))
    assert found.arguments == [str(code / "train.py"), "a", str(runs), "--lr", "0.1", "--api-key", "***"]
    assert (found.script, found.directory) == (str(code / "train.py"), str(code))
    assert (found.host, found.python) == (os.uname().nodename, ".".join(map(str, sys.version_info[:3])))
    assert found.packages is not None
    assert found.packages["msgspec"]
    assert found.scheduler == {"SLURM_JOB_ID": "17"}
    assert found.cpu is not None
    assert found.gpus is not None
    assert found.memory_bytes
    assert found.git.diff_bytes == (run / "uncommitted.diff").stat().st_size
    assert [(run / name).stat().st_mode & 0o777 for name in ("environment.json", "uncommitted.diff")] == [0o600, 0o600]
    again = tmp_path / "again"
    git(tmp_path, "clone", "-q", str(code), str(again))
    git(again, "checkout", "-q", found.git.commit or "")
    git(again, "apply", str(run / "uncommitted.diff"))
    assert ((again / "model.py").read_text(), (again / "new.py").read_text()) == ("layers = 2\n", "new\n")
    assert b"hunter22" not in b"".join(path.read_bytes() for path in run.iterdir() if path.is_file())


@pytest.mark.parametrize("switch", [{"environment": False}, {"settings": {"environment": False}}])
def test_a_run_keeps_nothing_where_it_is_not_to(runs: Path, switched_on: None, switch: dict[str, Any]) -> None:
    with asynctrack.init("p", dir=runs, **switch) as off:
        off.log({"loss": 1.0})
    with asynctrack.init("p", dir=runs) as on:
        on.log({"loss": 1.0})
    environment_of(on.path)
    assert open_run(off.path).environment is None
    assert "directory" not in open_run(off.path).manifest().environment


@pytest.mark.system
@pytest.mark.parametrize("by", ["variable", "argument"])
def test_the_changes_have_a_switch_of_their_own(tmp_path: Path, runs: Path, by: str) -> None:
    code = repository(tmp_path / "code")
    (code / "model.py").write_text("layers = 2\n")
    if by == "argument":
        (code / "train.py").write_text(SCRIPT.replace("dir=", "diff=False, dir="))
    run = run_script(code, runs, ASYNCTRACK_ENVIRONMENT="nodiff" if by == "variable" else "1")
    found = environment_of(run).git
    assert found is not None
    assert (found.dirty, found.diff_bytes, (run / "uncommitted.diff").exists()) == (True, None, False)


@pytest.mark.parametrize(
    ("said", "expected"), [("0", (False, True)), ("off", (False, True)), ("1", (True, True)), ("nodiff", (True, False)), ("", (True, True))]
)  # fmt: skip
def test_the_variable_is_the_default_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, said: str, expected: tuple[bool, bool]
) -> None:
    monkeypatch.setenv("ASYNCTRACK_ENVIRONMENT", said)
    found = Settings.build({})
    assert (found.environment, found.diff) == expected
    assert Settings.build({"environment": True, "diff": True}).diff


def test_a_variable_that_says_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCTRACK_ENVIRONMENT", "maybe")
    with pytest.raises(
        InvalidSettings,
        match="environment must be True or False; got 'maybe' from the environment's ASYNCTRACK_ENVIRONMENT",
    ):
        asynctrack.init("p", mode="disabled")
    asynctrack.init("p", mode="disabled", environment=False).finish()


@pytest.mark.system
@pytest.mark.parametrize("worker", ["process", "thread"])
def test_processes_that_end_at_once_keep_it_too(tmp_path: Path, runs: Path, worker: str) -> None:
    code = repository(tmp_path / "code")
    (code / "train.py").write_text(SCRIPT.replace("dir=", f"worker={worker!r}, dir="))
    found = environment_of(run_script(code, runs))
    assert found.git is not None
    assert found.git.branch == "main"


@pytest.mark.system
def test_a_killed_process_keeps_it_too(tmp_path: Path, runs: Path) -> None:
    code = repository(tmp_path / "code")
    (code / "train.py").write_text(SCRIPT + "\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    subprocess.run(
        [sys.executable, "train.py", "a", str(runs)],
        cwd=code,
        env={**os.environ, "PYTHONPATH": str(ROOT), "ASYNCTRACK_ENVIRONMENT": "1"},
        timeout=DEADLINE_S,
        check=False,
    )
    assert environment_of(runs / "p" / "a").directory == str(code)


@pytest.mark.system
@pytest.mark.parametrize("worker", ["process", "thread"])
def test_many_runs_of_a_process_are_looked_at_once(
    runs: Path, switched_on: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, worker: Any
) -> None:
    fake = tmp_path / "bin"
    fake.mkdir()
    real = shutil.which("git")
    (fake / "git").write_text(
        f'#!/bin/sh\ncase "$*" in *show-toplevel*) echo $PPID >>{tmp_path}/asked;; esac\nexec {real} "$@"\n'
    )
    (fake / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake}:{os.environ['PATH']}")
    monkeypatch.chdir(repository(tmp_path / "code"))
    # One is open all along: else the worker may leave between two of them, and the next worker looks anew.
    with asynctrack.init("p", id="all along", dir=runs, worker=worker) as held:
        opened = [held.path]
        for number in range(8):
            with asynctrack.init("p", id=f"r{number}", dir=runs, worker=worker) as run:
                run.log({"loss": 1.0})
            opened.append(run.path)
    assert {environment_of(run).directory for run in opened} == {str(tmp_path / "code")}
    assert len(set((tmp_path / "asked").read_text().split())) == 1  # each look is a process


@pytest.mark.system
def test_a_resumed_run_keeps_what_an_earlier_session_came_from(tmp_path: Path, runs: Path) -> None:
    code = repository(tmp_path / "code")
    (code / "model.py").write_text("layers = 2\n")
    (code / "train.py").write_text(SCRIPT.replace("dir=", "resume='allow', dir="))
    for number in range(3):
        if number == 2:
            (code / "model.py").write_text("layers = 3\n")
        run = run_script(code, runs)
        wait_until(lambda: is_of_last_session(runs / "p" / "a"), "where this session comes from")
    reader = open_run(run)
    assert len(reader.earlier_environments) == 1  # the first and the second session differ in nothing
    assert b"layers = 3" in (run / "uncommitted.diff").read_bytes()
    assert b"layers = 2" in (run / "uncommitted.1.diff").read_bytes()


def is_of_last_session(run: Path) -> bool:
    reader = open_run(run)
    found = reader.environment
    return found is not None and found.opened_at == reader.manifest().environment["opened_at"]


@pytest.mark.system
def test_a_removed_or_renamed_run_is_not_made_again(tmp_path: Path, runs: Path) -> None:
    code = repository(tmp_path / "code")
    slow = tmp_path / "bin"
    slow.mkdir()
    (slow / "git").write_text(
        f'#!/bin/sh\n: >>{tmp_path}/asked\nuntil [ -e {tmp_path}/moved ]; do sleep 0.02; done\nexec {shutil.which("git")} "$@"\n'
    )
    (slow / "git").chmod(0o755)
    run = run_script(code, runs, PATH=f"{slow}:{os.environ['PATH']}")
    wait_until((tmp_path / "asked").exists, "git")
    run.rename(runs / "p" / "moved")
    (runs / "p" / "a").mkdir()
    (tmp_path / "moved").touch()
    environment_of(runs / "p" / "moved")
    assert list((runs / "p" / "a").iterdir()) == []
    wait_until(lambda: not collecting(), "its end")
    for name in ("asked", "moved"):
        (tmp_path / name).unlink()
    gone = run_script(code, runs, "gone", PATH=f"{slow}:{os.environ['PATH']}")
    wait_until((tmp_path / "asked").exists, "git")
    shutil.rmtree(gone)
    (tmp_path / "moved").touch()
    wait_until(lambda: not collecting(), "its end")
    assert not gone.exists()


def collecting() -> list[int]:
    """The processes that find out where runs come from."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if b"provenance/main.py" in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def start_collecting(run: Path, directory: Path, **variables: str) -> subprocess.Popen[bytes]:
    """Start the process as a worker does, for one run."""
    status = run.stat()
    job = {"sys_path": sys.path, "directory": str(directory), "script": None, "diff": True, "prefixes": []}
    order = {"number": 0, "run": str(run), "identity": [status.st_dev, status.st_ino], "facts": {"opened_at": str(run)}}
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(ROOT / "asynctrack/provenance/main.py")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **variables}, start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(json.dumps(job).encode() + b"\n" + json.dumps(order).encode() + b"\n")
    process.stdin.flush()
    return process


def end_of(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    return process.communicate(timeout=DEADLINE_S)


def noted(provenance: Provenance, run: Path) -> None:
    run.mkdir()
    environment = {"directory": str(run.parent), "opened_at": now_iso()}
    provenance.note(str(run), environment, {"environment": 1.0, "diff": 0.0})


def test_worker_that_ends_at_once_has_said_what_is_to_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asynctrack.worker.provenance.start_thread", lambda _: None)  # none has a turn any more
    noted(Provenance(), tmp_path / "run")
    wait_until(lambda: (tmp_path / "run" / "environment.json").exists(), "where the run comes from")


def test_search_that_was_killed_is_not_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provenance, started = Provenance(), []

    def start(script: str, *arguments: Any, **settings: Any) -> None:
        started.append(script)  # the first is a process that ends at once, and says nothing
        spawn(script if len(started) > 1 else "provenance/__init__.py", *arguments, **settings)

    monkeypatch.setattr("asynctrack.worker.provenance.spawn", start)
    noted(provenance, tmp_path / "first")
    (search,) = provenance._looks.values()
    wait_until(lambda: search._found is not None, "that it has ended is known")
    noted(provenance, tmp_path / "second")
    wait_until(lambda: (tmp_path / "second" / "environment.json").exists(), "where the second run comes from")
    assert len(started) == 2 and not (tmp_path / "first" / "environment.json").exists()


@pytest.mark.system
def test_killed_at_any_time_it_leaves_whole_files_or_none(tmp_path: Path) -> None:
    code = repository(tmp_path / "code")
    (code / "model.py").write_text("x = 1\n" * 100_000)
    whole = 0
    for number in range(30):
        run = tmp_path / str(number)
        run.mkdir()
        process = start_collecting(run, code)
        time.sleep(0.008 * number)
        process.send_signal(signal.SIGKILL)
        end_of(process)
        left = {path.name for path in run.iterdir()}
        assert left <= {"environment.json", "uncommitted.diff"}
        if "environment.json" in left:
            whole += 1
            found = open_environment(run)
            assert found.git is not None
            assert found.git.diff_bytes == (run / "uncommitted.diff").stat().st_size
    assert whole < 30


def open_environment(run: Path) -> Environment:
    from asynctrack.journal import environment_file

    found = environment_file.load(run)
    assert found is not None
    return found


@pytest.mark.system
def test_where_git_does_not_end_the_rest_is_kept_within_the_deadline(tmp_path: Path) -> None:
    stuck = tmp_path / "bin"
    stuck.mkdir()
    (stuck / "git").write_text(f"#!/bin/sh\necho $$ >>{tmp_path}/pids\nexec sleep 1000\n")
    (stuck / "git").chmod(0o755)
    run = tmp_path / "run"
    run.mkdir()
    began = time.monotonic()
    _, errors = end_of(start_collecting(run, tmp_path, PATH=f"{stuck}:/usr/bin:/bin"))
    assert time.monotonic() - began < 11
    assert (errors, open_environment(run).git) == (b"", None)
    assert open_environment(run).packages
    pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the end of git")


@pytest.mark.system
def test_it_comes_after_everything_else(tmp_path: Path) -> None:
    stuck = tmp_path / "bin"
    stuck.mkdir()
    (stuck / "git").write_text("#!/bin/sh\nexec sleep 1000\n")
    (stuck / "git").chmod(0o755)
    (tmp_path / "run").mkdir()
    path = f"{stuck}:/usr/bin:/bin"
    process = start_collecting(tmp_path / "run", tmp_path, PATH=path, ASYNCTRACK_PRIORITY="")
    try:
        wait_until(lambda: os.getpriority(os.PRIO_PROCESS, process.pid) == 19, "a low priority")
    finally:
        process.kill()
        end_of(process)


def test_a_program_in_the_current_directory_is_not_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from asynctrack.provenance.git_command import find_program

    (tmp_path / "git").write_text("#!/bin/sh\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", ":.")
    assert find_program("git") is None


def test_no_variable_of_a_scheduler_is_kept_that_is_not_listed() -> None:
    given = {"SLURM_JOB_ID": "7", "SLURM_JWT": "eyJhbGciOiJIUzI1NiJ9", "RANK": "", "SLURM_JOB_NAME": "x\x1b[31m"}
    assert scheduler.find_variables(given) == {"SLURM_JOB_ID": "7"}
    assert not [name for name in scheduler.VARIABLES if "TOKEN" in name or "KEY" in name or "JWT" in name]
