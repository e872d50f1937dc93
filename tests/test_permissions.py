"""Who may read a run: its data follow the umask and are nobody's else to write; locks, cursors and logs are private. A colleague reads, and cannot change."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from support import wait_until, workers

import asynctrack
from asynctrack.testing import JournaledRun, Scripted, Trouble

OTHER: Final = 65534  # nobody
PRIVATE: Final = {"lock", "caller.lock", "cursors", "worker.log", "handover"}

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def make_run(runs: Path, id: str = "a") -> Path:
    """A run with everything that lies in a run's directory."""
    troubles = (Trouble(does="refuse", step=1, times=None),)
    backends = [
        "jsonl",
        "csv",
        "json",
        "yaml",
        "tensorboard",
        "parquet",
        "sql",
        "matplotlib",
        Scripted(troubles=troubles),
    ]
    file = runs.parent / "weights.txt"
    file.write_text("weights")
    with asynctrack.init("p", id=id, dir=runs, backends=backends, config={"lr": 1}) as run:
        for i in range(3):
            run.log({"train/loss": 1 / (i + 1)}, step=i)
        run.log(
            {"image": asynctrack.Image(np.zeros((4, 4, 3), dtype=np.uint8)), "of": asynctrack.Artifact("m", path=file)}
        )
    stats = run.finish()
    assert {name: backend_stats.behind for name, backend_stats in stats.backends.items() if backend_stats.behind} == {}
    return run.path


def modes_of(run: Path) -> dict[str, int]:
    found = {str(path.relative_to(run)): stat.S_IMODE(path.lstat().st_mode) for path in run.rglob("*")}
    return {".": stat.S_IMODE(run.stat().st_mode), **found}


@pytest.mark.parametrize(
    "mask",
    [
        pytest.param(0o000, marks=pytest.mark.system),
        *(pytest.param(mask, marks=pytest.mark.slow) for mask in (0o002, 0o022, 0o027, 0o077)),
    ],
    ids=oct,
)
def test_data_follow_the_umask_and_are_nobodys_else_to_write(
    own_host: Path, runs: Path, umask: None, mask: int
) -> None:
    os.umask(mask)
    run = make_run(runs)
    wait_until(lambda: not workers(own_host), "the worker has left")
    modes = modes_of(run)
    for wanted in (
        "metrics.jsonl",
        "run.json",
        "dead_letters.jsonl",
        "csv",
        "parquet",
        "tensorboard",
        "plots",
        "media",
        "journal",
        "cursors",
        "worker.log",
        "lock",
    ):
        assert wanted in modes, sorted(modes)
    modes["metrics.db"] = stat.S_IMODE((run.parent / "metrics.db").stat().st_mode)
    for name, mode in modes.items():
        private, below = name.split("/")[0] in PRIVATE, (run / name).is_dir()
        widest = (0o700 if below else 0o600) if private else (0o755 if below else 0o644)
        assert mode == widest & ~mask, (name, oct(mode))


# Another user's interpreter may be out of our reach here. So the run is given away, and who reads it is root without what makes root special.
WITHOUT_POWER: Final = """
import ctypes, os, sys
for capability in (0, 1, 2, 3):  # CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER: lost by what is executed from here
    assert ctypes.CDLL(None).prctl(24, capability, 0, 0, 0) == 0
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
USES: Final = """
import sys
import asynctrack
run = asynctrack.open_run(sys.argv[1])
assert len(run.to_pandas()) == 4 and run.config == {"lr": 1} and run.status == "finished"
try:
    open(sys.argv[1] + "/metrics.jsonl", "a")
except PermissionError:
    print("good")
"""


def give_away(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, OTHER, OTHER, follow_symlinks=False)


def as_colleague(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Python as somebody who is neither the owner of what was given away nor almighty."""
    command = [sys.executable, "-c", WITHOUT_POWER, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=40)


def asynctrack_(*arguments: object) -> subprocess.CompletedProcess[str]:
    return as_colleague("-m", "asynctrack", *arguments)


@pytest.mark.system
@needs_root
def test_colleague_reads_and_plots_and_cannot_deliver(own_host: Path, open_folder: Path, umask: None) -> None:
    run = make_run(open_folder / "runs")
    wait_until(lambda: not workers(own_host), "the worker has left")
    give_away(open_folder)
    used = as_colleague("-c", USES, run)
    assert used.stdout == "good\n", used.stderr
    listed = asynctrack_("ls", open_folder / "runs")
    assert "p/a" in listed.stdout and "finished" in listed.stdout and "behind" not in listed.stdout, listed
    shown = asynctrack_("show", run)
    assert (shown.returncode, "private to who ran it" in shown.stdout) == (0, True), shown
    for command in (["tail", run, "-n", "1"], ["export", run, "--format", "csv"], ["verify", run]):
        done = asynctrack_(*command)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), (command, done)
    synced = asynctrack_("sync", run)
    assert synced.returncode != 0 and "Traceback" not in synced.stderr, synced
    before = modes_of(run)
    assert asynctrack_("rm", "--yes", run).returncode != 0
    assert modes_of(run) == before


@needs_root
def test_runs_that_may_not_be_read_are_counted(own_host: Path, open_folder: Path, umask: None) -> None:
    for number in range(3):
        (open_folder / "runs" / "p" / f"closed-{number}").mkdir(parents=True, mode=0o700)
    give_away(open_folder)
    listed = asynctrack_("ls", open_folder / "runs")
    assert "3 runs that you may not read" in listed.stdout, listed
    asynctrack.init("p", id="open", dir=open_folder / "runs").finish()
    listed = asynctrack_("ls", open_folder / "runs")
    assert "p/open" in listed.stdout and "3 runs that you may not read" in listed.stdout, listed
    assert "ask who ran them; see" in listed.stdout


@needs_root
def test_runs_of_another_user_are_left_out_of_the_sequence_with_a_warning(open_folder: Path, umask: None) -> None:
    for number in range(3):
        (open_folder / "runs" / "p" / f"closed-{number}").mkdir(parents=True, mode=0o700)
    with JournaledRun(open_folder / "runs" / "p" / "open") as run:
        run.log({"loss": 0.5}, 0)
        run.end()
    give_away(open_folder)
    script = (
        "import asynctrack, sys; print([run.path.name for run in asynctrack.runs(sys.argv[1], where='min(loss) < 1')])"
    )
    found = as_colleague("-c", script, open_folder / "runs")
    assert found.stdout == "['open']\n" and "3 runs that you may not read: left out" in found.stderr, found


@pytest.mark.system
@needs_root
def test_rm_of_chosen_runs_leaves_out_what_may_not_be_read(own_host: Path, open_folder: Path, umask: None) -> None:
    for run_id in ("closed", "open"):
        asynctrack.init("p", id=run_id, dir=open_folder / "runs", backends=[], environment=False, quiet=True).finish()
    wait_until(lambda: not workers(own_host), "the worker has left")
    closed = open_folder / "runs" / "p" / "closed" / "run.json"
    closed.chmod(0)
    os.chown(closed, OTHER, OTHER)
    would = asynctrack_("rm", "--older", "0s", "--dir", open_folder / "runs", "--dry-run")
    assert (would.returncode, would.stdout.splitlines()[0].startswith("would remove p/open, ")) == (0, True), would
    assert "left out: p/closed cannot be read: Permission denied" in would.stderr
    give_away(open_folder)
    done = asynctrack_("rm", "--older", "0s", "--dir", open_folder / "runs", "--yes")
    assert (done.returncode, done.stdout) == (1, "nothing was removed\n"), done
    assert "p/open could not be removed: " in done.stderr
