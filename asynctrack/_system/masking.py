"""Masking: hides what looks like a secret in the arguments of a program and in messages. Runs anywhere. Standard library only.

It guesses, and rather hides too much. It hides the value of each flag, setting (`db.password=x`), header or variable whose name says "key", "token",
"secret" or "password"; the values of such environment variables wherever they stand; passwords in URLs; and tokens of known shapes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Final

MASK: Final = "***"

# Always secret, as a word of a name or as the beginning or end of one.
_SECRET: Final = ("password", "passwd", "passphrase", "secret", "credential", "apikey", "accesskey", "privatekey")
# Secret as a word, and "token" as the end of one; a small number beside them is a count: `--max-tokens 512`.
_OFTEN: Final = frozenset(
    {
        "key",
        "keys",
        "token",
        "tokens",
        "pwd",
        "auth",
        "authorization",
        "bearer",
        "pass",
        "pat",
        "jwt",
        "cookie",
        "passcode",
    }
)
# Endings of such names that only say where a secret is, or of which kind.
_ABOUT: Final = frozenset(
    {"file", "path", "dir", "name", "env", "type", "metric", "length", "len", "size", "dim", "count"}
)
# These checks cost next to nothing, and most programs have none of the names.
_SIGNS: Final = ("pass", "secret", "credential", "key", "token", "pwd", "auth", "bearer", "pat", "jwt", "cookie", "://")
# Shorter values of variables are words that anything may have for another reason. Arbitrary.
_SHORTEST: Final = 6
# What is longer is data, and cut. Arbitrary.
_LONGEST_ARGUMENT: Final = 4096
_LONGEST_COUNT: Final = 5


def mask_arguments(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return a program's arguments with a mask in place of each secret."""
    masked, secret, many = [], "", False
    values = _secret_values(environment)
    for argument in (str(argument)[:_LONGEST_ARGUMENT] for argument in arguments):
        is_flag = argument.startswith("-") and "=" not in argument and not _is_number(argument)
        if secret and not is_flag:
            hidden = MASK if _hides(secret, argument) else argument
            masked.append(hidden)
            secret = secret if many else ""
            continue
        name = argument.lstrip("-") if is_flag and is_secret(argument) else ""
        secret, many = name, name.lower().endswith("s")
        try:
            masked.append(_mask(argument, values))
        except RecursionError:  # a=a=a=...
            masked.append(MASK)
    return masked


def mask_text(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return a message without the values of secret variables, passwords in URLs, and tokens of known shapes."""
    for value in _secret_values(environment):
        text = text.replace(value, MASK)
    return _mask_shapes(text)


def is_secret(name: str) -> bool:
    """Return True if a flag, a setting or a variable of this name holds a secret."""
    lowered = name.lower()
    if not any(sign in lowered for sign in _SIGNS):
        return False
    words = _words(name)
    if not words or words[-1] in _ABOUT:
        return False
    return any(
        word in _OFTEN or word.startswith(_SECRET) or word.endswith((*_SECRET, "token", "apikeys")) for word in words
    ) or any(pair in ("api key", "pass word", "pass phrase") for pair in map(" ".join, pairwise(words)))


def _hides(name: str, value: str) -> bool:
    """Return True if the value of a secret name is hidden. A small number is taken for a count, except for passwords."""
    always = any(word.startswith(_SECRET) or word.endswith(_SECRET) for word in _words(name))
    return bool(value) and (always or not (_is_number(value) and len(value) <= _LONGEST_COUNT))


def _mask(argument: str, values: Sequence[str]) -> str:
    for value in values:
        argument = argument.replace(value, MASK)
    lowered, (name, equals, rest) = argument.lower(), argument.partition("=")
    if equals and is_secret(name) and _hides(name, rest):
        return f"{name}={MASK}"
    if any(sign in lowered for sign in _SIGNS):
        argument = _patterns().pair.sub(_mask_pair, argument)
    return _mask_shapes(argument)


def _mask_pair(found: re.Match[str]) -> str:
    name, between, value = found.groups()
    if not is_secret(name):
        return f"{name}{between}{_patterns().pair.sub(_mask_pair, value)}"  # `--env=HF_TOKEN=x`
    quote = value[0] if value[0] in "\"'" else ""
    return f"{name}{between}{quote}{MASK}{quote}" if _hides(name, value.strip("\"'")) else found[0]


def _mask_shapes(text: str) -> str:
    if "://" in text and "@" in text:
        text = _patterns().url.sub(rf"\1{MASK}@", text)
    if "earer " in text or "asic " in text:
        text = _patterns().header.sub(rf"\1{MASK}", text)
    return _patterns().shape.sub(MASK, text) if any(shape in text for shape in _SHAPES) else text


def _secret_values(environment: Mapping[str, str]) -> list[str]:
    """Return the values of variables with secret names, the longest first: one may contain another."""
    names = [name for name in environment if name not in ("PWD", "OLDPWD") and is_secret(name)]
    found = {value for name in names if len(value := environment[name]) >= _SHORTEST}
    return sorted(found, key=len, reverse=True)


def _words(name: str) -> list[str]:
    """Split a name into its words: `--dbApi_key` has db, api and key."""
    spaced = "".join(
        f" {c}" if c.isupper() and not before.isupper() else c for before, c in zip(" " + name, name, strict=False)
    )
    return [word.strip("0123456789") for word in "".join(c if c.isalnum() else " " for c in spaced).lower().split()]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


_SHAPES: Final = ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "hf_", "sk-", "xox", "AKIA", "eyJ")


class _Patterns:
    """Regular expressions, compiled when they are first needed: that takes two milliseconds, and most programs need none."""

    def __init__(self) -> None:
        # NAME=VALUE, NAME: VALUE, "NAME": "VALUE"; a value goes on to where the next name begins, a quote or a bracket ends it, or all ends.
        self.pair = re.compile(
            r"""([A-Za-z_][\w.\-]*)(["']?\s*(?:=|:(?!//))\s*)("[^"]*"|'[^']*'|[^"'].*?(?=[,;&\s]\s*["']?[A-Za-z_][\w.\-]*["']?\s*[=:]|["'}\])]|$))""",
            re.DOTALL,
        )
        # A password may have anything in it, and a user without a password may be a token.
        self.url = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*://(?:[^\s/:@]*:(?=\S*@))?)(?:(?<=:)\S+|[^\s/:?#]+)@")
        self.header = re.compile(r"((?:[Bb]earer|[Bb]asic)\s+)[A-Za-z0-9+/=_.~\-]{8,}")
        self.shape = re.compile(
            r"\b(?:gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w\-]{16,}|hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_\-]{20,}"
            r"|xox[abeprs]-[\w\-]{10,}|AKIA[A-Z0-9]{12,}|eyJ[\w\-]{10,}\.[\w\-]+\.[\w\-]*)"
        )


@lru_cache(maxsize=1)
def _patterns() -> _Patterns:
    return _Patterns()
