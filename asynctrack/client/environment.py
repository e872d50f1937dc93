"""Environment: which variables asynctrack reads, and a warning of those that look like one of them and are not. Runs in the caller."""

from __future__ import annotations

import os
from typing import Final

from asynctrack._system import messages
from asynctrack._system.suggestions import closest

PREFIX: Final = "ASYNCTRACK_"
# For users, without the prefix.
VARIABLES: Final = ("BACKENDS", "MODE", "QUIET", "SHM")
# The first is for tests; the second marks the processes that a library of a backend starts.
INTERNAL: Final = ("IDLE_EXIT_S", "STARTED_BY")

_has_looked = False


def warn_of_unknown_variables() -> None:
    """Warn, once in this process, of variables of the environment that begin like ours and that nothing reads."""
    global _has_looked
    if _has_looked:
        return
    _has_looked = True
    given = (name.removeprefix(PREFIX) for name in os.environ if name.startswith(PREFIX))
    if unknown := sorted(name for name in given if name not in VARIABLES and name not in INTERNAL):
        messages.warn_now(f"asynctrack: {'; '.join(map(_not_read, unknown))}")


def _not_read(name: str) -> str:
    found = closest(name, VARIABLES)
    meant = f"did you mean {PREFIX}{found}?" if found else f"there are {', '.join(PREFIX + one for one in VARIABLES)}"
    return f"{PREFIX}{name} is set in the environment, and asynctrack does not read it; {meant}"
