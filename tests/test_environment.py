"""Variables of the environment that begin like ours and that nothing reads are said, once in a process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import DEADLINE_S, ROOT

import asynctrack
from asynctrack.client.environment import INTERNAL, VARIABLES

OPENS_TWO = """
import os, sys, asynctrack
for _ in range(2):
    asynctrack.init("p", mode="disabled").finish()
if not (pid := os.fork()):
    asynctrack.init("p", mode="disabled").finish()
    sys.exit(0)
os.waitpid(pid, 0)
"""


def said(**variables: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", OPENS_TWO], env={**os.environ, **variables}, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return done.stderr.splitlines()


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("ASYNCTRACK_BACKNDS", "did you mean ASYNCTRACK_BACKENDS?"),
        ("ASYNCTRACK_mode", "did you mean ASYNCTRACK_MODE?"),
        (
            "ASYNCTRACK_NOTHING_LIKE_IT",
            "there are ASYNCTRACK_BACKENDS, ASYNCTRACK_COLLECT, ASYNCTRACK_COLLECT_CA, ASYNCTRACK_COLLECT_FILE_BYTES, ASYNCTRACK_COLLECT_TOKEN, ASYNCTRACK_COLLECT_TOKEN_FILE, ASYNCTRACK_ENVIRONMENT, ASYNCTRACK_HOST, ASYNCTRACK_MODE, ASYNCTRACK_PURE, ASYNCTRACK_QUIET, ASYNCTRACK_RUN, ASYNCTRACK_RUN_ID, ASYNCTRACK_SHM, and those of NATS",
        ),
    ],
)
def test_variable_that_nothing_reads_is_said_once_with_the_closest(name: str, remedy: str) -> None:
    assert said(**{name: "x"}) == [
        f"asynctrack: {name} is set in the environment, and asynctrack does not read it; {remedy}"
    ]


def test_all_variables_that_nothing_reads_are_said_together() -> None:
    (line,) = said(ASYNCTRACK_BACKENDZ="x", ASYNCTRACK_QUITE="1")
    assert "ASYNCTRACK_BACKENDS?; ASYNCTRACK_QUITE" in line


def test_variables_that_are_read_are_not_said() -> None:
    assert said(ASYNCTRACK_BACKENDS="none", ASYNCTRACK_MODE="disabled", ASYNCTRACK_QUIET="1", ASYNCTRACK_SHM="", ASYNCTRACK_IDLE_EXIT_S="1") == []  # fmt: skip


def test_list_of_variables_is_what_the_package_reads() -> None:
    package = Path(asynctrack.__file__).parent
    found = {
        name
        for path in (*package.rglob("*.py"), ROOT / "setup.py")
        for name in re.findall(r"[\"']ASYNCTRACK_([A-Z_]+)[\"']", path.read_text())
    }
    assert found == {*VARIABLES, *INTERNAL}
