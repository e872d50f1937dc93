"""Main: the process that finds out where runs come from, `python -I -S .../provenance/main.py`.

Its standard input has a line of JSON with what to look at, and a line for each run that wants to know it. It writes the files of these runs itself: its
worker may be gone by then. To the worker it says what it has found, for runs that begin soon after. What it does not find out within its deadline is left out.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEADLINE_S = 10
# Git is given up after this time, and the rest waited for up to the second, so that what is known gets written.
_GIT_S = 7.0
_LOOK_S = 8.0
# Git does not need more, whatever a repository has. Arbitrary.
_DATA_BYTES = 2 << 30
_LINE_BYTES = 1 << 20
_IDLE_CLASS = 3 << 13
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30, "ppc64le": 273, "s390x": 282}


class Discovery:
    """Finds out about one place, by several threads.

    Args:
        job: what to look at: "directory", "script", "diff", "sys_path" and "prefixes".
    """

    def __init__(self, job: dict[str, Any]) -> None:
        self.found: dict[str, Any] = {}
        self.patch = b""
        self._job = job
        self._git: dict[str, Any] = {}

    def look(self, until_git: float, until: float) -> None:
        """Look at everything, at once, as long as there is time."""
        works = (lambda: self._look_at_machine(), lambda: self._look_at_code(until_git), lambda: self._look_at_gpus())
        threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _look_at_machine(self) -> None:
        from asynctrack.provenance.machine import describe_machine
        from asynctrack.provenance.packages import find_packages
        from asynctrack.provenance.scheduler import find_variables

        self.found["scheduler"] = find_variables()
        self.found["packages"] = find_packages(self._job["sys_path"])
        self.found.update(describe_machine())

    def _look_at_gpus(self) -> None:
        from asynctrack.provenance.machine import find_gpus

        self.found.update(find_gpus())

    def _look_at_code(self, until: float) -> None:
        from asynctrack.provenance.git_command import Git, find_program
        from asynctrack.provenance.git_state import collect

        if (program := find_program("git")) is None:
            return
        git = Git(program, until)
        for directory in self._directories():
            changes = collect(git, directory, self._keep_git, diff=self._job["diff"])
            if changes is not None:
                self.patch = changes.patch
                self._keep_git(
                    {
                        "dirty": changes.dirty,
                        "diff_bytes": len(changes.patch) or None,
                        "diff_cut": changes.cut,
                        "diff_masked": changes.masked,
                        "left_out": changes.left_out,
                    }
                )
            if self._git:
                return

    def _keep_git(self, more: dict[str, Any]) -> None:
        self._git = {**self._git, **more}
        self.found["git"] = self._git

    def _directories(self) -> list[str]:
        """Return where the code may be: beside the script, unless that is a tool that was installed; else where the program runs."""
        script, prefixes = self._job["script"], self._job["prefixes"]
        found = [self._job["directory"]]
        if script and os.path.isabs(script) and not any(script.startswith(f"{prefix}/") for prefix in prefixes):
            found.insert(0, os.path.dirname(os.path.realpath(script)))
        return [directory for directory in dict.fromkeys(found) if directory]


class JobLines:
    """The lines of standard input."""

    def __init__(self) -> None:
        self._rest = b""

    def wait(self) -> dict[str, Any]:
        """Wait for the next line.

        Raises:
            EOFError: there is none.
        """
        while b"\n" not in self._rest:
            said = os.read(0, _LINE_BYTES)
            if not said:
                raise EOFError
            self._rest += said
        line, _, self._rest = self._rest.partition(b"\n")
        return _decode(line)

    def rest(self) -> list[dict[str, Any]]:
        """Return the lines that have come, without waiting."""
        os.set_blocking(0, False)
        with contextlib.suppress(BlockingIOError):
            while said := os.read(0, _LINE_BYTES):
                self._rest += said
        *lines, self._rest = self._rest.split(b"\n")
        return [_decode(line) for line in lines]


def main() -> None:
    """Find out, and write it."""
    until = time.monotonic() + _LOOK_S
    os.closerange(3, 4096)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # by the kernel, also while a disk hangs
    signal.alarm(DEADLINE_S)
    _be_modest()
    _prepare_package()
    from asynctrack.provenance.run_place import open_run

    lines = JobLines()
    finding = Discovery(lines.wait())
    first = lines.wait()
    with contextlib.suppress(OSError):
        first["fd"] = open_run(first["run"], tuple(first["identity"]))  # it may be moved meanwhile
    finding.look(until - _LOOK_S + _GIT_S, until)
    found, patch = dict(finding.found), finding.patch
    done = []
    for run in [first, *lines.rest()]:
        _keep(run, found, patch)
        done.append(run["number"])
    _say(found, patch, done)


def _keep(run: dict[str, Any], found: dict[str, Any], patch: bytes) -> None:
    """Write the files of a run; a full disk, or a run that was removed, keeps no other from its own."""
    from asynctrack.provenance.run_place import keep, open_run

    with contextlib.suppress(OSError):
        fd = run["fd"] if "fd" in run else open_run(run["run"], tuple(run["identity"]))
        try:
            keep(fd, {**run["facts"], **found}, patch)
        finally:
            os.close(fd)


def _say(found: dict[str, Any], patch: bytes, done: list[int]) -> None:
    """Tell the worker what was found, and which runs are done."""
    import json

    said = memoryview(json.dumps({"found": found, "done": done}).encode() + b"\n" + patch)
    with contextlib.suppress(OSError):  # it has ended
        while said:
            said = said[os.write(1, said) :]


def _be_modest() -> None:
    """Let everything else come first."""
    import resource

    if os.environ.get("ASYNCTRACK_PRIORITY") != "normal":
        _lower_priority()
    for limit, most in (
        (resource.RLIMIT_CPU, DEADLINE_S),
        (resource.RLIMIT_DATA, _DATA_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(limit, (most, most))


def _lower_priority() -> None:
    with contextlib.suppress(OSError):
        os.nice(19)
    # Where the kernel gives each session an equal part of the processor, the number counts only within it, and this one says what the session gets.
    with contextlib.suppress(OSError), open("/proc/self/autogroup", "w") as group:
        group.write("19")
    number = _IOPRIO_SET.get(os.uname().machine)
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        if number is not None:
            ctypes.CDLL(None).syscall(number, 1, 0, _IDLE_CLASS)


def _prepare_package() -> None:
    """Make `asynctrack.*` importable without executing `asynctrack/__init__.py`."""
    package = type(sys)("asynctrack")
    package.__path__ = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]
    sys.modules["asynctrack"] = package


def _decode(line: bytes) -> dict[str, Any]:
    import json

    said: dict[str, Any] = json.loads(line)
    return said


if __name__ == "__main__":
    try:
        with contextlib.suppress(EOFError):  # its worker has died
            main()
    finally:
        os._exit(0)  # a disk that hangs on a thread must not hold the process
