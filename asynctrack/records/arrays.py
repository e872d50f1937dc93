"""Arrays: makes arrays, tensors, scalars and data frames of NumPy, torch, JAX, pandas and polars plain. Runs in the caller.

None of these libraries is imported here: a value's attributes show what it can do. An array of one item becomes a number, as `add_scalar` and W&B have
it. A masked item becomes NaN, or None where its type has no NaN.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

from asynctrack._system.native import is_native
from asynctrack.records.media_types import FORMATS, Array
from asynctrack.records.wire import ARRAY, Ext, encode

if is_native:
    from asynctrack import _native

makers: Final[dict[type, Callable[[Any], Any]]] = {}
"""What makes a value of NumPy's own types plain, for those that were met: to look a type up takes a sixth of asking what it is. Of a scalar that is a number, of an
array perhaps something whose items are to be made plain.
"""

_FORMATS: Final = {f"{'|' if name[1] == '1' else '<'}{name}": name for name in FORMATS}
"""Names of frames by NumPy's, of those whose bytes are as they are in a frame."""

# To take them for arrays would lose the names of their columns.
_FRAMES: Final = frozenset({"DataFrame", "Series", "Table", "RecordBatch"})
_FRAME_LIBRARIES: Final = frozenset({"pandas", "polars", "pyarrow"})


def is_array(value: Any) -> bool:
    """Return True if a value is an array, a tensor or a scalar of NumPy, torch, JAX or a library that has their protocol."""
    return hasattr(value, "__array__") or (hasattr(value, "detach") and hasattr(value, "cpu"))


def is_frame(kind: type) -> bool:
    """Return True if a type is a data frame or a series."""
    return any(
        base.__name__ in _FRAMES and base.__module__.partition(".")[0] in _FRAME_LIBRARIES for base in kind.__mro__
    )


def plain_array(value: Any) -> Any:
    """Convert an array to the extension type that it has in a frame, to nested lists, or to a number.

    Raises:
        Exception: whatever its library raises.
    """
    if hasattr(value, "detach"):
        value = of_torch(value)
    if getattr(value, "shape", None) == () and hasattr(value, "item") and not hasattr(value, "mask"):
        return _scalar(value)  # of torch, JAX and NumPy, also where NumPy is not imported
    numpy = sys.modules.get("numpy")
    if numpy is None:
        raise TypeError("an array without NumPy")
    if type(value) is numpy.ndarray:
        makers[numpy.ndarray] = of_numpy
    return of_numpy(unmasked(numpy.asanyarray(value)))


def of_numpy(array: Any) -> Any:
    """Convert a NumPy array to the extension type, to lists, or to a number where it has one item."""
    if (dtype := _FORMATS.get(array.dtype.str)) is not None and array.size != 1:
        return Ext(ARRAY, encode((dtype, array.shape, array.tobytes())))
    if array.size == 1:
        return _scalar(array.reshape(())[()]) if array.dtype.kind != "O" else array.reshape(())[()]
    if array.dtype.str[1:] in FORMATS:
        return as_array(array)
    if array.dtype.names:
        return {name: array[name] for name in array.dtype.names}
    kind = array.dtype.kind
    if kind == "M":
        return _texts(sys.modules["numpy"].datetime_as_string(array).tolist())
    if kind == "m":
        return of_numpy(_seconds(array))
    if kind in "fV" and array.dtype.type.__name__ != "void":  # of 128 bits; bfloat16, float8 and int4 of ml_dtypes
        return as_array(array.astype("f8" if array.dtype.itemsize > 4 else "f4"))
    return array.tolist()


def as_array(array: Any) -> Ext:
    """Convert an array of numbers to an extension type, also where it has one item."""
    order, dtype = array.dtype.str[0], array.dtype.str[1:]
    little = array.astype("<" + dtype) if order == ">" else array
    return Ext(ARRAY, encode((dtype, array.shape, little.tobytes())))


def of_logged(array: Array) -> Ext:
    """Convert an array that was read from a run back to the extension type."""
    return Ext(ARRAY, encode((array.dtype, array.shape, array.buffer)))


def unmasked(array: Any) -> Any:
    """Return an array without a mask: masked items are NaN, or None in an array of objects where the type has no NaN."""
    ma = sys.modules.get("numpy.ma")
    if ma is None or not isinstance(array, ma.MaskedArray):
        return array
    if not ma.getmaskarray(array).any():
        return array.data
    if array.dtype.kind == "f":
        return array.filled(float("nan"))
    if array.dtype.kind in "iu":
        return array.astype("f8").filled(float("nan"))
    objects = array.data.astype("O")
    objects[ma.getmaskarray(array)] = None
    return objects


def of_torch(tensor: Any) -> Any:
    """Convert a tensor to a NumPy array. It may need a gradient, lie on a device, or have a type that NumPy lacks."""
    tensor = tensor.detach()
    if str(getattr(tensor, "layout", "torch.strided")) != "torch.strided":
        tensor = tensor.to_dense()
    if getattr(tensor, "is_quantized", False):
        tensor = tensor.dequantize()
    tensor = tensor.cpu()
    if str(tensor.dtype).startswith(("torch.bfloat16", "torch.float8", "torch.float4")):
        tensor = tensor.float()
    return tensor.resolve_conj().resolve_neg() if hasattr(tensor, "resolve_neg") else tensor


def _scalar(value: Any) -> Any:
    """Convert a NumPy scalar, or any array without dimensions, to a Python number, a text or None."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        return _of_generic(value, numpy)
    item = value.item()
    return float(item) if type(item) is type(value) else item


def _of_generic(value: Any, numpy: Any) -> Any:
    kind = value.dtype.kind
    if kind in "Mm" and numpy.isnat(value):
        return None
    if kind == "M":
        return str(numpy.datetime_as_string(value))
    if kind == "m":
        return _seconds(value).item()
    if kind == "V" and value.dtype.names:
        return {name: value[name] for name in value.dtype.names}
    if kind == "c":  # one of 256 bits has itself for an item
        return complex(value)
    item = value.item()
    plain = float(item) if type(item) is type(value) else item
    if kind in "biuf" and type(value) not in makers:
        makers[type(value)] = type(plain)
        if is_native:
            _native.learn(value)
    return plain


def _seconds(spans: Any) -> Any:
    """Convert NumPy's time spans to seconds; those without a unit to plain numbers."""
    if spans.dtype.str.endswith("m8"):
        return spans.astype("i8")
    if spans.dtype.str.endswith(("[Y]", "[M]")):  # of mean length, as NumPy has them
        spans = spans.astype("m8[s]")
    return spans / spans.dtype.type(1, "s")


def _texts(moments: Any) -> Any:
    """Convert moments to texts in nested lists, with None for NaT."""
    if isinstance(moments, list):
        return [_texts(item) for item in moments]
    return None if moments == "NaT" else moments
