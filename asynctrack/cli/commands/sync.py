"""`asynctrack sync`: journals what ended processes left in their queues, and delivers what is behind, or to one more backend."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import re
import shlex
import sys
import time
import zlib
from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path
from typing import Any, Final

import msgspec

from asynctrack._system import locks
from asynctrack._system.paths import expanded
from asynctrack._system.printable import printable
from asynctrack._system.suggestions import hint
from asynctrack._system.wording import counted
from asynctrack._system.wrong_types import explain
from asynctrack.backends.base import Backend, kind_of
from asynctrack.backends.registry import class_of, unusable
from asynctrack.backends.stored_settings import lives_in_caller
from asynctrack.carriers.parts import host_name, is_of_another_host
from asynctrack.cli import options, output
from asynctrack.cli.output import Output, Styled, TableColumn
from asynctrack.cli.sync_job import NO_PROGRESS, PATIENCE_S, AttachJob, SyncJob, SyncProgress
from asynctrack.cli.sync_plan import SyncPlan, has_all, orphaned, plan_sync
from asynctrack.client import run_state
from asynctrack.delivery.progress import forget
from asynctrack.errors import (
    AsynctrackError,
    BackendUnavailable,
    InvalidSettings,
    MergedElsewhere,
    MergeUnfinished,
    NotARun,
)
from asynctrack.journal import manifest as manifests
from asynctrack.merging.host_places import FILE_NAME as MERGED
from asynctrack.reading import catalog
from asynctrack.reading.reader import RunReader
from asynctrack.worker.policy import Policy
from asynctrack.worker.run_claim import LOCK_NAME

_POLL_S: Final = 0.1
# Parts of other hosts that are named in a line. Arbitrary.
_NAMED: Final = 3
# Between two lines of progress where they cannot be drawn over each other.
_LINE_S: Final = 5.0
# Settings of every backend that change when it gets a record, and not where that goes.
_SAME_PLACE: Final = frozenset({"max_records_s", "stall_timeout_s"})
_STYLES: Final = {"done": "green", "behind": "bold red", "live": "yellow"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `main` to `parser`."""
    parser.add_argument(
        "runs", nargs="*", metavar="RUN|DIR", help="runs, or directories with runs (default: that of --dir)"
    )
    options.add_dir(parser)
    parser.add_argument(
        "--to",
        nargs="+",
        metavar=("KIND", "KEY=VALUE"),
        help="deliver the whole run, even a live one, to one more backend; put RUN before --to",
    )
    parser.add_argument(
        "--as",
        dest="name",
        metavar="NAME",
        help="with --to: deliver as the run's backend NAME, one that ran in the process that logged (default: that of the same class, else a new one)",
    )
    parser.add_argument(
        "--again",
        action="store_true",
        help="with --to: begin with the first record, since what was delivered has been removed there",
    )
    parser.add_argument("--follow", action="store_true", help="with --to: keep delivering until the run has ended")
    parser.add_argument(
        "--trust",
        action="store_true",
        help="use the addresses, files and code that a run.json from elsewhere names; only for runs that you trust",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="deliver a copy of a run, even though records that its original delivered then appear twice",
    )
    parser.add_argument(
        "--patience-s",
        type=options.seconds,
        default=PATIENCE_S,
        metavar="T",
        help="give up a run that makes no progress for T seconds (default: %(default)s)",
    )
    options.add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Catch up. Return 0 if nothing is missing."""
    for option, given in (("--as", args.name is not None), ("--again", args.again), ("--follow", args.follow)):
        if given and not args.to:
            raise InvalidSettings([f"{option} needs --to: asynctrack sync RUN --to KIND key=value {option}"])
    with _only_errors():  # the report has the errors of backends
        report, complete, unread, others = _attach(args) if args.to else _catch_up(args)
    if args.json:
        output.print_json({"complete": complete, "unreadable": unread, "runs": msgspec.to_builtins(report)})
    else:
        _print(report, complete)
        if not (complete or report or unread):
            Output().line("no runs of this host there" if others else "no runs there")
    return 0 if not unread and all(run.state in ("done", "live") and not run.missing for run in report) else 1


@contextlib.contextmanager
def _only_errors() -> Iterator[None]:
    """Hide warnings for a while; afterwards the process may have runs of its own to warn of."""
    logger = logging.getLogger("asynctrack")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _catch_up(args: argparse.Namespace) -> tuple[list[SyncProgress], int, list[str], list[Path]]:
    """Deliver what is behind. Return the outcome for each run, how many runs lacked nothing, those that cannot be read, and parts of other hosts."""
    unread: list[str] = []
    policy = Policy(offline_too=True, trust=args.trust, force=args.force)
    others: list[Path] = []
    runs = list(dict.fromkeys(_chosen(args, unread, others)))
    orphans = set(orphaned())
    plans = {run: found for run in runs if (found := _plan(run, policy, orphans, unread)) is not None}
    _tell_of_others(others, policy, orphans)
    todo = [run for run, found in plans.items() if found.todo or found.left_out]
    report: list[SyncProgress] = []
    if todo:
        with SyncJob(todo, policy, args.patience_s) as work:
            report = _work(work, args)
    return report, len(plans) - len(todo), unread, others


def _attach(args: argparse.Namespace) -> tuple[list[SyncProgress], int, list[str], list[Path]]:
    """Deliver runs to the backend that `--to` describes.

    Raises:
        BackendUnavailable: a library or a key is missing.
    """
    if not args.runs:
        raise InvalidSettings(["--to needs a RUN: asynctrack sync RUN --to KIND key=value"])
    report: list[SyncProgress] = []
    backend = _backend(args.to)
    if lacking := backend.lacking():  # it would be the same for each run
        raise BackendUnavailable(args.to[0], "; ".join(lacking))
    for run in dict.fromkeys(_chosen(args, [], [])):
        name = _name(run, backend, args.to, args.name)
        if args.again and not forget(run, name):
            raise BackendUnavailable(name, f"another process delivers {run} to it; repeat --again when that has ended")
        with AttachJob(run, name, backend, force=args.force, follow=args.follow, patience_s=args.patience_s) as work:
            report += _work(work, args)
    return report, 0, [], []


def _chosen(args: argparse.Namespace, gone: list[str], others: list[Path]) -> Iterator[Path]:
    """Yield the chosen runs, also those that are left only as a queue. One whose directory is missing is reported, and added to `gone`; parts of other hosts that nobody named are added to `others`."""
    for wanted in args.runs or [args.dir]:
        path = expanded(wanted)
        left = [] if args.to else orphaned(path if args.runs else None)
        if left or (path.is_dir() and not catalog.is_run(path)):
            runs = list(catalog.runs_under(path))
            others += (run for run in runs if is_of_another_host(run))
            yield from (run.resolve() for run in catalog.newest_first(set(runs).difference(others)))
            yield from _still_there(left, gone)
        elif args.runs:
            yield catalog.find(wanted, args.dir).resolve()


def _still_there(left: list[Path], gone: list[str]) -> Iterator[Path]:
    for run in left:
        if run.is_dir():
            yield run
        else:
            output.warn(
                f"{run} does not exist any more, but a queue still holds records of it that are not journaled: move it back and sync again; "
                "otherwise the next run that starts removes the queue"
            )
            gone.append(str(run))


def _tell_of_others(others: list[Path], policy: Policy, orphans: set[Path]) -> None:
    """Say which parts of other hosts lack something: they are left alone, since their machines may be at them."""
    lacking = []
    for run in others:
        with contextlib.suppress(AsynctrackError, OSError):
            found = plan_sync(run, policy, orphans)
            if (found.todo or found.left_out) and run.resolve() not in orphans:
                lacking.append(run)
    if lacking:
        named = ", ".join(map(str, lacking[:_NAMED])) + (
            f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else ""
        )
        output.warn(
            f"{counted(len(lacking), 'part of another host is', 'parts of other hosts are')} left alone, and not complete: {named}; "
            f"this host is {host_name()}. Sync them on their machines; where one of them is this machine, give that part itself, or set ASYNCTRACK_HOST"
        )


def _plan(run: Path, policy: Policy, orphans: set[Path], unread: list[str]) -> SyncPlan | None:
    """Plan the work for a run. One that cannot be read is reported, and added to `unread`."""
    try:
        _check_merged(run)
        return plan_sync(run, policy, orphans)
    except (AsynctrackError, OSError) as error:  # one that cannot be read must not keep the others from being delivered
        output.warn(f"{run} is skipped: {error}")
        unread.append(str(run))
        return None


def _check_merged(run: Path) -> None:
    """See that a merged run has ended: to journal how it did is the collector's part.

    Raises:
        MergedElsewhere: a collector is at it.
        MergeUnfinished: a host goes on.
    """
    if not (run / MERGED).exists():
        return
    if (pid := locks.holder(run / LOCK_NAME)) is not None:
        raise MergedElsewhere(run, pid)
    with contextlib.suppress(NotARun):
        if going_on := [one.host for one in manifests.load(run).hosts if one.status == "running"]:
            raise MergeUnfinished(run, going_on)


def _backend(to: list[str]) -> Backend:
    """Build the backend that `--to` describes.

    Raises:
        InvalidSettings: a setting is unknown or wrong.
    """
    kind, *pairs = to
    if "." in kind and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # a class of a script: the user has named it
    defined = _class_of(kind)
    known = [field.name for field in msgspec.structs.fields(defined)]
    values: dict[str, Any] = {}
    problems = []
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or key not in known:
            meant = hint(key, known) or f"; its settings are {', '.join(known)}"
            problems.append(f"--to {kind} expects KEY=VALUE with one of its settings, got {pair!r}{meant}")
        values[key] = _value(text)
    if problems:
        raise InvalidSettings(problems)
    try:
        return msgspec.convert({**values, "kind": defined.__struct_config__.tag}, defined, strict=False).prepare()
    except msgspec.ValidationError as error:
        raise InvalidSettings([f"--to {kind}: {explain(error, values)}"]) from error


def _class_of(kind: str) -> type[Backend]:
    """Find the class that `--to` names.

    Raises:
        InvalidSettings: it names no backend.
        BackendUnavailable: its class cannot be imported.
    """
    try:
        return class_of(kind)
    except BackendUnavailable as error:
        if error.__cause__ is not None:
            raise
        raise InvalidSettings([f"--to expects the kind of a backend; got {kind!r:.80}: {unusable(error)}"]) from None


def _value(text: str) -> Any:
    """Parse a value as JSON; what is not JSON is text."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _name(run: Path, backend: Backend, to: list[str], wanted: str | None) -> str:
    """Name the backend: as is wanted; else the run's own one of this class, if it lived in a process that ended before it had everything; else a name that is free.

    Settings that are given are in the name, as a hash: a delivery to another place must not go on from the cursor of this one.

    Raises:
        InvalidSettings: the run has a backend of another kind by the wanted name.
    """
    own, kind = RunReader(run).manifest().backends, kind_of(backend)
    if wanted is not None:
        if own.get(wanted, {}).get("kind", kind) != kind:
            problem = f"--as {wanted}: expected the name of a {kind} backend or a new one, but {run.name} has a backend of that name of kind {own[wanted]['kind']}"
            raise InvalidSettings([problem])
        return wanted
    if not run_state.activity_of(run).callers:
        for name, stored in own.items():
            if lives_in_caller(stored) and stored.get("kind") == kind and not has_all(run, name):
                return name
    base = re.sub(r"[^A-Za-z0-9_]+", "_", kind)
    keys = {pair.partition("=")[0] for pair in to[1:]} - _SAME_PLACE
    if given := [(key, str(getattr(backend, key))) for key in sorted(keys)]:
        base += f"~{zlib.crc32(repr(given).encode()):08x}"
    return next(name for name in chain([base], (f"{base}-{number}" for number in count(2))) if name not in own)


def _work(work: SyncJob | AttachJob, args: argparse.Namespace) -> list[SyncProgress]:
    line = None if args.json else _Line()
    while True:
        done, now = work.done, work.poll()  # in this order: the last poll sees what was done before it
        if done:
            break
        if line is not None:
            line.show(now)
        time.sleep(_POLL_S)
    if line is not None:
        line.clear()
    return now


class _Line:
    """Progress on stderr: one line that is redrawn on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._drawn = sys.stderr.isatty()
        self._next_at = time.monotonic() + (_POLL_S if self._drawn else _LINE_S)
        self._last = ""

    def show(self, runs: list[SyncProgress]) -> None:
        """Show the progress, if it is time to."""
        now = time.monotonic()
        if now < self._next_at:
            return
        self._next_at = now + (_POLL_S if self._drawn else _LINE_S)
        total = sum(run.stats.accepted * max(1, len(run.stats.backends)) for run in runs)
        left = sum(run.stats.queued + backend.behind for run in runs for backend in run.stats.backends.values())
        ended = sum(run.state not in ("waiting", "working") for run in runs)
        text = f"{ended} of {len(runs)} runs, {output.short_count(total - left)} of {output.short_count(total)} records"
        errors = [f"{name}: {backend_stats.last_error}" for run in runs for name, backend_stats in _troubled(run)]
        text += f", {errors[0]}" if errors else ""
        if text == self._last and not self._drawn:  # nothing has changed: not worth a second line
            return
        self._last = text
        sys.stderr.write(f"\r\x1b[K{printable(text)[:150]}" if self._drawn else f"{printable(text)}\n")
        sys.stderr.flush()

    def clear(self) -> None:
        """Remove the line from the terminal."""
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _troubled(run: SyncProgress) -> Iterator[tuple[str, Any]]:
    return ((name, backend_stats) for name, backend_stats in run.stats.backends.items() if backend_stats.last_error)


def _print(report: list[SyncProgress], complete: int) -> None:
    out = Output()
    if report:
        columns = [
            TableColumn("run"),
            TableColumn("status"),
            TableColumn("journaled", right=True),
            TableColumn("delivered"),
            TableColumn(""),
        ]
        out.table(columns, [_row(run) for run in report])
    if complete:
        out.line(f"{output.count(complete)} {'runs are' if complete != 1 else 'run is'} complete")
    for run in report:
        for name in run.had_all:
            out.line(
                f"{catalog.name_of(Path(run.path))}: {name} had everything already; if it was removed there, --again delivers the whole run"
            )
        for name, why in run.missing.items():
            out.line(Styled(f"{catalog.name_of(Path(run.path))}: {name}: {_missing(run, name, why)}", "red"))


def _missing(run: SyncProgress, name: str, why: str) -> str:
    """Describe what a backend lacks, why, and what to do about it."""
    backend_stats = run.stats.backends.get(name)
    behind = backend_stats.behind if backend_stats is not None else run.stats.queued if name == "journal" else 0
    what = "the run's end" if not behind else "1 record" if behind == 1 else f"{output.count(behind)} records"
    text = f"{what} {'are' if behind > 1 else 'is'} missing: {why}".replace("sync RUN", f"sync {shlex.quote(run.path)}")
    if name == "journal" and backend_stats is None:
        return (
            f"{text}; {'wait longer with --patience-s' if why.startswith(NO_PROGRESS) else 'fix that, and sync again'}"
        )
    if name in run.left_out or backend_stats is None:
        return text
    return f"{text}; {'fix that, and sync again' if backend_stats.paused else 'sync again later, or wait longer with --patience-s'}"


def _row(run: SyncProgress) -> list[output.Piece]:
    delivered = ", ".join(
        f"{name} {output.count(backend_stats.delivered)}"
        + (f" (behind {output.count(backend_stats.behind)})" if backend_stats.behind else "")
        for name, backend_stats in run.stats.backends.items()
    )
    state = "behind" if run.missing and run.state == "done" else run.state
    said = {"live": "its own worker delivers"}.get(state, state)
    return [
        catalog.name_of(Path(run.path)),
        run.status,
        output.count(run.stats.journaled),
        delivered,
        Styled(said, _STYLES.get(state, "")),
    ]
