"""Reports: what a delivery says of its backend in the log: seldom, and never a secret. Runs with the driver."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final, NamedTuple

from asynctrack._system.masking import mask_text
from asynctrack._system.throttle import Throttle
from asynctrack.backends import env_refs
from asynctrack.backends.base import Backend
from asynctrack.delivery.failures import Failures, Trace, traceback_text
from asynctrack.delivery.retry_policy import MOST_REPEATS, RetryDecision, describe

# Traces that are remembered, so that each is printed once. Arbitrary.
_MOST_REPORTED: Final = 100

_log = logging.getLogger("asynctrack.delivery")


class Message(NamedTuple):
    """A message, and whether it is said although another was said a moment ago."""

    text: str
    at_once: bool = False


class Reports:
    """Says what happens to one delivery.

    Args:
        run: the run's directory.
        name: of the backend in this run.
        backend: its settings; what they have from the environment is not repeated.
    """

    def __init__(self, run: Path, name: str, backend: Backend) -> None:
        self._run = run
        self._name = name
        self._references = backend.references
        self._throttle = Throttle()
        self._printed: set[Trace] = set()

    def describe(self, error: Exception) -> str:
        """Put an error into words, without what its backend's settings have from the environment."""
        return self.hide(describe(error))

    def hide(self, text: str) -> str:
        """Take secrets out of a text."""
        return mask_text(env_refs.hide(text, self._references))

    def fail(self, error: Exception, failures: Failures, decision: RetryDecision) -> None:
        """Say that the backend has failed, and what is done about it."""
        new = traceback_text(error) if self._is_new(failures.trace) else None
        message = failure_message(self.describe(error), failures, decision, new)
        if message.at_once:
            self._throttle.note(self._name)
            self.say(message.text)
        else:
            self.warn(message.text)

    def warn(self, text: str) -> None:
        """Say something, unless something was said within the last minute."""
        if self._throttle.admit(self._name):
            self.say(text)

    def say(self, text: str) -> None:
        """Say something in any case."""
        _log.warning("%s of %s: %s", self._name, self._run, self.hide(text))

    def _is_new(self, trace: Trace | None) -> bool:
        """Return whether an error has come by a way of which no traceback was printed; from now on it was."""
        if trace is None or trace in self._printed or len(self._printed) >= _MOST_REPORTED:
            return False
        self._printed.add(trace)
        return True


def failure_message(what: str, failures: Failures, decision: RetryDecision, traceback: str | None) -> Message:
    """Choose the words for a failure.

    Args:
        what: went wrong.
        failures: with this one.
        decision: about it.
        traceback: of an error that has not come before.
    """
    if traceback is not None:
        return Message(f"{what}: trying again\n{traceback}", at_once=True)
    if failures.repeats == MOST_REPEATS:
        seldom = "and is seldom tried again until you fix it"
        return Message(f"{what}: it has failed {MOST_REPEATS} times the same way, {seldom}", at_once=True)
    return Message(f"{what}: {'waiting for you to fix that' if decision.paused else 'trying again'}")
