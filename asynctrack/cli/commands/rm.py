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
from typing import Any, Final, NamedTuple

from asynctrack._system.locks import in_words
from asynctrack._system.printable import printable
from asynctrack._system.wording import counted
from asynctrack.cli import leaving, options, output
from asynctrack.client import run_state
from asynctrack.collection.run_summary import bytes_of
from asynctrack.errors import AsynctrackError
from asynctrack.journal.manifest import load
from asynctrack.journal.reader import segments
from asynctrack.queue.ring import Ring
from asynctrack.queue.shm_paths import ring_paths
from asynctrack.reading import catalog
from asynctrack.worker.listing import Worker

# Runs that a question or a list of those left out names.
_SHOWN: Final = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `main` to `parser`."""
    parser.add_argument("runs", metavar="RUN", nargs="*", help=options.RUN_HELP)
    options.add_dir(parser)
    leaving.add_arguments(parser)
    parser.add_argument("--dry-run", action="store_true", help="only list what would be removed")
    parser.add_argument("-y", "--yes", action="store_true", help="remove without asking")
    parser.add_argument("--force", action="store_true", help="remove also a run that may still be running")
    options.add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Remove all of the runs that are named or none, or those that were chosen and do not run. Return 1 if one could not be removed."""
    choosing = leaving.is_asked_for(args)
    if bool(args.runs) == choosing:
        output.warn(
            f"rm takes runs, or --where, --older or --keep-best to choose them{', not both' if choosing else ''}"
        )
        return 2
    if choosing and args.where is None and args.older is None:
        output.warn(
            "--keep-best says which runs stay; --where or --older says which go, such as --where \"project == 'NAME'\""
        )
        return 2
    found = _chosen(args) if choosing else _named(args)
    if found.sizes and not (found.blocked or args.dry_run or args.yes):
        if not sys.stdin.isatty():
            output.warn(
                "rm asks before it removes runs, and standard input is not a terminal; --yes removes without asking"
            )
            return 2
        if not _confirms(found.sizes):
            return 1
        if not choosing:
            blocked = _blocked([*found.sizes], force=args.force)  # a run may have been resumed while we asked
            found = found._replace(blocked=blocked)
    if not (found.blocked or args.dry_run):
        _remove_all(found, args, choosing=choosing)
    _tell(found, args, choosing=choosing)
    return 1 if found.blocked or found.failed else 0


class RunsToRemove(NamedTuple):
    """The runs to remove, and what becomes of them.

    Attributes:
        sizes: of those that may be removed, by their directories.
        blocked: those that must not be and were named, each with the reason: then nothing is removed.
        left_out: those that must not be and were chosen.
        removed: those that have gone, with their sizes.
        failed: those that could not be removed.
    """

    sizes: dict[Path, int]
    blocked: dict[Path, str]
    left_out: dict[Path, str]
    removed: dict[Path, int]
    failed: dict[Path, str]


def _named(args: argparse.Namespace) -> RunsToRemove:
    runs = list(dict.fromkeys(Path(os.path.abspath(catalog.find(wanted, args.dir))) for wanted in args.runs))
    return RunsToRemove({run: bytes_of(run) for run in runs}, _blocked(runs, force=args.force), {}, {}, {})


def _chosen(args: argparse.Namespace) -> RunsToRemove:
    best = leaving.best_of(args)
    chosen = leaving.choose(args)
    left_out = _blocked([run.path for run in chosen], force=args.force)
    leave = leaving.without_best([run for run in chosen if run.path not in left_out], best)
    sizes = {Path(os.path.abspath(run.path)): run.summary.bytes for run in leave}
    return RunsToRemove(sizes, {}, {Path(os.path.abspath(run)): why for run, why in left_out.items()}, {}, {})


def _blocked(runs: Sequence[Path], *, force: bool) -> dict[Path, str]:
    """Return the runs that must not be removed, each with the reason."""
    workers = run_state.other_workers()
    return {run: why for run in runs if (why := _why_not(run, force=force, workers=workers))}


def _why_not(run: Path, *, force: bool, workers: Sequence[Worker] | None = None) -> str | None:
    if run.is_symlink():
        return f"is a link to {os.path.realpath(run)}; give that path instead"
    try:
        manifest = load(run)
    except AsynctrackError:
        manifest = None
    except OSError as error:  # another user's
        return f"cannot be read: {error.strerror or error}"
    if manifest is None and not segments(os.fspath(run / "journal")):
        return "is not a run: it has neither a run.json that can be read nor a journal segment"
    if force:
        return None
    at_work = run_state.activity_of(run, workers)
    if at_work.callers:
        return f"is running (process {in_words(at_work.callers)}); --force removes it anyway"
    if at_work.worker:
        return "has a worker that still delivers; --force removes it anyway"
    state = None if manifest is None else run_state.state_of(run, manifest, workers)
    if manifest is not None and state == "elsewhere":
        host = manifest.environment.get("host")
        return f"may be running elsewhere: it was started on {host}; --force removes it anyway"
    return "is about to begin; --force removes it anyway" if state == "running" else None


def _tell(found: RunsToRemove, args: argparse.Namespace, *, choosing: bool) -> None:
    """Tell what was removed, or would be, and what was not."""
    going = {} if found.blocked else found.sizes
    if args.dry_run and not args.json:
        for run, size in going.items():
            print(f"would remove {printable(catalog.name_of(run))}, {output.size(size)}")
    if (choosing or (args.dry_run and going)) and not args.json:
        told = going if args.dry_run else found.removed
        was_any = found.left_out or found.failed
        none = f"nothing {'would be' if args.dry_run else 'was'} removed" if was_any else "no such runs"
        print(f"{counted(len(told), 'run')}, {output.size(sum(told.values()))}" if told else none)
    for run, why in found.blocked.items():
        output.warn(f"{catalog.name_of(run)} {why}; nothing {'would be' if args.dry_run else 'was'} removed")
    for run, why in found.failed.items():
        output.warn(f"{catalog.name_of(run)} could not be removed: {why}")
    _say_left_out(found, args)
    if args.json:
        said: dict[str, Any] = {
            "removed": _listed(found.removed),
            "errors": {str(run): why for run, why in (found.blocked | found.failed).items()},
        }
        if args.dry_run:
            said |= {"would_remove": _listed(going), "bytes": sum(going.values())}
        if choosing:
            said["left_out"] = {str(run): why for run, why in found.left_out.items()}
        output.print_json(said)


def _say_left_out(found: RunsToRemove, args: argparse.Namespace) -> None:
    """Say which of the chosen runs stay, and why."""
    for run, why in list(found.left_out.items())[:_SHOWN]:
        output.warn(f"left out: {catalog.name_of(run)} {why}")
    if (more := len(found.left_out) - _SHOWN) > 0:
        output.warn(f"left out: {counted(more, 'more run')}" + ("" if args.json else "; --json names all"))


def _listed(sizes: dict[Path, int]) -> list[dict[str, Any]]:
    return [{"path": str(run), "bytes": size} for run, size in sizes.items()]


def _confirms(sizes: dict[Path, int]) -> bool:
    """Ask on the terminal, and return True if the answer is yes."""
    for run, size in list(sizes.items())[:_SHOWN]:
        sys.stderr.write(f"  {printable(catalog.name_of(run))}, {output.size(size)}\n")
    if (more := len(sizes) - _SHOWN) > 0:
        sys.stderr.write(f"  and {more} more; --dry-run lists them\n")
    what = "this run" if len(sizes) == 1 else f"these {len(sizes)} runs, {output.size(sum(sizes.values()))}"
    sys.stderr.write(f"remove {what} for good? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _remove_all(found: RunsToRemove, args: argparse.Namespace, *, choosing: bool) -> None:
    """Remove runs one after the other; one that was chosen stays if it has been resumed meanwhile."""
    for run, size in found.sizes.items():
        if choosing and (why := _why_not(run, force=args.force)):
            found.left_out[run] = why
            continue
        try:
            _remove(run)
        except OSError as error:
            found.failed[run] = error.strerror or str(error)
            continue
        found.removed[run] = size
        if not args.json:
            print(f"removed {printable(catalog.name_of(run))}, {output.size(size)}")


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
