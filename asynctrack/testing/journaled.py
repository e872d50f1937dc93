"""Journaled: make runs without queue and worker, and deliver them from this process. For tests of backends."""

from __future__ import annotations

import copy
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal

import anyio

from asynctrack._system import permissions
from asynctrack.backends.base import Backend
from asynctrack.backends.registry import execution_of, stored
from asynctrack.delivery.polling import Poller
from asynctrack.journal.cursor import Cursor, load_cursor
from asynctrack.journal.join import Join, join_payload
from asynctrack.journal.layout import SEGMENT_BYTES
from asynctrack.journal.manifest import Manifest, Status, now_iso, start_payload
from asynctrack.journal.writer import Writer
from asynctrack.queue.layout import CONFIG, JOIN, KIND_SHIFT, NOTE, RECORD, START, SUMMARY, frame_size
from asynctrack.records.codec import encode, encode_update, make_plain
from asynctrack.worker.delegated_delivery import DelegatedDelivery
from asynctrack.worker.delivery_supervisor import SupervisedProcess, Supervisor

_POLL_S: Final = 0.005


class JournaledRun:
    """Writes the journal of a run in this process.

    It looks like a worker's; as a context manager it closes the journal.

    Args:
        path: the run's directory: `dir/project/id`, made where it is missing.
        config: of the run.
        backends: by name, for its `run.json`.
        environment: of the process that opens it.
        run_id: its id. Default: the name of the directory.
        segment_bytes: a segment of the journal that is longer than this is followed by the next.

    Attributes:
        path: the run's directory.
        manifest: the contents of `run.json`.
    """

    def __init__(
        self,
        path: Path,
        *,
        config: Mapping[str, Any] | None = None,
        backends: Mapping[str, Backend] | None = None,
        environment: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self.path = path
        self.manifest: Manifest = Manifest(
            id=run_id or path.name,
            name=run_id or path.name,
            project=path.parent.name,
            created_at=now_iso(),
            config=dict(config or {}),
            backends={name: stored(backend, path.name, name) for name, backend in (backends or {}).items()},
            environment=dict(environment or {}),
        )
        permissions.make_directories(path)
        self._writer = Writer(path / "journal", segment_bytes=segment_bytes)
        self._ring = int.from_bytes(os.urandom(7), "little") | 1
        self._frames: list[bytes] = []
        self._end = self._put = self._number = self._waiting = 0
        self.start()

    def __repr__(self) -> str:
        return f"<JournaledRun {self.path}, {self._number} records>"

    def __enter__(self) -> JournaledRun:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def start(self) -> None:
        """Open the run; again, where it has ended."""
        self._add(START, start_payload(self.manifest))
        self.journal()

    def join(self, writer: str, rank: int | None = None, *, expected: int | None = None) -> JournaledRun:
        """Have another process join the run.

        Args:
            writer: The label of the process.
            rank: The rank of the process.
            expected: The number of processes that write to the run.

        Returns:
            The run as that process has it open. What it logs goes to the same journal.
        """
        other = copy.copy(self)
        other._ring = int.from_bytes(os.urandom(7), "little") | 1
        other._frames, other._end, other._put, other._number, other._waiting = [], 0, 0, 0, 0
        other._add(JOIN, join_payload(Join(writer=writer, rank=rank, expected=expected, time_ns=time.time_ns())))
        other.journal()
        return other

    def log(self, data: Mapping[str, Any], step: int | None = None, *, time_ns: int | None = None) -> None:
        """Record `data`. The next `journal` or `end` writes it.

        Args:
            data: names to values.
            step: of the record; None for the record's number.
            time_ns: wall clock of the record, nanoseconds since the epoch. Default: now.
        """
        at = time.time_ns() if time_ns is None else time_ns
        self._add(RECORD, encode((at, step, make_plain(data))))
        self._number += 1
        self._waiting += 1

    def update(
        self,
        kind: Literal["config", "summary"],
        data: Mapping[str, Any],
        removed: Sequence[str] = (),
        *,
        time_ns: int | None = None,
    ) -> None:
        """Record a change of the run's config or summary.

        Args:
            kind: "config" or "summary".
            data: new values by key.
            removed: keys to delete.
            time_ns: wall clock of the change, nanoseconds since the epoch. Default: now.
        """
        self._add(CONFIG if kind == "config" else SUMMARY, encode_update(data, removed, at_ns=time_ns))

    def journal(self) -> None:
        """Write the records since the last call to the journal, as one batch."""
        if self._frames:
            self._append(self._ring, self._end, self._put, b"".join(self._frames))
            self._end += sum(map(len, self._frames))
            self._put += self._waiting
            self._frames, self._waiting = [], 0

    def end_ring(self) -> None:
        """Write to the journal that this process has ended, as the worker does."""
        self.journal()
        self._note({"note": "ring_ended", "ring": f"{self._ring:016x}", "end": "finished", "dropped": {}})

    def end(self, status: Status = "finished") -> None:
        """Write the run's end to the journal.

        Args:
            status: how the run ended.
        """
        self.journal()
        self._note({"note": "run_ended", "status": status, "time_ns": time.time_ns()})

    def close(self) -> None:
        """Close the journal. Records that are not in it are lost, as with a process that is killed."""
        self._writer.close()

    def _note(self, content: Mapping[str, Any]) -> None:
        self._append(0, self._writer.ends.get(0, 0), 0, _frame(NOTE, 0, json.dumps(content).encode()))

    def _add(self, kind: int, payload: bytes) -> None:
        self._frames.append(_frame(kind, self._number, payload))

    def _append(self, ring: int, start: int, record_offset: int, frames: bytes) -> None:
        self._writer.append(ring, start, start + len(frames), record_offset, frames)


def deliver(
    run: Path,
    backend: Backend,
    *,
    name: str = "backend",
    keep: bool | None = None,
    force: bool = False,
    timeout_s: float = 30.0,
) -> Cursor:
    """Deliver everything in a run's journal from this process, on from where the backend is.

    The run's end is delivered too, if it has one.

    Args:
        run: the run's directory.
        backend: its settings.
        name: of the backend in the run.
        keep: whether its cursor is saved; otherwise it gets the whole run each time. Default: True unless its sink runs
            in the caller.
        force: deliver also from a copy of a run.
        timeout_s: seconds it may take.

    Returns:
        The backend's cursor at the end.

    Raises:
        TimeoutError: it took longer; `load_cursor(run, name).last_error` may know why.
    """

    async def work() -> Cursor:
        outlives = execution_of(backend) != "caller" if keep is None else keep
        poller = Poller(run, {name: backend}, keep=outlives, force=force, follow=False)
        with anyio.fail_after(timeout_s):
            await poller.run()
        return poller.deliveries[0].cursor

    return anyio.run(work)


def deliver_in_process(
    run: Path,
    backend: Backend,
    *,
    name: str = "backend",
    poll: Callable[[SupervisedProcess, Cursor], object] = lambda process, cursor: None,
    timeout_s: float = 30.0,
) -> Cursor:
    """Deliver everything in a run's journal from a process of its own, which is started again each time it dies.

    Args:
        run: the run's directory; it has ended.
        backend: its settings; its class can be imported there.
        name: of the backend in the run.
        poll: called every few milliseconds with the process and the cursor; may kill the process.
        timeout_s: seconds it may take.

    Returns:
        The backend's cursor at the end.

    Raises:
        TimeoutError: it took longer.
    """

    async def work(host: str) -> Cursor:
        processes = Supervisor(host)
        process = processes.of(name)
        delivery = DelegatedDelivery(run, name, backend, stored(backend, run.name, name), process)
        with anyio.fail_after(timeout_s):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(processes.watch)
                tasks.start_soon(delivery.drive, anyio.sleep, lambda: True)
                while not delivery.done:
                    await anyio.sleep(_POLL_S)
                    poll(process, delivery.cursor)
                tasks.cancel_scope.cancel()
        return load_cursor(run, name)

    with tempfile.TemporaryDirectory() as host:
        (Path(host) / "host.json").write_text(json.dumps({"sys_path": [path for path in sys.path if path]}))
        return anyio.run(work, host)


def _frame(kind: int, number: int, payload: bytes) -> bytes:
    header = len(payload).to_bytes(8, "little") + (kind << KIND_SHIFT | number).to_bytes(8, "little")
    return (header + payload).ljust(frame_size(len(payload)), b"\0")
