"""NATS collecting: `asynctrack collect nats://HOST`, which merges what hosts send to a stream of JetStream."""

from __future__ import annotations

import argparse
from pathlib import Path

from asynctrack._system.open_files import raise_limit
from asynctrack.backends.base import ActionRequired
from asynctrack.backends.nats_address import address_problems
from asynctrack.backends.requirements import lacking
from asynctrack.cli.collectors import CollectorOutput, backends_of, check_directory, host_directory, limits_of
from asynctrack.errors import InvalidSettings
from asynctrack.settings import DEFAULT_DIR


def collect(args: argparse.Namespace) -> int:
    """Collect until SIGTERM or Ctrl-C. Return 0.

    Raises:
        InvalidSettings: the address cannot be one, or the servers do not let it.
    """
    if problems := address_problems("the address", args.source):
        raise InvalidSettings(problems)
    if missing := lacking({"nats": "asynctrack[nats]"}):
        raise InvalidSettings([f"asynctrack collect {args.source}: {missing[0]}"])
    from asynctrack.merging.nats.service import NATSCollector, NATSSettings

    backends = backends_of(args.backends)
    raise_limit()
    directory = args.out or Path(DEFAULT_DIR)
    check_directory(directory)
    told = CollectorOutput(as_json=args.json)
    settings = NATSSettings(url=args.source, directory=directory, limits=limits_of(args), backends=backends)
    with host_directory() as host:
        told.listening(args.source, directory)
        try:
            NATSCollector(settings, host, told.change, told.news).collect()
        except ActionRequired as error:
            raise InvalidSettings([str(error)]) from error
    told.ended()
    return 0
