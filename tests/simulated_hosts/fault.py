"""Fault: what all faults are. Each has a weight, chooses what it is about, and happens; what it has broken it mends itself, or the world does in the end."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, ClassVar

from simulated_hosts.plan import Model, Step

if TYPE_CHECKING:
    from simulated_hosts.world import World

About = dict[str, Any]


class Fault:
    """Something that goes wrong."""

    weight: ClassVar[int] = 2
    # The carrier that it is for; None: any.
    only_by: ClassVar[str | None] = None

    def choose(self, model: Model, chance: random.Random) -> About | None:
        """What it is about; None where it cannot happen now."""
        return {}

    def do(self, world: World, step: Step) -> None:
        raise NotImplementedError


class OfHost(Fault):
    """One that is about a host."""

    def choose(self, model: Model, chance: random.Random) -> About | None:
        return {"host": chance.choice([*model.alive])}


class Lasting(Fault):
    """One that lasts for a while."""

    def choose(self, model: Model, chance: random.Random) -> About | None:
        return {"for_s": duration(chance)}


def duration(chance: random.Random) -> float:
    """For how long something lasts."""
    return round(chance.uniform(0.2, 1.5), 2)
