"""`asynctrack export`: the records of runs as JSON Lines, CSV or Parquet, in memory that does not grow with the runs."""

from __future__ import annotations

import argparse
import errno
import io
import os
import secrets
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from asynctrack._system.paths import expanded
from asynctrack._system.printable import printable
from asynctrack._system.wording import counted
from asynctrack.cli import options, output
from asynctrack.cli.exporting import Export
from asynctrack.cli.options import describe_left_out
from asynctrack.cli.run_rows import RunRows
from asynctrack.cli.writers import add_writer
from asynctrack.reading import catalog
from asynctrack.reading.writer_filter import WriterFilter
from asynctrack.records.expressions import Condition


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `main` to `parser`."""
    parser.add_argument("runs", metavar="RUN", nargs="*", help=options.RUN_HELP)
    options.add_dir(parser)
    options.add_where(parser, "instead of RUN: the runs of DIR that meet this condition")
    parser.add_argument(
        "--format",
        choices=("jsonl", "csv", "parquet"),
        required=True,
        help="jsonl: lines as in metrics.jsonl; csv: a table, by RFC 4180; parquet: a table, with pip install 'asynctrack[parquet]'. "
        "Of several runs the first column, `run`, has each one's project and id, and their other columns are united",
    )
    parser.add_argument(
        "--output",
        type=expanded,
        metavar="FILE",
        help="write to this file instead of stdout, which parquet needs; it appears when it is complete",
    )
    parser.add_argument(
        "--for-spreadsheets",
        action="store_true",
        help="with csv: put ' before names and texts that a spreadsheet would take for a formula (they begin with = + - @ or a tab). "
        "Without it, do not open the file of a run that you do not trust in a spreadsheet",
    )
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")
    options.add_keys(parser, "metrics to export, separated by commas; records with none of them are left out")
    add_writer(parser, "export only records of this writer")
    options.add_history(parser)
    options.add_json(parser, "with --output: print path, runs, records and bytes as one JSON object")


def main(args: argparse.Namespace) -> int:
    """Export the runs. Return 1 if something of them could not be read, or none meets the condition; 2 if there is no such run or writer."""
    if (problem := _problem(args)) is not None:
        output.warn(problem)
        return 2
    if args.format == "parquet" and find_spec("pyarrow") is None:
        output.warn("--format parquet needs pyarrow, which is not installed here: pip install 'asynctrack[parquet]'")
        return 1
    if args.where is not None and options.is_missing(args.dir):
        return 2
    condition = None if args.where is None else Condition(args.where)
    runs = _named(args) if condition is None else _that_meet(condition, args)
    if condition is not None and not runs:
        told = condition.what_is_missing()
        output.warn(f"no run in {args.dir} meets the condition{f' ({told})' if told else ''}; nothing was written")
        return 1
    chosen = {run: WriterFilter(run, args.writer).problem() for run in runs}
    if (problem := next(iter(chosen.values()))) is not None and all(chosen.values()):
        output.warn(problem if len(runs) == 1 else f"none of the runs has a writer {args.writer!r}")
        return 2
    runs = [run for run in runs if chosen[run] is None]
    labels = _labels(runs) if len(args.runs) != 1 else [None]
    rows = [
        RunRows(run, args.keys, writer=args.writer, history=args.history, label=label)
        for run, label in zip(runs, labels, strict=True)
    ]
    export = Export(rows, for_spreadsheets=args.for_spreadsheets)
    if args.output is None:
        out: Any = sys.stdout.buffer
        if sys.stdout.isatty():
            out = _Terminal(out, args.format)
        export.write(out, args.format)
    else:
        with _appearing(args.output, force=args.force) as file:
            export.write(file, args.format)
    _tell(export, args)
    if args.json:
        output.print_json({
            "path": str(args.output), "format": args.format, "runs": list(map(str, runs)), "records": export.records,
            "bytes": args.output.stat().st_size, "damage": export.damage, "history": args.history,
            "left_out": {"rows": export.left_out.rows, "values": export.left_out.values}, "formulas": export.cells.formulas,
        })  # fmt: skip
    return 1 if export.damage else 0


def _that_meet(condition: Condition, args: argparse.Namespace) -> list[Path]:
    """Find the runs that meet a condition."""
    from asynctrack.collection.selection import select

    return [subject.path for subject in select(args.dir, where=condition, history=args.history)]


def _named(args: argparse.Namespace) -> list[Path]:
    """Find the runs that are named, each once."""
    found = {Path(os.path.abspath(run)): run for run in (catalog.find(wanted, args.dir) for wanted in args.runs)}
    return list(found.values())


def _labels(runs: Sequence[Path]) -> list[str]:
    """Return what tells the runs apart: `project/id`, or the paths of those that share one."""
    names = [catalog.name_of(run) for run in runs]
    count = Counter(names)
    told = [name if count[name] == 1 else os.path.relpath(run) for name, run in zip(names, runs, strict=True)]
    return [
        text.encode("utf-8", "backslashreplace").decode() for text in told
    ]  # the name of a directory may be any bytes


def _tell(export: Export, args: argparse.Namespace) -> None:
    """Say on stderr what of the runs is not in what was written, and what in it is dangerous."""
    for damage in export.damage:
        output.warn(f"left out: {damage}")
    if args.keys is not None:
        args.keys.tell_unknown("key")
    if export.left_out:
        output.warn(describe_left_out(export.left_out, "exports"))
    formulas = export.cells.formulas
    if formulas and not args.for_spreadsheets and (args.output is not None or not sys.stdout.isatty()):
        begin = counted(formulas, "cell begins", "cells begin")
        output.warn(
            f"{begin} as a formula does in a spreadsheet (= + - @ or a tab), the first in column {export.cells.first_formula!r}; "
            "--for-spreadsheets puts ' before them"
        )


def _problem(args: argparse.Namespace) -> str | None:
    """Return what is wrong with the arguments; None if nothing is."""
    if bool(args.runs) == (args.where is not None):
        return "export takes either RUN, once or several times, or --where"
    if args.for_spreadsheets and args.format != "csv":
        return "--for-spreadsheets needs --format csv"
    if args.output is None:
        if args.format == "parquet":
            return "--format parquet needs --output: a table has its index at its end"
        return "--json needs --output: without it the records go to stdout" if args.json else None
    if not args.output.absolute().parent.is_dir():
        return f"--output takes a file in an existing folder; got {args.output}"
    if not args.output.exists():
        return None
    if not args.output.is_file():
        return f"--output takes a file; {args.output} is not one"
    return None if args.force else f"{args.output} exists; --force replaces it"


class _Terminal(io.RawIOBase):
    """Standard output of a terminal: control characters are escaped.

    Args:
        out: its bytes.
        format: of what is written: JSON has its own escapes.
    """

    def __init__(self, out: IO[bytes], format: str) -> None:
        super().__init__()
        self._out = out
        self._clean: Callable[[str], str] = output.json_text if format == "jsonl" else partial(printable, keep="\r\n")

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        whole = bytes(data)  # whole lines come, so no character is cut
        self._out.write(self._clean(whole.decode()).encode())
        return len(whole)

    def flush(self) -> None:
        self._out.flush()


@contextmanager
def _appearing(path: Path, *, force: bool) -> Iterator[IO[bytes]]:
    """Open a file that appears when it is whole, or not at all.

    Raises:
        FileExistsError: somebody else has made it meanwhile.
    """
    target = Path(os.path.realpath(path))
    unfinished = target.with_name(f".{target.name}.{secrets.token_hex(4)}.new")
    try:
        with open(unfinished, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target.exists() and not force:
            raise FileExistsError(errno.EEXIST, "another process has made it meanwhile; --force replaces it", str(path))
        os.replace(unfinished, target)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(unfinished)
