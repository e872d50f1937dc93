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

from asynctrack._system import permissions
from asynctrack.client import run_lock as run_locks
from asynctrack.client import run_state, worker_registry
from asynctrack.client.publisher import Publisher
from asynctrack.client.run_lock import Held, RunLock
from asynctrack.client.shutdown import is_open
from asynctrack.errors import DirectoryNotWritable, NotARun, RunExists, RunIsRunning
from asynctrack.journal.cursor import load_cursor
from asynctrack.journal.frames import walk
from asynctrack.journal.manifest import FILE_NAME, UNREADABLE, Manifest, announce, has_begun
from asynctrack.journal.tally import Tally
from asynctrack.queue.layout import START
from asynctrack.records.codec import decode_as
from asynctrack.settings import Resume, Settings, WorkerKind

# How long a resumed run waits for the worker of its earlier session to note its end, which takes half a second.
_END_WAIT_S: Final = 5.0

# How long a run's directory is made again that others remove at once. Arbitrary: far longer than any that is interrupted once.
_MAKE_AGAIN_S: Final = 5.0
# What the paths of a run's own files add to that of its directory: `cursors/.NAME.json.new`. Arbitrary: more than any of ours.
_LONGEST_BELOW: Final = 200


class PreparedRun(NamedTuple):
    """A run that is ours alone, with a queue.

    Attributes:
        path: its directory. One name, however it is reached: two would have two writers.
        is_new: whether that was made for this.
        resumed: whether it goes on from where an earlier session was.
        run_lock: that makes it ours.
        publisher: into the queue.
    """

    path: Path
    is_new: bool
    resumed: bool
    run_lock: RunLock
    publisher: Publisher


def prepare(place: Path, manifest: Manifest, start: dict[str, Any], settings: Settings, resume: Resume) -> PreparedRun:
    """Have the run's directory, what its earlier sessions have left, and a queue. Not on the user's thread: a disk may hang, and Ctrl-C come.

    Raises:
        AsynctrackError: see `init`.
    """
    path = Path(os.path.realpath(place))
    run_lock, is_new = _take_run_lock(path, manifest.id, resume)
    try:
        if is_new:
            announce(path, start)
        first = None if is_new else _resume(path, manifest, start, settings.worker, resume)
        publisher = Publisher(manifest.id, path, settings, first=first or 0)
        return PreparedRun(path, is_new, first is not None, run_lock, publisher)
    except BaseException:
        _let_go(path, is_new, run_lock)
        raise


def take_back(ready: PreparedRun) -> None:
    """Undo what `prepare` has made, but for a run that a worker may know of: it has failed."""
    unknown = False
    try:
        unknown = ready.publisher.abandon()
    finally:
        _let_go(ready.path, ready.is_new and unknown, ready.run_lock)


def _let_go(path: Path, remove: bool, run_lock: RunLock) -> None:
    if remove:  # if there is nothing else in it, nothing has begun
        _remove_run_directory(path)
    run_lock.release()


def _take_run_lock(path: Path, run_id: str, resume: Resume) -> tuple[RunLock, bool]:
    """Take the run for this process alone; whether it is a new one.

    Raises:
        RunExists: it is there, and is not to be resumed.
        NotARun: it is not there, and is not to be begun.
        RunIsRunning: a process has it open.
    """
    deadline = time.monotonic() + _MAKE_AGAIN_S
    while time.monotonic() < deadline:
        is_new = _find_or_make(path, run_id, resume)
        if is_new is None:
            continue
        try:
            return run_locks.take(path), is_new
        except Held as held:
            if is_new and resume == "never":  # another was faster, in the moment between
                raise RunExists(run_id, path.parent) from None
            raise RunIsRunning(run_id, path, held.pid) from None
        except FileNotFoundError:  # another has made it, found that it cannot begin or was interrupted, and removed it
            continue
        except OSError as error:
            if is_new:
                _remove_run_directory(path)
            raise DirectoryNotWritable(path, error) from error
    raise DirectoryNotWritable(path, FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))


def _find_or_make(path: Path, run_id: str, resume: Resume) -> bool | None:
    """Return True if the run's directory is a new one; None where another process has removed it in the moment between."""
    if resume != "never" and os.path.isdir(path):
        return False
    if resume == "must":
        raise NotARun(path, "; resume='allow' begins a new run there")
    try:
        return _make_run_directory(path, run_id) or None
    except RunExists:
        if resume == "never":
            raise
        return False  # another process has made it just now


def _resume(path: Path, manifest: Manifest, start: dict[str, Any], kind: WorkerKind, resume: Resume) -> int | None:
    """Take over what the run was; returns the number of its next record, None where there is nothing of it.

    Raises:
        NotARun: there is nothing of a run, and none is to be begun.
        RunIsRunning: somebody logs to it, or its worker does not come to its end.
        UnsupportedVersion: a newer asynctrack wrote it.
    """
    _earlier(path, [])  # one that will be refused is so before anything is made for it
    host = worker_registry.host_for(kind)
    deadline = time.monotonic() + _END_WAIT_S
    while True:
        first, queued = host.take_over(path)
        earlier = _earlier(path, queued)
        if not _is_busy(path, earlier):
            break
        if time.monotonic() > deadline or is_open(path):
            raise RunIsRunning(manifest.id, path, None if is_open(path) else 0)
        time.sleep(0.02)
    if earlier is None:
        if resume == "must":
            raise NotARun(path)
        announce(path, start)
        return None
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
    from asynctrack.reading.reader import RunReader  # most runs are new

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
        found.status = status  # a queue of the dead does not make it run
    return found


def _is_busy(path: Path, earlier: Manifest | None) -> bool:
    """Return True if a process logs to the run, or the worker of a caller that has just died has still to say how it ended."""
    if is_open(path):
        return True
    queues = [queue for worker in run_state.other_workers() for queue in worker.queues if queue.run == str(path)]
    if any(queue.caller_lives and queue.end == "open" for queue in queues) or any(queue.used for queue in queues):
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
