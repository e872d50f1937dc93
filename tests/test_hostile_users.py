"""Another user of the machine, who takes names before us, and somebody with our rights who writes into our queues: runs go on, and nothing leaks."""

from __future__ import annotations

import mmap
import os
import random
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from support import manifest, records, rings_in, wait_until, workers

import asynctrack
from asynctrack.queue.layout import (
    CAPACITY,
    DONE,
    END,
    HEAD,
    HEADER_BYTES,
    MAGIC,
    MARKS,
    META_BYTES,
    META_OFFSET,
    RING,
    SYNCED,
    TAIL,
    VERSION,
    WANTED,
)

OTHER: Final = 65534  # nobody

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


def as_other(act: Callable[[], object]) -> Any:
    """What another user gets who does this: its result, or the errno."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:  # nothing that could import: the interpreter's files may be out of reach
        try:
            os.setgroups([])
            os.setgid(OTHER)
            os.setuid(OTHER)
            found: object = act()
        except OSError as error:
            found = error.errno
        os.write(writer, str(found).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as said:
        result = said.read()
    os.waitpid(pid, 0)
    return result


def log_some(runs: Path, name: str, *, worker: Any = "process") -> Path:
    """A whole run, all of which must be there."""
    with asynctrack.init("p", id=name, dir=runs, worker=worker) as run:
        assert all(run.log({"i": i}) for i in range(200))
    assert [record.data["i"] for record in records(run.path)] == list(range(200))
    assert manifest(run.path)["status"] == "finished"
    return run.path


# Names


def squat(path: Path, kind: str) -> None:
    """Take a name before its owner does."""
    if kind == "file":
        path.write_bytes(b"theirs")
    elif kind == "link":
        (path.parent / "trap").mkdir(mode=0o777)
        os.chown(path.parent / "trap", OTHER, OTHER)
        path.symlink_to(path.parent / "trap")
    elif kind == "dangling link":
        path.symlink_to(path.parent / "made by the victim")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
        path.chmod(0o777)
    if kind != "our own open directory":
        os.chown(path, OTHER, OTHER, follow_symlinks=False)


KINDS: Final = ["file", "link", "dangling link", "pipe", "directory", "our own open directory"]


@pytest.mark.system
@needs_root
@pytest.mark.parametrize("kind", KINDS)
def test_run_goes_on_where_another_has_taken_the_name(own_host: Path, runs: Path, kind: str) -> None:
    own_host.chmod(0o1777)  # as /dev/shm is
    squatted = own_host / f"asynctrack-{os.geteuid()}"
    squat(squatted, kind)
    before = squatted.lstat()
    with asynctrack.init("p", id="one", dir=runs) as run:
        run.log({"i": 0})
        (ring,) = list(own_host.rglob("*.ring"))
        assert squatted not in ring.parents
        assert "trap" not in ring.parts
        theirs = [directory for directory in ring.parents if own_host in directory.parents]
        assert {stat.S_IMODE(directory.stat().st_mode) for directory in theirs} == {0o700}
        assert {directory.stat().st_uid for directory in theirs} == {os.geteuid()}
        assert as_other(lambda: os.listdir(ring.parent)) == "13"  # EACCES
        assert as_other(lambda: os.open(ring, os.O_RDONLY)) == "13"
    log_some(runs, "two")
    wait_until(lambda: not workers(own_host), "the worker has left")
    assert squatted.lstat()[:7] == before[:7]
    assert not (own_host / "made by the victim").exists()
    trap = own_host / "trap"
    assert not trap.exists() or list(trap.iterdir()) == []
    squatted.rmdir() if squatted.is_dir() and not squatted.is_symlink() else squatted.unlink()
    if trap.exists():
        trap.rmdir()


@pytest.mark.system
@needs_root
def test_queues_of_another_are_neither_taken_over_nor_counted(own_host: Path, runs: Path) -> None:
    """A whole host directory with a queue that says it is of our run, in a place that would be ours, made by another."""
    mine = log_some(runs, "mine")
    wait_until(lambda: not workers(own_host), "the worker has left")
    with asynctrack.init("p", id="model", dir=runs) as run:
        run.log({"i": 0})
        (ring,) = own_host.rglob("*.ring")
        raw = bytearray(ring.read_bytes())
    meta = f"run={mine}".encode()
    raw[META_OFFSET : META_OFFSET + len(meta)] = meta
    raw[8 * META_BYTES : 8 * META_BYTES + 8] = len(meta).to_bytes(8, "little")
    wait_until(lambda: not workers(own_host), "the worker has left")
    root = own_host / f"asynctrack-{os.geteuid()}"
    forged = root / "1-0123456789abcdef" / "0000000000000001-0123456789abcdef.ring"
    forged.parent.mkdir(parents=True, mode=0o700)
    root.chmod(0o700)
    forged.write_bytes(raw)
    for path in (forged, forged.parent):
        os.chown(path, OTHER, OTHER)
    os.utime(forged.parent, (0, 0))
    before = (mine / "journal" / "000001.atj").read_bytes()
    log_some(runs, "another")  # its worker looks for what ended processes have left
    resumed = asynctrack.init("p", id="mine", dir=runs, resume="must")
    resumed.finish()
    assert [record.data["i"] for record in records(mine)] == list(range(200))
    assert (mine / "journal" / "000001.atj").read_bytes() == before
    assert forged.read_bytes() == bytes(raw)
    wait_until(lambda: not workers(own_host), "the worker has left")
    forged.unlink()
    for left in forged.parent.iterdir():
        left.unlink()
    forged.parent.rmdir()
    root.rmdir()


@pytest.mark.system
@needs_root
def test_files_of_a_run_are_for_nobody_else_with_an_umask_that_says_so(own_host: Path, runs: Path) -> None:
    usual = os.umask(0o077)
    try:
        path = log_some(runs, "mine")
    finally:
        os.umask(usual)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert as_other(lambda: os.listdir(path)) == "13"


# Somebody with our own rights, or a stray write of C code


def scribble(ring: Path, word: int, value: int) -> None:
    with ring.open("r+b") as file, mmap.mmap(file.fileno(), HEADER_BYTES) as header:
        header[8 * word : 8 * word + 8] = (value % 2**64).to_bytes(8, "little")


WORDS: Final = {
    "MAGIC": MAGIC, "VERSION": VERSION, "CAPACITY": CAPACITY, "RING": RING, "META_BYTES": META_BYTES, "HEAD": HEAD, "END": END, "WANTED": WANTED,
    "TAIL": TAIL, "SYNCED": SYNCED, "DONE": DONE, "MARKS": MARKS,
}  # fmt: skip


@pytest.mark.system
@pytest.mark.parametrize("name", WORDS)
def test_word_that_is_written_over_harms_no_other_run(own_host: Path, runs: Path, name: str) -> None:
    """The worker serves both runs; the harmed one may lose what it has, and must end all the same."""
    rng = random.Random(name)
    harmed = asynctrack.init("p", id="harmed", dir=runs, finish_timeout_s=0.5)
    (ring,) = own_host.rglob("*.ring")
    good = asynctrack.init("p", id="good", dir=runs)
    harmed.log({"i": 0})
    harmed.flush("journaled")
    for number, value in enumerate([2**64 - 8, rng.getrandbits(64), 0, 2**63, 12345 * 8]):
        scribble(ring, WORDS[name], value)
        harmed.log({"i": number})
        assert good.log({"i": number})
        assert good.flush("journaled", timeout_s=10).queued == 0
    harmed.finish()
    good.finish()
    assert [record.data["i"] for record in records(good.path)] == list(range(5))
    assert manifest(good.path)["status"] == "finished"
    for path in own_host.rglob("*.ring"):  # what cannot be read is left where it lies
        path.unlink()
    wait_until(lambda: not rings_in(own_host), "it is gone")
