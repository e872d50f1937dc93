"""Final report: what is said of a run as it ends: what is not journaled, which backends do not have everything, and how to go on. Runs in the caller."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from errno import ENOENT
from pathlib import Path
from typing import Any, Final

from asynctrack._system.wording import counted, see
from asynctrack.backends.class_origin import delivery_command
from asynctrack.backends.registry import goes_with_its_process
from asynctrack.backends.stored_settings import lives_in_caller
from asynctrack.journal import conflicts, manifest
from asynctrack.journal.cursor import load_cursor
from asynctrack.journal.open_means import LATE
from asynctrack.journal.writer_list import WriterStats, find, last_by_label
from asynctrack.queue.layout import DELIVERED, FIRST, HEAD, LAST_ERRNO, TAIL
from asynctrack.queue.producer import Producer
from asynctrack.reading.stats import RunStats

# How many names a message lists. Arbitrary: they fit a line of a terminal.
_MOST_CHILDREN: Final = 3
# How a process ends that something went wrong with. A pool ends its processes by SIGTERM.
_WRONG: Final = ("failed", "crashed")
_BEHIND: Final = see("how_to/offline_and_sync.md#why-is-a-backend-behind")
_MEANS: Final = see("how_to/processes.md#what-backends-show-of-several-processes")
_DISK: Final = see("explanation/guarantees.md#the-disk")


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
    return (
        full + large,
        f"{counted(full + large, 'record was', 'records were')} dropped in all: {', '.join(why)}{see('explanation/guarantees.md#the-queue-is-full')}",
    )


def hindered(what: str, producer: Producer) -> str:
    """Say that the journal cannot be written, and what to do."""
    if producer.ring.words[LAST_ERRNO] == ENOENT:
        return "its directory has been removed or moved: move it back, or what is logged is lost"
    mib = producer.capacity / 2**20
    return f"the journal cannot be written ({what}): fix that soon; the queue holds {mib:.3g} MiB of records, and what comes then is dropped{_DISK}"


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
    return f"{why}; the worker keeps trying; later, `asynctrack sync {run}` recovers them{_DISK if what else ''}"


def failed_children(run: Path) -> str:
    """Say which forked children have failed; empty where none has.

    Raises:
        NotARun: `run.json` cannot be read.
    """
    failed = [f"{child['pid']} ({child['error']})" for child in manifest.load(run).failed_children]
    if not failed:
        return ""
    word = "process" if len(failed) == 1 else "processes"
    return f"{counted(len(failed), 'forked child has', 'forked children have')} failed: {word} {_listed(failed)}{see('how_to/processes.md')}"


def of_other_writers(run: Path, own_ring: str) -> Iterator[tuple[str, str]]:
    """Find what went wrong with the other processes that write to a run, and say so where the run ends as this one does.

    Args:
        run: its directory.
        own_ring: the id of this process's ring.

    Raises:
        NotARun: `run.json` cannot be read.
    """
    if len(manifest.load(run).writers) < 2:
        return
    from asynctrack.reading.reader import RunReader  # rarely needed

    found = RunReader(run).manifest()
    mine = find(found.writers, own_ring)
    if mine is None or not mine.is_owner:
        return
    failed = [one for one in last_by_label(found.writers).values() if one.ring != own_ring and one.status in _WRONG]
    if failed:
        named = [f"{_named(one)} {one.status}" + (f" ({one.error})" if one.error else "") for one in failed]
        word = counted(len(failed), "other process that writes to it has", "other processes that write to it have")
        yield "writers", f"{word} not ended well: {_listed(named)}{see('how_to/processes.md')}"
    if found.conflicts:
        yield "conflicts", f"{_listed([conflicts.describe(one) for one in found.conflicts])}; the last counts"


def late_for_means(stats: RunStats) -> Iterator[tuple[str, str]]:
    """Find the backends whose means lack records, and say so of each."""
    for name, backend in stats.backends.items():
        if late := backend.skipped.get(LATE, 0):
            yield (
                name,
                f"{counted(late, 'record')} came too late for {'its' if late == 1 else 'their'} step in {name} (writers='mean'), whose means are without "
                f"{'it' if late == 1 else 'them'}: run.finish(wait='all') on all ranks waits until all have come, and the steps of a process must not fall{_MEANS}",
            )


def undelivered(
    run: Path, stats: RunStats, backends: Mapping[str, Mapping[str, Any]], producer: Producer, *, alone: bool
) -> Iterator[tuple[str, str]]:
    """Find the backends that lack records of this process, and say so of each.

    Args:
        run: its directory.
        stats: its statistics.
        backends: the stored settings of those that are to have everything by now, by their names.
        producer: of this process.
        alone: whether no other process logs to the run.
    """
    for name, settings in backends.items():
        backend_stats = stats.backends.get(name)
        if (
            backend_stats is not None
            and not backend_stats.known
            and producer.ring.words[DELIVERED] < producer.ring.words[HEAD]
        ):
            lost = producer.ring.words[LAST_ERRNO] == ENOENT
            sync = "`asynctrack sync` with the directory where it is now" if lost else f"`asynctrack sync {run}`"
            yield name, f"whether {name} has all records cannot be told from here; {sync} brings what it lacks"
        behind = 0 if backend_stats is None else backend_stats.behind
        if behind and not alone:
            behind = min(behind, _own_behind(run, name, producer))
        if backend_stats is None or not behind:
            continue
        why = f" ({backend_stats.last_error})" if backend_stats.last_error else ""
        yield (
            name,
            f"{counted(behind, 'record is', 'records are')} not yet at {name}{why}; {delivery_hint(run, settings, backend_stats.paused)}",
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


def delivery_hint(run: Path, settings: Mapping[str, Any], paused: bool) -> str:
    """Say how a backend gets what it lacks, by its stored settings."""
    if not os.path.isdir(run):  # somebody has moved it
        return f"the run is no longer at {run}; run `asynctrack sync` with the directory where it is now"
    if goes_with_its_process(settings):
        return "the journal has them"
    if lives_in_caller(settings):
        return f"the journal has them; {delivery_command(settings).replace('sync RUN', f'sync {run}')}"
    sync = f"`asynctrack sync {run}`"
    hint = f"fix that, then run {sync}" if paused else f"the worker keeps trying; later, {sync} delivers the rest"
    return hint + _BEHIND


def _named(one: WriterStats) -> str:
    """Name a process by its label, and by its pid where the label does not have that."""
    return one.writer if not one.pid or one.writer.endswith(f":{one.pid}") else f"{one.writer} (process {one.pid})"


def _listed(named: list[str]) -> str:
    more = f" and {len(named) - _MOST_CHILDREN} more" if len(named) > _MOST_CHILDREN else ""
    return ", ".join(named[:_MOST_CHILDREN]) + more


def _own_behind(run: Path, name: str, producer: Producer) -> int:
    """Count the records of this process that a backend does not have; those of others are theirs to tell of."""
    ring = producer.ring
    end = load_cursor(run, name).ends.get(ring.id, 0)
    if end >= ring.words[HEAD]:
        return 0
    behind = ring.queued(end)
    return accepted(producer) if behind is None else behind


def accepted(producer: Producer) -> int:
    """Count the records of this process that its queue has taken."""
    return producer.number - producer.ring.words[FIRST] - sum(producer.ring.dropped().values())
