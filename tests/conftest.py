"""Fixtures that many tests share."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from collector_server import certificate as certificate
from delivery_support import rough_shared_memory
from hanging_disk import hanging_disk as hanging_disk
from left_children import pytest_runtest_call as pytest_runtest_call
from postgres import postgresql as postgresql
from reading_versions import reading as reading
from support import own_shared_memory

import asynctrack
from asynctrack.client import worker_registry

pytest_plugins = ["nats_server", "selection", "versions"]
os.environ["ASYNCTRACK_QUIET"] = "1"  # what `init` says on a terminal and in a notebook has tests of its own
# What commands keep in the user's cache goes to another one. Some libraries keep theirs there too: it stays, and models that were fetched are found.
os.environ.setdefault(
    "HF_HOME", os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "huggingface")
)
os.environ["XDG_CACHE_HOME"] = os.path.join(tempfile.gettempdir(), f"asynctrack-test-cache-{os.geteuid()}")
os.environ["ASYNCTRACK_ENVIRONMENT"] = "0"  # a process for each program; the tests of where runs come from switch it on
os.environ["ASYNCTRACK_PRIORITY"] = "normal"  # else that process waits until the other tests leave it a core
# CPython 3.12 and later say this of any process that forks and has threads, as ours have.
os.environ.setdefault("PYTHONWARNINGS", "ignore:This process:DeprecationWarning")
# How long an example takes says more of the machine than of what is tested; each test has a time limit.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("same inputs", hypothesis.settings.get_profile("any machine"), derandomize=True)
hypothesis.settings.load_profile("same inputs" if os.environ.get("TEST_SAME_INPUTS") else "any machine")
# A shell's background job ignores Ctrl-C, and so would what it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """A test leaves no run open to others, and no place for rings: a `monkeypatch` that was there before `own_host` would bring that back when it is gone."""
    place, kept = os.environ.get("ASYNCTRACK_SHM"), worker_registry._hosts
    current = asynctrack.current()
    yield
    assert asynctrack.current() is current
    assert os.environ.get("ASYNCTRACK_SHM") == place
    assert worker_registry._hosts is kept


@pytest.fixture
def shm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory in shared memory where rings go, gone after the test."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="asynctrack-test-", dir=shared if shared.is_dir() else None) as path:
        monkeypatch.setenv("ASYNCTRACK_SHM", path)
        yield Path(path)


@pytest.fixture
def own_host() -> Iterator[Path]:
    """The directory in shared memory of a worker that serves this test only, and leaves nothing behind."""
    with own_shared_memory() as path:
        yield path


@pytest.fixture
def rough_host() -> Iterator[Path]:
    """The same where the worker cannot leave in good time: it is killed, and must take along what it has started."""
    with rough_shared_memory() as path:
        yield path


@pytest.fixture
def own_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where this user's key lies, apart from the real one."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture(scope="module")
def shared_host() -> Iterator[Path]:
    """The same for all tests of a module: a worker starts in 0.2 s of a core."""
    with own_shared_memory(idle_exit_s=0.5) as path:
        yield path


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Where runs are kept."""
    return tmp_path / "runs"
