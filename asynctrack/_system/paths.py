"""Paths: a path as a person writes it, expanded. Runs anywhere; standard library only."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path with `~` or `~user` at its beginning replaced by that user's home, as in a shell; unchanged where there is no such user."""
    return Path(os.path.expanduser(path))
