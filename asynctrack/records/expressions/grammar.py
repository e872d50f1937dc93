"""Grammar: parses expressions by hand, by descent; the depth is bounded, and each token is looked at a few times at most.

condition  = all { "or" all }
all        = one { "and" one }
one        = "not" one | "(" condition ")" | "isnan" "(" value ")" | value OPERATOR value | value [ "not" ] "in" ( list | NAME )
list       = "(" LITERAL { "," LITERAL } [ "," ] ")"
value      = LITERAL | NAME | AGGREGATE "(" METRIC ")"
OPERATOR   = "<" | "<=" | ">" | ">=" | "==" | "!="
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from asynctrack.records.expressions import comparing
from asynctrack.records.expressions.operands import Operand
from asynctrack.records.expressions.value_grammar import ValueGrammar

# Deeper than any person nests, shallow enough for the recursion below.
_MAX_DEPTH: Final = 50
_EXPECTED: Final = "a name, an aggregate such as max(loss), a number, text in quotes, 'not' or '('"
_A_VALUE: Final = "a number, true, false, or text in quotes"


class Test(NamedTuple):
    """A parsed condition, or a part of one.

    Attributes:
        text: in its canonical form.
        of: asks a subject.
        joins: whether it joins several by `and` or `or`.
    """

    text: str
    of: Callable[[Any], bool]
    joins: bool = False


class Grammar(ValueGrammar):
    """Parses one expression."""

    def condition(self) -> Test:
        """Parse the whole text as a condition."""
        test = self._any(0)
        if self._now.kind != "end":
            chain = " (a < b < c is written a < b and b < c)" if self._now.text in comparing.OPERATORS else ""
            raise self._wrong(f"'and', 'or' or the end{chain}")
        return test

    def term(self) -> Operand:
        """Parse the whole text as a name or an aggregate."""
        found, _ = self._term(directed=False)
        if self._now.kind != "end":
            raise self._wrong("the end")
        return found

    def terms(self, *, directed: bool = False) -> list[tuple[Operand, bool]]:
        """Parse the whole text as names and aggregates with commas between, and tell for each whether a `-` stands before it, if that may be."""
        found = [self._term(directed=directed)]
        while self._take(","):
            found.append(self._term(directed=directed))
        if self._now.kind != "end":
            raise self._wrong("a comma or the end")
        return found

    def _term(self, *, directed: bool) -> tuple[Operand, bool]:
        token = self._now
        minus = directed and token.kind == "word" and token.text.startswith("-")
        if minus and token.text == "-":
            self._at += 1
        elif minus:
            self._tokens[self._at] = token._replace(text=token.text[1:], at=token.at + 1)
        return self._name("the name of a config key or a metric, or an aggregate such as max(loss)"), minus

    def _any(self, depth: int) -> Test:
        return self._joined("or", any, lambda: self._all(depth))

    def _all(self, depth: int) -> Test:
        return self._joined("and", all, lambda: self._one(depth))

    def _joined(self, word: str, join: Callable[[Any], bool], parse: Callable[[], Test]) -> Test:
        parts = [parse()]
        while self._take_word(word):
            parts.append(parse())
        if len(parts) == 1:
            return parts[0]
        tests = [part.of for part in parts]
        return Test(
            f" {word} ".join(map(_enclosed, parts)) if word == "and" else f" {word} ".join(part.text for part in parts),
            lambda subject: join(test(subject) for test in tests),
            joins=True,
        )

    def _one(self, depth: int) -> Test:
        if self._is_old_name():
            return self._comparison()
        if self._is_word("not"):
            part = self._nested("", depth)
            return Test(f"not {_enclosed(part)}", lambda subject: not part.of(subject))
        if self._is("("):
            part = self._nested(")", depth)
            return part
        if self._is_word("isnan") and self._is("(", 1):
            return self._isnan()
        return self._comparison()

    def _nested(self, closing: str, depth: int) -> Test:
        if depth == _MAX_DEPTH:
            raise self._wrong(f"at most {_MAX_DEPTH} nested parentheses and 'not'")
        self._at += 1
        if not closing:
            return self._one(depth + 1)
        part = self._any(depth + 1)
        if not self._take(closing):
            raise self._wrong(f"'{closing}'")
        return part._replace(text=f"({part.text})", joins=False) if part.joins else part

    def _isnan(self) -> Test:
        self._at += 2
        operand = self._name("the name of a metric")
        if not self._take(")"):
            raise self._wrong("')'")

        def test(subject: Any) -> bool:
            value = operand.of(subject)
            return isinstance(value, float) and value != value

        return Test(f"isnan({operand.text})", test)

    def _comparison(self) -> Test:
        first = self._now
        left = self._old_name() if self._is_old_name() else self._value(_EXPECTED)
        token = self._now
        if self._is_word("in") or (self._is_word("not") and self._is_word("in", 1)):
            return self._membership(left)
        signs = ("==", "!=") if left.kind == "status" else tuple(comparing.OPERATORS)
        if token.kind != "sign" or token.text not in signs:
            raise self._wrong(f"one of {' '.join(signs)}" + ("" if left.kind == "status" else ", or 'in'"))
        self._at += 1
        right_at = self._now
        right = self._status() if left.kind == "status" else self._value(_A_VALUE, says_of_what=left.kind != "literal")
        if right.kind == "status":
            if left.kind != "literal" or token.text not in ("==", "!="):
                raise self._wrong("status == and a status", right_at)
            self._known_status(first)
        if left.kind == right.kind == "literal":
            raise self._wrong("a name on one side (one with blanks or other signs stands in backquotes)", first)
        compare, one, other = comparing.OPERATORS[token.text], left.of, right.of
        return Test(f"{left.text} {token.text} {right.text}", lambda subject: compare(one(subject), other(subject)))

    def _membership(self, left: Operand) -> Test:
        negated = self._take_word("not")
        self._at += 1
        word, one = "not in" if negated else "in", left.of
        if self._take("("):
            items = [self._list_item(left)]
            while self._take(",") and not self._is(")"):
                items.append(self._list_item(left))
            if not self._take(")"):
                raise self._wrong("',' or ')'")
            values = [item.of(None) for item in items]
            among = comparing.not_among if negated else comparing.among
            listed = ", ".join(item.text for item in items)
            return Test(f"{left.text} {word} ({listed})", lambda subject: among(one(subject), values))
        whole = self._name("a list such as ('a', 'b'), or a name")
        contained, other = comparing.not_contained if negated else comparing.contained, whole.of
        return Test(f"{left.text} {word} {whole.text}", lambda subject: contained(one(subject), other(subject)))

    def _list_item(self, left: Operand) -> Operand:
        if left.kind == "status":
            return self._status()
        operand = self._literal()
        if operand is None:
            raise self._wrong(_A_VALUE, more=self._in_quotes())
        return operand


def _enclosed(part: Test) -> str:
    return f"({part.text})" if part.joins else part.text
