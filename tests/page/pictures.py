"""Takes the pictures of the documents, of runs that look like a sweep of trainings: `python tests/page/pictures.py`. Needs Chromium and Playwright."""

from __future__ import annotations

import contextlib
import math
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy

import asynctrack

PICTURES = Path(__file__).parent.parent.parent / "docs" / "pictures"
STEPS = 6000
RUNS = 24
ALL = "&".join(f"run=digits/sweep-{at:02}" for at in range(RUNS))
# The name of each picture, its view, its width and height, and the colours.
VIEWS: tuple[tuple[str, str, int, int, Any], ...] = (
    ("runs", "#/?sort=-last/val/acc", 1400, 860, "light"),
    ("run", "#/run/digits/sweep-09", 1400, 860, "light"),
    ("run_dark", "#/run/digits/sweep-09?s=0.02", 1400, 860, "dark"),
    ("zoom", "#/run/digits/sweep-09?zoom=2950,3050&o=1", 1400, 860, "light"),
    ("compare", f"#/compare/?{ALL}", 1400, 860, "light"),
    ("groups", f"#/compare/?{ALL}&group=config/lr", 1400, 860, "light"),
    ("parallel", f"#/compare/?{ALL}&view=parallel", 1400, 860, "light"),
    ("narrow", "#/run/digits/sweep-09", 400, 860, "dark"),
)


def train(directory: str, at: int) -> None:
    """One run: what a training of so many layers at such a rate may log."""
    noise, lr, layers = random.Random(at), (3e-4, 1e-3, 3e-3, 1e-2)[at % 4], 2 + at // 4 % 3
    speed, floor = 0.9 * (lr / 3e-3) ** 0.5, 0.08 + 0.02 * (4 - layers) + (0.15 if lr > 5e-3 else 0.0)
    config = {
        "lr": lr,
        "layers": layers,
        "optimizer": "adamw" if at % 3 else "sgd",
        "batch_size": 64 << at % 2,
        "seed": at,
    }
    tags = ["baseline"] if at < 4 else ["tuned"] if lr == 3e-3 else []
    with asynctrack.init(
        "digits", id=f"sweep-{at:02}", dir=directory, config=config, tags=tags, backends=["jsonl"]
    ) as run:
        run.define_metric("val/acc", goal="maximize")
        for step in range(STEPS):
            loss = floor + 2.2 * math.exp(-speed * step / 700) + abs(noise.gauss(0, 0.04 + 0.1 * math.exp(-step / 900)))
            row = {
                "train/loss": 19.0 if (at, step) == (9, 3000) else loss,
                "train/acc": max(0.0, 1 - 0.42 * loss + noise.gauss(0, 0.01)),
            }
            row |= {
                "grad_norm": 0.4 + loss * abs(noise.gauss(1, 0.3)),
                "lr": lr * min(1, step / 300) * 0.5 * (1 + math.cos(math.pi * step / STEPS)),
            }
            if step % 100 == 99:
                row |= {"val/loss": loss * 1.12 + 0.02, "val/acc": max(0.0, 0.985 - 0.43 * loss)}
            run.log(row, step=step)
            if step % 2000 == 1999:
                run.checkpoint(step=step)
        if at == 9:
            y, x = numpy.mgrid[:28, :28]
            for step in range(3):
                run.log(
                    {
                        "digit": asynctrack.Image(
                            ((numpy.hypot(x - 14, y - 14) - 8) ** 2 < 9 + 6 * step).astype(numpy.uint8) * 255,
                            caption=f"a zero, step {step}",
                        )
                    }
                )
        run.summary["val/acc"] = row.get("val/acc", 0.9)
        if at == 13:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")


# A run that goes on.
LIVE = """
import asynctrack, math, random, sys, time
config = {"lr": 3e-3, "layers": 4, "optimizer": "adamw", "batch_size": 128, "seed": 24}
with asynctrack.init("digits", id="sweep-24", dir=sys.argv[1], config=config, tags=["tuned"], backends=["jsonl"]) as run:
    for step in range(100_000):
        loss = 0.1 + 2.2 * math.exp(-step / 900) + abs(random.gauss(0, 0.05))
        run.log({"train/loss": loss, "train/acc": max(0.0, 1 - 0.42 * loss), "grad_norm": 0.4 + loss}, step=step)
        time.sleep(0.002)
"""


def main() -> None:
    from playwright.sync_api import sync_playwright

    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="asynctrack-pictures-") as directory, sync_playwright() as play:
        for at in range(RUNS):
            with contextlib.suppress(RuntimeError):
                train(directory, at)
        live = subprocess.Popen([sys.executable, "-c", LIVE, directory])
        command = [sys.executable, "-m", "asynctrack", "ui", directory, "--port", "0", "--no-cache"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        found = re.search(r"http://\S+", server.stdout.readline())
        assert found is not None
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"])
        for name, view, width, height, scheme in VIEWS:
            context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
            page = context.new_page()
            page.goto(found[0])
            page.goto(f"{found[0].partition('?')[0]}{view}")
            page.wait_for_selector("canvas")
            page.wait_for_timeout(2500)  # curves and sparklines of all that is in view
            page.screenshot(path=PICTURES / f"{name}.png")
            context.close()
        browser.close()
        server.send_signal(signal.SIGINT)
        server.wait(10)
        live.send_signal(signal.SIGTERM)
        live.wait(10)
    for path in sorted(PICTURES.glob("*.png")):
        print(path.name, f"{path.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
