"""Encode errors: keys whose values could not be encoded, as they are reported: a few by name, one with its value, all counted. Runs in the caller."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from asynctrack._system.wording import see
from asynctrack.records.codec import short_repr

# Keys that are said by name. Arbitrary: they fit a line.
_NAMED: Final = 3
_VALUES: Final = see("reference/values.md")
# Keys that are remembered, so as to be told of once. Arbitrary: whoever makes up more names has been told.
_MOST: Final = 10_000


class EncodeErrors:
    """The odd keys of a run in this process. May be called from any thread."""

    def __init__(self) -> None:
        self._met: set[str] = set()
        self._unreported: list[str] = []
        self._value = ""

    def note(self, data: Mapping[Any, Any], keys: Iterable[str]) -> None:
        """Remember keys that are not known yet.

        Args:
            data: what was logged.
            keys: those of it whose values became their `repr`.
        """
        for key in keys:
            if key not in self._met and len(self._met) < _MOST:
                self._met.add(key)
                self._unreported.append(key)
                if len(self._unreported) == 1:
                    self._value = short_repr(data, key)

    @property
    def waiting(self) -> bool:
        """Return True if some keys are not reported yet."""
        return bool(self._unreported)

    def take(self) -> str:
        """Return the message about the keys that are not reported yet."""
        told, self._unreported = self._unreported, []
        if len(told) == 1:
            return f"the value of {told[0]!r:.80} cannot be encoded and is recorded as its repr: {self._value}{_VALUES}"
        named = ", ".join(f"{key!r:.80}" for key in told[:_NAMED])
        more = f" and {len(told) - _NAMED} more" if len(told) > _NAMED else ""
        return (
            f"the values of {len(told)} keys cannot be encoded and are recorded as their repr: {named}{more}{_VALUES}"
        )
