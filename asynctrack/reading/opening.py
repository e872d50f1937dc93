"""Opening: a run's reader from its directory, as users ask for it. Runs anywhere."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from asynctrack._system.disk_timeout import InterruptibleCall
from asynctrack._system.paths import expanded
from asynctrack._system.suggestions import suggests
from asynctrack.errors import InvalidValueType, ManifestUnreadable, NoSuchRun, NotARun
from asynctrack.journal import manifest as manifests
from asynctrack.journal import safe_read
from asynctrack.reading import catalog
from asynctrack.reading.reader import RunReader
from asynctrack.settings import DEFAULT_DIR


@suggests
def open_run(path: str | os.PathLike[str], *, dir: str | os.PathLike[str] | None = None) -> RunReader:
    """Read a run: from its directory, or by its id, the beginning of its id or its name. Works as soon as `init` has returned.

    Where damage may have cost records, it warns with `errors.DamagedJournal`, once for a run and process; the reader's `damage` has the details. The torn
    end that a crash leaves is no damage: those records were never acknowledged. Where the disk hangs, this waits until it answers, and says so; Ctrl-C
    ends the wait.

    Args:
        path: the run's directory, such as `run.path`; or a text that names the run as on the command line: "latest", an id, the beginning of an id, a
            name, or one of these after `project/`. A directory goes before an id, and an id before a name.
        dir: where ids and names are looked up, the default directory of `init` without it.

    Raises:
        InvalidValueType: `path` is no path.
        NotARun: there is no run.
        AmbiguousRun: the beginning of an id, or a name, fits several.
        UnsupportedVersion: a newer asynctrack wrote it.
    """
    if not isinstance(path, str | os.PathLike):
        mine = ", whose directory is its `path`" if hasattr(path, "path") else ""  # type: ignore[unreachable]  # not for a type checker
        raise InvalidValueType("open_run()", "the directory, id or name of a run", f"{type(path).__name__}{mine}")
    InterruptibleCall(lambda: _touch(expanded(path)), path).wait()
    if not os.path.isfile(expanded(path)):  # such as its run.json
        try:
            return RunReader(path, warns=True)
        except ManifestUnreadable:
            raise
        except NotARun:
            pass
    return RunReader(_find(path, expanded(DEFAULT_DIR if dir is None else dir)), warns=True)


def _touch(run: Path) -> None:
    """Wait until the disk of a run answers."""
    with contextlib.suppress(OSError, ValueError):
        safe_read.read(run / manifests.FILE_NAME)


def _find(path: str | os.PathLike[str], directory: Path) -> Path:
    """Find the run that a text means where it is no path.

    Raises:
        NotARun: there is none.
        AmbiguousRun: there are several.
    """
    if not isinstance(path, str) or expanded(path).is_absolute():
        raise NotARun(path)
    try:
        return InterruptibleCall(lambda: catalog.find(path, directory), directory).wait()
    except NoSuchRun as error:
        meant = f"; did you mean {' or '.join(error.closest)}?" if error.closest else ""
        nowhere = "there is no run" if path == catalog.LATEST else f"no id and no name fits {path!r}"
        raise NotARun(path, f", and in {directory} {nowhere}{meant}") from None
