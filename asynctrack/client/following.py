"""Following: tells that the process by which a run was found has left it, and may have gone on to another. Runs in the caller.

A pool keeps its processes from one run to the next. What one of them logs without naming a run belongs to the run that the process from which it
descends has open then, so the queue is looked at by which the run was found: it says whether that process has finished.
"""

from __future__ import annotations

import os
import time
from typing import Final

from asynctrack._system import fork
from asynctrack.client.run import Run
from asynctrack.queue.layout import END

# Between two looks at a queue, which take some microseconds: far less than it takes to finish a run and to open another. Arbitrary.
_LOOK_AGAIN_S: Final = 0.002

# The runs to which this process has attached, each with the path of the queue by which it was found: that of an ancestor.
followed: Final[dict[Run, str]] = {}
# When the next look is due, by the monotonic clock: `asynctrack.log` reads it, since a call would cost it more than the clock does.
due_at = 0.0


def follow(run: Run, queue: str) -> None:
    """Look from here on whether the ancestor that has this queue leaves the run."""
    for before in [before for before in followed if not before.is_open]:
        followed.pop(before, None)
    followed[run] = queue


def is_left(run: Run) -> bool:
    """Tell whether this process has attached to a run that its ancestor has left since."""
    global due_at
    due_at = time.monotonic() + _LOOK_AGAIN_S
    queue = followed.get(run)
    return queue is not None and _has_ended(queue)


def _has_ended(queue: str) -> bool:
    """Tell whether a queue's process has finished. It is another's: to close the file of an own queue would drop its lock."""
    try:
        fd = os.open(queue, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:  # such as too many open files: nothing is known
        return False
    try:
        return any(os.pread(fd, 8, 8 * END))
    except OSError:
        return False
    finally:
        os.close(fd)


@fork.in_child
def _after_fork_in_child() -> None:
    followed.clear()
