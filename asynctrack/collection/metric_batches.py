"""Metric batches: the values of a run's journal as rows in Arrow, in memory that does not grow with the run. Runs anywhere. Needs pyarrow.

A row is a value: numbers and truths are in `value`, NaN as null, and texts in `text`, as well as the JSON of any other value.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pyarrow
import pyarrow.compute

from asynctrack._system import messages
from asynctrack._system.native import is_native
from asynctrack.errors import AsynctrackError
from asynctrack.reading.history import History
from asynctrack.reading.reader import RunReader
from asynctrack.reading.repeats import find_repeats
from asynctrack.reading.scan import BOOL, FLOAT, INT, blocks
from asynctrack.records.codec import flatten, light, to_json

if TYPE_CHECKING:
    from asynctrack._native import Scan

METRICS: Final = pyarrow.schema([
    ("run", pyarrow.dictionary(pyarrow.int32(), pyarrow.string())),
    ("key", pyarrow.dictionary(pyarrow.int32(), pyarrow.string())),
    ("step", pyarrow.int64()),
    ("time", pyarrow.timestamp("us")),
    ("value", pyarrow.float64()),
    ("text", pyarrow.string()),
])  # fmt: skip

_NUMBERS: Final = BOOL | INT | FLOAT
# Values that are made to Arrow at once where the core cannot read a run. Arbitrary.
_VALUES: Final = 20_000
_LARGEST: Final = (1 << 63) - 1


def metric_batches(run: Path, label: str, history: History) -> Iterator[pyarrow.RecordBatch]:
    """Yield the values of a run as batches of `METRICS`. A run that cannot be read is left out, with a warning.

    Args:
        run: its directory.
        label: what stands for it in each row.
        history: as for `RunReader.columns`.
    """
    try:
        reader = RunReader(run, warns=True)
        yielded: Counter[str] = Counter()
        try:
            if is_native and reader._has_journal():
                repeats = find_repeats(run, reader.manifest(), reader._batches) if history == "last" else None
                for found in blocks(run, reader._batches(), light, rows=True, repeats=repeats):
                    yield _of_scan(found, label, yielded)
                return
        except OverflowError:  # of a step: what is left is read without the core
            pass
        yield from _of_records(reader, label, history, yielded)
    except (AsynctrackError, OSError) as error:
        messages.warn_now(f"asynctrack: {run} is left out of `metrics`, where it could not be read: {error}")


def _of_scan(scan: Scan, label: str, yielded: Counter[str]) -> pyarrow.RecordBatch:
    """Make a batch of the columns of a scan; count what it has of each."""
    names, times = scan.names(), _times(scan)
    indices, steps, rows, values, texts = array("i"), [], [], [], []
    used: list[str] = []
    for index, name in enumerate(names):
        count = len(memoryview(scan.steps_of(index)).cast("B")) // 8
        if not count:
            continue
        yielded[name] += count
        indices.extend(array("i", [len(used)]) * count)
        used.append(name)
        steps.append(_integers(scan.steps_of(index), count))
        rows.append(_integers(scan.rows_of(index), count))
        if scan.describe(index)[0] & ~_NUMBERS:
            found = list(map(_value_and_text, scan.objects_of(index)))
            values.append(pyarrow.array([value for value, _ in found], pyarrow.float64()))
            texts.append(pyarrow.array([text for _, text in found], pyarrow.string()))
        else:
            values.append(_floats(scan.values_of(index, "d"), count))
            texts.append(pyarrow.nulls(count, pyarrow.string()))
    return _batch(
        label,
        pyarrow.array(indices, pyarrow.int32()),
        used,
        pyarrow.concat_arrays(steps),
        times.take(pyarrow.concat_arrays(rows)),
        pyarrow.concat_arrays(values),
        pyarrow.concat_arrays(texts),
    )


def _of_records(
    reader: RunReader, label: str, history: History, yielded: Counter[str]
) -> Iterator[pyarrow.RecordBatch]:
    """Make batches of records; of each key as many values as were yielded are left out."""
    found = (
        (key, record.step, record.time_ns, *_value_and_text(light(value)))
        for record in reader.records(history)
        for key, value in dict(flatten(record.data)).items()
        if not _is_yielded(yielded, key)
    )
    while some := list(islice(found, _VALUES)):
        keys, steps, times, values, texts = zip(*some, strict=True)
        used = list(dict.fromkeys(keys))
        place = {key: at for at, key in enumerate(used)}
        yield _batch(
            label,
            pyarrow.array([place[key] for key in keys], pyarrow.int32()),
            used,
            pyarrow.array([step if -_LARGEST - 1 <= step <= _LARGEST else None for step in steps], pyarrow.int64()),
            pyarrow.array([round(time_ns / 1e9 * 1e6) for time_ns in times], pyarrow.int64()).cast(
                pyarrow.timestamp("us")
            ),
            pyarrow.array(values, pyarrow.float64()),
            pyarrow.array(texts, pyarrow.string()),
        )


def _is_yielded(yielded: Counter[str], key: str) -> bool:
    """Return True for a value that a scan has yielded, and count it off."""
    if not yielded.get(key):
        return False
    yielded[key] -= 1
    return True


def _batch(label: str, indices: Any, keys: list[str], steps: Any, times: Any, values: Any, texts: Any) -> Any:
    runs = pyarrow.DictionaryArray.from_arrays(
        pyarrow.nulls(len(steps), pyarrow.int32()).fill_null(0), pyarrow.array([label], pyarrow.string())
    )
    names = pyarrow.DictionaryArray.from_arrays(indices, pyarrow.array(keys, pyarrow.string()))
    return pyarrow.RecordBatch.from_arrays([runs, names, steps, times, values, texts], schema=METRICS)


def _times(scan: Scan) -> Any:
    """Return the time of each row."""
    seconds = _buffered(pyarrow.float64(), scan.times(), scan.rows)
    microseconds = pyarrow.compute.round(pyarrow.compute.multiply(seconds, 1e6))
    return microseconds.cast(pyarrow.int64(), safe=False).cast(pyarrow.timestamp("us"))


def _integers(buffer: Any, count: int) -> Any:
    return _buffered(pyarrow.int64(), buffer, count)


def _floats(buffer: Any, count: int) -> Any:
    """Return floats, NaN as null."""
    found = _buffered(pyarrow.float64(), buffer, count)
    wrong = pyarrow.compute.is_nan(found)
    if not wrong.true_count:
        return found
    return pyarrow.compute.if_else(wrong, pyarrow.scalar(None, pyarrow.float64()), found)


def _buffered(of: Any, buffer: Any, count: int) -> Any:
    return pyarrow.Array.from_buffers(of, count, [None, pyarrow.py_buffer(buffer)])


def _value_and_text(value: Any) -> tuple[float | None, str | None]:
    """Return the number that a value is, and the text where it is none."""
    if value is None:
        return None, None
    if isinstance(value, str):
        return None, value
    if isinstance(value, int | float):
        try:
            return (None if value != value else float(value)), None
        except OverflowError:
            return (float("inf") if value > 0 else float("-inf")), None
    return None, msgspec.json.encode(to_json(value)).decode()
