"""`asynctrack cache`: says what is kept in the user's cache, and empties it."""

from __future__ import annotations

import argparse
from typing import Final

from asynctrack._system import user_cache
from asynctrack._system.wording import counted
from asynctrack.cli import options, output
from asynctrack.cli.output import Output, TableColumn

_KINDS: Final = {"curves": "curves of long runs", "runs": "what was found out about runs that have ended"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `main` to `parser`."""
    parser.add_argument("--clear", action="store_true", help="remove all of it; what is needed is made anew")
    options.add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Say how full the cache is, or empty it."""
    removed = user_cache.clear() if args.clear else None
    found = user_cache.contents()
    if args.json:
        output.print_json(_as_json(found, removed))
    elif removed is not None:
        Output().line(f"removed {counted(removed.files, 'file')}, {output.size(removed.bytes)}")
    else:
        _print(found)
    if removed is not None and found:
        output.warn(
            f"{counted(sum(of.files for of in found.values()), 'file')} could not be removed, or came meanwhile"
        )
    return 0


def _as_json(found: dict[str, user_cache.Contents], removed: user_cache.Contents | None) -> dict[str, object]:
    where = user_cache.directory()
    told: dict[str, object] = {
        "directory": None if where is None else str(where),
        "cap_bytes": user_cache.CAP_BYTES,
        "bytes": sum(of.bytes for of in found.values()),
        "kinds": {kind: of._asdict() for kind, of in found.items()},
    }
    return told if removed is None else {**told, "removed": removed._asdict()}


def _print(found: dict[str, user_cache.Contents]) -> None:
    out = Output()
    where, full = user_cache.directory(), sum(of.bytes for of in found.values())
    if where is None:
        out.line("no cache: this user has no home directory, and XDG_CACHE_HOME is not set")
        return
    out.line(f"{where}: {output.size(full)} of at most {output.size(user_cache.CAP_BYTES)}")
    if found:
        columns = [
            TableColumn("kind"),
            TableColumn("files", right=True),
            TableColumn("size", right=True),
            TableColumn("what it is", rank=1, cut=True),
        ]
        out.table(
            columns,
            [
                [kind, output.short_count(of.files), output.size(of.bytes), _KINDS.get(kind, "")]
                for kind, of in found.items()
            ],
        )
