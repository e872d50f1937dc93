"""Delivery supervisor: the delivery processes of a worker, one per kind of backend; each is watched, killed when it hangs, and started again."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.lowlevel

from asynctrack._system import descendants
from asynctrack._system.loop_thread import in_thread
from asynctrack._system.spawn import spawn
from asynctrack._system.throttle import Throttle
from asynctrack.backends.base import Backend
from asynctrack.delivery.batcher import has_more
from asynctrack.delivery.driver import STOP_WAIT_S
from asynctrack.delivery.progress import note_failure
from asynctrack.delivery.retry_policy import MOST_REPEATS, back_off
from asynctrack.journal.cursor import load_cursor
from asynctrack.journal.layout import Position

# A delivery process imports an interpreter and an SDK before it gives its first sign of life. Arbitrary.
_START_WAIT_S: Final = 60.0
# Without a sign of life for this long it hangs, if its backends are no less patient: it gives two a second.
_SILENCE_S: Final = 30.0
# However impatient they are: a busy machine may not let it run for so long. Arbitrary.
_LEAST_SILENCE_S: Final = 3.0
# Between two looks at a cursor that another process moves.
_POLL_S: Final = 0.5
_EXPEDITED_POLL_S: Final = 0.02
# A process that nobody needs is kept for this long: importing an SDK takes seconds.
_IDLE_S: Final = 10.0

_log = logging.getLogger("asynctrack.worker")


class SupervisedProcess:
    """The delivery process of one kind.

    Args:
        kind: of backend.
        host: the directory of the calling process's rings, which says what can be imported.

    Attributes:
        group: its process group; None while there is none.
        deaths: how often it has ended, or could not be started, while it was wanted.
        died_of: what of, the last time.
        failures: how often in a row it did, without that any of its backends had got on.
    """

    def __init__(self, kind: str, host: str) -> None:
        self.kind = kind
        self._host = host
        self._wanted: dict[str, dict[str, Any]] = {}
        self._stall_timeouts: dict[str, float] = {}
        self.group: int | None = None
        self._socket: socket.socket | None = None
        self._lifeline = -1
        self._unsent: list[bytes] = []
        self._answered_at = self._idle_since = time.monotonic()
        self._has_answered = False
        self._rest = b""
        self.deaths = 0
        self.died_of = ""
        self.failures = 0
        self._start_at = 0.0
        self._throttle = Throttle()

    def __repr__(self) -> str:
        return f"<SupervisedProcess of {self.kind}, group {self.group}, {len(self._wanted)} deliveries>"

    def deliver(self, run: Path, name: str, backend: Backend, stored: dict[str, Any], *, force: bool = False) -> None:
        """Have it deliver a run to a backend, now and whenever it is started again."""
        key = f"{run}\n{name}"
        self._wanted[key] = {"deliver": {"run": str(run), "name": name, "backend": stored, "force": force}}
        self._stall_timeouts[key] = backend.stall_timeout_s
        self._send(self._wanted[key])

    def expedite(self, run: Path) -> None:
        self._send({"expedite": str(run)})

    def stop(self, run: Path, name: str) -> None:
        key = f"{run}\n{name}"
        if self._wanted.pop(key, None) is not None:
            del self._stall_timeouts[key]
            self._send({"stop": {"run": str(run), "name": name}})

    def progressed(self) -> None:
        """One of its backends has got on: should it end now, it is not for what ended it last."""
        self.failures = 0

    async def watch(self) -> None:
        """One look: start it, hear it, kill it."""
        now = time.monotonic()
        if self.group is None:
            if self._wanted and now >= self._start_at:
                self._start()
            return
        self._flush()
        if not self._receive():
            return
        silence_s = now - self._answered_at
        if silence_s > (self._longest_silence_s() if self._has_answered else _START_WAIT_S):
            self._kill(f"has given no sign of life for {silence_s:.0f} s")
        self._idle_since = now if self._wanted else self._idle_since
        if now - self._idle_since > _IDLE_S:
            await self.end()

    async def end(self) -> None:
        """Let it stop what it does, then kill it with all that it has started."""
        if self.group is None:
            return
        self._send({"leave": True})
        deadline = time.monotonic() + STOP_WAIT_S
        while self._receive() and time.monotonic() < deadline:
            self._flush()
            await anyio.sleep(0.02)
        self._forget()

    def _longest_silence_s(self) -> float:
        return max(_LEAST_SILENCE_S, min([_SILENCE_S, *self._stall_timeouts.values()]))

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        lifeline, kept = os.pipe()
        try:
            self.group = spawn(
                "_system/entry.py",
                ["asynctrack.delivery.process", self._host],
                log_path=None,
                stdin=theirs.fileno(),
                stdout=lifeline,
            )
        except OSError as error:
            ours.close()
            os.close(kept)
            self._fail(f"cannot be started: {error}")
            return
        finally:
            theirs.close()
            os.close(lifeline)
        ours.setblocking(False)
        self._socket, self._lifeline = ours, kept
        self._answered_at, self._has_answered, self._rest = time.monotonic(), False, b""
        self._unsent = [_line(order) for order in self._wanted.values()]

    def _send(self, order: dict[str, Any]) -> None:
        if self._socket is not None:
            self._unsent.append(_line(order))
            self._flush()

    def _flush(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):  # it is busy, or has ended, which is heard
            while self._unsent and self._socket is not None:
                sent = self._socket.send(self._unsent[0])
                self._unsent[0] = self._unsent[0][sent:]
                if not self._unsent[0]:
                    self._unsent.pop(0)

    def _receive(self) -> bool:
        """Read the signs of life; False when it is gone."""
        lines: list[bytes] = []
        try:
            while self._socket is not None and (chunk := self._socket.recv(65536)):
                self._answered_at, self._has_answered = time.monotonic(), True
                *whole, self._rest = (self._rest + chunk).split(b"\n")
                lines = whole or lines
        except BlockingIOError:
            if lines:
                self._take_line(lines[-1])
            return self._socket is not None
        except ConnectionError:
            pass
        if self._socket is not None:
            self._gone("has ended")
        return False

    def _take_line(self, line: bytes) -> None:
        """Look at the last sign of life."""
        try:
            busy: dict[str, float] = json.loads(line)["busy"]
        except (ValueError, KeyError, TypeError):
            return  # half of one, because nobody has listened for long
        for key, seconds in busy.items():
            if seconds > self._stall_timeouts.get(key, float("inf")):
                return self._kill(f"has waited {seconds:.0f} s for its backend")

    def _kill(self, why: str) -> None:
        self._gone(f"{why} and is killed")

    def _gone(self, why: str) -> None:
        """It has ended, or is to end; what it has started ends with it, and it is started again after a while."""
        self._forget()
        if self._wanted:
            self._fail(why)

    def _fail(self, why: str) -> None:
        self.failures += 1
        self.deaths += 1
        self.died_of = why
        wait_s = back_off(self.failures)
        self._start_at = time.monotonic() + wait_s
        self._warn(f"the process for {self.kind} {why}; it is started again from its cursors in {wait_s:.1f} s")

    def _forget(self) -> None:
        if self.group is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.group, signal.SIGKILL)
            descendants.kill_of(self.group)
        if self._socket is not None:
            self._socket.close()
            os.close(self._lifeline)
        self.group, self._socket, self._lifeline = None, None, -1
        self._unsent.clear()

    def _warn(self, message: str) -> None:
        if self._throttle.admit(self.kind):
            _log.warning("%s", message)


class Supervisor:
    """The delivery processes of one worker."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._by_kind: dict[str, SupervisedProcess] = {}

    def of(self, kind: str) -> SupervisedProcess:
        if kind not in self._by_kind:
            self._by_kind[kind] = SupervisedProcess(kind, self._host)
        return self._by_kind[kind]

    async def watch(self) -> None:
        """Watch them until cancelled."""
        try:
            while True:
                for process in list(self._by_kind.values()):
                    await process.watch()
                await anyio.sleep(0.05 if self._by_kind else _POLL_S)
        finally:
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + STOP_WAIT_S + 1):
                async with anyio.create_task_group() as tasks:
                    for process in self._by_kind.values():
                        tasks.start_soon(process.end)


class DelegatedDelivery:
    """A delivery that a process of its own drives; here its cursor is looked at. Has the face of a `Delivery`."""

    def __init__(
        self,
        run: Path,
        name: str,
        backend: Backend,
        stored: dict[str, Any],
        process: SupervisedProcess,
        *,
        force: bool = False,
    ) -> None:
        self.name = name
        self._run = run
        self._backend = backend
        self._stored = stored
        self._process = process
        self._force = force
        self._stopping = False
        self._driven = False
        self._reopened_at: Position | None = None
        self.cursor = load_cursor(run, name)
        self._retries_before = self.cursor.retries

    @property
    def done(self) -> bool:
        return self.cursor.closed and self.cursor.position != self._reopened_at

    @property
    def paused(self) -> bool:
        tried_here = self.cursor.retries > self._retries_before  # else an earlier process says so
        return self.cursor.paused and tried_here

    async def drive(
        self,
        wait: Callable[[float], Awaitable[None]],
        expedite: Callable[[], bool],
        saved: Callable[[], None] = lambda: None,
        pace: Callable[[], Awaitable[None]] = anyio.lowlevel.checkpoint,
    ) -> None:
        """Have the run delivered, to its end or until `stop`."""
        if self._driven:
            return
        self._driven = True
        self._retries_before = self.cursor.retries
        deaths = self._process.deaths
        self._process.deliver(self._run, self.name, self._backend, self._stored, force=self._force)
        try:
            while not self.done and not self._stopping:
                if expedited := expedite():
                    self._process.expedite(self._run)
                await anyio.sleep(_EXPEDITED_POLL_S if expedited else _POLL_S)
                if self._process.deaths != deaths:
                    deaths = self._process.deaths
                    await self._note_death()
                self._poll()
                saved()
        finally:
            self._process.stop(self._run, self.name)
            self._driven = False

    def reopen(self) -> bool:
        """As a `Delivery` does: whether the run has gone on after its end."""
        if self._driven or not self.done or not has_more(self._run, self.cursor, self._backend):
            return False
        self._reopened_at = self.cursor.position
        return True

    def stop(self) -> None:
        self._stopping = True

    @property
    def saved_ends(self) -> dict[int, int]:
        return self.cursor.ends

    async def _note_death(self) -> None:
        with contextlib.suppress(OSError):  # a full disk; the log tells it, too
            what, hopeless = f"its process {self._process.died_of}", self._process.failures >= MOST_REPEATS
            await in_thread(note_failure, self._run, self.name, what, hopeless)

    def _poll(self) -> None:
        before = self.cursor
        with contextlib.suppress(OSError):  # a disk that fails: the next look may find it well
            self.cursor = load_cursor(self._run, self.name)
        if self.cursor.position != before.position:
            self._process.progressed()


def _line(order: dict[str, Any]) -> bytes:
    return json.dumps(order).encode() + b"\n"
