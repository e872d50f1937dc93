"""Bins: counts values by bins of equal width. Runs anywhere; standard library only."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence


def count(values: Sequence[float], bins: int) -> tuple[list[int], list[float]]:
    """Count the finite values in `bins` bins of equal width. Return the counts and the edges, one more; the last bin includes both of its edges."""
    finite = [float(value) for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = [low + (high - low) * at / bins for at in range(bins)] + [high]
    counts = [0] * bins
    for value in finite:
        counts[min(bisect.bisect_right(edges, value), bins) - 1] += 1
    return counts, edges
