"""Line batches: whether a backend gets finished lines of JSON in place of records. Runs where the delivery does."""

from __future__ import annotations

from pathlib import Path

from asynctrack._system.native import is_native
from asynctrack.backends.base import Backend
from asynctrack.backends.files.jsonl import JSONLines, encode_lines
from asynctrack.backends.files.line_records import LineBatches
from asynctrack.journal.batch_records import BatchDecoder
from asynctrack.journal.writers import Writers
from asynctrack.records.codec import Decoder


def line_batches(backend: Backend, run: Path, decoder: Decoder, writers: Writers) -> LineBatches | None:
    """Return what makes lines of a backend's batches at once, in place of records.

    Args:
        backend: that gets the batches.
        run: the run's directory.
        decoder: of single records.
        writers: the labels of the rings where it begins.

    Returns:
        None where the backend needs records: to choose among them, or since a subclass may do anything with them.
    """
    as_they_are = backend.downsample_interval_s is None and backend.writers == "all"
    if type(backend) is not JSONLines or not as_they_are or not is_native:
        return None
    not_finite = backend.not_finite
    singly = BatchDecoder(decoder, writers)
    return LineBatches(run, singly, lambda records: encode_lines(records, not_finite), gaps=not_finite == "null")
