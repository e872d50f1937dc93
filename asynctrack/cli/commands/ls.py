"""`asynctrack ls`: the runs of a directory, one line each."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from asynctrack._system.disk_timeout import InterruptibleCall
from asynctrack._system.wording import counted
from asynctrack.cli import options, output
from asynctrack.cli.output import STATE_STYLES, Output, Styled, TableColumn
from asynctrack.cli.run_summary import RunSummary, seconds_between, summarise_run
from asynctrack.client import run_state
from asynctrack.reading import catalog
from asynctrack.settings import DEFAULT_DIR, project_directory

STATES: Final = (
    "running", "finished", "failed", "crashed", "preempted", "lost", "elsewhere", "damaged", "unreadable",
)  # fmt: skip

_COLUMNS: Final = (
    TableColumn("run"),
    TableColumn("name", rank=2, cut=True),
    TableColumn("status"),
    TableColumn("age", right=True),
    TableColumn("records", right=True),
    TableColumn("rate", right=True, rank=4),
    TableColumn("step", right=True, rank=3),
    TableColumn("size", right=True, rank=1),
    TableColumn("last values", rank=5, cut=True),
)
_VALUES: Final = 4
# Characters of a run's name, also without a terminal. Arbitrary; `--json` and `show` have all of it.
_LONGEST_NAME: Final = 60
_HINTS: Final = {
    "lost": "its process and its worker have died: `asynctrack sync` recovers what they left",
    "elsewhere": "it was started on another machine or by another user, and may still run there",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `main` to `parser`."""
    parser.add_argument(
        "directory",
        metavar="DIR",
        nargs="?",
        type=options.directory,
        help=f"directory that holds the runs (default: {DEFAULT_DIR})",
    )
    parser.add_argument("--dir", type=options.directory, metavar="DIR", help="the same, as the other commands take it")
    parser.add_argument(
        "--status",
        type=_states,
        metavar="STATUS,...",
        help=f"list only runs in one of these states: {', '.join(STATES)}",
    )
    parser.add_argument("--project", help="list only runs of this project")
    parser.add_argument("-n", type=options.whole(1), metavar="N", help="list only the newest N")
    options.add_keys(parser, "metrics whose last values are shown, separated by commas")
    options.add_json(parser, "print the runs as one JSON list")


def main(args: argparse.Namespace) -> int:
    """List runs, the newest first."""
    given = args.directory or args.dir
    directory = given or Path(DEFAULT_DIR)
    InterruptibleCall(directory.is_dir, directory).wait()  # it says so if the disk hangs
    if given is not None and not directory.is_dir():
        output.warn(f"there is no directory {directory}")
        return 2
    found = islice(_chosen(args, directory), args.n)
    if args.json:
        output.print_json([msgspec.structs.asdict(run) for run in found])
    else:
        _print(list(found), directory, args)
    return 0


def _chosen(args: argparse.Namespace, directory: Path) -> Iterator[RunSummary]:
    runs = catalog.runs_under(directory)
    if args.project is not None:
        wanted = {args.project, project_directory(args.project)}
        runs = [run for run in runs if catalog.name_of(run).rpartition("/")[0] in wanted]
    workers = run_state.other_workers()
    for run in catalog.newest_first(runs):
        seen = summarise_run(run, workers)
        if args.keys is not None:
            seen = msgspec.structs.replace(seen, last=args.keys.of(seen.last))
        if args.status is None or seen.status in args.status:
            yield seen


def _print(found: list[RunSummary], directory: Path, args: argparse.Namespace) -> None:
    out = Output()
    unreadable = catalog.unreadable_under(directory)
    if not found:
        chosen = args.status is not None or args.project is not None
        out.line(f"no {'such ' if chosen else ''}runs in {directory}{' that you may read' if unreadable else ''}")
        _print_unreadable(out, unreadable)
        return
    named = any(run.name != run.id for run in found)
    columns = [column for column in _COLUMNS if named or column.title != "name"]
    out.table(columns, [_row(run, named) for run in found])
    _print_hints(out, found)
    _print_unreadable(out, unreadable)


def _row(run: RunSummary, named: bool) -> list[output.Piece]:
    age_s = seconds_between(run.created_at, datetime.now(UTC).isoformat())
    last = "  ".join(f"{key}={output.number(value, 4)}" for key, value in list(run.last.items())[:_VALUES])
    return [
        f"{run.project}/{run.id}",
        *([output.shorten(run.name, _LONGEST_NAME, "...") if run.name != run.id else ""] if named else []),
        Styled(run.status + (", behind" if run.behind else ""), STATE_STYLES.get(run.status, "")),
        "-" if age_s is None else output.duration(max(0, round(age_s))),
        output.short_count(run.records),
        output.rate(run.records_per_s),
        "-" if run.step is None else output.short_count(run.step),
        output.size(run.bytes),
        Styled(last, "dim"),
    ]


def _print_hints(out: Output, found: list[RunSummary]) -> None:
    """Print a hint for each state that needs attention."""
    states = {run.status for run in found}
    hints = [f"{state}: {hint}" for state, hint in _HINTS.items() if state in states]
    hints += [f"damaged: {run.project}/{run.id}: {run.problem}" for run in found if run.problem]
    if behind := [run for run in found if run.behind]:
        hints.append(_describe_behind(behind))
    if hints:
        out.line()
    for hint in hints:
        out.line(Styled(hint, "dim"))


def _describe_behind(behind: list[RunSummary]) -> str:
    """Describe which backends of the newest run lack records, and how many more such runs there are."""
    first, *more = behind
    of = ", ".join(f"{name} ({why})" if why else name for name, why in first.behind.items())
    others = f", and {counted(len(more), 'more run')}" if more else ""
    return (
        f"behind: {first.project}/{first.id}: {of}{others}: `asynctrack sync` delivers the rest, or says what it needs"
    )


def _print_unreadable(out: Output, count: int) -> None:
    if count:
        out.line(
            Styled(
                f"{counted(count, 'run')} that you may not read: ask who ran them, or see docs/reference/permissions.md",
                "dim",
            )
        )


def _states(text: str) -> set[str]:
    states = set(text.split(","))
    if unknown := states - set(STATES):
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(STATES)}, got {', '.join(sorted(unknown))!r}")
    return states
