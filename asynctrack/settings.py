"""Settings: every limit, with its unit, its default and what follows from it. Checked once, when it is built; all problems are named."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, get_args

from asynctrack._system.paths import expanded
from asynctrack._system.structs import Struct
from asynctrack._system.suggestions import hint
from asynctrack._system.wording import in_figures
from asynctrack.errors import DirectoryNotWritable, InvalidProject, InvalidRunId, InvalidSettings

Mode = Literal["online", "offline", "disabled"]
WorkerKind = Literal["process", "thread"]
WhenFull = Literal["drop_newest", "block", "raise"]
Resume = Literal["never", "allow", "must"]
Until = Literal["journaled", "synced", "delivered"]
FinishWait = Literal["own", "all"]

DEFAULT_STRAGGLER_S: Final = 30.0
DEFAULT_DIR: Final = "asynctrack_runs"
SMALLEST_QUEUE_BYTES: Final = 4096
LARGEST_QUEUE_BYTES: Final = 1 << 30

_MOST_CHARACTERS: Final = 128
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_\-. ]{0,127}")
_STRANGE: Final = re.compile(r"[^A-Za-z0-9_\-. ]")
# Of a project whose name is no directory's: 40 bits of its hash.
_DIGITS: Final = 10
# What the command line takes for something else.
_TAKEN: Final = frozenset({"latest"})
# What `ASYNCTRACK_ENVIRONMENT` may say, and what that is of `environment` and `diff`.
_ENVIRONMENTS: Final = {
    "": (True, True), "1": (True, True), "true": (True, True), "yes": (True, True), "on": (True, True), "nodiff": (True, False),
    "0": (False, True), "false": (False, True), "no": (False, True), "off": (False, True),
}  # fmt: skip
# In seconds.
_DAY: Final = 86_400.0


class Settings(Struct, frozen=True, kw_only=True):
    """Says how a run is recorded: the limits that `asynctrack.init` takes, in one object.

    Nothing is checked here; `init` checks all of it.

    Attributes:
        dir: The directory of all projects; a run is kept in `dir/project/id/`. It is created if it is missing. Default: "asynctrack_runs" in the
            current directory.
        mode: "online"; "offline" keeps records from backends that need a network until `asynctrack sync` is run; "disabled" records nothing.
            Default: "online". `init` takes `ASYNCTRACK_MODE` in the environment before this default.
        worker: "process" (default) takes nothing from the caller but the copy into shared memory, and outlives it. "thread" shares the caller's
            interpreter and ends with its main thread: records that other threads and `atexit` handlers log after that are refused. If the
            process is killed, the queue is kept for the next run.
        when_full: What to do when the journal's disk does not keep up and the queue is full. "drop_newest" (default): `log()` returns
            False, and the record is counted as dropped. "block": it waits up to `max_block_s`. "raise": it raises `QueueFull`.
        max_block_s: Seconds that `log()` waits for room with "block". Default: 5. Then the record is dropped and counted.
        queue_bytes: Bytes of shared memory between `log()` and the worker, rounded up to a power of two. Default: 16 MiB, less beside many
            open runs or if memory is short. A record may take half of it. A larger queue bridges longer stalls of the disk, and changes nothing else.
        finish_timeout_s: Seconds that `finish()` waits for delivery. Default: 30. The rest stays on disk, and the worker delivers it.
        exit_timeout_s: Seconds that the exit of the process waits for delivery if `finish()` was not called. Default: 5.
        linger_s: Seconds that the worker sleeps between two looks at the queue. Default: 0.1. Records of this time are lost if a container dies
            and takes its shared memory with it. A smaller value costs wake-ups, a larger one delays what readers see.
        sync_interval_s: Seconds between two fsyncs of the journal. Default: 1. Records of this time are lost in a power cut.
        after_exit_max_s: Seconds that the worker goes on delivering after the process has ended. Default: 300. `asynctrack sync` delivers the
            rest.
        straggler_s: Seconds after which a run ends whose process has ended, while others that write to it live and log nothing, as the idle workers
            of a pool. Default: 30. What one of them logs later reopens the run.
        environment: Whether it is kept where a run comes from, in `environment.json`: commit, script, arguments, packages, machine. Default: True. A process
            of low priority finds it out. `init` takes `ASYNCTRACK_ENVIRONMENT` in the environment before this default.
        diff: Whether the changes that git has not committed are kept with it, in `uncommitted.diff`, of 1 MiB at most. Default: True.
    """

    dir: Path = Path(DEFAULT_DIR)
    mode: Mode = "online"
    worker: WorkerKind = "process"
    when_full: WhenFull = "drop_newest"
    max_block_s: float = 5.0
    queue_bytes: int | None = None
    finish_timeout_s: float = 30.0
    exit_timeout_s: float = 5.0
    linger_s: float = 0.1
    sync_interval_s: float = 1.0
    after_exit_max_s: float = 300.0
    straggler_s: float = DEFAULT_STRAGGLER_S
    environment: bool = True
    diff: bool = True

    @classmethod
    def build(cls, given: dict[str, Any]) -> Settings:
        """Check settings, and make an object of them.

        Args:
            given: Values by the name of their setting. `mode=None` stands for `ASYNCTRACK_MODE` in the environment, else "online";
                None for `environment` and `diff` stands for `ASYNCTRACK_ENVIRONMENT`, else True.

        Returns:
            The settings, with the absolute path of `dir`.

        Raises:
            InvalidSettings: A name is unknown or a value out of range. The message names every problem.
            DirectoryNotWritable: `dir` is relative, and the current directory has been removed.
        """
        values = dict(given)
        origin = {}
        if values.get("mode") is None:
            values["mode"] = os.environ.get("ASYNCTRACK_MODE") or "online"
            origin["mode"] = " from the environment's ASYNCTRACK_MODE"
        origin["environment"] = _choose_environment(values)
        problems = [
            f"{name} is not a setting; there are {', '.join(_CHECKS)}{hint(name, _CHECKS)}"
            for name in values
            if name not in _CHECKS
        ]
        for name, check in _CHECKS.items():
            if name in values and (problem := check(values[name])):
                problems.append(f"{name} {problem}; got {values[name]!r:.80}{origin.get(name, '')}")
        if problems:
            raise InvalidSettings(problems)
        directory = expanded(values.get("dir", DEFAULT_DIR))
        try:
            values["dir"] = directory.absolute()
        except FileNotFoundError as error:  # the current directory has been removed
            raise DirectoryNotWritable(directory, error) from error
        return cls(**values)


def _choose_environment(values: dict[str, Any]) -> str:
    """Let `ASYNCTRACK_ENVIRONMENT` say what was not given of `environment` and `diff`; returns where a wrong value comes from."""
    said = os.environ.get("ASYNCTRACK_ENVIRONMENT", "")
    chosen = _ENVIRONMENTS.get(said.lower())
    given = values.get("environment")
    if given is None:
        values["environment"] = said if chosen is None else chosen[0]
    if values.get("diff") is None:
        values["diff"] = chosen is None or chosen[1]
    return " from the environment's ASYNCTRACK_ENVIRONMENT, which may be 1, 0 or nodiff" if given is None else ""


def check_name(what: str, value: object) -> str:
    """Check that a run id can be the name of a directory, and is no word of the command line; return it as a plain string.

    Args:
        what: The name of the argument, for the message.
        value: The id, or the name of a directory.

    Raises:
        InvalidRunId: It cannot, or it holds a path.
    """
    if not isinstance(value, str) or not _NAME.fullmatch(value) or value in _TAKEN:
        raise InvalidRunId(what, value)
    return str.__str__(value)


def check_project(value: object) -> str:
    """Check that a project's name is a line of text and not a path; return it as `run.json` keeps it.

    Raises:
        InvalidProject: It is not.
    """
    text = value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else ""
    if not (0 < len(text) <= _MOST_CHARACTERS and text.strip() and text.isprintable()) or text[0] == "." or "/" in text:
        raise InvalidProject(value)
    return text


def project_directory(project: str) -> str:
    """Return the name of a project's directory: the project's own name, or if a directory cannot have that, a similar one with `~` and a hash.

    A project's name cannot be like that, so no two projects share a directory.
    """
    if _NAME.fullmatch(project):
        return project
    import hashlib  # loads OpenSSL

    digest = hashlib.sha256(project.encode()).hexdigest()[:_DIGITS]
    return f"{fitting(project)[: _MOST_CHARACTERS - _DIGITS - 1]}~{digest}"


def fitting(name: str) -> str:
    """Replace each character that the name of a directory should not have by `_`."""
    plain = _STRANGE.sub("_", name) or "_"
    return plain if _NAME.fullmatch(plain[0]) else f"_{plain[1:]}"


def _one_of(choices: Any) -> Callable[[object], str | None]:
    names = get_args(choices)
    return lambda value: None if value in names else f"must be one of {', '.join(map(repr, names))}"


def _days(seconds: float) -> str:
    """Say in brackets how many days a long time is."""
    return f" ({'a day' if seconds < 2 * _DAY else f'{seconds / _DAY:.0f} days'})" if seconds >= _DAY else ""


def _seconds(low: float, high: float) -> Callable[[object], str | None]:
    def check(value: object) -> str | None:
        right = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
        return (
            None if right else f"must be a number of seconds from {in_figures(low)} to {in_figures(high)}{_days(high)}"
        )

    return check


def _switch(value: object) -> str | None:
    return None if isinstance(value, bool) else "must be True or False"


def _path(value: object) -> str | None:
    return None if isinstance(value, str | os.PathLike) and str(value) else "must be the path of a directory"


def _queue_bytes(value: object) -> str | None:
    if value is None:
        return None
    right = isinstance(value, int) and not isinstance(value, bool)
    if right and SMALLEST_QUEUE_BYTES <= value <= LARGEST_QUEUE_BYTES:  # type: ignore[operator]  # it is an int
        return None
    return f"must be None or a number of bytes from {SMALLEST_QUEUE_BYTES:,} to {LARGEST_QUEUE_BYTES:,}"


_CHECKS: Final[dict[str, Callable[[object], str | None]]] = {
    "dir": _path,
    "mode": _one_of(Mode),
    "worker": _one_of(WorkerKind),
    "when_full": _one_of(WhenFull),
    "max_block_s": _seconds(0, _DAY),
    "queue_bytes": _queue_bytes,
    "finish_timeout_s": _seconds(0, 30 * _DAY),
    "exit_timeout_s": _seconds(0, _DAY),
    "linger_s": _seconds(0.001, 0.25),
    "sync_interval_s": _seconds(0.001, 3600),
    "after_exit_max_s": _seconds(0, 30 * _DAY),
    "straggler_s": _seconds(0, 30 * _DAY),
    "environment": _switch,
    "diff": _switch,
}
