"""Banner: the one line that says where a run is kept and how to look at it, on terminals and in notebooks. Runs in the caller.

Only the process that a person has started prints it, not its children. `ASYNCTRACK_QUIET=1` in the environment turns it off.
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
    """Print where a run is kept, if somebody sits at the terminal or notebook. Never waits, and never raises.

    Args:
        name: The project and the id of the run.
        run: The directory of the run.
    """
    try:
        if os.environ.get(VARIABLE, "") in ("", "0") and not _is_child() and (_is_terminal() or cell() is not None):
            messages.announce(printable(f"asynctrack: run {name} -> {_near(run)} ({_viewing_hint(run)})"))
    except Exception:  # the user's own stream or a removed current directory may raise; the run is open all the same
        pass


def cell() -> int | None:
    """Return the number of the notebook cell that is running; None outside of notebooks."""
    ipython: Any = sys.modules.get("IPython")
    shell: Any = None if ipython is None else ipython.get_ipython()
    return shell.execution_count if hasattr(shell, "kernel") else None


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _is_child() -> bool:
    """Tell whether a program has started this process, as one of many perhaps."""
    process: Any = sys.modules.get("multiprocessing.process")
    return _forked or (process is not None and process.parent_process() is not None)


def _near(run: Path) -> str:
    """Return the path relative to the current directory, if that is shorter."""
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
