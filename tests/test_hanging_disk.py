"""The disk that hangs, as other tests use it."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
from hanging_disk import HangingDisk, is_mounted, mounted_disk
from support import wait_until


def test_disk_passes_on_what_is_done_to_it(hanging_disk: HangingDisk) -> None:
    file = hanging_disk.path / "folder" / "file"
    file.parent.mkdir()
    file.write_bytes(b"one\n")
    with file.open("ab") as appended:
        appended.write(b"two\n")
        appended.flush()
        os.fsync(appended.fileno())
    file.rename(file.with_name("other"))
    assert [path.name for path in file.parent.iterdir()] == ["other"]
    assert (hanging_disk.backing / "folder" / "other").read_bytes() == b"one\ntwo\n"
    file.with_name("other").unlink()
    file.parent.rmdir()
    assert list(hanging_disk.backing.iterdir()) == []


@pytest.mark.system
def test_write_hangs_until_the_disk_goes_on_and_reads_do_not(hanging_disk: HangingDisk) -> None:
    file = hanging_disk.path / "file"
    file.write_bytes(b"before")
    hanging_disk.hang("write")
    writer = threading.Thread(target=file.write_bytes, args=(b"after",), daemon=True)
    writer.start()
    wait_until(lambda: hanging_disk.waiting() == 1, "the write hangs")
    assert (hanging_disk.path / "file").exists()
    hanging_disk.go_on()
    writer.join(20)
    assert file.read_bytes() == b"after"


@pytest.mark.system
def test_only_what_lies_under_a_folder_fails(hanging_disk: HangingDisk) -> None:
    for name in ("a", "b"):
        (hanging_disk.path / name).mkdir()
    hanging_disk.fail(errno.ENOSPC, "open", under="a/")
    with pytest.raises(OSError, match="No space left"):
        (hanging_disk.path / "a" / "file").write_bytes(b"")
    (hanging_disk.path / "b" / "file").write_bytes(b"")


def test_nothing_is_left_of_a_disk_that_hung_to_the_end(tmp_path: Path) -> None:
    with mounted_disk(tmp_path) as disk:
        disk.hang()
        failed: list[str] = []

        def look() -> None:
            try:
                os.stat(disk.path / "file")
            except OSError as error:
                failed.append(errno.errorcode[error.errno or 0])

        looking = threading.Thread(target=look, daemon=True)
        looking.start()
        wait_until(lambda: disk.waiting(), "the look hangs")
    looking.join(20)
    assert failed and failed[0] in ("ECONNABORTED", "ENOTCONN")
    assert not is_mounted(disk.path)
