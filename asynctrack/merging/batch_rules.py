"""Batch rules: decide from positions alone what becomes of a batch that reaches the merger. Pure functions."""

from __future__ import annotations

from typing import Final, Literal

Verdict = Literal["append", "repeat", "gap", "overlap"]

# The positions of a worker's notes begin at a multiple of this: no two workers of a journal share any.
_NOTES_OF_A_WORKER: Final = 1 << 40


def judge(start: int, end: int, seen: int) -> Verdict:
    """Decide what becomes of a batch of a ring.

    Args:
        start: the position of its first byte in the ring.
        end: the position behind its last.
        seen: up to where the ring is in the merged journal.
    """
    if end <= seen:
        return "repeat"
    if start > seen:
        return "gap"
    return "append" if start == seen else "overlap"


def judge_notes(start: int, end: int, seen: int) -> Verdict:
    """Decide the same of a batch of a worker's notes, which another worker continues at another position."""
    if start > seen and start % _NOTES_OF_A_WORKER == 0:
        return "append"
    return "append" if not seen and end > seen else judge(start, end, seen)
