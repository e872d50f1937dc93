"""Naming: turn a framework's name of an experiment or a run into a valid name here. Runs in the caller."""

from __future__ import annotations

import hashlib
from typing import Final

from asynctrack.errors import InvalidRunId
from asynctrack.settings import check_name, check_project, fitting

# Characters that `settings.check_name` allows, less a hyphen and the digits.
_LONGEST: Final = 117
_DIGITS: Final = 10


def project_name(name: str) -> str:
    """Return the framework's name where a project can have it, else a similar one."""
    try:
        return check_project(name)
    except InvalidRunId:
        return _like(name)


def directory_name(name: str) -> str:
    """Return the framework's name where a run's id can be that, else a similar one that no other name turns into."""
    try:
        return check_name("id", name)
    except InvalidRunId:
        return _like(name)


def _like(name: str) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
    return f"{fitting(name)[:_LONGEST]}-{digest}"
