"""Which tests run: the default set, `system`, `slow`, a sample; on a small directory of tests."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

PLAIN = """
def test_plain(): pass
"""
MIXED = """
import pytest

def test_plain(): pass
@pytest.mark.system
def test_system(): pass
@pytest.mark.slow
def test_slow(): pass
"""
BOTH = """
import pytest

pytestmark = pytest.mark.system

def test_system(): pass
@pytest.mark.parametrize("size", [1, pytest.param(1000, marks=pytest.mark.slow)])
def test_sizes(size): pass
"""
MANY = """
import pytest

@pytest.mark.system
@pytest.mark.parametrize("number", range(7))
def test_many(number): pass
@pytest.mark.system
def test_last(): pass
"""
CONFIGURATION = """
[pytest]
addopts = --strict-markers -p no:cacheprovider -o asyncio_default_fixture_loop_scope=function
testpaths = tests
markers =
    system
    slow
"""


@pytest.fixture
def house(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeini(CONFIGURATION)
    tests = pytester.mkdir("tests")
    (tests / "conftest.py").write_text('pytest_plugins = ["selection"]')
    (tests / "selection.py").symlink_to(Path(__file__).parent / "selection.py")  # workers find it beside what they run
    return pytester


def put(house: pytest.Pytester, **files: str) -> None:
    for name, content in files.items():
        (house.path / "tests" / f"{name}.py").write_text(content)


def ran(house: pytest.Pytester, *arguments: str) -> list[str]:
    """The ids of what passed, without their file's folder."""
    done = house.inline_run(*arguments)
    passed, skipped, failed = done.listoutcomes()
    assert not skipped and not failed
    return [report.nodeid.removeprefix("tests/") for report in passed]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["test_a.py::test_plain", "test_b.py::test_plain"]),
        (["tests"], ["test_a.py::test_plain", "test_b.py::test_plain"]),
        (["-m", "system"], ["test_b.py::test_system"]),
        (["-m", "slow"], ["test_b.py::test_slow"]),
        (["-m", "not slow"], ["test_a.py::test_plain", "test_b.py::test_plain", "test_b.py::test_system"]),
        (["-m", "system or slow"], ["test_b.py::test_system", "test_b.py::test_slow"]),
        (["tests/test_b.py"], ["test_b.py::test_plain", "test_b.py::test_system"]),
        (["tests/test_b.py", "-k", "system"], ["test_b.py::test_system"]),
        (["tests/../tests/test_b.py::test_system"], ["test_b.py::test_system"]),
        (["tests/test_b.py::test_slow"], []),
        (["tests/test_b.py::test_slow", "-m", "slow"], ["test_b.py::test_slow"]),
    ],
    ids=" ".join,
)
def test_what_is_asked_for_runs(house: pytest.Pytester, arguments: list[str], expected: list[str]) -> None:
    put(house, test_a=PLAIN, test_b=MIXED)
    assert ran(house, *arguments) == expected


@pytest.mark.parametrize(
    "workers",
    [pytest.param([], id="here"), pytest.param(["-n", "1"], id="in a worker", marks=pytest.mark.system)],
)
def test_test_with_both_markers_fails_the_collection(house: pytest.Pytester, workers: list[str]) -> None:
    put(house, test_a=PLAIN, test_b=BOTH)
    done = house.runpytest(*workers)
    assert done.ret in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.TESTS_FAILED)
    done.assert_outcomes(errors=1, passed=1 if workers else 0)
    done.stdout.fnmatch_lines(["*test_b.py::test_sizes?1000? is marked both `system` and `slow`*"])


@pytest.mark.system
def test_workers_run_the_default_set(house: pytest.Pytester) -> None:
    put(house, test_a=PLAIN, test_b=MIXED)
    house.runpytest("-n", "1").assert_outcomes(passed=2)


def test_sample_is_the_first_of_each_file_and_every_nth_after_it(house: pytest.Pytester) -> None:
    put(house, test_a=MANY, test_b=MIXED)
    assert ran(house, "-m", "system", "--one-in", "3") == [
        "test_a.py::test_many[0]",
        "test_a.py::test_many[3]",
        "test_a.py::test_many[6]",
        "test_b.py::test_system",
    ]


def test_run_of_no_test_says_where_the_others_are(house: pytest.Pytester) -> None:
    put(house, test_b=MIXED)
    done = house.runpytest("tests/test_b.py::test_slow")
    assert done.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    done.stdout.fnmatch_lines(["*nothing that is marked `slow` runs*"])
