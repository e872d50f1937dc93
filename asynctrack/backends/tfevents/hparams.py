"""HParams: encode a run's config and outcome for the HParams dashboard. Runs in a delivery.

The messages are those of `tensorboard/plugins/hparams/plugin_data.proto`. TensorBoard keeps the first message about
each: its table shows neither a config that changes later, nor that a run goes on after its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from asynctrack.backends.base import Outcome
from asynctrack.backends.tfevents.messages import block, double, number, text
from asynctrack.records.codec import flatten, to_json

# Characters of a text in the table, whose cells are for people. Arbitrary.
_LONGEST_TEXT: Final = 200
# `Status` of hparams/api.proto. A crashed or preempted run may go on, so it gets no status.
_STATUS: Final[Mapping[Outcome, int]] = {"finished": 1, "failed": 2}
# An empty tensor of floats: the message is in the metadata.
_NO_DATA: Final = block(8, number(1, 1), block(2, block(2, number(1, 0))))


def session_start(config: Mapping[str, Any], created_s: float) -> bytes:
    """Encode a summary's value with the config that a run was started with."""
    entries = (block(1, text(1, name), block(2, _value(value))) for name, value in flatten(config))
    return _value_of("_hparams_/session_start_info", block(3, *entries, double(5, created_s)))


def session_end(outcome: Outcome, ended_s: float) -> bytes | None:
    """Encode a summary's value with a run's outcome; None where the run may still go on."""
    status = _STATUS.get(outcome)
    if status is None:
        return None
    return _value_of("_hparams_/session_end_info", block(4, number(1, status), double(2, ended_s)))


def _value_of(tag: str, data: bytes) -> bytes:
    metadata = block(9, block(1, text(1, "hparams"), block(2, data)), number(4, 2))
    return block(1, text(1, tag), _NO_DATA, metadata)


def _value(value: object) -> bytes:
    """Encode a `google.protobuf.Value`; a number that is not finite becomes a text, since the table cannot show it."""
    if isinstance(value, bool):
        return number(4, value)
    if isinstance(value, int | float) and abs(value) < 1 << 1023:
        return double(2, value)
    if not isinstance(value, str):
        value = str(to_json(value)) if isinstance(value, float) else msgspec.json.encode(to_json(value)).decode()
    return text(3, value if len(value) <= _LONGEST_TEXT else value[:_LONGEST_TEXT] + "...")
