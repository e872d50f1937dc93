"""Runs in a notebook: a real kernel that is interrupted, restarted, killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel
from support import DEADLINE_S, assert_whole, ended, left_in, manifest, wait_until, workers

import asynctrack


class Notebook:
    """A kernel, and what one does to it."""

    def __init__(self) -> None:
        self.kernel, self._client = start_new_kernel(startup_timeout=DEADLINE_S)

    def run(self, cell: str) -> str:
        """Execute a cell; what it printed, or the name of the error that it ended with."""
        return self.result(self.start(cell))

    def start(self, cell: str) -> str:
        request: str = self._client.execute(cell)
        return request

    def result(self, request: str) -> str:
        said = ""
        while True:
            message: dict[str, Any] = self._client.get_iopub_msg(timeout=DEADLINE_S)
            if message["parent_header"].get("msg_id") != request:
                continue
            content = message["content"]
            if message["msg_type"] == "stream":
                said += content["text"]
            elif message["msg_type"] == "error":
                said += content["ename"]
            elif message["msg_type"] == "status" and content["execution_state"] == "idle":
                return said.strip()

    def restart(self) -> None:
        self.kernel.restart_kernel()
        self._client.wait_for_ready(DEADLINE_S)

    def close(self) -> None:
        self._client.stop_channels()
        self.kernel.shutdown_kernel(now=True)


@pytest.fixture
def notebook(own_host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Notebook]:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    opened = Notebook()
    yield opened
    opened.close()


def cells(runs: Path, name: str, worker: str) -> str:
    return f"""
import asynctrack
run = asynctrack.init("p", id={name!r}, dir={str(runs)!r}, worker={worker!r})
i = 0
for i in range(1000):
    assert run.log({{"i": i}})
"""


ON = """
(run.path / "on").touch()
while True:
    i += run.log({"i": i + 1})
"""


@pytest.mark.system
@pytest.mark.parametrize("worker", ["process", "thread"])
def test_kernel_is_interrupted_restarted_and_killed(
    notebook: Notebook, runs: Path, own_host: Path, worker: str
) -> None:
    assert notebook.run(cells(runs, "restarted", worker)) == ""
    request = notebook.start(ON)
    wait_until((runs / "p" / "restarted" / "on").exists, "it logs")
    notebook.kernel.interrupt_kernel()
    assert notebook.result(request) == "KeyboardInterrupt"
    assert notebook.run("raise ValueError") == "ValueError"
    accepted = int(notebook.run("print(run.flush().accepted)"))
    notebook.restart()
    restarted = runs / "p" / "restarted"
    wait_until(lambda: ended(restarted), "the run of the old kernel has ended")
    assert_whole(restarted, {"i": accepted})
    assert manifest(restarted)["status"] == "finished"  # an error ended a cell, not the kernel

    assert notebook.run(cells(runs, "killed", worker)) == ""
    notebook.kernel.shutdown_kernel(now=True)
    killed = runs / "p" / "killed"
    if worker == "thread":  # it died with the kernel
        asynctrack.init("p", id="next", dir=runs).finish()
    wait_until(lambda: ended(killed) and not workers(own_host), "the run of the killed kernel has ended")
    assert_whole(killed, {"i": 1000})
    assert manifest(killed)["status"] == "crashed"
    assert left_in(own_host) == []


OPEN = "run = asynctrack.init('p', id=f'run-{n}', dir=DIR); n += 1"


@pytest.mark.system
def test_a_cell_that_runs_twice_finishes_the_run_that_it_opened_before(notebook: Notebook, runs: Path) -> None:
    loud = "import os; os.environ['ASYNCTRACK_QUIET'] = ''"
    assert notebook.run(f"{loud}; import asynctrack; n = 0; DIR = {str(runs)!r}") == ""
    first = notebook.run(OPEN)
    assert first.startswith(f"asynctrack: run p/run-0 -> {runs}/p/run-0 (asynctrack show ")
    assert notebook.run("asynctrack.log({'x': 1})") == ""
    assert "asynctrack: run run-0 is finished, since another cell opens a run (reinit='create_new'" in notebook.run(
        OPEN
    )
    assert notebook.run("run.log({'x': 2}); run.finish(); asynctrack.log({'x': 3})") == "NoCurrentRun"
    assert [manifest(runs / "p" / f"run-{n}")["status"] for n in range(2)] == ["finished", "finished"]
    nested = (
        "with asynctrack.init('p', dir=DIR) as a, asynctrack.init('p', dir=DIR) as b: print(a.log({}) and b.log({}))"
    )
    assert notebook.run(nested).endswith("True"), "in one cell both are open"
    notebook.run("from asynctrack.integrations.tensorboard import SummaryWriter; w = SummaryWriter(DIR + '/tb/x')")
    notebook.run("run = asynctrack.init('p', dir=DIR)")
    notebook.run("w.add_scalar('x', 1, 1); other = asynctrack.init('p', dir=DIR, reinit='create_new')")
    assert notebook.run("print(run.log({'x': 1}), other.log({'x': 1}), w.run.log({'x': 1}))") == "True True True"
    assert notebook.run("run.finish(); other.finish(); w.close()") == ""
