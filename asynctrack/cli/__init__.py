"""The command line: one module per command. Each has `add_arguments(parser)` and `main(arguments) -> exit code`.

Only the module of the command that was given is imported.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from asynctrack import __version__
from asynctrack._system.printable import printable
from asynctrack._system.suggestions import hint
from asynctrack._system.wording import page
from asynctrack.errors import AsynctrackError, InvalidExpression, InvalidSettings, UsageError

# Each command is the module of that name.
COMMANDS: Final = {
    "demo": "run a real optimisation, and show what tracking it costs",
    "ls": "list runs with status, config and metrics: chosen, sorted and grouped by any of them",
    "compare": "show what differs between runs, and their metrics side by side",
    "query": "ask SQL of runs, by DuckDB",
    "show": "show one run: config, summary, where it comes from, why it failed, backends and a curve per metric",
    "ui": "show runs in the browser: curves, media, config, and what differs between runs",
    "best": "list the best runs by a metric, with the config that differs among them",
    "tail": "print the last records of a run, and follow it",
    "wait": "wait until a record of a run meets a condition, or until the run ends",
    "sync": "recover what a crash left in memory, and deliver what backends still lack",
    "collect": "merge what several machines have recorded of their runs in a folder that they share, or send by NATS",
    "serve": "take by HTTP what several machines record of their runs, and merge it",
    "verify": "check every byte of a run's journal, and that run.json and the cursors agree with it",
    "export": "write the records of runs as JSON Lines, CSV or Parquet",
    "rm": "remove runs, by name or by what is known of them",
    "cache": "say what is kept in your cache, and empty it",
    "backends": "list the backends, what each writes and needs, and which of them work here",
    "workers": "list your background workers on this machine, and end them",
    "doctor": "check what asynctrack needs on this machine, and measure what it costs",
}
# Of each command, the page of the documents where more stands.
PAGES: Final = {
    "demo": "explanation/performance.md",
    "ls": "how_to/compare_runs.md",
    "compare": "how_to/compare_runs.md#side-by-side",
    "query": "how_to/compare_runs.md#ask-sql",
    "show": "how_to/offline_and_sync.md#why-is-a-backend-behind",
    "ui": "reference/ui_api.md",
    "best": "how_to/compare_runs.md#find-the-best-runs",
    "tail": "how_to/read_runs.md#on-the-command-line",
    "wait": "reference/expressions.md",
    "sync": "how_to/offline_and_sync.md",
    "collect": "how_to/several_machines.md",
    "serve": "how_to/collector.md",
    "verify": "how_to/read_runs.md#damaged-runs",
    "export": "how_to/read_runs.md#on-the-command-line",
    "rm": "how_to/compare_runs.md#tidy-up",
    "cache": "reference/cache.md",
    "backends": "how_to/choose_a_backend.md",
    "workers": "how_to/containers_and_clusters.md#see-what-runs",
    "doctor": "how_to/troubles.md",
}
TIMED_OUT: Final = 124  # as timeout(1) says it
_BROKEN_PIPE: Final = 128 + signal.SIGPIPE
_INTERRUPTED: Final = 128 + signal.SIGINT

_EPILOG: Final = """\
exit codes:
  0    success, or the answer is yes
  1    failure, or the answer is no
  2    wrong usage: an unknown option, or a run that does not exist
  124  timed out (wait --timeout-s)
  130  interrupted by Ctrl-C

documents: https://github.com/asynctrack/asynctrack/blob/main/docs/index.md
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit code: see `asynctrack --help`."""
    parser = make_parser()
    given_words = sys.argv[1:] if arguments is None else list(arguments)
    parser.refuse_unknown_options(given_words)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115  # somebody has closed it
    given = parser.parse_args(given_words)
    try:
        code = int(given.main(given))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        _discard_output()
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        return _INTERRUPTED
    except (AsynctrackError, OSError) as error:
        text = "; ".join(error.problems) if isinstance(error, InvalidSettings) else str(error)
        sys.stderr.write(f"asynctrack: {printable(' '.join(text.split()))}\n")
        if isinstance(error, InvalidExpression):
            _show_where(error)
        return 2 if isinstance(error, UsageError) else 1


def make_parser() -> _Parser:
    """Make the parser of the command line. The module of a command is imported when its arguments are asked for."""
    parser = _Parser(
        prog="asynctrack",
        description="Background logging that makes experiment tracking free for the loop that calls it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"asynctrack {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Command)
    for name, summary in COMMANDS.items():
        description = summary[0].upper() + summary[1:] + "."
        commands.add_parser(
            name, help=summary, description=description, epilog=f"more: {page(PAGES[name])}", command=name
        )
    return parser


class _Parser(argparse.ArgumentParser):
    """A parser whose error messages are escaped for terminals: a shell puts the names of files among the arguments."""

    def refuse_unknown_options(self, words: Sequence[str]) -> None:
        """Refuse an unknown option before the command. The parser itself would say that the command is missing."""
        for word in itertools.takewhile(lambda word: word.startswith("-"), words):
            options = self.options()
            if not any(option.startswith(word) for option in options):
                self.error(f"unrecognized arguments: {word}{hint(word, options)}")

    def options(self) -> list[str]:
        """List the options, as they are written."""
        return [option for action in self._actions for option in action.option_strings]

    def error(self, message: str) -> NoReturn:
        wrong = re.match(r"argument COMMAND: invalid choice: '([^']*)'", message)
        super().error(printable(message + (hint(wrong[1], COMMANDS) if wrong and "you mean" not in message else "")))


class _Command(_Parser):
    """The parser of a command, whose module is imported when its arguments are parsed."""

    def __init__(self, *args: Any, command: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._command: str | None = command

    def load(self) -> None:
        """Import the command's module and add its arguments, unless that has been done."""
        name, self._command = self._command, None
        if name is not None:
            module = importlib.import_module(f"asynctrack.cli.commands.{name}")
            module.add_arguments(self)
            self.set_defaults(main=module.main)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        from asynctrack.cli.options import joined  # here: not all commands need it

        self.load()
        found, unknown = super().parse_known_args(joined(args or (), self._actions), namespace)
        if len(unknown) == 1 and not unknown[0].startswith("-") and getattr(found, "directory", "") is None:
            # Python before 3.13 does not look for a DIR that may be missing behind the options that follow another argument.
            found.directory, unknown = self._directory(unknown[0]), []
        if unknown:  # here, where the options of the command are known
            options = self.options()
            meant = next(
                (told for one in unknown if one.startswith("-") and (told := hint(one.partition("=")[0], options))), ""
            )
            self.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
        return found, unknown

    def _directory(self, text: str) -> Path:
        from asynctrack.cli.options import directory

        try:
            return directory(text)
        except argparse.ArgumentTypeError as error:
            self.error(f"argument DIR: {error}")


def _show_where(error: InvalidExpression) -> None:
    """Print the expression with a mark below the character of an error."""
    from asynctrack.cli.output import pointed_at

    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    for line in pointed_at(error.text, error.position):
        sys.stderr.write(line.encode(encoding, "replace").decode(encoding) + "\n")


def _discard_output() -> None:
    """Drop what is still in the buffer: it cannot be written, and the interpreter must not try again as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
