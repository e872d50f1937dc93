"""Carrier contract: the promises of a carrier, as tests that run with pytest where the class is subclassed.

Each test writes the journals of hosts, has the carrier bring them to one run, and compares the rings of both byte for byte.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

from asynctrack.carriers.parts import part_name
from asynctrack.errors import AsynctrackError
from asynctrack.journal import manifest as manifests
from asynctrack.journal.frames import walk
from asynctrack.journal.layout import NOTES_RING, segment_name
from asynctrack.journal.manifest import Status
from asynctrack.journal.reader import Reader, segments
from asynctrack.queue.layout import JOIN, START
from asynctrack.testing.journaled import JournaledRun

_PROJECT: Final = "contract"
_RUN: Final = "run"
# Between two looks at the merged run. Arbitrary.
_POLL_S: Final = 0.01
# So short that each journal has several. Arbitrary.
_SEGMENT_BYTES: Final = 4000


class Carrying(Protocol):
    """Carries from the hosts to the merged run: by processes, servers, whatever it needs."""

    def kill(self) -> None:
        """Kill all of it, as SIGKILL does; what was on the way may be lost, and may have come."""
        ...

    def stop(self) -> None:
        """End it."""
        ...


class HostPart:
    """Writes one host's part of the run, of two processes.

    Attributes:
        path: its directory.

    Args:
        directory: that of all parts, as the carrier finds them.
        host: the name of the host.
        rank: of its first process; that with rank 0 owns the run.
    """

    def __init__(self, directory: Path, host: str, rank: int) -> None:
        self.path: Path = directory / _PROJECT / part_name(_RUN, host)
        said = {"host": host, "pid": 1 + rank, "writer": f"rank{rank}", "rank": rank, "joins": True}
        self._run = JournaledRun(
            self.path, config={f"of_{host}": rank}, environment=said, run_id=_RUN, segment_bytes=_SEGMENT_BYTES
        )
        self._other = self._run.join(f"rank{rank + 1}", rank + 1)
        self._step = 0

    def log(self, records: int) -> None:
        """Have each process log, in a batch each.

        Args:
            records: how many records each process logs.
        """
        for step in range(self._step, self._step + records):
            self._run.log({"loss": step / 2}, step)
            self._other.log({"loss": step / 4}, step)
        self._step += records
        self._run.journal()
        self._other.journal()

    def end(self, status: Status = "finished") -> None:
        """End both processes, and this part of the run.

        Args:
            status: how this part has ended.
        """
        self._other.end_ring()
        self._run.end_ring()
        self._run.end(status)
        self._run.close()


class CarrierContract:
    """Tests a carrier by its contract.

    Subclass it as `class TestMine(CarrierContract)`, with `carry`.

    Attributes:
        limit_s: seconds that the carrier may take to bring what a test has written.
        kills: how often the carrier is killed in a test of kills.
    """

    limit_s: float = 30.0
    kills: int = 5

    def carry(self, parts: Path, out: Path) -> Carrying:
        """Start what carries: from now on all that hosts have in `parts`, and write there, is brought to the merged run.

        Called again after `kill` and `stop`, with the same arguments.

        Args:
            parts: has the part of each host as `PROJECT/RUN@HOST`; more may come.
            out: the merged run is to be `PROJECT/RUN` there.

        Returns:
            What ends it again.
        """
        raise NotImplementedError(f"{type(self).__name__} has no carry(parts, out)")

    # The tests

    def test_every_ring_is_the_same(self, tmp_path: Path) -> None:
        """Check that the rings of all hosts are in the merged run, byte for byte, and that it ends."""
        hosts = self._hosts(tmp_path)
        for host in hosts:
            host.log(20)
            host.log(5)
            host.end()
        with self._carried(tmp_path):
            self._wait_for_end(tmp_path, "finished", hosts)
        self._assert_merged(tmp_path, hosts)

    def test_what_is_written_meanwhile_comes(self, tmp_path: Path) -> None:
        """Check that batches come while the hosts write them, and that the run goes on until the last host has ended."""
        hosts = self._hosts(tmp_path)
        with self._carried(tmp_path):
            for _ in range(5):
                for host in hosts:
                    host.log(3)
                self._wait(lambda: self._has_all(tmp_path, hosts), "the batches come")
            hosts[0].end()
            self._wait(lambda: self._ended(tmp_path) == ["a"], "the end of the first host comes")
            assert self._status(tmp_path) == "running"
            for host in hosts[1:]:
                host.end()
            self._wait_for_end(tmp_path, "finished", hosts)
        self._assert_merged(tmp_path, hosts)

    def test_host_that_comes_late_is_merged(self, tmp_path: Path) -> None:
        """Check a host that begins when the run has ended without it."""
        first = HostPart(self._parts(tmp_path), "a", 0)
        first.log(5)
        first.end()
        with self._carried(tmp_path):
            self._wait_for_end(tmp_path, "finished", [first])
            late = HostPart(self._parts(tmp_path), "b", 2)
            late.log(5)
            self._wait(lambda: self._status(tmp_path) == "running", "the late host reopens the run")
            late.end()
            self._wait_for_end(tmp_path, "finished", [first, late])
        self._assert_merged(tmp_path, [first, late])

    def test_kills_lose_nothing_and_repeat_nothing(self, tmp_path: Path) -> None:
        """Kill what carries at random moments, while hosts write."""
        hosts, chance = self._hosts(tmp_path), random.Random(1)
        for _ in range(self.kills):
            carrying = self.carry(self._parts(tmp_path), self._out(tmp_path))
            try:
                for host in hosts:
                    host.log(chance.randint(1, 40))
                time.sleep(chance.random() * 0.2)
            finally:
                carrying.kill()
        for host in hosts:
            host.end()
        with self._carried(tmp_path):
            self._wait_for_end(tmp_path, "finished", hosts)
        self._assert_merged(tmp_path, hosts)

    def test_carrying_again_changes_nothing(self, tmp_path: Path) -> None:
        """Check that what is merged is not merged again, also by a carrier that starts anew."""
        hosts = self._hosts(tmp_path)
        for host in hosts:
            host.log(10)
            host.end()
        for _ in range(2):
            with self._carried(tmp_path):
                self._wait_for_end(tmp_path, "finished", hosts)
                self._assert_merged(tmp_path, hosts)

    def test_torn_end_is_waited_for(self, tmp_path: Path) -> None:
        """Check a journal that is being written: its last batch is half there."""
        host = HostPart(self._parts(tmp_path), "a", 0)
        for _ in range(10):
            host.log(3)
        host.end()
        last = host.path / "journal" / segment_name(segments(str(host.path / "journal"))[-1])
        whole = last.read_bytes()
        last.write_bytes(whole[:-10])
        with self._carried(tmp_path):
            self._wait(lambda: self._has_all(tmp_path, [host]), "what is whole comes")
            self._wait(lambda: self._status(tmp_path) == "running", "the run goes on")
            last.write_bytes(whole)
            self._wait_for_end(tmp_path, "finished", [host])
        self._assert_merged(tmp_path, [host])

    def test_segment_that_is_missing_for_a_while_is_waited_for(self, tmp_path: Path) -> None:
        """Check a gap: what lies behind it is merged when it is filled, and not before."""
        host = HostPart(self._parts(tmp_path), "a", 0)
        for _ in range(20):
            host.log(3)
        host.end()
        numbers = segments(str(host.path / "journal"))
        missing, aside = host.path / "journal" / segment_name(numbers[1]), tmp_path / "aside"
        missing.rename(aside)
        with self._carried(tmp_path):
            self._wait(lambda: len(self._rings(self._run(tmp_path))) > 0, "what comes before the gap comes")
            aside.rename(missing)
            self._wait_for_end(tmp_path, "finished", [host])
        self._assert_merged(tmp_path, [host])

    def test_garbage_of_one_host_harms_no_other(self, tmp_path: Path) -> None:
        """Check that a host whose journal is garbage, and one whose part is another run's, leave the others as they are."""
        hosts = self._hosts(tmp_path)
        broken = HostPart(self._parts(tmp_path), "broken", 6)
        broken.log(5)
        for number in segments(str(broken.path / "journal")):
            (broken.path / "journal" / segment_name(number)).write_bytes(random.Random(number).randbytes(5000))
        stranger = HostPart(tmp_path / "elsewhere", "stranger", 8)
        stranger.log(5)
        stranger.end()
        other = self._parts(tmp_path) / "another_project"
        other.mkdir()
        stranger.path.rename(other / stranger.path.name)
        for host in hosts:
            host.log(5)
            host.end()
        with self._carried(tmp_path):
            self._wait_for_end(tmp_path, "finished", hosts)
            self._assert_merged(tmp_path, hosts)
        assert not self._rings(self._out(tmp_path) / "another_project" / _RUN)

    def test_part_that_another_journal_takes_over_is_refused(self, tmp_path: Path) -> None:
        """Check that a host's part stays that of the journal that first wrote it."""
        hosts = self._hosts(tmp_path)
        for host in hosts:
            host.log(5)
            host.end()
        with self._carried(tmp_path):
            self._wait_for_end(tmp_path, "finished", hosts)
        before = self._rings(self._run(tmp_path))
        hosts[0].path.rename(tmp_path / "moved away")
        impostor = HostPart(self._parts(tmp_path), "a", 0)
        impostor.log(5)
        late = HostPart(self._parts(tmp_path), "late", 6)
        late.log(5)
        with self._carried(tmp_path):
            self._wait(lambda: len(self._rings(self._run(tmp_path))) == len(before) + 2, "the late host comes")
        after = self._rings(self._run(tmp_path))
        assert {ring: after.get(ring) for ring in before} == before

    # What they share

    def _hosts(self, tmp_path: Path) -> list[HostPart]:
        return [HostPart(self._parts(tmp_path), host, rank) for host, rank in (("a", 0), ("b", 2), ("c", 4))]

    def _parts(self, tmp_path: Path) -> Path:
        return tmp_path / "parts"

    def _out(self, tmp_path: Path) -> Path:
        return tmp_path / "out"

    def _run(self, tmp_path: Path) -> Path:
        return self._out(tmp_path) / _PROJECT / _RUN

    @contextlib.contextmanager
    def _carried(self, tmp_path: Path) -> Iterator[None]:
        carrying = self.carry(self._parts(tmp_path), self._out(tmp_path))
        try:
            yield
        finally:
            carrying.stop()

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + self.limit_s
        while not condition():
            assert time.monotonic() < deadline, f"after {self.limit_s} s not true: {what}"
            time.sleep(_POLL_S)

    def _wait_for_end(self, tmp_path: Path, status: Status, hosts: Sequence[HostPart]) -> None:
        """Wait until all hosts are merged, and the run has ended: it may end before the last of them comes, and go on with it."""
        self._wait(
            lambda: self._has_all(tmp_path, hosts) and self._status(tmp_path) == status, f"the merged run is {status}"
        )

    def _status(self, tmp_path: Path) -> str | None:
        try:
            return manifests.load(self._run(tmp_path)).status
        except (AsynctrackError, OSError):
            return None

    def _ended(self, tmp_path: Path) -> list[str]:
        try:
            return [one.host for one in manifests.load(self._run(tmp_path)).hosts if one.status != "running"]
        except (AsynctrackError, OSError):
            return []

    def _has_all(self, tmp_path: Path, hosts: Sequence[HostPart]) -> bool:
        wanted = {ring: len(data) for host in hosts for ring, data in self._rings(host.path).items()}
        return {ring: len(data) for ring, data in self._rings(self._run(tmp_path)).items()} == wanted

    def _rings(self, run: Path) -> dict[int, bytes]:
        """Return the bytes of each ring in a journal; nothing may be missing or twice there."""
        found: dict[int, bytes] = {}
        with contextlib.closing(Reader(run / "journal")) as reader:
            for batch in reader:
                ring = batch.header.ring
                if ring != NOTES_RING:
                    known = found.get(ring, b"")
                    assert batch.header.start == len(known), f"{run}: ring {ring:016x} has a gap or a repeat"
                    found[ring] = known + bytes(batch.data)
        return found

    def _assert_merged(self, tmp_path: Path, hosts: Sequence[HostPart]) -> None:
        expected = {ring: data for host in hosts for ring, data in self._rings(host.path).items()}
        found = self._rings(self._run(tmp_path))
        assert found.keys() == expected.keys()
        starts = 0
        for ring, data in expected.items():
            first = next(walk(memoryview(data), 0, len(data)))
            behind = 0
            if first.kind == START and found[ring] != data:
                assert next(walk(memoryview(found[ring]), 0, len(found[ring]))).kind == JOIN
                behind = first.end
            else:
                starts += first.kind == START
            assert found[ring][behind:] == data[behind:], f"ring {ring:016x} differs"
        assert starts == 1, f"the merged run was opened {starts} times"
