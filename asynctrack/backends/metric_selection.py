"""Metric selection: choose which of a run's metrics a display shows, and name their scopes.

Runs where the display does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Final

from asynctrack.records.codec import split_source

# Answers that are remembered; a run that makes up a name per record must not fill the memory. Arbitrary.
_MOST_KNOWN: Final = 10_000


class MetricSelection:
    """The metrics that were chosen.

    Args:
        patterns: names, or shell patterns such as `*/loss`; None for all.
    """

    def __init__(self, patterns: Sequence[str] | None) -> None:
        self._patterns = patterns
        self._known: dict[str, bool] = {}

    def __contains__(self, name: str) -> bool:
        if self._patterns is None:
            return True
        known = self._known.get(name)
        if known is None:
            if len(self._known) == _MOST_KNOWN:
                self._known.clear()
            known = any(name == pattern or fnmatchcase(name, pattern) for pattern in self._patterns)
            self._known[name] = known
        return known


def scope_of(names: Iterable[str]) -> str:
    """Return the scopes of a record's metrics, as one name."""
    scopes = dict.fromkeys(split_source(name)[0] for name in names)
    if len(scopes) > 1:  # constant fields have none
        scopes.pop("", None)
    return ", ".join(scopes)


def key_problems(keys: object) -> list[str]:
    """List what is wrong with `keys=`."""
    if keys is None or (isinstance(keys, list | tuple) and keys and all(isinstance(key, str) for key in keys)):
        return []
    return [f"keys must be a list of names or patterns such as '*/loss', or None for all; got {keys!r:.80}"]
