"""Provenance: prints where a run comes from, and the traceback of one that has failed. Runs in the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from asynctrack.cli.output import Output, Piece, Styled, TableColumn
from asynctrack.cli.output import count as in_figures
from asynctrack.cli.output import size as in_bytes
from asynctrack.journal.environment_file import DIFF_NAME, Cpu, Environment, GitState, Gpu

# A commit is known by so many digits. Arbitrary: as `git log --oneline` does in large repositories.
_DIGITS: Final = 12
# So many lines of a traceback are printed, the last: `--json` has all.
_MOST_LINES: Final = 40


def as_document(said: Mapping[str, Any], environment: Environment | None) -> dict[str, Any]:
    """Return what `--json` has of where a run comes from: what its start says, and what was found out since."""
    if environment is None:
        return dict(said)
    known = {name: value for name, value in msgspec.to_builtins(environment).items() if value is not None}
    return {**said, **{name: value for name, value in known.items() if name != "version"}}


def print_environment(out: Output, environment: Environment | None) -> None:
    """Print where a run comes from, in a few lines; nothing where that is not known."""
    if environment is None:
        return
    facts = [
        ("code", _code(environment.git)),
        ("changes", _changes(environment.git)),
        ("script", _script(environment)),
        ("directory", environment.directory),
        ("user", environment.user),
        ("python", _python(environment)),
        ("system", environment.platform),
        ("cpu", _cpu(environment)),
        ("gpus", _gpus(environment.gpus or [], environment.gpu_driver)),
        ("job", "  ".join(f"{name}={value}" for name, value in (environment.scheduler or {}).items())),
    ]
    rows: list[list[Piece]] = [[Styled(name, "dim"), fact] for name, fact in facts if fact]
    if rows:
        out.heading("environment")
        out.table([TableColumn(), TableColumn(cut=True)], rows, indent=2, titles=False)


def print_traceback(out: Output, text: str | None) -> None:
    """Print the end of a traceback; nothing where there is none."""
    if not text:
        return
    out.heading("traceback")
    lines = text.split("\n")
    if len(lines) > _MOST_LINES:
        out.line(Styled(f"{in_figures(len(lines) - _MOST_LINES)} more lines above; --json has them", "dim"), indent=2)
    for line in lines[-_MOST_LINES:]:
        out.line(line, indent=2)


def _code(git: GitState | None) -> str | None:
    if git is None:
        return None
    commit = "none yet" if git.commit is None else git.commit[:_DIGITS]
    return ", ".join(filter(None, [f"commit {commit}", git.branch and f"branch {git.branch}", git.remote]))


def _changes(git: GitState | None) -> str | None:
    if git is None or git.dirty is None:
        return None
    if not git.dirty:
        return "none: the commit has all of it, but for files that git does not know"
    kept = "not kept" if git.diff_bytes is None else f"{in_bytes(git.diff_bytes)} in {DIFF_NAME}"
    left_out = f", without {', '.join(git.left_out[:3])}" if git.left_out else ""
    more = f" and {len(git.left_out) - 3} more" if len(git.left_out) > 3 else ""
    return f"not committed: {kept}{left_out}{more}"


def _script(environment: Environment) -> str | None:
    if environment.script is None:
        return None
    root = environment.git.root if environment.git is not None else None
    inside = root is not None and environment.script.startswith(f"{root}/")
    return os.path.relpath(environment.script, root) if inside else environment.script


def _python(environment: Environment) -> str | None:
    if environment.python is None:
        return None
    packages = f", {in_figures(len(environment.packages))} packages" if environment.packages else ""
    return f"{environment.implementation or 'Python'} {environment.python}{packages}"


def _cpu(environment: Environment) -> str:
    cpu, memory = environment.cpu or Cpu(), environment.memory_bytes
    cores = None if cpu.count is None else f"{cpu.count} {'core' if cpu.count == 1 else 'cores'}"
    return ", ".join(filter(None, [cpu.model, cores, f"{in_bytes(memory)} of memory" if memory else None]))


def _gpus(gpus: list[Gpu], driver: str | None) -> str:
    """Name the graphics processors, those of one kind together."""
    kinds: dict[Gpu, int] = {}
    for gpu in gpus:
        kinds[gpu] = kinds.get(gpu, 0) + 1
    named = [
        f"{number} x {gpu.name or 'unknown'}" + (f" ({in_bytes(gpu.memory_bytes)})" if gpu.memory_bytes else "")
        for gpu, number in kinds.items()
    ]
    return ", ".join([*named, *([f"driver {driver}"] if driver and named else [])])
