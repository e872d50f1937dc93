"""A worker that cannot start is noticed and told, and threads of the calling process do its work: nothing is lost."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support import ROOT, assert_whole, left_in, manifest, start

import asynctrack

CALLER = """
import os, sys, time
BEFORE
import asynctrack

start = time.monotonic()
run = asynctrack.init("p", id="run", dir=sys.argv[1])
for i in range(300):
    assert run.log({"i": i})
AFTER
stats = run.finish()
assert time.monotonic() - start < 15
assert (stats.journaled, stats.backends["jsonl"].delivered) == (300, 300), stats
"""


def said(runs: Path, before: str = "", after: str = "", path: Path = ROOT) -> str:
    """What a caller says, all whose records are there."""
    child = start(CALLER.replace("BEFORE", before).replace("AFTER", after), runs, PYTHONPATH=str(path))
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, out + err
    assert manifest(runs / "p" / "run")["status"] == "finished"
    assert_whole(runs / "p" / "run", {"i": 300})
    return err


def in_archive(folder: Path) -> Path:
    archive = folder / "app.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in (ROOT / "asynctrack").rglob("*.py"):
            file.write(path, path.relative_to(ROOT))
    return archive


@pytest.mark.system
def test_package_in_an_archive_works_with_threads(own_host: Path, runs: Path, tmp_path: Path) -> None:
    err = said(runs, path=in_archive(tmp_path))
    assert err.count("\n") == 1
    assert "no worker process can be started here (the package lies in an archive" in err


@pytest.mark.system
@pytest.mark.parametrize("name", ["/bin/true", "/no/such/python", ""])
def test_executable_that_is_no_python_is_made_up_for(own_host: Path, runs: Path, name: str) -> None:
    """As in a program that has Python built in: an interpreter of the same installation is taken."""
    assert said(runs, f"sys.executable = {name!r}") == ""


def test_no_interpreter_at_all_is_told(own_host: Path, runs: Path) -> None:
    err = said(runs, "sys.executable = sys._base_executable = '/usr/bin/blender'; sys.base_exec_prefix = '/nowhere'")
    assert "no Python interpreter is known here: sys.executable is '/usr/bin/blender'" in err


@pytest.mark.system
@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("echo 'No module named encodings' >&2; exit 1", "No module named encodings"),
        ("exit 0", "it ended at once and said nothing"),
        ("kill -9 $$", "it ended at once and said nothing"),
    ],
)
def test_python_that_dies_at_once_is_told_and_threads_take_over(
    own_host: Path, runs: Path, tmp_path: Path, program: str, why: str
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{program}\n")
    python.chmod(0o755)
    err = said(runs, f"sys.executable = {str(python)!r}")
    assert f"no worker process can be started ({why}); threads of this process do its work" in err
    assert err.count("\n") == 1


BROKEN = "raise ImportError('half an installation')\n"


@pytest.mark.system
def test_package_that_breaks_during_the_run_is_told_and_threads_take_over(
    own_host: Path, runs: Path, tmp_path: Path
) -> None:
    """An upgrade of the package, under a run whose worker is then killed."""
    package = shutil.copytree(ROOT / "asynctrack", tmp_path / "site" / "asynctrack")
    breaks = f"""
import signal
from asynctrack.queue.layout import WORKER_PID
run.flush()
with open({str(package / "worker" / "drain.py")!r}, "w") as file: file.write({BROKEN!r})
os.kill(run._publisher.producer.ring.words[WORKER_PID], signal.SIGKILL)
"""
    # What this process has imported already it need not import again.
    err = said(runs, "import asynctrack.worker.drain", breaks, package.parent)
    assert "no worker process can be started (ImportError: half an installation); threads" in err

    assert err.count("\n") == 2  # that it is gone, too


def test_shell_that_is_missing_is_told_and_threads_take_over(own_host: Path, runs: Path) -> None:
    err = said(runs, "import asynctrack._system.spawn; asynctrack._system.spawn._SHELL = '/no/sh'")
    assert "no worker process can be started here (there is no /no/sh); worker='thread' is used" in err


GONE = """
import signal, asynctrack._system.spawn
from asynctrack.queue.layout import WORKER_PID
run.flush()
asynctrack._system.spawn._SHELL = "/no/sh"
os.kill(run._publisher.producer.ring.words[WORKER_PID], signal.SIGKILL)
"""


@pytest.mark.system
def test_shell_that_goes_missing_during_the_run_is_told_and_threads_take_over(own_host: Path, runs: Path) -> None:
    assert "no worker process can be started ([Errno 2] No such file or directory: '/no/sh')" in said(runs, after=GONE)


SHORT = """
import sys, time
import asynctrack
from asynctrack.worker import rescue

remove_host, pause_s = rescue.remove_host, float(sys.argv[3])
rescue.remove_host = lambda directory: (time.sleep(pause_s), remove_host(directory))
sys.executable = sys.argv[2]
asynctrack.init("p", id="run", dir=sys.argv[1])
for i in range(300):
    asynctrack.log({"i": i})
"""


@pytest.mark.system
@pytest.mark.parametrize("pause_s", [0.0, 2.0])
def test_script_that_just_ends_before_it_can_know_is_journaled_and_told_how_to_go_on(
    own_host: Path, runs: Path, tmp_path: Path, pause_s: float
) -> None:
    """When the main thread has ended no thread can be had for the deliveries. All is done before the run is, however long that takes."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no library >&2\n")
    python.chmod(0o755)
    child = start(SHORT, runs, python, pause_s)
    _, err = child.communicate(timeout=60)
    assert "no worker process can be started (no library)" in err
    assert "`asynctrack sync` delivers it" in err
    assert err.count("\n") == 1
    run = runs / "p" / "run"
    assert asynctrack.open_run(run).status == "finished"
    assert left_in(own_host) == []
    subprocess.run([sys.executable, "-m", "asynctrack", "sync", run], check=True, capture_output=True, timeout=60)
    assert manifest(run)["status"] == "finished"
    assert_whole(run, {"i": 300})
