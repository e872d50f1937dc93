"""Tokens: which host may write to which projects, as a file says: `TOKEN PROJECT-GLOB` a line. Runs in a collector.

The file is read again when it has changed. One that cannot be used then lets nobody in, and hosts try again: who has removed a token has removed it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, NamedTuple

from asynctrack.carriers.wire import TOKEN_SCHEME
from asynctrack.errors import InvalidSettings
from asynctrack.merging.server.refused import Refused

# Of characters: 16 of base64 are 96 bits. Arbitrary.
_SHORTEST: Final = 16
_TOKEN: Final = re.compile(r"[!-~]+", re.ASCII)
# More lines than any file of tokens has. Arbitrary.
_LONGEST: Final = 16 << 20


class _TokenLine(NamedTuple):
    digest: bytes
    projects: str


class TokenFile:
    """A file of tokens.

    Args:
        path: of the file.

    Raises:
        InvalidSettings: it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._signs: tuple[int, ...] = ()
        self._lines: list[_TokenLine] = []
        self.problem: str | None = None
        self._look()
        if self.problem is not None:
            raise InvalidSettings([self.problem])

    def __repr__(self) -> str:
        return f"<TokenFile {self._path}, {len(self._lines)} lines>"

    def check(self, header: str | None, project: str) -> None:
        """See that a request may write to a project.

        Args:
            header: `Authorization` of the request.
            project: the name of the project's directory.

        Raises:
            Refused: it may not, or nobody may while the file cannot be used.
        """
        self._look()
        if self.problem is not None:
            raise Refused("not_now", "the collector's file of tokens cannot be used; the collector says why")
        scheme, _, token = (header or "").strip().partition(" ")
        if not header or scheme.lower() != TOKEN_SCHEME.lower() or not token.strip():
            raise Refused("no_token", "the collector expects a token")
        digest = _digest(token.strip())
        # Each line is compared, and each takes as long: the time tells nothing of a token.
        mine = [line.projects for line in self._lines if hmac.compare_digest(line.digest, digest)]
        if not mine:
            raise Refused("wrong_token", "the collector does not know this token")
        if not any(fnmatchcase(project, pattern) for pattern in mine):
            raise Refused("not_your_project", f"this token may not write to project {project!r}")

    def _look(self) -> None:
        """Read the file, if it is another than before."""
        try:
            found = os.stat(self._path)
            signs = (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_mode, found.st_uid)
            if signs != self._signs:
                self._signs, self.problem, self._lines = signs, None, []
                self._lines = _read(self._path)
        except OSError as error:
            self._signs, self._lines = (), []
            self.problem = f"the tokens cannot be read: {error}"
        except ValueError as error:
            self.problem = str(error)


def _read(path: Path) -> list[_TokenLine]:
    """Read the lines.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not this user's alone, or a line is none.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{path} is not a file of tokens")
        if found.st_mode & 0o077 or found.st_uid not in (os.geteuid(), 0):
            raise ValueError(f"others may read or write the tokens in {path}: chmod 600 {path}, as its owner")
        text = file.read(_LONGEST).decode("utf-8", "replace")
    lines = [
        (at, line) for at, line in enumerate(text.splitlines(), 1) if line.strip() and not line.lstrip().startswith("#")
    ]
    return [_parse(path, at, line) for at, line in lines]


def _parse(path: Path, at: int, line: str) -> _TokenLine:
    """Return what a line says. The message of an error has nothing of it."""
    token, _, projects = line.strip().partition(" ")
    if not _TOKEN.fullmatch(token) or not projects.strip():
        raise ValueError(f"line {at} of {path}: expected TOKEN PROJECT-GLOB, such as `SECRET demo*`")
    if len(token) < _SHORTEST:
        raise ValueError(
            f"line {at} of {path}: expected a token of at least {_SHORTEST} characters; `openssl rand -hex 32` makes one"
        )
    return _TokenLine(_digest(token), projects.strip())


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
