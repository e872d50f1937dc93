"""Notebook: the page with some runs in it, in the output of a cell. Runs in the caller.

No server is asked: an address of the kernel's machine cannot be reached from JupyterHub, VS Code or Colab. The page is a text within the notebook, in a frame
that has no access to it.
"""

from __future__ import annotations

import contextlib
import html
import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from asynctrack._system.paths import expanded
from asynctrack._system.suggestions import suggests
from asynctrack.client.run import Run
from asynctrack.errors import InvalidSettings, InvalidValueType
from asynctrack.journal.manifest import UNREADABLE
from asynctrack.reading.opening import open_run
from asynctrack.reading.reader import RunReader
from asynctrack.ui.html_export import NOTEBOOK_SIZE, HtmlExport

Given = str | os.PathLike[str] | Run | RunReader

# For what was logged just now.
_JOURNALED_S: Final = 2.0
# Pixels. Arbitrary: a window has 800.
_HEIGHT: Final = 600


class ShownRuns:
    """Shows runs, as they were when it was asked for, below the cell of a notebook whose last expression it is.

    Attributes:
        paths: of the runs.
    """

    def __init__(self, paths: Iterable[Path], height: int) -> None:
        self.paths: tuple[Path, ...] = tuple(paths)
        self._height = height

    def __repr__(self) -> str:
        named = ", ".join(path.name for path in self.paths[:3]) + (", ..." if len(self.paths) > 3 else "")
        return (
            f"<ShownRuns {named}: a notebook shows the page here. Elsewhere `asynctrack ui {shlex.quote(str(self.paths[0]))}` shows it, "
            'and `.save("FILE.html")` writes it to a file>'
        )

    def _repr_html_(self) -> str:
        page = html.escape("".join(HtmlExport(self.paths, size=NOTEBOOK_SIZE, compares=True).texts()))
        return (
            f'<iframe title="asynctrack" srcdoc="{page}" sandbox="allow-scripts allow-downloads" width="100%" '
            f'height="{self._height}" frameborder="0"></iframe>'
        )

    @suggests
    def save(self, file: str | os.PathLike[str]) -> Path:
        """Write the page to a file that opens without a server, and return its path. A file of that name is replaced.

        Args:
            file: its path, such as `runs.html`.
        """
        path = expanded(file)
        HtmlExport(self.paths).write(path)
        return path


@suggests
def show(
    runs: Given | Iterable[Given], *, height: int = _HEIGHT, dir: str | os.PathLike[str] | None = None
) -> ShownRuns:
    """Show runs in a notebook: the page of `asynctrack ui` with these runs in it, as they are now.

    It needs no server, and works in Jupyter, JupyterHub, VS Code and Colab. The page becomes part of the notebook: it takes 130 kB, and about 10 kB for
    each metric of each run. Let it be the last expression of a cell, or give it to `display`.

    Args:
        runs: a run, its reader, its path, its id or name as `open_run` takes them; or several of them, as `asynctrack.runs()`.
        height: of the frame, in pixels.
        dir: where ids and names are looked up, the default directory of `init` without it.

    Raises:
        NotARun: there is no such run.
        AmbiguousRun: the beginning of an id, or a name, fits several.
        InvalidValueType: something else was given.
        InvalidSettings: there are no runs, or the height is no positive number.
    """
    if not isinstance(height, int) or height < 1:
        raise InvalidSettings([f"height must be a positive number of pixels; got {height!r:.80}"])
    is_one = isinstance(runs, str | os.PathLike | Run | RunReader) or not isinstance(runs, Iterable)
    given: Iterable[object] = [runs] if is_one else runs  # type: ignore[assignment]
    paths = list(dict.fromkeys(_path_of(one, dir) for one in given))
    if not paths:
        raise InvalidSettings(["runs must be one run or several; got none"])
    return ShownRuns(paths, height)


def _path_of(given: object, dir: str | os.PathLike[str] | None) -> Path:
    if isinstance(given, Run):
        with contextlib.suppress(OSError, *UNREADABLE):  # what is journaled is shown
            given.flush("journaled", _JOURNALED_S)
        return open_run(given.path).path.absolute()
    if isinstance(given, RunReader):
        return given.path.absolute()
    if isinstance(given, str | os.PathLike):
        return open_run(given, dir=dir).path.absolute()
    raise InvalidValueType("show()", "runs, their readers, paths, ids or names", type(given).__name__)
