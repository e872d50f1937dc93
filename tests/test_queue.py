"""The queue: rings for their owner only, and a `put` that is whole among threads, tracers, finalisers and signals."""

from __future__ import annotations

import contextlib
import errno
import gc
import inspect
import itertools
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, FunctionType
from typing import Any

import pytest
from versions import NATIVE

from asynctrack.journal.frames import Frame, walk
from asynctrack.queue import producer as slow_way
from asynctrack.queue import shm_paths
from asynctrack.queue.fast_put import FastPut
from asynctrack.queue.layout import (
    CAPACITY,
    CONFIG,
    END,
    ENDS,
    HEAD,
    HEADER_BYTES,
    KIND_SHIFT,
    MAGIC,
    META_BYTES,
    META_MAX,
    SLEEPING,
    TAIL,
    VERSION,
    WANTED,
    frame_size,
)
from asynctrack.queue.producer import Producer
from asynctrack.queue.ring import Ring, record_offset

pytestmark = pytest.mark.usefixtures("version")

DEADLINE_S = 20.0  # arbitrary: far more than any of these needs


def drain(ring: Ring) -> list[Frame]:
    """What the worker does: take all there is, and free its room."""
    tail, head = ring.words[TAIL], ring.words[HEAD]
    frames = list(walk(memoryview(ring.copy(tail, head)), 0, head - tail))
    ring.words[TAIL] = head
    return frames


def payloads(ring: Ring) -> list[bytes]:
    return [bytes(frame.payload) for frame in drain(ring)]


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
def make(shm: Path, version: str) -> Iterator[Callable[..., Producer]]:
    """Makes producers with a ring of their own."""
    made: list[Producer] = []

    def make(
        capacity: int = shm_paths.SMALLEST_RING_BYTES, poll: Callable[[bool], object] = bool, first: int = 0
    ) -> Producer:
        path = str(shm / f"{len(made)}.ring")
        made.append(slow_way.create(Ring.create(path, capacity, {"run": "/runs/a"}, first=first), poll))
        return made[-1]

    yield make
    for producer in made:
        producer.close("left")
        producer.ring.close()


@contextlib.contextmanager
def draining(ring: Ring, into: list[Frame]) -> Iterator[None]:
    """A thread that empties a ring as long as the block runs, and what is left at its end."""
    stopped = threading.Event()

    def run() -> None:
        while not stopped.is_set():
            into.extend(drain(ring))
            time.sleep(0)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        into.extend(drain(ring))


def line_of(function: FunctionType, text: str) -> int:
    lines, first = inspect.getsourcelines(function)
    return next(number for number, line in enumerate(lines, first) if text in line)


@contextlib.contextmanager
def interrupted(function: FunctionType, line: str, action: Callable[[], object]) -> Iterator[None]:
    """Run `action` once, from a tracer, when this thread reaches a line of a function: the worst moment, at will."""
    number, pending = line_of(function, line), [action]

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_code is function.__code__ and event == "line" and frame.f_lineno == number and pending:
            pending.pop()()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)
    assert not pending, f"{line!r} was not reached"


INSIDE_PUT = (FastPut._place, "= payload")
INSIDE_SLOW_WAY = (Producer._make_room, "limit = self._next_limit(size)")


class TestPlaces:
    def test_rings_and_their_directories_are_for_their_owner_only(self, shm: Path) -> None:
        before = os.umask(0)
        try:
            host = shm_paths.make_host_directory(str(shm))
            ring = Ring.create(f"{host}/a.ring", 65536, {"run": "/runs/a"})
        finally:
            os.umask(before)
        ring.close()
        root = shm_paths.user_root(str(shm))
        assert root is not None
        modes = [stat.S_IMODE(os.lstat(p).st_mode) for p in (root, host, f"{host}/a.ring", f"{host}/wake")]
        assert modes == [0o700, 0o700, 0o600, 0o600]

    @pytest.mark.parametrize("squat", ["open directory", "symlink", "file", "another user's"])
    def test_a_squatted_name_is_left_alone(self, shm: Path, squat: str) -> None:
        name, elsewhere = shm / f"asynctrack-{os.geteuid()}", shm / "elsewhere"
        elsewhere.mkdir(0o700)
        if squat == "open directory":
            name.mkdir()
            name.chmod(0o755)
        elif squat == "symlink":
            name.symlink_to(elsewhere)
        elif squat == "file":
            name.touch()
        elif os.geteuid() == 0:
            name.mkdir(0o700)
            os.chown(name, 12345, -1)
        else:
            pytest.skip("only root can give a directory away")
        host = Path(shm_paths.make_host_directory(str(shm)))
        assert shm_paths.user_root(str(shm)) is None
        assert name not in host.parents
        assert list(elsewhere.iterdir()) == []
        assert stat.S_IMODE(host.parent.stat().st_mode) == 0o700

    def test_what_lies_beside_a_squatted_name_is_found_again(self, shm: Path) -> None:
        (shm / f"asynctrack-{os.geteuid()}").touch()
        hosts = {shm_paths.make_host_directory(str(shm)) for _ in range(2)}
        assert set(shm_paths.host_directories()) == hosts
        (root,) = {os.path.dirname(host) for host in hosts}
        os.chmod(root, 0o755)  # others may have put something there
        assert list(shm_paths.host_directories()) == []

    @pytest.mark.parametrize(
        ("others", "free", "size"),
        [
            (0, 24 << 30, 16 << 20),
            (7, 24 << 30, 16 << 20),
            (8, 24 << 30, 8 << 20),
            (16, 24 << 30, 4 << 20),
            (300, 24 << 30, 4 << 20),
            (0, 255 << 20, 8 << 20),
            (16, 63 << 20, 2 << 20),
        ],
    )
    def test_a_queue_is_as_large_as_memory_and_the_others_allow(
        self, shm: Path, monkeypatch: pytest.MonkeyPatch, others: int, free: int, size: int
    ) -> None:
        host = shm_paths.make_host_directory(str(shm))
        for i in range(others):
            Path(host, f"{i}.ring").touch()
        free_bytes(monkeypatch, free)
        assert shm_paths.ring_bytes(host) == size

    def test_a_hundred_rings_fit_the_shared_memory_of_a_container(
        self, shm: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        host = Path(shm_paths.make_host_directory(str(shm)))
        for i in range(100):
            free_bytes(monkeypatch, (64 << 20) - sum(path.stat().st_size for path in host.glob("*.ring")))
            size = shm_paths.ring_bytes(str(host))
            assert size >= shm_paths.SMALLEST_RING_BYTES
            with (host / f"{i}.ring").open("wb") as file:
                file.truncate(size + HEADER_BYTES)
        assert sum(path.stat().st_size for path in host.glob("*.ring")) <= 64 << 20

    def test_no_ring_can_be_made_in_a_closed_host(self, shm: Path) -> None:
        host = shm_paths.make_host_directory(str(shm))
        closed = shm_paths.close_host(host)
        assert shm_paths.close_host(closed) == closed
        with pytest.raises(FileNotFoundError):
            Ring.create(f"{host}/a.ring", 65536, {"run": "/runs/a"})

    def test_hosts_are_found_until_they_are_removed(self, shm: Path) -> None:
        hosts = {shm_paths.make_host_directory(str(shm)) for _ in range(2)}
        assert set(shm_paths.host_directories()) == hosts
        for host in hosts:
            shm_paths.remove_host(host)
        assert list(shm_paths.host_directories()) == []
        assert list(shm.iterdir()) == []
        assert shm_paths.ring_paths(next(iter(hosts))) == []


def free_bytes(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """Let the file system of queues say that so much is free."""
    said = os.statvfs_result((4096, 4096, 1 << 24, free // 4096, free // 4096, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: said)


def mapped_bytes(path: str) -> int:
    """The bytes of a mapped file for which this process has pages."""
    _, _, entry = Path("/proc/self/smaps").read_text().partition(path)
    return 1024 * int(entry.partition("Rss:")[2].split()[0])


class TestRing:
    def test_a_ring_under_construction_is_not_taken_over(self, shm: Path) -> None:
        (shm / "a.ring.new").write_bytes(b"another's")
        with pytest.raises(FileExistsError):
            Ring.create(str(shm / "a.ring"), 65536, {"run": "/runs/a"})
        assert [(path.name, path.read_bytes()) for path in shm.iterdir()] == [("a.ring.new", b"another's")]

    @pytest.mark.parametrize("capacity", [0, 1000, 12288])
    def test_a_capacity_that_is_no_power_of_two_leaves_nothing_behind(self, shm: Path, capacity: int) -> None:
        with pytest.raises(ValueError, match=r"a\.ring"):
            Ring.create(str(shm / "a.ring"), capacity, {"run": "/runs/a"})
        assert list(shm.iterdir()) == []

    def test_too_long_a_path_of_the_run_is_an_error_of_the_system(self, shm: Path) -> None:
        with pytest.raises(OSError, match="too long") as caught:
            Ring.create(str(shm / "a.ring"), 65536, {"run": "x" * META_MAX})
        assert caught.value.errno == errno.ENAMETOOLONG
        assert list(shm.iterdir()) == []

    def test_a_full_file_system_is_an_error_and_not_a_sigbus(self, shm: Path) -> None:
        script = """
            from asynctrack.queue.ring import Ring
            try:
                Ring.create("a.ring", 1 << 20, {"run": "/runs/a"})
            except OSError as error:
                print(error.errno, os.listdir())
        """
        assert in_small_tmpfs(shm, script) == f"{errno.ENOSPC} []\n"

    def test_what_one_process_puts_another_attaches(self, shm: Path) -> None:
        path = shm / "a.ring"
        with producer_process(path, "p.put(b'one'); p.put(b'two', CONFIG << KIND_SHIFT, 0); ready()"):
            ring = Ring.attach(str(path))
            frames = [(frame.number, frame.kind, bytes(frame.payload)) for frame in drain(ring)]
            assert (frames, ring.meta["run"], ring.capacity) == (
                [(0, 0, b"one"), (1, CONFIG, b"two")],
                "/runs/a",
                65536,
            )
            ring.close()

    @pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such call")
    def test_pages_of_the_first_lap_are_mapped_before_they_are_written_to(self, shm: Path) -> None:
        path = str(shm / "a.ring")
        ring = Ring.create(path, 1 << 20, {"run": "/r"})
        ring.populate(0, 100_000)
        first = mapped_bytes(path)
        assert first >= 100_000
        ring.populate(50_000, 300_000)
        assert mapped_bytes(path) >= 300_000
        ring.populate((1 << 20) - 8, (1 << 20) + 50_000)  # what lies beyond the end is mapped by now
        assert ring.words[HEAD] == 0 and ring.copy(0, 300_000) == bytes(300_000)

    def test_system_that_cannot_map_pages_beforehand_is_asked_once(
        self, shm: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("asynctrack.queue.ring._POPULATE_WRITE", 12_345)  # no such advice
        ring = Ring.create(str(shm / "a.ring"), 1 << 20, {"run": "/r"})
        ring.populate(0, 4096)
        assert ring._populated == ring.capacity

    def test_a_symlink_is_not_followed(self, shm: Path, make: Callable[..., Producer]) -> None:
        (shm / "link.ring").symlink_to(make().ring.path)
        with pytest.raises(OSError, match="symbolic link"):
            Ring.attach(str(shm / "link.ring"))

    @pytest.mark.parametrize(
        ("word", "value"),
        [
            (MAGIC, 0),
            (VERSION, 2),
            (CAPACITY, 32768),
            (CAPACITY, 131072),
            (META_BYTES, META_MAX + 1),
            (HEAD, 65544),
            (HEAD, 4),
            (TAIL, 8),
            (END, len(ENDS)),
        ],
    )
    def test_a_header_that_cannot_be_is_refused(self, shm: Path, make: Any, word: int, value: int) -> None:
        raw = bytearray(Path(make().ring.path).read_bytes())
        raw[8 * word : 8 * word + 8] = value.to_bytes(8, "little")
        refused(shm / "bad.ring", raw)

    @pytest.mark.parametrize("size", [0, 1, 1024, HEADER_BYTES, HEADER_BYTES + 65536 - 8, HEADER_BYTES + 65536 + 1])
    def test_another_size_is_refused(self, shm: Path, make: Any, size: int) -> None:
        refused(shm / "bad.ring", Path(make().ring.path).read_bytes().ljust(size, b"\0")[:size])

    def test_a_file_of_another_user_is_refused(self, shm: Path, make: Any) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root can give a file away")
        bad = shm / "bad.ring"
        bad.write_bytes(Path(make().ring.path).read_bytes())
        os.chown(bad, 12345, -1)
        with pytest.raises(PermissionError):
            Ring.attach(str(bad))


def refused(path: Path, raw: bytes | bytearray) -> None:
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=str(path)):
        Ring.attach(str(path))
    assert str(path) not in Path("/proc/self/maps").read_text()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            assert descriptor.readlink() != path


def in_small_tmpfs(directory: Path, script: str, size: str = "256k") -> str:
    """What a script prints in a file system of its own that is soon full."""
    code = inspect.cleandoc("import os\n" + inspect.cleandoc(script))
    mount = f'mount -t tmpfs -o size={size} tmpfs "$0" && cd "$0" || exit 99; exec "$1" -c "$2"'
    try:
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", mount, directory, sys.executable, code],
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_S,
        )
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if done.returncode in (1, 99) and "Traceback" not in done.stderr:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def producer_process(path: Path, body: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that makes a ring and does what `body` says until it calls `ready`, then waits."""
    code = f"""
import os, sys, time
from asynctrack.queue.layout import *
from asynctrack.queue.producer import create
from asynctrack.queue.ring import Ring
def ready(*said):
    print(*said, flush=True)
    sys.stdin.read()
p = create(Ring.create({str(path)!r}, 65536, {{"run": "/runs/a"}}), bool)
{body}
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    with process:
        try:
            assert process.stdout is not None
            process.said = process.stdout.readline()  # type: ignore[attr-defined]
            yield process
        finally:
            process.kill()


class TestProducerLives:
    def test_as_long_as_its_process(self, shm: Path) -> None:
        with producer_process(shm / "a.ring", "ready()") as process:
            ring = Ring.attach(str(shm / "a.ring"))
            assert ring.producer_lives()
            process.send_signal(signal.SIGSTOP)
            assert ring.producer_lives()
            process.kill()  # it is a zombie until we wait for it
            wait_until(lambda: not ring.producer_lives())
            ring.close()

    def test_not_as_long_as_its_forked_children(self, shm: Path) -> None:
        body = "pid = os.fork()\nif pid: print(pid, flush=True); os._exit(0)\nos.close(1); time.sleep(60)"
        with producer_process(shm / "a.ring", body) as process:
            ring = Ring.attach(str(shm / "a.ring"))
            try:
                process.wait(DEADLINE_S)
                assert not ring.producer_lives()
                os.kill(int(process.said), 0)  # type: ignore[attr-defined]  # the child is still there
            finally:
                os.kill(int(process.said), signal.SIGKILL)  # type: ignore[attr-defined]
                ring.close()

    def test_when_its_forked_child_closes_the_ring(self, shm: Path) -> None:
        body = "if not os.fork(): p.ring.close(); os._exit(0)\nos.wait(); ready()"
        with producer_process(shm / "a.ring", body):
            ring = Ring.attach(str(shm / "a.ring"))
            assert ring.producer_lives()
            ring.close()

    def test_a_forked_child_cannot_put_into_its_parents_ring(self, shm: Path) -> None:
        body = (
            "p.put(b'parent')\n"
            "if not os.fork(): os._exit(p.put(b'child') + 2 * p.put(b'x' * 30000))\n"
            "code = os.waitstatus_to_exitcode(os.wait()[1]); p.put(b'parent'); ready(code, int(p.is_open))"
        )
        with producer_process(shm / "a.ring", body) as process:
            ring = Ring.attach(str(shm / "a.ring"))
            assert process.said.split() == ["0", "1"]  # type: ignore[attr-defined]
            assert payloads(ring) == [b"parent", b"parent"]
            ring.close()


class TestPut:
    def test_frames_come_out_as_they_went_in(self, make: Any) -> None:
        producer = make(first=7)
        assert [producer.put(b"x" * size) for size in range(40)] == [True] * 40
        assert producer.put(b"config", CONFIG << KIND_SHIFT, 0)
        assert producer.put(b"last")
        frames = [(frame.number, frame.kind, frame.lost, bytes(frame.payload)) for frame in drain(producer.ring)]
        assert frames == [
            *((7 + size, 0, 0, b"x" * size) for size in range(40)),
            (47, CONFIG, 0, b"config"),
            (47, 0, 0, b"last"),
        ]

    def test_a_drop_is_a_gap_that_later_frames_tell(self, make: Any) -> None:
        producer = make(first=5)
        producer.put(b"a")
        producer.drop("full", 2)
        producer.drop("oversize")
        producer.put(b"b")
        assert [(frame.number, frame.lost) for frame in drain(producer.ring)] == [(5, 0), (9, 3)]
        assert producer.ring.dropped() == {"full": 2, "oversize": 1}
        assert producer.number == 10

    def test_a_count_of_drops_beyond_32_bits_wraps(self, make: Any) -> None:
        producer = make()
        producer.drop("full", (1 << 32) - 1)
        producer.drop("full", 2)
        producer.put(b"")
        [frame] = drain(producer.ring)
        assert (frame.number, frame.lost) == ((1 << 32) + 1, 1)

    def test_any_batch_tells_how_many_records_came_before(self, make: Any) -> None:
        producer, records = make(1024, first=3), 0
        for size in range(300):
            start = producer.ring.words[HEAD]
            placed = producer.put(b"x" * size, *([CONFIG << KIND_SHIFT, 0] if size % 5 == 0 else []))
            assert placed
            if size % 3 == 0:
                producer.drop("full")
            batch = producer.ring.copy(start, producer.ring.words[HEAD])
            assert record_offset(batch, 3) == records
            records += size % 5 != 0
            drain(producer.ring)

    def test_the_largest_frame_fits_an_empty_ring_wherever_it_begins(self, make: Any) -> None:
        for offset in range(16, 1024 - 8, 8):
            producer = make(1024)
            while producer.head < offset:
                assert producer.put(b"x" * 8 if offset - producer.head == 24 else b"")
                drain(producer.ring)
            payload = os.urandom(producer.largest)
            assert producer.put(payload)
            assert payloads(producer.ring) == [payload]

    @pytest.mark.parametrize("size", [0, 1, 40, 300, 480])
    def test_a_full_ring_refuses_until_there_is_room(self, make: Any, size: int) -> None:
        producer = make(1024)
        for lap in range(20):
            placed = []
            while producer.put(payload := bytes([lap, len(placed) % 256]).ljust(size, b".")[:size]):
                placed.append(payload)
            assert 1024 - producer.ring.used() < 2 * frame_size(size) + 16
            number = producer.number
            assert not producer.put(b"." * size)
            assert (producer.number, producer.ring.dropped()) == (number, {})
            assert payloads(producer.ring) == placed

    def test_a_nested_record_that_finds_no_room_is_put_when_there_is(self, make: Any) -> None:
        producer = make(1024)
        while producer.put(b"x" * 40):
            pass
        before = producer.number
        with interrupted(*INSIDE_SLOW_WAY, lambda: producer.put(b"n" * 40)):
            assert not producer.put(b"y" * 8)  # a smaller one than was refused: it looks for room again
        assert (producer.number, producer.ring.dropped()) == (before, {})
        assert not producer.settle()
        drain(producer.ring)
        assert producer.settle()
        assert payloads(producer.ring)[-1] == b"n" * 40

    def test_a_full_ring_is_not_looked_at_for_each_record(self, make: Any) -> None:
        looks: list[bool] = []
        producer = make(1024, looks.append)
        while producer.put(b"x" * 40):
            pass
        looks.clear()
        refused = [producer.put(b"x" * 40) for _ in range(200)]
        assert not any(refused) and len(looks) < 20
        drain(producer.ring)
        assert producer.put(b"x" * 40)

    def test_a_frame_larger_than_the_ring_is_refused(self, make: Any) -> None:
        producer = make(1024)
        assert not producer.put(b"x" * 1024)
        assert (producer.number, producer.head) == (0, 0)
        assert producer.put(b"x" * producer.largest)

    def test_counts_of_the_ring_agree_with_its_frames(self, make: Any) -> None:
        producer = make(1024)
        producer.put(b"config", CONFIG << KIND_SHIFT, 0)
        for _ in range(3):
            producer.put(b"x")
        assert producer.ring.queued(0) == 3
        assert producer.ring.used() == 4 * 24
        assert producer.want() == producer.ring.words[WANTED] == producer.head == 4 * 24
        assert repr(producer.ring).endswith("of 1024 bytes, 96 used, open>")
        assert "3 offered, 0 dropped" in repr(producer)


class TestLook:
    def test_the_worker_is_woken_once_the_ring_is_half_full(self, make: Any) -> None:
        looks: list[tuple[int, bool]] = []
        producer = make(poll=lambda wake: looks.append((producer.ring.used(), wake)))
        producer.ring.words[SLEEPING] = 1
        for _ in range(700):
            producer.put(b"x" * 40)
        wakes = [used for used, wake in looks if wake]
        assert wakes
        assert 32768 <= wakes[0] <= 32768 + 64

    def test_a_worker_that_is_awake_is_left_alone(self, make: Any) -> None:
        looks: list[bool] = []
        producer = make(poll=looks.append)
        while producer.put(b"x" * 40):
            pass
        assert looks
        assert not any(looks)

    def test_bursts_into_the_smallest_ring_need_no_clock(self, make: Any) -> None:
        """The worker here sleeps until it is told: a wake that is not sent would be a hang."""
        woken, stopped, frames = threading.Event(), threading.Event(), []
        producer = make(poll=lambda wake: wake and woken.set())
        words = producer.ring.words

        def worker() -> None:
            while not stopped.is_set():
                words[SLEEPING] = 1
                if producer.ring.used() * 2 <= producer.capacity:
                    woken.wait()
                woken.clear()
                words[SLEEPING] = 0
                frames.extend(drain(producer.ring))

        thread = threading.Thread(target=worker)
        thread.start()
        try:
            for number in range(20_000):
                wait_until(lambda number=number: producer.put(b"%d" % number))
        finally:
            stopped.set()
            woken.set()
            thread.join()
        frames += drain(producer.ring)
        assert [int(bytes(frame.payload)) for frame in frames] == list(range(20_000))


class TestClose:
    def test_a_closed_producer_takes_nothing(self, make: Any) -> None:
        producer = make()
        producer.put(b"before")
        producer.close("finished")
        assert not producer.put(b"after")
        assert not producer.put(b"after" * 1000)
        assert ENDS[producer.ring.words[END]] == "finished"
        assert payloads(producer.ring) == [b"before"]

    def test_the_first_word_on_how_it_ended_stays(self, make: Any) -> None:
        producer = make()
        producer.close("failed")
        producer.close("finished")
        assert ENDS[producer.ring.words[END]] == "failed"

    def test_a_put_that_waits_while_another_thread_closes_is_refused(self, make: Any, version: str) -> None:
        producer, placed = make(1024), []
        for _ in range(2):
            producer.put(b"x" * 400)
            drain(producer.ring)
        head = producer.head
        waits = threading.Thread(target=lambda: placed.append(producer.put(b"y" * 400)))  # it would have to wrap
        function: Any = Producer._put_slowly if version == NATIVE else FastPut.put
        at_the_lock = function.__code__, line_of(function, "with self._lock:")
        with producer._lock:
            waits.start()
            wait_until(lambda: at_the_lock in [(f.f_code, f.f_lineno) for f in sys._current_frames().values()])
            producer.close("finished")
        waits.join()
        assert placed == [False]
        assert not producer.put(b"z")
        assert producer.ring.words[HEAD] == head

    def test_abandoning_keeps_the_ring_as_it_is(self, make: Any) -> None:
        producer = make()
        producer.put(b"before")
        producer.after_fork()
        assert not producer.put(b"after")
        producer.close("finished")
        assert ENDS[producer.ring.words[END]] == "open"
        assert payloads(producer.ring) == [b"before"]


@pytest.fixture(params=[INSIDE_PUT, INSIDE_SLOW_WAY], ids=["fast way", "slow way"])
def where(request: pytest.FixtureRequest, version: str) -> Any:
    """A line of a put at which others come in between."""
    if request.param is INSIDE_PUT and version == NATIVE:
        pytest.skip("nothing comes in between: it is one call of C")
    return request.param


class TestNestedCalls:
    """What a finaliser, tracer or signal handler may do while a put of the same thread is under way."""

    def put_interrupted(self, producer: Producer, where: Any, action: Callable[[], object]) -> bool:
        if where is INSIDE_SLOW_WAY:
            producer.put(b"f" * producer.largest)  # half the ring: the next put has to look
        with interrupted(*where, action):
            placed = producer.put(b"outer")
        return placed

    def test_a_nested_record_comes_after(self, make: Any, where: Any) -> None:
        producer = make()
        assert self.put_interrupted(producer, where, lambda: [producer.put(b"1"), producer.put(b"2")])
        frames = drain(producer.ring)
        assert [bytes(frame.payload) for frame in frames][-3:] == [b"outer", b"1", b"2"]
        assert [frame.number for frame in frames] == list(range(len(frames)))

    def test_thousands_of_nested_records_are_no_recursion(self, make: Any, where: Any) -> None:
        producer = make(1 << 20)
        assert self.put_interrupted(producer, where, lambda: [producer.put(b"n") for _ in range(5000)])
        assert payloads(producer.ring)[-5001:] == [b"outer"] + [b"n"] * 5000

    def test_nested_records_without_room_wait_for_it(self, make: Any, where: Any) -> None:
        producer, accepted = make(1024), []
        sizes = [400, 400, 400, producer.largest + 1, 8]
        placed = self.put_interrupted(
            producer, where, lambda: accepted.extend(producer.put(b"n" * size) for size in sizes)
        )
        assert placed
        assert accepted == [True, True, True, False, True]  # what never fits is refused at once
        found = []
        while not producer.settle():
            found += drain(producer.ring)
        found += drain(producer.ring)
        nested = [len(frame.payload) for frame in found if bytes(frame.payload[:1]) == b"n"]
        assert nested == [400, 400, 400, 8]
        assert producer.ring.dropped() == {}

    def test_a_nested_drop_is_a_gap(self, make: Any, where: Any) -> None:
        producer = make()
        self.put_interrupted(producer, where, lambda: producer.drop("oversize"))
        producer.put(b"after")
        *_, outer, after = drain(producer.ring)
        assert outer.number - outer.lost + 1 == after.number - after.lost
        assert (after.lost, producer.number) == (1, after.number + 1)

    def test_a_nested_close_ends_and_counts_what_it_cut_off(self, make: Any, where: Any) -> None:
        producer = make()
        placed = self.put_interrupted(producer, where, lambda: [producer.put(b"nested"), producer.close("finished")])
        assert not placed
        assert not producer.put(b"after")
        assert not producer.is_open
        assert ENDS[producer.ring.words[END]] == "finished"
        assert producer.ring.dropped() == {"closed": 1}
        assert b"nested" not in payloads(producer.ring)

    def test_an_exception_from_a_nested_call_leaves_the_ring_usable(self, make: Any, where: Any) -> None:
        producer = make()
        with contextlib.suppress(ZeroDivisionError):
            self.put_interrupted(producer, where, lambda: 1 // 0)
        drain(producer.ring)
        assert producer.put(b"after")
        assert payloads(producer.ring)[-1] == b"after"


class TestStorms:
    @pytest.mark.system
    def test_finalisers_that_log_whenever_the_collector_runs(self, make: Any) -> None:
        producer, slices, frames = make(), [], []

        class Cyclic:
            def __init__(self) -> None:
                self.itself = self

            def __del__(self) -> None:
                producer.put(b"nested")

        put = producer.put  # as a run does: on 3.11 the collector would come as the bound method is made
        thresholds = gc.get_threshold()
        gc.freeze()  # what the tests before left need not be looked at
        try:
            for _ in range(1000):
                gc.disable()
                Cyclic()
                slices.append(slice(0))  # 3.11 keeps one for reuse: without it, `put` allocates inside its claim
                gc.set_threshold(1)
                gc.enable()
                assert put(b"outer")
                gc.set_threshold(*thresholds)
                gc.collect()
                frames += drain(producer.ring)
        finally:
            gc.enable()
            gc.set_threshold(*thresholds)
            gc.unfreeze()
        assert Counter(bytes(frame.payload) for frame in frames) == {b"outer": 1000, b"nested": 1000}
        assert [frame.number for frame in frames] == list(range(2000))

    def test_a_tracer_that_logs_every_line(self, make: Any) -> None:
        producer, traced, frames = make(1 << 20), itertools.count(), []

        def trace(frame: FrameType, event: str, arg: object) -> Any:
            assert producer.put(b"traced %d" % next(traced))
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            for number in range(100):
                producer.put(b"%d" % number)
        finally:
            sys.settrace(before)
        frames = payloads(producer.ring)
        assert [frame for frame in frames if not frame.startswith(b"traced")] == [b"%d" % n for n in range(100)]
        assert {frame for frame in frames if frame.startswith(b"traced")} == {
            b"traced %d" % n for n in range(next(traced))
        }
        assert len(set(frames)) == len(frames) == producer.number

    def test_tracers_that_let_other_threads_in(self, make: Any) -> None:
        """A debugger's tracer runs Python, so that another thread may go on at any line of `put`."""
        producer = make(1 << 20)

        def trace(frame: FrameType, event: str, arg: object) -> Any:
            return trace

        def log(thread: int) -> None:
            sys.settrace(trace)
            for number in range(1000):
                assert producer.put(b"%d %d" % (thread, number))

        run_threads(log, 4)
        assert_per_thread(drain(producer.ring), 4, 1000)

    def test_four_threads_and_a_worker(self, make: Any) -> None:
        producer, frames = make(), []

        def log(thread: int) -> None:
            for number in range(5000):
                wait_until(lambda: producer.put(b"%d %d" % (thread, number)))  # noqa: B023  # called at once

        with draining(producer.ring, frames):
            run_threads(log, 4)
        assert_per_thread(frames, 4, 5000)
        assert [frame.number for frame in frames] == list(range(20_000))

    @pytest.mark.slow
    def test_many_records_from_threads(self, make: Any) -> None:
        producer, frames = make(), []

        def log(thread: int) -> None:
            for number in range(200_000):
                wait_until(lambda: producer.put(b"%d %d" % (thread, number)))  # noqa: B023  # called at once

        with draining(producer.ring, frames):
            run_threads(log, 4)
        assert_per_thread(frames, 4, 200_000)

    @pytest.mark.system
    def test_signal_handlers_that_log(self, make: Any) -> None:
        producer, frames, handled = make(), [], itertools.count()

        def handle(number: int, frame: object) -> None:
            handler_logs.append(producer.put(b"1 %d" % next(handled)))

        handler_logs: list[bool] = []
        by_main: list[bytes] = []
        with draining(producer.ring, frames), storm(handle):
            while len(handler_logs) < 500:
                by_main.append(b"0 %d" % len(by_main))
                wait_until(lambda: producer.put(by_main[-1]))
        assert sum(handler_logs) + len(by_main) == len(frames) + sum(producer.ring.dropped().values())
        assert [bytes(frame.payload) for frame in frames if frame.payload[:1] == b"0"] == by_main
        assert len({bytes(frame.payload) for frame in frames}) == len(frames)

    def test_interrupts_that_raise_anywhere(self, make: Any) -> None:
        producer, accepted, frames = make(), [], []

        def handle(number: int, frame: object) -> None:
            if armed:
                armed.clear()
                raise KeyboardInterrupt

        def log_some() -> None:  # a function: 3.13 does not guard the jumps of a loop that stands in a `with` itself
            armed.append(True)
            for _ in range(100):
                number = next(numbers)
                if producer.put(b"%d" % number):
                    accepted.append(number)
            armed.clear()

        armed: list[bool] = []
        numbers = itertools.count()
        interrupts = 0
        with draining(producer.ring, frames), storm(handle):
            while interrupts < 300:
                try:
                    log_some()
                except KeyboardInterrupt:
                    interrupts += 1
        found = [int(bytes(frame.payload)) for frame in frames]
        assert found == sorted(set(found))
        assert set(accepted) <= set(found)
        assert producer.put(b"after")


def run_threads(work: Callable[[int], None], count: int) -> None:
    """Run `work(0)`, `work(1)` ... at once, switching as often as the interpreter can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    ended: list[int] = []
    threads = [threading.Thread(target=lambda i=i: (work(i), ended.append(i)), daemon=True) for i in range(count)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(ended) == count


def assert_per_thread(frames: list[Frame], threads: int, each: int) -> None:
    """Every record is there once, those of a thread in order."""
    found: dict[int, list[int]] = {thread: [] for thread in range(threads)}
    for frame in frames:
        thread, number = map(int, bytes(frame.payload).split())
        found[thread].append(number)
    assert found == {thread: list(range(each)) for thread in range(threads)}


@contextlib.contextmanager
def storm(handle: Callable[[int, Any], object]) -> Iterator[None]:
    """Calls `handle` as a signal handler, thousands of times a second, as long as the block runs."""
    code = f"import os, time\nwhile True: os.kill({os.getpid()}, {signal.SIGUSR1:d}); time.sleep(1e-4)"
    before = signal.signal(signal.SIGUSR1, handle)  # the alarm is pytest-timeout's
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield
    finally:
        process.kill()
        process.wait()
        signal.signal(signal.SIGUSR1, before)


def test_what_is_journaled_in_pieces_is_cut_between_frames(make: Callable[..., Producer]) -> None:
    producer, sizes = make(1 << 20), itertools.cycle([8, 400, 4000, 60_000])
    ring, pieces = producer.ring, 0
    for _ in range(20):  # laps
        while producer.put(bytes(next(sizes))):
            pass
        tail, head = ring.words[TAIL], ring.words[HEAD]
        boundaries, at = set(), tail
        while at < head:
            at += frame_size(int.from_bytes(ring.copy(at, at + 4), "little"))
            boundaries.add(at)
        at = tail
        while at < head:
            at, pieces = ring.batch_end(at, head, 100_000), pieces + 1
            assert at in boundaries
        ring.words[TAIL] = head
    assert pieces > 20 * 5
