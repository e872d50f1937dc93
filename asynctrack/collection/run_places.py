"""Run places: where the runs below a directory are, the newest first, without a look at those that are known. Runs anywhere."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from asynctrack.collection.run_index import RunIndex
from asynctrack.reading import catalog


class RunPlace(NamedTuple):
    """The directory of a run.

    Attributes:
        path: of it.
        found_by: the index of the directory that holds it.
    """

    path: str
    found_by: RunIndex


class RunPlaces:
    """The runs below a directory: of projects, of one project, or of the run itself.

    Args:
        directory: to look in.
        projects: leaves out the runs of others; they are names of directories.
        cache: whether what was found out is kept in the user's cache, and found there.
        indexes: those of earlier looks, by the paths of directories; what is new is added.

    Attributes:
        unreadable: runs and projects that this user may not read.
        searched: the directories whose entries were looked at.
    """

    def __init__(
        self,
        directory: Path,
        projects: set[str] | None = None,
        *,
        cache: bool = True,
        indexes: dict[str, RunIndex] | None = None,
    ) -> None:
        self.unreadable = 0
        self.searched: list[str] = []
        self._has_cache = cache
        self._projects = projects
        self._indexes: dict[str, RunIndex] = {} if indexes is None else indexes
        self._known: list[tuple[str, str, str]] = []  # when they were created, the names and the paths
        self._others: list[Path] = []
        self._look_below(os.fspath(directory), 2)

    def newest_first(self) -> Iterator[RunPlace]:
        """Yield the runs by the time they were created, the newest first. Of those that are not known, only as many are read as the caller takes."""
        known = iter(sorted(self._known, reverse=True))
        others = ((created_at, run.name, str(run)) for created_at, run in catalog.newest_first_with_times(self._others))
        for _, _, path in heapq.merge(known, others, reverse=True):
            yield RunPlace(path, self._index_of(os.path.dirname(path)))

    def save(self) -> None:
        """Put what was found out about the runs into the user's cache."""
        for index in self._indexes.values():
            index.save()

    def _look_below(self, path: str, levels: int) -> None:
        if catalog.is_run(path):
            self._add(path)
        elif levels:
            self._look_in(path, levels)

    def _look_in(self, path: str, levels: int) -> None:
        """Take the runs in a directory, and those in the directories there."""
        self.searched.append(path)
        try:
            entries = catalog.directories_in(path)
        except OSError:  # its disk fails: the reader of the run reports it
            self._add(path)
            return
        index = self._index_of(path)
        for entry in entries:
            created_at = index.created_at(entry.path, entry.inode())
            if created_at is not None:
                if self._is_wanted(entry.path):
                    self._known.append((created_at, entry.name, entry.path))
            elif catalog.is_run(entry.path):
                self._add(entry.path)
            elif not catalog.may_read(entry.path):
                self.unreadable += 1
            elif levels > 1:
                self._look_in(entry.path, levels - 1)
        index.keep_only({entry.name for entry in entries})

    def _add(self, path: str) -> None:
        if self._is_wanted(path):
            self._others.append(Path(path))

    def _is_wanted(self, path: str) -> bool:
        return self._projects is None or os.path.basename(os.path.dirname(os.path.abspath(path))) in self._projects

    def _index_of(self, directory: str) -> RunIndex:
        if directory not in self._indexes:
            self._indexes[directory] = RunIndex(directory, cache=self._has_cache)
        return self._indexes[directory]
