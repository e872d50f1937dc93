"""Notices: what of W&B's is not there is said by its name, once in a process; and the words that W&B lets scripts say."""

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
    """Say that something is ignored, and what there is instead."""
    messages.warn_once(f"asynctrack: {name} is not supported, and ignored" + (f"; {instead}" if instead else ""))


def warn_unsupported(what: str, given: Mapping[str, Any]) -> None:
    """Say which arguments of a call are ignored; None stands for one that was not given."""
    for name, value in given.items():
        if value is not None:
            unsupported(f"{what}({name}=...)")


def termlog(string: str = "", newline: bool = True, repeat: bool = True, prefix: bool = True) -> None:
    """Say something on standard error, as W&B does; with `repeat=False` once."""
    _print(string, newline, repeat)


def termwarn(string: str, newline: bool = True, repeat: bool = True) -> None:
    """The same as a warning."""
    _print(f"WARNING {string}", newline, repeat)


def termerror(string: str, newline: bool = True, repeat: bool = True) -> None:
    """The same as an error."""
    _print(f"ERROR {string}", newline, repeat)


def _print(text: str, newline: bool, repeat: bool) -> None:
    if environment.is_silent() or not (repeat or _throttle.admit(text, ONCE)):
        return
    for line in text.splitlines() or [""]:
        print(f"wandb: {line}", file=sys.stderr, end="\n" if newline else "")
