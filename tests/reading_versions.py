"""The two versions of reading, by the native core and in Python: a test that uses the fixture `reading` runs with each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis.strategies import SearchStrategy

from asynctrack._system.native import is_native
from asynctrack.cli import run_rows
from asynctrack.collection import metric_stats
from asynctrack.curves import run_curves
from asynctrack.delivery import line_batches
from asynctrack.journal import batch_records, frames
from asynctrack.reading import repeats, scan

# Cases that are tried: by default, and with the system tests.
FEW_AND_MANY: Final = [6, pytest.param(50, marks=pytest.mark.system)]

NATIVE, PYTHON = "native", "python"
_CHOOSING = (batch_records, frames, line_batches, metric_stats, repeats, scan, run_curves, run_rows)


def read_in_python(patch: pytest.MonkeyPatch) -> None:
    """Have this process read runs without the core from here on."""
    for module in _CHOOSING:
        patch.setattr(module, "is_native", False)


def both(read: Callable[[], Any]) -> tuple[Any, Any]:
    """Return what is read with the core, and what without."""
    with pytest.MonkeyPatch.context() as patch:
        native = read()
        read_in_python(patch)
        return native, read()


@pytest.fixture(params=[NATIVE, PYTHON])
def reading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The version that a test reads with."""
    if request.param == PYTHON:
        read_in_python(monkeypatch)
    elif not is_native:
        pytest.skip("the native core is not used here")
    name: str = request.param
    return name


def tries(
    *strategies: SearchStrategy[Any], known: tuple[tuple[Any, ...], ...] = ()
) -> Callable[[Callable[..., None]], Any]:
    """Make a test of a check: it is made with cases of the strategies, few by default, and with those that are known."""

    def make(check: Callable[..., None]) -> Callable[[int], None]:
        @pytest.mark.parametrize("cases", FEW_AND_MANY)
        def test(cases: int) -> None:
            tried = given(*strategies)(check)
            for case in known:
                tried = example(*case)(tried)
            slow = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
            settings(max_examples=cases, deadline=None, suppress_health_check=slow)(tried)()

        test.__name__, test.__qualname__, test.__doc__ = check.__name__, check.__qualname__, check.__doc__
        test.__module__ = check.__module__
        return test

    return make
