"""Uncommitted: which files of a repository differ from the commit, and a patch with the differences. Runs in the collecting process. Standard library only.

The patch is one that `git apply` takes. Left out, each as a whole and by its name, is what does not fit, what is not text, what passes a filter of the
repository's (which is not run), and the commits of submodules. Secrets are masked as in messages.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from typing import Final

from asynctrack._system.masking import mask_text
from asynctrack.provenance.git_command import Git, Repository

# How long the patch may be.
MOST_BYTES: Final = 1 << 20
# A file that is larger than all that is kept is not compared: git would have it in memory.
_LARGEST_FILE: Final = MOST_BYTES
# How many files are compared: their names are arguments of one command, which may have 128 KiB each and 2 MiB in all.
_MOST_FILES: Final = 2000
_MOST_NAMES_BYTES: Final = 512 << 10
# How many names of files that were left out are kept. Arbitrary.
_MOST_LEFT_OUT: Final = 100
# What is there before the first commit, for git.
_EMPTY_TREE: Final = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
_SUBMODULE: Final = "160000"
# A line of a secret of several lines is one of its own from this length on. Arbitrary.
_SHORTEST_LINE: Final = 16
_COMPARE: Final = (
    "diff", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--ignore-submodules=dirty", "--submodule=short",
)  # fmt: skip
_UNMERGED: Final = b"* Unmerged path "
_BEGIN: Final = b"diff --git "
_CUT: Final = b"# asynctrack: the patch is cut; environment.json names the files that were left out\n"


class Changes:
    """Holds what was not committed.

    Attributes:
        dirty: whether a file differs; None where that is not known.
        patch: the differences; empty where there are none, or they are not wanted.
        left_out: the names of files whose differences the patch does not have, the first of them.
        cut: whether there are such.
        masked: whether secrets were masked in the patch.
    """

    def __init__(self) -> None:
        self.dirty: bool | None = None
        self.patch = b""
        self.left_out: list[str] = []
        self.cut = False
        self.masked = False

    def leave_out(self, name: str) -> None:
        """Note that a file's differences are not in the patch."""
        self.cut = True
        if len(self.left_out) < _MOST_LEFT_OUT and name not in self.left_out:
            self.left_out.append(name)


def find_changes(
    git: Git, repository: Repository, commit: str | None, settings: Sequence[str], *, diff: bool
) -> Changes:
    """Find out which files differ from a commit, and how; as far as there is time.

    Args:
        git: runs it.
        repository: whose files are compared.
        commit: with which; None where there is none yet.
        settings: for git, in place of the repository's.
        diff: whether the differences are wanted, too.
    """
    changes, base = Changes(), commit or _EMPTY_TREE
    said = git.look(repository, settings, *_COMPARE, "--raw", "-z", "--no-abbrev", base)
    if said is None:
        return changes
    listed = list(dict.fromkeys(_listed(said)))
    names = [name for _, name in listed if name]
    if len(names) > _MOST_FILES:
        names, changes.cut = names[:_MOST_FILES], True
    filtered = _filtered(git, repository, settings, names)
    # Whether a file that passes a filter differs is not known, where that is not run.
    changes.dirty = True if len(listed) > len(filtered) else None if listed else False
    if diff:
        submodules = {name for kind, name in listed if kind == "submodule"}
        compared = []
        for name in names:
            if name in filtered or name in submodules or _is_too_much(repository, name):
                changes.leave_out(name)
            else:
                compared.append(name)
        _make_patch(git, repository, base, settings, compared, changes)
    return changes


def _listed(said: bytes) -> Iterator[tuple[str, str]]:
    """Yield the kind and the name of each file that differs, as `git diff --raw -z` lists them."""
    fields = said.split(b"\0")
    for about, name in zip(fields[::2], fields[1::2], strict=False):
        modes = about.decode("ascii", "replace").lstrip(":").split(" ")[:2]
        yield "submodule" if _SUBMODULE in modes else "file", os.fsdecode(name)


def _filtered(git: Git, repository: Repository, settings: Sequence[str], names: Sequence[str]) -> set[str]:
    """Return the files that pass a filter on their way into a commit."""
    found = set()
    for some in _few(names):
        said = git.look(repository, settings, "check-attr", "-z", "filter", "--", *some) or b""
        fields = os.fsdecode(said).split("\0")
        for name, value in zip(fields[::3], fields[2::3], strict=False):
            if value not in ("unspecified", "unset"):
                found.add(name)
    return found


def _few(names: Sequence[str]) -> Iterator[list[str]]:
    """Yield names in groups that fit a command."""
    group: list[str] = []
    size = 0
    for name in names:
        length = len(os.fsencode(name)) + 1
        if group and size + length > _MOST_NAMES_BYTES:
            yield group
            group, size = [], 0
        group.append(name)
        size += length
    if group:
        yield group


def _is_too_much(repository: Repository, name: str) -> bool:
    """Return whether a file is too large for git to compare, or no file: at a pipe git fails for all."""
    try:
        found = os.lstat(os.path.join(repository.root, name))
    except (OSError, ValueError):
        return False
    if stat.S_ISREG(found.st_mode):
        return found.st_size > _LARGEST_FILE
    return not (stat.S_ISLNK(found.st_mode) or stat.S_ISDIR(found.st_mode))


def _make_patch(
    git: Git, repository: Repository, base: str, settings: Sequence[str], names: Sequence[str], changes: Changes
) -> None:
    patch, secrets = bytearray(), _secrets_by_lines()
    for some in _few(names):
        said = git.stream(repository, settings, *_COMPARE, "-p", "--full-index", base, "--", *some)
        try:
            for name, part in _parts(said):
                masked = _masked(part, secrets)
                if not masked or len(patch) + len(masked) > MOST_BYTES - len(_CUT):
                    changes.leave_out(name)
                else:
                    changes.masked = changes.masked or masked != part
                    patch += masked
        except OSError:  # it takes too long: what came until then is kept
            changes.cut = True
            break
    changes.patch = (_CUT if changes.cut and patch else b"") + bytes(patch)


def _masked(part: bytes, secrets: dict[str, str]) -> bytes:
    """Return the differences of a file without secrets; nothing where they are not text, or too many."""
    if b"\nBinary files " in part:  # no line of a text begins like that: each has a character in front
        return b""
    return mask_text(part.decode("utf-8", "surrogateescape"), secrets).encode("utf-8", "surrogateescape")


def _secrets_by_lines() -> dict[str, str]:
    """Return the environment, with the lines of its values as variables of their own: in a patch each line has a character in front."""
    found = dict(os.environ)
    for name, value in os.environ.items():
        for number, line in enumerate(value.splitlines() if "\n" in value else ()):
            if len(line) >= _SHORTEST_LINE:
                found[f"LINE{number}_{name}"] = line
    return found


def _parts(pieces: Iterator[bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the differences of each file; nothing for the differences of one that are too many, which are not kept in memory either."""
    part, name, rest = bytearray(), "", b""
    for piece in pieces:
        lines = (rest + piece).split(b"\n")
        rest = lines.pop()
        for line in lines:
            if line.startswith(_BEGIN):
                if name:
                    yield name, bytes(part)
                name, part = _name_of(line), bytearray()
            if len(part) + len(line) > MOST_BYTES:
                part = bytearray()
            elif (part or line.startswith(_BEGIN)) and not line.startswith(_UNMERGED):
                part += line + b"\n"
        if len(rest) > MOST_BYTES:  # one line that fits nowhere: what follows of it belongs to nothing
            part, rest = bytearray(), b""
    if name:
        yield name, bytes(part)


def _name_of(line: bytes) -> str:
    """Return the name in the line with which the differences of a file begin: `diff --git a/NAME b/NAME`."""
    both = line.removeprefix(_BEGIN)
    return os.fsdecode(both[2 : 2 + (len(both) - 5) // 2])
