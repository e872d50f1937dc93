"""Curve shelf: keeps the curves of runs that were asked for lately, up to date. Runs in the server of the page, on file threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Final

from asynctrack.curves.cuts import History
from asynctrack.curves.run_curves import RunCurves
from asynctrack.journal.reader import Damage
from asynctrack.reading.damage import manifest_of
from asynctrack.reading.host_sessions import sessions_of_rings
from asynctrack.reading.reader import RunReader

# Of all curves together, and how many runs. Arbitrary.
_MOST_BYTES: Final = 256 << 20
_MOST_RUNS: Final = 2000


class _Shelved:
    def __init__(self, curves: RunCurves) -> None:
        self.curves = curves
        self.bytes = 0


class CurveShelf:
    """Keeps curves within a limit of memory: those that were asked for last. For any thread.

    Args:
        cache: what was read of long runs is kept in the user's cache, and found there.
        most_bytes: of all of them.
    """

    def __init__(self, *, cache: bool = True, most_bytes: int = _MOST_BYTES) -> None:
        self._has_cache = cache
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._shelved: OrderedDict[tuple[str, History], _Shelved] = OrderedDict()

    def curves_of(self, path: str, history: History = "last") -> tuple[RunCurves, list[Damage]]:
        """Return the curves of a run, up to date, and the damage that was met on the way."""
        run = Path(path)
        with self._lock:
            found = self._shelved.get((path, history))
            if found is None:
                found = _Shelved(self._new(run, history))
                self._shelved[path, history] = found
            self._shelved.move_to_end((path, history))
        said = manifest_of(run) if history == "last" else None
        damage = found.curves.grow({} if said is None else sessions_of_rings(run, said))
        found.bytes = found.curves.memory_bytes()
        self._trim((path, history))
        return found.curves, damage

    def forget(self, path: str) -> None:
        """Forget a run that has gone."""
        with self._lock:
            for key in [key for key in self._shelved if key[0] == path]:
                del self._shelved[key]

    def _new(self, run: Path, history: History) -> RunCurves:
        if (run / "journal").is_dir():
            return RunCurves(run, history, cache=self._has_cache)
        return RunReader(run)._new_curves(history, None, cache=self._has_cache)  # of what backends have left

    def _trim(self, but: tuple[str, History]) -> None:
        with self._lock:
            total = sum(one.bytes for one in self._shelved.values())
            for key in list(self._shelved):
                if (total <= self._most_bytes and len(self._shelved) <= _MOST_RUNS) or key == but:
                    return
                total -= self._shelved.pop(key).bytes
