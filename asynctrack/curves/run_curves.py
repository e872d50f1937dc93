"""Run curves: the curves of one run, brought up to date each time that they are asked for. Runs anywhere."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from asynctrack._system.native import is_native
from asynctrack.curves import saved
from asynctrack.curves.curve import CurveBuckets
from asynctrack.curves.cuts import CutCounts, Cuts, History
from asynctrack.curves.drawing import DrawnMetric, axis_of, curve_of, draw, extents
from asynctrack.curves.drawing_plan import Window
from asynctrack.curves.media_counts import MediaCounts
from asynctrack.curves.pyramid import Pyramid, Watch
from asynctrack.curves.session_begins import SessionBegin, sessions_of
from asynctrack.curves.single_numbers import XAxis
from asynctrack.curves.totals import MetricTotals
from asynctrack.errors import InvalidSettings, NoSuchMetric
from asynctrack.journal.frames import FrameBatch
from asynctrack.journal.layout import Position
from asynctrack.journal.reader import Damage

# More buckets than any picture has. Arbitrary.
_MOST_BUCKETS: Final = 1 << 20
_UNKNOWN: Final = Window(math.nan, math.nan)


class RunCurves:
    """The curves of a run. For any thread.

    Args:
        run: its directory.
        history: "last" leaves out what was logged again after a resume; "all" does not.
        cache: what was read of a long run is kept in the user's cache, and found there. Not where batches are chosen.
        takes: tells of each batch of the journal, in their order, if its records count; None for all.
        native: False has Python do all, True the core; None has what is there.
    """

    def __init__(
        self,
        run: Path,
        history: History = "last",
        *,
        cache: bool = False,
        takes: Callable[[FrameBatch], bool] | None = None,
        native: bool | None = None,
    ) -> None:
        native = is_native if native is None else native
        self._pyramid = Pyramid(run, history, takes=takes, native=native)
        self._has_cache = cache and takes is None
        self._is_begun = False
        self._saved = 0
        self._extents: dict[tuple[str, str], Window | None] = {}  # of metrics over axes
        self._extents_at: Position | None = None  # as far as the journal was read
        self._is_native = native
        self._lock = threading.RLock()

    def grow(
        self,
        fixed: Mapping[int, int] | None = None,
        *,
        cuts: Cuts | None = None,
        watch: Watch | None = None,
    ) -> list[Damage]:
        """Read what the journal has since; see `Pyramid.grow`.

        Returns:
            All damage that was met so far.
        """
        with self._lock:
            if self._has_cache and not self._is_begun and saved.load(self._pyramid):
                self._saved = saved.count(self._pyramid)
            self._is_begun = True
            self._pyramid.grow(fixed, cuts=cuts, watch=watch)
            if self._has_cache and saved.is_worth_saving(self._pyramid, self._saved):
                self._saved = saved.count(self._pyramid)
                saved.save(self._pyramid)
            return self._pyramid.damage

    @property
    def cuts(self) -> Cuts:
        """Return for each session the steps from which on keys are left out."""
        return self._pyramid.cuts

    @property
    def position(self) -> Position:
        """Return the place behind the last batch that was read."""
        return self._pyramid.position

    @property
    def is_rounded(self) -> bool:
        """Return whether a step, a time or an integer was beyond 64 bits, and is not as it was logged."""
        return self._pyramid.is_rounded

    @property
    def left_out(self) -> CutCounts:
        """Return how many records and values were left out because they were logged again."""
        return self._pyramid.left_out

    @property
    def media(self) -> MediaCounts:
        """Return the images and the like that were logged."""
        return self._pyramid.media

    def names(self) -> list[str]:
        """Return the metrics in the order of their first numbers."""
        with self._lock:
            return self._pyramid.names()

    def totals(self, key: str) -> MetricTotals | None:
        """Return what a metric comes to; None where it has no number."""
        with self._lock:
            return self._pyramid.totals(key)

    def memory_bytes(self) -> int:
        """Return about how much memory it takes, without what lies in the user's cache."""
        with self._lock:
            levels = (one for lane in self._pyramid.lanes for one in (lane.rows, *lane.entries.values()))
            return sum(len(level) for of in levels for level in of if not isinstance(level, memoryview))

    def sessions(self) -> list[SessionBegin]:
        """Return where each session begins that has a number, the first one first; somewhat before where it was not logged in order."""
        with self._lock:
            return sessions_of(self._pyramid)

    def extent(self, key: str, x: str) -> tuple[float, float] | None:
        """Return the least and the greatest x of a metric, or somewhat less and more; None where it has no number there."""
        with self._lock:
            return self._extents_of((key,), self._axis(x))[key]

    def curves(
        self, keys: Iterable[str], x: str, x0: float | None, x1: float | None, buckets: int
    ) -> dict[str, CurveBuckets]:
        """Return curves of several metrics.

        Raises:
            NoSuchMetric: the run has no number by a name.
            InvalidSettings: there is no such window.
        """
        keys = tuple(dict.fromkeys(keys))
        with self._lock:
            axis = self._axis(x)
            drawn = self.drawn(keys, x, x0, x1, buckets)
            return {key: curve_of(key, axis, drawn[key], buckets) for key in keys}

    def drawn(
        self, keys: tuple[str, ...], x: str, x0: float | None, x1: float | None, buckets: int
    ) -> dict[str, DrawnMetric]:
        """Draw several metrics; arguments as for `curves`."""
        x0, x1 = window_end("x0", x0, -math.inf), window_end("x1", x1, math.inf)
        if not hasattr(buckets, "__index__") or not 0 < buckets <= _MOST_BUCKETS:
            raise InvalidSettings([f"buckets must be a whole number from 1 to {_MOST_BUCKETS}; got {buckets!r:.80}"])
        if x0 is not None and x1 is not None and not x0 <= x1:
            raise InvalidSettings([f"x0 must not be greater than x1; got {x0} and {x1}"])
        with self._lock:
            axis, known = self._axis(x), dict.fromkeys(self.names())
            for key in (*keys, *([axis.metric] if axis.metric is not None else [])):
                if key not in known:
                    raise NoSuchMetric(key, known, "number")
            if x0 is not None and x1 is not None:
                return self._draw(dict.fromkeys(keys, Window(x0, x1)), axis, buckets)
            windows = {}
            for key, whole in self._extents_of(keys, axis).items():
                low, high = whole or Window(0.0, 0.0)
                windows[key] = Window(low if x0 is None else x0, high if x1 is None else x1)
            return self._draw(windows, axis, buckets)

    def _axis(self, x: str) -> XAxis:
        return axis_of(self._pyramid, x)

    def _extents_of(self, keys: Iterable[str], axis: XAxis) -> dict[str, Window | None]:
        if self._extents_at != self._pyramid.position:
            self._extents, self._extents_at = {}, self._pyramid.position
        known = {key: self._extents.get((key, axis.name), _UNKNOWN) for key in keys}
        new = extents(self._pyramid, [key for key, of in known.items() if of is _UNKNOWN], axis, native=self._is_native)
        self._extents |= {(key, axis.name): window for key, window in new.items()}
        return {key: self._extents[key, axis.name] for key in known}

    def _draw(self, windows: Mapping[str, Window], axis: XAxis, buckets: int) -> dict[str, DrawnMetric]:
        return draw(self._pyramid, windows, axis, buckets, native=self._is_native)


def window_end(name: str, x: float | None, all_of_it: float) -> float | None:
    """Return where a window begins or ends; None where it does with the metric, as at `all_of_it`, which is infinite.

    Raises:
        InvalidSettings: `x` is no number.
    """
    try:
        found = None if x is None else x + 0.0
    except (TypeError, OverflowError):
        found = math.nan
    if found != found:
        raise InvalidSettings([f"{name} must be a number, or None; got {x!r:.80}"])
    return None if found == all_of_it else found
