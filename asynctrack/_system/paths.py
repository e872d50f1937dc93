"""Paths: what a person writes for one, as the path that is meant. Runs anywhere; standard library only."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path whose `~` or `~user` at the beginning is that user's home, as in a shell; where there is no such user it stays."""
    return Path(os.path.expanduser(path))
