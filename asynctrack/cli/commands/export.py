"""`asynctrack export`: a run's records as JSON Lines or CSV, record by record, in memory that does not grow with the run."""

from __future__ import annotations

import argparse
import csv
import errno
import io
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from asynctrack._system.paths import expanded
from asynctrack._system.printable import printable
from asynctrack.backends.files.jsonl import RESERVED, encode_lines
from asynctrack.backends.files.reserved import free_name
from asynctrack.cli import options, output
from asynctrack.cli.options import KeyFilter
from asynctrack.cli.records import chosen, read
from asynctrack.journal.reader import Damage
from asynctrack.records.codec import Record, flatten

# Records that are encoded at once: a tenth of a second of a fast loop. Arbitrary.
_AT_ONCE: Final = 1000

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
# What JSON Lines has for them, which CSV's readers know as numbers.
_NOT_FINITE: Final = frozenset({"NaN", "Infinity", "-Infinity"})

_cells: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `main` to `parser`."""
    options.add_run(parser)
    parser.add_argument(
        "--format",
        choices=("jsonl", "csv"),
        required=True,
        help="jsonl: lines as in metrics.jsonl; csv: a table, by RFC 4180",
    )
    parser.add_argument(
        "--output",
        type=expanded,
        metavar="FILE",
        help="write to this file instead of stdout; it appears when it is complete",
    )
    parser.add_argument(
        "--for-spreadsheets",
        action="store_true",
        help="with csv: put ' before names and texts that a spreadsheet would take for a formula (they begin with = + - @ or a tab). "
        "Without it, do not open the file of a run that you do not trust in a spreadsheet",
    )
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")
    options.add_keys(parser, "metrics to export, separated by commas; records with none of them are left out")
    options.add_json(parser, "with --output: print path, records and bytes as one JSON object")


def main(args: argparse.Namespace) -> int:
    """Export the run. Return 1 if something of it could not be read."""
    if (problem := _problem(args)) is not None:
        output.warn(problem)
        return 2
    export = Export(options.find(args), args.keys, for_spreadsheets=args.for_spreadsheets)
    write = export.write_csv if args.format == "csv" else export.write_lines
    if args.output is None:
        out: Any = sys.stdout.buffer
        if sys.stdout.isatty():
            out = _Terminal(out, args.format)
        write(out)
    else:
        with _appearing(args.output, force=args.force) as file:
            write(file)
    for damage in export.damage:
        output.warn(f"left out: {damage}")
    if args.json:
        output.print_json({
            "path": str(args.output), "format": args.format, "records": export.records,
            "bytes": args.output.stat().st_size, "damage": [str(damage) for damage in export.damage],
        })  # fmt: skip
    return 1 if export.damage else 0


class Export:
    """Writes a run's records.

    Args:
        run: its directory.
        keys: those to write, None for all.
        for_spreadsheets: put a quote in front of text that a spreadsheet would take for a formula.

    Attributes:
        records: how many were written.
        damage: what could not be read.
    """

    def __init__(self, run: Path, keys: KeyFilter | None, *, for_spreadsheets: bool = False) -> None:
        self.records = 0
        self.damage: list[Damage] = []
        self._run = run
        self._keys = keys
        self._text: Callable[[str], str] = _no_formula if for_spreadsheets else str

    def write_lines(self, out: IO[bytes]) -> None:
        """Write JSON Lines, as the backend of that name does."""
        for block in self._blocks():
            out.write(block)
        out.flush()

    def write_csv(self, out: IO[bytes]) -> None:
        """Write CSV by RFC 4180: values as in JSON Lines, texts without quotes, an empty cell where a record has no such key."""
        columns, most = self._columns()
        self.damage.clear()
        text = io.TextIOWrapper(out, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(text)
        writer.writerow(map(self._text, columns))
        for block in self._blocks(most):
            rows = map(_cells.decode, block.splitlines())
            writer.writerows([_cell(row.get(column), self._text) for column in columns] for row in rows)
        text.detach()
        out.flush()

    def _columns(self) -> tuple[list[str], int]:
        """Return step, time and every key in the order they came, and the number of records: a live run has more soon."""
        columns, count = dict.fromkeys(RESERVED), 0
        for record in self._read():
            count += 1
            if not columns.keys() - RESERVED >= record.data.keys() or any(
                isinstance(value, dict) for value in record.data.values()
            ):
                columns.update((free_name(key, RESERVED), None) for key, _ in flatten(record.data))
        return list(columns), count

    def _blocks(self, most: int | None = None) -> Iterator[bytes]:
        """Yield the lines of at most `most` records, in blocks."""
        records = islice(self._read(), most)
        while some := list(islice(records, _AT_ONCE)):
            self.records += len(some)
            yield encode_lines(some)

    def _read(self) -> Iterator[Record]:
        return chosen(read(self._run, self.damage), self._keys)


def _problem(args: argparse.Namespace) -> str | None:
    """Return what is wrong with the arguments; None if nothing is."""
    if args.for_spreadsheets and args.format != "csv":
        return "--for-spreadsheets needs --format csv"
    if args.output is None:
        return "--json needs --output: without it the records go to stdout" if args.json else None
    if not args.output.absolute().parent.is_dir():
        return f"--output takes a file in an existing folder; got {args.output}"
    if not args.output.exists():
        return None
    if not args.output.is_file():
        return f"--output takes a file; {args.output} is not one"
    return None if args.force else f"{args.output} exists; --force replaces it"


def _cell(raw: msgspec.Raw | None, of_text: Callable[[str], str]) -> str:
    """Convert a value to a cell of CSV."""
    text = b"" if raw is None else bytes(raw)
    if text.startswith(b'"'):
        plain = str(msgspec.json.decode(text))
        return plain if plain in _NOT_FINITE else of_text(plain)
    return "" if text == b"null" else text.decode()


def _no_formula(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula; OWASP lists how one begins."""
    return f"'{text}" if text.startswith(_FORMULA) else text


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
