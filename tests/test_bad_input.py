"""What a user may get wrong, and what the world may: each has its error, and nothing that was accepted is lost by it."""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from support import left_in, lines, manifest, records, remove, values, wait_until, workers

import asynctrack
from asynctrack import Run, Tracker, errors
from asynctrack.journal.layout import salt_of

pytestmark = pytest.mark.usefixtures("shared_host")

LONG = "x" * 200


@pytest.fixture
def run(runs: Path) -> Iterator[Run]:
    """A run that has taken one record; whatever the test does, in the end it has that one and the one after."""
    with asynctrack.init("p", dir=runs) as run:
        run.log({"kept": 1})
        yield run
        run.log({"kept": 2})
    assert values(run.path, "kept") == [1, 2]
    assert len(records(run.path)) == 2
    assert [line["kept"] for line in lines(run.path)] == [1, 2]
    stats = run.stats()
    assert (stats.accepted, stats.offered) == (2, 2)
    assert manifest(run.path)["status"] == "finished"


# The caller's mistakes


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "data",
    [None, 1, 0.5, "loss", [("loss", 1)], {"loss"}, ("loss", 1), np.zeros(2), dict],
    ids=["None", "int", "float", "str", "pairs", "set", "tuple", "array", "type"],
)
def test_data_that_is_not_a_mapping_is_refused(run: Run, data: Any) -> None:
    for log in (run.log, run.bind({"a": 1}).log, run.scope("train").log, run.scope("train", every=2).log):
        with pytest.raises(
            errors.InvalidData, match=r"log\(\) takes a mapping .* such as \{'loss': 0\.5\}; got"
        ) as caught:
            log(data)
        assert isinstance(caught.value, TypeError)
        assert str(caught.value).endswith(f"got {type(data).__name__}: {data!r:.80}")


@pytest.mark.parametrize("given", [Unprintable(), 10**5000], ids=["raises", "too long for a text"])
def test_refused_data_without_a_repr_are_refused_as_any_other(run: Run, given: Any) -> None:
    with pytest.raises(errors.InvalidData, match=rf"got {type(given).__name__}: \.\.\."):
        run.log(given)
    with pytest.raises(errors.InvalidStep, match=rf"got {type(given).__name__}: \.\.\."):
        run.log({"x": 1}, step=given)


async def test_alog_refuses_what_log_refuses(run: Run) -> None:
    with pytest.raises(errors.InvalidData):
        await run.alog([1])  # type: ignore[arg-type]  # the mistake
    with pytest.raises(errors.InvalidStep):
        await run.alog({"x": 1}, step=0.5)  # type: ignore[arg-type]  # the mistake


def test_stream_that_is_logged_stays_open(runs: Path, tmp_path: Path) -> None:
    with (tmp_path / "out.txt").open("w") as stream, asynctrack.init("p", dir=runs, config={"out": stream}) as run:
        run.log({"out": stream})
        stream.write("still here")
    assert "TextIOWrapper" in values(run.path, "out")[0]


@pytest.mark.parametrize(
    "step",
    [0.5, 1.0, "1", True, False, np.float64(1), np.bool_(True), np.array([1, 2]), [1], 1 << 64, -(1 << 63) - 1],
    ids=repr,
)
def test_step_that_is_not_an_integer_is_refused(run: Run, step: Any) -> None:
    for log in (run.log, run.bind({"a": 1}).log, run.scope("train", every=2).log):
        expected = r"step must be an integer of 64 bits or None \(NumPy's integers are fine, a bool is not\); got"
        with pytest.raises(errors.InvalidStep, match=expected) as caught:
            log({"x": 1}, step=step)
        assert isinstance(caught.value, TypeError)
        assert f"{type(step).__name__}: {step!r:.80}" in str(caught.value)


@pytest.mark.parametrize("call", ["log", "alog", "config", "summary", "bound", "scoped"])
async def test_call_after_finish_is_refused(run: Run, call: str) -> None:
    run.log({"kept": 2})
    run.finish()
    calls: dict[str, Callable[[], object]] = {
        "log": lambda: run.log({"kept": 3}),
        "config": lambda: run.config.update(late=1),
        "summary": lambda: run.summary.update(late=1),
        "bound": lambda: run.bind({"a": 1}).log({"kept": 3}),
        "scoped": lambda: run.scope("train").log({"kept": 3}),
    }
    with pytest.raises(
        errors.RunFinished, match=f"came after run '{run.id}' had finished, .*; open a new run with init"
    ):
        await run.alog({"kept": 3}) if call == "alog" else calls[call]()
    run.log = lambda data: True  # type: ignore[method-assign]  # the fixture's last record is there already


def test_config_or_summary_that_is_not_a_mapping_is_refused(run: Run, runs: Path) -> None:
    for settings in ([1, 2], "lr=1", 3):
        with pytest.raises(errors.InvalidData, match=r"config takes a mapping of names to values.*; got"):
            asynctrack.init("p", dir=runs, config=settings)  # type: ignore[arg-type]  # the mistake
        with pytest.raises(errors.InvalidData, match=r"config takes a mapping of names to values.*; got"):
            Tracker("p", dir=runs, config=settings)  # type: ignore[arg-type]  # the mistake
    for summary in ([1, 2], "lr=1", 0.5):
        with pytest.raises(errors.InvalidData, match=r"summary takes a mapping of names to values.*; got"):
            run.finish(summary)  # type: ignore[arg-type]  # the mistake


SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"when_full": "wait"}, r"when_full must be one of 'drop_newest', 'block', 'raise'; got 'wait'"),
    ({"when_full": None}, r"when_full must be one of .*; got None"),
    ({"worker": "fork"}, r"worker must be one of 'process', 'thread'; got 'fork'"),
    ({"mode": "on"}, r"mode must be one of 'online', 'offline', 'disabled'; got 'on'"),
    ({"queue_bytes": 100}, r"queue_bytes must be None or a number of bytes from 4,096 to 1,073,741,824; got 100"),
    ({"queue_bytes": 1e6}, r"queue_bytes must be .*; got 1000000\.0"),
    ({"queue_bytes": True}, r"queue_bytes must be .*; got True"),
    ({"max_block_s": -1}, r"max_block_s must be a number of seconds from 0 to 86,400 \(a day\); got -1"),
    ({"max_block_s": float("nan")}, r"max_block_s must be .*; got nan"),
    ({"finish_timeout_s": "30"}, r"finish_timeout_s must be a number of seconds from 0 to 2,592,000 \(30 days\); got '30'"),
    ({"linger_s": 0}, r"linger_s must be a number of seconds from 0\.001 to 0\.25; got 0"),
    ({"sync_interval_s": None}, r"sync_interval_s must be .*; got None"),
    ({"dir": ""}, r"dir must be the path of a directory; got ''"),
    ({"dir": 3}, r"dir must be the path of a directory; got 3"),
    ({"settings": {"linger": 1}}, r"linger is not a setting; there are dir, mode, .*linger_s.*; did you mean `linger_s`\?"),
    ({"backends": ["nonsense"]}, r"backends\[0\] must be a backend or one of .*jsonl, .*memory.*; got 'nonsense'"),
    ({"backends": [asynctrack.JSONLines]}, r"backends\[0\] must be a backend, .*: write `JSONLines\(\)` in place of `JSONLines`"),
    ({"backends": "jsonl"}, r"backends must be a list of backends.*; got 'jsonl'"),
    ({"backends": asynctrack.JSONLines()}, r"backends must be a list of backends.*; got JSONLines"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "message"), SETTINGS, ids=[repr(settings) for settings, _ in SETTINGS])
def test_setting_that_cannot_be_used_is_refused_at_once(runs: Path, settings: dict[str, Any], message: str) -> None:
    for opening in (asynctrack.init, Tracker):
        with pytest.raises(errors.InvalidSettings, match=message) as caught:
            opening("p", **{"dir": runs, **settings})
        assert isinstance(caught.value, ValueError)
        assert len(caught.value.problems) == 1
    assert not runs.exists()


def test_all_settings_that_cannot_be_used_are_named_together(runs: Path) -> None:
    with pytest.raises(errors.InvalidSettings, match=r"^4 settings cannot be used:\n  - lingers is not") as caught:
        asynctrack.init("p", dir=runs, when_full="wait", queue_bytes=1, linger_s=-1, settings={"lingers": 1})  # type: ignore[arg-type]
    assert [problem.split()[0] for problem in caught.value.problems] == [
        "lingers", "when_full", "queue_bytes", "linger_s",
    ]  # fmt: skip


def test_mode_in_the_environment_is_checked_too(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCTRACK_MODE", "quiet")
    with pytest.raises(
        errors.InvalidSettings, match="mode must be one of 'online', 'offline', 'disabled'; got 'quiet'"
    ):
        asynctrack.init("p", dir=runs)


@pytest.mark.parametrize("name", ["a/b", "..", ".", "/etc", "../up", ".hidden", "", " ", "a\0b", "a\n", LONG, 7])
def test_name_with_a_path_in_it_is_refused(runs: Path, name: Any) -> None:
    message = r" names a directory: 1 to 128 .* without a path.*; got "
    with pytest.raises(errors.InvalidRunId, match="project" + message) as caught:
        asynctrack.init(name, dir=runs)
    assert isinstance(caught.value, ValueError)
    assert repr(name)[:100] in str(caught.value)
    with pytest.raises(errors.InvalidRunId, match="project" + message):
        Tracker(name, dir=runs)
    with pytest.raises(errors.InvalidRunId, match="id" + message):
        asynctrack.init("p", id=name, dir=runs)
    assert not runs.exists()


def test_id_that_exists_is_refused_and_its_run_stays_as_it_is(run: Run, runs: Path) -> None:
    with pytest.raises(errors.RunIsRunning, match=rf"run '{run.id}' in .* is open in this process"):
        asynctrack.init("p", id=run.id, dir=runs)
    with asynctrack.init("p", id="ended", dir=runs):
        pass
    with pytest.raises(
        errors.RunExists, match=r"run 'ended' exists in .*; resume it with resume='allow', choose another id"
    ):
        asynctrack.init("p", id="ended", dir=runs)


def test_project_that_cannot_be_used_by_a_tracker_is_told_when_it_is_made() -> None:
    with pytest.raises(errors.InvalidProject, match=r"project"):
        Tracker("p/q")


def test_tracker_takes_no_id_which_would_name_each_of_its_runs() -> None:
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'id'"):
        Tracker("p", id="twice")  # type: ignore[call-arg]


@pytest.mark.parametrize("every", [0, -1, 0.5, True, None])
def test_interval_that_is_no_number_of_steps_is_refused(run: Run, every: Any) -> None:
    with pytest.raises(errors.UsageError, match=r"every is a number of steps, 1 or more; got ") as caught:
        run.scope("train", every=every)
    assert isinstance(caught.value, ValueError)


def test_level_to_flush_to_that_is_unknown_is_refused(run: Run) -> None:
    with pytest.raises(errors.UsageError, match=r"until must be one of 'journaled', 'synced', 'delivered'; got 'sent'"):
        run.flush(until="sent")  # type: ignore[arg-type]  # the mistake


def test_config_larger_than_the_queue_is_refused_and_leaves_nothing(runs: Path, shared_host: Path) -> None:
    with pytest.raises(
        errors.FrameTooLarge, match=r"config takes \d+ bytes encoded and .* at most 2016.*raise queue_bytes"
    ):
        asynctrack.init("p", id="big", dir=runs, queue_bytes=4096, config={"text": "x" * 5000})
    assert not (runs / "p" / "big").exists()
    assert not [name for name in left_in(shared_host) if name.endswith(".ring")]
    with asynctrack.init("p", id="big", dir=runs, config={"text": "x" * 5000}) as run:
        pass
    assert len(asynctrack.open_run(run.path).config["text"]) == 5000


def test_summary_larger_than_the_queue_is_refused(runs: Path) -> None:
    with asynctrack.init("p", dir=runs, queue_bytes=4096) as run:
        run.log({"x": 1})
        with pytest.raises(errors.FrameTooLarge, match=r"this summary takes \d+ bytes encoded"):
            run.summary["text"] = "x" * 5000
        with pytest.raises(errors.FrameTooLarge, match=r"this config takes \d+ bytes encoded"):
            run.config["text"] = "x" * 5000
        assert run.log({"x": 2})
    assert values(run.path, "x") == [1, 2]


# The world's


@pytest.mark.parametrize("place", ["below a file", "a file", "project is a file", "nowhere"])
def test_directory_that_cannot_be_written_is_told(runs: Path, shared_host: Path, place: str) -> None:
    runs.mkdir()
    (runs / "file").write_text("")
    dir, project, code = {
        "below a file": (runs / "file" / "runs", "p", errno.ENOTDIR),
        "a file": (runs / "file", "p", errno.ENOTDIR),
        "project is a file": (runs, "file", errno.EEXIST),
        "nowhere": (Path("/proc/runs"), "p", errno.ENOENT),
    }[place]
    with pytest.raises(errors.DirectoryNotWritable, match=r"cannot write runs to .*; choose another dir=") as caught:
        asynctrack.init(project, dir=dir)
    assert isinstance(caught.value, OSError)
    assert caught.value.errno in (code, errno.ENOTDIR)
    assert isinstance(caught.value.__cause__, OSError)
    assert str(dir) in str(caught.value)
    assert not [name for name in left_in(shared_host) if name.endswith(".ring")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_directory_without_the_right_to_write_is_told(runs: Path) -> None:
    runs.mkdir(mode=0o500)
    with pytest.raises(errors.DirectoryNotWritable, match="Permission denied"):
        asynctrack.init("p", dir=runs)


def test_no_room_for_the_queue_is_told(
    own_host: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", no_room)
        with pytest.raises(
            errors.SharedMemoryUnavailable, match=r"no room for a queue in .*No space left.*queue_bytes"
        ):
            asynctrack.init("p", id="first", dir=runs)
    with asynctrack.init("p", id="first", dir=runs) as run:  # what failed has left nothing behind
        run.log({"x": 1})
    assert values(run.path, "x") == [1]


def finished_run(runs: Path, count: int = 100) -> Path:
    with asynctrack.init("p", dir=runs) as run:
        for i in range(count):
            run.log({"i": i, "text": LONG})
            if i % 30 == 29:
                run.flush("journaled")
    return run.path


def test_corrupt_segment_is_told_and_what_is_whole_is_read(runs: Path) -> None:
    path = finished_run(runs)
    segment = path / "journal" / "000001.atj"
    content = bytearray(segment.read_bytes())
    at = content.index(LONG.encode())
    content[at + 5] ^= 1
    segment.write_bytes(content)
    reader = asynctrack.open_run(path)
    with pytest.warns(
        errors.DamagedJournal, match=r"records may be missing from what is read of it: .*a block fails its checksum"
    ):
        found = [record.data["i"] for record in reader.records()]
    assert found == list(range(30, 100))  # a checked block is larger than this batch
    assert len(reader.damage) == 1
    damage = reader.damage[0]
    assert damage.offset <= at < damage.offset + damage.length
    assert str(damage) == (
        f"{segment}: {damage.length} bytes from byte {damage.offset} on cannot be read: a block fails its checksum"
    )
    assert reader.status == "finished"


def test_segment_of_a_newer_version_is_told(runs: Path) -> None:
    path = finished_run(runs)
    segment = path / "journal" / "000001.atj"
    content = bytearray(segment.read_bytes())
    content[8:12] = (99).to_bytes(4, "little")
    content[60:64] = zlib.crc32(content[:60], salt_of(content[16:32])).to_bytes(4, "little")
    segment.write_bytes(content)
    expected = r"000001\.atj has format version 99, and this asynctrack reads up to 1; install a newer asynctrack"
    with pytest.raises(errors.UnsupportedVersion, match=expected):
        list(asynctrack.open_run(path).records())


def test_run_json_of_a_newer_version_is_told_and_left_alone(runs: Path) -> None:
    path = finished_run(runs)
    newer = json.dumps({"version": 2, "shape": "unknown"})
    (path / "run.json").write_text(newer)
    expected = r"run\.json has format version 2, and this asynctrack reads up to 1; install a newer asynctrack \(pip"
    with pytest.raises(errors.UnsupportedVersion, match=expected):
        asynctrack.open_run(path)
    assert (path / "run.json").read_text() == newer


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"version": 1}', '{"version": "1", "id": 3}', "\xff"])
def test_damaged_run_json_is_told_and_the_journal_stands_in(runs: Path, content: str) -> None:
    path = finished_run(runs)
    (path / "run.json").write_bytes(content.encode("latin-1"))
    with pytest.warns(errors.DamagedJournal, match=r"run\.json: .* cannot be read: .*; the journal stands in"):
        reader = asynctrack.open_run(path)
    assert len(list(reader.records())) == 100
    assert (reader.id, reader.status) == (path.name, "finished")
    (path / "run.json").unlink()
    assert len(list(asynctrack.open_run(path).records())) == 100


def test_directory_without_a_run_is_told(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(errors.NotARun, match=r"is not a run: it has neither a journal/ nor a run\.json") as caught:
            asynctrack.open_run(path)
        assert isinstance(caught.value, FileNotFoundError)
        assert str(path) in str(caught.value)


def test_run_directory_that_vanishes_harms_no_other_run(runs: Path, shared_host: Path) -> None:
    with asynctrack.init("p", dir=runs) as kept, asynctrack.init("p", dir=runs, finish_timeout_s=0.5) as gone:
        for run in (kept, gone):
            run.log({"x": 1})
            run.flush("journaled")
        remove(gone.path)
        for i in range(50):
            gone.log({"i": i})
            kept.log({"i": i})
    assert values(kept.path, "i") == list(range(50))
    wait_until(lambda: not [name for name in left_in(shared_host) if name.endswith(".ring")], "no ring is left")


def test_every_error_belongs_to_one_of_two_families() -> None:
    for name in errors.__all__:
        error = getattr(errors, name)
        families = [family for family in (errors.UsageError, errors.EnvironmentFailure) if issubclass(error, family)]
        if issubclass(error, Warning):
            continue
        assert len(families) == (error is not errors.AsynctrackError)
        assert issubclass(error, asynctrack.AsynctrackError)


def test_settings_are_frozen_and_documented() -> None:
    settings = asynctrack.Settings()
    with pytest.raises(AttributeError):
        settings.linger_s = 1.0  # type: ignore[misc]  # the mistake
    assert asynctrack.Settings.__doc__ is not None
    for name in msgspec.structs.asdict(settings):
        assert f"{name}: " in asynctrack.Settings.__doc__


def test_no_worker_is_started_by_what_was_refused(own_host: Path, runs: Path) -> None:
    for wrong in ({"when_full": "wait"}, {"id": "../x"}, {"config": 3}):
        with pytest.raises(errors.UsageError):
            asynctrack.init("p", dir=runs, **wrong)  # type: ignore[arg-type]  # the mistakes
    assert workers(own_host) == []
    assert left_in(own_host) == []


@pytest.mark.parametrize("settings", [{"reinit": "nonsense"}, {"name": 5}, {"tags": 5}])
def test_argument_that_init_refuses_is_refused_as_a_tracker_is_made(settings: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidSettings):
        Tracker("p", **settings)


def test_tracker_takes_no_directory_for_the_usual_one() -> None:
    Tracker("p", dir=None)
