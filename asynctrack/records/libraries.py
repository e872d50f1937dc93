"""Libraries: those that a call needs and an extra brings, imported when it is made. Runs anywhere."""

from __future__ import annotations

import importlib
from typing import Any

from asynctrack.errors import LibraryMissing


def import_library(library: str, call: str, extra: str | None = None) -> Any:
    """Import a library.

    Args:
        library: the name of its module.
        call: who needs it, for the message.
        extra: the extra that brings it; None where it is installed by its own name.

    Raises:
        LibraryMissing: it cannot be imported.
    """
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise LibraryMissing(call, library, error, extra) from error
