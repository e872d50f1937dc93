"""Reserved names: keep a file's own names apart from a user's keys. Runs where the sink does, and in readers.

A key with a reserved name is written under another name, and has its own again when it is read.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

# Of the column with the label of a record's writer, in runs that several processes write to.
WRITER: Final = "_writer"

# Names that are remembered, at most: a run may make up a name per record. Arbitrary.
_MOST_REMEMBERED: Final = 50_000


def free_name(name: str, reserved: Collection[str]) -> str:
    """Return a name for a user's key that is not reserved.

    `config` becomes `_config`, `_config` becomes `__config`, and so on.
    """
    return f"_{name}" if _is_like(name, reserved) else name


class FlatNames:
    """Keeps the names of records apart from reserved ones.

    It remembers names that need no change, so that most records cost one look-up.

    Args:
        reserved: names that a file has for itself.

    Attributes:
        known: names that need no change.
    """

    def __init__(self, reserved: Collection[str]) -> None:
        self._reserved = reserved
        self.known: set[str] = set()

    def of(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the same values under names that are not reserved."""
        if self.known.issuperset(data):
            return data
        if len(self.known) > _MOST_REMEMBERED:
            self.known.clear()
        self.known.update(name for name in data if free_name(name, self._reserved) == name)
        return data if self.known.issuperset(data) else {free_name(name, self._reserved): data[name] for name in data}


def put_back(name: str, reserved: Collection[str]) -> str:
    """Return the user's key for a name that `free_name` made."""
    return name[1:] if name[:1] == "_" and _is_like(name[1:], reserved) else name


def _is_like(name: str, reserved: Collection[str]) -> bool:
    """Return whether a name is reserved, with any number of underscores in front."""
    return any(name.endswith(ours) and not name.removesuffix(ours).strip("_") for ours in reserved)
