"""Wake pipe: it wakes the drain, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

from asynctrack.queue.shm_paths import WAKE_NAME
from asynctrack.worker.wake_pipe import WakePipe


def test_pipe_that_is_closed_writes_into_no_file_that_has_its_number_by_now(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / WAKE_NAME)
    pipe = WakePipe(str(tmp_path))
    pipe.wake()
    assert pipe.wait(0.0)
    number = pipe._fd
    pipe.close()
    other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    assert other == number
    pipe.wake()
    os.close(other)
    assert (tmp_path / "other").read_bytes() == b""
