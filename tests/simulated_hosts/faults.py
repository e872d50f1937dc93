"""Faults: the table of what can go wrong.

To add one, write a class and put it into `FAULTS`: `choose` looks at what the plan foresees, and changes it; `do` gets what it has chosen.
"""

from __future__ import annotations

import random
import shutil
import signal
from typing import TYPE_CHECKING

from simulated_hosts.fault import About, Fault, Lasting, OfHost, duration
from simulated_hosts.plan import Model, Step
from simulated_hosts.stream_faults import STREAM_FAULTS

if TYPE_CHECKING:
    from simulated_hosts.world import World

# What a network may do for a while.
_SLOW_BYTES_S = 60_000.0
# Longer than any loop of ours waits. Arbitrary.
_CLOCK_S = -3600


class OfNetwork(OfHost):
    """One of a host's way through the network, which lasts for a while."""

    def choose(self, model: Model, chance: random.Random) -> About | None:
        if model.carrier == "folder":
            return None
        return {**(super().choose(model, chance) or {}), "for_s": duration(chance)}


class KillCollector(Fault):
    """SIGKILL for what merges."""

    weight = 3

    def do(self, world: World, step: Step) -> None:
        world.collecting.kill()
        world.collecting.start()


class StopCollector(Lasting):
    """What merges stands still, as a machine does that swaps."""

    def do(self, world: World, step: Step) -> None:
        world.collecting.send(signal.SIGSTOP)
        world.let_pass(step.for_s)
        world.collecting.send(signal.SIGCONT)


class NoCollector(StopCollector):
    """What merges is away for a while."""

    def do(self, world: World, step: Step) -> None:
        world.collecting.kill()
        world.let_pass(step.for_s)
        world.collecting.start()


class SecondCollector(Fault):
    """Another wants to merge the same run, and is refused."""

    weight = 1

    def choose(self, model: Model, chance: random.Random) -> About | None:
        return None if model.carrier == "nats" else {}  # there it waits until it is needed

    def do(self, world: World, step: Step) -> None:
        world.wait_for_growth()
        second = world.collecting.beside()
        told = second.communicate()[0].decode()
        if world.collecting.runs and (second.returncode != 1 or "writes to" not in told):
            world.problems.append(f"a second collector was not refused: {second.returncode} {told}")


class OlderStore(Fault):
    """The merged run is put back from a copy: what has come since is lost there, though it was acknowledged."""

    def do(self, world: World, step: Step) -> None:
        run, copy = world.collecting.run, world.directory / "copy"
        world.wait_for_growth()
        world.collecting.kill()
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(run, copy)
        world.collecting.start()
        world.wait_for_growth()
        world.collecting.let_forget()
        world.collecting.kill()
        shutil.rmtree(run)
        shutil.copytree(copy, run)
        world.collecting.start()


class EmptyStore(Fault):
    """The merged run is gone."""

    weight = 1

    def do(self, world: World, step: Step) -> None:
        world.wait_for_growth()
        world.collecting.let_forget()
        world.collecting.kill()
        shutil.rmtree(world.collecting.run)
        world.collecting.start()


class FullDisk(StopCollector):
    """The disk of the merged run is full for a while."""

    def choose(self, model: Model, chance: random.Random) -> About | None:
        return super().choose(model, chance) if model.parts.mounts else None

    def do(self, world: World, step: Step) -> None:
        world.fill_disk()
        world.let_pass(step.for_s)
        world.free_disk()


class ClockSetBack(OfHost):
    """The clock of a host is set back by an hour."""

    weight = 1

    def choose(self, model: Model, chance: random.Random) -> About | None:
        return super().choose(model, chance) if model.parts.clocks else None

    def do(self, world: World, step: Step) -> None:
        world.machine(step).set_clock(_CLOCK_S)


class KillWorker(OfHost):
    """SIGKILL for a host's worker."""

    weight = 3

    def do(self, world: World, step: Step) -> None:
        world.machine(step).kill("worker")


class KillWorkerAndCollector(OfHost):
    """SIGKILL for a host's worker and what merges, at once."""

    def do(self, world: World, step: Step) -> None:
        world.machine(step).kill("worker")
        world.collecting.kill()
        world.collecting.start()


class KillAllButRanks(Fault):
    """SIGKILL for all that is ours beside the loops: every worker, every delivery, and what merges."""

    def do(self, world: World, step: Step) -> None:
        world.collecting.kill()
        for machine in world.machines:
            machine.kill("worker", "delivery")
        world.collecting.start()


class KillRank(Fault):
    """SIGKILL for a rank."""

    def choose(self, model: Model, chance: random.Random) -> About | None:
        host = chance.choice([*model.alive])
        if len(model.alive[host]) < 2:
            return None
        rank = chance.choice(model.alive[host])
        model.alive[host].remove(rank)
        return {"host": host, "rank": rank}

    def do(self, world: World, step: Step) -> None:
        machine = world.machine(step)
        machine.kill_rank(machine.latest(world.rank(step)))


class KillRankAndWorker(KillRank):
    """SIGKILL for a rank and the worker that would say so, at once."""

    weight = 1

    def do(self, world: World, step: Step) -> None:
        world.machine(step).kill("worker")
        super().do(world, step)


class RestartRank(Fault):
    """SIGKILL for a rank, which is started again."""

    weight = 1

    def choose(self, model: Model, chance: random.Random) -> About | None:
        host = chance.choice([*model.alive])
        others = model.alive[host]
        return {"host": host, "rank": chance.choice(others)} if len(others) > 1 else None

    def do(self, world: World, step: Step) -> None:
        machine, rank = world.machine(step), world.rank(step)
        machine.kill_rank(machine.latest(rank))
        world.start_ranks(machine, [rank])


class LargeRecord(Fault):
    """A rank logs a record of two megabytes."""

    weight = 1

    def choose(self, model: Model, chance: random.Random) -> About | None:
        host = chance.choice([*model.alive])
        return {"host": host, "rank": chance.choice(model.alive[host])}

    def do(self, world: World, step: Step) -> None:
        (world.directory / "large" / world.machine(step).latest(world.rank(step))).touch()


class KillDelivery(OfNetwork):
    """SIGKILL for what brings a host's journal to the server."""

    weight = 3

    def choose(self, model: Model, chance: random.Random) -> About | None:
        return _without_duration(super().choose(model, chance))

    def do(self, world: World, step: Step) -> None:
        world.machine(step).kill("delivery")


class KillDeliveryAndCollector(KillDelivery):
    """SIGKILL for both ends of a host's connection, at once."""

    weight = 2

    def do(self, world: World, step: Step) -> None:
        super().do(world, step)
        world.collecting.kill()
        world.collecting.start()


class CutNetwork(OfNetwork):
    """The network of a host is cut: connections break, and none can be made."""

    def do(self, world: World, step: Step) -> None:
        proxy = world.proxy(step)
        proxy.cut()
        world.let_pass(step.for_s)
        proxy.heal()


class StalledNetwork(OfNetwork):
    """What a host sends is held, and comes late, when it may have been sent again."""

    def do(self, world: World, step: Step) -> None:
        proxy = world.proxy(step)
        proxy.stall()
        world.let_pass(step.for_s)
        proxy.heal()


class HalfOpenNetwork(OfNetwork):
    """What a host sends is held, and never comes: the host takes its connection for open meanwhile."""

    def do(self, world: World, step: Step) -> None:
        proxy = world.proxy(step)
        proxy.stall()
        world.let_pass(step.for_s)
        proxy.heal(drop=True)


class SlowNetwork(OfNetwork):
    """The network of a host is slow for a while, which the faults that follow meet."""

    def choose(self, model: Model, chance: random.Random) -> About | None:
        return _without_duration(super().choose(model, chance))

    def do(self, world: World, step: Step) -> None:
        world.proxy(step).slow_down(_SLOW_BYTES_S)


class SecondPublisher(OfNetwork):
    """Another process brings the same journal beside the host's own."""

    weight = 1

    def do(self, world: World, step: Step) -> None:
        world.publish_beside(world.machine(step), step.for_s)


class HostDies(OfHost):
    """A host dies whole, and comes back some time: `asynctrack sync` brings what it has left."""

    weight = 1

    def choose(self, model: Model, chance: random.Random) -> About | None:
        if len(model.alive) < 2:
            return None
        host = chance.choice([*model.alive])
        del model.alive[host]
        return {"host": host, "for_s": duration(chance)}

    def do(self, world: World, step: Step) -> None:
        machine = world.machine(step)
        machine.die()
        world.let_pass(step.for_s)
        world.sync_beside(machine)


class HostStartsAgain(OfHost):
    """A host dies whole, and the launcher starts all its ranks again there."""

    weight = 1

    def choose(self, model: Model, chance: random.Random) -> About | None:
        return {**(super().choose(model, chance) or {}), "for_s": duration(chance)}

    def do(self, world: World, step: Step) -> None:
        machine = world.machine(step)
        ranks = [rank for rank in world.ranks(machine) if machine.latest(rank) not in machine.killed]
        machine.die()
        world.let_pass(step.for_s)
        machine.has_died = False
        world.start_ranks(machine, ranks)


class Gap(OfHost):
    """The first segment of a host's journal cannot be seen for a while, by a collector that begins anew."""

    weight = 1

    def do(self, world: World, step: Step) -> None:
        machine = world.machine(step)
        machine.kill("worker")
        journal = machine.part / "journal"
        world.wait(lambda: len([*journal.iterdir()]) > 1, f"{machine.name} has two segments")
        world.collecting.kill()
        first = min(journal.iterdir())
        aside = first.rename(machine.directory / "aside")
        shutil.rmtree(world.collecting.run, ignore_errors=True)
        world.collecting.start()
        world.wait_for_growth()
        aside.rename(first)


FAULTS: dict[str, Fault] = {
    fault.__name__: fault()
    for fault in (
        KillCollector,
        StopCollector,
        NoCollector,
        SecondCollector,
        OlderStore,
        EmptyStore,
        FullDisk,
        ClockSetBack,
        KillWorker,
        KillWorkerAndCollector,
        KillAllButRanks,
        KillRank,
        KillRankAndWorker,
        RestartRank,
        LargeRecord,
        KillDelivery,
        KillDeliveryAndCollector,
        CutNetwork,
        StalledNetwork,
        HalfOpenNetwork,
        SlowNetwork,
        SecondPublisher,
        HostDies,
        HostStartsAgain,
        Gap,
        *STREAM_FAULTS,
    )
}


def _duration(chance: random.Random) -> float:
    return round(chance.uniform(0.2, 1.5), 2)


def _without_duration(about: About | None) -> About | None:
    return None if about is None else {"host": about["host"]}
