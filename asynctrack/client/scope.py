"""Scope: a light child of a run that adds constant fields, a key prefix and a step interval. Runs in the caller."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, Protocol, get_args

from asynctrack.errors import InvalidData, InvalidSettings
from asynctrack.records.codec import coerce_step, is_mapping
from asynctrack.records.media_types import MAX_DEPTH
from asynctrack.records.snapshot import MOST_NODES, copied, plain_key

Arrays = Literal["keep", "exclude"]


class Logs(Protocol):
    """What a scope records into."""

    def log(self, data: Mapping[str, Any], step: int | None = None) -> bool: ...


class Scope:
    """A child of a run; get one from `Run.bind` or `Run.scope`. Scopes nest. They share the run's step counter.

    A call that the interval leaves out returns True: False always means that a record was lost.
    """

    __slots__ = ("_arrays", "_calls", "_every", "_fields", "_forward", "_last", "_prefix", "_run")

    def __init__(
        self,
        run: Logs,
        prefix: str = "",
        every: int = 1,
        fields: Mapping[str, Any] | None = None,
        last: int | None = None,
        arrays: Arrays = "keep",
    ) -> None:
        if not isinstance(every, int) or isinstance(every, bool) or every < 1:
            raise InvalidSettings([f"every is a number of steps, 1 or more; got {every!r}"])
        if arrays not in get_args(Arrays):
            raise InvalidSettings([f"arrays must be one of 'keep', 'exclude'; got {arrays!r:.80}"])
        self._run = run
        self._prefix = prefix
        self._every = every
        self._fields = copied(fields or {})
        self._arrays = arrays
        self._calls = 0
        self._last = coerce_step(last)
        self._forward = last is not None

    def __repr__(self) -> str:
        return f"<Scope {self._prefix or '(all)'} of {self._run!r}, every {self._every}, fields {self._fields}>"

    @property
    def last(self) -> int | None:
        """The step of the last record that the interval let through, None before the first; what was logged without a step does not count.

        Set it to go on where an earlier run was: from then on a record is let through when its step is at least `every` beyond `last`.
        """
        return self._last

    @last.setter
    def last(self, step: int) -> None:
        self._last = coerce_step(step)
        self._forward = True

    def log(self, data: Mapping[str, Any], step: int | None = None) -> bool:
        """`Run.log`, with this scope's fields, prefix and interval.

        With `every=n` a record is kept when its step is at least n away from the last one kept; with `last=` too, when it is at least
        n beyond it, so that a step that repeats or goes back is left out. Calls without a step count themselves.
        """
        if type(data) is not dict:
            if not is_mapping(data):
                raise InvalidData(data)
            data = copied(data)
        if (self._every > 1 or self._forward) and not self._is_due(coerce_step(step)):
            return True
        if self._arrays == "exclude" and not (data := _without_arrays(data)):
            return True
        prefix = self._prefix
        data = copied(data)  # another thread may change it meanwhile
        named = {f"{prefix}{plain_key(key)}": value for key, value in data.items()} if prefix else data
        return self._run.log({**self._fields, **named} if self._fields else named, step)

    def bind(self, fields: Mapping[str, Any]) -> Scope:
        """A child that adds constant fields; they are not prefixed."""
        last = self._last if self._forward else None
        return Scope(self._run, self._prefix, self._every, {**self._fields, **copied(fields)}, last, self._arrays)

    def scope(self, prefix: str, every: int = 1, *, last: int | None = None, arrays: Arrays | None = None) -> Scope:
        """A child whose keys get `prefix/` behind this scope's prefix.

        Args:
            prefix: of its keys.
            every: the least distance of two steps that are recorded.
            last: the step to count from, such as -1 for a new run, or an earlier scope's `last`: then records are kept only as steps go
                up, from `last + every` on.
            arrays: "keep" or "exclude" what has a dimension, also where it is nested. Default: as this scope.
        """
        behind = f"{self._prefix}{prefix.strip('/')}/" if prefix else self._prefix
        return Scope(self._run, behind, every, self._fields, last, arrays or self._arrays)

    def _is_due(self, step: int | None) -> bool:
        if step is None:
            self._calls += 1
            return (self._calls - 1) % self._every == 0
        if self._last is not None:
            ahead = step - self._last
            if (ahead if self._forward else abs(ahead)) < self._every:
                return False
        self._last = step
        return True


def _without_arrays(data: Mapping[str, Any], depth: int = 0, left: Iterator[int] | None = None) -> dict[str, Any]:
    """The same without arrays, and without mappings of which nothing is left; a NumPy or torch scalar is none.

    Beyond as many levels or mappings as a record keeps, which may be endless, it is as it was.
    """
    left = iter(range(MOST_NODES)) if left is None else left
    kept: dict[str, Any] = {}
    for key, value in copied(data).items():
        if is_mapping(value) and depth < MAX_DEPTH and next(left, None) is not None:
            if inner := _without_arrays(value, depth + 1, left):
                kept[key] = inner
        elif not _has_dimensions(value):
            kept[key] = value
    return kept


def _has_dimensions(value: object) -> bool:
    try:
        return bool(getattr(value, "shape", ()))
    except Exception:  # of its own code
        return False
