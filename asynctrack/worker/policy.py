"""Policy: says what a worker may do beyond serving its own callers' runs. Imports nothing that is slow to import."""

from __future__ import annotations

from typing import NamedTuple


class Policy(NamedTuple):
    """The rights of a worker; for `asynctrack sync` its user sets them.

    Attributes:
        offline_too: deliver to backends that need a network also where the run is offline.
        trust: take settings that lead out of a run's directory from any `run.json`.
        force: deliver copies of runs also where what their originals delivered shows twice.
        patient: the callers have ended, and a person waits. So deliveries go on for as long as they are let, not for as long as the run
            says. Backends that lived in a caller are delivered to where they can be imported. A run is let go of at once when only a
            person can help.
    """

    offline_too: bool = False
    trust: bool = False
    force: bool = False
    patient: bool = False


CALLERS_ONLY = Policy()
