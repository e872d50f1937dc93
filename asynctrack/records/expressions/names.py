"""Names: which names stand for something of every run, how a name is written, and what kinds of literals there are."""

from __future__ import annotations

import math
import re
from typing import Final

# What has become of a run, as `ls` says it.
STATUSES: Final = (
    "running", "finished", "failed", "crashed", "preempted", "lost", "elsewhere", "damaged", "unreadable",
)  # fmt: skip

FIELDS: Final = frozenset({
    "step", "status", "name", "id", "project", "tag", "group", "job_type", "notes", "host", "user", "commit", "age", "duration", "records", "size",
    "created_at", "ended_at", "error",
})  # fmt: skip
ALIASES: Final = {"tags": "tag"}
AGGREGATES: Final = ("best", "first", "last", "max", "mean", "min")
FUNCTIONS: Final = (*AGGREGATES, "isnan")
KEYWORDS: Final = frozenset({"and", "or", "not", "in"})
CONSTANTS: Final = {"true": True, "false": False, "null": None}
PREFIXES: Final = ("config", "metric", "summary")

# A bare name: letters and digits of any script, and a few signs.
_BARE: Final = re.compile(r"[\w./:@-]+")
_NUMBER: Final = re.compile(
    r"[+-]?(?:\d[\d_]*(?:\.[\d_]*)?|\.[\d_]+)(?:e[+-]?[\d_]+)?|[+-]?(?:nan|inf|infinity)", re.IGNORECASE
)
_WITH_UNIT: Final = re.compile(r"([+-]?(?:\d+(?:\.\d*)?|\.\d+))([a-z]+)", re.IGNORECASE)
_UNITS: Final = {
    "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
}  # fmt: skip
# Integers up to this length are exact, as a seed is; longer ones are floats, since Python reads long ones in quadratic time.
_EXACT_DIGITS: Final = 40


def spelled(key: str) -> str:
    """Write a key as it stands in an expression after `config.`, or in the parentheses of an aggregate: in backquotes where it must."""
    bare = is_bare(key) and key.partition(".")[0] not in PREFIXES
    return key if bare else backquoted(key)


def backquoted(key: str) -> str:
    """Write a key in backquotes."""
    return "`" + key.replace("`", "``") + "`"


def is_bare(word: str) -> bool:
    """Return True if a word may be a name without backquotes."""
    return _BARE.fullmatch(word) is not None


def number(word: str) -> float | None:
    """Read a number; None where a word is none. A unit of time stands for seconds, one of size for bytes."""
    if _NUMBER.fullmatch(word) is not None:
        try:
            return int(word) if len(word) <= _EXACT_DIGITS and word.strip("+-_").isdigit() else float(word)
        except ValueError:  # underscores where Python takes none
            return None
    match = _WITH_UNIT.fullmatch(word)
    if match is None or match[2].lower() not in _UNITS:
        return None
    scaled = float(match[1]) * _UNITS[match[2].lower()]
    return int(scaled) if math.isfinite(scaled) and scaled == int(scaled) else scaled


def seconds(word: str) -> float | None:
    """Read a number with a unit of time; None where a word is none."""
    match = _WITH_UNIT.fullmatch(word.strip())
    known = match is not None and match[2].lower() in _UNITS and len(match[2]) == 1
    return number(word.strip()) if known and not word.strip().startswith("-") else None
