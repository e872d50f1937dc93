"""Lower bounds of every tracker: nothing, a list, an encoder, a file; and the queues of two logging libraries."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from bench.peers.peer import LENGTH_BYTES, Data, Opened


def nothing(_: Path) -> Opened:
    return Opened(lambda data, step: None, lambda: None)


def deque(_: Path) -> Opened:
    from collections import deque

    kept: deque[Data] = deque()
    return Opened(lambda data, step: kept.append(data), lambda: None)


def encode(_: Path) -> Opened:
    import msgspec

    encode = msgspec.msgpack.Encoder().encode
    return Opened(lambda data, step: encode((step, data)), lambda: None)


def encode_and_write(directory: Path) -> Opened:
    import msgspec

    encode = msgspec.json.Encoder().encode
    fd = os.open(directory / "log.jsonl", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    return Opened(lambda data, step: os.write(fd, encode({"step": step, **data}) + b"\n"), lambda: os.close(fd))


def frame_and_write(directory: Path) -> Opened:
    """Write each record as one MessagePack frame, its length before it, as a journal of one's own would."""
    import msgspec

    encode = msgspec.msgpack.Encoder().encode
    fd = os.open(directory / "log.msgpack", os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def log(data: Data, step: int) -> None:
        payload = encode((step, data))
        os.write(fd, len(payload).to_bytes(LENGTH_BYTES, "little") + payload)

    return Opened(log, lambda: os.close(fd))


def json_and_flush(directory: Path) -> Opened:
    file = open(directory / "log.jsonl", "w")  # noqa: SIM115  # until `finish`

    def log(data: Data, step: int) -> None:
        file.write(json.dumps({"step": step, **data}) + "\n")
        file.flush()

    return Opened(log, file.close)


def logging_queue(directory: Path) -> Opened:
    import logging
    import logging.handlers
    import queue

    records: queue.SimpleQueue[Any] = queue.SimpleQueue()
    handler = logging.FileHandler(directory / "log.jsonl")
    handler.setFormatter(logging.Formatter("%(message)s"))
    listener = logging.handlers.QueueListener(records, handler)
    logger = logging.getLogger("peer")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.handlers.QueueHandler(records))
    listener.start()

    def finish() -> None:
        listener.stop()
        handler.close()

    return Opened(lambda data, step: logger.info(json.dumps({"step": step, **data})), finish)


def loguru(directory: Path) -> Opened:
    from loguru import logger

    logger.remove()
    logger.add(directory / "log.jsonl", enqueue=True, format="{message}")

    def finish() -> None:
        logger.complete()
        logger.remove()

    return Opened(lambda data, step: logger.info(json.dumps({"step": step, **data})), finish)
