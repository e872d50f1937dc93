"""Operands: how the value behind a name or an aggregate is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from asynctrack.errors import UnknownGoal
from asynctrack.records.expressions import names
from asynctrack.records.expressions.asked import Asked
from asynctrack.records.expressions.subject import MISSING, How, RecordSubject, Subject

Of = Callable[[Any], Any]


class Operand(NamedTuple):
    """One side of a comparison.

    Attributes:
        kind: what it is.
        text: in its canonical form.
        of: asks a subject for it.
        key: of the metric in an aggregate.
        how: the aggregate.
    """

    kind: Literal["literal", "status", "field", "name", "aggregate"]
    text: str
    of: Of
    key: str | None = None
    how: str | None = None


def literal(text: str, value: Any) -> Operand:
    """Make the operand of a literal."""
    return Operand("literal", text, lambda _: value)


def field(name: str, asked: Asked) -> Operand:
    """Make the operand of something of every run."""
    asked.fields.add(name)
    return Operand("status" if name == "status" else "field", name, lambda subject: subject.field(name))


def prefixed(prefix: str, key: str, asked: Asked, *, of_records: bool) -> Operand:
    """Make the operand of a key of the config, of the summary, or of a metric."""
    if prefix == "metric" or not of_records:  # a record has no config
        asked.unseen.add(key)
    find = {"config": _config, "summary": _summary, "metric": _value if of_records else _last}[prefix]

    def of(subject: Any) -> Any:
        value = find(subject, key)
        asked.note(key, value, subject)
        return value

    spelled = key if names.is_bare(key) else names.backquoted(key)
    return Operand("name", f"{prefix}.{spelled}", of, key if prefix == "metric" else None)


def named(key: str, text: str, asked: Asked, *, of_records: bool) -> Operand:
    """Make the operand of a name that may stand for a key of the config, a metric or a key of the summary, in this order; of records: for a metric."""
    asked.unseen.add(key)

    def of(subject: Any) -> Any:
        value = _value(subject, key) if of_records else _anything(subject, key)
        asked.note(key, value, subject)
        return value

    return Operand("name", text, of, key)


def metric_first(key: str, text: str, otherwise: Operand, asked: Asked) -> Operand:
    """Make the operand of a name that stands for a metric, or for something else as long as no record has had such a metric."""
    asked.never_logged.add(key)

    def of(subject: RecordSubject) -> Any:
        return otherwise.of(subject) if key in asked.never_logged else _value(subject, key)

    return Operand("name", text, of, key)


def aggregate(how: str, key: str, asked: Asked, place: tuple[str, int]) -> Operand:
    """Make the operand of an aggregate; `place` is the expression and the index in it, for an error."""
    asked.unseen.add(key)
    asked.folded.add(key)
    asks: Callable[[Subject, str, Any], Any] = _best if how == "best" else _aggregated

    def of(subject: Subject) -> Any:
        value = asks(subject, key, place if how == "best" else how)
        asked.note(key, value, subject)
        return value

    return Operand("aggregate", f"{how}({names.spelled(key)})", of, key, how)


def _aggregated(subject: Subject, key: str, how: How) -> Any:
    return subject.metric(key, how)


def _best(subject: Subject, key: str, place: tuple[str, int]) -> Any:
    goal = subject.goal(key)
    if goal is not None:
        return subject.metric(key, "min" if goal == "minimize" else "max")
    if subject.metric(key, "last") is MISSING:
        return MISSING
    text, at = place
    raise UnknownGoal(text, at + 1, key, names.spelled(key))


def _anything(subject: Subject, key: str) -> Any:
    value = _config(subject, key)
    if value is MISSING:
        value = subject.metric(key, "last")
    return _summary(subject, key) if value is MISSING else value


def _config(subject: Subject, key: str) -> Any:
    value = subject.config(key)
    return subject.config(key.replace(".", "/")) if value is MISSING and "." in key else value


def _summary(subject: Subject, key: str) -> Any:
    value = subject.summary_value(key)
    return subject.summary_value(key.replace(".", "/")) if value is MISSING and "." in key else value


def _last(subject: Subject, key: str) -> Any:
    return subject.metric(key, "last")


def _value(subject: RecordSubject, key: str) -> Any:
    return subject.value(key)
