"""What earlier versions called otherwise is read under its old name, and written under the new one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

import asynctrack
from asynctrack.backends.registry import from_stored, stored
from asynctrack.backends.stored_settings import lives_in_caller
from asynctrack.journal.cursor import Cursor, decode_cursor


def test_cursor_of_an_earlier_version_is_read_and_written_anew() -> None:
    old = b'{"position":[1,64,0],"ends":{"7":9},"delivered":2,"skipped":{"thinned":3,"x":1},"refused":4,"home":5}'
    cursor = decode_cursor(old)
    assert (cursor.rejected, cursor.origin_inode, cursor.skipped, cursor.ends) == (
        4,
        5,
        {"downsampled": 3, "x": 1},
        {7: 9},
    )
    assert decode_cursor(msgspec.json.encode(cursor)) == cursor
    assert not {"refused", "home"} & msgspec.to_builtins(cursor).keys()


@pytest.mark.parametrize("content", [b"null", b"[1]", b'{"skipped":[1]}', b'{"refused":-1}', b'{"refused":1e99}'])
def test_what_is_no_cursor_is_still_none(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"Expected|counts|Invalid"):
        decode_cursor(content)


def test_cursor_that_is_empty_is_a_fresh_one() -> None:
    assert decode_cursor(b"{}") == Cursor()


def test_settings_of_an_earlier_version_build_the_same_backend() -> None:
    backend = asynctrack.JSONLines(downsample_interval_s=2.0)
    assert from_stored({"kind": "jsonl", "at_most_every_s": 2.0}) == backend
    assert stored(backend, "r", "jsonl") == {"kind": "jsonl", "downsample_interval_s": 2.0}
    assert from_stored({"kind": "console", "screen": "s"}) == asynctrack.Console(display="s")


@pytest.mark.parametrize("settings", [{"execution": "caller"}, {"place": "caller"}])
def test_backend_of_the_caller_is_known_by_either_name(settings: dict[str, Any]) -> None:
    assert lives_in_caller(settings)
    assert not lives_in_caller({})
