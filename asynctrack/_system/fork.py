"""Fork: calls our objects and modules when a process forks, behind one hook of the interpreter. Caller's process; standard library only.

A forked child inherits its parent's locks in whatever state another thread had them, and only the thread that forked. So each object with a lock,
a thread or a queue starts afresh in the child. The order is fixed: first the objects, the oldest first; then the functions of modules, in the order
of their import. So no object is dropped, and closed as if it were the parent's, before it knows that it is not.

What is called in the child takes no lock and waits for nothing. If one raises, the others are called all the same.
"""

from __future__ import annotations

import os

from asynctrack._system import private

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable, Iterable
    from typing import Protocol

    class Forked(Protocol):
        """An object that starts afresh in a forked child. It is kept by a weak reference, so it need not be unregistered."""

        def after_fork(self) -> None:
            """Start afresh in the child. Called inside `fork`: takes no lock, and waits for nothing."""


_reference = private.weak_reference()
_things: dict[weakref.ref[Forked], None] = {}  # a dict for its order
_before: list[Callable[[], None]] = []
_in_parent: list[Callable[[], None]] = []
_in_child: list[Callable[[], None]] = []


def watch(thing: Forked) -> None:
    """Call `after_fork` of an object in every forked child, as long as the object lives."""
    _things[_reference(thing, _forget)] = None


def before(function: Callable[[], None]) -> Callable[[], None]:
    """Call a function before each fork; the last that was registered comes first."""
    _before.insert(0, function)
    return function


def in_parent(function: Callable[[], None]) -> Callable[[], None]:
    """Call a function in the parent after each fork."""
    _in_parent.append(function)
    return function


def in_child(function: Callable[[], None]) -> Callable[[], None]:
    """Call a function in each forked child, after all objects have started afresh."""
    _in_child.append(function)
    return function


def _forget(thing: weakref.ref[Forked]) -> None:
    _things.pop(thing, None)


def _after_fork_in_child() -> None:
    living = [thing for thing in [reference() for reference in list(_things)] if thing is not None]
    _call([*(thing.after_fork for thing in living), *_in_child])


def _call(functions: Iterable[Callable[[], None]]) -> None:
    """Call all of them, then raise the first error: Python prints it and goes on."""
    first: BaseException | None = None
    for function in functions:
        try:
            function()
        except BaseException as error:
            first = first or error
    if first is not None:
        raise first


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _call(_before), after_in_parent=lambda: _call(_in_parent), after_in_child=_after_fork_in_child
    )
