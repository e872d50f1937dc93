"""Opening: from the arguments of `init` to an open run. Runs in the caller."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final, Literal, get_args

import msgspec

from asynctrack._system import messages, private, suggestions
from asynctrack._system.disk_timeout import InterruptibleCall
from asynctrack._system.masking import mask_arguments
from asynctrack._system.native_threads import replaced_by
from asynctrack._system.printable import printable
from asynctrack._system.spawn import why_not
from asynctrack._system.suggestions import suggests
from asynctrack.backends.base import Backend
from asynctrack.backends.registry import name_backends, stored
from asynctrack.client import banner
from asynctrack.client.config_sources import as_config
from asynctrack.client.current import current
from asynctrack.client.default_backends import default_backends
from asynctrack.client.disabled_run import DisabledRun
from asynctrack.client.environment import warn_of_unknown_variables
from asynctrack.client.handshake import hold_streams
from asynctrack.client.labels import LABELS, as_labels, as_text
from asynctrack.client.open_runs import open_runs
from asynctrack.client.preflight import forewarn
from asynctrack.client.preparation import prepare, take_back
from asynctrack.client.run import Run
from asynctrack.client.session import RunSession
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
# Of the arguments of `init` that are settings.
_DEFAULTS: Final[dict[str, Any]] = {**msgspec.structs.asdict(Settings()), "dir": None, "mode": None}
# Of its arguments that are checked elsewhere.
_NO_SETTINGS: Final = frozenset({"backends", "name", "settings", "reinit", "quiet", *LABELS})


@suggests
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
    exit_timeout_s: float = 5.0,
    linger_s: float = 0.1,
    sync_interval_s: float = 1.0,
    after_exit_max_s: float = 300.0,
    resume: Resume = "never",
    entity: str | None = None,
    group: str | None = None,
    job_type: str | None = None,
    tags: Sequence[str] | None = None,
    notes: str | None = None,
    reinit: Reinit = "default",
    settings: Settings | Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> Run:
    """Open a run and make it the current one.

    Returns within 25 ms: the worker starts in the background. If the disk of the run's directory hangs, the call waits for it and says so;
    Ctrl-C ends the wait.

    The run ends with `finish()`, at the end of its `with` block or with the process, whichever comes first. `open_run(...).status` then says how:

    - "finished": `finish()` was called, or the block or the process ended normally. A server that handles SIGTERM, cleans up and raises it
      again has finished too.
    - "failed": an exception ended the block or the process, `finish()` got an `exit_code` other than 0, or the process exited with one. The
      kernel reports exit codes since Linux 6.15; with an older one `sys.exit(3)` counts as "finished".
    - "preempted": `mark_preempted()` was called before the end.
    - "crashed": the process died without running its exit code: SIGKILL, a signal without a handler, `os._exit` or `exec`.

    An exception at an interactive prompt or in a notebook cell does not end the run.

    Args:
        project: The name of the group of runs that this one belongs to. Its runs are kept in one directory below `dir`. Default:
            "uncategorized".
        name: The name to show to people. Default: the id.
        id: The id, unique in the project. Default: the time and six random digits.
        config: The configuration to record: a mapping; a namespace; an instance of a dataclass or of a class made with attrs, pydantic or
            msgspec; absl's flags; or the path of a YAML, JSON or TOML file.
        dir: The directory of all projects. Default: "asynctrack_runs" in the current directory.
        backends: Where to send the records besides the journal: objects such as `JSONLines()`, or kinds such as "jsonl". Default: what
            `set_default_backends` has set, else what `ASYNCTRACK_BACKENDS` in the environment names, else `[JSONLines()]`.
        mode: "online"; "offline" keeps records from backends that need a network until `asynctrack sync` is run; "disabled" records nothing.
            Default: `ASYNCTRACK_MODE` in the environment, else "online".
        worker: "process" runs the worker in a process of its own, which outlives this one. "thread" runs it in a thread of this process.
        when_full: What to do when the queue is full: "drop_newest" drops the record and counts it, "block" waits up to `max_block_s`,
            "raise" raises `QueueFull`.
        max_block_s: Seconds that `log()` waits for room when `when_full` is "block". Then the record is dropped and counted.
        queue_bytes: Bytes of shared memory between `log()` and the worker, rounded up to a power of two. Default: 4 MiB, less if memory is
            short.
        finish_timeout_s: Seconds that `finish()` waits for delivery. The worker delivers what is left after that.
        exit_timeout_s: Seconds that the exit of the process waits for delivery if `finish()` was not called.
        linger_s: Seconds that the worker sleeps between two looks at the queue. Records of this time are lost if the container dies.
        sync_interval_s: Seconds between two fsyncs of the journal. Records of this time are lost in a power cut.
        after_exit_max_s: Seconds that the worker goes on delivering after the process has ended. `asynctrack sync` delivers the rest.
        resume: What to do if the project has a run with this id: "never" raises `RunExists`, "allow" continues it, "must" continues it and
            raises `NotARun` if there is none. A run that is continued keeps its journal, its config and its step counter.
        entity: The user or team that backends show as the owner.
        group: The name of the group that backends show the run in.
        job_type: The kind of work the run does, such as "train".
        tags: Words to find the run by.
        notes: A longer text about the run.
        reinit: What to do with a run that is open already: "finish_previous" finishes it, "return_previous" returns it and opens no other,
            "create_new" keeps both open. "default" keeps both open too, but in a notebook it finishes the runs that other cells have opened.
        settings: Values for the arguments from `dir` to `after_exit_max_s`, as `asynctrack.Settings` or a mapping. An argument that is given here
            and is not the default has precedence.
        quiet: True to not print the line that says where the run is kept. It is printed on terminals and in notebooks only.

    Returns:
        The open run.

    Raises:
        InvalidSettings: A setting, a label or a backend cannot be used. The message names every setting that is wrong.
        InvalidProject: The project is not a line of text, or it holds a path.
        InvalidRunId: The id cannot be the name of a directory.
        InvalidConfig: A config cannot be made of what was given.
        RunExists: The project has a run with this id, and `resume` is "never".
        NotARun: The project has no run with this id, and `resume` is "must".
        RunIsRunning: The run to continue is open in another process.
        UnsupportedVersion: The run to continue was written by a newer asynctrack.
        DirectoryNotWritable: The run's directory cannot be created.
        SharedMemoryUnavailable: The queue does not fit into shared memory.
        FrameTooLarge: The config does not fit into the queue.
    """
    before = current()
    if before is not None and reinit == "return_previous":
        return before
    given: dict[str, Any] = {
        "dir": dir, "mode": mode, "worker": worker, "when_full": when_full, "max_block_s": max_block_s,
        "queue_bytes": queue_bytes, "finish_timeout_s": finish_timeout_s, "exit_timeout_s": exit_timeout_s, "linger_s": linger_s,
        "sync_interval_s": sync_interval_s, "after_exit_max_s": after_exit_max_s,
    }  # fmt: skip
    chosen = {name: value for name, value in given.items() if not _is_default(name, value)}
    settings = Settings.build({**_changed(settings), **chosen})
    project = check_project(DEFAULT_PROJECT if project is None else project)
    labels = as_labels({"entity": entity, "group": group, "job_type": job_type, "notes": notes, "tags": tags})
    config = as_config(config)
    if name is not None:
        as_text("name", name)
    run_id = check_name("id", id) if id is not None else fresh_id()
    _check_words(resume, reinit)
    if resume == "must" and id is None:
        raise InvalidSettings(["resume='must' needs id=, the id of the run to resume: without id= a new run is opened"])
    named = name_backends(default_backends() if backends is None else backends)
    if settings.mode != "disabled":
        named = {name: backend.prepare() for name, backend in named.items()}
    if before is not None and reinit == "finish_previous":
        before.finish()
    warn_of_unknown_variables()
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
    """Check the values of `resume` and `reinit`.

    Raises:
        InvalidSettings: one of them is not allowed.
    """
    for what, word, words in (("resume", resume, get_args(Resume)), ("reinit", reinit, get_args(Reinit))):
        if word not in words:
            raise InvalidSettings([f"{what} must be one of {', '.join(map(repr, words))}; got {word!r:.80}"])


def _with_a_worker(settings: Settings) -> Settings:
    """Return the settings with a worker that this process can have.

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
    """Tell whether the caller of `init` is an integration, which opens runs beside those of its user."""
    caller = frame.f_back if frame.f_globals["__name__"] == suggestions.__name__ else frame
    return caller is not None and str(caller.f_globals.get("__name__")).startswith("asynctrack.integrations.")


def _finish_earlier(cell: int) -> None:
    """Finish what other cells of a notebook have opened: a cell that runs again opens another, and nobody can reach the one before."""
    for run in open_runs.all():
        if run.cell not in (None, cell):
            messages.show(
                f"asynctrack: run {printable(run.id)} is finished, since another cell opens a run (reinit='create_new' keeps both open)"
            )
            run.finish()


def _changed(settings: Settings | Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the settings that differ from the defaults.

    Raises:
        InvalidSettings: they are neither `Settings` nor a mapping.
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
    """Tell whether an argument of `init` has its default, so that `settings` may say another value."""
    return name in _DEFAULTS and type(value) is type(_DEFAULTS[name]) and value == _DEFAULTS[name]


def fresh_id() -> str:
    """Make an id that sorts by time: UTC date and time, and six random hexadecimal digits."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.urandom(3).hex()}"


def check_settings(project: str, settings: Mapping[str, Any], config: object = None) -> None:
    """Refuse now what `init` would refuse later.

    Args:
        project: See `init`.
        settings: Other arguments of `init`.
        config: See `init`.

    Raises:
        InvalidSettings, InvalidProject, InvalidConfig: See `init`.
    """
    as_config(config)
    check_project(project)
    as_labels({name: settings.get(name) for name in LABELS})
    if settings.get("name") is not None:
        as_text("name", settings["name"])
    _check_words("never", settings.get("reinit", "default"))
    chosen = {
        name: value for name, value in settings.items() if name not in _NO_SETTINGS and not _is_default(name, value)
    }
    Settings.build({**_changed(settings.get("settings")), **chosen})
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
