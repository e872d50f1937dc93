"""Lines: one record a line, for people or as JSON, as `tail` and `wait` print them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from asynctrack.backends.files.jsonl import encode_lines
from asynctrack.cli.output import Output, Piece, Styled, brief, json_text, width_of
from asynctrack.records.codec import Record, flatten

_STEP_WIDTH: Final = 8
_GAP: Final = "  "


def as_json(record: Record) -> str:
    """Format the record as a line of `metrics.jsonl`, escaped for terminals."""
    return json_text(encode_lines([record]).decode())


def as_document(record: Record) -> dict[str, Any]:
    """Format the record as a part of a JSON document."""
    document: dict[str, Any] = msgspec.json.decode(encode_lines([record]))
    return document


def print_line(out: Output, record: Record) -> None:
    """Print `step  time  key=value ...`, and behind the time the writer, where there are several; on a terminal as many values as fit in a line."""
    at = datetime.fromtimestamp(record.time_ns / 1e9).strftime("%H:%M:%S.%f")[:-3]
    pieces: list[Piece] = [Styled(f"{record.step:>{_STEP_WIDTH}}", "bold"), _GAP, Styled(at, "dim")]
    used = max(_STEP_WIDTH, len(str(record.step))) + len(_GAP) + len(at)
    if record.writer is not None:
        pieces += [_GAP, record.writer]
        used += len(_GAP) + width_of(record.writer)
    pairs = [(key, brief(value)) for key, value in flatten(record.data)]
    for number, (key, text) in enumerate(pairs):
        used += len(_GAP) + width_of(key) + 1 + width_of(text)
        more = f"{_GAP}+{len(pairs) - number}"
        if number and out.width is not None and used + (len(more) if number < len(pairs) - 1 else 0) > out.width:
            pieces.append(Styled(more, "dim"))
            break
        pieces += [_GAP, Styled(f"{key}=", "dim"), text]
    out.line(*pieces)
