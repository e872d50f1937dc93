"""The reference has each public name once, each command, each setting and each variable of the environment."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from test_house import ROOT

import asynctrack
import asynctrack.errors
import asynctrack.testing
import asynctrack.wandb
from asynctrack.cli import COMMANDS

REFERENCE: Final = ROOT / "docs" / "reference"
INTEGRATIONS: Final = ROOT / "asynctrack" / "integrations"
# Modules of the integrations that no user imports.
PRIVATE: Final = {
    "background_caller",
    "drytorch_run",
    "figures",
    "log_dir",
    "naming",
    "noether_base",
    "pixels",
    "ranks",
    "restored",
    "tropt_base",
    "unfinished",
}
ENTRY: Final = re.compile(r"^ *\.\. (?:auto|py:)\w+:: ([\w.]+)", re.M)


def entries() -> Counter[str]:
    """Count the entries of the reference by the dotted names of what they describe."""
    pages = [*REFERENCE.rglob("*.md")]
    return Counter(name for page in pages for name in ENTRY.findall(page.read_text()))


def named_in(module: Path) -> list[str]:
    """List the public names of a module that may not be importable here: its `__all__`, else the classes and functions it defines."""
    body = ast.parse(module.read_text()).body
    for node in body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    defined = (node.name for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef))
    return [name for name in defined if not name.startswith("_")]


def public_names() -> Iterator[str]:
    for module in (asynctrack, asynctrack.testing, asynctrack.wandb):
        yield from (f"{module.__name__}.{name}" for name in module.__all__)
    # Those that `asynctrack` has, too, have their entry there.
    yield from (f"asynctrack.errors.{name}" for name in asynctrack.errors.__all__ if name not in asynctrack.__all__)
    yield from (f"asynctrack.events.{name}" for name in named_in(ROOT / "asynctrack" / "events.py"))
    for file in INTEGRATIONS.glob("[a-z]*.py"):
        if file.stem not in PRIVATE:
            yield f"asynctrack.integrations.{file.stem}"
            yield from (f"asynctrack.integrations.{file.stem}.{name}" for name in named_in(file))


def test_every_public_name_has_one_entry() -> None:
    found = entries()
    wanted = list(public_names())
    assert len(wanted) > 180
    assert {name: found[name] for name in wanted if found[name] != 1} == {}


def variables_read() -> set[str]:
    """List the variables of the environment that the package names, by their beginning, or reads by any name."""
    texts = [file.read_text() for file in (ROOT / "asynctrack").rglob("*.py")]
    ours = re.compile(r"\b(?:ASYNCTRACK|WANDB|MLFLOW|TRACKIO)_[A-Z_]*[A-Z]\b|\bPGPASSWORD\b")
    read = re.compile(r'environ(?:\.get\(|\.pop\(|\.setdefault\(|\[)\s*"([A-Z_]+)"|"([A-Z_]+)" (?:not )?in os\.environ')
    named = {name for text in texts for name in ours.findall(text)}
    return named | {name for text in texts for groups in read.findall(text) for name in groups if name}


def test_every_variable_of_the_environment_has_a_row() -> None:
    rows = re.findall(r"^\| (`[A-Z_`, ]+`) \|", (REFERENCE / "environment.md").read_text(), re.M)
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    read = variables_read()
    assert read - told == set(), "docs/reference/environment.md says nothing of them"
    assert told - read == set(), "nothing reads them"
    assert len(told) > 30


def test_every_command_has_its_section() -> None:
    page = (REFERENCE / "command_line.md").read_text()
    sections = re.findall(r"^## asynctrack (\w+)\n\n```\{command\} (\w+)\n```$", page, re.M)
    assert sections == [(name, name) for name in COMMANDS]
