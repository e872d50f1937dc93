"""Retry policy: what to do about an error of a sink. The one retry layer there is: a sink says what happened by what it raises, and nothing else retries.

What waits for a person (a key, a quota, a full disk) does not hold up `finish()`. An error that comes ten times in a row by the same traceback is one of
these: no retry mends wrong code. What says by its type that it may pass (`Retry`, an `OSError`: networks, time-outs, disks) is tried for as long
as it takes.
"""

from __future__ import annotations

import errno
import os
import random
import traceback
from typing import Final, NamedTuple

from asynctrack.backends.base import ActionRequired, Retry, Unreachable
from asynctrack.errors import BackendUnavailable

FIRST_RETRY_S: Final = 1.0
LONGEST_RETRY_S: Final = 60.0
# The same where nobody is there: a thousand hosts make 200 connections a second to who comes back. Arbitrary: a machine that goes for good has that long to send the rest.
LONGEST_CALL_S: Final = 10.0
# The longest pause that a server may ask for with Retry-After. Arbitrary: no sane server asks for more than an hour.
LONGEST_ASKED_S: Final = 3600.0
# Between two tries of what only a person can mend: seldom enough not to lock an account.
PAUSE_S: Final = 60.0
# The same for a full disk, which tries do not harm. Arbitrary: soon after there is room.
DISK_PAUSE_S: Final = 2.0

# An error that comes so often in a row by the same way is left to a person. Arbitrary.
MOST_REPEATS: Final = 10
# Between these tries of what only wrong code raises: nobody is spared by waiting. Arbitrary: ten of them take a second, so `finish()`
# waits a second for them, not the 30 that back-off would take.
WRONG_CODE_RETRY_S: Final = 0.1
_WRONG_CODE: Final = (
    TypeError, AttributeError, NameError, LookupError, ArithmeticError, AssertionError, NotImplementedError, RecursionError, SyntaxError,
)  # fmt: skip

# An error page is kept as far as this: the cursor is written at each try. Arbitrary.
_LONGEST_TEXT: Final = 1000

_FULL_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})


class RetryDecision(NamedTuple):
    """A decision about an error: try again after `wait_s`; `paused` says that a person has to mend something first."""

    wait_s: float
    paused: bool


def classify_error(error: Exception, failures: int, repeats: int = 0) -> RetryDecision:
    """Decide what to do about an error.

    Args:
        error: of the sink.
        failures: in a row, this one among them.
        repeats: how often in a row this one has come by the same way; 0 for what may pass.
    """
    if needs_a_person(error):
        return RetryDecision(DISK_PAUSE_S if isinstance(error, OSError) else PAUSE_S, True)
    # Without a pause the tries would be a storm.
    if isinstance(error, Retry) and error.after_s is not None and error.after_s > 0:
        return RetryDecision(min(error.after_s, LONGEST_ASKED_S), False)
    if repeats >= MOST_REPEATS:
        return RetryDecision(PAUSE_S, True)
    if repeats and isinstance(error, _WRONG_CODE):
        return RetryDecision(WRONG_CODE_RETRY_S, False)
    return RetryDecision(
        back_off(failures, LONGEST_CALL_S if isinstance(error, Unreachable) else LONGEST_RETRY_S), False
    )


def classify_resend(resends: int) -> RetryDecision:
    """Decide when a sink gets the whole run again; paused where it asks for that again and again.

    Args:
        resends: requests since it last got further than before, this one among them.
    """
    if resends >= MOST_REPEATS:
        return RetryDecision(PAUSE_S, True)
    return RetryDecision(back_off(resends) if resends > 1 else 0.0, False)


def needs_a_person(error: Exception) -> bool:
    """Return whether only a person can mend it: a key, a library, room on a disk."""
    return isinstance(error, ActionRequired | BackendUnavailable | ImportError) or (
        isinstance(error, OSError) and error.errno in _FULL_DISK
    )


def back_off(failures: int, longest_s: float = LONGEST_RETRY_S) -> float:
    """Draw the seconds until the next try: full jitter under a limit that doubles from 1 s to the longest."""
    return random.uniform(0.05, min(longest_s, FIRST_RETRY_S * 2 ** min(failures - 1, 10)))


def describe(error: Exception) -> str:
    """Put an error into words, as the cursor keeps it."""
    try:
        if isinstance(error, ActionRequired | Retry):
            text = str(error)
        elif isinstance(error, ImportError) and error.name:
            text = f"it needs {error.name.partition('.')[0]}, which is not installed here: {error}"
        else:
            text = f"{type(error).__name__}: {error}{_place_of(error) if isinstance(error, _WRONG_CODE) else ''}"
    except Exception:  # the exception's own code failed
        text = type(error).__name__
    return text.encode("utf-8", "backslashreplace").decode()[:_LONGEST_TEXT]


def _place_of(error: Exception) -> str:
    """Say where it was raised: " (mine.py, line 12)"."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""
