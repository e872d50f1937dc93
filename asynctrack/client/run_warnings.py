"""Run warnings: what a process says of one run, each thing at most once a minute. Runs in the caller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from asynctrack._system import messages
from asynctrack._system.throttle import EVERY_S, ONCE
from asynctrack.client.encode_errors import EncodeErrors


class RunWarnings:
    """Warns of one run.

    Args:
        run_id: for people.
        path: the run's directory.
    """

    def __init__(self, run_id: str, path: Path) -> None:
        self._run_id = run_id
        self._path = path
        self._encode_errors = EncodeErrors()

    def warn(self, about: str, message: str, *, once: bool = False) -> None:
        """Say something about the run, at most once a minute for each `about`."""
        every_s = ONCE if once else EVERY_S
        messages.warn((self._path, about), f"asynctrack: run {self._run_id}: {message}", every_s=every_s)

    def is_due(self, about: str) -> bool:
        """Tell whether a warning would be said now."""
        return messages.due((self._path, about))

    def note_encode_errors(self, data: Mapping[Any, Any], keys: Sequence[str]) -> None:
        """Tell of each key whose value became its `repr`, once; those of a minute together."""
        self._encode_errors.note(data, keys)
        self.report_encode_errors()

    def report_encode_errors(self, *, last: bool = False) -> None:
        """Say which keys were not told of yet; `last` does so as the run ends."""
        about = "last values" if last else "values"
        if self._encode_errors.waiting and self.is_due(about):
            self.warn(about, self._encode_errors.take())
