"""The environment file: readers get what can be read of it, and never an error."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

import asynctrack
from asynctrack.journal import environment_file
from asynctrack.journal.environment_file import Cpu, Environment, GitState, Gpu

WHOLE = Environment(
    git=GitState(commit="ab12", branch="main", dirty=True, diff_bytes=10),
    script="train.py",
    arguments=["train.py", "--lr", "0.1"],
    packages={"numpy": "2.0"},
    cpu=Cpu(model="Z80", count=1),
    gpus=[Gpu(name="H200", memory_bytes=1 << 37)],
)


def write(run: Path, content: bytes) -> None:
    (run / environment_file.FILE_NAME).write_bytes(content)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write(tmp_path, msgspec.json.encode(WHOLE))
    assert environment_file.load(tmp_path) == WHOLE


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"git": 3}', b"{}"])
def test_a_damaged_file_is_none_or_has_what_can_be_read(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, content)
    assert environment_file.load(tmp_path) in (None, Environment())


def test_a_field_of_another_type_harms_no_other(tmp_path: Path) -> None:
    write(tmp_path, b'{"git": {"commit": "ab12", "dirty": "no"}, "gpus": 3, "script": "a.py", "of_a_newer_version": 1}')
    assert environment_file.load(tmp_path) == Environment(git=GitState(commit="ab12"), script="a.py")


def test_what_is_no_file_is_none_and_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / environment_file.FILE_NAME
    assert environment_file.load(tmp_path) is None
    os.mkfifo(path)
    assert environment_file.load(tmp_path) is None
    path.unlink()
    (tmp_path / "elsewhere").write_bytes(msgspec.json.encode(WHOLE))
    path.symlink_to(tmp_path / "elsewhere")
    assert environment_file.load(tmp_path) is None


def test_a_reader_has_it(tmp_path: Path) -> None:
    with asynctrack.init("p", dir=tmp_path) as run:
        run.log({"loss": 1.0})
    write(run.path, msgspec.json.encode(WHOLE))
    assert asynctrack.open_run(run.path).environment == WHOLE
