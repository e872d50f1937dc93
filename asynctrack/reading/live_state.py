"""Live state: what has become of a run that says that it runs. Runs anywhere.

Who tells that has to know what this very process has open, since to ask for a lock of its own would drop it. So the client gives the rule, by which the
commands go too; where nobody has given one, a run is what its journal says.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from asynctrack.journal.manifest import Manifest

RunStatus = Literal["running", "finished", "failed", "crashed", "preempted", "lost"]
State = Literal["running", "finished", "failed", "crashed", "preempted", "lost", "elsewhere"]
Rule = Callable[[Path, Manifest], State]


def _as_it_says(run: Path, manifest: Manifest) -> State:
    return manifest.status


_rule: Rule = _as_it_says


def use(rule: Rule) -> None:
    """Have runs judged by this rule from here on."""
    global _rule
    _rule = rule


def status_of(run: Path, manifest: Manifest) -> RunStatus:
    """Return how a run has ended; "lost" where it says that it runs, and no process is left that could end it.

    A run on another machine or of another user is taken at its word.
    """
    state = _rule(run, manifest)
    return manifest.status if state == "elsewhere" else state
