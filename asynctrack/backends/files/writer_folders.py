"""Writer folders: where each writer of a run has its files, with `writers="split"`. Runs where the sink does, and in readers.

The owner's are where those of a run of one writer are. The others' are in `writers/LABEL/` of the run's directory.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from asynctrack._system import permissions
from asynctrack.backends.base import ActionRequired, Context
from asynctrack.journal.join import LABEL

_FOLDER: Final = "writers"


def directory_of(context: Context) -> Path:
    """Return the directory for the files of a sink's writer, which is made where it is missing.

    Raises:
        ActionRequired: a link lies in its place.
    """
    if context.writer is None:
        return context.directory
    return _made(_made(context.directory / _FOLDER) / context.writer)


def path_of(context: Context, file: str) -> Path:
    """Return the path for a file of a sink's writer: where the file lies outside of the run's directory, too, in a folder of its own there.

    Args:
        context: of the sink.
        file: its name, or its path from the run's directory.

    Raises:
        ActionRequired: a link lies in the place of its folder.
    """
    if context.writer is None or os.path.basename(file) == file:
        return directory_of(context) / file
    path = context.directory / file
    return _made(path.parent / context.writer) / path.name


def folders_in(run: Path) -> Iterator[tuple[str, Path]]:
    """Yield the labels of the writers that have a folder in a run's directory, each with its folder."""
    with contextlib.suppress(OSError):
        if not os.path.islink(run / _FOLDER):
            for path in sorted((run / _FOLDER).iterdir()):
                if LABEL.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                    yield path.name, path


def _made(folder: Path) -> Path:
    if folder.is_symlink():
        raise ActionRequired(f"{folder} is a link, which may lead anywhere; make it a directory")
    os.makedirs(folder, permissions.DIRECTORY, exist_ok=True)
    return folder
