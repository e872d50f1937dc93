"""Peer: how a tracker is opened, logged to and ended, and how many of its records are found."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

Data = dict[str, Any]

TIMED: Final = ("tight", "numpy", "python")
# Records a second of those that are killed.
KILLED: Final = ("20", "1000")
FULL: Final = "full"
STOPPED: Final = "stopped"

# Of the length before each frame of `floors.frame_and_write`.
LENGTH_BYTES: Final = 4
SCALARS: Final = "numbers only"
# The environment's names for the peer's server.
_URL: Final = "BENCH_SERVER"
_HOME: Final = "BENCH_SERVER_HOME"


class Opened(NamedTuple):
    """A peer that is ready.

    Attributes:
        log: takes a record, and its step.
        finish: returns when the peer says that all is done.
    """

    log: Callable[[Data, int], object]
    finish: Callable[[], object]


@dataclass(frozen=True)
class Peer:
    """A way to track.

    Attributes:
        name: in the tables.
        open: in a directory of its own.
        count: records found in it, or at its server, by another process; None where nothing is kept.
        packages: distributions whose versions the result names.
        note: what is not comparable.
        most: records of a tight loop.
        files: whether it keeps files, and so can meet a full disk.
        server: the kind of server that it logs to: "wandb", "mlflow", "trackio"; none if empty.
        of: the peer in whose row the figures of this one stand; then only a stopped server is measured.
        goes_on_s: how long its own processes may go on after their caller was killed.
    """

    name: str
    open: Callable[[Path], Opened]
    count: Callable[[Path], int] | None = None
    packages: tuple[str, ...] = ()
    note: str = ""
    most: int = 100_000
    files: bool = True
    server: str = ""
    of: str = ""
    goes_on_s: float = 5.0

    def figures(self) -> tuple[str, ...]:
        """Return the names of the figures that are measured of it."""
        if self.of:
            return (STOPPED,)
        if self.count is None:
            return TIMED
        return TIMED + KILLED + (FULL,) * self.files + (STOPPED,) * bool(self.server)


def numbers(data: Data) -> Iterator[tuple[str, float]]:
    return ((key, value) for key, value in data.items() if not isinstance(value, str))


def server_url() -> str:
    """Return the address of the peer's server."""
    return os.environ[_URL]


def server_home() -> Path:
    """Return the directory in which the peer's server keeps its data."""
    return Path(os.environ[_HOME])


def server_environment(url: str, home: Path) -> dict[str, str]:
    """Return the variables that tell a peer's process where its server is."""
    return {_URL: url, _HOME: str(home)}
