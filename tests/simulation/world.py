"""World: carries a plan out with real processes and disks, heals all, and recovers it. Runs in the simulation.

It runs in a mount namespace of its own, where `/dev/shm` is small, so that all it mounts goes with it.
"""

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
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from asynctrack.reading import catalog
from simulation.actions import ACTIONS
from simulation.plan import Plan, RunSession
from simulation.processes import MARK, PYTHONPATH, Process, marked

# Bytes of the small disk and of shared memory.
SMALL: Final = "16m"
MEMORY: Final = "24m"
# Bytes of the small disk when all is healed: somebody has bought a larger one.
HEALED: Final = "1g"

# How long things may take that nothing holds up any more: a machine with other work is meant. Arbitrary.
OPEN_S: Final = 20.0
END_S: Final = 30.0
LOOK_S: Final = 30.0
SYNC_S: Final = 60.0
LEAVE_S: Final = 30.0

# What a healthy FUSE file system says now and then while another process renames the file: it knows files by their paths.
_OF_FUSE: Final = ("[Errno 22]", "[Errno 116]")


class Caller:
    """A process that logs, or did."""

    def __init__(self, session: RunSession, process: subprocess.Popen[bytes]) -> None:
        self.session = session
        self.process = process
        self.told = False
        self.killed = False
        self.stopped = False

    @property
    def opened(self) -> bool:
        """Whether it has opened its run."""
        return Path(self.session.ledgers, f"{self.session.name}-t0").exists()

    def report(self) -> dict[str, Any] | None:
        """What it did, when it has ended well."""
        try:
            return dict(json.loads(Path(self.session.report).read_bytes()))
        except FileNotFoundError:
            return None


class World:
    """Where a plan happens.

    Attributes:
        problems: what was not as promised, so far.
        removed: names of sessions whose run has been removed since.
    """

    def __init__(self, directory: Path, plan: Plan) -> None:
        self.directory = directory
        self.plan = plan
        self.callers: dict[str, Caller] = {}
        self.commands: list[tuple[list[str], subprocess.Popen[bytes], float, tuple[int, ...]]] = []
        self.problems: list[str] = []
        self.removed: set[str] = set()
        self.kills = 0
        self.disks = {disk: directory / disk for disk in plan.parts.disks}
        self.memory = Path("/dev/shm") if plan.parts.mounts else directory / "shm"
        for folder in (
            *self.disks.values(),
            *(self._own(name) for name in ("tmp", "state", "ledgers", "said", "weather", "taken", "reports")),
        ):
            folder.mkdir()
        self._ill_disk: Any = None
        self._mount()
        os.environ.update(
            TMPDIR=str(self._own("tmp")),
            XDG_STATE_HOME=str(self._own("state")),
            ASYNCTRACK_IDLE_EXIT_S="0.2",
            ASYNCTRACK_SHM="" if plan.parts.mounts else str(self.memory),
            PYTHONPATH=PYTHONPATH,
        )
        self._environment = {**os.environ, MARK: str(directory)}

    # What happens -----------------------------------------------------------------------------------------------------

    def carry_out(self) -> None:
        """All steps, one after the other."""
        for step in self.plan.steps:
            time.sleep(step.after_s)
            arguments = dict(step.arguments)
            if "session" in arguments:
                arguments["session"] = msgspec.convert(msgspec.to_builtins(arguments["session"]), RunSession)
            self._note(str(step))
            ACTIONS[step.action].do(self, **arguments)

    def run_directory(self, run: str) -> Path:
        return self.disks[self.disk_of(run)] / "p" / run

    def disk_of(self, run: str) -> str:
        return next(plan.disk for plan in self.plan.runs if plan.id == run)

    def start(self, session: RunSession, wait_s: float) -> None:
        run = self.run_directory(session.run)
        session = msgspec.structs.replace(
            session,
            dir=str(run.parent.parent),
            database=str(self._own("metrics.db")),
            report=str(self._own(f"reports/{session.name}.json")),
            **{place: str(self._own(place)) for place in ("ledgers", "weather", "taken")},
        )
        order = self._own(f"reports/{session.name}.order")
        order.write_bytes(msgspec.json.encode(session))
        with self._own(f"said/{session.name}").open("wb") as said:
            arguments = [sys.executable, "-m", "simulation.caller", str(order)]
            process = subprocess.Popen(
                arguments, stdin=subprocess.PIPE, stdout=said, stderr=said, env=self._environment, cwd=self.directory
            )
        caller = self.callers[session.name] = Caller(session, process)
        self._wait(lambda: caller.opened or process.poll() is not None, wait_s)

    def tell_to_end(self, name: str) -> None:
        if (caller := self.callers.get(name)) is not None:
            caller.told = True
            assert caller.process.stdin is not None
            with contextlib.suppress(OSError):
                caller.process.stdin.close()

    def kill_caller(self, name: str) -> None:
        if (caller := self.callers.get(name)) is not None and caller.process.poll() is None:
            caller.killed = True
            self.kills += 1
            caller.process.kill()

    def signal_caller(self, name: str, number: signal.Signals) -> None:
        if (caller := self.callers.get(name)) is not None:
            caller.stopped = True
            caller.process.send_signal(number)

    def kill_worker(self, name: str) -> None:
        if (caller := self.callers.get(name)) is not None:
            for process in self.processes("worker"):
                if process.of == caller.process.pid:
                    self._kill(process)

    def kill(self, *kinds: str) -> None:
        for process in self.processes(*kinds):
            for caller in self.callers.values():
                caller.killed |= caller.process.pid == process.pid
            self._kill(process)

    def signal(self, kind: str, number: signal.Signals) -> None:
        for process in self.processes(kind):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)

    def fill(self, place: Path) -> None:
        with (place / "ballast").open("ab", buffering=0) as file:
            try:
                while file.write(bytes(1 << 16)) == 1 << 16:
                    pass
                while True:
                    file.write(bytes(4096))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def free(self, place: Path) -> None:
        (place / "ballast").unlink(missing_ok=True)

    def make_ill(self, how: str, kinds: list[str]) -> None:
        if how == "hang":
            self._ill_disk.hang(*kinds)
        else:
            self._ill_disk.fail(errno.EIO, *kinds)

    def heal_disk(self) -> None:
        self._ill_disk.go_on()

    def set_weather(self, backend: str, weather: str) -> None:
        draft = self._own("weather/draft")
        draft.write_text(weather)
        draft.rename(self._own(f"weather/{backend}"))

    def look(self, run: str, command: list[str]) -> None:
        directory = self.run_directory(run)
        places = {"RUN": str(directory), "DIR": str(directory.parent.parent), "OUT": str(self._own("tmp/exported"))}
        # Before anything is journaled there is no run to look at, and a record may have been in its queue only.
        # On the ill disk the next step may come before it has looked.
        known = [] if self.disk_of(run) != "ill" and catalog.is_run(directory) else [1, 2]
        self._command([places.get(word, word) for word in command], (0, *known), LOOK_S)

    def sync_beside(self, run: str, *, all: bool) -> None:
        directory = self.run_directory(run)
        target = directory.parent.parent if all else directory
        self._command(["sync", str(target), "--patience-s", "3"], (0, 1, 2), SYNC_S)

    def remove(self, run: str) -> None:
        """Remove a run whose callers have ended; what they logged is nobody's then."""
        mine = [caller for caller in self.callers.values() if caller.session.run == run]
        if not self._wait(lambda: all(caller.process.poll() is not None for caller in mine), 3.0):
            return
        done = subprocess.run(
            self._asynctrack("rm", "--yes", str(self.run_directory(run))),
            env=self._environment,
            capture_output=True,
            timeout=LOOK_S,
            text=True,
        )
        self._note(f"rm: {done.returncode} {(done.stdout + done.stderr).strip()}")
        if done.returncode == 0:
            self.removed |= {caller.session.name for caller in mine}

    # The end ----------------------------------------------------------------------------------------------------------

    def recover(self) -> None:
        """Heal all, end all, and sync."""
        self._heal()
        self._end_callers()
        self._await_commands()
        if not self.plan.sync_at_once:
            self._await_nobody("worker", "delivery")
        for disk in sorted({run.disk for run in self.plan.runs}):
            if any(self.disks[disk].iterdir()):
                self._sync(self.disks[disk])
        self._await_nobody("caller", "worker", "delivery", "command")

    def processes(self, *kinds: str) -> list[Process]:
        return [process for process in marked(self.directory) if process.kind in kinds]

    def close(self) -> None:
        """End what is still there."""
        if self._ill_disk is not None:
            self._ill_disk.go_on()  # who waits for it cannot be killed
        for process in self.processes("caller", "worker", "delivery", "command"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        if self._ill_disk is not None:
            self._ill_disk.close()
        for caller in self.callers.values():
            caller.process.wait(LEAVE_S)
        for _, process, _, _ in self.commands:
            process.wait(LEAVE_S)

    def _heal(self) -> None:
        self._note("heal")
        for weather in self._own("weather").iterdir():
            weather.write_text("")
        if self._ill_disk is not None:
            self.heal_disk()  # first: who looks at it hangs
        for place in (*self.disks.values(), self.memory):
            self.free(place)
        if self.plan.parts.mounts:  # else what was logged may fill it by itself
            subprocess.run(["mount", "-o", f"remount,size={HEALED}", str(self.disks["small"])], check=True)
        for process in marked(self.directory):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)

    def _end_callers(self) -> None:
        living = [caller for caller in self.callers.values() if caller.process.poll() is None]
        if self.plan.end == "kill":
            self.kill("caller")
        elif self.plan.end == "kill all":
            self.kill("caller", "worker", "delivery", "command")
        for caller in living:
            if not caller.told and not caller.killed and not self._has_rival(caller):
                self._await_open(caller)
        for caller in living:
            self.tell_to_end(caller.session.name)
        for caller in self.callers.values():
            self._await_end(caller)
        self._await_nobody("caller")  # forked children

    def _await_open(self, caller: Caller) -> None:
        if not self._wait(lambda: caller.opened or caller.process.poll() is not None, OPEN_S):
            self.problems.append(f"{caller.session.name} could not open its run in {OPEN_S:.0f} s with all healed")

    def _has_rival(self, caller: Caller) -> bool:
        return any(
            other is not caller and other.session.run == caller.session.run and other.process.poll() is None
            for other in self.callers.values()
        )

    def _await_end(self, caller: Caller) -> None:
        try:
            code = caller.process.wait(END_S)
        except subprocess.TimeoutExpired:
            caller.process.send_signal(signal.SIGUSR1)  # its stacks
            time.sleep(0.5)
            self.problems.append(f"{caller.session.name} has not ended {END_S:.0f} s after it was told to")
            caller.process.kill()
            return
        if code not in (0, -signal.SIGKILL):
            self.problems.append(f"{caller.session.name} ended with {code}: {self.said(caller)[-500:]}")
        elif code and not caller.killed and not self._may_die(caller):
            self.problems.append(f"{caller.session.name} was killed by somebody else")

    def _may_die(self, caller: Caller) -> bool:
        return caller.session.worker == "thread"  # a backend that kills its process is in this one

    def said(self, caller: Caller) -> str:
        return self._own(f"said/{caller.session.name}").read_text(errors="replace")

    def _await_commands(self) -> None:
        for arguments, process, deadline, codes in self.commands:
            try:
                out, _ = process.communicate(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                out, _ = process.communicate()
                self.problems.append(f"asynctrack {' '.join(arguments)} has not come back: {out.decode()[-300:]}")
                continue
            if process.returncode not in (*codes, -signal.SIGKILL):
                self.problems.append(
                    f"asynctrack {' '.join(arguments)} said {process.returncode}: {out.decode()[-800:]}"
                )

    def _sync(self, place: Path, *, again: bool = True) -> None:
        begin = time.monotonic()
        try:
            done = subprocess.run(
                self._asynctrack("sync", str(place), "--json", "--patience-s", "20"),
                env=self._environment,
                capture_output=True,
                timeout=SYNC_S,
                text=True,
            )
        except subprocess.TimeoutExpired:
            self.problems.append(f"sync of {place.name} has not come back in {SYNC_S:.0f} s")
            return
        self._note(f"sync of {place.name}: {done.returncode} after {time.monotonic() - begin:.1f} s")
        self._own(f"said/sync-{place.name}").write_text(done.stdout + done.stderr)
        if again and place.name == "ill" and any(error in done.stderr + done.stdout for error in _OF_FUSE):
            self._sync(place, again=False)  # sync says which run it could not read, and is run again
        elif done.returncode and not self._waits_for_its_caller(done.stdout):
            self.problems.append(f"sync of {place.name} said {done.returncode}: {(done.stdout + done.stderr)[:3000]}")

    def _waits_for_its_caller(self, said: str) -> bool:
        """Whether all that is missing are records that only a process that logs can deliver: `sync` names who lacks some, and nobody else."""
        try:
            told = json.loads(said)
            runs = told["runs"]
        except (ValueError, KeyError):
            return False
        if told["unreadable"] or not any(run["missing"] for run in runs):
            return False
        for run in runs:
            behind = {name for name, backend_stats in run["stats"]["backends"].items() if backend_stats["behind"]}
            if behind != run["missing"].keys() or not all("caller" in name.lower() for name in behind):
                return False
        return True

    def _await_nobody(self, *kinds: str) -> None:
        if not self._wait(lambda: not self.processes(*kinds), LEAVE_S):
            left = self.processes(*kinds)
            self.problems.append(f"still there after {LEAVE_S:.0f} s: {'; '.join(map(str, left))}")

    # Below ------------------------------------------------------------------------------------------------------------

    def _own(self, name: str) -> Path:
        return self.directory / name

    def _note(self, text: str) -> None:
        with self._own("log").open("a") as file:
            file.write(f"{time.monotonic():.3f} {text}\n")

    def _kill(self, process: Process) -> None:
        self._note(f"kill {process}")
        self.kills += 1
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)

    def _asynctrack(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "asynctrack", *arguments]

    def _command(self, arguments: list[str], codes: tuple[int, ...], within_s: float) -> None:
        process = subprocess.Popen(
            self._asynctrack(*arguments),
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        self.commands.append((arguments, process, time.monotonic() + within_s, codes))

    def _mount(self) -> None:
        if self.plan.parts.mounts:
            for place, size in ((self.memory, MEMORY), (self.disks["small"], SMALL)):
                subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True)
        else:
            self.memory.mkdir(mode=0o700)
        if self.plan.parts.hangs and any(run.disk == "ill" for run in self.plan.runs):
            from hanging_disk import HangingDisk

            backing = self._own("backing")
            backing.mkdir()
            self._ill_disk = HangingDisk(self.disks["ill"], backing)
            assert self._ill_disk.mounted(), self._ill_disk.last_words()

    def _wait(self, condition: Callable[[], bool], within_s: float) -> bool:
        deadline = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def keep(self) -> None:
        """Copy what lies in mounted file systems to where it stays."""
        for place in (self.memory, *self.disks.values()):
            if os.path.ismount(place):
                shutil.copytree(place, self._own(f"kept-{place.name}"), ignore=_not_files, dirs_exist_ok=True)


def _not_files(folder: str, names: list[str]) -> list[str]:
    """What is not worth to be kept, or cannot be copied."""
    return [
        name
        for name in names
        if name == "ballast"
        or not (os.path.isfile(os.path.join(folder, name)) or os.path.isdir(os.path.join(folder, name)))
    ]
