"""Artifact: files that belong to a run. Runs in the caller."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import msgspec

from asynctrack._system.suggestions import suggests
from asynctrack.errors import InvalidValue, InvalidValueType
from asynctrack.records.media_types import LoggedFile, Value, unicode
from asynctrack.records.values.files import logged_file, seal


class Artifact(Value):
    """Names files that belong to the run, such as a model. A delivery copies them, if they have not changed since they were added.

    Args:
        name: of the artifact; or, as a `pathlib.Path`, the file or folder that it consists of.
        type: of the artifact, for people: "model", "dataset", ...
        description: for people.
        metadata: names to values, for people.
        path: a file or a folder to begin with; `add_file` and `add_dir` add more.

    Raises:
        InvalidValue: there is no such file or folder.
    """

    @suggests
    def __init__(
        self,
        name: str | os.PathLike[str],
        type: str = "file",
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
    ) -> None:
        if isinstance(name, os.PathLike):
            path, name = name, os.path.basename(os.path.abspath(name))
        if not isinstance(name, str):
            raise InvalidValueType("Artifact", "a name or a path", f"{name!r:.80}")
        self.name = name
        self.type: str = str(type)
        self.description = description
        self.metadata: dict[str, Any] = dict(metadata or {})
        self._files: dict[str, LoggedFile] = {}
        self._seal = ""
        if path is not None and os.path.isdir(os.path.expanduser(path)):
            self.add_dir(path)
        elif path is not None:
            self.add_file(path)

    def __repr__(self) -> str:
        return f"<Artifact {self.name!r} of {len(self._files)} files>"

    @suggests
    def add_file(self, local_path: str | os.PathLike[str], name: str | None = None) -> None:
        """Add a file.

        Args:
            local_path: of the file.
            name: in the artifact. Default: that of the file.

        Raises:
            InvalidValue: there is no such file.
        """
        path = os.fspath(local_path)
        self._add({name or os.path.basename(path): path})

    @suggests
    def add_dir(self, local_path: str | os.PathLike[str], name: str | None = None) -> None:
        """Add all files below a folder.

        Args:
            local_path: of the folder.
            name: of the folder in the artifact. Default: its files stand at the top.

        Raises:
            InvalidValue: there is no such folder.
        """
        root = os.path.expanduser(os.fspath(local_path))
        if not os.path.isdir(root):
            raise InvalidValue("Artifact", "the path of a folder that exists", repr(root))
        paths = (os.path.join(folder, file) for folder, _, files in os.walk(root) for file in files)
        self._add({
            os.path.join(name or "", os.path.relpath(path, root)): path for path in paths if os.path.isfile(path)
        })  # fmt: skip

    def wire(self) -> list[Any]:
        more = {"description": self.description, "metadata": self.metadata}
        meta = {"name": self.name, "type": self.type, **{key: value for key, value in more.items() if value}}
        return ["artifact", "", meta, None, list(self._files.values()), self._seal]

    def _add(self, paths: Mapping[str, str]) -> None:
        """Add files by their names, in that order, and seal them all."""
        for name, path in paths.items():
            inside = _inside(unicode(name))
            self._files[inside] = msgspec.structs.replace(logged_file("Artifact", path), name=inside)
        self._files = dict(sorted(self._files.items()))
        self._seal = seal(list(self._files.values()))


def _inside(name: str) -> str:
    """Return the name of a file in an artifact.

    Raises:
        InvalidValue: it leads out of the artifact.
    """
    path = os.path.normpath(name)
    if os.path.isabs(path) or path.split(os.sep)[0] in ("..", ".", ""):
        raise InvalidValue("Artifact", "names below the artifact", repr(name))
    return path
