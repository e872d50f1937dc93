"""Scanned frames: the columns of a scan for NumPy, pandas, polars and Arrow, without a Python object for each number. Runs anywhere.

They are the same as those that `columns` and `data_frames` make of lists. A column with anything but numbers and truths goes through lists.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from asynctrack.backends.files.reserved import WRITER, free_name
from asynctrack.reading.columns import Column, Curve, as_array
from asynctrack.reading.data_frames import RESERVED, STEP, TIMESTAMP, arrow_array, pandas_series, polars_series
from asynctrack.reading.scan import NIL, kind_of_column
from asynctrack.records.column_types import Kind

if TYPE_CHECKING:
    from asynctrack._native import Buffer, Scan

# The label of each row's writer; None where the run has one writer alone.
Labels = list[str | None] | None

# What `Scan.values_of` is asked for.
_LETTERS: Final[dict[Kind, str]] = {"bool": "?", "int": "q", "long": "q", "float": "d"}


def columns(scan: Scan) -> dict[str, Column]:
    """Return the columns by name, as `RunReader.columns` does."""
    return {name: _column(scan, index) for index, name in enumerate(scan.names())}


def curves(scan: Scan) -> Iterator[tuple[str, Curve]]:
    """Yield the name and the curve of each column. Needs NumPy."""
    for index, name in enumerate(scan.names()):
        steps = _array(scan.steps_of(index), "int64")
        kind = None if scan.describe(index)[0] & NIL else kind_of_column(scan, index)
        if kind is None:
            yield name, Curve(steps, as_array(_column(scan, index).values))
        else:
            letter = _LETTERS[kind]
            yield name, Curve(steps, _array(scan.values_of(index, letter), letter))


def to_pandas(pandas: Any, scan: Scan, labels: Labels = None) -> Any:
    """Build a pandas data frame, as `data_frames.to_pandas` does."""
    steps, seconds = _array(scan.steps(), "int64"), _array(scan.times(), "float64")
    series = {STEP: pandas.Series(steps, copy=False), TIMESTAMP: pandas.Series(seconds, copy=False)}
    if labels is not None:
        series[WRITER] = pandas_series(pandas, WRITER, labels)
    for index, name in _names(scan, labels):
        kind = _kind_for_pandas(scan, index)
        if kind is None:
            series[name] = pandas_series(pandas, name, scan.aligned_objects(index))
        else:
            series[name] = _pandas_numbers(pandas, scan, index, kind)
    return pandas.DataFrame(series, copy=False)


def to_polars(polars: Any, scan: Scan, labels: Labels = None) -> Any:
    """Build a polars data frame, as `data_frames.to_polars` does. Needs NumPy."""
    series = [
        polars.Series(STEP, _array(scan.steps(), "int64")),
        polars.Series(TIMESTAMP, _array(scan.times(), "float64")),
        *([] if labels is None else [polars_series(polars, WRITER, labels)]),
    ]
    for index, name in _names(scan, labels):
        kind = kind_of_column(scan, index)
        if kind is None:
            series.append(polars_series(polars, name, scan.aligned_objects(index)))
            continue
        numbers, bits, _ = scan.aligned(index, _LETTERS[kind])
        values = _array(numbers, "float64" if kind == "float" else "int64")
        made = polars.Series(name, values.astype(bool) if kind == "bool" else values)
        series.append(made if bits is None else made.set(polars.Series(~_mask(bits, scan.rows)), None))
    return polars.DataFrame(series)


def to_arrow(pyarrow: Any, scan: Scan, labels: Labels = None) -> Any:
    """Build a pyarrow table, as `data_frames.to_arrow` does."""
    rows = scan.rows
    arrays = {
        STEP: pyarrow.Array.from_buffers(pyarrow.int64(), rows, [None, pyarrow.py_buffer(scan.steps())]),
        TIMESTAMP: pyarrow.Array.from_buffers(pyarrow.float64(), rows, [None, pyarrow.py_buffer(scan.times())]),
    }
    if labels is not None:
        arrays[WRITER] = arrow_array(pyarrow, WRITER, labels)
    for index, name in _names(scan, labels):
        kind = kind_of_column(scan, index)
        if kind is None:
            arrays[name] = arrow_array(pyarrow, name, scan.aligned_objects(index))
            continue
        numbers, bits, missing = scan.aligned(index, _LETTERS[kind])
        buffers = [None if bits is None else pyarrow.py_buffer(bits), pyarrow.py_buffer(numbers)]
        of = pyarrow.float64() if kind == "float" else pyarrow.int64()
        array = pyarrow.Array.from_buffers(of, rows, buffers, null_count=missing)
        arrays[name] = array.cast(pyarrow.bool_()) if kind == "bool" else array
    return pyarrow.table(arrays)


def _array(buffer: Buffer, of: str) -> Any:
    """Wrap a buffer as a NumPy array, which may be written to."""
    import numpy

    return numpy.frombuffer(memoryview(buffer), of)


def _column(scan: Scan, index: int) -> Column:
    column = Column()
    column.steps = memoryview(scan.steps_of(index)).tolist()
    column.values = scan.objects_of(index)
    column.settle()
    return column


def _names(scan: Scan, labels: Labels) -> Iterator[tuple[int, str]]:
    """Yield the number of each column, and a name for it that is not reserved."""
    reserved = RESERVED if labels is None else (*RESERVED, WRITER)
    return ((index, free_name(name, reserved)) for index, name in enumerate(scan.names()))


def _mask(bits: Any, rows: int) -> Any:
    """Return for each row if it has a value."""
    import numpy

    return numpy.unpackbits(_array(bits, "uint8"), count=rows, bitorder="little").astype(bool)


def _kind_for_pandas(scan: Scan, index: int) -> Kind | None:
    """Return the kind of a column; None also where it has to be one of objects: truths with gaps."""
    kind = kind_of_column(scan, index)
    tags, count, _, _, _ = scan.describe(index)
    return None if kind == "bool" and (tags & NIL or count < scan.rows) else kind


def _pandas_numbers(pandas: Any, scan: Scan, index: int, kind: Kind) -> Any:
    tags, count, _, _, _ = scan.describe(index)
    gaps = tags & NIL or count < scan.rows
    letter = "d" if kind == "int" and gaps else _LETTERS[kind]
    numbers, bits, _ = scan.aligned(index, letter)
    values = _array(numbers, "float64" if letter == "d" else "int64")
    if kind == "bool":
        return pandas.Series(values.astype(bool), copy=False)
    if bits is None:
        return pandas.Series(values, copy=False)
    missing = ~_mask(bits, scan.rows)
    if letter == "d":
        values[missing] = math.nan
        return pandas.Series(values, copy=False)
    return pandas.Series(pandas.arrays.IntegerArray(values, missing), copy=False)
