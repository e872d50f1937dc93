"""Earlier end: how the owner of a run has ended, as an earlier worker has noted it. Runs in the worker. Imports nothing that is slow to import."""

from __future__ import annotations

import os

from asynctrack.worker.run_outcome import SILENT

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from typing import Any


def earlier_end(path: str) -> str | None:
    """Read how the owner of a run has ended; None where it is not known, or has left its forked children as daemons, who decide then.

    Args:
        path: the run's directory.
    """
    said = _read(path)
    status = str(said["status"])
    owner = next((writer for writer in reversed(said["writers"]) if writer["is_owner"]), None)
    if status == "preempted":
        return status
    if owner is None or owner["status"] == "running":
        return status if status in ("finished", "failed") else None
    if owner["status"] in ("finished", "failed"):
        return str(owner["status"])
    return None if owner["error"] in (None, SILENT) else "crashed"  # where nobody saw how, it may have been as silent


def _read(path: str) -> dict[str, Any]:
    """Read what `run.json` says, with the journal behind it; without that as long as a worker that has just started cannot import what readers need."""
    try:
        import msgspec

        from asynctrack.reading.reader import RunReader

        manifest = RunReader(path).manifest()
        return {"status": manifest.status, "writers": msgspec.to_builtins(manifest.writers)}
    except ImportError:
        import json

        with open(os.path.join(path, "run.json"), encoding="utf-8") as file:
            return {"writers": [], **json.load(file)}
