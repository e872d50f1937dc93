"""Artifacts: make the artifact that `Run.log_artifact` keeps. Runs in the caller."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from asynctrack.records.values import Artifact


def as_artifact(
    artifact_or_path: Artifact | str | os.PathLike[str],
    name: str | None,
    type: str | None,
    aliases: Sequence[str] | None,
    tags: Sequence[str] | None,
) -> Artifact:
    """Make an artifact of a path, or take the one that is given; note its aliases and tags.

    The arguments are those of `Run.log_artifact`.

    Raises:
        InvalidValue: There is no such file or folder.
    """
    artifact = artifact_or_path
    if not isinstance(artifact, Artifact):
        path = Path(artifact)
        artifact = Artifact(name or path.name, type=type or "file", path=path)
    artifact.metadata.update({what: list(given) for what, given in (("aliases", aliases), ("tags", tags)) if given})
    return artifact
