"""Stray names: what a user has set on a run by a name that the run does not record. Runs in the caller.

It is looked for when the run is flushed or ends. To refuse it at once would take a `__setattr__` of Python's, and the run's `_put` must be set in one
step: see `write_gate`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from asynctrack._system import messages
from asynctrack._system.suggestions import closest
from asynctrack._system.throttle import ONCE
from asynctrack.client.run_dict import RunDict

# What of a run can be set or filled. Other names that users keep on a run are theirs.
_RECORDED: Final = ("config", "name", "notes", "summary", "tags")
# How much alike a name must be, 0 to 1. Arbitrary: `steps` is not like `notes`, and `nmae` is like `name`.
_ALIKE: Final = 0.7


def watch_for(run: Any) -> Callable[[], None]:
    """Return a function that warns, once for each, of names that were set on a run and are not recorded. It does not keep the run alive."""
    known = frozenset(vars(run))
    kept = weakref.ref(run)

    def look() -> None:
        held = kept()
        if held is not None:
            for problem in _problems(vars(held), known):
                messages.warn((held.path, problem), f"asynctrack: run {held.id}: {problem}", every_s=ONCE)

    return look


def _problems(names: Mapping[str, Any], known: frozenset[str]) -> Iterator[str]:
    for name in ("config", "summary"):
        if not isinstance(names[name], RunDict):
            yield f"`run.{name}` was replaced by another object, which is not recorded; use `run.{name}.update(...)`"
    for name in list(names):
        if name not in known and not name.startswith("_") and (meant := closest(name, _RECORDED, _ALIKE)) is not None:
            yield f"`run.{name}` was set, which a run does not have, and is not recorded; did you mean `run.{meant}`?"
