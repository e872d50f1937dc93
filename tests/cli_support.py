"""What the tests of the command line share: the command as users run it, runs that have ended, and a process that logs as it is told."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path
from typing import Any

from support import ended, start, wait_until

import asynctrack
from asynctrack import cli
from asynctrack.client.run_state import activity_of

COMMAND = [sys.executable, "-m", "asynctrack"]

# A run of two processes: logs what it is told to on standard input, one command a line, and ends as the last says.
LOGGER = """
import asynctrack, os, sys
run = asynctrack.init("live", id=sys.argv[2], dir=sys.argv[1], linger_s=0.01, resume="allow")
print(run.path, flush=True)
for line in sys.stdin:
    word, *numbers = line.split()
    if word == "log":
        for i in range(*map(int, numbers)):
            run.log({"i": i, "half": i / 2}, step=10 * i)
    elif word == "flush":
        run.flush("journaled")
        print("flushed", flush=True)
    elif word == "die":
        os.kill(os.getpid(), 9)
    elif word == "fail":
        raise RuntimeError("as told")
"""
FAILING = """
import asynctrack, sys
with asynctrack.init("p", id="failed", dir=sys.argv[1]) as run:
    run.log({"loss": float("nan")}, step=7)
    raise ValueError("[red]no[/red]\\n\\x1b[31mgood")
"""
CRASHING = """
import asynctrack, os, sys
run = asynctrack.init("q", id="crashed", dir=sys.argv[1])
for i in range(3):
    run.log({"i": i})
run.flush("journaled")
os.kill(os.getpid(), 9)
"""


def asynctrack_(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as users do, not at a terminal."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], env={**os.environ, **environment}, capture_output=True, text=True, timeout=50
    )


def said_here(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command in this process, which takes a tenth of the time, as somewhere that is no terminal."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    words, code = [*map(str, arguments)], 2
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.suppress(SystemExit):
        code = cli.main(words)
    out.flush()
    assert isinstance(out.buffer, io.BytesIO)
    return subprocess.CompletedProcess(words, code, out.buffer.getvalue().decode(), err.getvalue())


def answer(*arguments: object) -> Any:
    """What a command that works says with `--json`."""
    done = said_here(*arguments, "--json")
    assert (done.returncode, done.stderr) == (0, ""), done
    return json.loads(done.stdout)


@contextmanager
def running(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """The command, while it runs."""
    with subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def line_of(child: subprocess.Popen[str]) -> str:
    """The next line that it prints."""
    assert child.stdout is not None
    return child.stdout.readline()


def on_terminal(columns: int, *arguments: object, answers: str = "", **environment: str) -> tuple[int, str]:
    """Run the command at a terminal that is so wide; its exit code, and all that the terminal was sent."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    variables = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR")}
    child = subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdin=theirs, stdout=theirs, stderr=theirs,
        env={**variables, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", **environment},
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, answers.encode())
    said = b""
    try:
        while part := os.read(ours, 65536):
            said += part
    except OSError:  # the terminal's other side is closed
        pass
    os.close(ours)
    return child.wait(timeout=50), said.decode().replace("\r\n", "\n")


def plain(text: str) -> str:
    """Text without its styles."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def make_runs(runs: Path) -> Path:
    """Runs that have ended in different ways, the newest first: q/crashed, p/failed, p/finished-2, p/finished-1."""
    for number in (1, 2):
        config = {"lr": 3e-4, "model": {"depth": number}, "bad": float("inf")}
        with asynctrack.init("p", id=f"finished-{number}", name=f"näme-{number}", dir=runs, config=config) as run:
            for i in range(2000):
                run.log({"loss": 1 / (i + 1), "train": {"acc": i / 2000}, "phase": "fit"}, step=i)
                if i % 100 == 0:
                    run.log({"val/acc": i / 2000, "huge": 10**400}, step=i)
            run.finish({"best": 0.25})
    for script, path in ((FAILING, "p/failed"), (CRASHING, "q/crashed")):
        start(script, runs).communicate()
        wait_until(lambda path=path: ended(runs / path), "the run has ended")  # type: ignore[misc]
        cursor = runs / path / "cursors" / "jsonl.json"
        wait_until(
            lambda cursor=cursor: cursor.exists() and b'"closed":true' in cursor.read_bytes(), "and is delivered"
        )  # type: ignore[misc]
        wait_until(lambda path=path: not activity_of(runs / path).is_active, "and its worker has let go of it")  # type: ignore[misc]
    return runs


class Logger:
    """A process with an open run that logs as it is told."""

    def __init__(self, runs: Path, run_id: str = "run") -> None:
        self.process = start(LOGGER, runs, run_id)
        self.run = Path(line_of(self.process).strip())

    def tell(self, *commands: str) -> None:
        assert self.process.stdin is not None
        for command in commands:
            self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()

    def log(self, start: int, stop: int) -> None:
        """Log these numbers, and wait until they are journaled."""
        self.tell(f"log {start} {stop}", "flush")
        assert line_of(self.process) == "flushed\n"

    def end(self, how: str | None = None) -> None:
        if self.process.poll() is None:
            self.tell(*([how] if how else []))
            self.process.communicate()
