"""Stream: the NATS server that keeps what hosts send, and the collectors that merge from it, in processes that can be killed, stopped and started again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from nats_server import NATSServer, debian_binary, nats_binary
from nats_stream_reader import with_link
from simulation.processes import MARK

from asynctrack.backends.base import Retry
from asynctrack.carriers.nats.errors import JetStreamError
from asynctrack.carriers.nats.link import NATSLink
from asynctrack.carriers.nats.stream import stored_in
from asynctrack.carriers.nats.wire import STREAM, WORDS_ROOT, WORDS_STREAM, key_of, subject_of, word_in
from asynctrack.carriers.parts import split_name
from asynctrack.carriers.wire import PartName
from simulated_hosts.collecting import KEEP_FREE, Collecting
from simulated_hosts.proxy import Proxy

# Far more than a server needs to answer. Arbitrary.
_ANSWER_S: Final = 30.0
# A collector has the stream forget what it has merged a second later.
_FORGET_S: Final = 5.0


class NATSCollecting(Collecting):
    """A NATS server, with a way through the network to it for each host, and `asynctrack collect nats://...`, of which there may be two.

    Attributes:
        server: keeps the stream.
    """

    def __init__(self, directory: Path, lost_after_s: float, *, old_server: bool = False) -> None:
        super().__init__(directory, lost_after_s, old_server=old_server)
        environment = {**os.environ, MARK: str(self.directory)}
        binary = debian_binary() if old_server else nats_binary()
        self.server = NATSServer(directory / "nats", binary=binary, environment=environment)
        self._other: subprocess.Popen[bytes] | None = None

    def of_host(self, number: int) -> Mapping[str, str]:
        self.proxies[number] = Proxy(self.server.port)
        return {"ASYNCTRACK_COLLECT": f"nats://{self.proxies[number].address}"}

    def command(self) -> list[str]:
        lost_after_s = f"--lost-after-s={self.lost_after_s:g}"
        return ["collect", self.server.url, "--dir", str(self.out), "--keep-free", KEEP_FREE, lost_after_s]

    # Collectors

    @property
    def _living(self) -> list[subprocess.Popen[bytes]]:
        return [one for one in (self._process, self._other) if one is not None and one.poll() is None]

    def start_other(self) -> None:
        """Start the second collector, if it does not run."""
        if self._other is None or self._other.poll() is not None:
            self._other = self._started()

    def holder(self) -> subprocess.Popen[bytes]:
        """The collector that has the run open, or else one that lives."""
        lock = self.run / "lock"
        return next((one for one in self._living if _has_open(one.pid, lock)), self._living[0])

    def kill(self) -> None:
        super().kill()
        if self._other is not None:
            self._other.kill()
            self._other.wait()

    def send(self, number: signal.Signals) -> None:
        for process in self._living:
            process.send_signal(number)

    def stop(self) -> str | None:
        wrong = None if self._other is None or self._other.poll() is not None else self._stopped(self._other)
        return super().stop() or wrong

    def close(self) -> None:
        super().close()
        self.server.kill()

    # The stream

    def restart_server(self) -> None:
        """Kill the server, and start it again."""
        self.server.kill()
        self.server.start()

    def api(self, verb: str, what: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Ask JetStream; a stream that is not there is waited for, since somebody makes it."""
        deadline = time.monotonic() + _ANSWER_S
        while True:
            try:
                found: dict[str, Any] = with_link(self.server.url, lambda link: link.api(verb, dict(what or {})))
                return found
            except (Retry, JetStreamError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def let_forget(self) -> None:
        """Wait until the stream has no more than the last messages of what it has now; not for long, since a host may be away."""
        begun, until = self.api(f"STREAM.INFO.{STREAM}")["state"], time.monotonic() + _FORGET_S
        kept = len(self.proxies)
        while time.monotonic() < until:
            state = self.api(f"STREAM.INFO.{STREAM}")["state"]
            if state["last_seq"] - state["messages"] >= begun["last_seq"] - kept:
                return
            time.sleep(0.1)

    def delete_consumers(self) -> None:
        """Delete all consumers of the stream."""
        for name in self.api(f"CONSUMER.NAMES.{STREAM}").get("consumers") or ():
            with contextlib.suppress(JetStreamError):  # its collector was quicker
                with_link(self.server.url, lambda link, name=name: link.api(f"CONSUMER.DELETE.{STREAM}.{name}"))

    def wants(self, part: Path) -> bool:
        named = split_name(part.name)
        assert named is not None
        name = PartName(part.parent.name, *named)

        async def look(link: NATSLink) -> bool:
            said = await _last(link, WORDS_STREAM, f"{WORDS_ROOT}.{key_of(name)}")
            word = None if said is None else word_in(said.data)
            last = await _last(link, STREAM, subject_of(name))
            answered = last.sent.answers if last is not None and last.sent is not None else 0
            return word is not None and word.want is not None and word.number > answered

        with contextlib.suppress(Retry, JetStreamError):
            return bool(with_link(self.server.url, look))
        return False


async def _last(link: NATSLink, stream: str, subject: str) -> Any:
    with contextlib.suppress(JetStreamError):
        return stored_in(await link.api(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject}))
    return None


def _has_open(pid: int, path: Path) -> bool:
    with contextlib.suppress(OSError):
        return any(os.path.realpath(one) == os.path.realpath(path) for one in Path(f"/proc/{pid}/fd").iterdir())
    return False
