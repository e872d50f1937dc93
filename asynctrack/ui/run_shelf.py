"""Run shelf: keeps what was read of the runs that were asked for lately, and brings it up to date. Runs in the server of the page, on file threads."""

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
from asynctrack.ui.journal_pass import JournalPass

# Of all that is kept, and how many runs. Arbitrary.
_MOST_BYTES: Final = 256 << 20
_MOST_RUNS: Final = 2000
# What a run takes whatever it has. Measured: 8 kB.
_LEAST_BYTES: Final = 16 << 10


class _ShelvedRun:
    def __init__(self) -> None:
        self.curves: dict[History, RunCurves] = {}
        self.found: JournalPass | None = None
        self.bytes = _LEAST_BYTES

    def measure(self) -> None:
        curves = sum(one.memory_bytes() for one in list(self.curves.values()))
        self.bytes = _LEAST_BYTES + curves + (0 if self.found is None else self.found.memory_bytes())


class RunShelf:
    """Keeps what was read of runs, within a limit of memory: of those that were asked for last. For any thread.

    Args:
        cache: curves of long runs are kept in the user's cache, and found there.
        most_bytes: of all of it.
    """

    def __init__(self, *, cache: bool = True, most_bytes: int = _MOST_BYTES) -> None:
        self._has_cache = cache
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._shelved: OrderedDict[str, _ShelvedRun] = OrderedDict()

    def prepare(self, path: str) -> None:
        """Have checkpoints and media found as the curves of a run are read next, so that its journal is read once."""
        self._pass_of(self._of(path), path).renew()

    def curves_of(self, path: str, history: History = "last") -> tuple[RunCurves, list[Damage]]:
        """Return the curves of a run, up to date, and the damage that was met on the way."""
        run, shelved = Path(path), self._of(path)
        curves = shelved.curves.get(history) or self._new(run, history)
        with self._lock:
            curves = shelved.curves.setdefault(history, curves)
        said = manifest_of(run) if history == "last" else None
        watch = None if shelved.found is None else shelved.found.take
        damage = curves.grow({} if said is None else sessions_of_rings(run, said), watch=watch)
        self._trim(path, shelved)
        return curves, damage

    def found_in(self, path: str) -> JournalPass:
        """Return the checkpoints and media of a run, up to date."""
        shelved = self._of(path)
        found = self._pass_of(shelved, path)
        found.grow()
        self._trim(path, shelved)
        return found

    def _pass_of(self, shelved: _ShelvedRun, path: str) -> JournalPass:
        with self._lock:
            shelved.found = shelved.found or JournalPass(Path(path))
            return shelved.found

    def _new(self, run: Path, history: History) -> RunCurves:
        if (run / "journal").is_dir():
            return RunCurves(run, history, cache=self._has_cache)
        return RunReader(run)._new_curves(history, None, cache=self._has_cache)  # of what backends have left

    def _of(self, path: str) -> _ShelvedRun:
        with self._lock:
            found = self._shelved.setdefault(path, _ShelvedRun())
            self._shelved.move_to_end(path)
            return found

    def _trim(self, path: str, changed: _ShelvedRun) -> None:
        changed.measure()
        with self._lock:
            total = sum(one.bytes for one in self._shelved.values())
            for other in list(self._shelved):
                if (total <= self._most_bytes and len(self._shelved) <= _MOST_RUNS) or other == path:
                    return
                total -= self._shelved.pop(other).bytes
