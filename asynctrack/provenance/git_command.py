"""Git command: runs git so that a repository cannot run code, ask for anything or get at the network. Runs in the collecting process. Standard library only.

A repository may come from anyone, and its settings name programs: hooks, filters, drivers for diffs, transports. What only names commits runs none of
them, and has them switched off besides. What looks at files is run without the repository's settings: `GIT_COMMON_DIR` is a directory of this package.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

# Where git finds settings, references and attributes in place of the repository's own: it has none.
NO_SETTINGS: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "no_settings")
# Of these a command line takes the last word, before the repository's.
_SETTINGS: Final = (
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.pager=cat",
    "core.editor=false",
    "core.askPass=false",
    "core.sshCommand=false",
    "core.gitProxy=false",
    "core.alternateRefsCommand=false",
    "core.untrackedCache=false",
    "credential.helper=",
    "diff.external=",
    "gpg.program=false",
    "log.showSignature=false",
    "protocol.allow=never",
    "safe.bareRepository=explicit",
    "submodule.recurse=false",
    "gc.auto=0",
    "maintenance.auto=false",
)
_VARIABLES: Final = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ALLOW_PROTOCOL": "",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_SSH_COMMAND": "false",
    "GIT_ASKPASS": "false",
    "GIT_PAGER": "cat",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_LITERAL_PATHSPECS": "1",
    "LC_ALL": "C",
}
# These only keep git from looking for a repository too far up.
_KEPT: Final = ("GIT_CEILING_DIRECTORIES", "GIT_DISCOVERY_ACROSS_FILESYSTEM")
# What git says is taken in pieces of this size, and cut beyond so much.
_PIECE_BYTES: Final = 64 << 10
_MOST_BYTES: Final = 4 << 20


class Repository(NamedTuple):
    """Says where the parts of a repository are.

    Attributes:
        root: of its files.
        directory: of git, with the index.
        common: the same, or that which several work trees share.
        objects: where the content of commits is.
        foreign: whether it is another user's, by git's own rule.
    """

    root: str
    directory: str
    common: str
    objects: str
    foreign: bool


def find_program(name: str) -> str | None:
    """Find a program by its name. A path that depends on the current directory is none: what lies there may be anybody's."""
    for directory in os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(directory, name)
        if os.path.isabs(directory) and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


class Git:
    """Runs git.

    Args:
        program: its path.
        until: when it is to be done with everything, monotonic seconds.
    """

    def __init__(self, program: str, until: float) -> None:
        self._program = program
        self._until = until

    def find(self, directory: str) -> Repository | None:
        """Find the repository with a directory; None where there is none, or none with files."""
        asked = ("rev-parse", "--show-toplevel", "--absolute-git-dir", "--git-common-dir", "--git-path", "objects")
        said, foreign = self.ask(directory, *asked), False
        if said is None:
            said, foreign = self.ask(directory, *asked, settings=("safe.directory=*",)), True
        lines = [] if said is None else os.fsdecode(said).split("\n")
        if len(lines) != 5 or not all(lines[:4]):  # names with line breaks are not understood
            return None
        root, own, common, objects = (os.path.normpath(os.path.join(directory, line)) for line in lines[:4])
        return Repository(root, own, common, objects, foreign)

    def ask(
        self, directory: str, *arguments: str, settings: Sequence[str] = (), most_bytes: int = _MOST_BYTES
    ) -> bytes | None:
        """Return what git says of a repository; None where it fails, takes too long or says too much."""
        return self._ask([*_flags((*_SETTINGS, *settings)), "-C", directory, *arguments], _environment(), most_bytes)

    def look(self, repository: Repository, settings: Sequence[str], *arguments: str) -> bytes | None:
        """Return what git says of the files of a repository, without its settings; None as in `ask`."""
        command = [*_flags((*_SETTINGS, *settings)), "-C", repository.root, *arguments]
        return self._ask(command, _without_settings(repository), _MOST_BYTES)

    def stream(self, repository: Repository, settings: Sequence[str], *arguments: str) -> Iterator[bytes]:
        """Yield what git says of the files of a repository, without its settings, in pieces.

        Raises:
            OSError: it fails, or takes too long.
        """
        command = [*_flags((*_SETTINGS, *settings)), "-C", repository.root, *arguments]
        yield from self._stream(command, _without_settings(repository))

    def _ask(self, arguments: Sequence[str], environment: dict[str, str], most_bytes: int) -> bytes | None:
        said = bytearray()
        try:
            for piece in self._stream(arguments, environment):
                said += piece
                if len(said) > most_bytes:
                    return None
        except (OSError, ValueError):  # ValueError: a name with a null byte
            return None
        return bytes(said)

    def _stream(self, arguments: Sequence[str], environment: dict[str, str]) -> Iterator[bytes]:
        process = subprocess.Popen(
            [self._program, "--no-pager", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",
        )
        assert process.stdout is not None
        try:
            fd = process.stdout.fileno()
            while piece := self._read(fd):
                yield piece
            if process.wait(max(0.0, self._until - time.monotonic())) != 0:
                raise OSError(f"git has failed: {process.returncode}")
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(str(error)) from error
        finally:
            process.stdout.close()
            with contextlib.suppress(OSError):
                process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1.0)

    def _read(self, fd: int) -> bytes:
        left = self._until - time.monotonic()
        if left <= 0 or not select.select([fd], [], [], left)[0]:
            raise TimeoutError("git takes too long")
        return os.read(fd, _PIECE_BYTES)


def _flags(settings: Sequence[str]) -> Iterator[str]:
    for setting in settings:
        yield from ("-c", setting)


def _environment() -> dict[str, str]:
    """Return the environment for git: nothing of the caller's that concerns git, but for how far up it looks."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name in _KEPT}
    for name in ("PAGER", "SSH_ASKPASS"):
        kept.pop(name, None)
    return {**kept, **_VARIABLES}


def _without_settings(repository: Repository) -> dict[str, str]:
    return {
        **_environment(),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "HOME": NO_SETTINGS,  # older versions look there
        "XDG_CONFIG_HOME": NO_SETTINGS,
        "GIT_DIR": repository.directory,
        "GIT_COMMON_DIR": NO_SETTINGS,
        "GIT_OBJECT_DIRECTORY": repository.objects,
        "GIT_WORK_TREE": repository.root,
    }
