"""Delivers all parts of runs below a folder to a collector, as delivery processes do, those that come later too: `python tests/carry_to_collector.py PARTS URL`."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio

from asynctrack.backends.collector import Collector
from asynctrack.carriers.parts import parts_under
from asynctrack.delivery.polling import Poller


async def main(parts: Path, url: str) -> None:
    known: set[Path] = set()
    async with anyio.create_task_group() as tasks:
        while True:
            for part in parts_under(parts) if parts.is_dir() else ():
                if part.path not in known:
                    known.add(part.path)
                    poller = Poller(part.path, {"collector": Collector(url=url)}, keep=True)
                    tasks.start_soon(poller.run)
            await anyio.sleep(0.02)


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), sys.argv[2])
