"""Run journal: who is asked how a run ended, whatever the order in which its worker finds that out."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import weakref
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support import state, wait_until

import asynctrack
from asynctrack.journal.join import Join, join_payload
from asynctrack.journal.manifest import Manifest, start_payload
from asynctrack.journal.reader import Reader
from asynctrack.queue.layout import END, ENDS, EXITING, HEAD, JOIN, KIND_SHIFT, PREEMPTED, RECORD, START
from asynctrack.queue.producer import PythonProducer
from asynctrack.queue.ring import Ring
from asynctrack.worker.caller_exit import caller_of
from asynctrack.worker.run_journal import RunJournal
from asynctrack.worker.run_outcome import RingOutcome, run_outcome


class EmptyRing:
    """A ring as far as a journal asks one that is empty."""

    def __init__(self, number: int, pid: int, end: str, **meta: object) -> None:
        self.id = number
        self.meta = {name: str(value) for name, value in meta.items()}
        self.words: defaultdict[int, int] = defaultdict(int, {END: ENDS.index(end)})
        self._pid = pid

    def held_by(self) -> int:
        return self._pid

    def producer_lives(self) -> bool:
        return self._pid != 0

    def dropped(self) -> dict[str, int]:
        return {}

    def unlink(self) -> None:
        pass


def rings(owner: subprocess.Popen[bytes]) -> tuple[Any, Any]:
    """That of the owner, which says nothing of its end, and that of its child, this process, which has finished."""
    return EmptyRing(1, owner.pid, "open", root=True), EmptyRing(2, os.getpid(), "finished", root=False)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[RunJournal]:
    journal = RunJournal(str(tmp_path))
    assert journal.open()
    yield journal
    journal.close(done=False)


@pytest.fixture
def owner() -> Iterator[subprocess.Popen[bytes]]:
    """The process that has opened the run; it ends with exit code 0 when it gets a line."""
    with subprocess.Popen(
        [sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        yield process


def end(owner: subprocess.Popen[bytes]) -> None:
    assert owner.stdin is not None
    owner.stdin.write(b"\n")
    owner.stdin.flush()
    # And nobody has asked how. `Z` says less: its first thread has ended.
    wait_until(lambda: os.waitid(os.P_PID, owner.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None, "it has ended")


def test_child_that_outlives_its_owner_decides_though_its_end_is_seen_first(
    journal: RunJournal, owner: subprocess.Popen[bytes]
) -> None:
    """A worker looks twice a second for processes that are gone; a ring that says its end is seen at once."""
    root, child = rings(owner)
    journal.add(root)
    journal.add(child)
    end(owner)
    journal.retire(child)
    journal.retire(root)
    journal.end()
    assert journal.status == "finished"


# Its first thread ends, with exit code 0; another goes on until it gets a line.
IN_PARTS = """
import ctypes, os, threading
threading.Thread(target=lambda: (input(), os._exit(0))).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def test_child_decides_that_finishes_while_threads_of_its_owner_are_still_on_their_way_out(journal: RunJournal) -> None:
    """The children of a process have another parent as soon as its first thread has ended and the others are about to."""
    with subprocess.Popen([sys.executable, "-S", "-c", IN_PARTS], stdin=subprocess.PIPE) as owner:
        root, child = rings(owner)
        journal.add(root)
        journal.add(child)
        wait_until(lambda: state(owner.pid) == "Z", "its first thread has ended")
        journal.retire(child)
        end(owner)
        journal.retire(root)
        journal.end()
    assert journal.status == "finished"


def test_child_decides_whose_owner_nobody_saw_alive_in_whatever_order_the_rings_are_found(journal: RunJournal) -> None:
    root, child = EmptyRing(1, 0, "open", root=True), EmptyRing(2, os.getpid(), "finished", root=False)
    for ring in (child, root):
        journal.add(ring)  # type: ignore[arg-type]  # as far as it is asked
    for ring in (child, root):
        journal.retire(ring)  # type: ignore[arg-type]
    assert run_outcome(journal.ended) == ("finished", None)


def test_owner_that_ends_without_a_word_after_its_child_has_crashed(
    journal: RunJournal, owner: subprocess.Popen[bytes]
) -> None:
    root, child = rings(owner)
    journal.add(root)
    journal.add(child)
    journal.retire(child)
    end(owner)
    journal.retire(root)
    journal.end()
    assert journal.status == "crashed"


def test_journal_that_is_closed_goes_with_its_last_reference_and_its_rings_too(tmp_path: Path) -> None:
    """A ring that is mapped keeps a descriptor, and the garbage collector hardly ever runs in a worker."""
    gc.collect()
    gc.disable()
    try:
        journal = RunJournal(str(tmp_path))
        assert journal.open()
        ring: Any = EmptyRing(1, os.getpid(), "finished", root=True)
        journal.add(ring)
        journal.retire(ring)
        assert journal.end()
        journal.close(done=True)
        gone = [weakref.ref(journal), weakref.ref(ring)]
        del journal, ring
        assert [part() for part in gone] == [None, None]
    finally:
        gc.enable()


def outcome(end: str, **meta: Any) -> RingOutcome:
    """How a process ended of whose exit nobody knows."""
    return RingOutcome(EmptyRing(1, 0, end, **meta), None)  # type: ignore[arg-type]  # as far as it is asked


def joined(end: str, **meta: Any) -> RingOutcome:
    return outcome(end, root=False, writer="rank3", **meta)


@pytest.mark.parametrize(
    "others", [[joined("finished")], [joined("failed"), joined("finished")], [joined("finished", forked=True)]]
)
@pytest.mark.parametrize("first", [True, False])
def test_owner_that_ends_without_a_word_has_crashed_whatever_others_said(
    others: list[RingOutcome], first: bool
) -> None:
    owner = outcome("open", root=True)
    assert run_outcome([owner, *others] if first else [*others, owner]) == ("crashed", None)


def test_owner_that_is_killed_has_crashed_whatever_its_forked_child_says(owner: subprocess.Popen[bytes]) -> None:
    root, child = rings(owner)
    killed = RingOutcome(root, caller_of(root))
    owner.kill()
    wait_until(lambda: state(owner.pid) == "Z", "it has ended")
    assert run_outcome([killed, RingOutcome(child, None)]) == ("crashed", "killed by SIGKILL")


def test_daemon_decides_whose_parent_had_ended_before_a_worker_saw_it() -> None:
    owner, child = outcome("open", root=True), outcome("finished", root=False)
    assert run_outcome([owner, child]) == ("finished", None)
    assert run_outcome([child, owner]) == ("crashed", None)


def test_who_has_opened_the_run_does_not_decide_where_another_owns_it() -> None:
    opener, owner = outcome("finished", root=True), outcome("open", root=False, writer="rank0", owner=True)
    assert run_outcome([owner, opener]) == run_outcome([opener, owner]) == ("crashed", None)
    child = outcome("finished", root=False, writer="rank0", forked=True)
    assert run_outcome([owner, opener, child]) == ("finished", None)


@pytest.mark.parametrize("end", ["open", "failed", "finished"])
def test_who_has_joined_does_not_decide(end: str) -> None:
    for status in ("finished", "failed"):
        owner, other = outcome(status, root=True), joined(end)
        other.ring.words[PREEMPTED] = 1
        assert run_outcome([owner, other]) == run_outcome([other, owner]) == (status, None)


def test_run_that_another_owns_than_has_opened_it_ends_as_that_does() -> None:
    opened, rank0 = outcome("finished", root=True, writer="rank1"), joined("failed", owner=True)
    assert run_outcome([rank0, opened]) == run_outcome([opened, rank0]) == ("failed", None)


@pytest.mark.parametrize("forked", [False, True])
def test_who_has_opened_the_run_of_another_does_not_decide_where_nobody_saw_how_that_one_ended(forked: bool) -> None:
    """The worker has died with rank 0; rank 1, or a child that it has forked, ends well."""
    opened, rank0 = outcome("finished", root=True, writer="rank1"), joined("open", owner=True)
    others = [opened, outcome("finished", root=False)] if forked else [opened]
    opened.ring.words[PREEMPTED] = 1
    assert run_outcome([rank0, *others]) == run_outcome([*others, rank0]) == ("crashed", None)


def test_owner_is_asked_last_where_a_run_was_resumed() -> None:
    earlier, later = outcome("finished", root=True), outcome("open", root=True)
    assert run_outcome([earlier, later]) == ("crashed", None)
    assert run_outcome([later, earlier]) == ("finished", None)


@pytest.mark.parametrize(
    ("end", "status"), [("open", "crashed"), ("left", "finished"), ("failed", "failed"), ("finished", "finished")]
)
def test_each_writer_has_a_status_of_its_own(end: str, status: str) -> None:
    assert joined(end).writer_status() == status


@pytest.mark.parametrize(
    ("does", "status"),
    [
        ("os.kill(os.getpid(), 9)", "crashed"),
        ("os.kill(os.getpid(), 15); time.sleep(9)", "terminated"),  # by its parent
        ("os._exit(0)", "finished"),  # as children of multiprocessing do
        ("os._exit(3)", "crashed"),
    ],
)
def test_exit_of_a_writer_says_how_it_has_ended(does: str, status: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-S", "-c", f"import os, time; input(); {does}"], stdin=subprocess.PIPE
    ) as process:
        ring: Any = EmptyRing(1, process.pid, "open", root=False, writer="rank3")
        known = RingOutcome(ring, caller_of(ring))
        end(process)
        assert known.writer_status() == status


@pytest.mark.parametrize(("exiting", "status"), [(1, "terminated"), (0, "finished")])
def test_who_is_ended_by_sigterm_while_ending_has_not_crashed(exiting: int, status: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-S", "-c", "import os, time; input(); os.kill(os.getpid(), 15); time.sleep(9)"],
        stdin=subprocess.PIPE,
    ) as process:
        ring: Any = EmptyRing(1, process.pid, "finished", root=False, writer="rank3")
        ring.words[EXITING] = exiting
        known = RingOutcome(ring, caller_of(ring))
        end(process)
        assert known.writer_status() == status


def queue_of(tmp_path: Path, name: str, kind: int, payload: bytes, *, root: bool) -> Ring:
    """A queue with the frame by which its process comes to the run."""
    ring = Ring.create(str(tmp_path / f"{name}.ring"), 65536, {"run": str(tmp_path), "root": root})
    producer = PythonProducer(ring, bool)
    assert producer.put(payload, kind << KIND_SHIFT, 0)
    assert producer.put(msgspec.msgpack.encode((1, 0, {"who": name})))
    return ring


def test_run_is_opened_before_others_join_whichever_queue_the_worker_finds_first(
    tmp_path: Path, journal: RunJournal
) -> None:
    """A worker may be slow to start: by its first look a process has joined the run, and has ended."""
    opened = Manifest(id="r", name="r", project="p", created_at="2026-11-29T12:00:00.000+00:00")
    joined = queue_of(tmp_path, "joined", JOIN, join_payload(Join(writer="rank1", time_ns=1)), root=False)
    root = queue_of(tmp_path, "root", START, start_payload(opened), root=True)
    for ring in (joined, root):
        journal.add(ring)
    journal.move(joined, joined.words[HEAD])
    journal.move(root, root.words[HEAD])
    assert journal.writer is not None
    journal.writer.sync()
    with contextlib.closing(Reader(str(tmp_path / "journal"))) as reader:
        kinds = [frame.kind for batch in reader for frame in batch.frames()]
    assert kinds == [START, JOIN, RECORD, RECORD]
    assert [one.writer for one in asynctrack.open_run(tmp_path).writers].count("rank1") == 1
    for ring in (joined, root):
        ring.close()


def test_queue_that_its_caller_has_closed_meanwhile_is_journaled_and_ends(tmp_path: Path, journal: RunJournal) -> None:
    """The worker is threads of the caller: Ctrl-C in `init` gives a queue up while its run is being opened there."""
    opened = Manifest(id="r", name="r", project="p", created_at="2026-11-29T12:00:00.000+00:00")
    ring = queue_of(tmp_path, "root", START, start_payload(opened), root=True)
    ring.words[END] = ENDS.index("failed")
    ring.close()
    assert not ring.producer_lives()
    journal.add(ring)
    journal.move(ring, ring.words[HEAD])
    journal.retire(ring)
    assert journal.end()
    assert journal.status == "failed"
