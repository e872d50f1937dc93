"""Condition: a test on records, `loss < 0.1 and (val/acc >= 0.9 or step > 1000)`. Parsed by hand; nothing is evaluated as code.

    condition  = all { "or" all }
    all        = one { "and" one }
    one        = "(" condition ")" | KEY OPERATOR NUMBER | "status" ("==" | "!=") STATUS
    OPERATOR   = "<" | "<=" | ">" | ">=" | "==" | "!="

A KEY is a metric's name, nested names joined by `/`, or `step`. A name with blanks or other signs, or a metric that is itself called
`step`, `status`, `and` or `or`, stands in quotes. A NUMBER is what `float` reads, `nan` and `inf` too; both compare as in
Python. A comparison with a key that a record does not have, or whose value is no number, is false.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, NamedTuple, get_args

from asynctrack._system.suggestions import hint
from asynctrack.client.run_state import State
from asynctrack.errors import InvalidExpression
from asynctrack.records.codec import Record
from asynctrack.records.plain import flat

STATUSES: Final = get_args(State)

_TOKEN: Final = re.compile(r"""\s*(?:(?P<sign>[()]|[<>=!]=?)|(?P<quoted>'[^']*'|"[^"]*")|(?P<word>[^\s()<>=!'"]+))""")
_OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
# Deeper than any person nests, shallow enough for the recursion below.
_MAX_DEPTH: Final = 50
# Names that are remembered for a suggestion; a run that makes up a name per record must not fill the memory.
_MOST_KNOWN: Final = 10_000
# Names that a message shows. Arbitrary.
_SHOWN: Final = 5


class Moment(NamedTuple):
    """A moment at which a condition is evaluated: at a record, or at the end of a run."""

    status: str
    step: int | None
    values: Mapping[str, Any]


Test = Callable[[Moment], bool]


class Condition:
    """A condition, parsed.

    Attributes:
        text: as it was given.
        of_status: True if it asks for the run's status.
        missing: the metrics that it asks for and that none of the records so far has.
        known: metrics that those records have, as long as one is missing.

    Raises:
        InvalidExpression: it cannot be parsed; the message says where, and what was expected.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.of_status = False
        self.missing: set[str] = set()
        self.known: set[str] = set()
        self._tokens = _split(text)
        self._at = 0
        self._test = self._any(0)
        if not self._is("end"):
            raise self._wrong("'and', 'or' or the end")

    def holds(self, record: Record | None, status: str) -> bool:
        """Return True if a record of a run with this status meets the condition."""
        if record is None:
            return self._test(Moment(status, None, {}))
        values = flat(record.data)
        if self.missing:
            self._learn(values)
        return self._test(Moment(status, record.step, values))

    def what_is_missing(self) -> str:
        """Say which metrics no record so far has, and which were perhaps meant; empty where each was in a record, or where there are no records."""
        if not self.missing or not self.known:
            return ""
        names = sorted(self.missing)
        listed = " or ".join(f"`{name}`" for name in names)
        meant = next((told for name in names if (told := hint(name, self.known))), "")
        return f"no record has {listed}{meant or f'; there are {_some(self.known)}'}"

    def _learn(self, values: Mapping[str, Any]) -> None:
        self.missing.difference_update(values)
        if len(self.known) < _MOST_KNOWN:
            self.known.update(values)

    def _any(self, depth: int) -> Test:
        tests = [self._all(depth)]
        while self._take("word", "or"):
            tests.append(self._all(depth))
        return tests[0] if len(tests) == 1 else lambda moment: any(test(moment) for test in tests)

    def _all(self, depth: int) -> Test:
        tests = [self._one(depth)]
        while self._take("word", "and"):
            tests.append(self._one(depth))
        return tests[0] if len(tests) == 1 else lambda moment: all(test(moment) for test in tests)

    def _one(self, depth: int) -> Test:
        if self._take("sign", "("):
            if depth == _MAX_DEPTH:
                raise self._wrong(f"at most {_MAX_DEPTH} nested parentheses")
            test = self._any(depth + 1)
            if not self._take("sign", ")"):
                raise self._wrong("')'")
            return test
        token = self._tokens[self._at]
        if token.kind not in ("word", "quoted") or (token.kind == "word" and token.text in ("and", "or")):
            raise self._wrong("the name of a metric, 'step', 'status' or '('")
        self._at += 1
        if token.kind == "word" and token.text == "status":
            return self._status()
        compare = self._operator(tuple(_OPERATORS))
        wanted = self._number()
        if token.kind == "word" and token.text == "step":
            return lambda moment: moment.step is not None and compare(moment.step, wanted)
        key = token.text
        self.missing.add(key)
        return lambda moment: isinstance(value := moment.values.get(key), int | float) and compare(value, wanted)

    def _status(self) -> Test:
        self.of_status = True
        compare = self._operator(("==", "!="))
        token = self._tokens[self._at]
        if token.text not in STATUSES:
            raise self._wrong(f"a status ({', '.join(STATUSES)})")
        self._at += 1
        return lambda moment: compare(moment.status, token.text)

    def _operator(self, signs: tuple[str, ...]) -> Callable[[Any, Any], bool]:
        token = self._tokens[self._at]
        if token.kind != "sign" or token.text not in signs:
            raise self._wrong(f"one of {' '.join(signs)}")
        self._at += 1
        return _OPERATORS[token.text]

    def _number(self) -> float:
        token = self._tokens[self._at]
        try:
            if token.kind != "word":
                raise ValueError
            number = float(token.text)
        except ValueError:
            raise self._wrong("a number") from None
        self._at += 1
        return number

    def _is(self, kind: str) -> bool:
        return self._tokens[self._at].kind == kind

    def _take(self, kind: str, text: str) -> bool:
        found = self._tokens[self._at][:2] == (kind, text)
        self._at += found
        return found

    def _wrong(self, expected: str) -> InvalidExpression:
        token = self._tokens[self._at]
        return InvalidExpression(
            self.text, token.at + 1, expected, repr(token.text) if token.kind != "end" else "the end"
        )


def _some(names: Collection[str]) -> str:
    shown = sorted(names)[:_SHOWN]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


def _split(text: str) -> list[_Token]:
    tokens, at, end = [], 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            raise InvalidExpression(text, at + 1, "a name, a number, an operator or a parenthesis", repr(text[at]))
        kind = str(match.lastgroup)
        found = match[kind]
        tokens.append(_Token(kind, found[1:-1] if kind == "quoted" else found, match.start(kind)))
        at = match.end()
    return [*tokens, _Token("end", "", end)]
