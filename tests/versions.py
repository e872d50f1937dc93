"""The two versions of the core, in C and in Python: a test that uses the fixture `version` runs with each, a `system` test with one."""

from __future__ import annotations

import os

import pytest
from reading_versions import read_in_python

from asynctrack._system import native
from asynctrack._system.native import PURE_VARIABLE, REQUIRE_VARIABLE, is_native
from asynctrack.journal import layout
from asynctrack.queue import producer

NATIVE, PYTHON = "native", "python"


def pytest_configure() -> None:
    """Refuse to test the Python version alone where the native core is asked for, or is there and cannot be used."""
    if native.is_broken:
        raise pytest.UsageError(f"{native.why_not}; or set {PURE_VARIABLE}=1")
    if os.environ.get(REQUIRE_VARIABLE) and not is_native and not os.environ.get(PURE_VARIABLE):
        raise pytest.UsageError(f"{REQUIRE_VARIABLE} is set, but {native.why_not}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run with each version that is here; `system` tests take long, so CI runs them once more, on another Python with `ASYNCTRACK_PURE=1`."""
    own = metafunc.definition.iter_markers("parametrize")
    if "version" not in metafunc.fixturenames or any("version" in mark.args[0] for mark in own):
        return
    here = [NATIVE] * is_native + [PYTHON]
    if metafunc.definition.get_closest_marker("system") or metafunc.definition.get_closest_marker("slow"):
        here = here[:1]
    metafunc.parametrize("version", here, indirect=True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the Python version out where a parameter makes a test `system` or `slow`, as above where the whole test is one."""
    out = [item for item in items if is_native and _is_repeat(item)]
    if out:
        config.hook.pytest_deselected(items=out)
        left_out = set(out)
        items[:] = [item for item in items if item not in left_out]


def _is_repeat(item: pytest.Item) -> bool:
    given = getattr(item, "callspec", None)
    if given is None or given.params.get("version") != PYTHON:
        return False
    own = any("version" in mark.args[0] for mark in item.iter_markers("parametrize"))
    return not own and any(map(item.get_closest_marker, ("system", "slow")))


@pytest.fixture
def version(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The version that a test runs with."""
    name: str = request.param
    if name == PYTHON:
        use_python(monkeypatch)
    return name


def use_python(patch: pytest.MonkeyPatch) -> None:
    """Use the Python version for the runs that are opened from here on, in this process and those that it starts."""
    patch.setattr(producer, "create", producer.PythonProducer)  # `Run.log` has no fast way to it
    patch.setattr(layout, "is_native", False)
    read_in_python(patch)
    patch.setenv(PURE_VARIABLE, "1")
