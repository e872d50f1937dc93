"""Asked: what an expression asks for, and which of its names nothing has had so far."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from asynctrack._system.suggestions import hint
from asynctrack.records.expressions.subject import MISSING, Subject

# Names that are remembered for a suggestion; a run that makes up a name per record must not fill the memory.
_MOST_KNOWN: Final = 10_000
# Subjects that are asked for their names where a name is wrong: a run may have to be read for them.
_MOST_ASKED: Final = 100
# Names that a message shows. Arbitrary.
_SHOWN: Final = 5
# Longer words get no suggestion: to look for one takes the square of the length. Arbitrary.
_LONGEST_MEANT: Final = 100


def meant(word: str, known: Collection[str]) -> str:
    """Ask whether the closest of the known words was meant; empty where none is like it."""
    return hint(word, known) if len(word) <= _LONGEST_MEANT else ""


class Asked:
    """Collects what an expression asks for.

    Attributes:
        fields: of every run.
        folded: metrics of which it asks for an aggregate.
        unseen: names of config, summary and metrics that nothing has had so far.
        tried: those of them that something was asked for.
        known: names that there are instead.
        never_logged: names that stand for something of every run as long as no record has such a metric.
    """

    def __init__(self) -> None:
        self.fields: set[str] = set()
        self.folded: set[str] = set()
        self.unseen: set[str] = set()
        self.tried: set[str] = set()
        self.known: set[str] = set()
        self.never_logged: set[str] = set()
        self._lacking: list[Subject] = []

    def note(self, name: str, value: Any, subject: Subject) -> None:
        """Take note of an answer."""
        if name not in self.unseen:
            return
        if value is not MISSING:
            self.unseen.discard(name)
            return
        self.tried.add(name)
        if len(self._lacking) < _MOST_ASKED and not any(one is subject for one in self._lacking[-1:]):
            self._lacking.append(subject)

    def at_record(self, names: Collection[str]) -> None:
        """Take note of all names of a record."""
        if self.never_logged:
            self.never_logged.difference_update(names)
        if self.unseen:
            self.tried |= self.unseen
            self.unseen.difference_update(names)
            self.learn(names)

    def learn(self, names: Collection[str]) -> None:
        """Take note of names that there are."""
        if len(self.known) < _MOST_KNOWN:
            self.known.update(names)

    def what_is_missing(self, nothing: str) -> str:
        """Say which names nothing has had, and which were perhaps meant; empty where each was found, or where there are no names at all."""
        names = sorted(self.unseen & self.tried)
        if not names:
            return ""
        for subject in self._lacking:
            self.learn(subject.known())
        if not self.known:
            return ""
        listed = " or ".join(f"`{name}`" for name in names)
        told = next((told for name in names if (told := meant(name, self.known))), "")
        return f"{nothing} has {listed}{told or f'; there are {_some(self.known)}'}"


def _some(names: Collection[str]) -> str:
    shown = sorted(names)[:_SHOWN]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")
