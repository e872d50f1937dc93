"""Scope: a light child of a run that adds constant fields, a key prefix and a step interval. Runs in the caller."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Protocol, SupportsIndex, get_args

from asynctrack._system.suggestions import suggests
from asynctrack.errors import InvalidData, InvalidSettings
from asynctrack.records.codec import coerce_step, is_mapping
from asynctrack.records.media_types import MAX_DEPTH
from asynctrack.records.snapshot import MOST_NODES, copied, plain_key

Arrays = Literal["keep", "exclude"]


class Logs(Protocol):
    """Accepts the records of a scope: a run, or another scope."""

    def log(self, data: Mapping[str, Any], step: int | None = None) -> bool: ...


class Scope:
    """Logs to a run with constant fields and a key prefix, and leaves out steps.

    Get one from `Run.bind` or `Run.scope`, which say what the arguments mean. Scopes nest, and share the run's step counter.

    Args:
        run: The run or scope to record into.
        prefix: The text in front of each key.
        every: The least distance between two steps that are recorded.
        fields: Names and values to add to each record.
        last: The step to count from.
        arrays: "keep", or "exclude" to leave out arrays.

    Raises:
        InvalidSettings: `every` is not a whole number of at least 1, or `arrays` is not one of its words.
    """

    __slots__ = ("_arrays", "_calls", "_every", "_fields", "_forward", "_last", "_prefix", "_run")

    @suggests
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

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        """Return what pickle keeps of it. Only from protocol 2 on has Python a way for classes with slots; what that gives can be written by the earlier ones, too."""
        return super().__reduce_ex__(max(2, operator.index(protocol)))

    @property
    def last(self) -> int | None:
        """Return the step of the last record that was not left out; None before the first. Records without a step do not count.

        Set it to continue where an earlier run was: from then on a record is kept if its step is at least `last + every`.
        """
        return self._last

    @last.setter
    def last(self, step: int) -> None:
        self._last = coerce_step(step)
        self._forward = True

    def log(self, data: Mapping[str, Any], step: int | None = None) -> bool:
        """Record values into the run, with this scope's fields and prefix, unless the interval leaves them out.

        With `every=n` a record is kept if its step is at least n away from the step of the last one that was kept. With `last=` too, it is
        kept if its step is at least n greater, so that steps that repeat or go back are left out. Without a step, every n-th call is kept.

        Args:
            data: See `Run.log`.
            step: See `Run.log`.

        Returns:
            False if the record was dropped, as by `Run.log`. True if it was accepted or left out.

        Raises:
            UsageError: See `Run.log`.
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

    @suggests
    def bind(self, fields: Mapping[str, Any]) -> Scope:
        """Make a child scope that adds constant fields to each record.

        Args:
            fields: Names and values to add. The prefix is not put in front of the names.

        Returns:
            The child.

        Raises:
            InvalidData: `fields` is not a mapping.
        """
        if not is_mapping(fields):
            raise InvalidData(fields, "bind()")
        last = self._last if self._forward else None
        return Scope(self._run, self._prefix, self._every, {**self._fields, **copied(fields)}, last, self._arrays)

    @suggests
    def scope(self, prefix: str, every: int = 1, *, last: int | None = None, arrays: Arrays | None = None) -> Scope:
        """Make a child scope with a longer prefix, and perhaps an interval of its own.

        Args:
            prefix: The text between this scope's prefix and the keys. A slash is put behind it.
            every: The least distance between two steps that are recorded.
            last: The step to count from, such as -1 for a new run or the `last` of an earlier scope. With it, records are kept only as steps go
                up, from `last + every` on.
            arrays: "keep", or "exclude" to leave out values that have a dimension, nested ones too. Default: as this scope.

        Returns:
            The child.

        Raises:
            InvalidSettings: `prefix` is not text, `every` is not a whole number of at least 1, or `arrays` is not one of its words.
        """
        if not isinstance(prefix, str):
            raise InvalidSettings([f"prefix must be text; got {prefix!r:.80}"])
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
    """Leave out arrays, and mappings that are empty without them. A NumPy or torch scalar is not an array.

    What is nested deeper than a record keeps, perhaps endlessly, stays as it is.
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
    except Exception:  # the value's own code failed
        return False
