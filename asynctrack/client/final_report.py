"""Final report: what is said of a run as it ends: what is not journaled, which backends do not have everything, and how to go on. Runs in the caller."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from errno import ENOENT
from pathlib import Path
from typing import Final

from asynctrack._system.wording import counted
from asynctrack.backends.base import Backend
from asynctrack.backends.class_origin import delivery_command
from asynctrack.backends.registry import goes_with_its_process, stored
from asynctrack.backends.stored_settings import lives_in_caller
from asynctrack.journal import manifest
from asynctrack.journal.cursor import load_cursor
from asynctrack.queue.layout import DELIVERED, FIRST, HEAD, LAST_ERRNO, TAIL
from asynctrack.queue.producer import Producer
from asynctrack.reading.stats import RunStats

# How many are named. Arbitrary: a line of a terminal.
_MOST_CHILDREN: Final = 3


def not_journaled(producer: Producer) -> int:
    """Count the records of this process that are in its queue only; those of others are theirs to tell of."""
    ring = producer.ring
    return ring.queued(ring.words[TAIL]) or 0


def dropped(producer: Producer) -> tuple[int, str]:
    """Count the records of this process that were dropped, and say why. Reads memory only."""
    counts = producer.ring.dropped()
    full, large = counts.get("full", 0), counts.get("oversize", 0)
    why = [f"{full} found the queue full"] if full else []
    why += [f"{counted(large, 'was', 'were')} larger than it carries"] if large else []
    return full + large, f"{counted(full + large, 'record was', 'records were')} dropped in all: {', '.join(why)}"


def hindered(what: str, producer: Producer) -> str:
    """Say that the journal cannot be written, and what to do."""
    if producer.ring.words[LAST_ERRNO] == ENOENT:
        return "its directory has been removed or moved: move it back, or what is logged is lost"
    mib = producer.capacity / 2**20
    return f"the journal cannot be written ({what}): fix that soon; the queue holds {mib:.3g} MiB of records, and what comes then is dropped"


def recovery_hint(run: Path, producer: Producer) -> str:
    """Say why something is not journaled, as far as that is known, and how it gets there. Looks at shared memory only."""
    if producer.ring.words[LAST_ERRNO] == ENOENT:
        return ": the run's directory has been removed or moved, and they are lost with it"
    if not producer.ring.is_there():
        return (
            ": the queue was removed from shared memory, so a worker that still lives can journal them, and nobody else"
        )
    what = producer.ring.trouble()
    why = f": the journal cannot be written ({what})" if what else ""
    return f"{why}; the worker keeps trying; later, `asynctrack sync {run}` recovers them"


def failed_children(run: Path) -> str:
    """Say which forked children have failed; empty where none has.

    Raises:
        NotARun: `run.json` cannot be read.
    """
    failed = [f"{child['pid']} ({child['error']})" for child in manifest.load(run).failed_children]
    if not failed:
        return ""
    more = f" and {len(failed) - _MOST_CHILDREN} more" if len(failed) > _MOST_CHILDREN else ""
    word = "process" if len(failed) == 1 else "processes"
    return f"{counted(len(failed), 'forked child has', 'forked children have')} failed: {word} {', '.join(failed[:_MOST_CHILDREN])}{more}"


def undelivered(
    run: Path, stats: RunStats, backends: Mapping[str, Backend], producer: Producer, *, alone: bool
) -> Iterator[tuple[str, str]]:
    """Find the backends that lack records of this process, and say so of each.

    Args:
        run: its directory.
        stats: its statistics.
        backends: those that are to have everything by now, by their names.
        producer: of this process.
        alone: whether no other process logs to the run.
    """
    for name, backend in backends.items():
        backend_stats = stats.backends.get(name)
        if (
            backend_stats is not None
            and not backend_stats.known
            and producer.ring.words[DELIVERED] < producer.ring.words[HEAD]
        ):
            lost = producer.ring.words[LAST_ERRNO] == ENOENT
            sync = "`asynctrack sync` with the directory where it is now" if lost else f"`asynctrack sync {run}`"
            yield name, f"whether {name} has all records cannot be told from here; {sync} brings what it lacks"
        if backend_stats is None or not backend_stats.behind or not (alone or _lacks(run, name, producer)):
            continue
        behind = backend_stats.behind if alone else min(backend_stats.behind, accepted(producer))
        why = f" ({backend_stats.last_error})" if backend_stats.last_error else ""
        yield (
            name,
            f"{counted(behind, 'record is', 'records are')} not yet at {name}{why}; {delivery_hint(run, name, backend, backend_stats.paused)}",
        )


def unknown(run: Path, stats: RunStats, error: OSError) -> list[tuple[str, str]]:
    """Say which backends are behind by the statistics, where the run's files do not say more."""
    return [
        (
            name,
            f"whether {name} has all records cannot be told from here ({error}); `asynctrack sync {run}` brings what it lacks",
        )
        for name, backend in stats.backends.items()
        if backend.behind
    ]


def delivery_hint(run: Path, name: str, backend: Backend, paused: bool) -> str:
    """Say how a backend gets what it lacks."""
    settings = stored(backend, "", name)
    if not os.path.isdir(run):  # somebody has moved it
        return f"the run is no longer at {run}; run `asynctrack sync` with the directory where it is now"
    if goes_with_its_process(settings):
        return "the journal has them"
    if lives_in_caller(settings):
        return f"the journal has them; {delivery_command(settings).replace('sync RUN', f'sync {run}')}"
    sync = f"`asynctrack sync {run}`"
    return f"fix that, then run {sync}" if paused else f"the worker keeps trying; later, {sync} delivers the rest"


def _lacks(run: Path, name: str, producer: Producer) -> bool:
    ring = producer.ring
    return load_cursor(run, name).ends.get(ring.id, 0) < ring.words[HEAD]


def accepted(producer: Producer) -> int:
    """Count the records of this process that its queue has taken."""
    return producer.number - producer.ring.words[FIRST] - sum(producer.ring.dropped().values())
