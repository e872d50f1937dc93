"""The tests' W&B server for benchmarks: in a process of its own, on loopback. Needs a checkout."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

TESTS: Final = Path(__file__).parent.parent / "tests"
KEY: Final = "local" + 35 * "0"


class Server(NamedTuple):
    """A server that answers: its address, and the group of its processes."""

    url: str
    group: int

    def signal(self, what: signal.Signals) -> None:
        os.killpg(self.group, what)


@contextmanager
def server() -> Iterator[Server]:
    command = [sys.executable, str(TESTS / "wandb_server.py")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        try:
            yield Server(process.stdout.readline().strip(), process.pid)
        finally:
            process.kill()  # ends it also while it is stopped


def rows(url: str) -> dict[str, int]:
    """Return how many rows the server has of each run."""
    with urllib.request.urlopen(f"{url}/control/runs", timeout=10) as answer:
        return {run_id: run["lines"] for run_id, run in json.load(answer).items()}


def at_rest(count: Callable[[], int], quiet_s: float, longest_s: float = 60.0) -> int:
    """Return a count when it has been the same for `quiet_s`, or after `longest_s`."""
    seen, moved_at = 0, time.monotonic()
    deadline = moved_at + longest_s
    while time.monotonic() < min(moved_at + quiet_s, deadline):
        if (found := count()) != seen:
            seen, moved_at = found, time.monotonic()
        time.sleep(0.2)
    return seen
