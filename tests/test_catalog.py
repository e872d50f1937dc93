"""The runs of a directory, the newest first: only as many are read as are asked for."""

from __future__ import annotations

import errno
import json
import os
import random
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import pytest

from asynctrack.errors import UnsafeFile
from asynctrack.journal import safe_read
from asynctrack.reading import catalog


def make_runs(folder: Path, created_s: list[float], changed_s: list[float]) -> list[Path]:
    """Runs that were created and changed at these seconds."""
    runs = []
    for number, (created, changed) in enumerate(zip(created_s, changed_s, strict=True)):
        run = folder / "p" / f"{number:04}"
        run.mkdir(parents=True)
        at = datetime.fromtimestamp(created, UTC).isoformat(timespec="milliseconds")
        (run / "run.json").write_text(json.dumps({"created_at": at}))
        os.utime(run, (changed, changed))
        runs.append(run)
    return runs


@pytest.mark.system
@pytest.mark.parametrize("seed", range(5))
def test_order_is_that_of_creation_whenever_runs_were_changed(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    created = [1e9 + chance.randrange(1000) for _ in range(100)]
    runs = make_runs(tmp_path, created, [at + chance.choice([0, 1, 500, 5000]) for at in created])
    chance.shuffle(runs)
    expected = sorted(runs, key=lambda run: (created[int(run.name)], run.name), reverse=True)
    assert list(catalog.newest_first(runs)) == expected


@pytest.mark.system
def test_only_the_newest_are_read_where_only_these_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = [1e9 + 60 * number for number in range(300)]
    runs = make_runs(tmp_path, created, [at + 90 for at in created])  # each went on into the next
    read = []
    content = safe_read.read
    monkeypatch.setattr(safe_read, "read", lambda path: read.append(path) or content(path))
    assert list(islice(catalog.newest_first(runs), 10)) == runs[:-11:-1]
    assert len(read) <= 13
    read.clear()
    assert catalog.find("latest", tmp_path) == runs[-1]
    assert len(read) <= 3


def test_file_that_another_has_replaced_on_a_networks_disk_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.json").write_bytes(b"{}")
    opened, stale = os.open, [OSError(errno.ESTALE, os.strerror(errno.ESTALE))]

    def open_once(*arguments: object) -> int:
        if stale:
            raise stale.pop()
        return opened(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", open_once)
    assert safe_read.read(tmp_path / "run.json") == b"{}"
    stale += [OSError(errno.ESTALE, os.strerror(errno.ESTALE))] * 2
    with pytest.raises(OSError, match="tale"):
        safe_read.read(tmp_path / "run.json")


def test_error_about_a_file_that_is_none_says_what_was_expected_and_found(tmp_path: Path) -> None:
    (tmp_path / "run.json").symlink_to("elsewhere")
    expected = f"expected a regular file of at most {safe_read.MAX_BYTES >> 20} MiB, found a link"
    with pytest.raises(UnsafeFile, match=expected):
        safe_read.read(tmp_path / "run.json")
