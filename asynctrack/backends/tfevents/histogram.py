"""Histogram: sort the values of an array into TensorFlow's buckets. Runs in a delivery; needs NumPy.

The buckets are those of `tsl/lib/histogram/histogram.cc`: limits at +-1e-12 * 1.1**i up to 1e20, at 0 and at the ends
of the doubles, each the upper end of its bucket. As there, neighbouring empty buckets become one. A message
`HistogramProto` of `summary.proto` holds them.
"""

from __future__ import annotations

import functools
import itertools
import operator
import struct
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from asynctrack.backends.tfevents.messages import block, double
from asynctrack.records.codec import Array

if TYPE_CHECKING:
    import numpy


def encode_histogram(values: Array) -> bytes | None:
    """Encode an array's histogram; None where no value is finite, since the message has no place for others.

    Raises:
        ImportError: NumPy is missing.
    """
    import numpy

    with numpy.errstate(over="ignore"):
        items = numpy.asarray(values, dtype="<f8").ravel()
        finite = items[numpy.isfinite(items)]
        if not finite.size:
            return None
        limits = _limits()
        places = numpy.minimum(numpy.searchsorted(limits, finite, side="right"), len(limits) - 1)
        counts = numpy.bincount(places, minlength=len(limits))
        kept = _last_of_each_run(counts)
        return b"".join((
            double(1, finite.min()),
            double(2, finite.max()),
            double(3, finite.size),
            double(4, finite.sum()),
            double(5, (finite * finite).sum()),
            block(6, limits[kept].astype("<f8").tobytes()),
            block(7, counts[kept].astype("<f8").tobytes()),
        ))  # fmt: skip


def encode_counts(counts: Sequence[float], edges: Sequence[float]) -> bytes | None:
    """Encode a histogram that is counted already; None where it has no values.

    Each value counts as lying in the middle of its bucket.
    """
    total = sum(counts)
    if not total:
        return None
    middles = [(low + high) / 2 for low, high in itertools.pairwise(edges)]
    return b"".join((
        double(1, edges[0]),
        double(2, edges[-1]),
        double(3, total),
        double(4, sum(map(operator.mul, counts, middles))),
        double(5, sum(count * middle * middle for count, middle in zip(counts, middles, strict=True))),
        block(6, struct.pack(f"<{len(counts)}d", *edges[1:])),
        block(7, struct.pack(f"<{len(counts)}d", *counts)),
    ))  # fmt: skip


@functools.cache
def _limits() -> numpy.ndarray[Any, Any]:
    import numpy

    positive, limit = [], 1e-12
    while limit < 1e20:
        positive.append(limit)
        limit *= 1.1
    positive.append(sys.float_info.max)
    return numpy.array([*(-limit for limit in reversed(positive)), 0.0, *positive])


def _last_of_each_run(counts: numpy.ndarray[Any, Any]) -> numpy.ndarray[Any, Any]:
    """Return the indices of the buckets that stay.

    These are all that are not empty, and the last of neighbouring empty ones, with its limit.
    """
    import numpy

    full = counts > 0
    return numpy.flatnonzero(full | numpy.append(full[1:], True))
