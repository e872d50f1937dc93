"""`asynctrack collect`: merges what several hosts have recorded of their runs in a folder that they share, or send by NATS."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from pathlib import Path
from typing import Final

import msgspec

from asynctrack._system.open_files import raise_limit
from asynctrack._system.printable import printable
from asynctrack._system.wording import counted
from asynctrack.backends.nats_address import is_nats
from asynctrack.carriers.parts import split_name
from asynctrack.cli import options
from asynctrack.cli.collectors import add_backends, add_limits, add_lost_after, of_nats_only
from asynctrack.cli.nats_collecting import collect
from asynctrack.cli.output import Output, TableColumn, print_json, size, warn
from asynctrack.client.job_id import given_id, job_id
from asynctrack.errors import AsynctrackError, InvalidSettings
from asynctrack.merging.collector import FolderCollector, MergedRun
from asynctrack.settings import DEFAULT_DIR

# Between two looks where nothing came. Arbitrary: network file systems show what others wrote after some seconds.
_POLL_S: Final = 0.2
# For how long --follow waits for a run to begin, where all have ended. Arbitrary.
_BEGIN_WAIT_S: Final = 60.0
# The same for the run of the job in which it was started: a training loads its libraries and data first. Arbitrary.
_JOB_WAIT_S: Final = 300.0
# Between two lines of progress where they cannot be drawn over each other.
_LINE_S: Final = 5.0
_NATS: Final = "NATS: "


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `main` to `parser`."""
    parser.add_argument(
        "source",
        metavar="DIR|nats://HOST",
        type=_source,
        help="the folder that the hosts share, with their parts of runs as DIR/project/id@host; or NATS servers, as nats://HOST[:PORT][,HOST...]",
    )
    parser.add_argument(
        "--dir",
        dest="out",
        metavar="OUT",
        type=options.directory,
        default=None,
        help=f"where to make the merged runs, as OUT/project/id (default: in DIR itself; {DEFAULT_DIR} with NATS)",
    )
    parser.add_argument(
        "--follow",
        action="store_true",
        help="keep merging until all runs have ended, or Ctrl-C; with NATS always, until Ctrl-C",
    )
    add_lost_after(parser)
    options.add_json(parser, "print one JSON document; with NATS a line of JSON for each event")
    add_backends(parser, _NATS)
    add_limits(parser, _NATS)


def main(args: argparse.Namespace) -> int:
    """Merge. Return 0 if all there is is merged."""
    if is_nats(args.source):
        return collect(args)
    _check_options(args)
    if not (args.follow or args.source.is_dir()):  # one that follows may be started first
        raise InvalidSettings([f"expected a folder that hosts share, and there is none at {args.source}"])
    raise_limit()
    out = Path(args.out or args.source)
    with FolderCollector(args.source, out, lost_after_s=args.lost_after_s) as collector:
        told = _work(collector, None if args.json else _Progress(), follow=args.follow)
    report = collector.report
    if args.json:
        print_json({"runs": msgspec.to_builtins(report)})
    else:
        _print(report, args.source, told)
    return 0 if all(run.is_whole for run in report) else 1


def _source(text: str) -> Path | str:
    if "://" in text and not is_nats(text):
        raise argparse.ArgumentTypeError(f"expected a folder, or NATS servers as nats://HOST; got {text!r:.200}")
    return text if is_nats(text) else options.directory(text)


def _check_options(args: argparse.Namespace) -> None:
    """See that a folder is given nothing that only NATS has.

    Raises:
        InvalidSettings: it is.
    """
    given = of_nats_only(args)
    if given:
        raise InvalidSettings([f"{', '.join(given)}: for nats:// only"])


def _work(collector: FolderCollector, progress: _Progress | None, *, follow: bool) -> set[str]:
    """Merge until nothing comes, or until all runs have ended; returns what was said of troubles."""
    told: set[str] = set()
    started_at = time.monotonic()
    began_at: float | None = started_at
    while True:
        moved = _turn(collector, follow=follow, told=told)
        if moved:
            began_at = None
        if progress is not None:
            progress.show(collector.report, awaits_run=follow and (collector.has_ended or not collector.report))
        if follow:
            _warn_once(collector.report, told)
        if not (follow or collector.awaits_files) and (collector.has_caught_up or not moved):
            break
        if not moved:
            if collector.has_ended and _has_waited(began_at, started_at, collector.report):
                break
            time.sleep(_POLL_S)
    if progress is not None:
        progress.clear()
    return told


def _turn(collector: FolderCollector, *, follow: bool, told: set[str]) -> bool:
    """Merge what there is; returns whether there was anything. A folder that cannot be listed may be back soon."""
    try:
        return collector.turn()
    except OSError as error:
        if not follow:
            raise
        if str(error) not in told:
            told.add(str(error))
            warn(f"{error}; trying again")
        return False


def _has_waited(began_at: float | None, started_at: float, report: list[MergedRun]) -> bool:
    """Return whether the run of this job was there, or else something was merged, or nothing has begun for long: a collector may be started before the processes of a job."""
    now = time.monotonic()
    mine = _run_of_job()
    if mine is not None and now - started_at < _JOB_WAIT_S and not any(Path(run.path).name == mine for run in report):
        return False
    return began_at is None or now - began_at > _BEGIN_WAIT_S


def _run_of_job() -> str | None:
    """Return the id that runs of the job have in which this process is, as far as the environment says."""
    with contextlib.suppress(AsynctrackError):
        return given_id(None) or job_id()
    return None


def _warn_once(report: list[MergedRun], told: set[str]) -> None:
    """Say what goes wrong when it does: the report comes at the end."""
    for line in (line for run in report for line in _troubles(run)):
        if line not in told:
            told.add(line)
            warn(line)


def _print(report: list[MergedRun], folder: Path, told: set[str]) -> None:
    output = Output()
    if not report:
        above = f"; its runs are in one project: give {folder.parent}" if _is_project(folder) else ""
        output.line(f"no host has a part of a run in {folder}{above}")
        return
    rows = [[run.path, run.status or "-", _hosts(run)] for run in report]
    output.table([TableColumn("run"), TableColumn("status"), TableColumn("hosts")], rows)
    _warn_once(report, told)


def _is_project(folder: Path) -> bool:
    return any(split_name(path.name) is not None for path in folder.iterdir())


def _hosts(run: MergedRun) -> str:
    going_on = sorted(host for host, status in run.hosts.items() if status == "running")
    lost = sorted(host for host, status in run.hosts.items() if status == "lost")
    more = [f"{word}: {', '.join(names)}" for word, names in (("going on", going_on), ("lost", lost)) if names]
    behind = (
        [f"behind: {', '.join(f'{host} by {size(count)}' for host, count in run.behind.items())}"] if run.behind else []
    )
    return "; ".join([str(len(run.hosts)), *more, *behind])


def _troubles(run: MergedRun) -> list[str]:
    found = [run.trouble] if run.trouble else []
    return [*found, *run.refused.values(), *(f"{why}; it is waited for" for why in run.waiting.values())]


class _Progress:
    """Progress on stderr: one line that is redrawn on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._drawn = sys.stderr.isatty()
        self._next_at = time.monotonic() + (_POLL_S if self._drawn else _LINE_S)
        self._last = ""

    def show(self, report: list[MergedRun], *, awaits_run: bool) -> None:
        """Show how far it is, if it is time to."""
        now = time.monotonic()
        if now < self._next_at:
            return
        self._next_at = now + (_POLL_S if self._drawn else _LINE_S)
        hosts = sum(len(run.hosts) for run in report)
        going_on = sum(status == "running" for run in report for status in run.hosts.values())
        text = f"{counted(len(report), 'run')} of {counted(hosts, 'host')}, {going_on} going on"
        text += ", waiting for a run to begin" if awaits_run else ""
        text += f", {size(behind)} behind" if (behind := sum(sum(run.behind.values()) for run in report)) else ""
        text += f", {len(troubled)} in trouble" if (troubled := [run for run in report if not run.is_whole]) else ""
        if text == self._last and not self._drawn:  # nothing has changed: not worth a second line
            return
        self._last = text
        sys.stderr.write(f"\r\x1b[K{printable(text)[:150]}" if self._drawn else f"{printable(text)}{os.linesep}")
        sys.stderr.flush()

    def clear(self) -> None:
        """Remove the line from the terminal."""
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
