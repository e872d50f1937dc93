"""Who reads a journal in the worker is woken by all that it has not seen."""

from __future__ import annotations

import time

import anyio

from asynctrack.worker.growth import Growth

LONG_S = 20.0


def test_growth_while_a_reader_is_at_work_ends_its_next_wait() -> None:
    """A run's end was noted while a delivery saved its cursor, and was delivered a minute later."""

    async def read() -> None:
        growth = Growth()
        one, other = growth.listen(), growth.listen()
        growth.notify()  # both are at work
        for reader in (one, other):
            with anyio.fail_after(LONG_S / 2):
                await reader.wait(LONG_S)
            began = time.monotonic()
            await reader.wait(0.01)  # of that it knows now
            assert time.monotonic() - began >= 0.01

    anyio.run(read)


def test_growth_wakes_who_waits() -> None:
    async def read() -> None:
        growth = Growth()
        reader = growth.listen()
        async with anyio.create_task_group() as tasks:
            with anyio.fail_after(LONG_S / 2):
                tasks.start_soon(reader.wait, LONG_S)
                await anyio.lowlevel.checkpoint()
                growth.notify()
        growth.forget(reader)
        growth.notify()

    anyio.run(read)
