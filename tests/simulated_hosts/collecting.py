"""Collecting: what merges the hosts' parts to one run, by each carrier, as a process that can be killed, stopped and started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from simulation.processes import MARK, PYTHONPATH

from simulated_hosts.machine import PROJECT, RUN
from simulated_hosts.proxy import Proxy

# A host that says nothing for so long is lost. Where none is, far more than any fault takes.
LOST_AFTER_S: Final = 60.0
SOON_LOST_AFTER_S: Final = 4.0
_END_S: Final = 20.0
# Of a small disk.
KEEP_FREE: Final = "1M"
# The last: it was told to end when it had, and its interpreter was about to.
_ENDS_WELL: Final = (0, 130, -signal.SIGINT)


class Collecting:
    """The collector.

    Attributes:
        run: the merged run's directory.
        proxies: the way of each host through the network, where there is one.

    Args:
        directory: that of the simulation.
        lost_after_s: seconds of silence after which a host counts as lost.
        old_server: whether the server between hosts and collector is an older one, where there is one.
    """

    def __init__(self, directory: Path, lost_after_s: float, *, old_server: bool = False) -> None:
        self.directory = directory / "collector"
        self.out = directory / "out"
        self.run = self.out / PROJECT / RUN
        self.parts = directory / "parts"
        self.lost_after_s = lost_after_s
        self.proxies: dict[int, Proxy] = {}
        self.environment = {
            **os.environ,
            "PYTHONPATH": PYTHONPATH,
            MARK: str(self.directory),
            "ASYNCTRACK_SHM": str(directory / "memory" / "collector"),
            "XDG_STATE_HOME": str(self.directory / "state"),
        }
        self._said = directory / "said" / "collector"
        self._process: subprocess.Popen[bytes] | None = None
        for path in (self.directory, self.out, directory / "memory" / "collector"):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)

    def of_host(self, number: int) -> Mapping[str, str]:
        """What the processes of a host need in their environment."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """What is run."""
        raise NotImplementedError

    @property
    def runs(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, if it does not run."""
        if not self.runs:
            self._process = self._started()

    def kill(self) -> None:
        """SIGKILL for it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self._process is not None and self.runs:
            self._process.send_signal(number)

    def stop(self) -> str | None:
        """End it in good order; returns what is wrong with how it has ended."""
        return None if self._process is None else self._stopped(self._process)

    def _started(self) -> subprocess.Popen[bytes]:
        with self._said.open("ab") as said:
            command = self.asynctrack(*self.command())
            return subprocess.Popen(command, env=self.environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said)

    def _stopped(self, process: subprocess.Popen[bytes]) -> str | None:
        for number in (signal.SIGCONT, signal.SIGINT):
            process.send_signal(number)
        try:
            code = process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return f"the collector has not ended {_END_S:.0f} s after it was told to"
        return None if code in _ENDS_WELL else f"the collector has ended with {code}: {self.said[-1500:]}"

    @property
    def said(self) -> str:
        """What it has printed, each time."""
        return self._said.read_text(errors="replace") if self._said.exists() else ""

    def beside(self) -> subprocess.Popen[bytes]:
        """Start one more that wants to write the merged run; it is to be refused."""
        return subprocess.Popen(
            self.asynctrack("collect", str(self.parts), "--dir", str(self.out)),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def asynctrack(self, *arguments: str) -> list[str]:
        """A command of ours."""
        return [sys.executable, "-m", "asynctrack", *arguments]

    def let_forget(self) -> None:
        """Wait until what is merged by now is nowhere else than with the hosts."""

    def wants(self, part: Path) -> bool:
        """Whether it waits for a host to send again what it has lost."""
        return False

    def close(self) -> None:
        """End what is left."""
        self.kill()
        for proxy in self.proxies.values():
            proxy.close()


class FolderCollecting(Collecting):
    """`asynctrack collect --follow` of the folder that all hosts share."""

    def of_host(self, number: int) -> Mapping[str, str]:
        return {"ASYNCTRACK_COLLECT": str(self.parts)}

    def command(self) -> list[str]:
        lost_after_s = f"--lost-after-s={self.lost_after_s:g}"
        return ["collect", str(self.parts), "--dir", str(self.out), "--follow", lost_after_s]


class HTTPCollecting(Collecting):
    """`asynctrack serve`, with a way through the network for each host."""

    def __init__(self, directory: Path, lost_after_s: float, *, old_server: bool = False) -> None:
        super().__init__(directory, lost_after_s, old_server=old_server)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]

    def of_host(self, number: int) -> Mapping[str, str]:
        self.proxies[number] = Proxy(self._port)
        return {"ASYNCTRACK_COLLECT": f"http://{self.proxies[number].address}"}

    def command(self) -> list[str]:
        lost_after_s = f"--lost-after-s={self.lost_after_s:g}"
        where = ["--listen", f"127.0.0.1:{self._port}", "--dir", str(self.out)]
        return ["serve", *where, "--keep-free", KEEP_FREE, lost_after_s]
