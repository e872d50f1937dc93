"""Media types: the types that a reader gets beside Python's own, arrays and media, and how JSON represents any value. Runs anywhere."""

from __future__ import annotations

import functools
import math
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

# Deeper than any real record, shallow enough for every recursion. Arbitrary.
MAX_DEPTH: Final = 64
PIXELS: Final = "pixels"

# Formats that `struct` reads, by NumPy's kind and size.
FORMATS: Final = {
    "f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "i2": "h", "i1": "b",
    "u8": "Q", "u4": "I", "u2": "H", "u1": "B", "b1": "?",
}  # fmt: skip

_FOLDERS: Final = {"image": "images", "table": "tables", "html": "html", "text": "texts", "artifact": "artifacts"}
# Of a hash's hexadecimal digits: 80 bits, so that two of a run's values never share a name.
_NAME_DIGITS: Final = 20


# Of a histogram that is counted when it is read. Arbitrary, and more than anybody draws.
_MOST_BINS: Final = 1 << 20


class Array(msgspec.Struct, frozen=True, array_like=True):
    """Holds an array as it was logged. `numpy.asarray` takes it; `tolist` needs no NumPy.

    Attributes:
        dtype: NumPy's name without the byte order, such as "f4".
        shape: lengths of the dimensions.
        buffer: the items, little-endian, last dimension fastest.
    """

    dtype: str
    shape: tuple[int, ...]
    buffer: bytes

    def __post_init__(self) -> None:
        # The frame may be anybody's, so its items are checked here and not by each user of them.
        size = struct.calcsize("<" + FORMATS[self.dtype]) if self.dtype in FORMATS else -1
        can_be = len(self.shape) <= MAX_DEPTH and min(self.shape, default=0) >= 0 <= size
        if not can_be or math.prod(self.shape) * size != len(self.buffer):
            raise ValueError(f"an array of {self.dtype!r:.20} {self.shape!r:.80} has not {len(self.buffer)} bytes")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        import numpy

        array = numpy.frombuffer(self.buffer, "<" + self.dtype).reshape(self.shape)
        return array if dtype is None else array.astype(dtype)

    def tolist(self) -> Any:
        """Return nested lists of Python numbers; a single number where the array has no dimension."""
        items: Any = [item for (item,) in struct.iter_unpack("<" + FORMATS[self.dtype], self.buffer)]
        for length in reversed(self.shape[1:]):
            items = [items[at : at + length] for at in range(0, len(items), length)] if length else []
        return items if self.shape else items[0]


class LoggedFile(msgspec.Struct, frozen=True, array_like=True):
    """A file that was logged by its path: a delivery copies it, if it has not changed since then.

    Attributes:
        name: its name in an artifact.
        path: absolute; one that is not UTF-8 as a zero byte and hexadecimal digits, since a frame has only Unicode.
        size: in bytes, when it was logged.
        mtime_ns: when it had last been changed, nanoseconds since the epoch.
    """

    name: str
    path: str
    size: int
    mtime_ns: int

    @property
    def place(self) -> str:
        """Return its path as the operating system takes it."""
        return os.fsdecode(bytes.fromhex(self.path[1:])) if self.path.startswith("\0") else self.path

    @staticmethod
    def at(name: str, place: str, size: int, mtime_ns: int) -> LoggedFile:
        """Make one of a path as the operating system has it."""
        path = place if unicode(place) == place else f"\0{os.fsencode(place).hex()}"
        return LoggedFile(unicode(name), path, size, mtime_ns)


class Media:
    """Holds a value that is more than a number or a text, as a reader and a backend get it. Do not change it.

    Its `repr`, JSON and data frames have a short reference; `read()` returns the whole content. It is not a struct: an encoder that does not know it
    must fail, not write out its bytes.

    Attributes:
        kind: "image", "table", "html", "text", "artifact" or "histogram".
        meta: what was given with it: "caption"; of an image "width" and "height" in pixels, of a table "columns" and the number of its
            "rows", of an artifact its "name" and "type".
        content: as it was logged: pixels or the file's bytes; the rows of a table; the values of a histogram. None where it was logged as
            files, or is left out to save memory.
        files: the files that were logged by their paths.
        seal: by which a delivery knows that its own user has logged these files.
        run: the run's directory, where it is known.
    """

    def __init__(
        self,
        kind: str,
        format: str,
        meta: Mapping[str, Any],
        content: Any,
        files: Sequence[LoggedFile] = (),
        seal: str = "",
        run: Path | None = None,
    ) -> None:
        self.kind = kind
        self.meta = meta
        self.content = content
        self.files = files
        self.seal = seal
        self.run = run
        self._format = format
        if not _can_be(kind, format, meta, content):  # the frame may be anybody's
            raise ValueError(f"asynctrack knows no medium of the kind {kind!r:.20} in the format {format!r:.20}")

    def __repr__(self) -> str:
        return f"<{self}{f', {self.path}' if self.path else ''}>"

    def __str__(self) -> str:
        meta = self.meta
        if "width" in meta:
            return f"{self.kind} {meta['width']}x{meta['height']}"
        if "columns" in meta:
            return f"{self.kind} {meta['rows']}x{len(meta['columns'])}"
        return f"{self.kind} {meta['name']}" if "name" in meta else self.kind

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """Return an image's pixels as an array: height x width, or height x width x channels. One that was logged as a file needs Pillow."""
        import numpy

        if self._format == PIXELS and self.content is not None:
            shape = (self.meta["height"], self.meta["width"], -1)
            array = numpy.frombuffer(self.content, "u1").reshape(shape)
            array = array[:, :, 0] if array.shape[2] == 1 else array
        else:
            import io

            from PIL import Image

            array = numpy.asarray(Image.open(io.BytesIO(self.read())))
        return array if dtype is None else array.astype(dtype)

    @property
    def caption(self) -> str | None:
        """Return the caption that was given for people; None where there is none."""
        return self.meta.get("caption")

    @property
    def format(self) -> str:
        """Return the suffix of its file's name, such as "png"; empty where it has none."""
        return "png" if self._format == PIXELS else self._format

    @functools.cached_property
    def path(self) -> str | None:
        """Return its path in the run's directory, once a delivery has stored it; None for a histogram, which is in the record itself."""
        if self.kind == "histogram":
            return None
        suffix = f".{self.format}" if self.format else ""
        return f"media/{_FOLDERS.get(self.kind, 'others')}/{self._digest()[:_NAME_DIGITS]}{suffix}"

    @property
    def file(self) -> Path | None:
        """Return the path of its file, or the folder of an artifact; None where that does not exist."""
        if self.run is None or self.path is None or not (found := self.run / self.path).exists():
            return None
        linked = any(path.is_symlink() for path in (found, found.parent, found.parent.parent))
        return None if linked else found  # a link may lead anywhere

    @property
    def missing(self) -> str | None:
        """Return the reason why there will never be a file, if the files that were logged had changed or gone before a delivery came; else None."""
        if self.run is None or self.path is None or self.file is not None:
            return None
        try:
            return (self.run / missing_path(self.path)).read_text()
        except OSError:
            return None

    def read(self) -> bytes:
        """Return the bytes of its file.

        Raises:
            FileNotFoundError: no delivery has stored it, and the record does not have it.
            IsADirectoryError: it is an artifact, which is a folder.
        """
        if (file := self.file) is not None:
            return file.read_bytes()
        if self.content is None:
            why = self.missing or "no delivery has stored it"
            raise FileNotFoundError(f"{self!r} has no file: {why}")
        return self.encode()

    def encode(self) -> bytes:
        """Return the bytes that its file is to hold, made of what was logged."""
        if self._format == PIXELS:
            from asynctrack.records import png

            return png.encode(self.content, self.meta["width"], self.meta["height"])
        if self.kind == "table":
            return msgspec.json.encode({"columns": self.meta["columns"], "data": to_json(self.content)})
        return bytes(self.content)

    def bins(self) -> tuple[Sequence[float], list[float]]:
        """Return a histogram's counts and the edges between them, one more than counts."""
        if "counts" in self.meta:
            return self.meta["counts"], self.meta["edges"]
        values = self.content.tolist() if isinstance(self.content, Array) else self.content
        from asynctrack.records.bins import count

        return count(values, self.meta["num_bins"])

    def reference(self) -> dict[str, Any]:
        """Return the reference that stands for it in JSON."""
        if self.kind == "histogram":
            counts, edges = self.bins()
            return {"_type": self.kind, "values": counts, "bins": edges}
        told: dict[str, Any] = {"_type": self.kind, "path": self.path, **self.meta}
        if self.format:
            told["format"] = self.format
        return told if (missing := self.missing) is None else {**told, "missing": missing}

    def wire(self) -> list[Any]:
        """Return what a frame holds of it where it is logged again."""
        content = self.content
        if content is None and not self.files:
            content = self.read()
        elif isinstance(content, Array):
            content = content.tolist()
        return [self.kind, self._format, self.meta, content, self.files, self.seal]

    def light(self) -> Media:
        """Return the same without its content, if there is a file to read that from."""
        if self.content is None or self.path is None:
            return self
        light = Media(self.kind, self._format, self.meta, None, self.files, self.seal, self.run)
        light.__dict__["path"] = self.path
        return light

    def _digest(self) -> str:
        """Return the digest of its content, or of what was noted of its files when they were logged."""
        import hashlib

        if self.content is None:
            return hashlib.sha256(msgspec.msgpack.encode(self.files)).hexdigest()
        if self._format == PIXELS:
            digest = hashlib.sha256(b"%dx%d " % (self.meta["width"], self.meta["height"]))
            digest.update(self.content)
            return digest.hexdigest()
        return hashlib.sha256(self.encode()).hexdigest()


def _can_be(kind: Any, format: Any, meta: Any, content: Any) -> bool:
    """Return True if a medium is as our values make it, as far as later code relies on."""
    if not (isinstance(kind, str) and isinstance(format, str) and isinstance(meta, Mapping)):
        return False
    if kind == "histogram":
        return _is_histogram(meta, content)
    if kind == "table":
        columns, rows = meta.get("columns"), meta.get("rows")
        return isinstance(columns, list) and isinstance(rows, int) and isinstance(content, list | None)
    if format == PIXELS:
        width, height = meta.get("width"), meta.get("height")
        pixels = width * height if isinstance(width, int) and isinstance(height, int) else 0
        fits = content is None or (isinstance(content, bytes) and len(content) in (pixels, 3 * pixels, 4 * pixels))
        return pixels > 0 and fits
    return isinstance(content, bytes | None)


def _is_histogram(meta: Mapping[str, Any], content: Any) -> bool:
    if "counts" in meta:
        return isinstance(meta["counts"], list) and isinstance(meta.get("edges"), list)
    bins = meta.get("num_bins")
    numbers = isinstance(content, Array) or (
        isinstance(content, list) and all(isinstance(value, int | float) for value in content)
    )
    return numbers and isinstance(bins, int) and 0 < bins <= _MOST_BINS


def unicode(text: str) -> str:
    """Return a text that UTF-8 can hold: lone surrogates, such as those of file names in another encoding, become backslash escapes."""
    text = str.__str__(text)  # it may be of another library's class, or of an enum's
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def sealed(files: Sequence[LoggedFile]) -> dict[str, Any]:
    """Return the part of logged files that their seal covers."""
    return {"files": [[file.name, file.path, file.size, file.mtime_ns] for file in files]}


def missing_path(path: str) -> str:
    """Return the path of the note that says why there is no file at a path below `media/`."""
    return f"{path}.missing"


def to_json(value: Any, depth: int = 0) -> Any:
    """Convert a value to what JSON can hold: NaN and infinities become "NaN", "Infinity" or "-Infinity" (protobuf's JSON mapping).

    What is nested more than 64 levels deep becomes "...": JSON readers give up soon after.
    """
    if depth > MAX_DEPTH:
        return "..."
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(key): to_json(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item, depth + 1) for item in value]
    if isinstance(value, Array):
        return to_json(value.tolist(), depth)
    if isinstance(value, Media):
        return to_json(value.reference(), depth)
    return value


_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def from_json(value: Any) -> Any:
    """Convert the three strings of `to_json` back to NaN and infinities."""
    if isinstance(value, str):
        return _NOT_FINITE.get(value, value)
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if isinstance(value, dict):
        return {key: from_json(item) for key, item in value.items()}
    return value


def light(data: Any, depth: int = 0) -> Any:
    """Return `data` with references to its media instead of their content."""
    if isinstance(data, Media):
        return data.light()
    if depth <= MAX_DEPTH and isinstance(data, dict):
        return {key: light(item, depth + 1) for key, item in data.items()}
    if depth <= MAX_DEPTH and isinstance(data, list):
        return [light(item, depth + 1) for item in data]
    return data


def media_in(data: Any, depth: int = 0) -> list[Media]:
    """Return the media in a record's data, also those in a table."""
    if isinstance(data, Media):
        within = media_in(data.content, depth + 1) if data.kind == "table" else []
        return [*within, data]
    if depth > MAX_DEPTH or not isinstance(data, dict | list):
        return []
    items = data.values() if isinstance(data, dict) else data
    return [media for item in items for media in media_in(item, depth + 1)]


class Value:
    """The base of what `log()` takes beside numbers, texts, arrays and nests of them. Do not subclass it."""

    def wire(self) -> list[Any]:
        """Return what a frame holds of it: the arguments of `Media` except for the run."""
        raise NotImplementedError
