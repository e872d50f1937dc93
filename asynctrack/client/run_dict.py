"""Run dict: a run's config or summary, a dict whose changes are recorded, nested ones too. Runs in the caller.

A change goes into the journal as the names at the top that it changes, each with its whole value, and those that it removes. So who reads
it needs to know nothing of paths. What is nested is kept plain: `dict(config)` and `json.dumps(config)` have dicts and lists. Who asks for a
nested dict or list by its name gets one that is its equal and writes through to the plain one and to the journal.

Threads change it one after the other, and each change is recorded before the next is made: else the older of two copies could be recorded
last. Who reads waits for nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from asynctrack.client.changing_dict import ChangingDict, Turn
from asynctrack.client.nested_values import Tree
from asynctrack.client.plain_values import copied, fingerprint

# How long `catch_up` waits for the lock. Who holds it for longer waits for room in the queue, and there would be none for this either. Arbitrary.
_TURN_S: Final = 5.0


class Recorder(Protocol):
    """Records a change: the names at the top that are set, with their values, and the names that are removed."""

    def __call__(self, fresh: dict[str, Any], removed: tuple[str, ...] = ()) -> object: ...


class RunDict(ChangingDict):
    """A run's config or summary: a dict whose changes are recorded. `config.lr` is the same as `config["lr"]`.

    A value is recorded as it is when it is set. Changes of nested dicts and lists are recorded at once; changes of other objects are recorded
    when the run is flushed or ends.

    Args:
        content: The values at the start.
        record: Called with each change.
        missing: Called with a name that has no value. Returns a value for it, or raises `KeyError`.
    """

    def __init__(
        self, content: Mapping[str, Any], record: Recorder, missing: Callable[[str], Any] | None = None
    ) -> None:
        super().__init__({key: copied(value) for key, value in content.items()})
        fingerprints = {key: fingerprint(value) for key, value in dict.items(self)}
        # Through `__dict__`: an assignment to an attribute would set a name of the config.
        self.__dict__.update(_record=record, _missing=missing, _trees={}, _fingerprints=fingerprints, _turn_=Turn())

    @property
    def _turn(self) -> Turn:
        turn: Turn = self._turn_
        return turn

    def __missing__(self, key: str) -> Any:
        if self._missing is None:
            raise KeyError(key)
        return self._missing(key)

    def catch_up(self) -> None:
        """Record the changes of values that cannot report them: sets, arrays, objects of the user's own, containers shared with a shallow copy."""
        lock = self._turn.lock
        if not lock.acquire(timeout=_TURN_S):
            return
        try:
            for key, before in list(self._fingerprints.items()):
                if before is not None and key in self and fingerprint(value := dict.__getitem__(self, key)) != before:
                    self._record_value(key, value)
        finally:
            lock.release()

    def _record_value(self, key: str, value: Any) -> None:
        """Record a value, and remember which: a signal handler may change it meanwhile."""
        fresh = copied(value)
        self._record({key: fresh})
        self._fingerprints[key] = fingerprint(fresh)

    def _set(self, fresh: dict[str, Any]) -> None:
        fresh = {key: copied(value) for key, value in fresh.items()}
        with self._turn.lock:
            self._record({key: copied(value) for key, value in fresh.items()})
            for key, value in fresh.items():
                self._trees.pop(key, None)
                dict.__setitem__(self, key, value)
                self._fingerprints[key] = fingerprint(value)

    def _remove(self, names: tuple[str, ...]) -> None:
        with self._turn.lock:
            self._record({}, names)
            for key in names:
                self._trees.pop(key, None)
                self._fingerprints.pop(key, None)
                dict.pop(self, key, None)

    def _live(self, key: str, value: Any) -> Any:
        tree = self._trees.get(key)
        if tree is None or tree.top is not value:
            tree = self._trees[key] = Tree(self, key, value)
        return tree.live(value)

    def _changed(self, key: str, top: Any) -> None:
        """Record a value in which something nested has changed."""
        if dict.get(self, key) is top:  # else the name has another value by now
            self._record_value(key, top)
