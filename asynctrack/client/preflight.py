"""Preflight: what backends lack is said when a run opens, as far as it can be known without waiting. Runs in the caller."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from asynctrack._system import messages
from asynctrack._system.throttle import ONCE
from asynctrack.backends.base import Backend


def forewarn(run: Path, backends: Mapping[str, Backend], *, offline: bool) -> None:
    """Say in a line for each backend that cannot be opened what it lacks; those that are to wait for `asynctrack sync` are left out."""
    for name, backend in backends.items():
        if offline and backend.remote:
            continue
        try:
            what = backend.lacking()
        except Exception:  # its own code failed; what it lacks is said when it is opened
            continue
        if what:
            text = f"{name} gets nothing yet: {'; '.join(what)}. The journal keeps everything: fix that while the run goes on, or sync later: asynctrack sync {run}"
            messages.warn((run, f"lacks {name}"), f"asynctrack: run {run.name}: {text}", every_s=ONCE)
