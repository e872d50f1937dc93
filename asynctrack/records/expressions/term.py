"""Term: a name or an aggregate by itself, as a column of a table is one: `config.lr`, `max(val/acc)`."""

from __future__ import annotations

from typing import Any

from asynctrack.records.expressions.asked import Asked
from asynctrack.records.expressions.grammar import Grammar
from asynctrack.records.expressions.operands import Operand
from asynctrack.records.expressions.subject import Subject


class Term:
    """A name or an aggregate, parsed.

    Attributes:
        text: in its canonical form.
        how: the aggregate, "best" among them; None for a name.
        key: the metric of an aggregate, or a name's key where it may be that of a metric; None where it cannot.

    Raises:
        InvalidExpression: it cannot be parsed.
    """

    def __init__(self, text: str) -> None:
        grammar = Grammar(text)
        self._fill(grammar.term(), grammar.asked)

    @classmethod
    def _made(cls, operand: Operand, asked: Asked) -> Term:
        term = cls.__new__(cls)
        term._fill(operand, asked)
        return term

    def _fill(self, operand: Operand, asked: Asked) -> None:
        self.text = operand.text
        self.how = operand.how
        self.key = operand.key
        self._of = operand.of
        self._asked = asked

    def __repr__(self) -> str:
        return f"Term({self.text!r})"

    def of(self, subject: Subject) -> Any:
        """Return its value; MISSING where the subject has none.

        Raises:
            UnknownGoal: it is the best of a metric, and nobody has said whether less or more of it is better.
        """
        return self._of(subject)

    def what_is_missing(self, nothing: str = "no run") -> str:
        """Say which names nothing has had that was asked, of all terms that were parsed with it; see `Condition`."""
        return self._asked.what_is_missing(nothing)


def terms(text: str) -> list[Term]:
    """Parse names and aggregates with commas between.

    Raises:
        InvalidExpression: they cannot be parsed.
    """
    grammar = Grammar(text)
    return [Term._made(operand, grammar.asked) for operand, _ in grammar.terms()]


def directed(text: str) -> list[tuple[Term, bool]]:
    """Parse names and aggregates with commas between, and tell for each whether a `-` stands before it.

    Raises:
        InvalidExpression: they cannot be parsed.
    """
    grammar = Grammar(text)
    return [(Term._made(operand, grammar.asked), minus) for operand, minus in grammar.terms(directed=True)]
