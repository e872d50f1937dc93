"""Artifacts: W&B's names for them, and a search for one that a run of the project has kept."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

import asynctrack
from asynctrack.errors import AsynctrackError
from asynctrack.wandb.errors import CommError
from asynctrack.wandb.notices import warn_unsupported

# A run keeps one artifact of each name, so versions are not counted.
VERSION: Final = "v0"
# Begins an artifact's folder in a run's directory, and its key in the summary.
_PREFIX: Final = "artifacts/"


class Artifact(asynctrack.Artifact):
    """Takes W&B's arguments for an `asynctrack.Artifact`. A run keeps one artifact of each name.

    Args:
        name: of the artifact.
        type: such as "dataset" or "model".
        description: for people.
        metadata: as JSON can hold it.
        path: of a file or a folder to add.
        others: W&B's other arguments, which are ignored with a warning.
    """

    def __init__(
        self,
        name: str | os.PathLike[str],
        type: str = "file",
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
        **others: Any,
    ) -> None:
        warn_unsupported("Artifact", others)
        self._folder: str | None = None
        super().__init__(name, type, description, metadata, path=path)

    @property
    def version(self) -> str:
        """Return "v0", for versions are not counted."""
        return VERSION

    @property
    def aliases(self) -> list[str]:
        """Return its aliases."""
        return list(self.metadata.get("aliases", ()))

    @property
    def qualified_name(self) -> str:
        """Return the name and the version, with a colon between."""
        return f"{self.name}:{VERSION}"

    def add_file(self, local_path: str | os.PathLike[str], name: str | None = None, **others: Any) -> None:
        """Add a file; see `asynctrack.Artifact.add_file`.

        Args:
            local_path: of the file.
            name: in the artifact. Default: that of the file.
            others: ignored.

        Raises:
            InvalidValue: there is no such file.
        """
        super().add_file(local_path, name)

    def add_dir(self, local_path: str | os.PathLike[str], name: str | None = None, **others: Any) -> None:
        """Add all files below a folder; see `asynctrack.Artifact.add_dir`.

        Args:
            local_path: of the folder.
            name: of the folder in the artifact. Default: none of its own.
            others: ignored.

        Raises:
            InvalidValue: there is no such folder.
        """
        super().add_dir(local_path, name)

    def add(self, obj: Any, name: str, **others: Any) -> None:
        """Add a table, as JSON.

        Args:
            obj: the table.
            name: in the artifact; ".table.json" follows it.
            others: ignored.

        Raises:
            InvalidValueType: it is no table.
        """
        if not isinstance(obj, asynctrack.Table):
            raise asynctrack.errors.InvalidValueType("Artifact.add", "a Table", f"{type(obj).__name__}")
        with self.new_file(f"{name}.table.json") as file:
            json.dump({"columns": obj.columns, "data": obj.data}, file, default=str)

    @contextlib.contextmanager
    def new_file(self, name: str, mode: str = "w", encoding: str | None = None) -> Iterator[IO[Any]]:
        """Open a file to write into; it is added when it is closed.

        The file stays in the temporary folder: a worker that outlives this process may still copy it.

        Args:
            name: in the artifact.
            mode: as in `open`.
            encoding: as in `open`.

        Yields:
            The open file.
        """
        self._folder = self._folder or tempfile.mkdtemp(prefix="asynctrack-artifact-")
        path = Path(self._folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, mode, encoding=encoding) as file:
            yield file
        super().add_file(path, name)

    def add_reference(self, uri: str, name: str | None = None, **others: Any) -> None:
        """Note an address in the metadata; nothing is copied.

        Args:
            uri: the address.
            name: of the reference. Default: the last part of the address.
            others: ignored.
        """
        self.metadata.setdefault("references", {})[name or os.path.basename(str(uri))] = str(uri)

    def wait(self, timeout: float | None = None) -> Artifact:
        """Return at once: nothing is sent that could be waited for.

        Args:
            timeout: ignored.

        Returns:
            The artifact itself.
        """
        return self

    def download(self, root: str | os.PathLike[str] | None = None, **others: Any) -> str:
        """Copy its files into a folder.

        Args:
            root: the folder. Default: `artifacts/NAME:v0`.
            others: ignored.

        Returns:
            The folder.
        """
        folder = Path(root or os.path.join("artifacts", self.qualified_name))
        for file in self._files.values():
            target = folder / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.place, target)
        return str(folder)


def find(name: str, runs: Path) -> Artifact:
    """Find the artifact of a name that a run of the project has kept, the latest where there are several.

    Args:
        name: "NAME" or "NAME:latest"; any part up to a slash is left out.
        runs: folder of the project's runs.

    Raises:
        CommError: no run has kept one of that name.
    """
    bare = name.rpartition("/")[2].partition(":")[0]
    for run in sorted(runs.iterdir(), key=_time_of, reverse=True) if runs.is_dir() else ():
        with contextlib.suppress(AsynctrackError, OSError, LookupError):
            kept = asynctrack.open_run(run).summary[_PREFIX + bare]
            return _restored(bare, kept, run)
    raise CommError(f"no run of {runs} has kept an artifact {bare!r}; those of W&B's servers are fetched by wandb.Api")


def _restored(name: str, kept: Any, run: Path) -> Artifact:
    fields = kept if isinstance(kept, Mapping) else kept.reference()
    metadata = fields.get("metadata") or {}
    found = Artifact(name, str(fields.get("type", "file")), fields.get("description"), metadata)
    found.add_dir(run / fields["path"])
    return found


def _time_of(run: Path) -> float:
    try:
        return run.stat().st_mtime
    except OSError:
        return 0.0


class Nothing:
    """Stands for an artifact, in a run that records nothing: it has every name, and every call does nothing."""

    def __getattr__(self, name: str) -> Nothing:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: object, **kwargs: object) -> Nothing:
        return self


def names(given: Sequence[str] | str | None) -> list[str] | None:
    """Return aliases or tags as a list; a single one may be given as a text."""
    return [given] if isinstance(given, str) else None if given is None else list(given)
