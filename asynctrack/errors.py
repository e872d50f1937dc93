"""Errors: every exception that asynctrack raises on purpose.

Two families: `UsageError` is the caller's doing (a bad argument, a closed run) and is raised at the call;
`EnvironmentFailure` is the world's doing (a disk, a damaged file, a missing library).
Each message says what was expected, what came, and what to do. Imports the standard library only.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

from asynctrack._system.printable import printable
from asynctrack._system.wording import counted, see

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, ClassVar


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
    "InvalidQuery",
    "InvalidRunId",
    "InvalidSettings",
    "InvalidStep",
    "InvalidValue",
    "InvalidValueType",
    "JournalCorrupt",
    "LibraryMissing",
    "ManifestUnreadable",
    "MergeUnfinished",
    "MergedElsewhere",
    "NoCurrentRun",
    "NoJournalDirectory",
    "NoRunToAttach",
    "NoSuchBackend",
    "NoSuchMetric",
    "NoSuchRun",
    "NotAMergedRun",
    "NotARun",
    "PartIncomplete",
    "PartRefused",
    "QueryFailed",
    "QueueFull",
    "RunElsewhere",
    "RunExists",
    "RunFinished",
    "RunHasEnded",
    "RunIsRunning",
    "RunOfAnotherUser",
    "SeveralOpenRuns",
    "SharedMemoryUnavailable",
    "UnsafeFile",
    "UnsupportedVersion",
    "UsageError",
]


class AsynctrackError(Exception):
    """Stands for every exception raised on purpose. Its message may quote anybody's paths and keys, so it is escaped for terminals.

    Attributes:
        page: of the documents, where more stands; the message ends with it.
    """

    page: ClassVar[str] = ""

    def __str__(self) -> str:
        return printable(super().__str__(), keep="\n") + see(self.page)

    def __reduce__(self) -> tuple[Any, ...]:
        made: tuple[Any, ...] = super().__reduce__()  # type: ignore[assignment]  # an exception gives a tuple
        return _arrive, (type(self), made[1], made[2] if len(made) > 2 else {})


def _arrive(kind: type[AsynctrackError], args: tuple[Any, ...], attributes: dict[str, Any]) -> AsynctrackError:
    """Make an error again in the process to which it was sent: a pool sends what its workers raise. What made its message is not known any more."""
    error = kind.__new__(kind)
    built_in: Any = next(base for base in kind.__mro__ if base.__module__ == "builtins")
    built_in.__init__(error, *args)
    error.__setstate__(attributes)
    return error


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
            f"{what} takes a mapping of names to values, such as {{'loss': 0.5}}; got {type(data).__name__}: {_repr(data)}"
        )


class InvalidConfig(InvalidData):
    """Raised when the object given as a config has no names and values."""

    page = "how_to/configuration.md"

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
            f"got {type(step).__name__}: {_repr(step)}"
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

    page = "tutorial/resume.md"

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
        left: where the process that had opened it has ended, those that log to it and live on; 0 for one that cannot be seen from here.
        machine: where it is open out of this process's reach; empty for another container of this machine.
    """

    page = "tutorial/resume.md"

    def __init__(
        self, run_id: str, path: object, pid: int | None = 0, left: Sequence[int] = (), machine: str | None = None
    ) -> None:
        if machine is not None:
            where = f"open on the machine {machine}" if machine else "open in another container"
            then = (
                "its queue is out of reach here: resume it when it has ended there, or open a run of its own, perhaps with the same group="
                if machine
                else "its queue is out of reach here: resume it when it has ended there, or give both containers one shared memory, by the same --ipc or ASYNCTRACK_SHM, to log to it from here"
            )
        elif left:
            seen = sorted({str(one) for one in left if one})[:10]
            who = f"{len(left)} process{'es' if len(left) > 1 else ''}" + (f" (pid {', '.join(seen)})" if seen else "")
            where = f"still open in {who}, which live{'' if len(left) > 1 else 's'} on though the one that had opened it has ended"
            then = "end them to resume it, as the idle workers of a pool, or log to it as they do, by asynctrack.attach() with its path or by init(..., join=True)"
        elif pid is None:
            where, then = "open in this process", "log to the one that is open, or finish() it first"
        else:
            where = f"still running in another process{(pid and f' (pid {pid})') or ''}"
            then = "log to it from here by asynctrack.attach() with its path, or by init(..., join=True), or resume it when that process has ended"
        super().__init__(f"run {run_id!r} in {path} is {where}; {then}")


class RunFinished(UsageError, RuntimeError):
    """Raised when a call came after `finish()` that a run only takes before it."""

    page = "tutorial/first_run.md"

    def __init__(self, run_id: str, call: str, *, joined: bool = False) -> None:
        super().__init__(
            f"{call} came after run {run_id!r} had finished in this process, and was not recorded; attach() to it again while it goes on"
            if joined
            else f"{call} came after run {run_id!r} had finished, and was not recorded; open a new run with init()"
        )


class RunHasEnded(UsageError, RuntimeError):
    """Raised when a process was to attach to a run that has ended.

    Attributes:
        status: how it ended, as `open_run(...).status` says; "lost" where no process is left to say so.
    """

    page = "how_to/processes.md"

    def __init__(self, run_id: str, path: object, status: str) -> None:
        self.status = status
        super().__init__(
            f"run {run_id!r} in {path} has ended ({status}), and no process has it open to attach to; continue it with "
            f"init(id={run_id!r}, resume='allow'), or attach while it is open"
        )


class NoRunToAttach(UsageError, LookupError):
    """Raised when `attach()` finds no run that is open on this machine."""

    page = "how_to/processes.md"

    def __init__(self, wanted: str | None, timeout_s: float = 0.0, named_by: str = "") -> None:
        if wanted is None:
            found = "neither an argument nor ASYNCTRACK_RUN names a run, and no process from which this one descends has one open"
        else:
            who = f", which {named_by} names," if named_by else ""
            found = (
                f"no process of this user on this machine had a run {wanted!r:.200}{who} open within {timeout_s:g} s"
            )
        super().__init__(
            f"there is no run to attach to: {found}; open one with init(), and give this process the run itself (it pickles), its path or its id, or "
            "set ASYNCTRACK_RUN to one of these. A process in another container sees it only with the same /dev/shm"
        )


class NoSuchBackend(UsageError, LookupError):
    """Raised when the current run does not have the backend that was asked for."""

    def __init__(self, wanted: str, run_id: str, names: Iterable[str]) -> None:
        super().__init__(f"run {run_id!r} has no {wanted} among its backends; it has {', '.join(names) or 'none'}")


class NoSuchMetric(UsageError, KeyError):
    """Raised when nothing was logged by that name, or no number where one is needed."""

    def __init__(self, wanted: object, names: Iterable[str], needed: str = "value") -> None:
        from asynctrack._system.suggestions import hint  # which is loaded for a wrong name only

        known = [name for name in names if name != wanted]
        listed = ", ".join(f"`{name:.80}`" for name in known[:10]) + (", ..." if len(known) > 10 else "")
        meant = hint(wanted, known) if isinstance(wanted, str) else ""
        super().__init__(
            f"no {needed} was logged by the name {_repr(wanted)}{meant or (known and f'; there are {listed}') or ''}"
        )

    def __str__(self) -> str:
        return printable(Exception.__str__(self))  # that of `KeyError` puts it in quotes


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
        what = f"{wanted!r} is neither the directory of a run nor the beginning of an id in {directory}, and no run there has that name; {meant}"
        super().__init__(f"there is no run in {directory}" if wanted == "latest" else what)


class AmbiguousRun(UsageError, LookupError):
    """Raised when the beginning of an id, or a name, fits several runs.

    Attributes:
        candidates: all of them as `project/id`, the newest first.
    """

    def __init__(self, wanted: str, candidates: Sequence[str], created_at: Sequence[str] = ()) -> None:
        self.candidates: tuple[str, ...] = tuple(candidates)
        told = [f"{one} of {at}" for one, at in zip(candidates, created_at, strict=True)] if created_at else candidates
        listed = ", ".join(told[:10]) + (", ..." if len(told) > 10 else "")
        fits = (
            f"is the name of {len(told)} runs; give the id"
            if created_at
            else f"fits {len(told)} runs; give more of the id"
        )
        super().__init__(f"{wanted!r} {fits}: {listed}")


class SeveralOpenRuns(AmbiguousRun):
    """Raised when several open runs could be meant by `attach()`."""

    page = "how_to/processes.md"

    def __init__(self, who: str, candidates: Sequence[str]) -> None:
        self.candidates: tuple[str, ...] = tuple(candidates)
        listed = ", ".join(self.candidates[:10]) + (", ..." if len(self.candidates) > 10 else "")
        LookupError.__init__(
            self,
            f"{who} has {len(self.candidates)} runs open; give attach() the path of one of them, or the run itself: {listed}",
        )


class InvalidExpression(UsageError, ValueError):
    """Raised when a condition, a column or an order of runs cannot be parsed.

    Attributes:
        text: the expression.
        position: the character, from 1, where something else was expected.
    """

    page = "reference/expressions.md"

    def __init__(self, text: str, position: int, expected: str, found: str, more: str = "") -> None:
        self.text: str = text
        self.position: int = position
        super().__init__(
            f"the expression {text!r:.200} cannot be parsed: at character {position} expected {expected}, got {found:.80}{more}"
        )


class UnknownGoal(InvalidExpression):
    """Raised when an expression asks for the best value of a metric, and nobody has said whether less or more of it is better.

    Attributes:
        metric: the name of it.
    """

    def __init__(self, text: str, position: int, metric: str, spelled: str) -> None:
        self.text: str = text
        self.position: int = position
        self.metric: str = metric
        UsageError.__init__(
            self,
            f"the expression {text!r:.200} asks for the best of `{metric}`, and no run says whether less or more of it is better: "
            f"write min({spelled}) or max({spelled}), or call define_metric({metric!r}, goal='minimize') where it is logged",
        )


class InvalidQuery(UsageError, ValueError):
    """Raised when DuckDB does not take a statement, or the statement does what it may not."""

    page = "how_to/compare_runs.md#ask-sql"

    def __init__(self, said: str, *, is_denied: bool = False) -> None:
        allowed = "; external_access=True, or --external-access, allows files and the network" if is_denied else ""
        super().__init__(f"{_one_line(said)}{allowed}")


class NoCurrentRun(UsageError, RuntimeError):
    """Raised when a module-level call needs an open run and there is none."""

    def __init__(
        self, call: str, opens: str = "asynctrack.init(project)", *, attach: bool = False, named: str | None = None
    ) -> None:
        why = "no process from which this one descends has one open"
        if named:
            why = f"ASYNCTRACK_RUN names {named!r:.200}, and no process of this user on this machine has that run open"
        joins = f", or asynctrack.attach(run) with a run, its path or its id ({why})" if attach else ""
        super().__init__(f"{call} needs an open run, and there is none; call {opens} first{joins}")


class QueueFull(UsageError):
    """Raised when there is no room in the queue and the run was opened with `when_full="raise"`."""

    page = "explanation/guarantees.md#the-queue-is-full"

    def __init__(self, capacity: int) -> None:
        super().__init__(
            f"the queue of {capacity} bytes is full because the journal's disk does not keep up; the record was "
            f"dropped and counted. Raise queue_bytes, or choose when_full='block' or 'drop_newest'"
        )


class FrameTooLarge(UsageError, ValueError):
    """Raised when a config or summary does not fit the queue."""

    page = "how_to/media.md#how-large-a-value-may-be"

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
        given = "dir= or collect=" if "@" in str(path).rpartition("/")[2] else "dir="  # of a host's part
        why = _too_many_files(cause) or f"{cause.strerror}; choose another {given}"
        super().__init__(cause.errno, f"cannot write runs to {path}: {why}")

    def __str__(self) -> str:
        return printable(str(self.strerror)) + see(self.page)


class SharedMemoryUnavailable(EnvironmentFailure, OSError):
    """Raised when no place for the queue could be found."""

    page = "how_to/containers_and_clusters.md#a-small-devshm"

    def __init__(self, tried: Sequence[str], cause: OSError) -> None:
        where = " or ".join(tried)
        why = _too_many_files(cause)
        place = f"no queue can be made in {where}: {cause.strerror}; set ASYNCTRACK_SHM to a directory that you can write, best in memory"
        room = f"no room for a queue in {where}: {cause.strerror}; free some, or lower queue_bytes"
        said = room if cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EFBIG) else place
        super().__init__(cause.errno, f"no queue can be opened in {where}: {why}" if why else said)

    def __str__(self) -> str:
        return printable(str(self.strerror)) + see(self.page)


class RunElsewhere(EnvironmentFailure, RuntimeError):
    """Raised when a run is open, but its queues are out of this process's reach: in another container or on another machine."""

    page = "how_to/containers_and_clusters.md"

    def __init__(self, run_id: str, path: object, tried: Sequence[str], host: str, part_of: str | None = None) -> None:
        where = (
            f"on the machine {host}" if host else "in another container (its lock is held, and it has no queue here)"
        )
        if part_of is not None:
            super().__init__(
                f"the part of host {part_of!r}, {path}, is open {where}: two have one name. Give each machine and container a name of its own by ASYNCTRACK_HOST"
            )
            return
        super().__init__(
            f"run {run_id!r} in {path} is open {where}, and cannot be attached to: its queue is not in {' or '.join(tried)}. Share the shared memory: "
            "start both containers with the same --ipc (or --pod), or set ASYNCTRACK_SHM in both to a directory on a local volume that they share. "
            "On another machine open a run of its own"
        )


class RunOfAnotherUser(EnvironmentFailure, PermissionError):
    """Raised when the run to attach to belongs to another user of the machine."""

    page = "reference/permissions.md"

    def __init__(self, path: object, owner: int) -> None:
        super().__init__(
            f"{path} belongs to the user with the number {owner}, and this process is another's: one run has one user, since its queue is private. "
            "Run both as the same user, or open a run of its own"
        )


class NotARun(EnvironmentFailure, FileNotFoundError):
    """Raised when a path does not hold a run."""

    page = "how_to/read_runs.md#find-a-run"

    def __init__(self, path: object, hint: str = "") -> None:
        super().__init__(f"{path} is not a run: it has neither a journal/ nor a run.json{hint}")


class ManifestUnreadable(NotARun):
    """Raised when a run's `run.json` cannot be read. Raised only where no journal can stand in for it.

    Attributes:
        found: the problem with the file.
    """

    page = "how_to/read_runs.md#damaged-runs"

    def __init__(self, path: object, found: str) -> None:
        self.found = found
        FileNotFoundError.__init__(
            self,
            f"{path} cannot be read ({found}), and there is no journal/ beside it to read instead; restore it from a copy",
        )


class PartRefused(EnvironmentFailure):
    """Raised when what a host has of a run cannot be merged: it is another's, or it is garbage.

    Attributes:
        host: the name of the host.
        why: the reason.
    """

    page = "how_to/several_machines.md#what-is-refused"

    def __init__(self, run: object, host: str, why: str) -> None:
        self.host = host
        self.why = why
        super().__init__(f"the part of {run} that host {host} has is not merged: {why}")


class PartIncomplete(PartRefused):
    """Raised when something is missing in what a host has of a run, which may still come.

    Attributes:
        ring: whose bytes are missing; None where a batch is damaged.
        seen: up to where the ring is merged.
    """

    def __init__(self, run: object, host: str, why: str, ring: int | None = None, seen: int = 0) -> None:
        super().__init__(run, host, why)
        self.ring = ring
        self.seen = seen


class MergeUnfinished(UsageError, RuntimeError):
    """Raised when a merged run is to be delivered to its end, and some of its hosts have not ended."""

    page = "how_to/several_machines.md"

    def __init__(self, run: object, hosts: Sequence[str]) -> None:
        more = f" and {len(hosts) - 3} more" if len(hosts) > 3 else ""
        super().__init__(
            f"{run} is merged, and {', '.join(hosts[:3])}{more} of its hosts {'has' if len(hosts) == 1 else 'have'} not ended: `asynctrack collect`, or `asynctrack serve`, ends it; "
            "sync afterwards, or deliver what there is with --to"
        )


class NotAMergedRun(EnvironmentFailure):
    """Raised when something else lies where a merged run should."""

    page = "how_to/several_machines.md#what-is-refused"

    def __init__(self, run: object, why: str) -> None:
        super().__init__(f"{run} cannot be merged to: {why}; choose another --dir, or move that away")


class MergedElsewhere(UsageError, RuntimeError):
    """Raised when another process merges a run, or writes to it."""

    page = "how_to/several_machines.md"

    def __init__(self, run: object, pid: int | None) -> None:
        who = "another process" if not pid else f"process {pid}"
        super().__init__(
            f"{who} writes to {run}: one collector merges a run at a time, and `asynctrack sync` delivers it afterwards; let that one go on, or end it. "
            "`asynctrack serve` lets go of a run a minute after its end"
        )


class UnsupportedVersion(EnvironmentFailure):
    """Raised when a file was written by a newer asynctrack."""

    page = "reference/versioning.md#files"

    def __init__(self, path: object, found: object, supported: int) -> None:
        super().__init__(
            f"{path} has format version {found}, and this asynctrack reads up to {supported}; "
            f"install a newer asynctrack (pip install -U asynctrack)"
        )


class JournalCorrupt(EnvironmentFailure):
    """Raised when a journal segment cannot be read where it must be."""

    page = "how_to/read_runs.md#damaged-runs"

    def __init__(self, path: object, offset: int, found: str) -> None:
        super().__init__(f"{path} is damaged at byte {offset}: {found}")


class DamagedJournal(UserWarning):
    """Warns that files of a run are damaged, and records may be missing from what is read. Given once for a run and process."""

    def __init__(self, path: object, damage: Sequence[object]) -> None:
        more = f"; and {len(damage) - 1} more, see `asynctrack verify`" if len(damage) > 1 else ""
        super().__init__(
            printable(f"{path} is damaged, and records may be missing from what is read of it: {damage[0]}{more}")
            + see(JournalCorrupt.page)
        )


class RunsLeftOut(UserWarning):
    """Warns that runs of a directory are not among those that were asked for, since they cannot be read here. Given once for a sequence of runs."""

    def __init__(self, directory: object, *, private: int, newer: int, unreadable: int) -> None:
        reasons = (
            (private, "that you may not read"),
            (newer, "that a newer asynctrack wrote"),
            (unreadable, "that cannot be read"),
        )
        told = ", ".join(f"{count:,} {'run' if count == 1 else 'runs'} {why}" for count, why in reasons if count)
        super().__init__(printable(f"{told}: left out of the runs in {directory}; `asynctrack ls` says more"))


class NoJournalDirectory(EnvironmentFailure, NotADirectoryError):
    """Raised when the path of a run's journal holds something that is no directory."""

    page = "how_to/read_runs.md#damaged-runs"

    def __init__(self, path: object) -> None:
        super().__init__(
            f"{path} must be the directory of a run's journal, and something else has taken its place; move that away: then the run can be "
            "resumed, and what its backends have written can be read"
        )

    def __str__(self) -> str:
        return printable(str(self.args[0])) + see(self.page)


class UnsafeFile(EnvironmentFailure, OSError):
    """Raised when a file of a run is a link, a pipe, a device or too large, and was not read.

    Attributes:
        found: what is there instead of a file.
    """

    page = "explanation/decisions/trust.md"

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


class QueryFailed(EnvironmentFailure, RuntimeError):
    """Raised when DuckDB could not finish a statement, as where memory and disk did not suffice."""

    def __init__(self, said: str) -> None:
        super().__init__(f"DuckDB could not finish the query: {_one_line(said)}")


class LibraryMissing(BackendUnavailable, ImportError):
    """Raised when a call needs a library that is not installed here."""

    def __init__(self, call: str, library: str, cause: ImportError, extra: str | None = None) -> None:
        install = library if extra is None else f"'asynctrack[{extra}]'"
        Exception.__init__(
            self, f"{call}() needs {library}, which cannot be imported here ({cause}): pip install {install}"
        )


class FrameworkMissing(EnvironmentFailure, ImportError):
    """Raised when a drop-in was imported where its framework is not installed."""

    page = "how_to/frameworks/index.md"

    def __init__(self, framework: str, requirement: str, cause: ImportError) -> None:
        super().__init__(
            f"asynctrack.integrations has a drop-in for {framework}, which cannot be imported here ({cause}); "
            f"pip install '{requirement}'"
        )


def _one_line(said: str) -> str:
    """Return what a library has said in several lines, and drew below the text that it complains of, as one line."""
    lines = [line.strip() for line in said.splitlines()]
    return " ".join(line for line in lines if line.strip("^ "))


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
