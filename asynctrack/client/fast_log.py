"""Fast log: makes `Run.log` one call of C for most records, where there is the native core. Runs in the caller.

`fast` wraps the method, in its class: the C function takes what is a plain record of a run whose gate leads to a native producer, and calls the method for
all else. `LogBase` is the base class that such a run needs. Without the core both do nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from asynctrack._system.native import is_native

F = TypeVar("F", bound=Callable[..., Any])

if is_native and not TYPE_CHECKING:
    from asynctrack._native import LogBase
    from asynctrack._native import LogMethod as fast
else:

    class LogBase:
        """Has nothing to add to an object."""

        __slots__ = ()

    def fast(function: F) -> F:
        """Return the function as it is."""
        return function


__all__ = ["LogBase", "fast"]
