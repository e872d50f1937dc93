"""Scripted: a backend that writes down its calls, and fails as its settings say. Runs wherever a sink can."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import msgspec

from asynctrack._system import permissions
from asynctrack.backends.base import (
    ActionRequired,
    Backend,
    Batch,
    Context,
    Execution,
    Outcome,
    Rejected,
    Resend,
    Retry,
    Sink,
    TooLarge,
)
from asynctrack.records.codec import Record, to_json

FILE_NAME: Final = "scripted.jsonl"

# Default seconds of a "hang" or "hold": longer than any test. Arbitrary.
_FOR_EVER_S: Final = 1000.0

When = Literal["open", "write", "checkpoint", "close"]
What = Literal[
    "fail", "retry", "too_large", "refuse", "pause", "missing", "full", "start_over", "quit",
    "hang", "hold", "exit", "crash", "abort", "kill", "print", "spawn",
]  # fmt: skip


class Trouble(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Fails on demand: names the kind of failure, its moment, and how often it happens.

    Attributes:
        does: "fail" raises `ConnectionRefusedError`, "retry" `Retry` (after `seconds`), "too_large" `TooLarge`,
            "refuse" `Rejected`, "pause" `ActionRequired`, "missing" `ImportError`, "full" the error of a full disk,
            "start_over" `Resend`, "quit" `SystemExit`. "hang" sleeps for `seconds`, "hold" too, with the interpreter
            lock. "exit", "crash" (SIGSEGV), "abort" and "kill" (SIGKILL) end the process. "print" prints bytes that
            disturb a reader of the process's output. "spawn" starts a process that sleeps for `seconds`.
        on: the sink's call during which it happens.
        step: only where the batch has a record of this step; None for every call.
        after: only from this call of its kind on; the first is 0.
        late: whether it happens after the sink has done its part, instead of before.
        times: how often it happens in the life of the run, over all processes; None for ever.
        seconds: for "retry", "hang", "hold" and "spawn".
        named: whether "refuse" says which record it means.
        until: name of a file in the run's directory; once it exists, the trouble no longer happens.
    """

    does: What
    on: When = "write"
    step: int | None = None
    after: int = 0
    late: bool = False
    times: int | None = 1
    seconds: float | None = None
    named: bool = False
    until: str | None = None


class Scripted(Backend, frozen=True, kw_only=True):
    """Writes a line for each call into a file of the run's directory; read it with `calls` and `taken`.

    Runs in the worker.

    Attributes:
        file: name in the run's directory.
        troubles: the failures.
        once: whether it recognises a record that it has already, and leaves it out.
        write_s: seconds that each write takes.
    """

    execution: ClassVar[Execution] = "worker"
    file: str = FILE_NAME
    troubles: tuple[Trouble, ...] = ()
    once: bool = False
    write_s: float = 0.0

    def open(self, context: Context) -> Sink:
        """Open a sink that writes down its calls."""
        return _Script(self, context)


class ScriptedInProcess(Scripted, frozen=True, kw_only=True):
    """Runs a `Scripted` in a process of its own."""

    execution: ClassVar[Execution] = "process"


class ScriptedInCaller(Scripted, frozen=True, kw_only=True):
    """Runs a `Scripted` on a thread of the process that logs."""

    execution: ClassVar[Execution] = "caller"


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """Notes a call that a scripted sink has got.

    Attributes:
        did: name of the call, or "trouble" just before a trouble happens.
        pid: of the process it ran in.
        at: monotonic seconds.
        records: the records that it took: ring (hexadecimal), number, step and data of each.
        updates: the updates that it took: kind and data of each.
        trouble: index of the trouble in the settings.
        outcome: the argument of `close`.
    """

    did: Literal["open", "write", "checkpoint", "close", "trouble"]
    pid: int
    at: float
    records: list[tuple[str, int, int, dict[str, Any]]] = []
    updates: list[tuple[str, dict[str, Any]]] = []
    trouble: int | None = None
    outcome: str | None = None


def calls(run: Path, file: str = FILE_NAME) -> list[Call]:
    """Read the calls that a scripted sink of this run has got. A call that was killed in the middle is left out.

    Args:
        run: the run's directory.
        file: the backend's `file`.

    Returns:
        The calls in order; none where there is no file.
    """
    try:
        lines = (run / file).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    return list(_decoded(lines))


def taken(run: Path, file: str = FILE_NAME) -> list[Record]:
    """Read the records that a scripted sink of this run has taken.

    Args:
        run: the run's directory.
        file: the backend's `file`.

    Returns:
        The records in the order in which it took them.
    """
    return [
        Record(number, step, 0, data, int(ring, 16))
        for call in calls(run, file)
        for ring, number, step, data in call.records
    ]


class _Script(Sink):
    def __init__(self, settings: Scripted, context: Context) -> None:
        self._settings = settings
        self._directory = context.directory
        earlier = calls(context.directory, settings.file)
        self._happened = Counter(call.trouble for call in earlier)
        self._had = {record[:2] for call in earlier for record in call.records}
        self._counts: Counter[str] = Counter()
        self._do("open", lambda: self._write_down("open"))

    def write(self, batch: Batch) -> None:
        self._do("write", lambda: self._take(batch), batch.records)

    def checkpoint(self) -> dict[str, Any]:
        self._do("checkpoint", lambda: self._write_down("checkpoint"))
        return {"checkpoints": self._counts["checkpoint"]}

    def close(self, outcome: Outcome) -> None:
        self._do("close", lambda: self._write_down("close", outcome=outcome))

    def _do(self, when: When, work: Callable[[], None], records: list[Record] | None = None) -> None:
        self._happen(when, records or [], late=False)
        work()
        self._happen(when, records or [], late=True)
        self._counts[when] += 1

    def _take(self, batch: Batch) -> None:
        time.sleep(self._settings.write_s)
        rows = [(f"{record.ring:016x}", record.number, record.step, to_json(record.data)) for record in batch.records]
        if self._settings.once:
            rows = [row for row in rows if row[:2] not in self._had]
        self._had.update(row[:2] for row in rows)
        self._write_down(
            "write", records=rows, updates=[(update.kind, to_json(update.data)) for update in batch.updates]
        )

    def _write_down(self, did: Any, **what: Any) -> None:
        call = msgspec.json.encode(Call(did=did, pid=os.getpid(), at=time.monotonic(), **what))
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self._directory / self._settings.file, flags, permissions.FILE)
        try:
            os.write(fd, b"\n" + call + b"\n")  # the first newline ends a line that a kill has torn
        finally:
            os.close(fd)

    def _happen(self, when: When, records: list[Record], *, late: bool) -> None:
        for index, trouble in enumerate(self._settings.troubles):
            if (trouble.on, trouble.late) == (when, late) and self._is_due(index, trouble, records):
                self._happened[index] += 1
                self._write_down("trouble", trouble=index)
                _cause(trouble, [i for i, record in enumerate(records) if record.step == trouble.step])

    def _is_due(self, index: int, trouble: Trouble, records: list[Record]) -> bool:
        return (
            (trouble.times is None or self._happened[index] < trouble.times)
            and self._counts[trouble.on] >= trouble.after
            and (trouble.step is None or any(record.step == trouble.step for record in records))
            and (trouble.until is None or not (self._directory / trouble.until).exists())
        )


def _cause(trouble: Trouble, which: list[int]) -> None:
    seconds = _FOR_EVER_S if trouble.seconds is None else trouble.seconds
    match trouble.does:
        case "hang":
            time.sleep(seconds)
        case "hold":
            ctypes.PyDLL(None).usleep(int(seconds * 1e6))
        case "exit":
            os._exit(3)
        case "abort":
            os.abort()
        case "kill" | "crash":
            os.kill(os.getpid(), signal.SIGKILL if trouble.does == "kill" else signal.SIGSEGV)
        case "print":
            os.write(1, b'\0{"busy": 1}\n{"busy": {"x": 1e9}} and no end')
        case "spawn":
            subprocess.Popen(["sleep", str(seconds)], stdin=subprocess.DEVNULL)
        case _:
            raise _error(trouble, which)


def _error(trouble: Trouble, which: list[int]) -> BaseException:
    match trouble.does:
        case "retry":
            return Retry("not now", trouble.seconds)
        case "too_large":
            return TooLarge("too large")
        case "refuse":
            return Rejected("not these", which if trouble.named else None)
        case "pause":
            return ActionRequired("the key is wrong: renew it")
        case "missing":
            return ModuleNotFoundError("No module named 'no_such_library'", name="no_such_library")
        case "full":
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        case "start_over":
            return Resend("it has lost everything")
        case "quit":
            return SystemExit(3)
        case _:
            return ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))


def _decoded(lines: list[bytes]) -> Iterator[Call]:
    for line in lines:
        try:
            yield msgspec.json.decode(line, type=Call)
        except msgspec.DecodeError:
            continue  # an empty or a torn line
