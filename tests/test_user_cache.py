"""The user's cache: what is kept there comes back whole or not at all, and never troubles anybody."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from asynctrack._system import user_cache


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "asynctrack"


def files(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.is_file()]


def test_what_was_kept_comes_back(own_cache: Path) -> None:
    assert user_cache.read("runs", "a") is None
    assert user_cache.write("runs", "a", b"one") and user_cache.write("curves", "a", b"other")
    assert user_cache.write("runs", "a", b"two")
    assert (user_cache.read("runs", "a"), user_cache.read("curves", "a")) == (b"two", b"other")
    assert {kind: found.files for kind, found in user_cache.contents().items()} == {"curves": 1, "runs": 1}
    user_cache.forget("runs", "a")
    assert user_cache.read("runs", "a") is None
    assert user_cache.clear().files == 1
    assert user_cache.contents() == {} and list(own_cache.iterdir()) == []


def test_it_is_the_users_alone(own_cache: Path) -> None:
    user_cache.write("runs", "a", b"one")
    assert [oct(path.stat().st_mode & 0o777) for path in (own_cache, *own_cache.rglob("*"))] == [
        "0o700",
        "0o700",
        "0o600",
    ]


@pytest.mark.parametrize("at", range(27))
def test_damaged_file_counts_as_none(own_cache: Path, at: int) -> None:
    user_cache.write("runs", "key", b"content!")
    (path,) = files(own_cache)
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    assert user_cache.read("runs", "key") is None
    path.write_bytes(content[:at])
    assert user_cache.read("runs", "key") is None
    assert user_cache.write("runs", "key", b"again") and user_cache.read("runs", "key") == b"again"


@pytest.mark.parametrize("home", ["", "relative", "/proc/nothing", "/dev/null"])
def test_cache_that_cannot_be_is_harmless(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", home)
    monkeypatch.setenv("HOME", "/proc/nobody")
    assert not user_cache.write("runs", "a", b"one")
    assert user_cache.read("runs", "a") is None
    assert user_cache.contents() == {} and user_cache.clear() == (0, 0)
    user_cache.trim()


def test_directory_that_others_may_write_to_is_not_used(own_cache: Path) -> None:
    own_cache.mkdir(parents=True)
    own_cache.chmod(0o777)
    assert not user_cache.write("runs", "a", b"one")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_full_disk_leaves_nothing_behind(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "import resource, signal, sys; from asynctrack._system import user_cache\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "assert not user_cache.write('runs', 'a', b'x' * 10_000)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
    assert files(own_cache) == []


def test_what_was_used_least_recently_goes_first(own_cache: Path) -> None:
    now = time.time()
    for key in "abcd":
        user_cache.write("runs", key, os.urandom(10_000))
    for at, path in enumerate(sorted(files(own_cache), key=lambda path: path.read_bytes()[16:17])):
        os.utime(path, (now - 1000 + at, now - 1000 + at))
    assert user_cache.read("runs", "a") is not None
    user_cache.trim(30_000)
    assert [key for key in "abcd" if user_cache.read("runs", key)] == ["a", "d"]


def test_what_a_dead_process_left_unfinished_goes(own_cache: Path) -> None:
    user_cache.write("runs", "a", b"one")
    left, current = own_cache / "runs" / "x.1.new", own_cache / "runs" / "y.1.new"
    left.write_bytes(b"half")
    current.write_bytes(b"half")
    os.utime(left, (1, 1))
    user_cache.trim()
    assert not left.exists() and current.exists()


def test_many_processes_write_and_clear_at_once(own_cache: Path) -> None:
    script = (
        "import sys; from asynctrack._system import user_cache\n"
        "for at in range(300):\n"
        "    user_cache.write('runs', str(at % 3), b'%d' % (at % 3) * 1000)\n"
        "    assert user_cache.read('runs', str(at % 3)) in (None, b'%d' % (at % 3) * 1000)\n"
        "    if at % 50 == int(sys.argv[1]): user_cache.clear()\n"
        "    user_cache.contents(); user_cache.trim(2000)"
    )
    started = [subprocess.Popen([sys.executable, "-c", script, str(at)]) for at in range(3)]
    assert [process.wait(timeout=50) for process in started] == [0, 0, 0]
