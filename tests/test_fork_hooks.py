"""What of ours begins anew in a forked child does so in one order, whatever one of them raises, and nothing keeps it alive for that."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support import DEADLINE_S, ROOT

pytestmark = pytest.mark.usefixtures("version")

FORKED = """
import gc, os, sys
from asynctrack._system import fork

seen = []

class Thing:
    def __init__(self, name, error=None):
        self.name, self.error = name, error
        fork.watch(self)

    def after_fork(self):
        seen.append(self.name)
        if self.error is not None:
            raise self.error

def run():
    del seen[:]
    sys.stdout.flush()
    if (pid := os.fork()) == 0:
        print("child:", *seen)
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(pid, 0)
    print("parent:", *seen)
"""


def manifest_of(script: str) -> tuple[list[str], str]:
    done = subprocess.run(
        [sys.executable, "-c", FORKED + script], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=True
    )  # fmt: skip
    return done.stdout.splitlines(), done.stderr


def test_things_begin_anew_the_oldest_first_and_then_modules() -> None:
    lines, _ = manifest_of("""
fork.in_child(lambda: seen.append("module"))
fork.in_child(lambda: seen.append("later module"))
things = [Thing(f"thing {number}") for number in range(5)]
run()
""")
    assert lines == ["child: thing 0 thing 1 thing 2 thing 3 thing 4 module later module", "parent:"]


def test_parent_is_asked_before_and_told_after() -> None:
    lines, _ = manifest_of("""
for name in "ab":
    fork.before(lambda name=name: seen.append(f"before {name}"))
    fork.in_parent(lambda name=name: seen.append(f"after {name}"))
run()
""")
    assert lines == ["child: before b before a", "parent: before b before a after a after b"]


def test_thing_that_nobody_holds_is_forgotten() -> None:
    lines, _ = manifest_of("""
kept, dropped = Thing("kept"), Thing("dropped")
before = len(fork._things)
del dropped
gc.collect()
print(before - len(fork._things))
run()
""")
    assert lines == ["1", "child: kept", "parent:"]


def test_one_that_raises_keeps_none_of_the_others_from_beginning_anew() -> None:
    lines, errors = manifest_of("""
things = [Thing("a"), Thing("b", KeyboardInterrupt("by b")), Thing("c", ValueError("by c")), Thing("d")]
fork.in_child(lambda: seen.append("module"))
run()
""")
    assert lines == ["child: a b c d module", "parent:"]
    assert "by b" in errors
    assert "by c" not in errors


def test_child_of_a_child_begins_anew_too() -> None:
    lines, _ = manifest_of("""
thing = Thing("thing")
if (pid := os.fork()) == 0:
    run()
    sys.stdout.flush()
    os._exit(0)
os.waitpid(pid, 0)
""")
    assert lines == ["child: thing", "parent:"]
