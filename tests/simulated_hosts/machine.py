"""Machine: a host: its name, its part of the run, its shared memory, its clock, and the processes that run there."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from simulation.ledger import Account, read_ledger
from simulation.processes import MARK, PYTHONPATH, Process, marked

from asynctrack.carriers.parts import part_name

PROJECT: Final = "p"
RUN: Final = "job"
# Workers leave when nobody has logged for so long.
_IDLE_EXIT_S: Final = "0.1"


class Machine:
    """A host.

    Attributes:
        name: of the host.
        directory: what its processes are told by.
        part: its part of the run.
        has_died: whether it has died and has not come back yet.
        killed: who was killed there.

    Args:
        directory: that of the simulation.
        number: of the host.
        more: what its processes find in their environment beside what all hosts have.
        clock: a library that sets the clock of who loads it; None where there is none.
    """

    def __init__(self, directory: Path, number: int, more: Mapping[str, str], clock: Path | None) -> None:
        self.name = f"node-{number}"
        self.directory = directory / "hosts" / self.name
        self.part = directory / "parts" / PROJECT / part_name(RUN, self.name)
        self.has_died = False
        self.killed: set[str] = set()
        self.ranks: dict[str, subprocess.Popen[bytes]] = {}
        self._all = directory
        self._clock = self.directory / "clock"
        self._make(directory / "memory" / self.name)
        self.environment = {
            **os.environ,
            "PYTHONPATH": PYTHONPATH,
            MARK: str(self.directory),
            "ASYNCTRACK_HOST": self.name,
            "ASYNCTRACK_SHM": str(directory / "memory" / self.name),
            "ASYNCTRACK_IDLE_EXIT_S": _IDLE_EXIT_S,
            "XDG_STATE_HOME": str(self.directory / "state"),
            **({} if clock is None else {"LD_PRELOAD": str(clock), "CLOCK_AHEAD": str(self._clock)}),
            **more,
        }

    def _make(self, memory: Path) -> None:
        self.directory.mkdir(parents=True)
        memory.mkdir(parents=True, mode=0o700)
        self._clock.write_bytes(bytes(4096))

    def start(self, rank: int, world_size: int, rate: float) -> str:
        """Start a rank, for the first time or again; returns who it is."""
        attempt = sum(who.startswith(f"rank{rank}-") for who in self.ranks)
        who = f"rank{rank}-{attempt}"
        command = [sys.executable, "-m", "simulated_hosts.rank", str(self._all), who, str(rate)]
        environment = {**self.environment, "RANK": str(rank), "WORLD_SIZE": str(world_size)}
        with (self._all / "said" / who).open("wb") as said:
            self.ranks[who] = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=self.directory
            )
        return who

    def latest(self, rank: int) -> str:
        """Who is the rank, as it was started last."""
        return [who for who in self.ranks if who.startswith(f"rank{rank}-")][-1]

    def account(self, who: str) -> Account | None:
        """What a rank's ledger says; None while it has none."""
        with contextlib.suppress(OSError, ValueError):
            return read_ledger(self._all / "ledgers" / who)
        return None

    @property
    def all_log(self) -> bool:
        """Whether each rank that lives has logged something."""
        alive = [who for who in self.ranks if who not in self.killed]
        return all((account := self.account(who)) is not None and account.accepted for who in alive)

    def processes(self, *kinds: str) -> list[Process]:
        """The living processes of these kinds, or all: "rank", "worker", "delivery", "command"."""
        return [one for one in marked(self.directory) if not kinds or kind_of(one) in kinds]

    def kill(self, *kinds: str) -> None:
        """SIGKILL for the processes of these kinds, or all."""
        self.send(signal.SIGKILL, *kinds)

    def send(self, number: signal.Signals, *kinds: str) -> None:
        """Send a signal to the processes of these kinds, or all."""
        for process in self.processes(*kinds):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)

    def kill_rank(self, who: str) -> None:
        """SIGKILL for a rank."""
        self.ranks[who].kill()
        self.ranks[who].wait()
        self.killed.add(who)

    def die(self) -> None:
        """SIGKILL for everything here, and for what that has started meanwhile. Nothing sees another end, and says so."""
        self.send(signal.SIGSTOP, "worker", "delivery")
        for who, process in self.ranks.items():
            if process.poll() is None:
                self.kill_rank(who)
        while self.processes():
            self.kill()
        self.has_died = True

    def set_clock(self, ahead_s: int) -> None:
        """Set the clock, ahead or back, by whole seconds from what it is in truth."""
        with self._clock.open("r+b") as file:
            file.write(struct.pack("<q", ahead_s))

    def said(self, who: str) -> str:
        """What a rank has printed."""
        return (self._all / "said" / who).read_text(errors="replace")


def kind_of(process: Process) -> str:
    """What a process of a host is."""
    return "rank" if "simulated_hosts.rank" in process.arguments else process.kind
