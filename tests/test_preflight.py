"""What can be known when a run opens (a library, a key) is said then, in one line for each backend; the backend waits, and sync can deliver later."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import asynctrack
from asynctrack.backends.base import Backend

# The libraries of backends are hidden from a process as if they were not installed.
HIDDEN = """
import sys, time

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
import asynctrack
began = time.monotonic()
run = asynctrack.init("p", id="a", dir=sys.argv[1], backends=["jsonl", {backend}], finish_timeout_s=0.1, after_exit_max_s=0.1)
print(time.monotonic() - began)
sys.stderr.write("opened\\n")
run.log({{"i": 1}})
run.finish()
"""
LIBRARIES = {
    "asynctrack.WandB()": "wandb", "asynctrack.MLflow(tracking_uri='http://127.0.0.1:9')": "httpx2",
    "asynctrack.Trackio()": "trackio", "asynctrack.Trackio(server_url='http://127.0.0.1:9')": "httpx2",
    "asynctrack.Visdom()": "httpx2", "asynctrack.SQL()": "sqlalchemy", "asynctrack.SQL(url='postgresql://u@127.0.0.1:9/d')": "psycopg",
    "asynctrack.Parquet()": "pyarrow", "asynctrack.Matplotlib()": "matplotlib", "asynctrack.Plotly()": "plotly",
    "asynctrack.LivePlot()": "livelossplot", "asynctrack.YAML()": "yaml",
}  # fmt: skip


def opened(runs: Path, backend: str, *hidden: str, **environment: str) -> list[str]:
    """What a process says on standard error before `init` returns."""
    script = HIDDEN.format(names=set(hidden), backend=backend)
    done = subprocess.run(
        [sys.executable, "-c", script, str(runs)], capture_output=True, text=True, timeout=40,
        env={**os.environ, "ASYNCTRACK_QUIET": "1", "HOME": "/nonexistent", **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines()


@pytest.mark.parametrize(
    "backend",
    [pytest.param(kind, marks=pytest.mark.slow if at else pytest.mark.system) for at, kind in enumerate(LIBRARIES)],
)
def test_library_that_is_not_installed_is_said_when_the_run_opens(own_host: Path, runs: Path, backend: str) -> None:
    said = opened(runs, backend, LIBRARIES[backend], WANDB_API_KEY="0" * 40, TRACKIO_WRITE_TOKEN="x" * 20)
    (line,) = [line for line in said if "gets nothing yet" in line]
    assert f"it needs {LIBRARIES[backend]}, which is not installed: pip install 'asynctrack[" in line
    assert f"asynctrack sync {runs / 'p' / 'a'}" in line


def test_every_backend_says_what_it_lacks_without_importing_it() -> None:
    checks = f"""
import sys
from asynctrack.backends.registry import KINDS, class_of
import asynctrack
for backend in [{", ".join(LIBRARIES)}]:
    backend.lacking()
print(sorted(set({sorted(set(LIBRARIES.values()))!r}) & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", checks], capture_output=True, text=True, timeout=40)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(
    ("environment", "netrc", "mode", "said"),
    [
        ({}, None, "online", True), ({"WANDB_API_KEY": "0" * 40}, None, "online", False),
        ({}, "machine api.wandb.ai\n login user\n password x\n", "online", False), ({}, "machine other\n", "online", True),
        ({}, None, "offline", False), ({}, None, "disabled", False),
    ],
)  # fmt: skip
def test_key_that_is_not_there_is_known(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    netrc: str | None,
    mode: Any,
    said: bool,
) -> None:
    for name in ("WANDB_API_KEY", "NETRC", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if netrc is not None:
        (tmp_path / ".netrc").write_text(netrc)
    lacking = asynctrack.WandB(mode=mode).lacking()
    assert [("WANDB_API_KEY" in what) for what in lacking] == ([True] if said else [])


@pytest.mark.system
def test_backends_that_lack_nothing_say_nothing(own_host: Path, runs: Path) -> None:
    assert not [line for line in opened(runs, '"csv"') if "gets nothing" in line]


class Broken(Backend, frozen=True, kw_only=True):
    def lacking(self) -> list[str]:
        raise RuntimeError("its own code")


def test_check_that_fails_does_not_reach_the_user(own_host: Path, runs: Path) -> None:
    run = asynctrack.init("p", dir=runs, backends=["jsonl", Broken()], finish_timeout_s=0.1, after_exit_max_s=0.1)
    assert run.log({"i": 1})
    run.finish()
