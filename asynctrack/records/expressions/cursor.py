"""Cursor: where the parsing of an expression is, and what is said where something else was expected."""

from __future__ import annotations

from typing import Final

from asynctrack.errors import InvalidExpression
from asynctrack.records.expressions.asked import Asked
from asynctrack.records.expressions.tokens import ExpressionToken, split

# As other languages write it.
_FOREIGN: Final = {
    "&&": "and", "&": "and", "||": "or", "|": "or", "AND": "and", "OR": "or", "NOT": "not", "IN": "in", "!": "not",
}  # fmt: skip


class TokenCursor:
    """Goes through the tokens of an expression.

    Attributes:
        asked: what the expression asks for.
    """

    def __init__(self, text: str, *, of_records: bool = False) -> None:
        self.asked = Asked()
        self._text = text
        self._of_records = of_records
        self._tokens = split(text, commas_in_names=of_records)
        self._at = 0

    @property
    def _now(self) -> ExpressionToken:
        return self._tokens[self._at]

    def _is(self, sign: str, ahead: int = 0) -> bool:
        at = self._at + ahead
        return at < len(self._tokens) and self._tokens[at][:2] == ("sign", sign)

    def _is_word(self, word: str, ahead: int = 0) -> bool:
        at = self._at + ahead
        return at < len(self._tokens) and self._tokens[at][:2] == ("word", word)

    def _take(self, sign: str) -> bool:
        found = self._is(sign)
        self._at += found
        return found

    def _take_word(self, word: str) -> bool:
        found = self._is_word(word)
        self._at += found
        return found

    def _wrong(self, expected: str, token: ExpressionToken | None = None, more: str = "") -> InvalidExpression:
        token = token or self._now
        if not more and token.text in _FOREIGN and token.kind in ("word", "sign"):
            more = f"; did you mean `{_FOREIGN[token.text]}`?"
        found = "the end" if token.kind == "end" else repr(token.text)
        return InvalidExpression(self._text, token.at + 1, expected, found, more)
