"""The command line: one module per command. Each has `add_arguments(parser)` and `main(arguments) -> exit code`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from asynctrack import __version__
from asynctrack.cli import demo
from asynctrack.errors import AsynctrackError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code: 0 it worked, 1 it did not, 2 it was asked wrongly."""
    parser = argparse.ArgumentParser(
        prog="asynctrack",
        description="Background logging that makes experiment tracking free for the loop that calls it.",
    )
    parser.add_argument("--version", action="version", version=f"asynctrack {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    summary = "watch a real optimisation being tracked without being slowed"
    command = commands.add_parser("demo", help=summary, description=summary[0].upper() + summary[1:] + ".")
    demo.add_arguments(command)
    command.set_defaults(main=demo.main)
    given = parser.parse_args(arguments)
    try:
        return int(given.main(given))
    except AsynctrackError as error:
        print(f"asynctrack: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        sys.stderr.close()
        return 0
