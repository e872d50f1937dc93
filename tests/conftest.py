"""Fixtures that many tests share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def shm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory in shared memory where rings go, gone after the test."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="asynctrack-test-", dir=shared if shared.is_dir() else None) as path:
        monkeypatch.setenv("ASYNCTRACK_SHM", path)
        yield Path(path)
