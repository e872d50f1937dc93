"""Expressions: conditions on runs and records, and the values that tables show and are sorted by. They know no run. Run anywhere.

`docs/reference/expressions.md` has the language. Nothing is evaluated as code.
"""

from asynctrack.records.expressions.condition import Condition
from asynctrack.records.expressions.names import STATUSES, seconds, spelled
from asynctrack.records.expressions.order import Order
from asynctrack.records.expressions.subject import MISSING, Goal, How, RecordSubject, Subject
from asynctrack.records.expressions.term import Term, terms

__all__ = [
    "MISSING",
    "STATUSES",
    "Condition",
    "Goal",
    "How",
    "Order",
    "RecordSubject",
    "Subject",
    "Term",
    "seconds",
    "spelled",
    "terms",
]
