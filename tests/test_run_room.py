"""Run room: however many threads write to a run at once, they do not pass what it may have."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from asynctrack.merging.server.limits import ServerLimits
from asynctrack.merging.server.received_files import ReceivedFiles
from asynctrack.merging.server.refused import Refused
from asynctrack.merging.server.run_room import RunRoom

THREADS, SIZE, LIMIT = 16, 100, 10_000


@pytest.fixture
def _threads_take_turns_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Writer(threading.Thread):
    """Writes files as long as there is room, and counts them."""

    def __init__(self, room: RunRoom, folder: Path, number: int) -> None:
        super().__init__()
        self.written = 0
        self._room, self._folder, self._number = room, folder, number

    def run(self) -> None:
        try:
            while True:
                with self._room.take(SIZE, "file"):
                    (self._folder / f"{self._number}-{self.written}").write_bytes(bytes(SIZE))
                    self.written += 1
        except Refused:
            return


@pytest.mark.parametrize("attempt", range(3))
@pytest.mark.usefixtures("_threads_take_turns_often")
def test_threads_that_write_at_once_do_not_pass_the_bound(tmp_path: Path, attempt: int) -> None:
    folder = tmp_path / "media" / "images"
    folder.mkdir(parents=True)
    room = RunRoom(tmp_path, ReceivedFiles(tmp_path, SIZE), ServerLimits(run_bytes=LIMIT, keep_free_bytes=0))
    threads = [Writer(room, folder, number) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    written = sum(thread.written for thread in threads) * SIZE
    assert LIMIT - THREADS * SIZE <= written <= LIMIT
    last = Writer(room, folder, THREADS)
    last.run()
    assert written + last.written * SIZE == LIMIT
