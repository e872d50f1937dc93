"""Tokens: an expression cut into its words, in one pass."""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

from asynctrack.errors import InvalidExpression

Kind = Literal["sign", "quoted", "backquoted", "word", "end"]

_WORD: Final = r"[^\s()<>=!'\"`,]+"
_TOKEN: Final = re.compile(
    rf"""\s*(?:(?P<sign>[(),]|[<>=!]=?)|(?P<quoted>'(?:[^']|'')*'|"(?:[^"]|"")*")|(?P<backquoted>`(?:[^`]|``)*`)|(?P<word>{_WORD}))"""
)
# Before there were lists, a name could have a comma in it.
_WORD_WITH_COMMA: Final = re.compile(r"\s*(?P<word>[^\s()<>=!'\"`,][^\s()<>=!'\"`]*)")


class ExpressionToken(NamedTuple):
    """A word of an expression.

    Attributes:
        kind: of it.
        text: without quotes.
        at: the index of its first character.
        end: the index behind its last one.
    """

    kind: Kind
    text: str
    at: int
    end: int


def split(text: str, *, commas_in_names: bool = False) -> list[ExpressionToken]:
    """Cut a text into tokens; the last one is its end.

    Args:
        text: of the expression.
        commas_in_names: a comma belongs to the word before it, but for the lists after `in`.
    """
    tokens: list[ExpressionToken] = []
    at, end, depth = 0, len(text.rstrip()), 0  # the depth is that in a list
    while at < end:
        match = (_WORD_WITH_COMMA.match(text, at) if commas_in_names and not depth else None) or _TOKEN.match(text, at)
        if match is None:
            raise _no_token(text, at)
        kind: Kind = match.lastgroup  # type: ignore[assignment]  # the groups are the kinds
        found = match[kind]
        if kind in ("quoted", "backquoted"):
            found = found[1:-1].replace(found[0] * 2, found[0])
        elif found == "(":
            depth += depth > 0 or (bool(tokens) and tokens[-1].kind == "word" and tokens[-1].text == "in")
        elif found == ")":
            depth -= depth > 0
        tokens.append(ExpressionToken(kind, found, match.start(kind), match.end()))
        at = match.end()
    return [*tokens, ExpressionToken("end", "", end, end)]


def _no_token(text: str, at: int) -> InvalidExpression:
    at = len(text) - len(text[at:].lstrip())
    quote = text[at]
    expected = f"a closing {quote}" if quote in "'\"`" else "a name, a number, an operator or a parenthesis"
    return InvalidExpression(text, at + 1, expected, "the end" if quote in "'\"`" else repr(quote))
