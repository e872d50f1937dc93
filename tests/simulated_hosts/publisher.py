"""A second publisher of a host's journal, beside the host's own: `python -m simulated_hosts.publisher JOURNAL SECONDS`.

It goes to the collector that `ASYNCTRACK_COLLECT` names, and sends small messages, so that its cuts are others than those of the host.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path

from asynctrack.backends.base import Signal
from asynctrack.backends.nats_address import is_nats
from asynctrack.carriers.http import HTTPCarrier
from asynctrack.carriers.nats.carrier import NATSCarrier
from asynctrack.carriers.parts import split_name
from asynctrack.carriers.publisher import JournalPublisher
from asynctrack.carriers.wire import PartName
from asynctrack.errors import PartIncomplete

_MESSAGE_BYTES = 5000


def main(journal: Path, for_s: float) -> int:
    named = split_name(journal.parent.name)
    assert named is not None
    url, name = os.environ["ASYNCTRACK_COLLECT"], PartName(journal.parent.parent.name, *named)
    carrier = NATSCarrier(url, name) if is_nats(url) else HTTPCarrier(url, name)
    publisher = JournalPublisher(journal, carrier, message_bytes=_MESSAGE_BYTES)
    until = time.monotonic() + for_s
    while time.monotonic() < until:
        with contextlib.suppress(PartIncomplete, OSError, Signal):
            if publisher.advance() is not None:
                continue
        time.sleep(0.01)
    publisher.close()
    carrier.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2])))
