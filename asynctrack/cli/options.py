"""Options: those that several commands share, and how their values are parsed."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, get_args

from asynctrack._system.disk_timeout import InterruptibleCall
from asynctrack._system.paths import expanded
from asynctrack._system.suggestions import hint
from asynctrack.cli import output
from asynctrack.curves.cuts import CutCounts
from asynctrack.reading import catalog
from asynctrack.reading.history import History, LeftOut
from asynctrack.records.codec import flatten
from asynctrack.settings import DEFAULT_DIR

# Keys whose choice is remembered; a run that makes up a key per record must not fill the memory.
_REMEMBERED: Final = 10_000
# Longer names are cut in messages. Arbitrary.
_LONGEST_SAID: Final = 100

# Types of values of which none holds others.
_FLAT: Final = frozenset({float, int, str, bool})

RUN_HELP: Final = "a run's directory, its id, the beginning of its id, its name, or 'latest'"


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


def add_directory(parser: argparse.ArgumentParser) -> None:
    """Add the argument DIR, and --dir for the same."""
    parser.add_argument(
        "directory",
        metavar="DIR",
        nargs="?",
        type=directory,
        help=f"directory that holds the runs (default: {DEFAULT_DIR})",
    )
    parser.add_argument("--dir", type=directory, metavar="DIR", help="the same, as the other commands take it")


def directory_of(args: argparse.Namespace) -> Path | None:
    """Return the directory that DIR or --dir names, or the default one; None, and a word of it, where a named one is missing."""
    given: Path | None = args.directory or args.dir
    if given is not None and is_missing(given):
        return None
    return given or Path(DEFAULT_DIR)


def directory(text: str) -> Path:
    """Parse the path of a directory, which may be missing."""
    path = expanded(text)
    if (file := InterruptibleCall(lambda: file_at(path), path).wait()) is not None:
        raise argparse.ArgumentTypeError(f"expected a directory, but {file} is a file")
    return path


def is_missing(path: Path) -> bool:
    """Return True, and say so, where there is no such directory; Ctrl-C ends it while a disk hangs."""
    if InterruptibleCall(path.is_dir, path).wait():
        return False
    output.warn(f"there is no directory {path}")
    return True


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


def add_where(parser: argparse.ArgumentParser, what: str) -> None:
    """Add --where; `what` is its help."""
    parser.add_argument("--where", metavar="EXPR", help=f'{what}, such as "lr < 1e-3 and max(val/acc) > 0.9"')


def add_history(parser: argparse.ArgumentParser) -> None:
    """Add --history."""
    parser.add_argument(
        "--history",
        choices=get_args(History),
        default="last",
        help="of resumed runs: last leaves out what was logged again, all does not (default: %(default)s)",
    )


def signed(text: str) -> str:
    """Return the value of an option that may begin with `-`: see `joined`."""
    return text


def joined(words: Sequence[str], actions: Iterable[argparse.Action]) -> list[str]:
    """Return arguments in which options whose values are `signed` have them behind a `=`. argparse takes `--sort -loss` for two options.

    Args:
        words: the arguments.
        actions: of the parser.
    """
    named = {option for action in actions if action.type is signed for option in action.option_strings}
    found: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "--":
            return [*found, word, *rest]
        value = next(rest, None) if word in named else None
        found.append(word if value is None else f"{word}={value}")
    return found


def describe_left_out(left_out: LeftOut | CutCounts, does: str) -> str:
    """Say what was left out because it was logged again, and how to have it; `does` is the verb of that."""
    rows = f"{output.count(left_out.rows)} repeated row{'' if left_out.rows == 1 else 's'}"
    values = f"{output.count(left_out.values)} repeated value{'' if left_out.values == 1 else 's'}"
    what = f"{rows} and {values} of others" if left_out.rows and left_out.values else rows if left_out.rows else values
    return f"{what} left out (--history all {does} them)"


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

    def tell_unknown(self, what: str) -> None:
        """Warn of each name that is none of the keys that came so far; `what` they are."""
        if len(self._known) >= _REMEMBERED:
            return
        for pattern in self.patterns:
            if not any(key == pattern or fnmatchcase(key, pattern) for key in self._known):
                output.warn(f"--keys: there is no {what} {pattern[:_LONGEST_SAID]!r}{hint(pattern, self._known)}")

    def of(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the chosen values of a record's data, by flat names."""
        known = self._known  # to ask it here takes a third of the time of a call of `__contains__`
        pairs = data.items() if _FLAT.issuperset(map(type, data.values())) else flatten(data)
        return {key: value for key, value in pairs if (chosen := known.get(key)) or (chosen is None and key in self)}


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """Return the type of an option that takes a whole number from `low` on, or to `high`."""
    end = "on" if high is None else f"to {high}"

    def parse(text: str) -> int:
        try:
            value = min(int(text), sys.maxsize)  # as much as a list can have
        except ValueError:
            value = low - 1
        if value < low or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"expected a whole number from {low} {end}, got {text!r}")
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
