"""Histogram: the values of an array in TensorFlow's buckets. Runs in a delivery; needs NumPy.

The buckets are those of `tsl/lib/histogram/histogram.cc`: limits at +-1e-12 * 1.1**i up to 1e20, at 0 and at the ends of the doubles, each
the upper end of its bucket. As there, buckets in a row that are empty become one. A message `HistogramProto` of `summary.proto` holds them.
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
    """The message; None where no value is finite, since nothing else has a place in it.

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
    """The message of values that are counted already, each taken to lie in the middle of its bucket; None where there are none."""
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
    """Which buckets stay: all that are not empty, and of empty ones in a row the last, with its limit."""
    import numpy

    full = counts > 0
    return numpy.flatnonzero(full | numpy.append(full[1:], True))
