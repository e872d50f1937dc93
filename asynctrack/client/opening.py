"""Opening: from the arguments of `init` to an open run. Runs in the caller."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final, Literal, TypedDict, Unpack, cast, get_args

import msgspec

from asynctrack._system import messages, private
from asynctrack._system.disk_timeout import InterruptibleCall
from asynctrack._system.masking import mask_arguments
from asynctrack._system.native_threads import replaced_by
from asynctrack._system.printable import printable
from asynctrack._system.spawn import why_not
from asynctrack.backends.base import Backend
from asynctrack.backends.registry import name_backends, stored
from asynctrack.client import banner
from asynctrack.client.config_sources import as_config
from asynctrack.client.current import current
from asynctrack.client.default_backends import default_backends
from asynctrack.client.disabled_run import DisabledRun
from asynctrack.client.labels import LABELS, as_labels, as_text
from asynctrack.client.open_runs import open_runs
from asynctrack.client.preflight import forewarn
from asynctrack.client.preparation import prepare, take_back
from asynctrack.client.run import Run
from asynctrack.client.session import RunSession
from asynctrack.client.worker_handle import hold_streams
from asynctrack.errors import InvalidSettings
from asynctrack.journal.manifest import Manifest, as_started, now_iso
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
        InvalidSettings: a setting is out of range; all of them are named. Or a label or the name is no text.
        InvalidRunId: project or id cannot be a directory's name.
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
    _check_words(resume, reinit)
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
        return _open_disabled(place, manifest, named, cell)
    settings = _with_a_worker(settings)
    return _open(place, manifest, settings, named, resume, cell, quiet=quiet)


def _check_words(resume: Resume, reinit: Reinit) -> None:
    """
    Raises:
        InvalidSettings: one of them is none of its words.
    """
    for what, word, words in (("resume", resume, get_args(Resume)), ("reinit", reinit, get_args(Reinit))):
        if word not in words:
            raise InvalidSettings([f"{what} must be one of {', '.join(map(repr, words))}; got {word!r:.80}"])


def _with_a_worker(settings: Settings) -> Settings:
    """The same, with a worker that this process can have.

    Raises:
        InvalidSettings: threads are asked for, and another library has put its own in their place.
    """
    if settings.worker == "thread" and (library := replaced_by()):
        raise InvalidSettings([_no_threads(library)])
    if settings.worker == "process" and (why := why_not()):
        messages.warn_now(f"asynctrack: no worker process can be started here ({why}); worker='thread' is used")
        return msgspec.structs.replace(settings, worker="thread")
    return settings


def _open_disabled(place: Path, manifest: Manifest, named: dict[str, Backend], cell: int | None) -> Run:
    run = DisabledRun(manifest, Path(os.path.abspath(place)), named)
    run.cell = cell
    open_runs.enter(run)
    return run


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
    call = InterruptibleCall(lambda: prepare(place, manifest, start, settings, resume), place, take_back)
    session: RunSession | None = None
    run: Run | None = None
    try:
        ready = call.wait()
        session = RunSession(ready.path, settings, named, publisher=ready.publisher, run_lock=ready.run_lock)
        session.open(manifest)
        run = Run(manifest, ready.path, session, resumed=ready.resumed)
        forewarn(ready.path, named, offline=settings.mode == "offline")
        run.cell = cell
        open_runs.enter(run)
        if not quiet:
            banner.show_banner(f"{run.project}/{run.id}", ready.path)
        return run
    except BaseException:
        if session is not None:
            session.give_up()
        if run is not None:
            open_runs.leave(run)
        call.drop()
        raise


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
    if settings.get("name") is not None:
        as_text("name", settings["name"])
    _check_words("never", settings.get("reinit", "default"))
    rest = {
        key: value
        for key, value in settings.items()
        if key not in ("backends", "name", "settings", "reinit", "quiet", *LABELS)
        and not (key == "dir" and value is None)
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


def _no_threads(library: str) -> str:
    return (
        f"worker='thread' needs threads that run beside the loop, and {library} has put its own in their place, which wait until the loop lets "
        "them run: use worker='process', the default"
    )
