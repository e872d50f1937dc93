"""Notices: warn about names and arguments of W&B's that are ignored, and print the texts of `wandb.termlog`.

Each warning comes once in a process.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final

from asynctrack._system import messages
from asynctrack._system.throttle import ONCE, Throttle
from asynctrack.wandb import environment

# Remembers texts that must not be printed again.
_throttle: Final = Throttle()


def unsupported(name: str, instead: str = "") -> None:
    """Warn that a name is ignored.

    Args:
        name: of W&B's.
        instead: advice.
    """
    messages.warn_once(f"asynctrack: {name} is not supported, and ignored" + (f"; {instead}" if instead else ""))


def warn_unsupported(what: str, given: Mapping[str, Any]) -> None:
    """Warn about the arguments of a call that are ignored.

    Args:
        what: name of the call.
        given: its ignored arguments; None stands for one that was not given.
    """
    for name, value in given.items():
        if value is not None:
            unsupported(f"{what}({name}=...)")


def termlog(string: str = "", newline: bool = True, repeat: bool = True, prefix: bool = True) -> None:
    """Print a text on standard error, as W&B does.

    Args:
        string: the text.
        newline: whether the line ends.
        repeat: False prints an equal text only once.
        prefix: ignored.
    """
    _print(string, newline, repeat)


def termwarn(string: str, newline: bool = True, repeat: bool = True) -> None:
    """Print a warning on standard error, as W&B does.

    Args:
        string: the text.
        newline: whether the line ends.
        repeat: False prints an equal text only once.
    """
    _print(f"WARNING {string}", newline, repeat)


def termerror(string: str, newline: bool = True, repeat: bool = True) -> None:
    """Print an error on standard error, as W&B does.

    Args:
        string: the text.
        newline: whether the line ends.
        repeat: False prints an equal text only once.
    """
    _print(f"ERROR {string}", newline, repeat)


def _print(text: str, newline: bool, repeat: bool) -> None:
    if environment.is_silent() or not (repeat or _throttle.admit(text, ONCE)):
        return
    for line in text.splitlines() or [""]:
        print(f"wandb: {line}", file=sys.stderr, end="\n" if newline else "")
