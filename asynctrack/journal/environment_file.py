"""Environment file: where a run comes from, `environment.json`, as its readers get it. Runs anywhere.

A process of low priority writes it beside the journal, up to ten seconds after a run has begun: nothing waits for it, and a run may have none.
`uncommitted.diff` beside it has what git had not committed.
"""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from asynctrack.errors import UnsafeFile
from asynctrack.journal import safe_read
from asynctrack.provenance import run_place

VERSION: Final = 1
FILE_NAME: Final = run_place.NAME
DIFF_NAME: Final = run_place.DIFF

_EARLIER: Final = re.compile(r"environment\.[1-9][0-9]?\.json")
_Kind = TypeVar("_Kind", bound=msgspec.Struct)
_fields: Final = functools.cache(msgspec.structs.fields)  # it takes a millisecond


class GitState(msgspec.Struct, frozen=True, kw_only=True):
    """The repository that a program ran in.

    Attributes:
        root: its directory.
        commit: the hash of the commit that was checked out; None where there is none yet.
        branch: its name; None where none was checked out.
        remote: the address of `origin`, or of the only other, without user and password.
        dirty: whether files differed from the commit, of those that git knows: new ones count from `git add` on. None where git did not say in time, or
            the repository is another user's.
        diff_bytes: how long `uncommitted.diff` is; None where there is none.
        diff_cut: whether that has not all of the changes: they are not of texts, or too many, or git took too long.
        diff_masked: whether secrets were masked in it: git does not apply changes beside them.
        left_out: the files whose changes it has not, the first hundred.
    """

    root: str | None = None
    commit: str | None = None
    branch: str | None = None
    remote: str | None = None
    dirty: bool | None = None
    diff_bytes: int | None = None
    diff_cut: bool = False
    diff_masked: bool = False
    left_out: list[str] = []


class Cpu(msgspec.Struct, frozen=True, kw_only=True):
    """The processor of a machine.

    Attributes:
        model: its name.
        count: how many of its cores the program may use.
    """

    model: str | None = None
    count: int | None = None


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """A graphics processor.

    Attributes:
        name: its model.
        memory_bytes: its size.
    """

    name: str | None = None
    memory_bytes: int | None = None


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `environment.json`: where a run comes from. What is not known is None.

    Attributes:
        version: of this format.
        opened_at: when the run was opened that this is of, for the first time or again; UTC, ISO 8601.
        collected_at: when this was found out.
        git: the repository; None where the program ran in none, or git is not installed.
        script: the file that was run, or `-m` and the name of a module.
        arguments: of the program, without the secrets that can be told.
        directory: in which it ran.
        host: the machine's name.
        user: the name of the user.
        python: its version.
        implementation: of Python: "CPython".
        executable: the interpreter.
        platform: the operating system.
        packages: the version of each installed package.
        cpu: the processor.
        memory_bytes: of the machine, or what the container may have of it.
        gpus: one for each.
        gpu_driver: its version.
        scheduler: variables in which schedulers say what the job is.
    """

    version: int = VERSION
    opened_at: str | None = None
    collected_at: str | None = None
    git: GitState | None = None
    script: str | None = None
    arguments: list[str] | None = None
    directory: str | None = None
    host: str | None = None
    user: str | None = None
    python: str | None = None
    implementation: str | None = None
    executable: str | None = None
    platform: str | None = None
    packages: dict[str, str] | None = None
    cpu: Cpu | None = None
    memory_bytes: int | None = None
    gpus: list[Gpu] | None = None
    gpu_driver: str | None = None
    scheduler: dict[str, str] | None = None


def load(run: str | os.PathLike[str], name: str = FILE_NAME) -> Environment | None:
    """Read where a run comes from; None where it does not say, or what is there cannot be read. Of what is damaged, the rest counts."""
    try:
        said = msgspec.json.decode(safe_read.read(Path(run) / name))
    except (OSError, UnsafeFile, ValueError, RecursionError):
        return None
    return _convert(said, Environment) if isinstance(said, dict) else None


def load_earlier(run: str | os.PathLike[str]) -> list[Environment]:
    """Read where earlier sessions of a run came from that was resumed, the first one first: those that differ from the session after them."""
    try:
        names = [name for entry in os.scandir(run) if _EARLIER.fullmatch(name := entry.name)]
    except OSError:
        return []
    numbers = sorted(int(name.split(".")[1]) for name in names)
    found = (load(run, f"environment.{number}.json") for number in numbers)
    return [environment for environment in found if environment is not None]


def _convert(said: dict[str, Any], to: type[_Kind]) -> _Kind:
    """Take over the fields whose values are of their type."""
    fields: dict[str, Any] = {}
    for field in _fields(to):
        value = said.get(field.encode_name)
        try:
            if field.name == "git" and isinstance(value, dict):
                fields[field.name] = _convert(value, GitState)
            elif value is not None:
                fields[field.name] = msgspec.convert(value, field.type)
        except (ValueError, RecursionError):
            continue
    return to(**fields)
