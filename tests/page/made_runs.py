"""Makes runs to look at: `python made_runs.py DIRECTORY`. A sweep, and runs of every other kind that a page has to show."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy

import asynctrack

HOSTILE = "</script><script>alert(1)</script>"
# Where the spike of the run "spike" is, and what it is.
SPIKE_STEP, SPIKE = 43_210, 50.0


def sweep(directory: str, count: int = 12, records: int = 300) -> None:
    """Runs that differ in `lr` and `layers`, with losses that depend on them."""
    for at in range(count):
        noise = random.Random(at)
        lr, layers = 10.0 ** -(1 + at % 4), 2 + at // 4
        config = {"lr": lr, "layers": layers, "optimizer": {"name": "adam" if at % 2 else "sgd"}, "epochs": 3}
        with asynctrack.init(
            "sweep", id=f"run-{at:02}", dir=directory, config=config, tags=["baseline"] if at < 3 else ["tuned"]
        ) as run:
            run.define_metric("val/loss", goal="minimize")
            for step in range(records):
                loss = math.exp(-step * lr * 2) + 0.05 * noise.random()
                row: dict[str, Any] = {"train/loss": loss, "train/acc": 1 - loss / 2}
                if step % 10 == 0:
                    row["val/loss"] = loss * 1.1
                run.log(row, step=step)
            run.summary["best"] = 0.1 * (at + 1)


def spike(directory: str, records: int = 100_000) -> None:
    """A long run with one spike, which every drawing has to show."""
    with asynctrack.init("long", id="spike", dir=directory, queue_bytes=64 << 20) as run:
        for step in range(records):
            run.log({"loss": SPIKE if step == SPIKE_STEP else 1 + math.sin(step / 500), "grad": step % 7}, step=step)


def broken_numbers(directory: str) -> None:
    """NaN and infinities among numbers, and a metric without any other."""
    with asynctrack.init("odd", id="broken-numbers", dir=directory) as run:
        for step in range(100):
            run.log(
                {
                    "loss": math.nan if step == 40 else 1 / (step + 1),
                    "inf": math.inf if step % 10 == 0 else step,
                    "never": math.nan,
                },
                step=step,
            )


def resumed(directory: str) -> None:
    """A run of two sessions, with checkpoints; the second goes back to the last one."""
    for start in (0, 50):
        with asynctrack.init("odd", id="resumed", dir=directory, resume="allow") as run:
            for step in range(start, start + 60):
                run.log({"loss": 100 - step + start / 50}, step=step)
                if step % 25 == 0:
                    run.checkpoint(step=step)


def media(directory: str) -> None:
    """One of each kind of media, at several steps."""
    with asynctrack.init("odd", id="media", dir=directory) as run:
        for step in range(3):
            y, x = numpy.mgrid[:24, :24]
            pixels = numpy.stack([x * 9 + step * 16, y * 9, 0 * x + 128], axis=-1).astype(numpy.uint8)
            run.log({
                "image": asynctrack.Image(pixels, caption=f"step {step} {HOSTILE}"),
                "weights": asynctrack.Histogram([random.Random(step).gauss(0, 1 + step) for _ in range(1000)]),
                "table": asynctrack.Table(columns=["word", "count", HOSTILE], data=[["a", 1, HOSTILE], ["b", 2, "<b>bold</b>"]]),
                "page": asynctrack.Html("<h1>hello</h1><script>document.title = 'ran'; parent.document.title = 'ran'</script>"),
                "words": asynctrack.Text("hello " + HOSTILE),
            }, step=step)  # fmt: skip


def hostile(directory: str) -> None:
    """Names that would be harmful if a page took them for anything but text."""
    config = {HOSTILE: HOSTILE, "<img src=x onerror=alert(2)>": 1, "=1+1": "=HYPERLINK(1)"}
    with asynctrack.init(
        "odd", id="hostile", dir=directory, name=HOSTILE, config=config, tags=[HOSTILE], notes=HOSTILE
    ) as run:
        for step in range(20):
            run.log(
                {HOSTILE: step, "<img src=x onerror=alert(3)>": step, "a/../../b": step, "ü 😀 " + "long" * 40: step},
                step=step,
            )


def wide(directory: str, metrics: int = 2000) -> None:
    """A run of very many metrics."""
    with asynctrack.init("odd", id="wide", dir=directory, queue_bytes=64 << 20) as run:
        for step in range(20):
            run.log({f"layer{at // 10:03}/w{at % 10}": math.sin(step + at) for at in range(metrics)}, step=step)


FAILED = """
import sys, asynctrack
with asynctrack.init("odd", id="failed", dir=sys.argv[1], config={"lr": 0.1}) as run:
    for step in range(30):
        run.log({"loss": 1.0 / (step + 1)}, step=step)
    raise ValueError("the loss is </script> not a number")
"""


def failed(directory: str) -> None:
    """A run that an exception has ended."""
    subprocess.run([sys.executable, "-c", FAILED, directory], capture_output=True, check=False, timeout=50)


def damaged(directory: str) -> None:
    """A run with bytes in its journal that are none of it."""
    with asynctrack.init("odd", id="damaged", dir=directory) as run:
        for step in range(2000):
            run.log({"loss": step}, step=step)
    segment = next((Path(directory) / "odd" / "damaged" / "journal").iterdir())
    content = bytearray(segment.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = os.urandom(64)
    segment.write_bytes(content)


ALL = (sweep, spike, broken_numbers, resumed, media, hostile, wide, failed, damaged)

if __name__ == "__main__":
    for make in ALL:
        make(sys.argv[1])
