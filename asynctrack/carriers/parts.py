"""Parts: the directories in which hosts have their parts of runs, `DIR/PROJECT/RUN@HOST`: how they are named and found. Runs anywhere."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from asynctrack.errors import AsynctrackError, InvalidSettings
from asynctrack.settings import check_name

# Read, and never written.
HOST_VARIABLE: Final = "ASYNCTRACK_HOST"

_HOST: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_STRANGE: Final = re.compile(r"[^A-Za-z0-9_.-]")


class Part(NamedTuple):
    """A host's part of a run.

    Attributes:
        project: the name of the project's directory.
        run: the id of the run.
        host: the name of the host.
        path: the part's directory, an ordinary run.
    """

    project: str
    run: str
    host: str
    path: Path


def host_name() -> str:
    """Return the name of this host: `ASYNCTRACK_HOST` in the environment, else that of the machine.

    Raises:
        InvalidSettings: what the environment says is no name.
    """
    given = os.environ.get(HOST_VARIABLE, "")
    if not given:
        return _STRANGE.sub("_", os.uname().nodename).lstrip(".-")[:64] or "_"
    if not _HOST.fullmatch(given):
        problem = f"{HOST_VARIABLE} in the environment must be 1 to 64 letters, digits or any of '_.-', not beginning with one of '.-'; got {given!r:.80}"
        raise InvalidSettings([problem])
    return given


def part_name(run: str, host: str) -> str:
    """Return the name of the directory of a host's part."""
    return f"{run}@{host}"


def split_name(name: str) -> tuple[str, str] | None:
    """Return the run and the host of a part by its directory's name; None where that is none."""
    run, at, host = name.rpartition("@")
    if not at or not _HOST.fullmatch(host):
        return None
    try:
        return check_name("id", run), host
    except AsynctrackError:
        return None


def is_of_another_host(run: Path) -> bool:
    """Return whether a directory is the part of another host, whose worker may be at it: no lock is sure to say so between machines."""
    named = split_name(run.name)
    return named is not None and named[1] != host_name()


def parts_under(directory: Path) -> Iterator[Part]:
    """Yield the parts in a directory of projects; no link is followed.

    Raises:
        OSError: the directory cannot be listed.
    """
    for project in _directories(directory):
        for path in _directories(project):
            if (named := split_name(path.name)) is not None:
                yield Part(project.name, *named, path)


def _directories(parent: Path) -> list[Path]:
    with os.scandir(parent) as entries:
        found = [
            entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
        ]
    return [parent / name for name in sorted(found)]
