"""Left children: ends what a test that fails has left running, so that its failure stays its own."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Generator
from typing import Final

import pytest

# How long is read what a killed child has said. What it has started may hold its pipes for longer. Arbitrary.
_LAST_WORDS_S: Final = 1.0

# Those that the test has started by `support.start`.
_started: list[subprocess.Popen[str]] = []


def note(child: subprocess.Popen[str]) -> None:
    """Have a child ended if the test fails that has started it."""
    _started.append(child)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    """End them before the fixtures end, which wait until every queue has gone."""
    _started.clear()  # what fixtures have started is theirs
    try:
        return (yield)
    except BaseException:
        for child in _started:
            _end(child)
        raise
    finally:
        _started.clear()


def _end(child: subprocess.Popen[str]) -> None:
    """Kill a child and close its pipes: one that is left open is a warning, which fails a later test."""
    child.kill()
    with contextlib.suppress(subprocess.TimeoutExpired, ValueError):  # ValueError: the test has closed a pipe
        child.communicate(timeout=_LAST_WORDS_S)
    child.wait()
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):  # the rest of what it was told
                pipe.close()
