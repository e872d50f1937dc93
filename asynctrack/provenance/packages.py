"""Packages: the name and version of each package that can be imported, by the directories in which installers note them. Runs in the collecting process. Standard library only.

`importlib.metadata` would open a file of each package, and take ten times as long.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Final

# How many are kept. Arbitrary: the largest installations have some hundreds.
_MOST: Final = 5000
_MOST_METADATA_BYTES: Final = 4096
_SEPARATORS: Final = re.compile(r"[-_.]+")
_PYTHON: Final = re.compile(r"-py\d.*")


def find_packages(paths: Iterable[str]) -> dict[str, str]:
    """Return the versions of packages by their names, in lower case and with hyphens, as package indexes have them.

    Args:
        paths: where they are imported from: of two the first counts.
    """
    found: dict[str, str] = {}
    for path in dict.fromkeys(path for path in paths if path):
        try:
            with os.scandir(path) as entries:
                names = [entry.name for entry in entries if entry.name.endswith((".dist-info", ".egg-info"))]
        except OSError:  # it is missing, or an archive
            continue
        for directory in names:
            name, version = _parts(path, directory)
            if name and version and len(found) < _MOST:
                found.setdefault(_SEPARATORS.sub("-", name).lower(), version)
    return dict(sorted(found.items()))


def _parts(path: str, directory: str) -> tuple[str, str]:
    """Return the name and the version in the name of a directory, such as `numpy-2.1.0.dist-info`; that of a package in development has no version."""
    name, _, version = _PYTHON.sub("", directory.rpartition(".")[0]).partition("-")
    return (name, version) if version else (name, _version_in(os.path.join(path, directory, "PKG-INFO")))


def _version_in(metadata: str) -> str:
    try:
        with open(
            os.open(metadata, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), encoding="utf-8", errors="replace"
        ) as file:
            head = file.read(_MOST_METADATA_BYTES)
    except OSError:
        return ""
    return next((line[8:].strip() for line in head.splitlines() if line.startswith("Version:")), "")
