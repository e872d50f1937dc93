"""Texts: values that are kept in text files: pages of HTML, and plain text. Runs in the caller."""

from __future__ import annotations

import os
from typing import Any

from asynctrack._system.suggestions import suggests
from asynctrack.errors import InvalidValueType
from asynctrack.records.media_types import LoggedFile, Value
from asynctrack.records.values.files import logged_file, seal


class Html(Value):
    """Holds a page of HTML.

    Args:
        data: the text; or the path of a file that ends in `.html`; or an open file, which is read here.
        caption: for people.

    Raises:
        InvalidValue: it is none of these, or there is no such file.
    """

    @suggests
    def __init__(self, data: Any, caption: str | None = None) -> None:
        self._meta = {} if caption is None else {"caption": str(caption)}
        self._content: bytes | None = None
        self._files: list[LoggedFile] = []
        self._seal = ""
        data = data.read() if hasattr(data, "read") else data
        if isinstance(data, os.PathLike) or (isinstance(data, str) and _names_a_page(data)):
            self._files = [logged_file("Html", os.fspath(data))]
            self._seal = seal(self._files)
        else:
            self._content = _bytes("Html", "a text, a path or an open file", data)

    def wire(self) -> list[Any]:
        return ["html", "html", self._meta, self._content, self._files, self._seal]


class Text(Value):
    """Holds a long text, which is kept in a file of its own. A short one can be logged as it is.

    Args:
        text: any.
        caption: for people.

    Raises:
        InvalidValue: it is no text.
    """

    @suggests
    def __init__(self, text: str, caption: str | None = None) -> None:
        self._meta = {} if caption is None else {"caption": str(caption)}
        self._content = _bytes("Text", "a text", text)

    def wire(self) -> list[Any]:
        return ["text", "txt", self._meta, self._content, [], ""]


def _names_a_page(text: str) -> bool:
    return text.endswith(".html") and len(text) < 4096 and "<" not in text


def _bytes(what: str, expected: str, text: object) -> bytes:
    if isinstance(text, bytes):
        return text
    if not isinstance(text, str):
        raise InvalidValueType(what, expected, f"{type(text).__name__}: {text!r:.80}")
    return text.encode("utf-8", "backslashreplace")
