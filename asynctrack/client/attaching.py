"""Attaching: opens in this process a run that another process has open. Runs in the caller.

A process that attaches does as a forked child does: it makes a queue of its own beside those of the run, and the run's worker empties it.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, get_args

from asynctrack._system import fork, trust
from asynctrack._system.entry import read_handshake
from asynctrack._system.suggestions import suggests
from asynctrack._system.wording import see
from asynctrack.client import finding, following, left_runs, run_lock
from asynctrack.client import writer as writers
from asynctrack.client.disabled_run import AbsentRun, DisabledRun
from asynctrack.client.entering import enter
from asynctrack.client.live_runs import LiveQueue, live_queues, queued_frames
from asynctrack.client.open_runs import open_runs
from asynctrack.client.preparation import PreparedRun, as_the_run
from asynctrack.client.publisher import Publisher
from asynctrack.client.run import Run
from asynctrack.client.writer import Joining
from asynctrack.errors import InvalidSettings, ManifestUnreadable, NoRunToAttach, NotARun, RunElsewhere, RunHasEnded
from asynctrack.journal.frames import walk
from asynctrack.journal.join import Join, join_payload
from asynctrack.journal.manifest import Manifest, now_iso
from asynctrack.queue.layout import JOIN
from asynctrack.settings import Settings

if TYPE_CHECKING:
    from asynctrack.reading.reader import RunReader

WhenAbsent = Literal["raise", "disabled"]

DEFAULT_QUEUE_BYTES: Final = 1 << 20
DEFAULT_TIMEOUT_S: Final = 10.0
# Where a worker leaves while its directory is being joined, the run is looked for again so many times. Arbitrary.
_MOST_TRIES: Final = 5

# How a process gets the label that it wants.
_FIRST: Final = (
    "give this process the run's path in place of the run, and call asynctrack.attach(path, writer=...) before it logs, "
    "or give init() the label where this process opens the run"
)

# One thread attaches at a time: two that are given the same run share it.
_turn = threading.RLock()


@suggests
def attach(
    run: Run | RunReader | str | os.PathLike[str] | None = None,
    *,
    writer: str | None = None,
    when_absent: WhenAbsent = "raise",
    timeout_s: float = DEFAULT_TIMEOUT_S,
    queue_bytes: int | None = DEFAULT_QUEUE_BYTES,
) -> Run:
    """Attach to a run that another process of this user on this machine has open, and make it the current one.

    It never opens a run. If this process has the run open already, that is returned. What is logged goes through a queue of this process's own
    into the same journal, and costs what it costs the process that opened the run. `finish()` ends this process's part; the run goes on.

    Args:
        run: The run: its directory, its id, the run itself, or its reader, as `open_run` returns it. Default: what `ASYNCTRACK_RUN` in the environment names, a path or an id; else
            the open run of the nearest process from which this one descends.
        writer: The label of this process in the run. Default: "rank3", where `RANK` in the environment is 3, else its host and pid. Where
            another process of the run has that rank, from which this one has inherited it, "rank3:PID". Several processes
            may have one label, as one after the other of a rank that is restarted. A process that has the run already, as one does that got it by
            pickle, has its label.
        when_absent: What to do if there is no open run, or no run at all: "raise", or "disabled" to return a run that records nothing; the next
            call looks again.
        timeout_s: Seconds to wait for a run that was named and is not open yet.
        queue_bytes: Bytes of shared memory for this process's queue, rounded up to a power of two; less if memory is short. None: as much as for
            `init`.

    Returns:
        The open run.

    Raises:
        InvalidSettings: An argument cannot be used, or this process writes to the run by another label already.
        RunHasEnded: The run has ended.
        NoRunToAttach: No run was found.
        NotARun: There is no run in the directory.
        SeveralOpenRuns: The ancestor has several runs open, or several have this id.
        RunElsewhere: The run is open in a container or on a machine whose queues are out of reach.
        RunOfAnotherUser: The run is another user's.
        SharedMemoryUnavailable: The queue does not fit into shared memory.
    """
    found = _attached(run, writer, when_absent, timeout_s, queue_bytes)
    left_runs.keep(found)
    return found


def attach_to_ancestors() -> Run | None:
    """Attach to the run of the nearest ancestor or of `ASYNCTRACK_RUN`, as a forked child does without being asked; None where there is none."""
    try:
        return _attached(None, None, "raise", 0.0, DEFAULT_QUEUE_BYTES)
    except ManifestUnreadable:
        raise
    except (NoRunToAttach, NotARun, RunHasEnded):
        return None


def _attached(
    run: Run | RunReader | str | os.PathLike[str] | None,
    writer: str | None,
    when_absent: WhenAbsent,
    timeout_s: float,
    queue_bytes: int | None,
) -> Run:
    if isinstance(run, Run) and (run.is_open or isinstance(run, DisabledRun)):
        return _of_label(run, writer)
    if isinstance(run, Run):  # this process has finished its part
        run = run.path
    run = _path_of(run)
    _check_arguments(run, when_absent, timeout_s)
    settings = Settings.build({"queue_bytes": queue_bytes})
    if settings.mode == "disabled":
        return _open_disabled(DisabledRun)
    wanted = None if run is None else finding.Wanted(run)
    if wanted is None and (named := os.environ.get(finding.VARIABLE)):
        wanted = finding.Wanted(named, finding.VARIABLE)
    join = writers.this_process(writer)
    try:
        with _turn:
            found = _attach(wanted, join, settings, timeout_s, is_named=writer is not None)
            _leave_absent()
            return _of_label(found, writer)
    except (NoRunToAttach, NotARun, RunHasEnded, RunElsewhere) as absent:
        if when_absent == "raise" or isinstance(absent, ManifestUnreadable):
            raise
        return _open_disabled(AbsentRun)


def _of_label(run: Run, writer: str | None) -> Run:
    """Return a run; where this process writes to it already by another label than the one that is wanted, say so.

    Raises:
        InvalidSettings: it does.
    """
    publisher = run._session.publisher
    if writer is None or not isinstance(publisher, Publisher) or writer == publisher.queue.label:
        return run
    told = f"writer={writers.check_label(writer)!r} comes too late: this process writes to run {run.id} as {publisher.queue.label!r} already"
    first = "forked children have their parent's label" if publisher.queue.is_inherited else _FIRST
    raise InvalidSettings([f"{told}; {first}{see('how_to/processes.md#spawned-processes-the-same-run')}"])


def open_joined(queue: LiveQueue, join: Join, settings: Settings, *, owns: bool = False) -> Run:
    """Open a run by a queue of its own beside one that the run has.

    Args:
        queue: one of the run's.
        join: who this process is.
        settings: of this process's part.
        owns: whether the run's status is this process's.

    Raises:
        FileNotFoundError: its worker has left.
        AsynctrackError: see `attach`.
    """
    return enter(lambda: _prepare(queue, Joining(queue.directory, join, owns), settings), queue.run, {})


def _attach(wanted: finding.Wanted | None, join: Join, settings: Settings, timeout_s: float, *, is_named: bool) -> Run:
    began = time.monotonic()
    for tries_left in reversed(range(_MOST_TRIES)):
        if (here := _open_here(wanted)) is not None:
            return here
        try:
            return _join(wanted, join, settings, timeout_s, began, is_named=is_named)
        except FileNotFoundError:  # its worker has left since
            if not tries_left:
                raise
    raise AssertionError("unreachable")


def _open_here(wanted: finding.Wanted | None) -> Run | None:
    """Return a run that this process has open; where none is named, not one that the process from which this one descends has left."""
    if wanted is None:
        return open_runs.open_here(lambda run: _is_there(run) and not following.is_left(run))
    return open_runs.open_here(lambda run: run.is_open and wanted.is_meant(os.fspath(run.path)))


def _is_there(run: Run) -> bool:
    return run.is_open and not isinstance(run, AbsentRun)


def _leave_absent() -> None:
    """Let no run that was not there be the current one again: now one is."""
    for run in open_runs.all():
        if isinstance(run, AbsentRun):
            open_runs.leave(run)


def _join(
    wanted: finding.Wanted | None, join: Join, settings: Settings, timeout_s: float, began: float, *, is_named: bool
) -> Run:
    """Find a run and open it; where no ancestor has one, one that was left goes on."""
    try:
        found = finding.find_of_ancestors() if wanted is None else finding.find(wanted, timeout_s, began)
    except NoRunToAttach:
        left: Run | None = open_runs.open_here(lambda run: wanted is None and _is_there(run))
        if left is None:
            raise
        return left
    before: Run | None = open_runs.open_here(lambda run: run.is_open and os.fspath(run.path) == found.queue.run)
    if before is None and not is_named and writers.inherits_its_rank(join) and _has_label(found.queue.run, join.writer):
        join = writers.beside_its_rank(join)
    run = open_joined(found.queue, join, settings) if before is None else before
    if found.of_ancestor is not None:
        following.follow(run, found.of_ancestor.path)
    return run


def _has_label(path: str, label: str) -> bool:
    """Tell whether another process that lives writes to a run by a label; a forked child has its parent's."""
    return any(
        queue.meta.get("writer") == label and not queue.meta.get("forked")
        for queue in live_queues(lambda run: run == path)
    )


def _prepare(queue: LiveQueue, joining: Joining, settings: Settings) -> PreparedRun:
    """Make a queue beside the others. Not on the user's thread: the disk of the run may hang."""
    from asynctrack.reading.reader import RunReader

    path = Path(queue.run)
    manifest = RunReader(path).manifest()
    for frames in queued_frames(
        queue.directory, queue.run
    ):  # the journal may not have yet that the run was resumed, and with which config
        for frame in walk(memoryview(frames), 0, len(frames), skip_records=True):
            manifest.apply(frame)
    if key := read_handshake(queue.directory).get("key", ""):
        trust.learn(key)  # where no key can be kept, the worker knows that of the process that has started it
    settings = as_the_run(_settings_of(queue, settings), manifest)
    first = join_payload(joining.join, owns=joining.owns)
    publisher = Publisher(manifest.id, path, settings, joining=joining)
    return PreparedRun(manifest, path, settings, publisher, run_lock.no_lock(), first, JOIN)


def _settings_of(queue: LiveQueue, settings: Settings) -> Settings:
    """Return the settings of this process's part: the worker looks and syncs as often as for the others."""
    import msgspec

    return msgspec.structs.replace(
        settings,
        worker="process",  # of whichever kind the others' is
        linger_s=float(queue.meta.get("linger_s", settings.linger_s)),
        sync_interval_s=float(queue.meta.get("sync_interval_s", settings.sync_interval_s)),
    )


def _path_of(run: RunReader | str | os.PathLike[str] | None) -> str | os.PathLike[str] | None:
    """Return the directory of a run that is given by its reader; anything else as it is."""
    if run is None or isinstance(run, str | os.PathLike):
        return run
    from asynctrack.reading.reader import RunReader  # rarely needed

    return run.path if isinstance(run, RunReader) else run


def _open_disabled(kind: type[DisabledRun]) -> Run:
    before: Run | None = open_runs.open_here(lambda run: isinstance(run, DisabledRun))
    if before is not None:  # one is enough for all calls
        return before
    manifest = Manifest(id="disabled", name="disabled", project="disabled", created_at=now_iso())
    run = kind(manifest, Path(os.path.abspath("disabled")), {})
    open_runs.enter(run)
    return run


def _check_arguments(run: object, when_absent: object, timeout_s: object) -> None:
    problems = []
    if run is not None and not (isinstance(run, str | os.PathLike) and _is_name(os.fspath(run))):
        problems.append(f"run must be a run, its reader, the path of its directory, or its id; got {run!r:.80}")
    if when_absent not in get_args(WhenAbsent):
        problems.append(
            f"when_absent must be one of {', '.join(map(repr, get_args(WhenAbsent)))}; got {when_absent!r:.80}"
        )
    if not isinstance(timeout_s, int | float) or isinstance(timeout_s, bool) or not timeout_s >= 0:
        problems.append(f"timeout_s must be a number of seconds, 0 or more; got {timeout_s!r:.80}")
    if problems:
        raise InvalidSettings(problems)


def _is_name(text: str | bytes) -> bool:
    """Tell whether something could be the name of a file."""
    try:
        return isinstance(text, str) and b"\0" not in os.fsencode(text) and bool(text)
    except UnicodeEncodeError:
        return False


@fork.in_child
def _after_fork_in_child() -> None:
    global _turn
    _turn = threading.RLock()
