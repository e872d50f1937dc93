"""Unfinished: end as failed the runs of frameworks that do not report a failure.

Runs in the caller, also in its garbage collector and as it exits.
"""

from __future__ import annotations

import sys
import weakref
from typing import Any

from asynctrack.client.run import Run


class NeverFinished(Exception):
    """Says that a run's framework never came to its end; the framework's own error is not known."""


def fail_with(owner: object, run: Run, why: str) -> weakref.finalize[Any, Any]:
    """Fail a run that its owner has not finished when the owner is garbage-collected or the process ends.

    Args:
        owner: of the run; the run must not refer to it.
        run: that is open.
        why: text of the error.

    Returns:
        A finalizer; call its `detach()` when the run is finished.
    """
    return weakref.finalize(owner, _fail, run, why)


def _fail(run: Run, why: str) -> None:
    """Fail the run without waiting: the worker delivers the rest.

    In a forked child the owner goes too, but the run itself goes on.
    """
    # The exception that ends the process, if one does; at a prompt it belongs to some earlier line.
    error = None if hasattr(sys, "ps1") else getattr(sys, "last_value", None)
    next(run._finishing(error or NeverFinished(why), None), None)
    run._settle(waited=False)
