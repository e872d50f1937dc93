"""Reserved: flat names, kept apart from those that a file has for itself, and back. Runs where the sink does, and in readers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from asynctrack.record import flatten

_PLAIN: Final = frozenset({float, int, str, bool, type(None)})


def flat(data: dict[str, Any]) -> dict[str, Any]:
    """A record's values by flat names; of most records this is what was logged."""
    return data if _PLAIN.issuperset(map(type, data.values())) else dict(flatten(data))


def kept_apart(name: str, reserved: Collection[str]) -> str:
    """The name of a user's key beside reserved ones: `config` becomes `_config`, `_config` becomes `__config`, and so on."""
    return f"_{name}" if _is_like(name, reserved) else name


def put_back(name: str, reserved: Collection[str]) -> str:
    """The user's key of a name that `kept_apart` made."""
    return name[1:] if name[:1] == "_" and _is_like(name[1:], reserved) else name


def _is_like(name: str, reserved: Collection[str]) -> bool:
    """Whether a name is reserved, with any number of underscores in front."""
    return any(name.endswith(ours) and not name.removesuffix(ours).strip("_") for ours in reserved)
