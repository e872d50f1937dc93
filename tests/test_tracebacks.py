"""The traceback of a run that has failed: it is kept however the run ends, bounded, without secrets, and whatever the exception's own code does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest
from cli_support import asynctrack_
from support import DEADLINE_S, ROOT, wait_until

import asynctrack
from asynctrack._system.tracebacks import MOST_BYTES, format_traceback
from asynctrack.journal.manifest import Manifest
from asynctrack.reading.opening import open_run

pytestmark = pytest.mark.usefixtures("own_host")


def fall(depth: int) -> NoReturn:
    if depth:
        fall(depth - 1)
    raise ValueError("at the bottom")


def fall_again() -> NoReturn:
    try:
        fall(2)
    except ValueError as error:
        raise RuntimeError("after all") from error


def traceback_of(error: BaseException) -> str:
    text = format_traceback(error)
    assert text is not None
    return text


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_a_run_keeps_the_traceback_of_what_ended_its_block(runs: Path) -> None:
    with pytest.raises(RuntimeError), asynctrack.init("p", dir=runs) as run:
        fall_again()
    found = open_run(run.path).traceback
    assert found is not None
    assert found.count("in fall\n") == 3
    assert "direct cause" in found
    assert found.endswith("RuntimeError: after all")
    assert found == open_run(run.path).manifest().traceback
    shown = asynctrack_("show", str(run.path)).stdout
    assert "traceback" in shown
    assert "ValueError: at the bottom" in shown


def test_a_run_that_went_well_has_none(runs: Path) -> None:
    with asynctrack.init("p", dir=runs) as run:
        run.log({"loss": 1.0})
    assert open_run(run.path).traceback is None


@pytest.mark.system
@pytest.mark.parametrize(
    ("end", "last"),
    [("fall()", "ValueError: at the bottom"), ("raise KeyboardInterrupt", "KeyboardInterrupt"), ("sys.exit(3)", None), ("run.finish(exit_code=2)", None)],
    ids=["exception", "Ctrl-C", "exit code", "finish"],
)  # fmt: skip
@pytest.mark.parametrize("worker", ["process", "thread"])
def test_a_run_keeps_the_traceback_of_what_ended_its_process(
    runs: Path, end: str, last: str | None, worker: str
) -> None:
    script = f"""
import sys, asynctrack
def fall():
    raise ValueError("at the bottom")
run = asynctrack.init("p", id="a", dir={str(runs)!r}, worker={worker!r})
run.log({{"loss": 1.0}})
{end}
"""
    subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, timeout=DEADLINE_S, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    wait_until(lambda: open_run(runs / "p" / "a").status != "running", "the end of the run")
    found = open_run(runs / "p" / "a").traceback
    assert (None if found is None else found.splitlines()[-1]) == last


@pytest.mark.system
def test_a_child_that_fails_leaves_its_traceback_and_says_whose_it_is(runs: Path) -> None:
    with asynctrack.init("p", dir=runs) as run:
        run.log({"loss": 1.0})
        if not (pid := os.fork()):
            try:
                with run:
                    run.log({"loss": 2.0})
                    fall(0)
            finally:
                os._exit(1)
        os.waitpid(pid, 0)
    found = open_run(run.path)
    wait_until(lambda: found.traceback is not None, "the child's traceback")
    assert (found.traceback or "").startswith(f"in process {pid}:\nTraceback")


def test_a_resumed_run_forgets_the_traceback_of_the_session_before(runs: Path) -> None:
    with pytest.raises(ValueError, match="bottom"), asynctrack.init("p", id="a", dir=runs):
        fall(0)
    assert open_run(runs / "p" / "a").traceback
    with asynctrack.init("p", id="a", dir=runs, resume="must"):
        pass
    assert open_run(runs / "p" / "a").traceback is None


def test_secrets_in_a_traceback_are_masked(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "swordfish1")
    with pytest.raises(ValueError, match="swordfish1"), asynctrack.init("p", dir=runs) as run:
        raise ValueError("swordfish1 https://me:hunter22@h/x")
    kept = b"".join(path.read_bytes() for path in run.path.rglob("*") if path.is_file())
    assert [secret for secret in (b"hunter22", b"swordfish1") if secret in kept] == []
    assert "swordfish1" not in (open_run(run.path).traceback or "")


def test_where_the_queue_has_no_room_for_it_the_error_is_kept(runs: Path) -> None:
    with pytest.raises(ExceptionGroup), asynctrack.init("p", dir=runs, queue_bytes=4096) as run:
        raise ExceptionGroup("many", [raised(ValueError(f"{number} " * 20)) for number in range(15)])
    found = open_run(run.path)
    assert (found.status, found.traceback) == ("failed", None)
    assert (found.manifest().error or "").startswith("ExceptionGroup: many")


def test_the_innermost_frames_of_a_long_traceback_are_kept() -> None:
    steps = "".join(f"def step{number}():\n    step{number - 1}()\n" for number in range(1, 300))
    code = f"def step0():\n    raise ValueError('deep' + 'x' * 100_000)\n{steps}step299()\n"
    with pytest.raises(ValueError, match="deep") as caught:
        exec(compile(code, "/" + "d" * 200, "exec"), {})
    found = traceback_of(caught.value)
    assert len(found) <= MOST_BYTES
    assert "in step0" in found
    assert "in step299" not in found
    assert "ValueError: deep" in found


def test_a_recursion_without_end_and_many_causes_are_bounded() -> None:
    def again() -> None:
        again()

    with pytest.raises(RecursionError) as caught:
        again()
    assert traceback_of(caught.value).endswith("RecursionError: maximum recursion depth exceeded")
    chain: BaseException = ValueError("0")
    for number in range(1, 3000):
        following = raised(ValueError(str(number)))
        following.__cause__ = chain
        chain = following
    found = traceback_of(chain)
    assert len(found) <= MOST_BYTES
    assert found.endswith("ValueError: 2999")


class Broken(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even that")

    __repr__ = __str__


class NoNotes(Exception):
    @property
    def __notes__(self) -> list[str]:
        raise ValueError("no")


@pytest.mark.parametrize(
    "error",
    [Broken(), NoNotes("x"), ExceptionGroup("g", [Broken(), ValueError("in it")]), ValueError("\ud800\0\x1b[31m")],
)
def test_what_the_code_of_an_exception_does_harms_nothing(runs: Path, error: Exception) -> None:
    with pytest.raises(type(error)), asynctrack.init("p", dir=runs) as run:
        raise error
    assert open_run(run.path).status == "failed"
    assert "\x1b" not in asynctrack_("show", str(run.path)).stdout


def test_a_run_json_without_a_traceback_is_read() -> None:
    assert Manifest(id="a", name="a", project="p", created_at="").traceback is None
