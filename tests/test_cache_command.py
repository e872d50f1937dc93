"""`asynctrack cache`: what is kept there, how much it takes, and how it goes."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_support import answer, said_here

from asynctrack._system import user_cache


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "asynctrack"


def test_cache_says_what_it_has_and_forgets_it(own_cache: Path) -> None:
    user_cache.write("runs", "a", b"x" * 10_000)
    user_cache.write("curves", "a", b"x" * 10_000)
    told = said_here("cache")
    assert told.returncode == 0 and str(own_cache) in told.stdout and "curves" in told.stdout
    found = answer("cache")
    assert found["directory"] == str(own_cache) and found["cap_bytes"] == 2 << 30
    assert {kind: of["files"] for kind, of in found["kinds"].items()} == {"curves": 1, "runs": 1}
    assert found["bytes"] >= 20_000
    assert said_here("cache", "--clear").stdout.startswith("removed 2 files, ")
    assert answer("cache")["kinds"] == {}
    assert answer("cache", "--clear")["removed"] == {"files": 0, "bytes": 0}


def test_without_a_home_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "nowhere")
    told = said_here("cache")
    assert told.returncode == 0 and told.stdout.startswith("no cache: ")
    assert answer("cache")["directory"] is None
