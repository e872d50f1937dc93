"""Naming: what a framework calls an experiment, as the name of a directory. Runs in the caller."""

from __future__ import annotations

import re
from typing import Final

# As `settings.check_name` wants it.
_LONGEST: Final = 128
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_\-. ]")


def directory_name(name: str) -> str:
    """The name with `_` for what no project may have in its name: slashes, for example."""
    fitting = _NOT_IN_NAMES.sub("_", name)[:_LONGEST]
    return fitting if fitting and fitting[0] not in ". " else f"_{fitting[1:]}"
