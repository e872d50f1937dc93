"""Writers: how the processes that write to a run are shown."""

from __future__ import annotations

import argparse
from typing import Final

from asynctrack.cli import output
from asynctrack.cli.output import STATE_STYLES, Output, Piece, Styled, TableColumn
from asynctrack.journal.writer_list import WriterList, WriterStats, last_by_label

# How many are named in a line, and how many are shown in the table; `--json` has all of them. Arbitrary.
_NAMED: Final = 3
_SHOWN: Final = 20
# What is said of a process that lives and says nothing more, behind the run's end.
_IDLE: Final = "idle"
# The order in which they are shown: first what a person looks for.
_ORDER: Final = ("crashed", "failed", "terminated", "running", "finished")


def add_writer(parser: argparse.ArgumentParser, what: str) -> None:
    """Add --writer; `what` is its help."""
    parser.add_argument("--writer", metavar="LABEL", help=what)


def describe_writers(writers: WriterList, *, ended: bool = False) -> str | None:
    """Say how the writers of a run have ended, and name those that went wrong; None where it has one alone.

    Args:
        writers: of the run.
        ended: whether the run has: those that live on are idle, such as the processes of a pool.
    """
    by_label = last_by_label(writers)
    if len(by_label) < 2:
        return None
    finished, running = (sum(one.status == status for one in by_label.values()) for status in ("finished", "running"))
    wrong = [_wrong(one) for one in by_label.values() if one.status not in ("finished", "running")]
    more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
    going = f", {output.count(running)} {_IDLE if ended else 'not yet'}" if running else ""
    return "; ".join(
        [
            f"{output.count(finished)} of {output.count(len(by_label))} writers finished{going}",
            *([", ".join(wrong[:_NAMED]) + more] if wrong else []),
        ]
    )


def print_writers(out: Output, writers: WriterList, *, ended: bool = False) -> None:
    """Print a table of the writers of a run that has several; see `describe_writers`."""
    if len(writers) < 2:
        return
    out.heading("writers")
    titles = ("records", "dropped", "step")
    several = len({one.session for one in writers}) > 1
    columns = [
        *([TableColumn("session", right=True)] if several else []),
        TableColumn("writer", cut=True),
        TableColumn("status"),
        *(TableColumn(one, right=True) for one in titles),
    ]
    shown = sorted(writers, key=lambda one: _ORDER.index(one.status))[:_SHOWN]
    out.table(
        [*columns, TableColumn("process", rank=1), TableColumn("", cut=True)],
        [[*([output.count(one.session)] if several else []), *_row(one, ended=ended)] for one in shown],
        indent=2,
    )
    if len(writers) > _SHOWN:
        out.line(Styled(f"and {output.count(len(writers) - _SHOWN)} more: --json shows them", "dim"), indent=2)


def _row(one: WriterStats, *, ended: bool) -> list[Piece]:
    return [
        one.writer + (" (owner)" if one.is_owner else ""),
        _IDLE if ended and one.status == "running" else Styled(one.status, STATE_STYLES.get(one.status, "")),
        "-" if one.accepted is None else output.count(one.accepted),
        output.count(sum(one.dropped.values())),
        "-" if one.last_step is None else output.count(one.last_step),
        f"{one.pid} on {one.host or '-'}",
        Styled(one.error or "", "red"),
    ]


def _wrong(one: WriterStats) -> str:
    how = "was terminated" if one.status == "terminated" else one.status
    return f"{one.writer} {how}" + ("" if one.last_step is None else f" at step {output.count(one.last_step)}")
