"""`asynctrack rm`: removes runs, and nothing but runs."""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from asynctrack._system.locks import in_words
from asynctrack._system.printable import printable
from asynctrack.cli import options, output
from asynctrack.cli.run_summary import bytes_of
from asynctrack.client import run_state
from asynctrack.errors import AsynctrackError
from asynctrack.journal.manifest import load
from asynctrack.journal.reader import segments
from asynctrack.queue.ring import Ring
from asynctrack.queue.shm_paths import ring_paths
from asynctrack.reading import catalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `main` to `parser`."""
    parser.add_argument("runs", metavar="RUN", nargs="+", help=options.RUN_HELP)
    options.add_dir(parser)
    parser.add_argument("-y", "--yes", action="store_true", help="remove without asking")
    parser.add_argument("--force", action="store_true", help="remove also a run that may still be running")
    options.add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Remove all of the runs or none. Return 1 if one of them must not be removed."""
    runs = list(dict.fromkeys(Path(os.path.abspath(catalog.find(wanted, args.dir))) for wanted in args.runs))
    sizes = {run: bytes_of(run) for run in runs}
    blocked = _blocked(runs, force=args.force)
    if not blocked and not args.yes:
        if not sys.stdin.isatty():
            output.warn(
                "rm asks before it removes runs, and standard input is not a terminal; --yes removes without asking"
            )
            return 2
        if not _confirms(sizes):
            return 1
        blocked = _blocked(runs, force=args.force)  # a run may have been resumed while we asked
    for run in [] if blocked else runs:
        _remove(run)
        if not args.json:
            print(f"removed {printable(catalog.name_of(run))}, {output.size(sizes[run])}")
    for run, why in blocked.items():
        output.warn(f"{catalog.name_of(run)} {why}; nothing was removed")
    if args.json:
        removed = [] if blocked else [{"path": str(run), "bytes": sizes[run]} for run in runs]
        output.print_json({"removed": removed, "errors": {str(run): why for run, why in blocked.items()}})
    return 1 if blocked else 0


def _blocked(runs: Sequence[Path], *, force: bool) -> dict[Path, str]:
    """Return the runs that must not be removed, each with the reason."""
    return {run: why for run in runs if (why := _why_not(run, force=force))}


def _why_not(run: Path, *, force: bool) -> str | None:
    if run.is_symlink():
        return f"is a link to {os.path.realpath(run)}; give that path instead"
    try:
        manifest = load(run)
    except AsynctrackError:
        manifest = None
    if manifest is None and not segments(os.fspath(run / "journal")):
        return "is not a run: it has neither a run.json that can be read nor a journal segment"
    if force:
        return None
    at_work = run_state.activity_of(run)
    if at_work.callers:
        return f"is running (process {in_words(at_work.callers)}); --force removes it anyway"
    if at_work.worker:
        return "has a worker that still delivers; --force removes it anyway"
    if manifest is not None and run_state.state_of(run, manifest) == "elsewhere":
        host = manifest.environment.get("host")
        return f"may be running elsewhere: it was started on {host}; --force removes it anyway"
    return None


def _confirms(sizes: dict[Path, int]) -> bool:
    """Ask on the terminal, and return True if the answer is yes."""
    for run, size in sizes.items():
        sys.stderr.write(f"  {printable(catalog.name_of(run))}, {output.size(size)}\n")
    what = "this run" if len(sizes) == 1 else f"these {len(sizes)} runs, {output.size(sum(sizes.values()))}"
    sys.stderr.write(f"remove {what} for good? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _remove(run: Path) -> None:
    """Remove a run's directory, and the queues that its dead processes left; links in it are removed, not followed."""
    for path in [path for directory in run_state.activity_of(run).directories for path in ring_paths(directory)]:
        with contextlib.suppress(OSError, ValueError):
            ring = Ring.attach(path)
            if os.path.realpath(ring.meta["run"]) == os.path.realpath(run) and not ring.producer_lives():
                ring.unlink()
            ring.close()
    # First out of sight: half a run should not look like one.
    leaving = run.with_name(f".{run.name}.{secrets.token_hex(4)}.removed")
    os.rename(run, leaving)
    shutil.rmtree(leaving)
