"""Hydra link: Hydra's output directory, from within the run's. Runs in the worker, on a thread.

While the run is open there is a link, `hydra`, to where Hydra keeps the job's config (`.hydra/`) and log. When it ends, a copy takes the link's place, so that the run's
directory stands for itself when it is moved; what is larger than `copy_bytes` stays a link. A copy is made beside the link and then renamed: whatever is
killed, there is the link or the whole copy. A run that goes on in another Hydra job has `hydra-2` for that.
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
# Config and log of a job are some kilobytes; checkpoints that lie beside them are not to be had twice. Arbitrary.
_COPY_BYTES: Final = 64 << 20
_MOST_WORDS: Final = 300
_NO_RECORDS: Final = "it takes no records"

_log = logging.getLogger("asynctrack.delivery")


class HydraLink(Backend, frozen=True, kw_only=True, tag="hydra_link"):
    """A link to Hydra's output directory; a copy of it when the run has ended.

    Attributes:
        hydra_dir: that directory. Default: that of the Hydra job that opens the run.
        copy_bytes: a larger one is not copied; 0 for never.
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
        """With the directory of the Hydra job that runs.

        Raises:
            InvalidSettings: there is none.
        """
        found = self.hydra_dir or _of_this_job()
        if found is None:
            raise InvalidSettings(
                ["HydraLink needs a Hydra job: open the run inside of @hydra.main, or give hydra_dir="]
            )
        return msgspec.structs.replace(self, hydra_dir=os.path.abspath(os.path.expanduser(found)))

    def external_targets(self) -> list[str]:
        return [self.hydra_dir or "the output directory of a Hydra job"]

    def open(self, context: Context) -> Sink:
        if self.hydra_dir is None:
            raise ActionRequired(
                "it was not told where Hydra's output is; open the run inside of @hydra.main, or give hydra_dir="
            )
        return _Link(context, Path(self.hydra_dir), self.copy_bytes)


class _Link(Sink):
    def __init__(self, context: Context, target: Path, copy_bytes: int) -> None:
        self._run = context.directory.absolute()
        self._target = target
        self._copy_bytes = copy_bytes
        # Which name stands for which directory: a copy does not say what it is of. Only names: the cursor may come from elsewhere.
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
            _log.warning("%s is gone: %s leads nowhere", self._target, self._path)
        elif (size := _size(self._target, self._ours())) > self._copy_bytes:
            _log.info("%s has %d bytes, more than copy_bytes: %s stays a link", self._target, size, self._path)
        else:
            self._copy()

    def _name(self) -> str:
        """The name of this directory in the run's: the one it has had, or the next that is free."""
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
        """Put a copy where the link is."""
        ours = self._ours()
        unfinished = self._run / _UNFINISHED
        shutil.rmtree(unfinished, ignore_errors=True)

        def left_out(folder: str, names: Iterable[str]) -> set[str]:
            paths = {name: os.path.join(folder, name) for name in names}
            return {name for name, path in paths.items() if _is_any(path, ours) or not _can_be_copied(path)}

        try:
            shutil.copytree(self._target, unfinished, symlinks=True, ignore=left_out)
        except shutil.Error as error:  # a file that cannot be read, or has gone: nobody waits for that
            _log.warning("%s cannot be copied, and stays a link: %s", self._target, str(error)[:_MOST_WORDS])
            return shutil.rmtree(unfinished, ignore_errors=True)
        self._path.unlink()
        unfinished.rename(self._path)

    def _ours(self) -> list[Path]:
        """Where runs are kept, if that is inside of Hydra's directory: a copy must not hold itself."""
        kept = [self._run, self._run.parent, self._run.parent.parent]
        target = self._target.resolve()
        return [path for path in kept if path.resolve() != target and path.resolve().is_relative_to(target)]


def _of_this_job() -> str | None:
    """The output directory of the Hydra job that runs in this process; None where there is none."""
    module = sys.modules.get("hydra.core.hydra_config")  # who runs under Hydra has imported it
    if module is None or not module.HydraConfig.initialized():
        return None
    return str(module.HydraConfig.get().runtime.output_dir)


def _size(target: Path, without: list[Path]) -> int:
    """Bytes of the files below a directory."""
    total = 0
    for folder, folders, files in os.walk(target):
        folders[:] = [name for name in folders if not _is_any(os.path.join(folder, name), without)]
        total += sum(os.lstat(os.path.join(folder, name)).st_size for name in files)
    return total


def _can_be_copied(path: str) -> bool:
    """Whether it is a file, a directory or a link: reading a pipe may take for ever."""
    return os.path.islink(path) or os.path.isfile(path) or os.path.isdir(path)


def _is_any(path: str, of: list[Path]) -> bool:
    return any(os.path.realpath(path) == os.path.realpath(one) for one in of)


def _leads_to(link: Path, target: Path) -> bool:
    return link.is_symlink() and os.readlink(link) == str(target)
