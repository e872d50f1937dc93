"""Actions: the table of what can happen. Each has a weight, chooses its arguments where it can happen now, and does it.

To add one, write a class and put it into `ACTIONS`: `choose` looks at what the plan foresees, and changes it; `do` gets what it has chosen. A step that
meets something else than was foreseen (a process that has ended by itself) does nothing.
"""

from __future__ import annotations

import random
import signal
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from simulation.backends import WEATHERS
from simulation.plan import Model, RunSession, plan_session

if TYPE_CHECKING:
    from simulation.world import World

Arguments = dict[str, Any]

# What looks at runs while all this goes on. "RUN" stands for one's directory, "DIR" for the one above.
LOOKS = (
    ["ls", "DIR"],
    ["ls", "--json", "DIR"],
    ["verify", "RUN"],
    ["verify", "RUN"],
    ["show", "RUN"],
    ["tail", "RUN"],
    ["export", "RUN", "--format", "jsonl", "--output", "OUT", "--force"],
    ["workers"],
)


class Action:
    """Something that happens."""

    weight: ClassVar[int] = 1

    def choose(self, model: Model, chance: random.Random) -> Arguments | None:
        """What it is to be done with; None where it cannot happen now."""
        raise NotImplementedError

    def do(self, world: World, **arguments: Any) -> None:
        raise NotImplementedError


class Start(Action):
    """A process opens a run, for the first time or again, and logs."""

    weight = 9

    def choose(self, model: Model, chance: random.Random) -> Arguments | None:
        out = [state for state in model.runs.values() if not state.callers]
        if not (state := _one(out, chance)):
            return None
        return {"run": state.plan.id, "session": plan_session(chance, state), "wait_s": chance.choice((0.0, 1.0, 1.0))}

    def do(self, world: World, run: str, session: RunSession, wait_s: float) -> None:
        world.start(session, wait_s)


class Rival(Start):
    """The same where another process has the run open: it is refused until that has ended."""

    weight = 1

    def choose(self, model: Model, chance: random.Random) -> Arguments | None:
        taken = [state for state in model.runs.values() if len(state.callers) == 1]
        if not (state := _one(taken, chance)):
            return None
        return {"run": state.plan.id, "session": plan_session(chance, state), "wait_s": 0.0}


class End(Action):
    """A process is told to end its run, and itself."""

    weight = 3

    def choose(self, model: Model, chance: random.Random) -> Arguments | None:
        return _leaving(model, model.callers(stopped=False), chance)

    def do(self, world: World, caller: str) -> None:
        world.tell_to_end(caller)


class KillCaller(Action):
    """SIGKILL for a process that logs, perhaps a stopped one."""

    weight = 3

    def choose(self, model: Model, chance: random.Random) -> Arguments | None:
        return _leaving(model, model.callers(), chance)

    def do(self, world: World, caller: str) -> None:
        world.kill_caller(caller)


class KillBoth(KillCaller):
    """SIGKILL for a process that logs and its worker at once."""

    weight = 2

    def do(self, world: World, caller: str) -> None:
        world.kill_worker(caller)
        world.kill_caller(caller)


class KillWorker(Action):
    """SIGKILL for a worker."""

    weight = 3

    def choose(self, model: Model, chance: random.Random) -> Arguments | None:
        return _caller(model.callers(), chance)

    def do(self, world: World, caller: str) -> None:
        world.kill_worker(caller)


class KillDelivery(Action):
    """SIGKILL for the delivery processes."""

    weight = 2

    def choose(self, model: Model, chance: random.Random) -> Arguments | None:
        slow = {"sql", "parquet", "own-process"}
        return {} if any(slow & set(run.plan.backends) for run in model.runs.values() if run.callers) else None

    def do(self, world: World) -> None:
        world.kill("delivery")


class KillAll(Action):
    """SIGKILL for everything at once."""

    def choose(self, model: Model, chance: random.Random) -> Arguments | None:
        if not model.callers():
            return None
        for state in model.runs.values():
            state.callers.clear()
        model.faults.discard("worker")
        return {}

    def do(self, world: World) -> None:
        world.kill("caller", "worker", "delivery", "command")


class StopCaller(Action):
    """SIGSTOP for a process that logs."""

    def choose(self, model: Model, chance: random.Random) -> Arguments | None:
        arguments = _caller(model.callers(stopped=False), chance)
        if arguments:
            run = arguments["caller"].partition("-")[0]
            model.runs[run].callers[arguments["caller"]] = True
        return arguments

    def do(self, world: World, caller: str) -> None:
        world.signal_caller(caller, signal.SIGSTOP)


class ContinueCaller(Action):
    """SIGCONT for one that is stopped."""

    weight = 3

    def choose(self, model: Model, chance: random.Random) -> Arguments | None:
        arguments = _caller(model.callers(stopped=True), chance)
        if arguments:
            run = arguments["caller"].partition("-")[0]
            model.runs[run].callers[arguments["caller"]] = False
        return arguments

    def do(self, world: World, caller: str) -> None:
        world.signal_caller(caller, signal.SIGCONT)


class StopWorkers(Action):
    """SIGSTOP for all workers."""

    def choose(self, model: Model, chance: random.Random) -> Arguments | None:
        return _fault(model, "worker") if model.callers() else None

    def do(self, world: World) -> None:
        world.signal("worker", signal.SIGSTOP)


class ContinueWorkers(Action):
    """SIGCONT for those that are stopped."""

    weight = 4

    def choose(self, model: Model, chance: random.Random) -> Arguments | None:
        return _healed(model, "worker")

    def do(self, world: World) -> None:
        world.signal("worker", signal.SIGCONT)


class FillDisk(Action):
    """The small disk is filled to the last page."""

    weight = 2

    def choose(self, model: Model, chance: random.Random) -> Arguments | None:
        return _fault(model, "small") if _has_run_on(model, "small") else None

    def do(self, world: World) -> None:
        world.fill(world.disks["small"])


class FreeDisk(Action):
    """It has room again."""

    weight = 3

    def choose(self, model: Model, chance: random.Random) -> Arguments | None:
        return _healed(model, "small")

    def do(self, world: World) -> None:
        world.free(world.disks["small"])


class IllDisk(Action):
    """The ill disk hangs, or fails: all of it, or only what is written or synced."""

    weight = 3

    def choose(self, model: Model, chance: random.Random) -> Arguments | None:
        if not _has_run_on(model, "ill") or _fault(model, "ill") is None:
            return None
        return {
            "how": chance.choice(("hang", "hang", "fail")),
            "kinds": chance.choice(([], ["write"], ["sync"], ["read"], ["names", "open"])),
        }

    def do(self, world: World, how: str, kinds: list[str]) -> None:
        world.make_ill(how, kinds)


class HealDisk(Action):
    """It goes on."""

    weight = 4

    def choose(self, model: Model, chance: random.Random) -> Arguments | None:
        return _healed(model, "ill")

    def do(self, world: World) -> None:
        world.heal_disk()


class FillMemory(Action):
    """Shared memory is filled to the last page: no queue can be made."""

    def choose(self, model: Model, chance: random.Random) -> Arguments | None:
        return _fault(model, "memory") if model.parts.mounts else None

    def do(self, world: World) -> None:
        world.fill(world.memory)


class FreeMemory(Action):
    """It has room again."""

    weight = 3

    def choose(self, model: Model, chance: random.Random) -> Arguments | None:
        return _healed(model, "memory")

    def do(self, world: World) -> None:
        world.free(world.memory)


class Flap(Action):
    """A backend of our own falls ill, in another way, or is well again."""

    weight = 5

    def choose(self, model: Model, chance: random.Random) -> Arguments | None:
        own = [
            f"{run}.{name}"
            for run, state in model.runs.items()
            for name in state.plan.backends
            if name.startswith("own")
        ]
        if not own:
            return None
        backend = chance.choice(own)
        if backend in model.faults and chance.random() < 0.6:
            model.faults.discard(backend)
            return {"backend": backend, "weather": ""}
        model.faults.add(backend)
        weathers = [weather for weather in WEATHERS if weather != "die" or not backend.endswith("caller")]
        return {"backend": backend, "weather": chance.choice(weathers)}

    def do(self, world: World, backend: str, weather: str) -> None:
        world.set_weather(backend, weather)


class Look(Action):
    """A person looks: `ls`, `verify`, ... must come back, and find nothing wrong."""

    weight = 3

    def choose(self, model: Model, chance: random.Random) -> Arguments | None:
        begun = [run for run, state in model.runs.items() if state.sessions and state.plan.disk not in model.faults]
        if not begun:
            return None
        return {"run": chance.choice(begun), "command": chance.choice(LOOKS), "times_out": "ill" in model.faults}

    def do(self, world: World, run: str, command: list[str], times_out: bool) -> None:
        if not times_out:
            world.look(run, command)


class Sync(Action):
    """A person syncs, while all this goes on."""

    weight = 2

    def choose(self, model: Model, chance: random.Random) -> Arguments | None:
        begun = [run for run, state in model.runs.items() if state.sessions]
        return {"run": chance.choice(begun), "all": chance.random() < 0.5} if begun else None

    def do(self, world: World, run: str, all: bool) -> None:
        world.sync_beside(run, all=all)


class KillCommands(Action):
    """SIGKILL for the commands that are under way."""

    def choose(self, model: Model, chance: random.Random) -> Arguments | None:
        return {}

    def do(self, world: World) -> None:
        world.kill("command")


class Remove(Action):
    """A person removes a run: refused while somebody is at work on it, else it begins anew."""

    def choose(self, model: Model, chance: random.Random) -> Arguments | None:
        out = [run for run, state in model.runs.items() if state.sessions and not state.callers]
        sound = [run for run in out if model.runs[run].plan.disk not in model.faults]
        return {"run": chance.choice(sound)} if sound else None

    def do(self, world: World, run: str) -> None:
        world.remove(run)


ACTIONS: dict[str, Action] = {
    kind.__name__: kind()
    for kind in (
        Start, Rival, End, KillCaller, KillBoth, KillWorker, KillDelivery, KillAll, StopCaller, ContinueCaller, StopWorkers, ContinueWorkers,
        FillDisk, FreeDisk, IllDisk, HealDisk, FillMemory, FreeMemory, Flap, Look, Sync, KillCommands, Remove,
    )
}  # fmt: skip


def _one(things: list[Any], chance: random.Random) -> Any:
    return chance.choice(things) if things else None


def _caller(callers: list[tuple[str, str]], chance: random.Random) -> Arguments | None:
    return {"caller": chance.choice(callers)[1]} if callers else None


def _leaving(model: Model, callers: list[tuple[str, str]], chance: random.Random) -> Arguments | None:
    """A caller that is not there from here on."""
    if not callers:
        return None
    run, name = chance.choice(callers)
    del model.runs[run].callers[name]
    return {"caller": name}


def _fault(model: Model, fault: str) -> Arguments | None:
    if fault in model.faults:
        return None
    model.faults.add(fault)
    return {}


def _healed(model: Model, fault: str) -> Arguments | None:
    if fault not in model.faults:
        return None
    model.faults.discard(fault)
    return {}


def _has_run_on(model: Model, disk: str) -> bool:
    return any(state.plan.disk == disk and state.sessions for state in model.runs.values())


def as_plain(arguments: Arguments) -> Arguments:
    """Arguments as JSON has them."""
    return dict(msgspec.to_builtins(arguments))
