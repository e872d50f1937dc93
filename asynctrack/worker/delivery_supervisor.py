"""Delivery supervisor: watches the delivery processes of a worker, one per kind of backend; kills those that hang, and starts them again.

How far a delivery is says its cursor on disk, which is the only word that survives. An SDK that hangs with the interpreter lock held gives
no sign of life at all; one that waits for its server gives signs that say so. Both are killed with their whole process group.
What is to be done is decided in `supervision_rules`.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio

from asynctrack._system.throttle import Throttle
from asynctrack.backends.base import Backend
from asynctrack.delivery.driver import STOP_WAIT_S
from asynctrack.delivery.retry_policy import back_off
from asynctrack.worker import supervision_rules
from asynctrack.worker.running_process import RunningProcess
from asynctrack.worker.supervision_rules import Deaths, ProcessFacts, find_stalled, next_action

# Between two looks at the processes: while there are none, and while there are some.
_IDLE_POLL_S: Final = 0.5
_POLL_S: Final = 0.05

_log = logging.getLogger("asynctrack.worker")


class _Order(NamedTuple):
    """A delivery that a process is to make."""

    line: dict[str, Any]
    stall_timeout_s: float


class SupervisedProcess:
    """The delivery process of one kind.

    Args:
        kind: of backend.
        host: the directory of the calling process's rings, which says what can be imported.

    Attributes:
        kind: the same.
        deaths: how often it has ended while it was wanted.
    """

    def __init__(self, kind: str, host: str) -> None:
        self.kind = kind
        self.deaths = Deaths()
        self._host = host
        self._orders: dict[str, _Order] = {}
        self._running: RunningProcess | None = None
        self._wanted_at = time.monotonic()
        self._throttle = Throttle()

    def __repr__(self) -> str:
        return f"<SupervisedProcess of {self.kind}, group {self.group}, {len(self._orders)} deliveries>"

    @property
    def group(self) -> int | None:
        """Return its process group; None while there is none."""
        return None if self._running is None else self._running.group

    def deliver(self, run: Path, name: str, backend: Backend, stored: dict[str, Any], *, force: bool = False) -> None:
        """Have it deliver a run to a backend, now and whenever it is started again."""
        line = {"deliver": {"run": str(run), "name": name, "backend": stored, "force": force}}
        self._orders[f"{run}\n{name}"] = _Order(line, backend.stall_timeout_s)
        self._send(line)

    def expedite(self, run: Path) -> None:
        """Tell it that somebody waits for a run's cursors."""
        self._send({"expedite": str(run)})

    def stop(self, run: Path, name: str) -> None:
        """Have it no longer deliver a run to a backend."""
        if self._orders.pop(f"{run}\n{name}", None) is not None:
            self._send({"stop": {"run": str(run), "name": name}})

    def progressed(self) -> None:
        """Take note that one of its backends has got on: should it end now, it is not for what ended it last."""
        self.deaths = self.deaths._replace(in_a_row=0)

    async def watch(self) -> None:
        """Hear it once, and do what is to be done about it."""
        if self._running is not None and not self._hear(self._running):
            return
        now = time.monotonic()
        if self._orders:
            self._wanted_at = now
        facts = self._facts(now)
        action = next_action(facts, now)
        if action == "start":
            self._start()
        elif action == "kill":
            self._lose(f"has given no sign of life for {now - facts.heard_at:.0f} s and is killed")
        elif action == "end":
            await self.end()

    async def end(self) -> None:
        """Let it stop what it does, then kill it with all that it has started."""
        if self._running is None:
            return
        self._send({"leave": True})
        deadline = time.monotonic() + STOP_WAIT_S
        while self._running is not None and self._hear(self._running) and time.monotonic() < deadline:
            # Looks go on meanwhile: they send it the rest of an order, and kill it if it must be.
            await anyio.sleep(0.02)
        self._kill()

    def _facts(self, now: float) -> ProcessFacts:
        running, timeouts = self._running, [order.stall_timeout_s for order in self._orders.values()]
        return ProcessFacts(
            lives=running is not None,
            wanted=bool(self._orders),
            retry_at=self.deaths.retry_at,
            heard_at=now if running is None else running.heard_at,
            patience_s=supervision_rules.patience_s(
                timeouts, has_answered=running is not None and running.has_answered
            ),
            wanted_at=self._wanted_at,
        )

    def _hear(self, running: RunningProcess) -> bool:
        """Send it what it has not taken, and hear what it says; False when it is gone."""
        running.flush()
        busy = running.receive()
        if busy is None:
            self._lose("has ended")
            return False
        waited_s = find_stalled(busy, {key: order.stall_timeout_s for key, order in self._orders.items()})
        if waited_s is not None:
            self._lose(f"has waited {waited_s:.0f} s for its backend and is killed")
        return waited_s is None

    def _send(self, order: dict[str, Any]) -> None:
        if self._running is not None:
            self._running.send(order)

    def _start(self) -> None:
        try:
            self._running = RunningProcess(self._host)
        except OSError as error:
            self._fail(f"cannot be started: {error}")
            return
        for order in self._orders.values():
            self._send(order.line)

    def _lose(self, why: str) -> None:
        """Kill it, if it has not ended; what it has started ends with it, and it is started again after a while."""
        self._kill()
        if self._orders:
            self._fail(why)

    def _fail(self, why: str) -> None:
        in_a_row = self.deaths.in_a_row + 1
        wait_s = back_off(in_a_row)
        self.deaths = Deaths(self.deaths.total + 1, in_a_row, why, time.monotonic() + wait_s)
        if self._throttle.admit(self.kind):
            again = f"it is started again from its cursors in {wait_s:.1f} s"
            _log.warning("the process for %s %s; %s", self.kind, why, again)

    def _kill(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.kill()


class Supervisor:
    """The delivery processes of one worker."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._by_kind: dict[str, SupervisedProcess] = {}

    def of(self, kind: str) -> SupervisedProcess:
        """Return the process for a kind of backend."""
        if kind not in self._by_kind:
            self._by_kind[kind] = SupervisedProcess(kind, self._host)
        return self._by_kind[kind]

    async def watch(self) -> None:
        """Watch them until cancelled.

        It polls: the same look hears them, sends what they could not take, and finds what was not said or is due by now.
        """
        try:
            while True:
                for process in list(self._by_kind.values()):
                    await process.watch()
                await anyio.sleep(_POLL_S if self._by_kind else _IDLE_POLL_S)
        finally:
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + STOP_WAIT_S + 1):
                async with anyio.create_task_group() as tasks:
                    for process in self._by_kind.values():
                        tasks.start_soon(process.end)
