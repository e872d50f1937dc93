"""Writer: who this process is among those that write to a run: its label, its rank, its machine. Runs in the caller."""

from __future__ import annotations

import contextvars
import os
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from asynctrack._system.wording import in_figures
from asynctrack.backends.base import Backend, instead_of_means
from asynctrack.errors import InvalidSettings
from asynctrack.journal.join import LABEL, Join, default_label, join_payload
from asynctrack.queue.reach import boot

# Whether this process takes the part of rank 0, where a framework says that and not `RANK`; None where nothing says it.
primary: Final[contextvars.ContextVar[bool | None]] = contextvars.ContextVar("asynctrack_primary", default=None)

# More processes than any run has. Arbitrary.
_MOST_EXPECTED: Final = 10_000_000


class Joining(NamedTuple):
    """Describes this process as a writer of a run: who it is, and how it comes to it.

    Attributes:
        directory: of the host that has the run's rings; None where this process opens the run.
        join: who this process is.
        owns: whether the run's status is this process's, whichever has opened it.
        joins: whether it would have joined the run, had another opened it.
        reopens: whether the run had ended when this process came to join it.
    """

    directory: str | None
    join: Join
    owns: bool = False
    joins: bool = False
    reopens: bool = False

    @property
    def opens(self) -> bool:
        """Tell whether this process opens the run, and does not join it."""
        return self.directory is None and not self.reopens

    def meta(self) -> dict[str, object]:
        """Return what the header of this process's ring says of it to the worker, which reads no frame."""
        rank = {} if self.join.rank is None else {"rank": self.join.rank}
        owner = {"owner": True} if self.owns else {}
        return {"writer": self.join.writer, **rank, **owner}

    def meta_of_child(self) -> dict[str, object]:
        """Return the same for a forked child: a writer of the same label, where this process has joined; one of the owner's has none."""
        return {} if self.opens else {**self._replace(owns=False).meta(), "forked": True}

    def environment(self) -> dict[str, Any]:
        """Return what the start of a run says of the process that opens it for several, beside its host and pid."""
        known = {name: getattr(self.join, name) for name in ("writer", "rank", "boot", "expected")}
        joins = {"joins": True} if self.joins else {}
        # `host` beside it is the machine's own name, by which a run is known for one of this machine.
        named = {"named_host": self.join.host} if self.join.host != os.uname().nodename else {}
        return {**{name: value for name, value in known.items() if value is not None}, **joins, **named}

    def payload_of_child(self) -> bytes:
        """Encode the join of a forked child: a writer of the same label."""
        child = {"pid": os.getpid(), "owner": False, "forked": True, "config": {}, "time_ns": time.time_ns()}
        return join_payload(msgspec.structs.replace(self.join, **child))


def this_process(writer: str | None = None, expected: int | None = None, config: dict[str, Any] | None = None) -> Join:
    """Describe this process as a writer.

    Args:
        writer: its label. Default: `rank` and the number in `RANK`, else host and pid.
        expected: how many writers the run has. Default: `WORLD_SIZE` in the environment.
        config: what it was given as config.

    Raises:
        InvalidSettings: the label or the number cannot be used.
    """
    # As launchers tell each of the processes that they start together: torchrun, accelerate, and those that took the names over.
    rank, size = _number(os.environ.get("RANK", "")), _number(os.environ.get("WORLD_SIZE", ""))
    host, pid = _host(), os.getpid()
    label = f"rank{rank}" if rank is not None else default_label(host, pid)
    if (is_primary := primary.get()) is not None:
        rank = 0 if is_primary else rank or None
    return Join(
        writer=label if writer is None else check_label(writer),
        rank=rank,
        host=host,
        boot=boot(),
        pid=pid,
        expected=(size or None) if expected is None else _check_expected(expected),
        config=config or {},
        time_ns=time.time_ns(),
    )


def inherits_its_rank(join: Join) -> bool:
    """Tell whether a process that was given no label has the one that `RANK` says, which a child of a rank inherits."""
    rank = _number(os.environ.get("RANK", ""))
    return rank is not None and join.writer == f"rank{rank}"


def beside_its_rank(join: Join) -> Join:
    """Describe a process whose rank another has, from which it has inherited `RANK`: it is no rank itself, and has a label of its own."""
    return msgspec.structs.replace(join, writer=f"{join.writer}:{join.pid}", rank=None)


def one_of_several(
    writer: str | None,
    expected: int | None,
    config: dict[str, Any],
    backends: Mapping[str, Backend],
    *,
    joins: bool,
) -> Joining | None:
    """Describe the process that opens a run, or joins it if another has; None where nothing says that the run has several writers.

    Args:
        writer: see `this_process`.
        expected: see `this_process`.
        config: see `this_process`.
        backends: of the run; where one gets means, the run has several writers.
        joins: whether several processes open the run: then its status is that of rank 0, whichever has opened it.

    Raises:
        InvalidSettings: the label or the number cannot be used, or nobody has said over how many writers a backend is to get means.
    """
    means = {name: each for name, each in backends.items() if each.writers == "mean"}
    if not (joins or means) and writer is None and expected is None:
        return None
    join = this_process(writer, expected, config)
    if means and join.expected is None:
        raise InvalidSettings(
            [
                f"writers='mean' of {' and '.join(means)} needs the number of processes that write to the run: give expected=, or set WORLD_SIZE as torchrun does; "
                f"or choose {instead_of_means(*means.values())}"
            ]
        )
    return Joining(None, join, owns=joins and join.rank == 0, joins=joins)


def check_label(writer: object) -> str:
    """Check the label of a writer, and return it.

    Raises:
        InvalidSettings: it is none.
    """
    if not isinstance(writer, str) or not LABEL.fullmatch(writer):
        raise InvalidSettings(
            [
                f"writer must be 1 to 128 ASCII letters, digits or any of '_.:@+-', not beginning with one of '.:@+-'; got {writer!r:.80}"
            ]
        )
    return writer


def _check_expected(expected: object) -> int:
    if not isinstance(expected, int) or isinstance(expected, bool) or not 1 <= expected <= _MOST_EXPECTED:
        raise InvalidSettings(
            [f"expected must be the number of writers, 1 to {in_figures(_MOST_EXPECTED)}; got {expected!r:.80}"]
        )
    return expected


def _number(text: str) -> int | None:
    """Return the number in a text; None where there is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _host() -> str:
    if os.environ.get("ASYNCTRACK_HOST"):
        from asynctrack.carriers.parts import host_name  # rarely needed

        return host_name()
    return os.uname().nodename
