"""Collecting: where this host's part of a run lies that is merged with those of other hosts, and which backends that has. Runs in the caller."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from asynctrack._system.paths import expanded
from asynctrack._system.sizes import bytes_in
from asynctrack.backends.base import Backend, kind_of
from asynctrack.backends.collector import FILE_BYTES, Collector
from asynctrack.backends.nats_address import EXAMPLE, collector_problems
from asynctrack.backends.part_files import PartFiles
from asynctrack.backends.registry import execution_of
from asynctrack.carriers.parts import host_name, part_name
from asynctrack.errors import DirectoryNotWritable, InvalidSettings

# Read, and never written.
VARIABLE: Final = "ASYNCTRACK_COLLECT"
# Of files that are sent. Read, and never written.
FILE_BYTES_VARIABLE: Final = "ASYNCTRACK_COLLECT_FILE_BYTES"
_WHAT: Final = f"collect, or {VARIABLE} in the environment,"
# An address of which a part was forgotten: taken for a path it would make a folder of that name, and nothing would be sent.
_HOST_AND_PORT: Final = re.compile(r"([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}/?", re.ASCII)
_SCHEME: Final = re.compile(r"(https?|nats|tls):(.*)", re.ASCII | re.IGNORECASE | re.DOTALL)


class Collecting(NamedTuple):
    """Says where this host's part goes.

    Attributes:
        target: the folder that all hosts share, or the server that collects.
        host: the name of this host.
        delivery: what the part has for who merges it: the way to the server, or the files that records name by path.
    """

    target: Path | Collector
    host: str
    delivery: Collector | PartFiles

    def place(self, directory: Path, project: str, run: str) -> Path:
        """Return the directory of this host's part of a run.

        Args:
            directory: of all projects, where a server collects.
            project: the name of the project's directory.
            run: the id of the run.
        """
        folder = directory if isinstance(self.target, Collector) else self.target
        return folder / project / part_name(run, self.host)

    @property
    def by_server(self) -> bool:
        """Return whether a server collects, which delivers to backends of its own."""
        return isinstance(self.target, Collector)

    def split(self, named: Mapping[str, Backend]) -> tuple[dict[str, Backend], dict[str, Backend]]:
        """Part backends into those of this host's part, which live in this process or on its terminal, or are for who merges it, and those of the merged run."""
        here = {
            name: backend
            for name, backend in named.items()
            if execution_of(backend) == "caller" or kind_of(backend) == "console"
        }
        merged = {name: backend for name, backend in named.items() if name not in here}
        here[kind_of(self.delivery)] = self.delivery
        return here, merged


def collecting(given: str | os.PathLike[str]) -> Collecting:
    """Check where this host's part of a run is to go.

    Args:
        given: the folder, or the address of a server, as `init` was given it or the environment says it.

    Raises:
        InvalidSettings: it is neither, or the host has no name.
        DirectoryNotWritable: it is relative, and the current directory has been removed.
    """
    if isinstance(given, str) and "://" in given:
        if problems := collector_problems(_WHAT, given):
            raise InvalidSettings(problems)
        server = Collector(url=given.rstrip("/"), file_bytes=_file_bytes())
        return Collecting(server, host_name(), server)
    if not isinstance(given, str | os.PathLike) or not os.fspath(given).strip() or _meant_as_address(given):
        raise InvalidSettings(
            [
                f"{_WHAT} must be the path of a folder that all hosts share, or the address of a server such as 'http://node-1:4380' or {EXAMPLE!r}; "
                f"got {given!r:.80}{_meant_as_address(given)}"
            ]
        )
    folder = expanded(given)
    try:
        return Collecting(folder.absolute(), host_name(), PartFiles(file_bytes=_file_bytes()))
    except FileNotFoundError as error:  # the current directory has been removed
        raise DirectoryNotWritable(folder, error) from error


def _meant_as_address(given: object) -> str:
    """Return what to write in place of an address of which a part is missing; empty where it is none."""
    if not isinstance(given, str):
        return ""
    if (found := _SCHEME.fullmatch(given)) is not None:
        return f": did you mean '{found[1].lower()}://{found[2].lstrip('/')}'?"
    if _HOST_AND_PORT.fullmatch(given):
        return f": did you mean 'http://{given}'? A folder of that name is './{given}'"
    return ""


def _file_bytes() -> int:
    """Return how large a file may be that is sent.

    Raises:
        InvalidSettings: what the environment says is no size.
    """
    given = os.environ.get(FILE_BYTES_VARIABLE, "")
    found = bytes_in(given) if given else FILE_BYTES
    if found is None:
        raise InvalidSettings(
            [f"{FILE_BYTES_VARIABLE} in the environment must be a number of bytes, such as 64M; got {given!r:.80}"]
        )
    return found
