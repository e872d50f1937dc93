"""`asynctrack query`: SQL over the runs of a directory, by DuckDB."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time
from itertools import chain, islice
from typing import Any, Final

import msgspec

from asynctrack._system.wording import counted
from asynctrack.cli import options, output
from asynctrack.cli.csv_cells import FORMULA
from asynctrack.cli.output import Output, Piece, Styled, TableColumn
from asynctrack.collection.query import QueryRows, open_query
from asynctrack.records.codec import to_json

# QueryRows of a table for people. Arbitrary: the other formats have all of them.
_MOST_ROWS: Final = 1_000
_LONGEST_CELL: Final = 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `main` to `parser`."""
    parser.add_argument(
        "sql",
        metavar="SQL",
        help="a statement for DuckDB over the tables runs, config, summary, metric_stats and metrics; - reads it from standard input",
    )
    options.add_dir(parser)
    options.add_where(parser, "ask only of runs that meet this condition")
    options.add_history(parser)
    parser.add_argument(
        "--format",
        choices=("table", "csv", "jsonl"),
        default="table",
        help=f"table: for people, at most {_MOST_ROWS:,} rows; csv and jsonl: all rows as they come (default: %(default)s)",
    )
    options.add_json(parser, "print the rows as one JSON list of objects")
    parser.add_argument(
        "--external-access",
        action="store_true",
        help="let the statement read and write files and reach the network, and set what DuckDB can be told",
    )


def main(args: argparse.Namespace) -> int:
    """Print the rows that a statement finds."""
    if options.is_missing(args.dir):
        return 2
    sql = sys.stdin.read() if args.sql == "-" else args.sql
    with (
        output.warnings_as_messages(),
        open_query(sql, args.dir, where=args.where, history=args.history, external_access=args.external_access) as rows,
    ):
        if args.json:
            output.print_json(list(_objects(rows)))
        elif args.format == "csv":
            _print_csv(rows)
        elif args.format == "jsonl":
            for row in _objects(rows):
                sys.stdout.write(output.json_text(msgspec.json.encode(_plain(row)).decode()) + "\n")
        else:
            _print_table(rows)
    return 0


def _tuples(rows: QueryRows) -> Iterator[tuple[Any, ...]]:
    for batch in rows.batches:
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _objects(rows: QueryRows) -> Iterator[dict[str, Any]]:
    """Yield the rows by the names of their columns; a second one of a name has a number behind it."""
    names: dict[str, None] = {}
    for name in rows.schema.names:
        free = chain([name], (f"{name}_{at}" for at in range(2, sys.maxsize)))
        names[next(one for one in free if one not in names)] = None
    return (dict(zip(names, map(_plain, row), strict=True)) for row in _tuples(rows))


def _print_csv(rows: QueryRows) -> None:
    """Print a table by RFC 4180, and say if a spreadsheet would compute with what is text in it."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    formulas = 0
    for row in chain([tuple(rows.schema.names)], _tuples(rows)):
        cells = list(map(_as_text, row))
        formulas += _count_formulas(row)
        writer.writerow(cells)
        sys.stdout.write(text.getvalue() if not sys.stdout.isatty() else _for_terminal(text.getvalue()))
        text.seek(0)
        text.truncate()
    if formulas:
        output.warn(
            f"{counted(formulas, 'cell begins', 'cells begin')} with = + - @ or a tab, as formulas do; open the table in a spreadsheet only if you trust the runs"
        )


def _for_terminal(line: str) -> str:
    from asynctrack._system.printable import printable

    return printable(line, keep="\r\n")


def _count_formulas(row: Iterable[Any]) -> int:
    return sum(isinstance(value, str) and value.startswith(FORMULA) for value in row)


def _print_table(rows: QueryRows) -> None:
    out, found = Output(), _tuples(rows)
    shown = list(islice(found, _MOST_ROWS))
    more = next(found, None) is not None
    columns = [
        TableColumn(name, right=_is_number(field), rank=at, cut=not _is_number(field))
        for at, (name, field) in enumerate(zip(rows.schema.names, rows.schema.types, strict=True))
    ]
    if columns:
        out.table(columns, [[_cell(value) for value in row] for row in shown])
    if more:
        out.line(Styled(f"the first {_MOST_ROWS:,} rows; --format csv, jsonl or --json has all of them", "dim"))
    if not shown and columns:
        out.line(Styled("no rows", "dim"))


def _is_number(of: Any) -> bool:
    return str(of).startswith(("int", "uint", "float", "double", "half"))


def _cell(value: Any) -> Piece:
    if value is None:
        return Styled("-", "dim")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat(" ", "seconds")
    return output.brief(_plain(value), _LONGEST_CELL)


def _as_text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    plain = _plain(value)
    return plain if isinstance(plain, str) else msgspec.json.encode(plain).decode()


def _plain(value: Any) -> Any:
    """Return a value of a column as JSON has it."""
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return list(map(_plain, value))
    if value is None or isinstance(value, bool | int | float | str):
        return to_json(value)
    if isinstance(value, bytes):
        return value.hex()
    return str(value)
