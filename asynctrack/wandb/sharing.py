"""Sharing: the run of several processes, by W&B's names for it (`mode="shared"`), and the run of the process that has spawned this one."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from asynctrack.client import following, writer
from asynctrack.client.current import attached, current
from asynctrack.client.job_id import given_id
from asynctrack.client.opening import fresh_id
from asynctrack.client.run import Run
from asynctrack.journal.join import LABEL
from asynctrack.wandb.notices import warn_unsupported

# Characters of a label here; W&B's may have any.
_LONGEST_LABEL: Final = 128


class Sharing(NamedTuple):
    """Describes this process's part in a run.

    Attributes:
        shared: whether other processes may write to the run, too.
        label: of this process.
        primary: whether the run ends as this process does; None where nothing was said.
    """

    shared: bool
    label: str | None
    primary: bool | None

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return what this means as arguments of `asynctrack.init`."""
        if not self.shared:
            return {}
        return {"join": True, "id": given_id(given.get("id")) or fresh_id(), "writer": _as_label(self.label)}

    def settings(self) -> dict[str, Any]:
        """Return what `run.settings` says of it."""
        return {"mode": "shared", "x_label": self.label, "x_primary": self.primary is not False} if self.shared else {}

    @contextlib.contextmanager
    def role(self) -> Iterator[None]:
        """Open a run in this part."""
        token = writer.primary.set(self.primary if self.shared else None)
        try:
            yield
        finally:
            writer.primary.reset(token)


def take_sharing(chosen: dict[str, Any]) -> Sharing:
    """Take what says with whom a run is shared out of the arguments of `init`."""
    label, primary = chosen.pop("x_label", None), chosen.pop("x_primary", None)
    ends = chosen.pop("x_update_finish_state", None)
    shared = chosen.get("mode") == "shared"
    if shared:
        chosen["mode"] = None  # which is that of the environment
        is_other = ends is not None and ends is not (primary is not False)  # the run ends as its primary does
        warn_unsupported("Settings", {"x_update_finish_state": ends if is_other else None})
    else:
        warn_unsupported("Settings", {"x_label": label, "x_primary": primary, "x_update_finish_state": ends})
    return Sharing(shared, label, primary)


def _as_label(label: str | None) -> str | None:
    if label is None or LABEL.fullmatch(label):
        return label
    return re.sub(r"[^A-Za-z0-9_.:@+-]", "_", label).lstrip(".:@+-")[:_LONGEST_LABEL] or None


def run_of_ancestors() -> Any:
    """Return the run of asynctrack that a process from which this one descends has open; None where there is none, or where this process has one itself.

    Raises:
        AsynctrackError: there is one, and it cannot be attached to; see `asynctrack.attach`.
    """
    if current() is not None or os.environ.get("ASYNCTRACK_MODE") == "disabled":
        return None
    return attached()


def next_run_of_ancestors(run: Run) -> Run | None:
    """Return the run to which a process from which this one descends has gone on; None where it has not left this one, or was never the way to it.

    Raises:
        AsynctrackError: see `asynctrack.attach`.
    """
    found = attached(run) if following.is_left(run) else None
    return None if found is run else found
