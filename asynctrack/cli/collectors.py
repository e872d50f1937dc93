"""Collectors: what the commands share that merge what hosts send: their limits, their backends, and what they say of runs."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from asynctrack._system import locks, permissions
from asynctrack._system.sizes import bytes_in
from asynctrack._system.throttle import Throttle
from asynctrack._system.wording import counted
from asynctrack.backends.base import Backend
from asynctrack.carriers.nats.wire import SHARDS
from asynctrack.cli import options
from asynctrack.cli.output import Output, print_json, warn
from asynctrack.client.worker_registry import make_directory
from asynctrack.errors import InvalidSettings
from asynctrack.merging.server.limits import ServerLimits
from asynctrack.queue.shm_paths import LOCK_NAME, remove_host

if TYPE_CHECKING:
    from asynctrack.merging.nats.service import CollectorNews
    from asynctrack.merging.server.served_runs import RunChange

_DEFAULTS: Final = ServerLimits()
# What keeps a directory from being made, and may pass by itself.
_MAY_PASS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE)


def add_backends(parser: argparse.ArgumentParser, begin: str = "") -> None:
    """Add the argument that `backends_of` reads; `begin` is what its help begins with."""
    parser.add_argument(
        "--backends", metavar="KIND,...", default="", help=f"{begin}deliver each merged run to these, while it goes on"
    )


def add_lost_after(parser: argparse.ArgumentParser) -> None:
    """Add --lost-after-s."""
    parser.add_argument(
        "--lost-after-s",
        type=options.seconds,
        default=_DEFAULTS.lost_after_s,
        metavar="S",
        help="take a host for lost that has been silent for S seconds (default: %(default)s)",
    )


def add_limits(parser: argparse.ArgumentParser, begin: str = "") -> None:
    """Add the arguments that `limits_of` reads beside --lost-after-s; `begin` is what their help begins with."""
    _add_size(parser, "--max-message", _DEFAULTS.message_bytes, f"{begin}refuse longer messages of hosts")
    _add_size(parser, "--max-inflated", _DEFAULTS.inflated_bytes, f"{begin}refuse messages that inflate to more")
    _add_size(
        parser,
        "--max-file",
        _DEFAULTS.file_bytes,
        f"{begin}refuse larger files of those that were logged by their paths",
    )
    _add_size(parser, "--max-run-bytes", _DEFAULTS.run_bytes, f"{begin}refuse more for one run")
    parser.add_argument(
        "--max-hosts",
        type=options.whole(1),
        default=_DEFAULTS.hosts,
        metavar="N",
        help=f"{begin}refuse more hosts for one run (default: %(default)s)",
    )
    parser.add_argument(
        "--max-rings",
        type=options.whole(1),
        default=_DEFAULTS.rings,
        metavar="N",
        help=f"{begin}refuse more processes for one run, each of which has a ring (default: %(default)s)",
    )
    _add_size(parser, "--keep-free", _DEFAULTS.keep_free_bytes, f"{begin}take nothing while the disk has less left")


def of_nats_only(args: argparse.Namespace) -> list[str]:
    """Return the arguments that were given of those that a shared folder has no use for."""
    defaults, given = argparse.ArgumentParser(), []
    add_backends(defaults)
    add_limits(defaults)
    for name, value in vars(defaults.parse_args([])).items():
        if getattr(args, name) != value:
            given.append(f"--{name.replace('_', '-')}")
    return given


def limits_of(args: argparse.Namespace) -> ServerLimits:
    """Return the limits that the arguments say."""
    return ServerLimits(
        message_bytes=args.max_message,
        inflated_bytes=args.max_inflated,
        file_bytes=args.max_file,
        run_bytes=args.max_run_bytes,
        hosts=args.max_hosts,
        rings=args.max_rings,
        keep_free_bytes=args.keep_free,
        lost_after_s=args.lost_after_s,
    )


def backends_of(names: str) -> dict[str, Backend]:
    """Build the backends that `--backends` names.

    Raises:
        InvalidSettings: one of them cannot be used.
    """
    from asynctrack.merging.server.deliveries import chosen_backends

    if "." in names and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # a class of a script: the user has named it
    return chosen_backends(names)


def check_directory(directory: Path) -> None:
    """Make the directory for merged runs where it is missing, and see that it can be written. A disk that is full may have room soon.

    Raises:
        InvalidSettings: it cannot be written.
    """
    why = None
    try:
        permissions.make_directories(directory)
        if not os.access(directory, os.W_OK | os.X_OK):
            why = "it cannot be written: it is read-only, or another user's"
    except OSError as error:
        why = None if error.errno in _MAY_PASS else f"it cannot be made: {error.strerror or error}"
    if why is not None:
        raise InvalidSettings([f"--dir {directory}: {why}"])


@contextlib.contextmanager
def host_directory() -> Iterator[str]:
    """Make the directory by which delivery processes know what this one can import; its lock says that it is in use."""
    directory = make_directory()
    lock = locks.take(os.path.join(directory, LOCK_NAME))
    try:
        yield directory
    finally:
        remove_host(directory)
        if lock is not None:
            os.close(lock)


class CollectorOutput:
    """Says what happens: a line when it begins, and one for each change of a merged run."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._output = Output()
        self._hosts: dict[str, dict[str, str]] = {}
        self._ended: dict[str, int] = {}  # with so many hosts
        self._throttle = Throttle()

    def listening(self, url: str, directory: Path) -> None:
        """Say where hosts find it."""
        self.say(
            {"event": "listening", "url": url, "dir": str(directory)},
            f"listening: ASYNCTRACK_COLLECT={url} on hosts; merged runs in {directory}",
        )

    def page(self, url: str) -> None:
        """Say where the page is."""
        self.say({"event": "page", "url": url}, f"page: {url}")

    def change(self, change: RunChange) -> None:
        """Say what has changed of a run."""
        known, run = self._hosts.setdefault(change.path, {}), change.path
        for one in change.hosts:
            if known.get(one.host) != one.status:
                known[one.host] = one.status
                word = "goes on" if one.status == "running" else one.status
                facts = {name: fact for name, fact in msgspec.to_builtins(one).items() if name != "rings"}  # many
                event: dict[str, Any] = {"event": "host", "run": run, **facts}
                self.say(event, f"{run}: host {one.host} {word}")
        if change.has_ended and self._ended.get(run) != len(known):
            self.say(
                {"event": "ended", "run": run, "hosts": len(known)}, f"{run}: ended, {counted(len(known), 'host')}"
            )
        self._ended[run] = len(known) if change.has_ended else 0
        if change.trouble and self._throttle.admit((run, change.trouble)):  # it comes and goes with each try
            if self._as_json:
                self.say({"event": "trouble", "run": run, "trouble": change.trouble}, "")
            else:
                warn(f"{run}: {change.trouble}; its hosts wait")

    def news(self, news: CollectorNews) -> None:
        """Say what has changed beside the runs."""
        name, trouble = news.part, news.trouble
        if name is not None:
            what = f"{name.project}/{name.run}: host {name.host}"
            event: dict[str, Any] = {
                "event": "part",
                "project": name.project,
                "run": name.run,
                "host": name.host,
                "refused": trouble,
            }
            self._say_trouble(event, trouble and f"{what} is refused: {trouble}", f"{what} is merged again")
        elif news.shards is not None:
            more = f"; {counted(news.collectors, 'collector')} in all" if news.collectors > 1 else ""
            event = {"event": "shards", "shards": news.shards, "collectors": news.collectors}
            self.say(event, f"merges {news.shards} of {SHARDS} shards of runs{more}")
        else:
            self._say_trouble({"event": "servers", "trouble": trouble}, trouble and f"{trouble}; trying again", "")

    def _say_trouble(self, event: dict[str, Any], trouble: str | None, well: str) -> None:
        if self._as_json or trouble is None:
            if self._as_json or well:
                self.say(event, well)
        else:
            warn(trouble)

    def ended(self) -> None:
        """Say that all is safe."""
        self.say({"event": "stopped"}, "ended; what was acknowledged is on the disk")

    def say(self, event: dict[str, Any], text: str) -> None:
        """Say something, as one or the other."""
        if self._as_json:
            print_json(event)
        else:
            self._output.line(text)
        sys.stdout.flush()


def _add_size(parser: argparse.ArgumentParser, name: str, default: int, what: str) -> None:
    told = f"{default >> 30}G" if default % (1 << 30) == 0 else f"{default >> 20}M"
    parser.add_argument(name, type=_size, default=default, metavar="BYTES", help=f"{what} (default: {told})")


def _size(text: str) -> int:
    """Parse a number of bytes; K, M, G and T are powers of 1024."""
    found = bytes_in(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected a number of bytes, such as 64M, got {text!r}")
    return found
