"""Parting: what is said of a run as it ends: what is not journaled, which backends do not have everything, and how to go on. Runs in the caller."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from asynctrack.backends.base import Backend
from asynctrack.backends.origin import way_out
from asynctrack.backends.registry import goes_with_its_process, stored
from asynctrack.books import Stats
from asynctrack.cursor import load_cursor
from asynctrack.queue.layout import FIRST, HEAD, TAIL
from asynctrack.queue.producer import Producer
from asynctrack.wording import counted


def not_journaled(producer: Producer) -> int:
    """Records of this process that are in its queue only; those of others are theirs to tell of."""
    ring = producer.ring
    return ring.queued(ring.words[TAIL]) or 0


def left_behind(
    run: Path, stats: Stats, backends: Mapping[str, Backend], producer: Producer, *, alone: bool
) -> Iterator[tuple[str, str]]:
    """The backends that lack records of this process, and what is to be said of each.

    Args:
        run: its directory.
        stats: its books.
        backends: those that are to have everything by now, by their names.
        producer: of this process.
        alone: whether no other process logs to the run.
    """
    for name, backend in backends.items():
        books = stats.backends.get(name)
        if books is None or not books.behind or not (alone or _lacks(run, name, producer)):
            continue
        behind = books.behind if alone else min(books.behind, _accepted(producer))
        why = f" ({books.last_error})" if books.last_error else ""
        yield (
            name,
            f"{counted(behind, 'record is', 'records are')} not yet at {name}{why}; {way_on(run, name, backend, books.paused)}",
        )


def way_on(run: Path, name: str, backend: Backend, paused: bool) -> str:
    """How what a backend lacks gets there."""
    settings = stored(backend, "", name)
    if not run.is_dir():  # somebody has moved it
        return f"the run is no longer at {run}: `asynctrack sync` brings it there from where it is by now"
    if goes_with_its_process(settings):
        return "the journal has them"
    if settings.get("place") == "caller":
        return f"the journal has them, and {way_out(settings).replace('sync RUN', f'sync {run}')}"
    goes_on = "" if paused else "the worker goes on, then "
    return f"{goes_on}`asynctrack sync {run}` can" + (" once that is mended" if paused else "")


def _lacks(run: Path, name: str, producer: Producer) -> bool:
    ring = producer.ring
    return load_cursor(run, name).ends.get(ring.id, 0) < ring.words[HEAD]


def _accepted(producer: Producer) -> int:
    return producer.number - producer.ring.words[FIRST] - sum(producer.ring.dropped().values())
