"""`asynctrack backends`: lists the backends, what each writes and needs, and whether it works here."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Iterator
from typing import Any

import msgspec

from asynctrack.backends.base import Backend
from asynctrack.backends.registry import KINDS, class_of, lacks, plug_ins
from asynctrack.cli import options, output
from asynctrack.cli.output import Output, Styled, TableColumn
from asynctrack.errors import BackendUnavailable


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of backend as it is here.

    Attributes:
        kind: its name in `backends=`.
        works: True if it can be imported with all that it needs.
        problem: the reason why it does not work; None if it does.
        install: the requirements for `pip install`.
        runs_in: "worker", "process" or "caller" with its default settings; None where that is not known without settings.
        writes: the first line of its docstring.
        offered_by: the distribution that it comes with.
    """

    kind: str
    works: bool
    problem: str | None = None
    install: list[str] = []
    runs_in: str | None = None
    writes: str = ""
    offered_by: str = "asynctrack"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `main` to `parser`."""
    options.add_json(parser, "print the backends as one JSON list")


def main(args: argparse.Namespace) -> int:
    """List the backends."""
    found = list(_all())
    if args.json:
        output.print_json([msgspec.to_builtins(listed) for listed in found])
    else:
        _print(found)
    return 0


def _all() -> Iterator[Listed]:
    for kind in sorted(KINDS):
        yield _inspect(kind, "asynctrack")
    for kind, point in sorted(plug_ins().items()):
        yield _inspect(kind, (point.dist and point.dist.name) or point.module)


def _inspect(kind: str, offered_by: str) -> Listed:
    try:
        defined = class_of(kind)
    except BackendUnavailable as error:
        return Listed(kind=kind, works=False, problem=str(error), offered_by=offered_by)
    missing = lacks(defined)
    return Listed(
        kind=kind,
        works=not missing,
        problem=f"pip install {' '.join(map(repr, missing))}" if missing else None,
        install=list(dict.fromkeys(defined.needs.values())),
        runs_in=_execution(defined),
        writes=(inspect.getdoc(defined) or "").partition("\n")[0],
        offered_by=offered_by,
    )


def _execution(defined: type[Backend]) -> str | None:
    """Return where it runs with its default settings; None where it cannot be made without settings."""
    execution: Any = defined.execution
    if not isinstance(execution, str):
        try:
            execution = defined().execution
        except Exception:  # it needs settings, which its own code checks
            return None
    return str(execution)


def _print(found: list[Listed]) -> None:
    out = Output()
    columns = [
        TableColumn("kind"),
        TableColumn("works"),
        TableColumn("runs in", rank=1),
        TableColumn("needs", rank=2),
        TableColumn("what it writes", cut=True),
    ]
    out.table(columns, [_row(listed) for listed in found])
    broken = [listed for listed in found if listed.problem]
    if broken:
        out.heading("What does not work here")
    for listed in broken:
        out.line(f"{listed.kind}: {listed.problem}", indent=2)


def _row(listed: Listed) -> list[output.Piece]:
    theirs = "" if listed.offered_by == "asynctrack" else f" ({listed.offered_by})"
    return [
        f"{listed.kind}{theirs}",
        Styled("yes", "green") if listed.works else Styled("no", "yellow"),
        listed.runs_in or "-",
        ", ".join(listed.install) or "-",
        listed.writes or "-",
    ]
