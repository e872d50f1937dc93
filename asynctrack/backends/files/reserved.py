"""Reserved names: those that a file has for itself. A key of that name gets another, and has its own again when it is read. Runs where the sink does, and in readers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

# A run may make up a name per record. Arbitrary.
_MOST_REMEMBERED: Final = 50_000


def free_name(name: str, reserved: Collection[str]) -> str:
    """The name of a user's key beside reserved ones: `config` becomes `_config`, `_config` becomes `__config`, and so on."""
    return f"_{name}" if _is_like(name, reserved) else name


class FlatNames:
    """Names of records, kept apart from reserved ones; those that need not be are remembered, so that a record costs one look.

    Args:
        reserved: names that a file has for itself.
    """

    def __init__(self, reserved: Collection[str]) -> None:
        self._reserved = reserved
        self._free: set[str] = set()

    def of(self, data: dict[str, Any]) -> dict[str, Any]:
        """The same values by names that are kept apart."""
        if self._free.issuperset(data):
            return data
        if len(self._free) > _MOST_REMEMBERED:
            self._free.clear()
        self._free.update(name for name in data if free_name(name, self._reserved) == name)
        return data if self._free.issuperset(data) else {free_name(name, self._reserved): data[name] for name in data}


def put_back(name: str, reserved: Collection[str]) -> str:
    """The user's key of a name that `free_name` made."""
    return name[1:] if name[:1] == "_" and _is_like(name[1:], reserved) else name


def _is_like(name: str, reserved: Collection[str]) -> bool:
    """Whether a name is reserved, with any number of underscores in front."""
    return any(name.endswith(ours) and not name.removesuffix(ours).strip("_") for ours in reserved)
