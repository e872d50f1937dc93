"""Hydra link: make Hydra's output directory reachable from the run's. Runs in the worker, on a thread.

While the run is open there is a link, `hydra`, to the directory where Hydra keeps the job's config (`.hydra/`) and log.
When the run ends, a copy takes the link's place, so that the run's directory is complete when it is moved. A directory
larger than `copy_bytes` stays a link. The copy is made beside the link and then renamed: whatever is killed, there is
the link or the whole copy. A run that goes on in another Hydra job has `hydra-2` for that.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Final

import msgspec

from asynctrack.backends.base import ActionRequired, Backend, Batch, Context, Execution, Outcome, Sink
from asynctrack.errors import InvalidSettings

_NAME: Final = "hydra"
_UNFINISHED: Final = ".hydra.new"
# Config and log of a job are some kilobytes; checkpoints beside them should not be stored twice. Arbitrary.
_COPY_BYTES: Final = 64 << 20
_MOST_WORDS: Final = 300
_NO_RECORDS: Final = "it takes no records"

_log = logging.getLogger("asynctrack.delivery")


class HydraLink(Backend, frozen=True, kw_only=True, tag="hydra_link"):
    """Links to Hydra's output directory, and copies it when the run has ended.

    Attributes:
        hydra_dir: that directory. Default: that of the Hydra job that opens the run.
        copy_bytes: a directory with more bytes is not copied; 0 for never.
    """

    execution: ClassVar[Execution] = "worker"

    hydra_dir: str | None = None
    copy_bytes: int = _COPY_BYTES

    def __post_init__(self) -> None:
        where: object = self.hydra_dir
        if isinstance(where, os.PathLike):
            msgspec.structs.force_setattr(self, "hydra_dir", os.fspath(where))
        problems = []
        if self.hydra_dir is not None and not (isinstance(self.hydra_dir, str) and self.hydra_dir):
            problems.append(f"hydra_dir must be a path or None; got {self.hydra_dir!r:.80}")
        if not isinstance(self.copy_bytes, int) or isinstance(self.copy_bytes, bool) or self.copy_bytes < 0:
            problems.append(f"copy_bytes must be a number of bytes, 0 for no copy; got {self.copy_bytes!r:.80}")
        if problems:
            raise InvalidSettings(problems)
        super().__post_init__()

    def prepare(self) -> HydraLink:
        """Fill in the directory of the Hydra job that runs.

        Raises:
            InvalidSettings: no Hydra job runs, and `hydra_dir` is not set.
        """
        found = self.hydra_dir or _of_this_job()
        if found is None:
            raise InvalidSettings(
                ["HydraLink needs a Hydra job: open the run inside of @hydra.main, or give hydra_dir="]
            )
        return msgspec.structs.replace(self, hydra_dir=os.path.abspath(os.path.expanduser(found)))

    def external_targets(self) -> list[str]:
        """List Hydra's output directory."""
        return [self.hydra_dir or "the output directory of a Hydra job"]

    def open(self, context: Context) -> Sink:
        """Make the link in the run's directory.

        Raises:
            ActionRequired: Hydra's output directory is not known.
        """
        if self.hydra_dir is None:
            raise ActionRequired(
                "Hydra's output directory is not known; open the run inside of @hydra.main, or give hydra_dir="
            )
        return _Link(context, Path(self.hydra_dir), self.copy_bytes)


class _Link(Sink):
    def __init__(self, context: Context, target: Path, copy_bytes: int) -> None:
        self._run = context.directory.absolute()
        self._target = target
        self._copy_bytes = copy_bytes
        # The directory of each name, since a copy does not tell. Only base names: the cursor may come from somebody else.
        known = (context.state or {}).get("names", {})
        self._names: dict[str, str] = {os.path.basename(name): of for name, of in known.items()}
        self._path = self._run / self._name()
        if not os.path.lexists(self._path):
            self._path.symlink_to(target)

    def write(self, batch: Batch) -> dict[str, int]:
        return {_NO_RECORDS: len(batch.records)} if batch.records else {}

    def checkpoint(self) -> dict[str, Any]:
        return {"names": dict(self._names)}

    def close(self, outcome: Outcome) -> None:
        if outcome == "stopped" or not self._copy_bytes or not self._path.is_symlink():
            return
        if not self._target.is_dir():
            _log.warning("%s is gone, so %s is a broken link", self._target, self._path)
        elif (size := _size(self._target, self._ours())) > self._copy_bytes:
            _log.info("%s has %d bytes, more than copy_bytes: %s stays a link", self._target, size, self._path)
        else:
            self._copy()

    def _name(self) -> str:
        """Return this directory's name in the run's: its earlier name, or the next one that is free."""
        for name, target in self._names.items():
            if target == str(self._target):
                return name
        number = 1
        while os.path.lexists(self._run / (name := _NAME if number == 1 else f"{_NAME}-{number}")):
            if _leads_to(self._run / name, self._target):
                break
            number += 1
        self._names[name] = str(self._target)
        return name

    def _copy(self) -> None:
        """Replace the link by a copy."""
        ours = self._ours()
        unfinished = self._run / _UNFINISHED
        shutil.rmtree(unfinished, ignore_errors=True)

        def left_out(folder: str, names: Iterable[str]) -> set[str]:
            paths = {name: os.path.join(folder, name) for name in names}
            return {name for name, path in paths.items() if _is_any(path, ours) or not _can_be_copied(path)}

        try:
            shutil.copytree(self._target, unfinished, symlinks=True, ignore=left_out)
        except shutil.Error as error:  # a file cannot be read, or has gone: the link is good enough
            _log.warning(
                "%s cannot be copied, so %s stays a link: %s", self._target, self._path, str(error)[:_MOST_WORDS]
            )
            return shutil.rmtree(unfinished, ignore_errors=True)
        self._path.unlink()
        unfinished.rename(self._path)

    def _ours(self) -> list[Path]:
        """List the directories of runs that lie inside of Hydra's directory: a copy must not hold itself."""
        kept = [self._run, self._run.parent, self._run.parent.parent]
        target = self._target.resolve()
        return [path for path in kept if path.resolve() != target and path.resolve().is_relative_to(target)]


def _of_this_job() -> str | None:
    """Return the output directory of the Hydra job that runs in this process; None where none runs."""
    module = sys.modules.get("hydra.core.hydra_config")  # any process that runs under Hydra has imported it
    if module is None or not module.HydraConfig.initialized():
        return None
    return str(module.HydraConfig.get().runtime.output_dir)


def _size(target: Path, without: list[Path]) -> int:
    """Sum up the bytes of the files below a directory."""
    total = 0
    for folder, folders, files in os.walk(target):
        folders[:] = [name for name in folders if not _is_any(os.path.join(folder, name), without)]
        total += sum(os.lstat(os.path.join(folder, name)).st_size for name in files)
    return total


def _can_be_copied(path: str) -> bool:
    """Return whether a path is a file, a directory or a link: reading a pipe may take for ever."""
    return os.path.islink(path) or os.path.isfile(path) or os.path.isdir(path)


def _is_any(path: str, of: list[Path]) -> bool:
    return any(os.path.realpath(path) == os.path.realpath(one) for one in of)


def _leads_to(link: Path, target: Path) -> bool:
    return link.is_symlink() and os.readlink(link) == str(target)
