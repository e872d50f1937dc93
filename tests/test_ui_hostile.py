"""Runs that somebody has made who means harm: the page's server answers for each, in little memory, touches nothing outside, and goes on."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from page_server import PageProcess, blocks_in, made_runs, page_of, rows_of
from test_hostile_runs import CURSORS, PAYLOADS, TOLD, append, directory, endless, link, make_run, outside, packed, pipe

from asynctrack.queue.layout import CHECKPOINT, CONFIG, FAILURE, NOTE, START, SUMMARY

__all__ = ["outside"]  # a fixture

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("own_state")]

ASKED: Final = {
    "run": {},
    "curves": {"key": ["i", "x", "behind"]},
    "groups": {"key": "i"},
    "sparklines": {},
    "metrics": {},
    "compare": {},
    "csv": {"key": ["i", "x"]},
    "media": {"key": "x"},
    "log": {},
    "diff": {},
}
# What a server of small runs takes, with much to spare.
MOST_BYTES: Final = 500 << 20


@pytest.fixture
def project(tmp_path: Path, outside: Path) -> Path:
    made_runs(tmp_path / "runs", {"p/good": [{"i": 1.0}, {"i": 2.0}]})
    return tmp_path / "runs" / "p"


@pytest.fixture
def page(project: Path, outside: Path) -> Iterator[PageProcess]:
    """Started by the test's first question: when its runs are there."""
    with page_of(project.parent) as found:
        yield found


def assert_all_are_answered(page: PageProcess, project: Path) -> None:
    keys = {key for key in rows_of(page) if not key.endswith("/good")}
    assert len(keys) == len(list(project.iterdir())) - 1
    for key in keys:
        for name, parameters in ASKED.items():
            began = time.monotonic()
            answer = page.get(name, run=key, **parameters)
            assert answer.status in (200, 404, 500), (key, name, answer)
            assert time.monotonic() - began < 10, (key, name)
            assert not re.search(b"secret|a line\n|root:", answer.body), (key, name, answer.body)
            if answer.headers["content-type"] == "application/json":
                answer.json()
            elif name in ("curves", "groups", "sparklines"):
                blocks_in(answer.body)
        assert page.get("run", run=key).status == 200, key
        assert len(page.blocks("curves", run=["p/good", key], key="i")) >= 1
        _assert_files_are_harmless(page, key)
    assert page.get("select", where="max(i) > 0 and lr > 1 or name == 'x'", sort="-last(x)").status == 200
    status = Path(f"/proc/{page.process.pid}/status").read_text()
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert peak is not None and int(peak[1]) << 10 < MOST_BYTES
    assert page.process.poll() is None


def _assert_files_are_harmless(page: PageProcess, key: str) -> None:
    for item in page.get("media", run=key, key="x").json()["items"]:
        for name in ("", "../../../escaped", "a", "/etc/passwd"):
            answer = page.get("media/file", run=key, sha256=item["sha256"] or "", name=name)
            assert answer.status in (200, 404, 500) and b"root:" not in answer.body
            if answer.status == 200:
                assert answer.headers["content-security-policy"].startswith("sandbox;")


def test_whatever_run_json_says(project: Path, page: PageProcess) -> None:
    for number, told in enumerate(TOLD.values()):
        run = make_run(project / f"{number}")
        content: Any = msgspec.json.decode((run / "run.json").read_bytes())
        raw = told if isinstance(told, bytes) else msgspec.json.encode({**content, **told})
        (run / "run.json").write_bytes(raw)
    os.truncate(make_run(project / "a gigabyte") / "run.json", 1 << 30)
    assert_all_are_answered(page, project)


def test_whatever_cursors_and_environments_say(project: Path, page: PageProcess) -> None:
    for number, content in enumerate(CURSORS.values()):
        run = make_run(project / f"{number}")
        (run / "cursors").mkdir()
        (run / "cursors" / "jsonl.json").write_bytes(content)
        (run / "environment.json").write_bytes(content)
    assert_all_are_answered(page, project)


def test_whatever_records_say(project: Path, page: PageProcess) -> None:
    for number, payload in enumerate(PAYLOADS.values()):
        run = make_run(project / f"{number}")
        append(run, packed(payload) + packed(msgspec.msgpack.encode((1, 5, {"behind": 1})), 21))
    assert_all_are_answered(page, project)


def test_whatever_other_frames_say(project: Path, page: PageProcess) -> None:
    strange = [b'{"note":"run_ended"}', b'{"note":[]}', b"[" * 100_000, msgspec.msgpack.encode((1, {"x": 1}))]
    strange += [msgspec.msgpack.encode((2**63, 5)), msgspec.msgpack.encode((2**62, {"step": "x" * 5000}))]
    for number, payload in enumerate([*list(PAYLOADS.values())[3:8], *strange]):
        run = make_run(project / f"{number}")
        append(run, b"".join(packed(payload, kind=kind) for kind in (START, CONFIG, SUMMARY, FAILURE, CHECKPOINT)))
        append(run, packed(payload, kind=NOTE), ring=0)
        if number % 2:
            (run / "run.json").unlink()
    assert_all_are_answered(page, project)


@pytest.mark.parametrize("kind", [link, pipe, directory, endless], ids=lambda kind: kind.__name__)
def test_what_is_no_file_is_neither_followed_nor_waited_for(
    project: Path, page: PageProcess, outside: Path, kind: Any
) -> None:
    names = ["run.json", "journal/000001.atj", "journal/000002.atj", "cursors/jsonl.json", "worker.log"]
    for number, name in enumerate([*names, "uncommitted.diff", "environment.json", "media"]):
        run = make_run(project / f"{number}")
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).unlink(missing_ok=True)
        kind(run / name, outside)
    assert_all_are_answered(page, project)


@pytest.mark.parametrize("name", ["journal", "cursors", "media"])
def test_folder_that_is_a_link_is_not_entered(project: Path, page: PageProcess, outside: Path, name: str) -> None:
    run = make_run(project / "theirs")
    if name == "journal":
        (run / name).rename(run / "aside")
    (run / name).symlink_to(outside / "ours" / name)
    assert_all_are_answered(page, project)


def test_names_of_files_that_are_no_unicode_have_keys(project: Path, page: PageProcess) -> None:
    for at, name in enumerate([b"a\xff", b"\n\x1b[31m'\"<", "\u202e".encode(), b"x" * 255]):
        made_runs(project.parent, {f"p/{at}": [{"i": 1.0, "\u202e": 2.0}]})
        os.rename(project / f"{at}", project / os.fsdecode(name))
    assert_all_are_answered(page, project)
