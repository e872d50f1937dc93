"""Opening: from the arguments of `init` to an open run. Runs in the caller."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final, Literal, NamedTuple, TypedDict, Unpack, cast, get_args

import msgspec

from asynctrack._system import messages, permissions, private
from asynctrack._system.disk_timeout import Errand
from asynctrack._system.masking import mask_arguments
from asynctrack._system.native_threads import replaced_by
from asynctrack._system.printable import printable
from asynctrack._system.spawn import why_not
from asynctrack.backends.base import Backend
from asynctrack.backends.registry import name_backends, stored
from asynctrack.client import banner, run_state, worker_registry
from asynctrack.client import run_lock as run_locks
from asynctrack.client.config_sources import as_config
from asynctrack.client.context import open_runs
from asynctrack.client.current import current
from asynctrack.client.default_backends import default_backends
from asynctrack.client.disabled_run import DisabledRun
from asynctrack.client.labels import LABELS, as_labels, as_text
from asynctrack.client.preflight import forewarn
from asynctrack.client.publisher import Publisher
from asynctrack.client.run import Run
from asynctrack.client.run_lock import Held, RunLock
from asynctrack.client.session import RunSession
from asynctrack.client.shutdown import is_open
from asynctrack.client.worker_handle import hold_streams
from asynctrack.errors import DirectoryNotWritable, InvalidSettings, NotARun, RunExists, RunIsRunning
from asynctrack.journal.cursor import load_cursor
from asynctrack.journal.frames import walk
from asynctrack.journal.manifest import FILE_NAME, UNREADABLE, Manifest, announce, as_started, has_begun, now_iso
from asynctrack.journal.tally import Tally
from asynctrack.queue.layout import START
from asynctrack.records.codec import decode_as
from asynctrack.records.media_types import unicode
from asynctrack.settings import (
    Mode,
    Resume,
    Settings,
    WhenFull,
    WorkerKind,
    check_name,
    check_project,
    project_directory,
)

# How long a resumed run waits for the worker of its earlier sitting to note its end, which takes half a second.
_END_WAIT_S: Final = 5.0

# How often a run's directory is made that others remove at once. Arbitrary.
_MOST_TRIES: Final = 10
# What the paths of a run's own files add to that of its directory: `cursors/.NAME.json.new`. Arbitrary: more than any of ours.
_LONGEST_BELOW: Final = 200

# What a config is given as: a mapping, an object with fields, or the path of a file; see `asynctrack.client.config_sources`.
Config = Any
Reinit = Literal["default", "create_new", "finish_previous", "return_previous"]
# Of a run that was opened without one.
DEFAULT_PROJECT: Final = "uncategorized"


class RarerLimits(TypedDict, total=False):
    """The limits of `Settings` that `init` does not name."""

    exit_timeout_s: float
    linger_s: float
    sync_interval_s: float
    after_exit_max_s: float


def init(
    project: str | None = None,
    *,
    name: str | None = None,
    id: str | None = None,
    config: Config | None = None,
    dir: str | os.PathLike[str] | None = None,
    backends: Iterable[Backend | str] | None = None,
    mode: Mode | None = None,
    worker: WorkerKind = "process",
    when_full: WhenFull = "drop_newest",
    max_block_s: float = 5.0,
    queue_bytes: int | None = None,
    finish_timeout_s: float = 30.0,
    resume: Resume = "never",
    entity: str | None = None,
    group: str | None = None,
    job_type: str | None = None,
    tags: Sequence[str] | None = None,
    notes: str | None = None,
    reinit: Reinit = "default",
    settings: Settings | Mapping[str, Any] | None = None,
    quiet: bool = False,
    **limits: Unpack[RarerLimits],
) -> Run:
    """Open a run. Returns within 25 ms; the worker starts behind it. Where the run's disk hangs it waits until that answers, and says so; Ctrl-C ends the wait.

    It ends with `finish()`, with its `with` block or with the process, whichever comes first, and then has a status: "failed" when
    an exception ended the block or the process, "preempted" after `mark_preempted()`, "crashed" when the process died without a
    word (SIGKILL, a signal that nobody handles, `os._exit`, `exec`), else "finished". Where nothing was said before the process ended, an
    exit code other than 0 (`sys.exit(3)`) is a failure too, as far as the kernel tells (Linux 6.15, a worker that lives on); then `run.json` says
    "finished" until the process is gone. A server that handles SIGTERM and then raises it again has finished. What `finish()` or the
    `with` block has said stays. At a prompt and in a notebook an exception ends a line or a cell, not the run.

    Args:
        project: keeps runs of a kind together, in a directory below `dir` of its name; where that cannot be a directory's, of one like it. Default: "uncategorized".
        name: of the run, for people. Default: its id.
        id: of the run, unique in the project. Default: time and a random part.
        config: what the run is started with: a mapping, a namespace, an instance of a dataclass, of attrs, pydantic or msgspec, absl's flags,
            or the path of a YAML, JSON or TOML file.
        dir: where runs are kept. Default: "asynctrack_runs" in the current folder.
        backends: where records go besides the journal, as objects or kinds. Default: what `set_default_backends` has set, else the
            environment's `ASYNCTRACK_BACKENDS`, else `[JSONLines()]`.
        mode: "online", "offline" or "disabled". Default: the environment's `ASYNCTRACK_MODE`, else "online".
        worker: "process" or "thread".
        when_full: "drop_newest", "block" or "raise".
        max_block_s: with "block", seconds to wait for room.
        queue_bytes: shared memory between the loop and the worker.
        finish_timeout_s: seconds `finish()` waits for delivery.
        resume: what to do where there is a run with this id: "never" refuses, "allow" goes on with it or begins it, "must"
            refuses to begin it. A run that goes on has the same journal; automatic steps and config go on too.
        entity: whose the run is, where it is sent to.
        group: of runs that belong together.
        job_type: what the run does, such as "train".
        tags: for people.
        notes: for people.
        reinit: what becomes of the current run: "finish_previous" finishes it, "return_previous" returns it in place of a new one,
            "create_new" leaves both open. Default: both are open, but in a notebook runs that other cells have opened are finished.
        settings: `asynctrack.Settings`, or a mapping; what is given here beside them comes first.
        quiet: do not say where the run is, as is said on a terminal and in a notebook.
        limits: the rarer limits of `asynctrack.Settings`, which says for all of them what follows from their value.

    Raises:
        InvalidSettings: a setting is out of range; all of them are named.
        InvalidRunId: project, name or id cannot be a directory's name.
        InvalidConfig: config is none of these.
        RunExists: there is a run with this id.
        NotARun: there is none, with `resume="must"`.
        RunIsRunning: the run to resume is open in another process.
        UnsupportedVersion: the run to resume was written by a newer asynctrack.
        DirectoryNotWritable: the run's directory cannot be made.
        SharedMemoryUnavailable: there is no room for the queue.
    """
    before = current()
    if before is not None and reinit == "return_previous":
        return before
    given: dict[str, Any] = {
        "dir": dir, "mode": mode, "worker": worker, "when_full": when_full, "max_block_s": max_block_s,
        "queue_bytes": queue_bytes, "finish_timeout_s": finish_timeout_s,
    }  # fmt: skip
    # What has its default may have another value in `settings`.
    chosen = {name: value for name, value in given.items() if not _is_default(name, value)}
    given = {**_changed(settings), **cast("dict[str, Any]", limits), **chosen}
    settings = Settings.build(given)
    project = check_project(DEFAULT_PROJECT if project is None else project)
    labels = as_labels({"entity": entity, "group": group, "job_type": job_type, "notes": notes, "tags": tags})
    config = as_config(config)
    if name is not None:
        as_text("name", name)
    run_id = check_name("id", id) if id is not None else fresh_id()
    for what, word, words in (("resume", resume, get_args(Resume)), ("reinit", reinit, get_args(Reinit))):
        if word not in words:
            raise InvalidSettings([f"{what} must be one of {', '.join(map(repr, words))}; got {word!r:.80}"])
    named = name_backends(default_backends() if backends is None else backends)
    if settings.mode != "disabled":
        named = {name: backend.prepare() for name, backend in named.items()}
    if before is not None and reinit == "finish_previous":
        before.finish()
    cell = None if _is_ours(private.frame(1)) else banner.cell()
    if cell is not None and reinit == "default":
        _finish_earlier(cell)
    place = settings.dir / project_directory(project) / run_id
    manifest = _manifest(run_id, unicode(name or run_id), project, config, named, settings, labels)
    if settings.mode == "disabled":
        run: Run = DisabledRun(manifest, Path(os.path.abspath(place)), named)
        run.cell = cell
        open_runs.enter(run)
        return run
    if settings.worker == "thread" and (library := replaced_by()):
        raise InvalidSettings([_no_threads(library)])
    if settings.worker == "process" and (why := why_not()):
        messages.say(f"asynctrack: no worker process can be started here ({why}); worker='thread' is used")
        settings = Settings.build({**given, "worker": "thread"})
    return _open(place, manifest, settings, named, resume, cell, quiet=quiet)


def _open(
    place: Path,
    manifest: Manifest,
    settings: Settings,
    named: dict[str, Backend],
    resume: Resume,
    cell: int | None,
    *,
    quiet: bool,
) -> Run:
    """Open a run, or leave nothing of it: Ctrl-C may come at any moment."""
    hold_streams()
    start = as_started(manifest)
    errand = Errand(lambda: _prepare(place, manifest, start, settings, resume), place, _take_back)
    session: RunSession | None = None
    run: Run | None = None
    try:
        ready = errand.wait()
        session = RunSession(ready.path, settings, named, publisher=ready.publisher, run_lock=ready.run_lock)
        session.open(manifest)
        run = Run(manifest, ready.path, session, resumed=ready.resumed)
        forewarn(ready.path, named, offline=settings.mode == "offline")
        run.cell = cell
        open_runs.enter(run)
        if not quiet:
            banner.greet(f"{run.project}/{run.id}", ready.path)
        return run
    except BaseException:
        if session is not None:
            session.give_up()
        if run is not None:
            open_runs.leave(run)
        errand.drop()
        raise


class _Ready(NamedTuple):
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


def _prepare(place: Path, manifest: Manifest, start: dict[str, Any], settings: Settings, resume: Resume) -> _Ready:
    """Have the run's directory, what its earlier sittings have left, and a queue. Not on the user's thread: a disk may hang, and Ctrl-C come.

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
        return _Ready(path, is_new, first is not None, run_lock, publisher)
    except BaseException:
        _let_go(path, is_new, run_lock)
        raise


def _take_back(ready: _Ready) -> None:
    unknown = False
    try:
        unknown = ready.publisher.abandon()
    finally:
        _let_go(ready.path, ready.is_new and unknown, ready.run_lock)


def _let_go(path: Path, remove: bool, run_lock: RunLock) -> None:
    if remove:  # if there is nothing else in it, nothing has begun
        _remove_run_directory(path)
    run_lock.release()


def _is_ours(frame: FrameType) -> bool:
    """Whether a frame is of an integration, which opens runs beside those of its user."""
    return str(frame.f_globals.get("__name__")).startswith("asynctrack.integrations.")


def _finish_earlier(cell: int) -> None:
    """Finish what other cells of a notebook have opened: a cell that runs again opens another, and nobody can reach the one before."""
    for run in open_runs.all():
        if run.cell not in (None, cell):
            messages.show(
                f"asynctrack: run {printable(run.id)} is finished, since another cell opens a run (reinit='create_new' keeps both open)"
            )
            run.finish()


def _changed(settings: Settings | Mapping[str, Any] | None) -> dict[str, Any]:
    """What differs from the defaults in settings that were made before.

    Raises:
        InvalidSettings: they are none.
    """
    if settings is None:
        return {}
    if isinstance(settings, Mapping):
        return {str(name): value for name, value in settings.items()}
    if not isinstance(settings, Settings):
        raise InvalidSettings([f"settings must be of `asynctrack.Settings`, or a mapping; got {settings!r:.80}"])
    defaults = Settings()
    found = msgspec.structs.asdict(settings).items()
    return {name: value for name, value in found if value != getattr(defaults, name)}


def _is_default(name: str, value: object) -> bool:
    default = (init.__kwdefaults__ or {})[name]
    return type(value) is type(default) and value == default


def fresh_id() -> str:
    """An id that sorts by time: UTC date and time, and six random hexadecimal digits."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.urandom(3).hex()}"


def check_settings(project: str, settings: Mapping[str, Any], config: object = None) -> None:
    """Refuse now what `init` would refuse later."""
    as_config(config)
    check_project(project)
    as_labels({name: settings.get(name) for name in LABELS})
    rest = {
        key: value
        for key, value in settings.items()
        if key not in ("backends", "name", "settings", "reinit", "quiet", *LABELS)
    }
    Settings.build({**_changed(settings.get("settings")), **rest})
    backends = settings.get("backends")
    name_backends(default_backends() if backends is None else backends)


def _manifest(
    run_id: str,
    name: str,
    project: str,
    config: Mapping[str, Any],
    backends: dict[str, Backend],
    settings: Settings,
    labels: dict[str, Any],
) -> Manifest:
    return Manifest(
        id=run_id,
        name=name,
        project=project,
        created_at=now_iso(),
        config=dict(config),
        labels=labels,
        backends={name: stored(backend, run_id, name) for name, backend in backends.items()},
        offline=settings.mode == "offline",
        environment={
            "python": ".".join(map(str, sys.version_info[:3])),
            "host": os.uname().nodename,
            "pid": os.getpid(),
            "command": mask_arguments(sys.argv[:50]),
            "opened_at": now_iso(),
        },
        limits={"after_exit_max_s": settings.after_exit_max_s},
    )


def _take_run_lock(path: Path, run_id: str, resume: Resume) -> tuple[RunLock, bool]:
    """Take the run for this process alone; whether it is a new one.

    Raises:
        RunExists: it is there, and is not to be resumed.
        NotARun: it is not there, and is not to be begun.
        RunIsRunning: a process has it open.
    """
    for _ in range(_MOST_TRIES):
        is_new = _find_or_make(path, run_id, resume)
        try:
            return run_locks.take(path), is_new
        except Held as held:
            if is_new and resume == "never":  # another was faster, in the moment between
                raise RunExists(run_id, path.parent) from None
            raise RunIsRunning(run_id, path, held.pid) from None
        except FileNotFoundError:  # another has made it, found that it cannot begin, and removed it
            continue
        except OSError as error:
            if is_new:
                _remove_run_directory(path)
            raise DirectoryNotWritable(path, error) from error
    raise DirectoryNotWritable(path, FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))


def _find_or_make(path: Path, run_id: str, resume: Resume) -> bool:
    if resume != "never" and os.path.isdir(path):
        return False
    if resume == "must":
        raise NotARun(path, "; with resume='allow' it is begun")
    try:
        _make_run_directory(path, run_id)
    except RunExists:
        if resume == "never":
            raise
        return False  # another process has made it just now
    return True


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
    """What the run was: as the journal has it, and behind that the queues of its dead; None where there is nothing."""
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
    """Whether the worker of a caller that has just died is still to say so, or somebody logs to the run."""
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


def _make_run_directory(path: Path, run_id: str) -> None:
    try:
        if len(os.fsencode(path)) + _LONGEST_BELOW > os.pathconf("/", "PC_PATH_MAX"):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        os.makedirs(path.parent, exist_ok=True)
        os.mkdir(path, permissions.DIRECTORY)
    except FileExistsError as error:
        if path.is_dir():
            raise RunExists(run_id, path.parent) from None
        raise DirectoryNotWritable(path, error) from error
    except OSError as error:
        raise DirectoryNotWritable(path, error) from error


def _no_threads(library: str) -> str:
    return (
        f"worker='thread' needs threads that run beside the loop, and {library} has put its own in their place, which wait until the loop lets "
        "them run: use worker='process', the default"
    )
