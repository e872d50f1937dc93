"""Stream faults: what can go wrong between hosts and collectors where a NATS server keeps a stream."""

from __future__ import annotations

import shutil
import signal
from typing import TYPE_CHECKING, Final

from asynctrack.carriers.nats.wire import STREAM
from simulated_hosts.fault import Fault, Lasting, OfHost
from simulated_hosts.plan import Step

if TYPE_CHECKING:
    from simulated_hosts.world import World


# Longer than a lease lasts.
_LEASE_S: Final = 3.5


class KillServer(Fault):
    """SIGKILL for the server."""

    weight = 3
    only_by = "nats"

    def do(self, world: World, step: Step) -> None:
        world.stream.restart_server()


class NoServer(Lasting):
    """The server is away for a while."""

    only_by = "nats"

    def do(self, world: World, step: Step) -> None:
        world.stream.server.kill()
        world.let_pass(step.for_s)
        world.stream.server.start()


class StopServer(Lasting):
    """The server stands still: its connections stay, and nothing answers."""

    only_by = "nats"

    def do(self, world: World, step: Step) -> None:
        world.stream.server.pause()
        world.let_pass(step.for_s)
        world.stream.server.go_on()


class KillServerAndDelivery(OfHost):
    """SIGKILL for the server and what sends to it from one host, at once."""

    only_by = "nats"

    def do(self, world: World, step: Step) -> None:
        world.machine(step).kill("delivery")
        world.stream.restart_server()


class KillServerAndCollector(Fault):
    """SIGKILL for the server and what merges, at once."""

    only_by = "nats"

    def do(self, world: World, step: Step) -> None:
        world.collecting.kill()
        world.stream.restart_server()
        world.collecting.start()


class OlderStream(Fault):
    """The server's store is put back from a copy: what has come since is lost there, though it was acknowledged; what collectors have said and their leases, too."""

    only_by = "nats"

    def do(self, world: World, step: Step) -> None:
        server, copy = world.stream.server, world.directory / "store-copy"
        server.kill()
        shutil.rmtree(copy, ignore_errors=True)
        server.save_store(copy)
        server.start()
        world.wait_for_growth()
        server.kill()
        server.restore(copy)
        server.start()


class EmptyStream(Fault):
    """The server's store is gone."""

    weight = 1
    only_by = "nats"

    def do(self, world: World, step: Step) -> None:
        world.stream.server.kill()
        world.stream.server.restore(None)
        world.stream.server.start()


class PurgedStream(Fault):
    """Somebody removes all messages, merged or not."""

    only_by = "nats"

    def do(self, world: World, step: Step) -> None:
        world.stream.api(f"STREAM.PURGE.{STREAM}")


class DeletedConsumers(Fault):
    """Somebody deletes all consumers of the stream."""

    only_by = "nats"

    def do(self, world: World, step: Step) -> None:
        world.stream.delete_consumers()


class FullStream(Lasting):
    """The stream takes no more than it has, for a while."""

    only_by = "nats"

    def do(self, world: World, step: Step) -> None:
        found = world.stream.api(f"STREAM.INFO.{STREAM}")
        world.stream.api(f"STREAM.UPDATE.{STREAM}", {**found["config"], "max_bytes": max(1, found["state"]["bytes"])})
        world.let_pass(step.for_s)
        world.stream.api(f"STREAM.UPDATE.{STREAM}", found["config"])


class CollectorDiesBesideAnother(Fault):
    """SIGKILL for the collector that merges the run, while there is a second one, which takes over."""

    only_by = "nats"

    def do(self, world: World, step: Step) -> None:
        world.stream.start_other()
        holder = world.stream.holder()
        holder.kill()
        holder.wait()
        world.wait_for_growth()
        world.collecting.start()


class CollectorStopsBesideAnother(Fault):
    """The collector that merges the run stands still for longer than its lease lasts, while another waits for the run."""

    weight = 1
    only_by = "nats"

    def do(self, world: World, step: Step) -> None:
        world.stream.start_other()
        world.wait_for_growth()
        holder = world.stream.holder()
        holder.send_signal(signal.SIGSTOP)
        world.let_pass(_LEASE_S)
        holder.send_signal(signal.SIGCONT)
        world.wait_for_growth()


STREAM_FAULTS: tuple[type[Fault], ...] = (
    KillServer,
    NoServer,
    StopServer,
    KillServerAndDelivery,
    KillServerAndCollector,
    OlderStream,
    EmptyStream,
    PurgedStream,
    DeletedConsumers,
    FullStream,
    CollectorDiesBesideAnother,
    CollectorStopsBesideAnother,
)
