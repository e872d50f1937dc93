r"""Delivery process: drives the backends of one kind, out of everybody's way.

An SDK may hang, crash or eat memory; here it can be killed, and everything goes on from the cursors. Its supervisor in the worker holds the
other end of its standard input, a socket: it sends orders, a line of JSON each, and gets a sign of life every half second:

    {"deliver": {"run": "/runs/p/a", "name": "wandb", "backend": {"kind": "wandb"}, "force": false}}
    {"expedite": "/runs/p/a"}                     somebody waits for this run
    {"stop": {"run": "/runs/p/a", "name": "wandb"}}
    {"leave": true}                               stop everything, and end
    {"busy": {"/runs/p/a\nwandb": 0.0}}           the sign of life: for how long each delivery has waited for its backend

How far a delivery is says its cursor on disk, which is the only word that survives. An SDK that hangs with the interpreter lock held gives no sign of life
at all; one that hangs without it is told by its call that takes too long. Either way the supervisor kills the whole process group.

Its standard output is the lifeline, the read end of a pipe that the worker keeps open and never writes to: when the worker dies, the process
group is killed. What a library prints goes to the log, and what it starts inherits none of this.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio

from asynctrack._system import trust
from asynctrack._system.entry import read_handshake
from asynctrack.backends.base import Backend
from asynctrack.backends.registry import Unbuilt, from_stored
from asynctrack.delivery.driver import STOP_WAIT_S
from asynctrack.delivery.polling import Poller
from asynctrack.delivery.retry_policy import back_off
from asynctrack.errors import BackendUnavailable

BEAT_S: Final = 0.5

_log = logging.getLogger("asynctrack.delivery")


class _Driven(NamedTuple):
    """A poller that runs, and what is set when it has ended."""

    poller: Poller
    over: anyio.Event


class DeliveryProcess:
    """Takes orders, drives pollers, gives signs of life.

    Args:
        supervisor: a socket to it.
    """

    def __init__(self, supervisor: socket.socket) -> None:
        self._supervisor = supervisor
        self._wanted: dict[str, dict[str, Any]] = {}
        self._driven: dict[str, _Driven] = {}

    async def run(self) -> None:
        """Obey until told to leave."""
        async with anyio.create_task_group() as deliveries, anyio.create_task_group() as tasks:
            tasks.start_soon(self._heartbeat)
            async for order in self._orders():
                if "leave" in order:
                    break
                if "deliver" in order:
                    self._wanted[_key(order["deliver"])] = order["deliver"]
                    deliveries.start_soon(self._deliver, order["deliver"])
                else:
                    self._obey(order)
            self._wanted.clear()
            for driven in self._driven.values():
                driven.poller.stop()
            deliveries.cancel_scope.deadline = anyio.current_time() + STOP_WAIT_S
            tasks.cancel_scope.cancel()

    async def _deliver(self, order: dict[str, Any]) -> None:
        """Drive a delivery for as long as it is wanted."""
        key, failures = _key(order), 0
        while (before := self._driven.get(key)) is not None:  # the earlier one was told to stop, and is waited for
            await before.over.wait()
        while self._wanted.get(key) is order:
            poller = Poller(
                Path(order["run"]), {order["name"]: _build(order["backend"])}, keep=True, force=order["force"]
            )
            self._driven[key] = _Driven(poller, anyio.Event())
            try:
                return await poller.run()
            except Exception:  # a disk, or a mistake of ours: the others go on
                _log.exception("%s of %s: the delivery failed, and is started again", order["name"], order["run"])
            finally:
                self._driven.pop(key).over.set()
            failures += 1
            await anyio.sleep(back_off(failures))

    def _obey(self, order: dict[str, Any]) -> None:
        if "expedite" in order:
            for key, driven in self._driven.items():
                if self._wanted.get(key, {}).get("run") == order["expedite"]:
                    driven.poller.expedite()
        elif "stop" in order:
            key = _key(order["stop"])
            self._wanted.pop(key, None)
            if key in self._driven:
                self._driven[key].poller.stop()

    async def _heartbeat(self) -> None:
        """Say every half second for how long each delivery has waited for its backend."""
        while True:
            now = time.monotonic()
            busy = dict.fromkeys(self._wanted, 0.0)
            for key, driven in self._driven.items():
                since = [delivery.busy_since for delivery in driven.poller.deliveries if delivery.busy_since]
                busy[key] = round(now - min(since, default=now), 1)
            # Nobody has read the stream for long; the next line will say the same.
            with contextlib.suppress(BlockingIOError, ConnectionError):
                self._supervisor.send(json.dumps({"busy": busy}).encode() + b"\n")
            await anyio.sleep(BEAT_S)

    async def _orders(self) -> AsyncIterator[dict[str, Any]]:
        rest = b""
        while True:
            await anyio.wait_readable(self._supervisor)
            try:
                chunk = self._supervisor.recv(65536)
            except BlockingIOError:
                continue
            if not chunk:
                return
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield json.loads(line)


def main(host: str) -> None:
    """Take orders until told to leave."""
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s %(levelname)s [{os.getpid()}] %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # else a line for each request
    supervisor, lifeline = socket.socket(fileno=os.dup(0)), os.dup(1)
    supervisor.setblocking(False)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.dup2(2, 1)
    _die_with(lifeline)
    trust.learn(read_handshake(host).get("key", ""))
    anyio.run(DeliveryProcess(supervisor).run)
    os._exit(0)  # a sink that hangs on a thread must not keep the process


def _die_with(lifeline: int) -> None:
    """Kill this process group when the other end of a pipe is closed."""
    if hasattr(fcntl, "F_SETSIG"):  # by the kernel, also while a library holds the interpreter lock
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_RDONLY | os.O_ASYNC)
    threading.Thread(target=_await_end, args=(lifeline,), name="asynctrack-lifeline", daemon=True).start()


def _await_end(lifeline: int) -> None:
    os.read(lifeline, 1)
    os.killpg(0, signal.SIGKILL)


def _build(stored: dict[str, Any]) -> Backend:
    try:
        return from_stored(stored)
    except BackendUnavailable:
        return Unbuilt(settings=stored)


def _key(order: dict[str, Any]) -> str:
    return f"{order['run']}\n{order['name']}"
