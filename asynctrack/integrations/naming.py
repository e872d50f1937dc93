"""Naming: what a framework calls an experiment or a run, as a name that ours can have. Runs in the caller."""

from __future__ import annotations

import hashlib
from typing import Final

from asynctrack.errors import InvalidRunId
from asynctrack.settings import check_name, check_project, fitting

# Characters that `settings.check_name` allows, less a hyphen and the digits.
_LONGEST: Final = 117
_DIGITS: Final = 10


def project_name(name: str) -> str:
    """The name of a project: the framework's where it can be one, else one like it."""
    try:
        return check_project(name)
    except InvalidRunId:
        return _like(name)


def directory_name(name: str) -> str:
    """The id of a run: the framework's where it can be one, else one like it, which no other name becomes."""
    try:
        return check_name("id", name)
    except InvalidRunId:
        return _like(name)


def _like(name: str) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
    return f"{fitting(name)[:_LONGEST]}-{digest}"
