"""Preflight: what backends lack is said when a run opens, as far as it can be known without waiting. Runs in the caller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from asynctrack._system import messages
from asynctrack._system.throttle import ONCE
from asynctrack._system.wording import see
from asynctrack.backends.base import Backend


def forewarn(run: Path, backends: Mapping[str, Backend], *, offline: bool, elsewhere: Sequence[str] = ()) -> None:
    """Say in a line for each backend that cannot be opened what it lacks; those that are to wait for `asynctrack sync` are left out.

    Args:
        run: its directory.
        backends: by their names.
        offline: whether some are to wait.
        elsewhere: names of those that were chosen for the run, which a server merges.
    """
    if elsewhere:
        get = "backend gets" if len(elsewhere) == 1 else "backends get"
        when = f"{get} nothing while the run goes on, unless `asynctrack serve --backends` has {'it' if len(elsewhere) == 1 else 'them'}"
        text = f"{len(elsewhere)} {when}: {', '.join(elsewhere)}{see('how_to/collector.md#deliver-while-it-goes-on')}"
        messages.warn((run, "elsewhere"), f"asynctrack: run {run.name}: {text}", every_s=ONCE)
    for name, backend in backends.items():
        if offline and backend.remote:
            continue
        try:
            what = backend.lacking()
        except Exception:  # the backend's own code failed; opening it will say what is missing
            continue
        if what:
            text = f"{name} gets nothing yet: {'; '.join(what)}. The journal keeps everything: fix that while the run goes on, or sync later: asynctrack sync {run}"
            messages.warn((run, f"lacks {name}"), f"asynctrack: run {run.name}: {text}", every_s=ONCE)
