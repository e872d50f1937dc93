"""What a run gets that is opened without `backends=`, which run is the current one, and how to get at its backends from anywhere."""

from __future__ import annotations

import asyncio
import contextvars
import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from support import manifest, run_child, values

import asynctrack
from asynctrack import Backend, JSONLines, Memory, Run, TensorBoard, Tracker, current_backend
from asynctrack.backends.registry import class_of, kind_of, lacks
from asynctrack.client import default_backends
from asynctrack.errors import BackendUnavailable, InvalidSettings, NoCurrentRun, NoSuchBackend

pytestmark = pytest.mark.usefixtures("shared_host")


@pytest.fixture(autouse=True)
def _no_defaults() -> Iterator[None]:
    asynctrack.reset_default_backends()
    yield
    asynctrack.reset_default_backends()


@pytest.fixture
def opened(runs: Path) -> Iterator[Callable[..., Run]]:
    """Opens runs, and finishes them behind the test."""
    found: list[Run] = []

    def init(**settings: Any) -> Run:
        found.append(asynctrack.init("p", dir=runs, **settings))
        return found[-1]

    yield init
    for run in found:
        run.finish()


def kinds(backends: list[Backend | str]) -> list[str]:
    return [backend if isinstance(backend, str) else kind_of(backend) for backend in backends]


def works(kind: str) -> bool:
    try:
        return not lacks(class_of(kind))
    except BackendUnavailable:
        return False


# Presets and lists in the environment


@pytest.mark.parametrize("preset", list(default_backends.PRESETS))
def test_preset_is_what_of_it_works_here(monkeypatch: pytest.MonkeyPatch, preset: str) -> None:
    monkeypatch.setenv("ASYNCTRACK_BACKENDS", preset)
    wanted = [kind for kind in default_backends.PRESETS[preset] if works(kind)]
    if preset == "standard":  # not at a terminal
        wanted = [kind for kind in wanted if kind != "console"]
    assert kinds(default_backends.default_backends()) == wanted


@pytest.mark.parametrize(
    ("preset", "file"), [("standard", "config.yaml"), ("hydra", "metadata.yaml"), ("minimal", "metrics.jsonl")]
)
def test_preset_writes_its_files(
    monkeypatch: pytest.MonkeyPatch, opened: Callable[..., Run], preset: str, file: str
) -> None:
    if file.endswith(".yaml"):
        pytest.importorskip("yaml", reason="PyYAML is not installed")
    monkeypatch.setenv("ASYNCTRACK_BACKENDS", preset)
    with opened(config={"lr": 0.1}) as run:
        run.log({"loss": 0.5})
    assert (run.path / file).exists()
    assert run.stats().behind == 0
    assert all(backend_stats.last_error is None for backend_stats in run.stats().backends.values())


@pytest.mark.parametrize("preset", ["standard", "hydra", "minimal"])
def test_preset_works_without_the_libraries_that_it_would_like(
    monkeypatch: pytest.MonkeyPatch, opened: Callable[..., Run], preset: str
) -> None:
    monkeypatch.setenv("ASYNCTRACK_BACKENDS", preset)
    monkeypatch.setattr(default_backends, "class_of", lambda kind: class_of(kind if kind == "jsonl" else "no.such"))
    assert kinds(default_backends.default_backends()) == ["jsonl"]
    run = opened()
    assert run.log({"x": 1})
    assert run.finish().backends["jsonl"].delivered == 1


def test_none_leaves_the_journal_alone(monkeypatch: pytest.MonkeyPatch, opened: Callable[..., Run]) -> None:
    monkeypatch.setenv("ASYNCTRACK_BACKENDS", "none")
    run = opened()
    run.log({"x": 1})
    assert run.finish().backends == {}
    assert not (run.path / "metrics.jsonl").exists()
    assert values(run.path, "x") == [1]


def test_standard_shows_something_at_a_terminal() -> None:
    if not works("console"):
        pytest.skip("there is no console")
    script = "import sys; from asynctrack.client import default_backends; print(default_backends.default_backends()[-1], file=sys.stderr)"
    ours, theirs = pty.openpty()
    environment = {**os.environ, "ASYNCTRACK_BACKENDS": "standard", "TERM": "xterm"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, stdout=theirs, stderr=subprocess.PIPE, text=True, timeout=50)
    os.close(ours)
    os.close(theirs)
    assert done.stderr.startswith("Console(")


def test_environment_may_list_kinds_and_classes(monkeypatch: pytest.MonkeyPatch, opened: Callable[..., Run]) -> None:
    monkeypatch.setenv("ASYNCTRACK_BACKENDS", "jsonl, asynctrack.Memory,asynctrack.backends.tensorboard.TensorBoard,")
    run = opened()
    assert list(run.backends) == ["jsonl", "memory", "tensorboard"]
    assert list(run.stats().backends) == ["jsonl", "memory", "tensorboard"]


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ("jsonl,consol", r"'consol' must be a backend or one of .*jsonl, .*; got 'consol'; did you mean `console`\?"),
        ("tensorbord", r"'tensorbord' must be .*; did you mean `tensorboard`\?"),
        ("os.system", r"'os\.system': it is a function, and not the class of a backend"),
        ("no.such.Class", r"it cannot be imported: No module named 'no'"),
        ("asynctrack.Backend", r"it is the base class of all backends"),
        ("standard,jsonl", r"or one of standard, hydra, minimal, none: 'standard' must be"),
    ],
)
def test_what_is_listed_and_not_there_is_an_error_at_once(
    runs: Path, monkeypatch: pytest.MonkeyPatch, listed: str, message: str
) -> None:
    monkeypatch.setenv("ASYNCTRACK_BACKENDS", listed)
    for opening in (asynctrack.init, Tracker):
        with pytest.raises(InvalidSettings, match=f"ASYNCTRACK_BACKENDS takes kinds.*{message}"):
            opening("p", dir=runs)
    assert not runs.exists()


def test_all_that_is_listed_and_not_there_is_named_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCTRACK_BACKENDS", "consol,jsonl,memry")
    with pytest.raises(InvalidSettings) as caught:
        default_backends.default_backends()
    assert len(caught.value.problems) == 2


def test_argument_goes_over_everything(monkeypatch: pytest.MonkeyPatch, opened: Callable[..., Run]) -> None:
    monkeypatch.setenv("ASYNCTRACK_BACKENDS", "nonsense")
    asynctrack.set_default_backends(["tensorboard"])
    assert list(opened(backends=["memory"]).backends) == ["memory"]
    assert list(opened(backends=[]).backends) == []


# Defaults in code


def test_defaults_are_set_extended_and_reset(monkeypatch: pytest.MonkeyPatch, opened: Callable[..., Run]) -> None:
    assert list(opened().backends) == ["jsonl"]
    asynctrack.extend_default_backends(["memory"])
    assert list(opened().backends) == ["jsonl", "memory"]
    asynctrack.set_default_backends([JSONLines(file="all.jsonl")])
    asynctrack.extend_default_backends(iter([TensorBoard()]))
    run = opened()
    assert list(run.backends) == ["jsonl", "tensorboard"]
    run.log({"x": 1})
    run.finish()
    assert (run.path / "all.jsonl").exists()
    asynctrack.reset_default_backends()
    monkeypatch.setenv("ASYNCTRACK_BACKENDS", "memory")
    assert list(opened().backends) == ["memory"]
    asynctrack.set_default_backends([])
    assert list(opened().backends) == []


@pytest.mark.parametrize("change", [asynctrack.set_default_backends, asynctrack.extend_default_backends])
@pytest.mark.parametrize("wrong", ["jsonl", ["jsonl", "nonsense"], [None], JSONLines(), None])
def test_default_that_is_no_backend_is_refused_and_changes_nothing(change: Callable[[Any], None], wrong: Any) -> None:
    with pytest.raises(InvalidSettings, match="must be a"):
        change(wrong)
    assert kinds(default_backends.default_backends()) == ["jsonl"]


def test_kind_among_the_defaults_is_built_anew_for_each_run(opened: Callable[..., Run]) -> None:
    asynctrack.set_default_backends(["memory"])
    first, second = opened(), opened()
    first.log({"x": 1})
    second.log({"x": 2})
    first.finish()
    second.finish()
    found = [run.backends["memory"] for run in (first, second)]
    assert [backend.records for backend in found if isinstance(backend, Memory)] == [[{"x": 1}], [{"x": 2}]]


def test_tracker_takes_the_defaults_of_the_moment(runs: Path) -> None:
    tracker = Tracker("p", dir=runs)
    asynctrack.set_default_backends(["memory"])
    assert list(tracker.init().backends) == ["memory"]
    tracker.finish()


def test_mode_in_the_environment_that_is_none_is_said_to_be_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCTRACK_MODE", "quiet")
    with pytest.raises(InvalidSettings, match="got 'quiet' from the environment's ASYNCTRACK_MODE"):
        asynctrack.init("p")


# The current run


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_each_task_has_its_own_run_and_the_others_the_one_they_were_born_into(
    opened: Callable[..., Run], backend: str
) -> None:
    async def optimise(name: str) -> None:
        async with opened(id=name) as run:
            for i in range(5):
                assert asynctrack.current() is run
                assert asynctrack.log({name: i})
                await anyio.sleep(0)
            assert await anyio.to_thread.run_sync(asynctrack.current) is run
            async with anyio.create_task_group() as children:
                children.start_soon(child, run)
        assert asynctrack.current() is outer

    async def child(expected: Run) -> None:
        assert asynctrack.current() is expected

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for name in ("a", "b", "c"):
                tasks.start_soon(optimise, name)

    outer = opened(id="outer")
    anyio.run(main, backend=backend)
    assert asynctrack.current() is contextvars.Context().run(asynctrack.current) is outer
    assert all(values(outer.path.parent / name, name) == list(range(5)) for name in ("a", "b", "c"))


def test_run_around_another_is_the_current_one_again(opened: Callable[..., Run]) -> None:
    with opened() as outer:
        with opened() as inner:
            assert asynctrack.current() is inner
        assert asynctrack.current() is outer
        with opened():
            outer.finish()
            assert asynctrack.current() is not outer
    assert asynctrack.current() is None


def test_run_that_ends_elsewhere_is_nobodys_current_one(opened: Callable[..., Run]) -> None:
    first = opened()
    thread = threading.Thread(target=lambda: opened().finish())
    thread.start()
    thread.join()
    assert asynctrack.current() is first
    thread = threading.Thread(target=first.finish)
    thread.start()
    thread.join()
    assert asynctrack.current() is None
    with pytest.raises(NoCurrentRun):
        asynctrack.log({"x": 1})


def test_run_that_a_task_has_opened_is_found_by_the_script_around_it(opened: Callable[..., Run]) -> None:
    async def main() -> Run:
        return opened()

    assert asyncio.run(main()) is asynctrack.current()


def test_threads_find_their_own_run_or_else_the_latest(opened: Callable[..., Run]) -> None:
    run = opened()
    found: list[Any] = []

    def work() -> None:
        found.append(asynctrack.current())
        own = opened()
        found.append(asynctrack.current() is own)
        done.wait(20)
        found.append(asynctrack.current() is own)

    done = threading.Event()
    thread = threading.Thread(target=work)
    thread.start()
    opened()
    done.set()
    thread.join()
    assert found == [run, True, True]


# Its backends


def test_open_backend_of_a_kind_is_found_from_anywhere(opened: Callable[..., Run]) -> None:
    run = opened(backends=["jsonl", Memory(), TensorBoard(flush_s=0.5)])
    asynctrack.log({"loss": 0.5}, step=3)
    run.flush()
    assert current_backend(Memory).records == [{"loss": 0.5}]
    assert current_backend(TensorBoard).flush_s == 0.5
    assert run.backends["jsonl"] is current_backend(JSONLines)
    assert run.stats().backends["tensorboard"].delivered == 1
    with pytest.raises(TypeError):
        run.backends["more"] = Memory()  # type: ignore[index]  # the mistake


def test_of_several_of_a_kind_the_first_is_found_and_the_others_by_their_names(opened: Callable[..., Run]) -> None:
    first, second = Memory(), Memory(downsample_interval_s=1.0)
    run = opened(backends=[first, second])
    assert current_backend(Memory) is first
    assert run.backends["memory-2"] is second


def test_subclass_is_found_by_its_base_too(opened: Callable[..., Run]) -> None:
    class Mine(Memory, frozen=True, kw_only=True):
        pass

    mine = Mine()
    opened(backends=[mine])
    assert current_backend(Memory) is current_backend(Mine) is mine


def test_backend_that_no_run_has_is_said_to_be_none(opened: Callable[..., Run]) -> None:
    with pytest.raises(NoCurrentRun, match=r"current_backend\(Memory\) needs an open run"):
        current_backend(Memory)
    opened(id="lonely")
    with pytest.raises(NoSuchBackend, match="run 'lonely' has no Memory among its backends; it has jsonl"):
        current_backend(Memory)


def test_disabled_run_has_its_backends_too(runs: Path) -> None:
    with asynctrack.init("p", dir=runs, mode="disabled", backends=["memory"]) as run:
        run.log({"x": 1})
        assert current_backend(Memory).records == []
    assert not runs.exists()


@pytest.mark.system
def test_defaults_and_current_run_hold_in_a_forked_child(runs: Path) -> None:
    script = """
import asynctrack, json, os, sys
asynctrack.set_default_backends(["jsonl", "memory"])
run = asynctrack.init("p", dir=sys.argv[1])
pid = os.fork()
if pid == 0:
    assert asynctrack.current() is run
    asynctrack.log({"child": 1})
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
run.finish()
print(json.dumps([list(run.backends), str(run.path)]))
"""
    names, path = run_child(script, runs)
    assert names == ["jsonl", "memory"]
    assert values(Path(path), "child") == [1]
    assert json.loads(json.dumps(manifest(Path(path))["backends"]))["memory"] == {
        "kind": "memory",
        "execution": "caller",
    }
