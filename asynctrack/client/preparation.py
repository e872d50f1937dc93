"""Preparation: a run's directory, its lock, what its earlier sessions have left, and its queue. Runs in the caller, on a thread of ours.

All of it touches the run's disk, which may hang: so it is an interruptible call (`_system/disk_timeout.py`), which Ctrl-C ends. Who does not want any more what came of
it gives it to `take_back`, on whichever thread finds out last.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from asynctrack._system import permissions
from asynctrack.client import run_lock as run_locks
from asynctrack.client import run_state, worker_registry
from asynctrack.client.publisher import Publisher
from asynctrack.client.run_lock import Held, RunLock
from asynctrack.client.shutdown import is_open
from asynctrack.client.writer import Joining
from asynctrack.errors import DirectoryNotWritable, NotARun, RunExists, RunIsRunning
from asynctrack.journal.cursor import load_cursor
from asynctrack.journal.frames import walk
from asynctrack.journal.join import join_payload
from asynctrack.journal.manifest import FILE_NAME, UNREADABLE, Manifest, announce, has_begun, start_payload
from asynctrack.journal.tally import Tally
from asynctrack.queue.layout import JOIN, START
from asynctrack.records.codec import decode_as
from asynctrack.settings import Resume, Settings, WorkerKind

# How long a resumed run waits for the worker of its earlier session to note its end, which takes half a second.
_END_WAIT_S: Final = 5.0

# How long a run's directory is made again that others remove at once. Arbitrary: far longer than any that is interrupted once.
_MAKE_AGAIN_S: Final = 5.0
# How long a directory in which nothing has begun may be one that another process has made for its run. Arbitrary: that takes its lock within a millisecond.
_BEGIN_WAIT_S: Final = 0.5
# What the paths of a run's own files add to that of its directory: `cursors/.NAME.json.new`. Arbitrary: more than any of ours.
_LONGEST_BELOW: Final = 200


class PreparedRun(NamedTuple):
    """A run with a queue of this process.

    Attributes:
        manifest: the run, as it stands.
        path: its directory. One name, however it is reached: two would have two writers.
        settings: of this process's part.
        publisher: into the queue.
        run_lock: that makes the run ours, where we open it.
        first: the payload of the frame with which this process begins.
        kind: of that frame: START where it opens the run or goes on with it, JOIN where it joins it.
        is_new: whether the directory was made for this.
        resumed: whether the run goes on from where an earlier session was.
    """

    manifest: Manifest
    path: Path
    settings: Settings
    publisher: Publisher
    run_lock: RunLock
    first: bytes
    kind: int
    is_new: bool = False
    resumed: bool = False


def prepare(
    place: Path,
    manifest: Manifest,
    start: dict[str, Any],
    settings: Settings,
    resume: Resume,
    joining: Joining | None = None,
    *,
    joins: bool = False,
) -> PreparedRun:
    """Have the run's directory, what its earlier sessions have left, and a queue. Not on the user's thread: a disk may hang, and Ctrl-C come.

    Args:
        place: the directory.
        manifest: the run.
        start: the same, as the journal will have it.
        settings: of the run.
        resume: what to do with an earlier session.
        joining: who this process is among several writers.
        joins: whether another process may be about to open the run: a directory in which nothing has begun is begun, and nobody is waited for.

    Raises:
        AsynctrackError: see `init`.
    """
    path = Path(os.path.realpath(place))
    run_lock, is_new = _take_run_lock(path, manifest.id, resume, joins=joins)
    try:
        first, earlier = (0, None) if is_new else _take_over(path, manifest.id, settings.worker, resume, joins=joins)
        if earlier is None:
            announce(path, start)
            first = 0
        elif resume == "never":  # it was found because it was to be joined
            assert joining is not None
            settings = as_the_run(settings, earlier)
            joined = join_payload(joining.join, owns=joining.owns)
            publisher = Publisher(manifest.id, path, settings, joining=joining._replace(reopens=True))
            return PreparedRun(earlier, path, settings, publisher, run_lock, joined, JOIN)
        else:
            first = _go_on(path, manifest, first, earlier)
        begun, resumed = start_payload(manifest), earlier is not None
        publisher = Publisher(manifest.id, path, settings, first=first, joining=joining)
        return PreparedRun(manifest, path, settings, publisher, run_lock, begun, START, is_new, resumed)
    except BaseException:
        _let_go(path, is_new, run_lock)
        raise


def as_the_run(settings: Settings, manifest: Manifest) -> Settings:
    """Return the settings of who joins a run: it is offline or not as the run is."""
    return msgspec.structs.replace(settings, mode="offline" if manifest.offline else "online")


def take_back(ready: PreparedRun) -> None:
    """Undo what `prepare` has made, but for a run that a worker may know of: it has failed."""
    unknown = False
    try:
        unknown = ready.publisher.abandon()
    finally:
        _let_go(ready.path, ready.is_new and unknown, ready.run_lock)


def _let_go(path: Path, remove: bool, run_lock: RunLock) -> None:
    if remove:  # an empty directory can go: the run has not begun
        _remove_run_directory(path)
    run_lock.release()


def _take_run_lock(path: Path, run_id: str, resume: Resume, *, joins: bool = False) -> tuple[RunLock, bool]:
    """Take the run for this process alone; whether it is a new one.

    Raises:
        RunExists: it is there, and is not to be resumed.
        NotARun: it is not there, and is not to be begun.
        RunIsRunning: a process has it open.
    """
    deadline = time.monotonic() + _MAKE_AGAIN_S
    while time.monotonic() < deadline:
        is_new = _find_or_make(path, run_id, resume, joins=joins)
        if is_new is None:
            continue
        try:
            return run_locks.take(path), is_new
        except Held as held:
            raise _is_running(run_id, path, held.pid) from None
        except FileNotFoundError:  # another has made it, found that it cannot begin or was interrupted, and removed it
            continue
        except OSError as error:
            if is_new:
                _remove_run_directory(path)
            raise DirectoryNotWritable(path, error) from error
    raise DirectoryNotWritable(path, FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))


def _find_or_make(path: Path, run_id: str, resume: Resume, *, joins: bool) -> bool | None:
    """Return True if the run's directory is a new one; None where another process has removed it in the moment between."""
    if (resume != "never" or joins) and os.path.isdir(path):
        return False
    if resume == "must":
        raise NotARun(path, "; resume='allow' begins a new run there")
    try:
        return _make_run_directory(path, run_id) or None
    except RunExists as exists:
        if resume == "never" and not joins:
            _refuse(path, run_id, exists)
            return None
        return False  # another process has made it just now


def _refuse(path: Path, run_id: str, exists: RunExists) -> None:
    """Say why a run is not begun whose directory is there: a process has it open, or it has ended.

    Where nothing has begun in it, another process may have made it just now: then that is waited for. It returns where the directory has gone again.

    Raises:
        RunIsRunning: a process has it open.
        RunExists: it has ended, or something else is there.
    """
    deadline = time.monotonic() + _BEGIN_WAIT_S
    while os.path.lexists(path):
        # Before the looks for its process, which takes its lock first: one that comes between them would have ended.
        has_begun = any(os.path.lexists(path / name) for name in (FILE_NAME, "journal"))
        if is_open(path):
            raise RunIsRunning(run_id, path, None) from None
        pid = run_locks.holder(path)
        if pid is not None:
            raise _is_running(run_id, path, pid) from None
        if left := _callers_in(path):
            raise RunIsRunning(run_id, path, left=left) from None
        if time.monotonic() > deadline or has_begun:
            raise exists
        time.sleep(0.005)


def _is_running(run_id: str, path: Path, pid: int | None = 0) -> RunIsRunning:
    """Make the error that says where a run is open: another container or machine takes other words than a process here."""
    from asynctrack.client.elsewhere import machine_of  # rarely needed

    return RunIsRunning(run_id, path, pid, machine=None if pid is None else machine_of(path))


def _take_over(
    path: Path, run_id: str, kind: WorkerKind, resume: Resume, *, joins: bool
) -> tuple[int, Manifest | None]:
    """Take over what the dead processes of a run have left; returns the number of the next record there, and the run, None where there is nothing of it.

    Raises:
        NotARun: there is nothing of a run, and none is to be begun.
        RunIsRunning: somebody logs to it, or its worker does not come to its end.
        UnsupportedVersion: a newer asynctrack wrote it.
    """
    _earlier(path, [])  # refuse first, before anything is made for the run
    host = worker_registry.host_for(kind)
    deadline = time.monotonic() + _END_WAIT_S
    while True:
        first, queued = host.take_over(path)
        earlier = _earlier(path, queued)
        if is_open(path):
            raise RunIsRunning(run_id, path, None)
        if left := _callers_in(path):
            raise RunIsRunning(run_id, path, left=left)
        if not _is_ending(path, earlier):
            if (
                earlier is None or earlier.status == "running"
            ):  # its worker may have got done between the two looks; now nobody is left to change it
                first, queued = host.take_over(path)
                earlier = _earlier(path, queued)
            break
        if joins or time.monotonic() > deadline:
            raise _is_running(run_id, path)
        time.sleep(0.02)
    if earlier is None and resume == "must":
        raise NotARun(path)
    return first, earlier


def _go_on(path: Path, manifest: Manifest, first: int, earlier: Manifest) -> int:
    """Have a run go on as it was; returns the number of its next record."""
    tally = Tally(path / "journal")
    tally.update()
    tally.close()
    manifest.config = {**earlier.config, **manifest.config}
    manifest.labels = {**earlier.labels, **manifest.labels}
    manifest.name = earlier.name if manifest.name == manifest.id else manifest.name
    manifest.summary, manifest.checkpoint = earlier.summary, earlier.checkpoint
    manifest.created_at = earlier.created_at
    known = [load_cursor(path, name).next_number for name in earlier.backends]
    return max(first, tally.next_number(), *known)


def _earlier(path: Path, queued: Sequence[bytes]) -> Manifest | None:
    """Return the run as its journal has it, with the queues of its dead processes after that; None where there is nothing."""
    from asynctrack.reading.reader import RunReader  # only resumed runs need it

    found: Manifest | None = None
    with contextlib.suppress(NotARun):
        found = RunReader(path).manifest()
    if found is not None and not has_begun(path, found):
        found = None
    status = found.status if found is not None else "crashed"
    for frames in queued:
        for frame in walk(memoryview(frames), 0, len(frames), skip_records=True):
            if found is None and frame.kind == START:
                with contextlib.suppress(*UNREADABLE):
                    found = decode_as(frame.payload, Manifest)
            elif found is not None:
                found.apply(frame)
    if found is not None:
        found.status = status  # a queue that a dead process left does not mean that the run goes on
    return found


def _callers_in(path: Path) -> list[int]:
    """Return the other processes that have a queue of a run; 0 for one that cannot be seen from here."""
    from asynctrack.client.live_runs import live_queues  # rarely needed

    return [live.caller for live in live_queues(lambda run: run == str(path))]


def _is_ending(path: Path, earlier: Manifest | None) -> bool:
    """Return True if the worker of a caller that has died or finished just now has still to say how it ended."""
    queues = [queue for worker in run_state.other_workers() for queue in worker.queues if queue.run == str(path)]
    if any(queue.used for queue in queues):
        return True
    running = earlier is None or earlier.status == "running"
    return running and (bool(queues) or worker_registry.worker_of(path))


def _remove_run_directory(path: Path) -> None:
    """Remove the directory of a run that has not begun, unless there is something in it."""
    with contextlib.suppress(OSError):
        if not any(os.path.lexists(path / name) for name in ("lock", "journal")):  # not listed: files may be too many
            for name in (run_locks.FILE_NAME, FILE_NAME):
                (path / name).unlink(missing_ok=True)
            os.rmdir(path)


def _make_run_directory(path: Path, run_id: str) -> bool:
    """Make the directory of a run; False where it was there, and another has removed it in the moment between.

    Raises:
        RunExists: it is there.
        DirectoryNotWritable: it cannot be made.
    """
    try:
        if len(os.fsencode(path)) + _LONGEST_BELOW > os.pathconf("/", "PC_PATH_MAX"):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        os.makedirs(path.parent, exist_ok=True)
    except OSError as error:
        raise DirectoryNotWritable(path, error) from error
    try:
        os.mkdir(path, permissions.DIRECTORY)
    except FileExistsError as error:
        if path.is_dir():
            raise RunExists(run_id, path.parent) from None
        if not os.path.lexists(path):
            return False
        raise DirectoryNotWritable(path, error) from error
    except OSError as error:
        raise DirectoryNotWritable(path, error) from error
    return True
