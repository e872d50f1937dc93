"""The delivery process: drives the backends of one kind, out of everybody's way.

An SDK may hang, crash or eat memory; here it can be killed, and everything goes on from the cursors. Its supervisor in the worker
writes orders to its standard input, a line of JSON each, and reads a line of signs of life every half second:

    {"deliver": {"run": "/runs/p/a", "name": "wandb", "backend": {"kind": "wandb"}, "force": false}}
    {"hurry": "/runs/p/a"}      somebody waits for this run
    {"stop": "/runs/p/a"}       stop delivering it
    {"leave": true}             stop everything, and end

The end of its input means that the worker is dead: then it kills its own process group.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any, Final

import anyio

from asynctrack.backends.registry import from_stored
from asynctrack.delivery.driver import STOP_WAIT_S
from asynctrack.delivery.polling import Poller

BEAT_S: Final = 0.5

_log = logging.getLogger("asynctrack.delivery")


class Process:
    """Takes orders, drives pollers, gives signs of life."""

    def __init__(self) -> None:
        self._orders: list[dict[str, Any]] = []
        self._pollers: dict[str, Poller] = {}
        self._leaving = False
        self._beat_at = 0.0

    async def run(self) -> None:
        threading.Thread(target=self._read_orders, name="asynctrack-orders", daemon=True).start()
        async with anyio.create_task_group() as tasks:
            while not self._leaving:
                for order in self._take_orders():
                    if "deliver" in order:
                        tasks.start_soon(self._deliver, order["deliver"])
                    else:
                        self._obey(order)
                self._beat()
                await anyio.sleep(BEAT_S / 10)
            for poller in self._pollers.values():
                poller.stop()
            tasks.cancel_scope.deadline = anyio.current_time() + STOP_WAIT_S

    async def _deliver(self, order: dict[str, Any]) -> None:
        run, name = order["run"], order["name"]
        key = f"{run}\n{name}"
        while key in self._pollers:  # it was told to stop, and has not yet
            await anyio.sleep(BEAT_S / 10)
        poller = self._pollers[key] = Poller(
            Path(run), {name: from_stored(order["backend"])}, keep=True, force=order["force"]
        )
        try:
            await poller.run()
        except Exception:
            _log.exception("%s of %s: the delivery failed; it is begun again", name, run)
            await anyio.sleep(1.0)
        finally:
            del self._pollers[key]

    def _obey(self, order: dict[str, Any]) -> None:
        self._leaving = self._leaving or "leave" in order
        for key, poller in self._pollers.items():
            run = key.partition("\n")[0]
            if order.get("hurry") == run:
                poller.hurry()
            if order.get("stop") == run:
                poller.stop()

    def _beat(self) -> None:
        """Say which deliveries there are, and for how long each has waited for its backend."""
        now = time.monotonic()
        if now < self._beat_at:
            return
        self._beat_at = now + BEAT_S
        busy = {
            key: round(now - delivery.busy_since, 1) if delivery.busy_since else 0.0
            for key, poller in self._pollers.items()
            for delivery in poller.deliveries
        }
        try:
            os.write(1, json.dumps({"busy": {**dict.fromkeys(self._pollers, 0.0), **busy}}).encode() + b"\n")
        except BlockingIOError:
            pass

    def _read_orders(self) -> None:
        with os.fdopen(0, "rb", buffering=0) as orders:
            rest = b""
            while chunk := orders.read(65536):
                *lines, rest = (rest + chunk).split(b"\n")
                self._orders += [json.loads(line) for line in lines if line]
        os.killpg(0, signal.SIGKILL)

    def _take_orders(self) -> list[dict[str, Any]]:
        taken, self._orders = self._orders, []
        return taken


def main(host: str) -> None:
    """Take orders until told to leave."""
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s %(levelname)s [{os.getpid()}] %(message)s")
    anyio.run(Process().run)
    os._exit(0)  # a sink that hangs on a thread must not hold us
