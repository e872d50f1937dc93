"""`asynctrack collect nats://...` in a process of its own, and hosts that bring their parts in another."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from collector_server import CollectorCommand, name_of
from merged_rings import assert_merged
from support import wait_until

from asynctrack.carriers.nats.carrier import NATSCarrier
from asynctrack.carriers.publisher import JournalPublisher
from asynctrack.errors import AsynctrackError

HERE = Path(__file__).parent


class NATSCollectorProcess(CollectorCommand):
    """`asynctrack collect nats://...`."""

    def __init__(
        self, url: str, directory: Path, *options: object, environment: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(directory, "collect", url, *options, environment=environment)

    def has_shards(self, **fields: object) -> None:
        """Wait until it has said how many shards it merges."""
        self.wait_for("shards", **fields)

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def collecting(url: str, directory: Path, *options: object, **how: Any) -> Iterator[NATSCollectorProcess]:
    collector = NATSCollectorProcess(url, directory, *options, **how)
    try:
        yield collector
    finally:
        if collector.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                collector.go_on()
            collector.stop()


@contextlib.contextmanager
def hosts(parts: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Bring all parts below a directory, those that come later too."""
    process = subprocess.Popen([sys.executable, HERE / "carry_to_collector.py", parts, url])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def bring(url: str, part: Path, *, message_bytes: int = 1000, messages: int = 1 << 30) -> None:
    """Bring what the stream lacks of a part."""
    with contextlib.closing(NATSCarrier(url, name_of(part))) as carrier:
        publisher = JournalPublisher(part / "journal", carrier, message_bytes=message_bytes)
        with contextlib.closing(publisher):
            while messages and publisher.advance():
                messages -= 1


def is_merged(run: Path, parts: Sequence[Path], lost: Sequence[Path] = ()) -> bool:
    """Whether a merged run has all of some parts, each byte once, and beginnings of others."""
    with contextlib.suppress(AssertionError, AsynctrackError, OSError):
        assert_merged(run, parts, lost)
        return True
    return False


def wait_until_merged(run: Path, parts: Sequence[Path], deadline_s: float = 20.0, *, lost: Sequence[Path] = ()) -> None:
    """Wait until a merged run has all of some parts; fails as `assert_merged` does."""
    with contextlib.suppress(AssertionError):
        wait_until(lambda: is_merged(run, parts, lost), f"{run} is merged", deadline_s)
    assert_merged(run, parts, lost)
