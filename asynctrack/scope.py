"""Scope: a light child of a run that adds constant fields, a key prefix and a step interval. Runs in the caller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from asynctrack.errors import InvalidData, InvalidSettings
from asynctrack.record import coerce_step


class Logs(Protocol):
    """What a scope records into."""

    def log(self, data: Mapping[str, Any], step: int | None = None) -> bool: ...


class Scope:
    """A child of a run; get one from `Run.bind` or `Run.scope`. Scopes nest. They share the run's step counter.

    A call that the interval leaves out returns True: False always means that a record was lost.
    """

    __slots__ = ("_every", "_fields", "_last", "_prefix", "_run")

    def __init__(self, run: Logs, prefix: str = "", every: int = 1, fields: Mapping[str, Any] | None = None) -> None:
        if not isinstance(every, int) or isinstance(every, bool) or every < 1:
            raise InvalidSettings([f"every is a number of steps, 1 or more; got {every!r}"])
        self._run = run
        self._prefix = prefix
        self._every = every
        self._fields = dict(fields or {})
        self._last: int | None = None

    def __repr__(self) -> str:
        return f"<Scope {self._prefix or '(all)'} of {self._run!r}, every {self._every}, fields {self._fields}>"

    def log(self, data: Mapping[str, Any], step: int | None = None) -> bool:
        """`Run.log`, with this scope's fields, prefix and interval.

        With `every=n` a record is kept when its step is at least n away from the last one kept; calls without a step count
        themselves.
        """
        if not isinstance(data, Mapping):
            raise InvalidData(data)
        if self._every > 1 and not self._is_due(coerce_step(step)):
            return True
        prefix = self._prefix
        named = {f"{prefix}{key}": value for key, value in data.items()} if prefix else dict(data)
        return self._run.log({**self._fields, **named} if self._fields else named, step)

    def bind(self, fields: Mapping[str, Any]) -> Scope:
        """A child that adds constant fields; they are not prefixed."""
        return Scope(self._run, self._prefix, self._every, {**self._fields, **fields})

    def scope(self, prefix: str, every: int = 1) -> Scope:
        """A child whose keys get `prefix/` behind this scope's prefix."""
        return Scope(self._run, f"{self._prefix}{prefix.strip('/')}/" if prefix else self._prefix, every, self._fields)

    def _is_due(self, step: int | None) -> bool:
        if step is None:
            count = 0 if self._last is None else self._last + 1
            self._last = count
            return count % self._every == 0
        if self._last is not None and abs(step - self._last) < self._every:
            return False
        self._last = step
        return True
