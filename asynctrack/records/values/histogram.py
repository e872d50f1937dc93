"""Histogram: counts of values by bins. Runs in the caller."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

from asynctrack._system.suggestions import suggests
from asynctrack.errors import InvalidValue, InvalidValueType
from asynctrack.records.arrays import of_torch, unmasked
from asynctrack.records.bins import count
from asynctrack.records.media_types import Value

# More values than these are counted at once, in 0.4 ms: as they are they would take a quarter of a megabyte of the queue.
_MOST_RAW_VALUES: Final = 65_536
# As W&B has it.
_MOST_BINS: Final = 512


class Histogram(Value):
    """Counts values by bins.

    Args:
        values: an array or a sequence of numbers of any shape; those that are not finite are left out. More than 65,536 are counted here, fewer by readers.
        np_histogram: what `numpy.histogram` returns: counts, and the edges between them, one more.
        num_bins: number of bins of equal width, 1 to 512.

    Raises:
        InvalidValue: neither of the two is given, or both, or their lengths do not fit.
    """

    @suggests
    def __init__(
        self,
        values: Any = None,
        np_histogram: Sequence[Any] | None = None,
        num_bins: int = 64,
    ) -> None:
        if (values is None) == (np_histogram is None):
            raise InvalidValue(
                "Histogram", "values or np_histogram=(counts, edges)", "both" if np_histogram else "none"
            )
        self._content: Any = None
        self._meta: dict[str, Any]
        if np_histogram is not None:
            self._meta = _counted(np_histogram)
            return
        if isinstance(num_bins, bool) or not isinstance(num_bins, int) or not 1 <= num_bins <= _MOST_BINS:
            raise InvalidValue("Histogram", f"num_bins from 1 to {_MOST_BINS}", f"{num_bins!r:.80}")
        self._meta = {"num_bins": num_bins}
        self._content = _numbers(values)
        if len(self._content) > _MOST_RAW_VALUES:
            self._meta, self._content = _count(self._content, num_bins), None

    def __repr__(self) -> str:
        counted = f"{len(self._meta['counts'])} bins" if "counts" in self._meta else f"{len(self._content)} values"
        return f"<Histogram of {counted}>"

    def wire(self) -> list[Any]:
        return ["histogram", "", self._meta, self._content, [], ""]


def _numbers(values: Any) -> Any:
    """Copy an array or a list of numbers.

    Raises:
        InvalidValue: it holds something else.
    """
    if hasattr(values, "detach"):
        values = of_torch(values)
    if hasattr(values, "__array__"):
        import numpy

        array = numpy.array(unmasked(numpy.asanyarray(values))).ravel()
        if array.dtype.kind == "V" or (array.dtype.kind == "f" and array.dtype.itemsize < 2):  # of ml_dtypes
            array = array.astype("f4")
        if array.dtype.kind not in "buif":
            raise InvalidValueType("Histogram", "numbers", f"an array of dtype {array.dtype}")
        return array
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidValueType("Histogram", "an array or a sequence of numbers", f"{values!r:.80} ({error})") from error


def _count(values: Any, bins: int) -> dict[str, Any]:
    """Replace many values by their counts."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        counts, edges = count(values, bins)
        return {"counts": counts, "edges": edges}
    array = numpy.asarray(values)
    array = array if array.dtype.kind in "bui" else array[numpy.isfinite(array)]
    counts, edges = numpy.histogram(array, bins)
    return {"counts": counts.tolist(), "edges": edges.astype("f8").tolist()}


def _counted(given: Sequence[Any]) -> dict[str, Any]:
    """Check counts and edges, and return them."""
    try:
        counts, edges = ([float(item) for item in items] for items in given)
        counts = [int(item) if item.is_integer() else item for item in counts]
    except (TypeError, ValueError) as error:
        raise InvalidValue("Histogram", "np_histogram=(counts, edges)", f"{given!r:.80}") from error
    if not counts or len(edges) != len(counts) + 1:
        raise InvalidValue("Histogram", "one edge more than counts", f"{len(counts)} counts, {len(edges)} edges")
    return {"counts": counts, "edges": edges}
