"""Options: those that several commands share, and how their values are parsed."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from asynctrack._system.disk_timeout import InterruptibleCall
from asynctrack._system.paths import expanded
from asynctrack.reading import catalog
from asynctrack.records.codec import flatten
from asynctrack.settings import DEFAULT_DIR

# Keys whose choice is remembered; a run that makes up a key per record must not fill the memory.
_REMEMBERED: Final = 10_000

RUN_HELP: Final = "a run's directory, its id, the beginning of its id, or 'latest'"


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the argument RUN, and --dir."""
    parser.add_argument("run", metavar="RUN", help=RUN_HELP)
    add_dir(parser)


def add_dir(parser: argparse.ArgumentParser, what: str = "directory that holds the runs, as DIR/project/id") -> None:
    """Add --dir; `what` is its help."""
    parser.add_argument(
        "--dir",
        type=directory,
        default=Path(DEFAULT_DIR),
        help=f"{what} (default: %(default)s)",
    )


def directory(text: str) -> Path:
    """Parse the path of a directory, which may be missing."""
    path = expanded(text)
    if (file := InterruptibleCall(lambda: file_at(path), path).wait()) is not None:
        raise argparse.ArgumentTypeError(f"expected a directory, but {file} is a file")
    return path


def file_at(path: Path) -> Path | None:
    """Return the file that stands where a directory is expected: the path itself or one above it. None where there is none."""
    return next((one for one in (path, *path.parents) if one.is_file()), None)


def add_json(parser: argparse.ArgumentParser, what: str = "print one JSON document") -> None:
    """Add --json; `what` is its help."""
    parser.add_argument("--json", action="store_true", help=what)


def add_keys(parser: argparse.ArgumentParser, what: str) -> None:
    """Add --keys; `what` begins its help."""
    parser.add_argument(
        "--keys", type=KeyFilter, default=None, metavar="KEY,...", help=f"{what}; * and ? are wildcards"
    )


def find(args: argparse.Namespace) -> Path:
    """Find the run that RUN means."""
    return catalog.find(args.run, args.dir)


class KeyFilter:
    """A choice of keys, as names or patterns with `*`, `?` and `[]`, separated by commas."""

    def __init__(self, text: str) -> None:
        self.patterns = [pattern for part in text.split(",") if (pattern := part.strip())]
        if not self.patterns:
            raise argparse.ArgumentTypeError(f"expected names of metrics, separated by commas, got {text!r}")
        self._known: dict[str, bool] = {}

    def __contains__(self, key: str) -> bool:
        known = self._known.get(key)
        if known is None:
            known = any(key == pattern or fnmatchcase(key, pattern) for pattern in self.patterns)
            if len(self._known) < _REMEMBERED:
                self._known[key] = known
        return known

    def of(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the chosen values of a record's data, by flat names."""
        return {key: value for key, value in flatten(data) if key in self}


def whole(low: int) -> Callable[[str], int]:
    """Return the type of an option that takes a whole number from `low` on."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low:
            raise argparse.ArgumentTypeError(f"expected a whole number from {low} on, got {text!r}")
        return value

    return parse


def seconds(text: str) -> float:
    """Parse the value of an option that takes a time in seconds."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number of seconds from 0 on, got {text!r}")
    return value
