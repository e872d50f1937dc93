"""Values: parses the sides of comparisons: literals, names and aggregates."""

from __future__ import annotations

from typing import Final

from asynctrack.records.expressions import comparing, names
from asynctrack.records.expressions.asked import meant
from asynctrack.records.expressions.cursor import TokenCursor
from asynctrack.records.expressions.operands import Operand, aggregate, field, literal, metric_first, named, prefixed
from asynctrack.records.expressions.tokens import ExpressionToken

# Longer words are not repeated in an advice.
_LONGEST_ADVISED: Final = 60


class ValueGrammar(TokenCursor):
    """Parses values."""

    def _status(self) -> Operand:
        self._known_status(self._now)
        self._at += 1
        text = self._tokens[self._at - 1].text
        return literal(text, text)

    def _known_status(self, token: ExpressionToken) -> None:
        if token.kind not in ("word", "quoted") or token.text not in names.STATUSES:
            raise self._wrong(f"a status ({', '.join(names.STATUSES)})", token, meant(token.text, names.STATUSES))

    def _value(self, expected: str, *, says_of_what: bool = False) -> Operand:
        operand = self._literal()
        if operand is not None:
            return operand
        free = self._now.kind == "word" and not self._names_something()
        if says_of_what and free and not self._is("(", 1):
            raise self._wrong(expected, more=self._in_quotes())
        return self._name(expected)

    def _literal(self) -> Operand | None:
        """Take a literal; None where there is none."""
        token = self._now
        if token.kind == "quoted":
            found = literal(_quoted(token.text), token.text)
        elif token.kind == "word" and token.text in names.CONSTANTS:
            found = literal(token.text, names.CONSTANTS[token.text])
        elif token.kind == "word" and (value := names.number(token.text)) is not None:
            found = literal(token.text, value)
        else:
            return None
        self._at += 1
        return found

    def _name(self, expected: str) -> Operand:
        """Take a name or an aggregate."""
        token = self._now
        if token.kind == "backquoted":
            self._at += 1
            return named(token.text, names.backquoted(token.text), self.asked, of_records=self._of_records)
        if token.kind != "word" or token.text in names.KEYWORDS:
            raise self._wrong(expected)
        if self._is("(", 1):
            return self._aggregate()
        self._refuse_signs(expected)
        if token.text in names.CONSTANTS or names.number(token.text) is not None:
            raise self._wrong(expected, more="; a name that reads as a value stands in backquotes")
        prefix, dot, _ = token.text.partition(".")
        if dot and prefix in names.PREFIXES:
            return prefixed(prefix, self._key(), self.asked, of_records=self._of_records)
        self._at += 1
        name = names.ALIASES.get(token.text, token.text)
        if name in names.FIELDS:
            return field(name, self.asked)
        return named(token.text, token.text, self.asked, of_records=self._of_records)

    def _aggregate(self) -> Operand:
        token = self._now
        if token.text not in names.AGGREGATES:
            raise self._wrong(
                f"one of {', '.join(names.AGGREGATES)} before '('", more=meant(token.text, names.AGGREGATES)
            )
        self._at += 2
        argument = self._now
        if argument.kind not in ("word", "quoted", "backquoted"):
            raise self._wrong("the name of a metric")
        if argument.kind == "word":
            self._refuse_signs("the name of a metric")
        if argument.kind == "word" and argument.text.startswith("metric."):
            key = self._key()
        else:
            self._at += 1
            key = argument.text
        if not self._take(")"):
            raise self._wrong("')'")
        return aggregate(token.text, key, self.asked, (self._text, token.at))

    def _key(self) -> str:
        """Take what stands behind `config.`, in backquotes or not."""
        token = self._now
        self._at += 1
        if key := token.text.partition(".")[2]:
            return key
        if self._now.kind != "backquoted" or self._now.at != token.end:
            raise self._wrong(f"a key behind {token.text!r}")
        self._at += 1
        return self._tokens[self._at - 1].text

    def _is_old_name(self) -> bool:
        """Return True where a name of a record's metric stands before an operator: in conditions on records it may be any word, and stand in quotes."""
        token, after = self._now, self._tokens[min(self._at + 1, len(self._tokens) - 1)]
        return (
            self._of_records
            and (token.kind == "quoted" or (token.kind == "word" and token.text not in ("and", "or", "step", "status")))
            and after.kind == "sign"
            and after.text in comparing.OPERATORS
        )

    def _old_name(self) -> Operand:
        token = self._now
        if (
            token.kind == "word"
            and names.number(token.text) is None
            and token.text not in (*names.CONSTANTS, *names.KEYWORDS)
        ):
            if self._names_something():
                text, otherwise = token.text, self._name("")
                return metric_first(text, text, otherwise, self.asked)
            text = token.text if names.is_bare(token.text) else names.backquoted(token.text)
        else:
            text = names.backquoted(token.text)
        self._at += 1
        return named(token.text, text, self.asked, of_records=True)

    def _names_something(self) -> bool:
        """Return True for a word that is no free name, whatever config and metrics there are."""
        word = self._now.text
        prefix, dot, _ = word.partition(".")
        return word in names.FIELDS or word in names.ALIASES or bool(dot and prefix in names.PREFIXES)

    def _refuse_signs(self, expected: str) -> None:
        token = self._now
        if not names.is_bare(token.text):
            said = "a name with other signs than letters, digits and _ . / : @ - stands in backquotes"
            example = f": {names.backquoted(token.text)}" if len(token.text) <= _LONGEST_ADVISED else ""
            raise self._wrong(expected, more=f"; {said}{example}")

    def _in_quotes(self) -> str:
        token = self._now
        if token.kind != "word" or token.text in names.KEYWORDS or len(token.text) > _LONGEST_ADVISED:
            return ""
        key = names.spelled(token.text)
        return f"; text stands in quotes: {_quoted(token.text)}, and on this side a name says what it is of: metric.{key}, config.{key}"


def _quoted(text: str) -> str:
    quote = '"' if "'" in text and '"' not in text else "'"
    return quote + text.replace(quote, quote * 2) + quote
