"""What the tests of W&B have: a server of their own, a key, and a home without one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from wandb_server import KEY, WandbServer

from asynctrack.backends.wandb import core as wandb_core


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A key, and a home without one."""
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.delenv("WANDB_SERVICE", raising=False)
    yield
    wandb_core.kill()


@pytest.fixture
def server() -> Iterator[WandbServer]:
    with WandbServer() as server:
        yield server
        assert not server.unknown
