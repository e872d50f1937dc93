"""`asynctrack sync`: journals what ended processes left in their queues, and delivers what is behind, or to one more backend."""

from __future__ import annotations

import argparse
import difflib
import logging
import sys
import time
from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path
from typing import Any, Final

import msgspec

from asynctrack import catalog
from asynctrack.backends.base import Backend
from asynctrack.backends.registry import class_of
from asynctrack.catchup import Attached, CatchUp, Progress, is_behind, orphaned
from asynctrack.cli import options, output
from asynctrack.cli.output import Column, Screen, Styled
from asynctrack.errors import AsynctrackError, InvalidSettings
from asynctrack.printable import printable
from asynctrack.reading.reader import open_run
from asynctrack.worker.service import Policy

_LOOK_S: Final = 0.1
# Between two lines of progress where they cannot be drawn over each other.
_LINE_S: Final = 5.0
_STYLES: Final = {"done": "green", "behind": "bold red", "live": "yellow"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell `parser` what `main` needs."""
    parser.add_argument("runs", nargs="*", metavar="RUN|DIR", help="runs, or directories of runs (default: --dir)")
    options.add_dir(parser)
    parser.add_argument(
        "--to",
        nargs="+",
        metavar=("KIND", "KEY=VALUE"),
        help="deliver the whole run to one more backend, also of a live run; say RUN first",
    )
    parser.add_argument("--follow", action="store_true", help="with --to: go on until the run has ended")
    parser.add_argument(
        "--trust",
        action="store_true",
        help="go where a run.json from elsewhere leads: its addresses, its files, its code",
    )
    parser.add_argument(
        "--force", action="store_true", help="deliver a copy of a run, though what its original delivered shows twice"
    )
    parser.add_argument(
        "--patience-s",
        type=options.seconds,
        default=60.0,
        metavar="T",
        help="give up when nothing has moved for so long (default: %(default)s)",
    )
    options.add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Catch up; 0 if nothing is behind."""
    runs = list(dict.fromkeys(_chosen(args)))
    logging.getLogger("asynctrack").setLevel(logging.ERROR)  # what backends say is in the report
    report: list[Progress] = []
    unread: list[str] = []
    if args.to:
        backend = _backend(args.to)
        for run in runs:
            with Attached(run, _name(run, args.to[0]), backend, force=args.force, follow=args.follow) as work:
                report += _work(work, args)
        complete = 0
    else:
        policy = Policy(offline_too=True, trust=args.trust, force=args.force)
        behind = [run for run in runs if _is_behind(run, policy, unread)]
        if behind:
            with CatchUp(behind, policy) as work:
                report = _work(work, args)
        complete = len(runs) - len(behind) - len(unread)
    if args.json:
        output.print_json({"complete": complete, "unreadable": unread, "runs": msgspec.to_builtins(report)})
    else:
        _print(report, complete)
    return 0 if not unread and all(run.state in ("done", "live") and not run.left_out for run in report) else 1


def _chosen(args: argparse.Namespace) -> Iterator[Path]:
    if args.to and not args.runs:
        raise InvalidSettings(["--to needs a RUN: asynctrack sync RUN --to KIND key=value"])
    for wanted in args.runs or [args.dir]:
        path = Path(wanted)
        left = [] if args.to else orphaned(path.resolve())
        if left or (path.is_dir() and not catalog.is_run(path)):
            yield from (run.resolve() for run in catalog.newest_first(catalog.runs_under(path)))
            yield from left
        elif args.runs:
            yield catalog.find(wanted, args.dir).resolve()


def _is_behind(run: Path, policy: Policy, unread: list[str]) -> bool:
    """Whether there is something to do for a run; one of which that cannot be told is said, and added to `unread`."""
    try:
        return is_behind(run, policy)
    except AsynctrackError as error:
        output.say(f"{run} is left out: {error}")
        unread.append(str(run))
        return False


def _backend(to: list[str]) -> Backend:
    """The backend that `--to` describes.

    Raises:
        InvalidSettings: a setting is unknown or wrong.
    """
    kind, *pairs = to
    defined = class_of(kind)
    known = [field.name for field in msgspec.structs.fields(defined)]
    values: dict[str, Any] = {}
    problems = []
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}"
            problems.append(f"{pair!r} is not KEY=VALUE with a setting of {kind}{hint}")
        values[key] = _value(text)
    if problems:
        raise InvalidSettings(problems)
    try:
        return msgspec.convert({**values, "kind": defined.__struct_config__.tag}, defined, strict=False).prepare()
    except msgspec.ValidationError as error:
        raise InvalidSettings([f"{kind}: {error}"]) from error


def _value(text: str) -> Any:
    """A value as JSON has it; what is not JSON is text."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _name(run: Path, kind: str) -> str:
    """A name that none of the run's own backends has."""
    own, base = open_run(run).manifest().backends, kind.rpartition(".")[2]
    return next(name for name in chain([base], (f"{base}-{number}" for number in count(2))) if name not in own)


def _work(work: CatchUp | Attached, args: argparse.Namespace) -> list[Progress]:
    line = None if args.json else _Line()
    last, moved_at = work.look(), time.monotonic()
    while not work.done and time.monotonic() - moved_at < args.patience_s:
        time.sleep(_LOOK_S)
        now = work.look()
        if now != last:
            last, moved_at = now, time.monotonic()
        if line is not None:
            line.show(now)
    if line is not None:
        line.clear()
    unfinished = ("waiting", "working")
    return [msgspec.structs.replace(run, state="behind") if run.state in unfinished else run for run in work.look()]


class _Line:
    """Progress on stderr: one line that is drawn anew on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._drawn = sys.stderr.isatty()
        self._next_at = time.monotonic() + (_LOOK_S if self._drawn else _LINE_S)

    def show(self, runs: list[Progress]) -> None:
        now = time.monotonic()
        if now < self._next_at:
            return
        self._next_at = now + (_LOOK_S if self._drawn else _LINE_S)
        total = sum(run.stats.accepted * max(1, len(run.stats.backends)) for run in runs)
        left = sum(run.stats.queued + backend.behind for run in runs for backend in run.stats.backends.values())
        ended = sum(run.state not in ("waiting", "working") for run in runs)
        text = f"{ended} of {len(runs)} runs, {output.short_count(total - left)} of {output.short_count(total)} records"
        errors = [f"{name}: {books.last_error}" for run in runs for name, books in _troubled(run)]
        text += f", {errors[0]}" if errors else ""
        sys.stderr.write(f"\r\x1b[K{printable(text)[:150]}" if self._drawn else f"{printable(text)}\n")
        sys.stderr.flush()

    def clear(self) -> None:
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _troubled(run: Progress) -> Iterator[tuple[str, Any]]:
    return ((name, books) for name, books in run.stats.backends.items() if books.last_error)


def _print(report: list[Progress], complete: int) -> None:
    screen = Screen()
    if report:
        columns = [Column("run"), Column("status"), Column("journaled", right=True), Column("delivered"), Column("")]
        screen.table(columns, [_row(run) for run in report])
    if complete or not report:
        screen.line(f"{output.count(complete)} {'runs are' if complete != 1 else 'run is'} complete")
    for run in report:
        for name, books in _troubled(run):
            screen.line(Styled(f"{Path(run.path).name}: {name}: {books.last_error}", "red"))
        for name, why in run.left_out.items():
            screen.line(Styled(f"{Path(run.path).name}: {name} is left out: {why}", "yellow"))


def _row(run: Progress) -> list[output.Piece]:
    delivered = ", ".join(
        f"{name} {output.count(books.delivered)}" + (f" (behind {output.count(books.behind)})" if books.behind else "")
        for name, books in run.stats.backends.items()
    )
    said = {"live": "its own process and worker are at it"}.get(run.state, run.state)
    return [
        catalog.name_of(Path(run.path)),
        run.status,
        output.count(run.stats.journaled),
        delivered,
        Styled(said, _STYLES.get(run.state, "")),
    ]
