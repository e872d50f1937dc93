"""World: real hosts and their collector, in which a plan is carried out, and then all is healed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from asynctrack.errors import AsynctrackError
from asynctrack.journal import manifest as manifests
from simulated_hosts.collecting import LOST_AFTER_S, SOON_LOST_AFTER_S, Collecting, FolderCollecting, HTTPCollecting
from simulated_hosts.faults import FAULTS
from simulated_hosts.machine import Machine
from simulated_hosts.plan import Plan, Step
from simulated_hosts.proxy import Proxy
from simulated_hosts.stream import NATSCollecting

COLLECTORS: Final[Mapping[str, type[Collecting]]] = {
    "folder": FolderCollecting,
    "http": HTTPCollecting,
    "nats": NATSCollecting,
}
MEMORY: Final = "2g"
DISK: Final = "300m"
# Far more than anything here needs. Arbitrary.
_DEADLINE_S: Final = 60.0
# Between two looks whether a collector waits for a host. Arbitrary.
_LOOK_S: Final = 2.0


class World:
    """Hosts and a collector.

    Attributes:
        directory: of all of it.
        machines: the hosts.
        problems: what was wrong while it went on, in words.

    Args:
        directory: where it lies; empty.
        plan: to carry out.
        clock: a library that sets the clock of who loads it; None where there is none.
    """

    def __init__(self, directory: Path, plan: Plan, clock: Path | None) -> None:
        self.directory = directory
        self.plan = plan
        self.problems: list[str] = []
        self._began_at = self._look_at = time.monotonic()
        self._beside: list[tuple[str, subprocess.Popen[bytes]]] = []
        for name in ("ledgers", "large", "said", "memory", "out", "parts"):
            (directory / name).mkdir(mode=0o700)
        if plan.parts.mounts:
            for name, size in (("memory", MEMORY), ("out", DISK)):
                subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", directory / name], check=True)
        lost_after_s = LOST_AFTER_S if plan.lost is None else SOON_LOST_AFTER_S
        self.collecting = COLLECTORS[plan.carrier](directory, lost_after_s, old_server=plan.old_server)
        self.machines = [
            Machine(directory, number, self.collecting.of_host(number), clock) for number in range(plan.size.hosts)
        ]

    def carry_out(self) -> None:
        """Do all that the plan says, heal, and bring the run to its end."""
        if self.plan.waits_for_collector:
            self.collecting.start()
        for machine in self.machines:
            for rank in self.ranks(machine):
                machine.start(rank, self.plan.size.ranks, self.plan.size.rate)
        # A fault that comes earlier would meet nothing, and look like a loss.
        self.wait(lambda: all(machine.all_log for machine in self.machines), "all ranks log")
        self.collecting.start()
        self.wait_for_growth()
        for step in self.plan.steps:
            time.sleep(step.after_s)
            self.note(str(step))
            FAULTS[step.fault].do(self, step)
            self._check_ranks()
        self._end()

    # What faults do -------------------------------------------------------------------------------------------------

    def machine(self, step: Step) -> Machine:
        """The host that a step is about."""
        assert step.host is not None
        return self.machines[step.host]

    def proxy(self, step: Step) -> Proxy:
        """The way through the network of the host that a step is about."""
        assert step.host is not None
        return self.collecting.proxies[step.host]

    @property
    def stream(self) -> NATSCollecting:
        """What is between hosts and collectors."""
        assert isinstance(self.collecting, NATSCollecting)
        return self.collecting

    def rank(self, step: Step) -> int:
        """The rank that a step is about."""
        assert step.rank is not None
        return step.rank

    def ranks(self, machine: Machine) -> range:
        """The ranks of a host."""
        first = self.machines.index(machine) * self.plan.size.per_host
        return range(first, first + self.plan.size.per_host)

    def start_ranks(self, machine: Machine, ranks: Iterable[int]) -> None:
        """Start ranks again, and wait until they log."""
        for rank in ranks:
            machine.start(rank, self.plan.size.ranks, self.plan.size.rate)
        self.wait(lambda: machine.all_log, f"the ranks of {machine.name} log again")

    def let_pass(self, seconds: float | None) -> None:
        """Let the others go on for a while."""
        time.sleep(seconds or 0.0)

    def wait_for_growth(self) -> None:
        """Wait until the collector has merged something more."""
        before = self._merged_bytes()
        self.wait(lambda: self._merged_bytes() > before, "the merged journal grows")

    def sync_beside(self, machine: Machine) -> None:
        """Have a host that has died come back, and bring what it has left."""
        machine.has_died = False
        self._beside.append((f"sync of {machine.name}", self._sync(machine)))

    def publish_beside(self, machine: Machine, for_s: float | None) -> None:
        """Have another process bring a host's journal too."""
        command = [sys.executable, "-m", "simulated_hosts.publisher", str(machine.part / "journal"), str(for_s or 0.0)]
        child = subprocess.Popen(
            command,
            env=machine.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._beside.append((f"a second publisher of {machine.name}", child))

    def fill_disk(self) -> None:
        """Leave no block of the merged run's disk."""
        with (self.collecting.out / "ballast").open("ab", buffering=0) as file:
            try:
                os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(self.collecting.out).free)
                while True:
                    file.write(bytes(4096))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def free_disk(self) -> None:
        """Undo that."""
        (self.collecting.out / "ballast").unlink(missing_ok=True)

    # The end --------------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        """Heal all, end all, and wait until all is merged."""
        self.note("heal, stop")
        if self.plan.lost is not None:
            lost = self.machines[self.plan.lost]
            # A collector that has lost its run meanwhile is to have its beginning again, to say who is lost.
            self.wait(lambda: self._is_known(lost), f"{lost.name} is merged")
            lost.die()
        for proxy in self.collecting.proxies.values():
            proxy.heal()
        self.collecting.start()
        (self.directory / "stop").touch()
        for machine in self.machines:
            self._await_ranks(machine)
        self.wait(lambda: not any(machine.processes() for machine in self.machines), "all workers have left")
        for what, child in self._beside:
            self._await_command(what, child)
        self._sync_all(machine for machine in self.machines if not machine.has_died)
        self.note("all hosts have ended")
        self.wait(self._comes_to_its_end, "the merged run has ended")
        if (wrong := self.collecting.stop()) is not None:
            self.problems.append(wrong)
        if "Traceback" in self.collecting.said:
            self.problems.append(f"the collector said: {self.collecting.said[-3000:]}")
        self.note("the merged run has ended")

    def _comes_to_its_end(self) -> bool:
        """Whether the merged run has ended, and says of each host how that did; a collector that takes all for ended too early is started again."""
        lost = {machine.name for machine in self.machines if machine.has_died}
        with contextlib.suppress(AsynctrackError, OSError):
            found = manifests.load(self.collecting.run)
            ended = {one.host for one in found.hosts if one.status != "running"}
            named = {one.host for one in found.hosts if one.status == "lost"}
            if found.status != "running" and len(ended) == len(self.machines) and named == lost:
                return True
        self.collecting.start()
        if time.monotonic() > self._look_at:
            # Who asks when a host's processes have left waits until somebody has it sent again.
            asked = [one for one in self.machines if not one.has_died and self.collecting.wants(one.part)]
            self._sync_all(asked, again=True)
            self._look_at = time.monotonic() + _LOOK_S
        return False

    def _sync_all(self, machines: Iterable[Machine], *, again: bool = False) -> None:
        for machine in machines:
            self.note(f"sync of {machine.name}{', again' if again else ''}")
            url = f"url={machine.environment['ASYNCTRACK_COLLECT']}"
            child = self._sync(machine, *(("--to", "collector", url, "--again") if again else ()))
            self._await_command(f"sync of {machine.name} in the end", child)

    def _is_known(self, machine: Machine) -> bool:
        """Whether the merged run has something of a host."""
        with contextlib.suppress(AsynctrackError, OSError):
            return any(one.host == machine.name for one in manifests.load(self.collecting.run).hosts)
        return False

    def _await_ranks(self, machine: Machine) -> None:
        for who, process in machine.ranks.items():
            try:
                code = process.wait(_DEADLINE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
            if code != (-9 if who in machine.killed else 0):
                self.problems.append(f"{who} has ended with {code}: {machine.said(who)[-3000:]}")

    def _await_command(self, what: str, child: subprocess.Popen[bytes]) -> None:
        try:
            told = child.communicate(timeout=_DEADLINE_S)[0].decode()
        except subprocess.TimeoutExpired:
            child.kill()
            told = child.communicate()[0].decode()
        if child.returncode not in (0, -signal.SIGKILL):  # a fault may have met it
            self.problems.append(f"{what} said {child.returncode}: {told[-1500:]}")

    def _sync(self, machine: Machine, *more: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.collecting.asynctrack("sync", str(machine.part), "--json", *more),
            env=machine.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def close(self) -> None:
        """End what is still there."""
        self.collecting.close()
        for machine in self.machines:
            while machine.processes():
                machine.kill()
            for process in machine.ranks.values():
                process.kill()
                process.wait()
        for _, child in self._beside:
            child.kill()
            child.communicate()

    # Below ----------------------------------------------------------------------------------------------------------

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Wait until something is so.

        Raises:
            TimeoutError: it is not, after long.
        """
        deadline = time.monotonic() + _DEADLINE_S
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"after {_DEADLINE_S:.0f} s still not true: {what}; {self._state()}")
            time.sleep(0.02)

    def note(self, text: str) -> None:
        """Write down what happens, and when."""
        with (self.directory / "log").open("a") as file:
            file.write(f"{time.monotonic() - self._began_at:7.3f} {text}\n")

    def _check_ranks(self) -> None:
        """See that no rank has ended that should not have."""
        for machine in self.machines:
            for who, process in machine.ranks.items():
                if process.poll() is not None and who not in machine.killed:
                    raise RuntimeError(f"{who} has ended with {process.returncode}: {machine.said(who)[-3000:]}")

    def _merged_bytes(self) -> int:
        with contextlib.suppress(OSError):
            return sum(path.stat().st_size for path in (self.collecting.run / "journal").iterdir())
        return 0

    def _state(self) -> str:
        living = [f"{machine.name}: {', '.join(map(str, machine.processes()))}" for machine in self.machines]
        told = {"living": living, "collector": self.collecting.said[-1500:]}
        with contextlib.suppress(AsynctrackError, OSError):
            hosts = manifests.load(self.collecting.run).hosts
            told["hosts"] = [f"{one.host} {one.status}" for one in hosts]
        return json.dumps(told)
