"""Make the corpus of the fuzzer: records of each kind, and bytes that come close to them. `python tests/native/make_corpus.py`, from the root."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

import msgspec

FOLDER: Final = Path(__file__).parent / "corpus"

_FLAT: Final = {"loss": 0.5, "n": 7, "big": 2**63 - 1, "small": -(2**63), "phase": "train", "ok": True, "none": None}
_DEEP: Final = b"\x93\x01\xc0\x81\xa1a" + b"\x81\xa1a" * 20 + b"\x01"


def record(data: object, step: object = None, time_ns: object = 1_760_000_000_000_000_000) -> bytes:
    """Encode a record's payload."""
    return msgspec.msgpack.encode((time_ns, step, data))


def frame(payload: bytes, number: int = 0, kind: int = 0, lost: int = 0, length: int | None = None) -> bytes:
    """Pack a frame; its length may be a lie."""
    header = struct.pack("<IIQ", len(payload) if length is None else length, lost, number | kind << 56)
    return (header + payload).ljust((len(payload) + 23) & -8, b"\0")


INPUTS: Final[dict[str, bytes]] = {
    "flat": frame(record(_FLAT, 3)) + frame(record({**_FLAT, "loss": 1}, 4), 1),
    "nested": frame(record({"a": {"b": 1, "c": {"d": 0.5}}, "e": 1})) + frame(record({"a": {"b": "x"}}), 1),
    "twice": frame(record({"a/b": 1, "a": {"b": 2}})) + frame(b"\x93\x01\xc0\x82\xa1a\x01\xa1a\x02"),
    "odd": frame(record({"list": [1, 2.5], "bytes": b"x", "wide": 2**64 - 1})) + frame(record({1: 2})),
    "extension": frame(record({"a": msgspec.msgpack.Ext(1, b"123")})) + frame(b"\x93\x01\xc0\x81\xa1a\xc9\xff\xff\xff\xff\x01"),
    "utf8": frame(record({"é": "\u20ac\U0001f600"})) + frame(b"\x93\x01\xc0\x81\xa1\xff\x01") + frame(b"\x93\x01\xc0\x81\xa1a\xa3\xed\xa0\x80"),
    "wide": frame(record({"a": 1}, 2**64 - 1)) + frame(record({"a": 1}, 1, 2**64 - 1)),
    "lies": frame(record({"a": 1}), length=0xFFFFFFFF) + frame(record({"a": 1})),
    "long": frame(b"\x93\x01\xc0\xdf\xff\xff\xff\xff") + frame(b"\x93\x01\xc0\x81\xa1a\xdd\xff\xff\xff\xff"),
    "deep": frame(_DEEP) + frame(b"\x93\x01\xc0\x81\xa1a" + b"\x91" * 80),
    "kinds": frame(b"{}", 0, 1) + frame(record({"a/b": 1}, 7)) + frame(b"", 1, 255) + frame(b"{}", 1, 2) + frame(record({"a/b": 2}, 3)),
    "forms": frame(b"\x93\x01\xd3" + b"\xff" * 8 + b"\xde\x00\x03\xd9\x01a\xca\x7f\xc0\x00\x00\xda\x00\x01b\xd1\xff\x00\xdb\x00\x00\x00\x01c\xc3"),
    "texts": frame(record({"a": "x" * 60, "b": ""})) + frame(record({"a": "x" * 60, "b": "y"}), 1) + frame(record({"a": 1}), 2),
    "lines": frame(record({"_step": 0.1, "a": {"_timestamp": [1, [2.5e-7, "x\n"], {}]}, "e": {}, "n": float("nan")}, -4)) + frame(record({"x": 5e-324, "é": 1e22})),
    "sparse": b"".join(frame(record({f"k{at % 3}": at, "a/b": at}, at), at) for at in range(9)),
}  # fmt: skip


def main() -> None:
    """Write each input, with other options in its first byte."""
    FOLDER.mkdir(exist_ok=True)
    for at, (name, frames) in enumerate(INPUTS.items()):
        FOLDER.joinpath(name).write_bytes(bytes([at * 7 % 32]) + frames)


if __name__ == "__main__":
    main()
