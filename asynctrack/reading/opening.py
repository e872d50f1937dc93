"""Opening: a run's reader from its directory, as users ask for it. Runs anywhere."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from asynctrack._system.disk_timeout import InterruptibleCall
from asynctrack._system.paths import expanded
from asynctrack._system.suggestions import suggests
from asynctrack.errors import AsynctrackError, InvalidValueType, ManifestUnreadable, NotARun
from asynctrack.journal import manifest as manifests
from asynctrack.journal import safe_read
from asynctrack.reading import catalog
from asynctrack.reading.reader import RunReader
from asynctrack.settings import DEFAULT_DIR


@suggests
def open_run(path: str | os.PathLike[str]) -> RunReader:
    """Read a run from its directory. Works as soon as `init` has returned.

    Where damage may have cost records, it warns with `errors.DamagedJournal`, once for a run and process; the reader's `damage` has the details. The torn
    end that a crash leaves is no damage: those records were never acknowledged. Where the disk hangs, this waits until it answers, and says so; Ctrl-C
    ends the wait.

    Args:
        path: the run's directory, such as `run.path`. Ids and `latest` are for the command line.

    Raises:
        InvalidValueType: `path` is no path.
        NotARun: there is no run.
        UnsupportedVersion: a newer asynctrack wrote it.
    """
    if not isinstance(path, str | os.PathLike):
        mine = ", whose directory is its `path`" if hasattr(path, "path") else ""  # type: ignore[unreachable]  # not for a type checker
        raise InvalidValueType("open_run()", "the path of a run's directory", f"{type(path).__name__}{mine}")
    InterruptibleCall(lambda: _touch(expanded(path)), path).wait()
    if os.path.isfile(expanded(path)):  # such as its run.json
        raise NotARun(path, _meant(path))
    try:
        return RunReader(path, warns=True)
    except ManifestUnreadable:
        raise
    except NotARun:
        raise NotARun(path, _meant(path)) from None


def _touch(run: Path) -> None:
    """Wait until the disk of a run answers."""
    with contextlib.suppress(OSError, ValueError):
        safe_read.read(run / manifests.FILE_NAME)


def _meant(path: str | os.PathLike[str]) -> str:
    """Say what `open_run` takes, and the directory of the run that the command line would find by these words."""
    takes = "; open_run() takes the path of a run's directory"
    run_id = os.fspath(path)
    if os.path.isabs(run_id) or run_id.count("/") > 1:
        return takes
    with contextlib.suppress(AsynctrackError, OSError, ValueError):
        return f"{takes}, such as {str(catalog.find(run_id, DEFAULT_DIR))!r}; ids and 'latest' are for the command line"
    return f"{takes}; ids and 'latest' are for the command line"
