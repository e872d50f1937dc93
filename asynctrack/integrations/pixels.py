"""Pixels: convert images in the forms of torch's `SummaryWriter` into rows of bytes.

Runs in the caller; needs NumPy.
"""

from __future__ import annotations

from typing import Any, Final

from asynctrack.errors import InvalidValue, InvalidValueType
from asynctrack.records.arrays import of_torch

# Images in a row of a grid, as in torch.
_IN_A_ROW: Final = 8


def as_array(call: str, values: Any) -> Any:
    """Convert an array, a tensor or a sequence of numbers into NumPy's array.

    Args:
        call: name of the user's call, for the error.
        values: to convert.

    Raises:
        InvalidValueType: it is none of these.
    """
    import numpy

    if hasattr(values, "detach"):  # torch's tensor, which may need a gradient or lie on a device
        values = of_torch(values)
    array = numpy.asarray(values)
    if array.dtype.kind not in "buif":
        raise InvalidValueType(call, "numbers", f"{type(values).__name__}: {values!r:.80}")
    return array


def rows_of_pixels(image: Any, dataformats: str) -> Any:
    """Convert an image into bytes of height x width x channels, or height x width.

    Values other than bytes are taken to be from 0 to 1.

    Args:
        image: an array or a tensor.
        dataformats: the dimensions' letters in order, such as "CHW".

    Raises:
        InvalidValueType: it is no array of numbers.
        InvalidValue: it has other dimensions than the letters.
    """
    array = as_array("add_image", image)
    wanted = "HWC" if len(dataformats) == 3 else "HW"
    return _in_order("add_image", _as_bytes(array), dataformats, wanted)


def grid(images: Any, dataformats: str) -> Any:
    """Arrange images side by side, eight in a row, as one.

    Args:
        images: an array or a tensor of several images, or of one.
        dataformats: the dimensions' letters in order, such as "NCHW".

    Raises:
        InvalidValueType: it is no array of numbers.
        InvalidValue: it has other dimensions than the letters.
    """
    import numpy

    array = as_array("add_images", images)
    if len(dataformats) == 3:
        return rows_of_pixels(array, dataformats)
    array = _in_order("add_images", _as_bytes(array), dataformats, "NHWC")
    count, height, width, channels = array.shape
    across = min(count, _IN_A_ROW)
    down = -(-count // across) if across else 0
    whole = numpy.zeros((down * across, height, width, channels), "u1")
    whole[:count] = array
    return (
        whole.reshape(down, across, height, width, channels)
        .swapaxes(1, 2)
        .reshape(down * height, across * width, channels)
    )


def _in_order(call: str, array: Any, dataformats: str, wanted: str) -> Any:
    """Put an array's dimensions in another order.

    Raises:
        InvalidValue: it has other dimensions than the letters.
    """
    letters = dataformats.upper()
    if sorted(letters) != sorted(wanted) or array.ndim != len(wanted):
        raise InvalidValue(
            call, f"dataformats of the letters {wanted}, one per dimension", f"{dataformats!r} for {array.shape}"
        )
    return array.transpose([letters.index(letter) for letter in wanted])


def _as_bytes(array: Any) -> Any:
    """Convert into bytes, truncated and not rounded, as torch does."""
    return array if array.dtype == "u1" else (array.astype("f4") * 255).clip(0, 255).astype("u1")
