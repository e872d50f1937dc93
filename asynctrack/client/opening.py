"""Opening: from the arguments of `init` to an open run. Runs in the caller."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from asynctrack._system import messages, private, suggestions
from asynctrack._system.masking import mask_arguments
from asynctrack._system.printable import printable
from asynctrack._system.suggestions import suggests
from asynctrack.backends.base import Backend
from asynctrack.backends.registry import name_backends, stored
from asynctrack.client import banner
from asynctrack.client.config_sources import as_config
from asynctrack.client.current import current
from asynctrack.client.default_backends import default_backends, has_chosen_backends
from asynctrack.client.disabled_run import DisabledRun
from asynctrack.client.entering import enter
from asynctrack.client.environment import warn_of_unknown_variables
from asynctrack.client.init_arguments import (
    DEFAULT_PROJECT,
    Config,
    Reinit,
    check_join,
    check_words,
    merge,
    with_a_worker,
)
from asynctrack.client.job_id import given_id, shared_id
from asynctrack.client.labels import as_labels, as_text
from asynctrack.client.open_runs import open_runs
from asynctrack.client.pickling import register
from asynctrack.client.preflight import forewarn
from asynctrack.client.preparation import PreparedRun, prepare
from asynctrack.client.program import program
from asynctrack.client.run import Run
from asynctrack.client.writer import Joining, one_of_several
from asynctrack.errors import InvalidSettings
from asynctrack.journal.manifest import Manifest, as_started, now_iso
from asynctrack.queue.layout import START
from asynctrack.records.media_types import unicode
from asynctrack.settings import Mode, Resume, Settings, WhenFull, WorkerKind, check_project, project_directory

if TYPE_CHECKING:
    from asynctrack.client.collecting import Collecting


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
    straggler_s: float = 30.0,
    environment: bool | None = None,
    diff: bool | None = None,
    resume: Resume = "never",
    join: bool = False,
    writer: str | None = None,
    expected: int | None = None,
    collect: str | os.PathLike[str] | None = None,
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
        id: The id, unique in the project. Default: `ASYNCTRACK_RUN_ID` in the environment; else, with `join`, the id of the job that Slurm,
            torchrun, Ray, PBS or LSF has given; else the time and six random digits.
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
        queue_bytes: Bytes of shared memory between `log()` and the worker, rounded up to a power of two. Default: 16 MiB, less beside many
            open runs or if memory is short.
        finish_timeout_s: Seconds that `finish()` waits for delivery. The worker delivers what is left after that.
        exit_timeout_s: Seconds that the exit of the process waits for delivery if `finish()` was not called.
        linger_s: Seconds that the worker sleeps between two looks at the queue. Records of this time are lost if the container dies.
        sync_interval_s: Seconds between two fsyncs of the journal. Records of this time are lost in a power cut.
        after_exit_max_s: Seconds that the worker goes on delivering after the process has ended. `asynctrack sync` delivers the rest.
        straggler_s: Seconds after which the run ends once this process has, while others that write to it live and log nothing, as the idle workers of a
            pool. What one of them logs later reopens the run.
        environment: Whether it is kept where the run comes from, in `environment.json` beside its journal: commit, script, arguments, packages, machine. A
            process of low priority finds it out, and nothing waits for it. Default: what `ASYNCTRACK_ENVIRONMENT` in the environment says, else True.
        diff: Whether the changes that git has not committed are kept with it, in `uncommitted.diff`, of 1 MiB at most. Default: as for `environment`;
            `ASYNCTRACK_ENVIRONMENT=nodiff` says False.
        resume: What to do if the project has a run with this id: "never" raises `RunExists`, "allow" continues it, "must" continues it and
            raises `NotARun` if there is none. A run that is continued keeps its journal, its config and its step counter.
        join: True where several processes of one machine call this for one run, in any order: the first opens it, and all others join, as `attach` does.
            Of those that join, `backends` and labels do not count, and of `config` what the run does not have.
        writer: The label of this process among several: see `attach`.
        expected: How many processes write to the run in all. Default: `WORLD_SIZE` in the environment.
        collect: What merges the parts of a run that several machines record. A folder that they share, for `asynctrack collect`: this machine's part is
            kept in `collect/project/id@host`, and `backends` are those of the merged run. Or the address of `asynctrack serve`, such as
            "http://node-1:4380": the part is kept in `dir/project/id@host` and sent there, and the server has the backends. Either way the processes of
            a machine join as with `join`. Default: `ASYNCTRACK_COLLECT` in the environment; where that says nothing, or with "", the run is one
            machine's alone. `ASYNCTRACK_HOST` names the host.
        entity: The user or team that backends show as the owner.
        group: The name of the group that backends show the run in.
        job_type: The kind of work the run does, such as "train".
        tags: Words to find the run by.
        notes: A longer text about the run.
        reinit: What to do with a run that is open already: "finish_previous" finishes it, "return_previous" returns it and opens no other,
            "create_new" keeps both open. "default" keeps both open too, but in a notebook it finishes the runs that other cells have opened.
        settings: Values for the arguments from `dir` to `diff`, as `asynctrack.Settings` or a mapping. An argument
            that is given here and is not the default has precedence.
        quiet: True to not print the line that says where the run is kept. It is printed on terminals and in notebooks only.

    Returns:
        The open run.

    Raises:
        InvalidSettings: A setting, a label or a backend cannot be used. The message names every setting that is wrong.
        InvalidProject: The project is not a line of text, or it holds a path.
        InvalidRunId: The id cannot be the name of a directory.
        InvalidConfig: A config cannot be made of what was given.
        RunExists: The project has a run with this id that has ended, `resume` is "never", and `join` is not given.
        NotARun: The project has no run with this id, and `resume` is "must".
        RunIsRunning: A process has the run open, and `join` is not given.
        RunElsewhere: The run to join is open in a container or on a machine whose queues are out of reach.
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
        "sync_interval_s": sync_interval_s, "after_exit_max_s": after_exit_max_s, "straggler_s": straggler_s,
        "environment": environment, "diff": diff,
    }  # fmt: skip
    settings = merge(settings, given)
    project = check_project(DEFAULT_PROJECT if project is None else project)
    labels = as_labels({"entity": entity, "group": group, "job_type": job_type, "notes": notes, "tags": tags})
    config = as_config(config)
    if name is not None:
        as_text("name", name)
    check_join(join)
    collected = None if settings.mode == "disabled" else _collecting(collect)
    join = join or collected is not None
    shared = shared_id(id) if join else given_id(id)
    check_words(resume, reinit)
    if resume == "must" and shared is None:
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
    run_id = shared or fresh_id()
    place = _place(settings.dir, project_directory(project), run_id, collected)
    me = one_of_several(writer, expected, config, {} if settings.mode == "disabled" else named, joins=join)
    of_merged: dict[str, Backend] = {}
    elsewhere: list[str] = []
    if collected is not None:
        named, of_merged = collected.split(named)
        if collected.by_server and (backends is not None or has_chosen_backends()):
            elsewhere = list(of_merged)
    manifest = _manifest(run_id, unicode(name or run_id), project, config, named, settings, labels, me)
    manifest.backends_when_merged = {name: stored(backend, run_id, name) for name, backend in of_merged.items()}
    if settings.mode == "disabled":
        return _open_disabled(place, manifest, named, cell)
    settings = with_a_worker(settings)
    if me is None or not join:
        return _open(place, manifest, settings, named, resume, cell, me, quiet=quiet)
    from asynctrack.client.joining import open_or_join  # rarely needed

    def open_run() -> Run:
        return _open(place, manifest, settings, named, resume, cell, me, quiet=quiet, joins=True, elsewhere=elsewhere)

    return open_or_join(place, me, settings, open_run)


def _collecting(collect: str | os.PathLike[str] | None) -> Collecting | None:
    """Return where this host's part of a run that is merged goes; None where the run is one machine's alone."""
    given = collect if collect is not None else os.environ.get("ASYNCTRACK_COLLECT")
    if given is None or given == "":
        return None
    from asynctrack.client.collecting import collecting  # rarely needed

    return collecting(given)


def _place(directory: Path, project: str, run_id: str, collected: Collecting | None) -> Path:
    return directory / project / run_id if collected is None else collected.place(directory, project, run_id)


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
    me: Joining | None,
    *,
    quiet: bool,
    joins: bool = False,
    elsewhere: Sequence[str] = (),
) -> Run:
    start = as_started(manifest)

    def welcome(run: Run, ready: PreparedRun) -> None:
        if ready.kind == START:
            forewarn(ready.path, named, offline=settings.mode == "offline", elsewhere=elsewhere)
        run.cell = cell
        if not quiet:
            banner.show_banner(f"{run.project}/{run.id}", ready.path)

    return enter(lambda: prepare(place, manifest, start, settings, resume, me, joins=joins), place, named, welcome)


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


def fresh_id() -> str:
    """Make an id that sorts by time: UTC date and time, and six random hexadecimal digits."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.urandom(3).hex()}"


def _manifest(
    run_id: str,
    name: str,
    project: str,
    config: Mapping[str, Any],
    backends: dict[str, Backend],
    settings: Settings,
    labels: dict[str, Any],
    me: Joining | None,
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
            **(program() if settings.environment else {}),
            **({} if me is None else me.environment()),
        },
        limits={
            "after_exit_max_s": settings.after_exit_max_s,
            **({"environment": 1.0, "diff": float(settings.diff)} if settings.environment else {}),
        },
    )


register()
