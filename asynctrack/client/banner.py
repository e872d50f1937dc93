"""Banner: the one line that says where a run is and how to look at it, and what a notebook is. Runs in the caller.

It is for who sits there: on a terminal or in a notebook, in the process that a person has started. `ASYNCTRACK_QUIET=1` ends it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Final

from asynctrack._system import fork, messages
from asynctrack._system.printable import printable
from asynctrack.settings import DEFAULT_DIR

VARIABLE: Final = "ASYNCTRACK_QUIET"

_forked = False


def show_banner(name: str, run: Path) -> None:
    """Say where a run is, if somebody sits there. Never waits, and never raises.

    Args:
        name: of the run, with its project.
        run: its directory.
    """
    try:
        if os.environ.get(VARIABLE, "") in ("", "0") and not _is_child() and (_is_terminal() or cell() is not None):
            messages.announce(printable(f"asynctrack: run {name} -> {_near(run)} ({_viewing_hint(run)})"))
    except Exception:  # a stream of the user's, or no current directory: the run is open all the same
        pass


def cell() -> int | None:
    """The number of the cell that runs in a notebook; None anywhere else."""
    ipython: Any = sys.modules.get("IPython")
    shell: Any = None if ipython is None else ipython.get_ipython()
    return shell.execution_count if hasattr(shell, "kernel") else None


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _is_child() -> bool:
    """Whether this process was begun by a program, of which each would say it."""
    process: Any = sys.modules.get("multiprocessing.process")
    return _forked or (process is not None and process.parent_process() is not None)


def _near(run: Path) -> str:
    """The path, from here where that is shorter."""
    from_here = os.path.relpath(run)
    return from_here if len(from_here) < len(str(run)) and not from_here.startswith(os.pardir) else str(run)


def _viewing_hint(run: Path) -> str:
    import shlex

    in_default = run.parent.parent == Path(os.path.realpath(DEFAULT_DIR))
    return f"asynctrack show {'latest' if in_default else shlex.quote(_near(run))}"


@fork.in_child
def _after_fork_in_child() -> None:
    global _forked
    _forked = True
