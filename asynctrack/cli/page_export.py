"""Page export: `asynctrack ui --export FILE.html`: the page and runs in one file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from asynctrack import __version__
from asynctrack._system.printable import printable
from asynctrack._system.wording import counted
from asynctrack.cli import output


def export_page(file: Path, places: Sequence[Path], *, cache: bool, force: bool, as_json: bool) -> int:
    """Write the file. Return 1 if there are no runs, 2 if the file cannot be written there.

    Args:
        file: that is written.
        places: directories of runs, or such that hold runs.
        cache: what was read of long runs is kept in the user's cache, and found there.
        force: a file that is there is replaced.
        as_json: what was written is said as JSON.
    """
    from asynctrack.ui.html_export import HtmlExport

    if (problem := _problem(file, force=force)) is not None:
        output.warn(problem)
        return 2
    export = HtmlExport(places, cache=cache, version=__version__)
    if not export.keys:
        output.warn(f"no runs in {', '.join(map(str, places))}; nothing was written")
        return 1
    with output.ProgressLine("exporting", len(export.keys)) as progress:
        export.write(file, progress.at)
    written = file.stat().st_size
    if as_json:
        output.print_json({"file": str(file), "runs": list(export.keys), "bytes": written})
    else:
        sys.stdout.write(printable(f"{file}: {counted(len(export.keys), 'run')}, {output.size(written)}") + "\n")
    return 0


def _problem(file: Path, *, force: bool) -> str | None:
    """Return why the file cannot be written there; None if it can."""
    if not file.absolute().parent.is_dir():
        return f"--export takes a file in an existing folder; got {file}"
    if file.exists() and not file.is_file():
        return f"--export takes a file; {file} is not one"
    return f"{file} exists; --force replaces it" if file.exists() and not force else None
