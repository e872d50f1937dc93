"""Errors: every exception that asynctrack raises on purpose.

Two families: `UsageError` is the caller's doing (a bad argument, a closed run) and is raised at the call;
`EnvironmentFailure` is the world's doing (a disk, a damaged file, a missing library).
Each message says what was expected, what came, and what to do. Imports the standard library only.
"""

from __future__ import annotations

import errno

from asynctrack._system.printable import printable
from asynctrack._system.wording import counted

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any


__all__ = [
    "AmbiguousRun",
    "AsynctrackError",
    "BackendUnavailable",
    "DamagedJournal",
    "DirectoryNotWritable",
    "EnvironmentFailure",
    "FrameTooLarge",
    "FrameworkMissing",
    "InvalidConfig",
    "InvalidData",
    "InvalidExpression",
    "InvalidProject",
    "InvalidRunId",
    "InvalidSettings",
    "InvalidStep",
    "InvalidValue",
    "InvalidValueType",
    "JournalCorrupt",
    "LibraryMissing",
    "ManifestUnreadable",
    "NoCurrentRun",
    "NoJournalDirectory",
    "NoSuchBackend",
    "NoSuchRun",
    "NotARun",
    "NotPicklable",
    "QueueFull",
    "RunExists",
    "RunFinished",
    "RunIsRunning",
    "SharedMemoryUnavailable",
    "UnsafeFile",
    "UnsupportedVersion",
    "UsageError",
]


class AsynctrackError(Exception):
    """Stands for every exception raised on purpose. Its message may quote anybody's paths and keys, so it is escaped for terminals."""

    def __str__(self) -> str:
        return printable(super().__str__(), keep="\n")


class UsageError(AsynctrackError):
    """Raised when the caller did something that cannot work."""


class EnvironmentFailure(AsynctrackError):
    """Raised when the world (a disk, a file, a library) did not do its part."""


class InvalidSettings(UsageError, ValueError):
    """Raised when one or more settings cannot be used.

    Attributes:
        problems: a sentence for each of them.
    """

    def __init__(self, problems: Sequence[str], source: str = "") -> None:
        self.problems: tuple[str, ...] = tuple(problems)
        listed = "".join(f"\n  - {problem}" for problem in self.problems)
        what = counted(len(self.problems), "setting")
        super().__init__(f"{what}{source and f' of {source}'} cannot be used:{listed}")


class InvalidData(UsageError, TypeError):
    """Raised when the data given to `log()`, or as config or summary, is not a mapping."""

    def __init__(self, data: object, what: str = "log()") -> None:
        super().__init__(
            f"{what} takes a mapping of names to values, such as {{'loss': 0.5}}; got {type(data).__name__}: {data!r:.80}"
        )


class InvalidConfig(InvalidData):
    """Raised when the object given as a config has no names and values."""

    def __init__(self, given: object, what: str = "config", why: str = "") -> None:
        got = "the class" if isinstance(given, type) else type(given).__name__
        TypeError.__init__(
            self,
            f"{what} takes a mapping of names to values, an object with fields (of a dataclass, attrs, pydantic, msgspec), parsed arguments of argparse "
            f"or absl, or the path of a YAML, JSON or TOML file; got {got}: {_repr(given)}"
            f"{'; make an instance of it' if isinstance(given, type) else ''}{why and f' ({why:.200})'}",
        )


class InvalidStep(UsageError, TypeError):
    """Raised when a step is not a 64-bit integer."""

    def __init__(self, step: object) -> None:
        super().__init__(
            f"step must be an integer of 64 bits or None (NumPy's integers are fine, a bool is not); "
            f"got {type(step).__name__}: {step!r:.80}"
        )


class InvalidValue(UsageError, ValueError):
    """Raised when an image, a table or another value cannot be made of what was given."""

    def __init__(self, what: str, expected: str, found: str) -> None:
        super().__init__(f"{what} takes {expected}; got {found}")


class InvalidValueType(InvalidValue, TypeError):
    """Raised when an image, a table or another value was given an argument of a type that it does not take."""


class InvalidRunId(UsageError, ValueError):
    """Raised when a run id or folder cannot be the name of a directory, or means something else on the command line."""

    def __init__(self, what: str, value: object) -> None:
        super().__init__(
            f"{what} names a directory: 1 to 128 ASCII letters, digits, '-', '_', '.' or spaces, not starting with '.', '-' or a space, "
            f"without a path, and not 'latest', which is the newest run; got {value!r:.160}"
        )


class InvalidProject(InvalidRunId):
    """Raised when a text cannot be the name of a project."""

    def __init__(self, value: object) -> None:
        ValueError.__init__(
            self,
            f"project names a directory: 1 to 128 characters on one line, not starting with '.', without a path; got {value!r:.160}",
        )


class RunExists(UsageError, FileExistsError):
    """Raised when a run with this id has been recorded already."""

    def __init__(self, run_id: str, path: object) -> None:
        super().__init__(
            f"run {run_id!r} exists in {path}; resume it with resume='allow', choose another id, or leave out id= to get a new one"
        )


class RunIsRunning(UsageError, RuntimeError):
    """Raised when the run to resume is still open somewhere.

    Args:
        run_id: the id of the run.
        path: its directory.
        pid: the process that has it open; None means this one, 0 that it is not known.
    """

    def __init__(self, run_id: str, path: object, pid: int | None = 0) -> None:
        if pid is None:
            where, then = "open in this process", "log to the one that is open, or finish() it first"
        else:
            where = f"still running in another process{(pid and f' (pid {pid})') or ''}"
            then = "resume it when that process has ended"
        super().__init__(f"run {run_id!r} in {path} is {where}; {then}")


class RunFinished(UsageError, RuntimeError):
    """Raised when a call came after `finish()` that a run only takes before it."""

    def __init__(self, run_id: str, call: str) -> None:
        super().__init__(
            f"{call} came after run {run_id!r} had finished, and was not recorded; open a new run with init()"
        )


class NotPicklable(UsageError, TypeError):
    """Raised when a run was to be sent to another process, which cannot log to it."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} cannot be pickled: its queue belongs to the process that opened it. A forked process can log to it; give a spawned process "
            f"plain values, and let it open a run of its own with init()"
        )


class NoSuchBackend(UsageError, LookupError):
    """Raised when the current run does not have the backend that was asked for."""

    def __init__(self, wanted: str, run_id: str, names: Iterable[str]) -> None:
        super().__init__(f"run {run_id!r} has no {wanted} among its backends; it has {', '.join(names) or 'none'}")


class NoSuchRun(UsageError, LookupError):
    """Raised when there is no run of that name.

    Attributes:
        closest: names of runs that are like it, the most similar first.
    """

    def __init__(self, wanted: str, directory: object, closest: Sequence[str] = ()) -> None:
        self.closest: tuple[str, ...] = tuple(closest)
        meant = (
            f"did you mean {' or '.join(closest)}?" if closest else f"`asynctrack ls {directory}` lists the runs there"
        )
        what = f"{wanted!r} is neither the directory of a run nor the beginning of an id in {directory}; {meant}"
        super().__init__(f"there is no run in {directory}" if wanted == "latest" else what)


class AmbiguousRun(UsageError, LookupError):
    """Raised when the beginning of an id fits several runs.

    Attributes:
        candidates: the names of all of them, the newest first.
    """

    def __init__(self, wanted: str, candidates: Sequence[str]) -> None:
        self.candidates: tuple[str, ...] = tuple(candidates)
        listed = ", ".join(self.candidates[:10]) + (", ..." if len(self.candidates) > 10 else "")
        super().__init__(f"{wanted!r} fits {len(self.candidates)} runs; give more of the id: {listed}")


class InvalidExpression(UsageError, ValueError):
    """Raised when a condition cannot be parsed.

    Attributes:
        position: the character, from 1, where something else was expected.
    """

    def __init__(self, text: str, position: int, expected: str, found: str) -> None:
        self.position = position
        super().__init__(
            f"the condition {text!r} cannot be parsed: at character {position} expected {expected}, got {found}"
        )


class NoCurrentRun(UsageError, RuntimeError):
    """Raised when a module-level call needs an open run and there is none."""

    def __init__(self, call: str, opens: str = "asynctrack.init(project)") -> None:
        super().__init__(f"{call} needs an open run, and there is none; call {opens} first")


class QueueFull(UsageError):
    """Raised when there is no room in the queue and the run was opened with `when_full="raise"`."""

    def __init__(self, capacity: int) -> None:
        super().__init__(
            f"the queue of {capacity} bytes is full because the journal's disk does not keep up; the record was "
            f"dropped and counted. Raise queue_bytes, or choose when_full='block' or 'drop_newest'"
        )


class FrameTooLarge(UsageError, ValueError):
    """Raised when a config or summary does not fit the queue."""

    def __init__(self, what: str, size: int, limit: int, enough: int) -> None:
        super().__init__(
            f"{what} takes {size} bytes encoded and the queue carries at most {limit} at once; "
            f"raise queue_bytes to at least {enough}, or store it as a file"
        )


def _too_many_files(cause: OSError) -> str:
    """Return advice where the cause is too many open files; empty for any other cause."""
    if cause.errno not in (errno.EMFILE, errno.ENFILE):
        return ""
    return f"{cause.strerror}: close files or finish() runs that are open, or raise the limit (`ulimit -n`)"


class DirectoryNotWritable(EnvironmentFailure, OSError):
    """Raised when the directory for runs cannot be created or written."""

    def __init__(self, path: object, cause: OSError) -> None:
        why = _too_many_files(cause) or f"{cause.strerror}; choose another dir="
        super().__init__(cause.errno, f"cannot write runs to {path}: {why}")

    def __str__(self) -> str:
        return printable(str(self.strerror))


class SharedMemoryUnavailable(EnvironmentFailure, OSError):
    """Raised when no place for the queue could be found."""

    def __init__(self, tried: Sequence[str], cause: OSError) -> None:
        where = " or ".join(tried)
        why = _too_many_files(cause)
        place = f"no queue can be made in {where}: {cause.strerror}; set ASYNCTRACK_SHM to a directory that you can write, best in memory"
        room = f"no room for a queue in {where}: {cause.strerror}; free some, or lower queue_bytes"
        said = room if cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EFBIG) else place
        super().__init__(cause.errno, f"no queue can be opened in {where}: {why}" if why else said)

    def __str__(self) -> str:
        return printable(str(self.strerror))


class NotARun(EnvironmentFailure, FileNotFoundError):
    """Raised when a path does not hold a run."""

    def __init__(self, path: object, hint: str = "") -> None:
        super().__init__(f"{path} is not a run: it has neither a journal/ nor a run.json{hint}")


class ManifestUnreadable(NotARun):
    """Raised when a run's `run.json` cannot be read. Raised only where no journal can stand in for it.

    Attributes:
        found: the problem with the file.
    """

    def __init__(self, path: object, found: str) -> None:
        self.found = found
        FileNotFoundError.__init__(
            self,
            f"{path} cannot be read ({found}), and there is no journal/ beside it to read instead; restore it from a copy",
        )


class UnsupportedVersion(EnvironmentFailure):
    """Raised when a file was written by a newer asynctrack."""

    def __init__(self, path: object, found: object, supported: int) -> None:
        super().__init__(
            f"{path} has format version {found}, and this asynctrack reads up to {supported}; "
            f"install a newer asynctrack (pip install -U asynctrack)"
        )


class JournalCorrupt(EnvironmentFailure):
    """Raised when a journal segment cannot be read where it must be."""

    def __init__(self, path: object, offset: int, found: str) -> None:
        super().__init__(f"{path} is damaged at byte {offset}: {found}")


class DamagedJournal(UserWarning):
    """Warns that files of a run are damaged, and records may be missing from what is read. Given once for a run and process."""

    def __init__(self, path: object, damage: Sequence[object]) -> None:
        more = f"; and {len(damage) - 1} more, see `asynctrack verify`" if len(damage) > 1 else ""
        super().__init__(
            printable(f"{path} is damaged, and records may be missing from what is read of it: {damage[0]}{more}")
        )


class NoJournalDirectory(EnvironmentFailure, NotADirectoryError):
    """Raised when the path of a run's journal holds something that is no directory."""

    def __init__(self, path: object) -> None:
        super().__init__(
            f"{path} must be the directory of a run's journal, and something else has taken its place; move that away: then the run can be "
            "resumed, and what its backends have written can be read"
        )

    def __str__(self) -> str:
        return printable(str(self.args[0]))


class UnsafeFile(EnvironmentFailure, OSError):
    """Raised when a file of a run is a link, a pipe, a device or too large, and was not read.

    Attributes:
        found: what is there instead of a file.
    """

    def __init__(self, path: object, found: str) -> None:
        self.found = found
        super().__init__(
            f"{path} is not read: expected a regular file of at most 64 MiB, found {found}; a run's directory may come from anyone, so links, "
            "pipes and devices are never followed"
        )


class BackendUnavailable(EnvironmentFailure):
    """Raised when a backend cannot be opened here.

    Attributes:
        reason: the part of the message that says why.
    """

    reason: str = ""

    def __init__(self, kind: str, reason: str) -> None:
        self.reason = reason
        super().__init__(f"backend {kind!r} cannot be opened: {reason}")


class LibraryMissing(BackendUnavailable, ImportError):
    """Raised when a call needs a library that is not installed here."""

    def __init__(self, call: str, library: str, cause: ImportError) -> None:
        Exception.__init__(
            self, f"{call}() needs {library}, which cannot be imported here ({cause}): pip install {library}"
        )


class FrameworkMissing(EnvironmentFailure, ImportError):
    """Raised when a drop-in was imported where its framework is not installed."""

    def __init__(self, framework: str, requirement: str, cause: ImportError) -> None:
        super().__init__(
            f"asynctrack.integrations has a drop-in for {framework}, which cannot be imported here ({cause}); "
            f"pip install '{requirement}'"
        )


def _repr(given: object) -> str:
    """Return the beginning of an object's `repr`, whatever its code raises."""
    try:
        return f"{given!r:.80}"
    except Exception:  # a broken __repr__ must not hide the message
        return "..."


if not TYPE_CHECKING:  # a type checker that saw it would let every name pass

    def __getattr__(name: str) -> Any:
        from asynctrack._system.suggestions import unknown_attribute

        raise unknown_attribute(globals(), name, "asynctrack")
