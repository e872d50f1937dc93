"""Git state: commit, branch, remote, and whether files differ. Runs in the collecting process. Standard library only."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any, Final

from asynctrack._system.masking import mask_text
from asynctrack.provenance.git_command import Git, Repository
from asynctrack.provenance.uncommitted import Changes, find_changes

# A remote's address beyond this is no address. Arbitrary.
_LONGEST: Final = 1000
# What of the repository's own settings says how files and commits compare; none of it names a program.
_COMPARING: Final = (
    "core.autocrlf",
    "core.eol",
    "core.filemode",
    "core.symlinks",
    "core.ignorecase",
    "core.precomposeunicode",
)
_WORD: Final = re.compile(r"[A-Za-z0-9]{1,16}")
_USER: Final = re.compile(r"^(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*://)?(?P<user>[^/\s]*@)?(?P<rest>.*)$", re.DOTALL)


def collect(git: Git, directory: str, keep: Callable[[dict[str, Any]], object], *, diff: bool) -> Changes | None:
    """Find out about the repository with a directory.

    Args:
        git: runs it.
        directory: in the repository.
        keep: is given what is known, as soon as it is and again when there is more.
        diff: whether the changes themselves are wanted.

    Returns:
        What was not committed; None where that is not known.
    """
    repository = git.find(directory)
    if repository is None:
        return None
    found: dict[str, Any] = {"root": repository.root}
    keep(found)
    trusted = ("safe.directory=*",) if repository.foreign else ()

    def ask(*arguments: str) -> str:
        said = git.ask(directory, *arguments, settings=trusted)
        return "" if said is None else os.fsdecode(said).rstrip("\n")

    found["commit"] = ask("rev-parse", "--verify", "-q", "HEAD") or None
    found["branch"] = ask("symbolic-ref", "-q", "--short", "HEAD") or None
    settings = _settings(ask("config", "-z", "--list"))
    found["remote"] = _remote(settings, found["branch"])
    keep(found)
    # Another user's index says which of this user's files are compared: its changes are not kept.
    if repository.foreign or not _holds(repository, directory):
        return None
    return find_changes(git, repository, found["commit"], _comparing(settings, repository), diff=diff)


def _holds(repository: Repository, directory: str) -> bool:
    """Return whether a directory is among the files of its repository: `core.worktree` may name others."""
    real = os.path.realpath(directory)
    root = os.path.realpath(repository.root)
    return os.path.commonpath([real, root]) == root


def _settings(said: str) -> dict[str, str]:
    """Return settings by their names, as `git config -z --list` gives them: of several values the last."""
    pairs = (entry.partition("\n") for entry in said.split("\0") if entry)
    return {name: value if separator else "true" for name, separator, value in pairs}


def _comparing(settings: dict[str, str], repository: Repository) -> list[str]:
    """Return the settings with which git compares files, in place of all that the repository has."""
    chosen = [f"{name}={settings[name]}" for name in _COMPARING if _WORD.fullmatch(settings.get(name, ""))]
    attributes = os.path.join(repository.common, "info", "attributes")
    if os.path.isfile(attributes) and not os.path.islink(attributes):
        chosen.append(f"core.attributesFile={attributes}")
    return chosen


def _remote(settings: dict[str, str], branch: str | None) -> str | None:
    names = [settings.get(f"branch.{branch}.remote", ""), "origin"]
    known = [name for name in settings if name.startswith("remote.") and name.endswith(".url")]
    chosen = [url for name in names if (url := settings.get(f"remote.{name}.url"))]
    if not chosen and len(known) == 1:
        chosen = [settings[known[0]]]
    return without_credentials(chosen[0]) if chosen else None


def without_credentials(address: str) -> str:
    """Return the address of a remote without user and password, and without what follows a question mark; the user `git` stays where ssh needs it."""
    found = _USER.match(address[:_LONGEST])
    assert found is not None
    scheme, user, rest = found["scheme"] or "", found["user"] or "", found["rest"]
    if scheme and "ssh" not in scheme:
        rest = rest.partition("?")[0].partition("#")[0]
    user = user if user == "git@" and (not scheme or "ssh" in scheme) else ""
    masked = mask_text(f"{scheme}{rest}")
    return f"{scheme}{user}{masked.removeprefix(scheme)}"
