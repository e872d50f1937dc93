"""What a test has left running that fails: it has ended before the fixtures do, and no later test fails for it."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

CONFTEST = """
import pytest
from left_children import pytest_runtest_call as pytest_runtest_call
from support import start

children = []

@pytest.fixture(scope="module")
def module_child():
    child = start("input()")
    yield child
    assert child.poll() is None
    child.communicate()

@pytest.fixture
def starts():
    yield lambda script: children.append(start(script)) or children[-1]
    assert [child.poll() for child in children] == [-9] * len(children)
    for child in children:
        child.communicate()
    children.clear()
"""
TESTS = """
import gc
import sys
from support import start

def test_fails(module_child, starts):
    child = starts("print('here', flush=True); input()")
    assert child.stdout.readline() == "here\\n"
    start("import subprocess; subprocess.Popen(['sleep', '0.5']); input()").stdin.write("never flushed")
    start("input()").stdout.close()
    raise RuntimeError

def test_passes_behind_it(module_child):
    assert module_child.poll() is None
    sys.last_value = sys.last_traceback = None  # the frames of the test that has failed
    gc.collect()
"""


def test_a_test_that_fails_ends_what_it_has_started_and_fails_no_other(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nfilterwarnings = error\nasyncio_default_fixture_loop_scope = function")
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TESTS)
    done = pytester.inline_run("-p", "no:cacheprovider")
    passed, skipped, failed = done.listoutcomes()
    assert [report.nodeid.partition("::")[2] for report in failed] == ["test_fails"]
    assert [report.nodeid.partition("::")[2] for report in passed] == ["test_passes_behind_it"]
    assert not skipped
