"""Directives whose tables are made from the code while the documents are built: `command` of the command line, `exit-codes`, and `fields` of a struct."""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, Final

import msgspec
from backend_settings import attribute_meanings, settings_table, type_of
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from asynctrack import cli

# Of what `--help` prints, in columns.
_WIDTH: Final = 100


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Return the lines of a table in Markdown."""
    columns = list(head)
    made = [columns, ["---"] * len(columns), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return [f"| {' | '.join(row)} |" for row in made]


def command_of(name: str) -> argparse.ArgumentParser:
    """Return the parser of a command of `asynctrack`, with its arguments."""
    commands = next(one for one in cli.make_parser()._actions if isinstance(one, argparse._SubParsersAction))
    command = commands.choices[name]
    command.load()
    found: argparse.ArgumentParser = command
    return found


def described(name: str) -> list[str]:
    """Describe a command in Markdown: its duty, its usage, its arguments and its exit code."""
    command = command_of(name)
    command.formatter_class = partial(argparse.HelpFormatter, width=_WIDTH)
    usage = [line[len("usage: ") :] for line in command.format_usage().splitlines()]
    lines = [str(command.description), "", "```text", *usage, "```", ""]
    rows = [(f"`{_written(one)}`", _help(command, one)) for one in command._actions if one.help != argparse.SUPPRESS]
    return [*lines, *table(["Argument", "Meaning"], rows), "", _exit(name)]


def _written(argument: argparse.Action) -> str:
    """Return an argument as it is written on the command line."""
    formatter = argparse.HelpFormatter("")
    value = formatter._format_args(argument, argument.dest.upper()) if argument.nargs != 0 else ""
    return " ".join(filter(None, (", ".join(argument.option_strings), value)))


def _help(command: argparse.ArgumentParser, argument: argparse.Action) -> str:
    text = command._get_formatter()._expand_help(argument)
    shown = text if re.match(r"\w+:", text) else text[:1].upper() + text[1:]
    return re.sub(r"([*<>_])", r"\\\1", shown)


def _exit(name: str) -> str:
    """Return the sentence on exit codes that the docstring of a command's `main` has."""
    main = importlib.import_module(f"asynctrack.cli.commands.{name}").main
    said = re.search(r"Return (\d) (if .*)\.$", main.__doc__.partition("\n")[0])
    if said is None:
        return "Exits with 0."
    return f"Exits with {said[1]} {said[2]}, else with {1 - int(said[1])}."


def exit_codes() -> list[str]:
    """Return the table of the exit codes, as the epilog of `asynctrack --help` has them."""
    rows = re.findall(r"^  (\d+) +(.*)$", str(cli.make_parser().epilog), re.M)
    return table(["Code", "Meaning"], [(code, meaning[:1].upper() + meaning[1:]) for code, meaning in rows])


def fields(path: str) -> list[str]:
    """Return the table of a struct's fields and computed properties, from its docstrings."""
    module, _, name = path.rpartition(".")
    struct = getattr(importlib.import_module(module), name)
    meanings = attribute_meanings(struct)
    rows = [
        (f"`{one.name}`", f"`{type_of(struct, one)}`", meanings[one.name]) for one in msgspec.structs.fields(struct)
    ]
    return table(["Field", "Type", "Meaning"], [*rows, *_computed(struct)])


def _computed(struct: type[Any]) -> Iterator[tuple[str, str, str]]:
    for name, member in vars(struct).items():
        if isinstance(member, property) and member.fget is not None:
            meaning = re.sub(r"^Return t", "T", inspect.getdoc(member) or "")
            yield (
                f"`{name}`",
                f"`{member.fget.__annotations__['return']}`",
                f"{meaning} Computed from the fields above.",
            )


class Made(SphinxDirective):
    """Shows lines of Markdown that are made from the code."""

    def lines(self) -> list[str]:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Return what the lines become."""
        made = nodes.container()
        self.state.nested_parse(StringList(self.lines(), self.name), self.content_offset, made)
        return made.children


class Command(Made):
    """Shows a command of the command line."""

    required_arguments = 1

    def lines(self) -> list[str]:
        return described(self.arguments[0])


class ExitCodes(Made):
    """Shows the exit codes of the command line."""

    def lines(self) -> list[str]:
        return exit_codes()


class Fields(Made):
    """Shows the fields of a struct."""

    required_arguments = 1

    def lines(self) -> list[str]:
        return fields(self.arguments[0])


class RunSettings(Made):
    """Shows the settings of a run."""

    def lines(self) -> list[str]:
        return settings_table("Settings").splitlines()


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    for name, directive in (
        ("command", Command),
        ("exit-codes", ExitCodes),
        ("fields", Fields),
        ("run-settings", RunSettings),
    ):
        app.add_directive(name, directive)
    return {"parallel_read_safe": True}
