"""Files of hosts that share a folder: what was logged by its path is in the merged run though the path is gone, or it is said why not, and where it is."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import outcome, run_child, start, wait_until, workers

import asynctrack
from asynctrack.backends.base import Backend
from asynctrack.backends.part_files import PartFiles
from asynctrack.carriers.parts import parts_under
from asynctrack.journal import manifest as manifests
from asynctrack.merging.folder import RunCollector
from asynctrack.records.media_types import LoggedFile, Media, Value, media_in
from asynctrack.testing import JournaledRun, deliver

HOST = """
import json, sys
import asynctrack
run = asynctrack.init("p", id="r", collect=sys.argv[1], quiet=True)
for path in sys.argv[2:]:
    run.log({"it": asynctrack.Image(path) if path.endswith(".png") else asynctrack.Artifact("m", path=path)})
run.finish()
print(json.dumps(str(run.path)))
"""


def part_with(folder: Path, *records: Mapping[str, Any], host: str = "a", copies: bool = True) -> Path:
    """A host's part of run "r" with these records, whose host copies files or is of those that did not."""
    path = folder / "p" / f"r@{host}"
    said = {"host": host, "pid": 100, "writer": f"on-{host}", "joins": True}
    backends: dict[str, Backend] = {"files": PartFiles(file_bytes=1000)} if copies else {}
    with JournaledRun(path, config={}, environment=said, backends=backends, run_id="r") as run:
        for record in records:
            run.log(dict(record))
            run.journal()
        run.end_ring()
        run.end("finished")
        manifests.save(path, run.manifest)
    return path


def copy_files(part: Path) -> None:
    """Do what the worker of the host does."""
    deliver(part, PartFiles(file_bytes=1000), name="files")


@contextlib.contextmanager
def collecting(folder: Path, settled_after_s: float = 120.0) -> Iterator[RunCollector]:
    found = RunCollector(folder / "out" / "p" / "r", list(parts_under(folder)), settled_after_s=settled_after_s)
    with contextlib.closing(found):
        yield found


def merge(folder: Path, settled_after_s: float = 120.0) -> Path:
    """Merge all parts in a folder, and return the merged run."""
    with collecting(folder, settled_after_s) as collector:
        while collector.turn():
            pass
        assert [reader.problem for reader in collector.readers] == [None] * len(collector.readers)
    return folder / "out" / "p" / "r"


def media_of(run: Path) -> list[Media]:
    """The media of all records, in order."""
    return [media for record in asynctrack.open_run(run).records() for media in media_in(record.data)]


def picture(path: Path, level: int = 0) -> bytes:
    """Write a picture, and return its bytes."""
    from PIL import Image

    Image.fromarray(np.full((4, 5, 3), level, "u1")).save(path)
    return path.read_bytes()


def test_files_whose_paths_are_gone_are_in_the_merged_run_and_at_its_backends(tmp_path: Path) -> None:
    """Two machines, each with a disk of its own, which is gone when the run is merged and delivered."""
    pictures = {}
    for level, host in enumerate("ab"):
        disk = tmp_path / host
        (disk / "model").mkdir(parents=True)
        pictures[host] = picture(disk / "x.png", 100 * level)
        (disk / "model" / "weights").write_bytes(host.encode() * 500)
        (disk / "large").write_bytes(bytes(5000))
        paths = [disk / "x.png", disk / "model", disk / "large"]
        said = {"ASYNCTRACK_HOST": host, "RANK": str(level), "ASYNCTRACK_COLLECT_FILE_BYTES": "1K"}
        run_child(HOST, tmp_path / "shared", *paths, **said)
        shutil.rmtree(disk)
    subprocess.run([sys.executable, "-m", "asynctrack", "collect", tmp_path / "shared"], check=True, timeout=60)
    run = tmp_path / "shared" / "p" / "r"
    shutil.rmtree(tmp_path / "shared" / "p" / "r@a")
    found = media_of(run)
    for host in "ab":
        image, model, large = [media for media in found if f"/{host}/" in media.files[0].path]
        assert image.read() == pictures[host]
        assert model.file is not None
        assert (model.file / "weights").read_bytes() == host.encode() * 500
        assert f"{host}:{tmp_path / host / 'large'}" in str(large.missing)
        assert "5000 bytes" in str(large.missing)
    deliver(run, asynctrack.TensorBoard(), name="tensorboard")
    events = b"".join(path.read_bytes() for path in (run / "tensorboard").rglob("events.*"))
    assert all(content in events for content in pictures.values())


def test_record_waits_until_its_host_has_copied_the_file(tmp_path: Path) -> None:
    content = picture(tmp_path / "x.png")
    part = part_with(tmp_path, {"before": 1}, {"it": asynctrack.Image(tmp_path / "x.png")})
    with collecting(tmp_path) as collector:
        collector.turn()
        (reader,) = collector.readers
        assert (reader.is_waiting, reader.awaits_file) == (True, True)
        assert f"a:{tmp_path / 'x.png'}" in str(reader.problem)
    copy_files(part)
    (tmp_path / "x.png").unlink()
    run = merge(tmp_path)
    assert [media.read() for media in media_of(run)] == [content]
    assert asynctrack.open_run(run).status == "finished"


def test_collecting_once_waits_for_a_file_that_is_just_copied(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"picture")
    part = part_with(tmp_path, {"it": asynctrack.Image(tmp_path / "x.png")})
    command = [sys.executable, "-m", "asynctrack", "collect", tmp_path, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as collector:
        copy_files(part)
        told, _ = collector.communicate(timeout=60)
    assert collector.returncode == 0
    assert json.loads(told)["runs"][0]["status"] == "finished"
    assert [media.read() for media in media_of(tmp_path / "p" / "r")] == [b"picture"]


def test_file_that_a_silent_host_had_not_copied_is_named_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"picture")
    part_with(tmp_path, {"it": asynctrack.Image(tmp_path / "x.png")})
    (tmp_path / "x.png").unlink()
    (media,) = media_of(merge(tmp_path, settled_after_s=0.0))
    assert media.file is None
    assert f"had not copied it when nothing more came from there; it is a:{tmp_path / 'x.png'}" in str(media.missing)


def test_file_that_has_changed_before_it_was_copied_is_named_with_its_host(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"picture")
    part = part_with(tmp_path, {"it": asynctrack.Image(tmp_path / "x.png")}, {"last": 1})
    (tmp_path / "x.png").write_bytes(b"another")
    os.utime(tmp_path / "x.png", ns=(1, 1))
    copy_files(part)
    (media,) = media_of(merge(tmp_path))
    assert media.missing == f"{tmp_path / 'x.png'} has changed since it was logged (host a)"


@pytest.mark.parametrize("copies", [True, False], ids=["too_large_to_travel", "of_a_host_that_copies_none"])
def test_file_that_deliveries_see_themselves_is_left_to_them(tmp_path: Path, copies: bool) -> None:
    (tmp_path / "large").write_bytes(bytes(2000))
    part = part_with(tmp_path, {"it": asynctrack.Artifact("m", path=tmp_path / "large")}, copies=copies)
    if copies:
        copy_files(part)
    run = merge(tmp_path)
    deliver(run, asynctrack.JSONLines(), name="jsonl")
    (media,) = media_of(run)
    assert media.file is not None
    assert (media.file / "large").read_bytes() == bytes(2000)


def test_file_takes_no_second_room_and_outlives_the_part(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"picture")
    part = part_with(tmp_path, {"it": asynctrack.Image(tmp_path / "x.png")})
    copy_files(part)
    (media,) = media_of(merge(tmp_path))
    assert media.file is not None
    assert media.file.stat().st_ino == (part / str(media.path)).stat().st_ino
    shutil.rmtree(part)
    assert media.read() == b"picture"


def test_another_file_of_the_same_name_size_and_time_stays_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for host in "ab":
        (tmp_path / "x.png").write_bytes(host.encode())
        os.utime(tmp_path / "x.png", ns=(1, 1))
        copy_files(part_with(tmp_path, {"it": asynctrack.Image(tmp_path / "x.png")}, host=host))
    with caplog.at_level(logging.WARNING, "asynctrack.collector"):
        run = merge(tmp_path)
    assert len({media.read() for media in media_of(run)}) == 1
    assert "with other content, and keeps that" in caplog.text


@pytest.mark.parametrize("linked", ["media", "media/artifacts", "the medium", "its folder", "its file"])
def test_links_in_a_part_are_not_followed(tmp_path: Path, linked: str) -> None:
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "e" / "file").write_bytes(b"mine")
    artifact = asynctrack.Artifact("m", path=tmp_path / "d")
    part = part_with(tmp_path, {"it": artifact})
    copy_files(part)
    (copied,) = (part / "media" / "artifacts").iterdir()
    named = {"the medium": copied, "its folder": copied / "e", "its file": copied / "e" / "file"}
    place = named.get(linked, part / linked)
    place.rename(tmp_path / "secret")
    place.symlink_to(tmp_path / "secret")
    shutil.rmtree(tmp_path / "d")
    (media,) = media_of(merge(tmp_path, settled_after_s=0.0))
    assert media.file is None
    assert "had not copied it" in str(media.missing)


class Strange(Value):
    """A medium as nobody's code logs it."""

    def __init__(self, kind: str, *files: LoggedFile) -> None:
        self._wire = [kind, "", {"name": "\x1b[31m", "type": "model"}, None, files, "seal"]

    def wire(self) -> list[Any]:
        return self._wire


@pytest.mark.parametrize(
    "media",
    [
        Strange("image", LoggedFile("", "\0not hexadecimal", 5, 1)),
        Strange("image", LoggedFile("", "/a\0b", 5, 1)),
        Strange("image", LoggedFile("", "/\x1b[31m", 5, 1)),
        Strange("image", LoggedFile("", "/a", -5, 1), LoggedFile("", "/b", 5, 1)),
        Strange("artifact", LoggedFile("../../../mine", "/a", 5, 1)),
        Strange("artifact", LoggedFile("a", "/a", 5, 1), LoggedFile("a/b", "/b", 5, 1)),
        Strange("artifact", LoggedFile("x" * 5000, "/" + "x" * 5000, 1 << 62, 1)),
        Strange("of another kind", LoggedFile("", "/a", 5, 1)),
    ],
)
def test_strange_files_of_a_part_harm_nothing(tmp_path: Path, media: Strange) -> None:
    part = part_with(tmp_path, {"it": media}, {"last": 1})
    (part / "media" / "images").mkdir(parents=True)
    (tmp_path / "mine").write_bytes(b"mine!")
    (tmp_path / "x.png").write_bytes(b"picture")
    other = part_with(tmp_path, {"it": asynctrack.Image(tmp_path / "x.png")}, host="b")
    copy_files(other)
    run = merge(tmp_path, settled_after_s=0.0)
    assert len([*asynctrack.open_run(run).records()]) == 3
    assert [path.read_bytes() for path in run.rglob("*.png")] == [b"picture"]
    assert not any("\x1b" in path.read_text() for path in run.rglob("*.missing"))


def test_copy_that_was_cut_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"picture")
    part = part_with(tmp_path, {"it": asynctrack.Image(tmp_path / "x.png")})
    copy_files(part)
    (tmp_path / "x.png").unlink()
    (copied,) = (part / "media" / "images").iterdir()
    copied.write_bytes(b"pict")
    (media,) = media_of(merge(tmp_path, settled_after_s=0.0))
    assert media.file is None


def test_copying_goes_on_where_it_was(tmp_path: Path) -> None:
    """The part is a run as others are: who copies is killed, and `sync` on its host goes on."""
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path in paths:
        path.write_bytes(path.name.encode())
    part = part_with(tmp_path, *({"it": asynctrack.Image(path)} for path in paths))
    subprocess.run([sys.executable, "-m", "asynctrack", "sync", part], check=True, timeout=60)
    for path in paths:
        path.unlink()
    assert [media.read() for media in media_of(merge(tmp_path))] == [b"0.png", b"1.png", b"2.png"]


LOGS_FILES = """
import json, pathlib, sys, time
import asynctrack
folder, disk = sys.argv[1], pathlib.Path(sys.argv[2])
run = asynctrack.init("p", id="job", collect=folder, quiet=True)
for number in range(40):
    (disk / f"{number}.png").write_bytes(b"%d" % number * 50_000)
    run.log({"it": asynctrack.Image(disk / f"{number}.png")})
    (disk / "logged").write_text(str(number))
    time.sleep(0.02)
run.finish()
print(json.dumps(str(run.path)))
"""


@pytest.mark.system
def test_workers_that_are_killed_while_they_copy_lose_no_file(tmp_path: Path, shm: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    (disk / "logged").write_text("0")
    child = start(LOGS_FILES, tmp_path / "shared", disk, ASYNCTRACK_HOST="a")
    for after in (5, 15, 25):
        wait_until(lambda: int((disk / "logged").read_text() or 0) >= after, "it logs")  # noqa: B023
        for pid in workers(shm):
            os.kill(pid, signal.SIGKILL)
    outcome(child)
    wait_until(lambda: not workers(shm), "the worker has gone")
    shutil.rmtree(disk)
    subprocess.run([sys.executable, "-m", "asynctrack", "collect", tmp_path / "shared"], check=True, timeout=60)
    found = media_of(tmp_path / "shared" / "p" / "job")
    assert [media.read() for media in found] == [b"%d" % number * 50_000 for number in range(40)]
