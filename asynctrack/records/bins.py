"""Bins: how many values lie where. Runs anywhere; standard library only."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence


def count(values: Sequence[float], bins: int) -> tuple[list[int], list[float]]:
    """How many of the finite values lie in each of so many bins of equal width, and the edges of these; the last bin has both of its edges."""
    finite = [float(value) for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = [low + (high - low) * at / bins for at in range(bins)] + [high]
    counts = [0] * bins
    for value in finite:
        counts[min(bisect.bisect_right(edges, value), bins) - 1] += 1
    return counts, edges
