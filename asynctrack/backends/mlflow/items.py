"""MLflow's items: build names, numbers, texts and requests as its server takes them. Runs in the worker's loop.

MLflow answers 200 to a request that it cannot parse, and drops it; so nothing is made here that it could misread.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

import msgspec

from asynctrack.records.codec import to_json
from asynctrack.records.plain import as_float

Kind = Literal["metrics", "params", "tags"]

# MLflow's own limits, from its `utils/validation.py`.
MOST_METRICS: Final = 1000
MOST_OTHERS: Final = 100
_MOST_BYTES: Final = 900_000  # of 1 MB; the rest is for the text around the items
_MOST_KEY: Final = 250
MOST_PARAM: Final = 6000
MOST_TAG: Final = 8000
# Value of the tag for a name that was removed from config or summary: MLflow's params and metrics stay for ever.
REMOVED: Final = "(removed)"

_STRANGE: Final = re.compile(r"[^/\w.\- :]")

_encode = msgspec.json.Encoder().encode


def as_metric(name: str, number: float | str, time_ms: int, step: int) -> msgspec.Raw:
    """Encode a metric."""
    return msgspec.Raw(_encode({"key": name, "value": number, "timestamp": time_ms, "step": step}))


def chunks(items: list[msgspec.Raw], most: int) -> Iterator[list[msgspec.Raw]]:
    """Split encoded items into requests that MLflow takes.

    Args:
        items: encoded.
        most: items in a request, at most.
    """
    chunk: list[msgspec.Raw] = []
    size = 0
    for item in items:
        length = len(memoryview(item))
        if chunk and (len(chunk) == most or size + length > _MOST_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += length + 1
    if chunk:
        yield chunk


def clean_name(key: str) -> str:
    """Return a name that MLflow takes."""
    name = "/".join(part if part not in ("", ".", "..") else "_" for part in _STRANGE.sub("_", key).split("/"))
    if len(name) > _MOST_KEY:
        name = f"{name[: _MOST_KEY - 9]}-{zlib.crc32(key.encode()):08x}"
    return name


def as_number(value: Any) -> float | str | None:
    """Return a number as protobuf's JSON has a double; None for any other value."""
    if isinstance(value, bool | int):
        value = as_float(value, None)
    if not isinstance(value, float):
        return None
    return value if math.isfinite(value) else str(to_json(value))


def as_text(value: Any, most: int) -> str:
    """Return a value as MLflow's own client writes it, clipped at `most` characters."""
    plain = value if isinstance(value, str | float | int | None) else to_json(value)
    return str(plain).replace("\0", "\\0")[:most]


def as_pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    """Return params or tags as MLflow's pairs."""
    return [{"key": key, "value": value} for key, value in values.items()]


def as_items(values: Mapping[str, str]) -> list[msgspec.Raw]:
    """Encode params or tags."""
    return [msgspec.Raw(_encode(pair)) for pair in as_pairs(values)]
