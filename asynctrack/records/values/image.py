"""Image: pixels, or a file that has them. Runs in the caller."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

from asynctrack._system.suggestions import suggests
from asynctrack.errors import InvalidValue, InvalidValueType
from asynctrack.records import png
from asynctrack.records.arrays import of_torch, unmasked
from asynctrack.records.media_types import PIXELS, LoggedFile, Value
from asynctrack.records.values.files import logged_file, seal, suffix

# As they are, more might not fit the queue, which carries 2 MiB at once.
_MOST_RAW_BYTES: Final = 1 << 20

_MODES: Final = frozenset({"L", "LA", "RGB", "RGBA"})


class Image(Value):
    """Shows an image, of pixels, a file or a figure.

    Args:
        data: one of

            - pixels: an array of height x width, or height x width x 1, 3 or 4 channels; a torch tensor may have its channels first. Integers are
              0 to 255, floats 0 to 1, or -1 to 1 where some are negative; floats beyond are taken from 0 to 255, and stretched to that where
              some are negative. They become 8 bits a channel here: 0.3 ms for 512 x 512 x 3 floats, and a quarter of the bytes. More than a
              megabyte of that is compressed here, too, which takes 3 to 70 ms a megabyte;
            - an image of Pillow, whose pixels are copied;
            - the path of a file, which a delivery copies as it is;
            - a figure of matplotlib, or `pyplot` itself. It is drawn here and now, which takes some 100 ms, since matplotlib may change it as soon
              as this returns.
        caption: for people.
        mode: of Pillow, to convert to; ignored for all else.

    Raises:
        InvalidValue: `data` is none of these, or empty; or there is no such file.
    """

    @suggests
    def __init__(self, data: Any, caption: str | None = None, *, mode: str | None = None) -> None:
        self._meta: dict[str, Any] = {} if caption is None else {"caption": str(caption)}
        self._content: bytes | None = None
        self._files: list[LoggedFile] = []
        self._seal = ""
        if isinstance(data, str | os.PathLike):
            self._files = [logged_file("Image", os.fspath(data))]
            self._format, self._seal = suffix(self._files[0].place), seal(self._files)
        elif hasattr(data, "savefig") or hasattr(data, "get_figure"):
            self._format, self._content = "png", _draw(data)
            size = png.size_of(self._content)
            if size is None:
                raise InvalidValue("Image", "a figure that draws a PNG", f"{data!r:.80}")
            self._meta |= {"width": size[0], "height": size[1]}
        else:
            pixels, width, height = _of_pillow(data, mode) if hasattr(data, "getbands") else _of_array(data)
            self._format, self._content = PIXELS, pixels
            if len(pixels) > _MOST_RAW_BYTES:
                self._format, self._content = "png", png.encode(pixels, width, height)
            self._meta |= {"width": width, "height": height}

    def __repr__(self) -> str:
        return f"<Image {_size(self._meta, self._files)}>"

    def wire(self) -> list[Any]:
        return ["image", self._format, self._meta, self._content, self._files, self._seal]


def _size(meta: Mapping[str, Any], files: Sequence[LoggedFile]) -> str:
    return files[0].place if files else f"{meta['width']}x{meta['height']}"


def _draw(data: Any) -> bytes:
    """Draw a figure, or that of axes, as a PNG."""
    figure = data if hasattr(data, "savefig") else data.get_figure()
    drawn = io.BytesIO()
    try:
        figure.savefig(drawn, format="png")
    except Exception as error:  # of matplotlib, or of the user's code in the figure
        raise InvalidValue("Image", "a figure that can be drawn", f"{type(error).__name__}: {error}") from error
    return drawn.getvalue()


def _of_pillow(image: Any, mode: str | None) -> tuple[bytes, int, int]:
    """Return the pixels, width and height of an image of Pillow."""
    if mode in _MODES and image.mode != mode:
        image = image.convert(mode)
    if image.mode not in _MODES:
        clear = "transparency" in getattr(image, "info", {}) or image.mode in ("PA", "La", "RGBa")
        image = image.convert("RGBA" if clear else "L" if image.mode in ("1", "I", "F", "I;16") else "RGB")
    width, height = image.size
    if not width or not height:
        raise InvalidValue("Image", "an image with pixels", f"{width} x {height}")
    return image.tobytes(), width, height


def _of_array(data: Any) -> tuple[bytes, int, int]:
    """Return the pixels of an array, 8 bits a channel, with width and height."""
    array, channels_first = _as_array(data)
    if array.ndim == 3 and channels_first and array.shape[0] in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or not array.size:
        expected = "an array of height x width, or height x width x 1, 3 or 4 channels"
        raise InvalidValue("Image", expected, f"shape {array.shape}")
    if array.dtype.kind not in "buif":
        raise InvalidValueType("Image", "an array of numbers", f"dtype {array.dtype}")
    return _as_bytes(array).tobytes(), array.shape[1], array.shape[0]


def _as_array(data: Any) -> tuple[Any, bool]:
    """Convert to a NumPy array. Return it, and True if it may have its channels first."""
    channels_first = hasattr(data, "detach")
    if channels_first:
        data = of_torch(data)
    if not hasattr(data, "__array__"):
        expected = "an array, an image of Pillow, a figure of matplotlib, or the path of a file"
        raise InvalidValueType("Image", expected, f"{type(data).__name__}: {data!r:.80}")
    import numpy

    return unmasked(numpy.asanyarray(data)), channels_first


def _as_bytes(array: Any) -> Any:
    """Convert numbers to 8 bits, as `Image` describes."""
    import numpy

    if array.dtype == numpy.uint8:
        return array
    if array.dtype.kind == "b":
        return array.astype("u1") * 255
    if array.dtype.kind == "f":
        array = numpy.nan_to_num(array.astype("f4", copy=False), posinf=None, neginf=None)
    low, high = array.min(), array.max()
    if array.dtype.kind == "f" and -1 <= low < 0 and high <= 1:
        array = (array + 1.0) * 127.5
    elif low < 0 and high > low:
        array = (array.astype("f4") - float(low)) * (255.0 / (float(high) - float(low)))
    elif array.dtype.kind == "f" and high <= 1:
        array = array * 255.0
    return (array + 0.5 if array.dtype.kind == "f" else array).clip(0, 255).astype("u1")
