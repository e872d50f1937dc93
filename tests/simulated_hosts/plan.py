"""Plan: what a seed makes happen to the hosts of a run, and when. Nothing here looks at a clock or at the system.

So a seed has the same plan each time, where the same parts of the system can be had; see `Parts`.
"""

from __future__ import annotations

import random

import msgspec

CARRIERS = ("folder", "http", "nats")


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What can be had on this machine.

    Attributes:
        mounts: file systems in memory can be mounted, so that the collector's disk can be full.
        clocks: there is a C compiler to set clocks with.
        old_server: Debian's NATS server is installed.
    """

    mounts: bool = True
    clocks: bool = True
    old_server: bool = True


PARTS = Parts.__struct_fields__


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """How much there is of everything.

    Attributes:
        rate: records a second of each rank.
    """

    hosts: int
    ranks: int
    faults: int
    rate: float

    @property
    def per_host(self) -> int:
        return self.ranks // self.hosts


SIZES = {
    "small": Size(hosts=2, ranks=8, faults=5, rate=100.0),
    "large": Size(hosts=8, ranks=64, faults=14, rate=40.0),
}


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One fault, so long after the one before.

    Attributes:
        host: the index of the host that it is about.
        rank: the rank that it is about.
        for_s: how long it lasts.
    """

    after_s: float
    fault: str
    host: int | None = None
    rank: int | None = None
    for_s: float | None = None

    def __str__(self) -> str:
        about = {"host": self.host, "rank": self.rank, "for_s": self.for_s}
        told = " ".join(f"{name}={value}" for name, value in about.items() if value is not None)
        return f"+{self.after_s:.2f} s  {self.fault} {told}".rstrip()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All of it.

    Attributes:
        waits_for_collector: whether the collector is there before the first rank; else it comes when all ranks log.
        lost: the index of a host that dies in the end and never comes back.
        old_server: whether the NATS server is Debian's.
    """

    seed: int
    carrier: str
    size: Size
    parts: Parts
    steps: list[Step]
    waits_for_collector: bool
    lost: int | None
    old_server: bool = False

    def __str__(self) -> str:
        size = f"{self.size.ranks} ranks on {self.size.hosts} hosts, by {self.carrier}{' of an older version' if self.old_server else ''}"
        first = "collector, ranks" if self.waits_for_collector else "ranks, collector"
        steps = [f"{number:3} {step}" for number, step in enumerate(self.steps)]
        last = "" if self.lost is None else f"host {self.lost} is lost, "
        return "\n".join([f"{size}; {first}", *steps, f"then {last}heal, stop"])


class Model:
    """What a plan foresees. Faults choose by it, and change it.

    Attributes:
        alive: for each host that is there, the ranks that are.
    """

    def __init__(self, carrier: str, size: Size, parts: Parts) -> None:
        self.carrier = carrier
        self.parts = parts
        first = range(0, size.ranks, size.per_host)
        self.alive = {host: [*range(rank, rank + size.per_host)] for host, rank in enumerate(first)}


def make_plan(seed: int, carrier: str = CARRIERS[0], size: str = "small", parts: Parts | None = None) -> Plan:
    """The plan of a seed."""
    from simulated_hosts.faults import FAULTS

    parts = parts or Parts()
    chance = random.Random(f"{seed} {carrier} {size}")
    model = Model(carrier, SIZES[size], parts)
    possible = {name: fault.weight for name, fault in FAULTS.items() if fault.only_by in (None, carrier)}
    steps: list[Step] = []
    while len(steps) < SIZES[size].faults:
        name = chance.choices(list(possible), list(possible.values()))[0]
        about = FAULTS[name].choose(model, chance)
        if about is not None:
            after_s = round(chance.choice((0.0, 0.05, 0.2, 0.4)) * (0.5 + chance.random()), 3)
            steps.append(Step(after_s=after_s, fault=name, **about))
    can_be_lost = [host for host in model.alive if len(model.alive) > 1]
    lost = chance.choice(can_be_lost) if can_be_lost and chance.random() < 0.25 else None
    waits_for_collector = chance.random() < 0.5
    return Plan(
        seed=seed,
        carrier=carrier,
        size=SIZES[size],
        parts=parts,
        steps=steps,
        waits_for_collector=waits_for_collector,
        lost=lost,
        old_server=carrier == "nats" and parts.old_server and chance.random() < 0.3,
    )
