"""`asynctrack verify`: checks a run, and says where it is damaged."""

from __future__ import annotations

import argparse

import msgspec

from asynctrack._system.wording import counted
from asynctrack.cli import options, output
from asynctrack.cli.journal_check import Findings, JournalCheck
from asynctrack.cli.output import Output, Piece, Styled, TableColumn
from asynctrack.reading.catalog import name_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `main` to `parser`."""
    options.add_run(parser)
    options.add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Check a run. Return 0 if it is undamaged."""
    run = options.find(args)
    found = JournalCheck(run).take()
    if args.json:
        output.print_json({"intact": not found.problems, **msgspec.to_builtins(found)})
    else:
        _print(found, name_of(run))
    return 1 if found.problems else 0


def _print(found: Findings, name: str) -> None:
    out = Output()
    harm = Styled("damaged", "bold red") if found.problems else Styled("intact", "bold green")
    out.line(Styled(name, "bold"), "  ", harm)
    out.line()
    segments = f"{counted(found.segments, 'segment')}, {output.size(found.bytes)}"
    facts = {
        "journal": f"{segments}, {output.count(found.batches)} batches, every checksum compared",
        "records": f"{output.count(found.records)}"
        + (f", and {output.count(found.missing)} missing" if found.missing else "")
        + "".join(f", {output.count(dropped)} dropped ({reason})" for reason, dropped in found.dropped.items()),
        "backends": ", ".join(f"{name} processed {output.count(had)}" for name, had in found.backends.items()),
        "unfinished": f"{found.unfinished_bytes} bytes of a batch at the end; its records are still in the queue"
        if found.unfinished_bytes
        else "",
    }
    rows: list[list[Piece]] = [[Styled(title, "dim"), fact] for title, fact in facts.items() if fact]
    out.table([TableColumn(), TableColumn()], rows, indent=2, titles=False)
    if found.problems:
        out.line()
        lines: list[list[Piece]] = [
            [problem.file, "-" if problem.byte is None else str(problem.byte), Styled(problem.what, "red")]
            for problem in found.problems
        ]
        out.table([TableColumn("file"), TableColumn("byte", right=True), TableColumn("what is wrong")], lines, indent=2)
