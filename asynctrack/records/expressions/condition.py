"""Condition: a test on a run, or on a run at one of its records: `loss < 0.1 and (val/acc >= 0.9 or step > 1000)`."""

from __future__ import annotations

from typing import Final

from asynctrack.records.expressions.grammar import Grammar
from asynctrack.records.expressions.subject import Subject

# What changes of a run while no record comes.
_OF_TIME: Final = frozenset({"status", "age", "duration", "size", "ended_at", "error"})


class Condition:
    """A condition, parsed.

    Attributes:
        text: in its canonical form.
        fields: names of `FIELDS` that it asks for.
        folded: metrics of which it asks for an aggregate.

    Raises:
        InvalidExpression: it cannot be parsed; the message says where, and what was expected.
    """

    def __init__(self, text: str, *, of_records: bool = False) -> None:
        """Parse a condition.

        Args:
            text: of it.
            of_records: it is asked of a `RecordSubject`, as `asynctrack wait` does. A name stands for what the record has, and one in quotes before an operator is a name too.
        """
        grammar = Grammar(text, of_records=of_records)
        test = grammar.condition()
        self.text = test.text
        self._of_records = of_records
        self._test = test.of
        self._asked = grammar.asked
        self.fields: frozenset[str] = frozenset(grammar.asked.fields)
        self.folded: frozenset[str] = frozenset(grammar.asked.folded)

    def __repr__(self) -> str:
        return f"Condition({self.text!r})"

    @property
    def changes_with_time(self) -> bool:
        """Return True if it may come to hold while no record comes."""
        return not _OF_TIME.isdisjoint(self.fields)

    def holds(self, subject: Subject) -> bool:
        """Return True if a subject meets the condition.

        Raises:
            UnknownGoal: it asks for the best of a metric, and nobody has said whether less or more of it is better.
        """
        if self._of_records:
            self._asked.at_record(subject.known())
        return self._test(subject)

    @property
    def missing(self) -> list[str]:
        """Return the names that nothing has had that was asked."""
        return sorted(self._asked.unseen & self._asked.tried)

    def what_is_missing(self, nothing: str = "no run") -> str:
        """Say which names nothing has had that was asked, and which were perhaps meant.

        Args:
            nothing: the beginning of the sentence.

        Returns:
            The sentence; empty where each name was found, or where there were no names at all.
        """
        return self._asked.what_is_missing(nothing)
