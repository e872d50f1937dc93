"""Unfinished: ends as failed the runs of frameworks that say nothing when they fail. Runs in the caller, also in its garbage collector and as it exits."""

from __future__ import annotations

import sys
import weakref
from typing import Any

from asynctrack.client.run import Run


class NeverFinished(Exception):
    """What ended a run whose framework never came to its end; the framework's own error is not known."""


def fail_with(owner: object, run: Run, why: str) -> weakref.finalize[Any, Any]:
    """Fail the run when its owner goes, or the process ends, and has not finished it: then `detach()` what this returns.

    Args:
        owner: of the run; the run must not refer to it.
        run: that is open.
        why: what has not happened.
    """
    return weakref.finalize(owner, _fail, run, why)


def _fail(run: Run, why: str) -> None:
    """Does not wait: the worker goes on with what is left. In a forked child, where the owner goes too, the run itself goes on."""
    # The exception that ends the process, if one does; at a prompt it belongs to some earlier line.
    error = None if hasattr(sys, "ps1") else getattr(sys, "last_value", None)
    next(run._finishing(error or NeverFinished(why), None), None)
    run._settle(waited=False)
