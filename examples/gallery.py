"""Makes the pictures of the documents' gallery: one training with two scopes, as the console, Matplotlib, Plotly and `asynctrack show` show it.

    pip install 'asynctrack[matplotlib,plotly]'
    python examples/gallery.py [FOLDER]

The training is made up and the same each time. The page of Plotly is photographed where Chromium and Playwright are installed.
"""

from __future__ import annotations

import contextlib
import io
import math
import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from html import escape
from pathlib import Path

import asynctrack
from asynctrack.cli import main as command_line

STEPS = 5_000
EPOCH = 250

# Of a picture of text, in pixels.
CHARACTER, LINE, MARGIN = 7.25, 17, 16
# Browsers do not agree on how to keep blanks in a row; these they keep.
NO_BREAK = "\u00a0"
PAPER, INK, FAINT = "#16191f", "#d8dee6", "#8b95a3"


def train(run: asynctrack.Run) -> None:
    """Log a training that warms up, learns, and overfits a little."""
    noise = random.Random(0)
    training, validation = run.scope("train"), run.scope("val")
    for step in range(STEPS):
        learned = 1 - math.exp(-step / 900)
        loss = 2.3 - 2.1 * learned
        training.log(
            {
                "loss": loss * math.exp(noise.gauss(0, 0.12)),
                "accuracy": min(1.0, 0.1 + 0.86 * learned + noise.gauss(0, 0.02)),
                "lr": 3e-4 * min(1, step / 400) * (0.5 + 0.5 * math.cos(math.pi * step / STEPS)),
                "grad_norm": (0.4 + loss) * math.exp(noise.gauss(0, 0.3)) + (40 if step == 3_210 else 0),
            },
            step=step,
        )
        if step % EPOCH == EPOCH - 1:
            overfit = 0.12 * (step / STEPS) ** 2
            validation.log({"loss": loss * 1.05 + overfit, "accuracy": 0.1 + 0.84 * learned - overfit / 4}, step=step)
    run.summary["val/accuracy"] = 0.9


def main(folder: Path) -> None:
    """Make the pictures in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as runs:
        with contextlib.redirect_stdout(said):  # the console keeps the stream that it was opened with
            run = asynctrack.init(
                "cifar10", name="resnet18-warm", id="resnet18-warm", dir=runs, config={"model": "resnet18", "lr": 3e-4, "steps": STEPS},
                backends=["jsonl", asynctrack.Console(every=EPOCH), asynctrack.Matplotlib(), asynctrack.Plotly()],
            )  # fmt: skip
        with run:
            train(run)
        shutil.copyfile(run.path / "plots" / "metrics.png", folder / "matplotlib.png")
        head, *lines = said.getvalue().splitlines()
        write_text(folder / "console.svg", [head, *lines[:8], "", *lines[-8:]])
        write_text(folder / "show.svg", show(run.path))
        photograph(run.path / "plots" / "metrics.html", folder / "plotly.png")
    for picture in sorted(folder.iterdir()):
        print(f"{picture}  {picture.stat().st_size / 1000:,.0f} kB")


def show(run: Path) -> list[str]:
    """Return the lines that `asynctrack show` prints of a run, without when and where it was."""
    said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(said):
        command_line(["show", str(run)])
        said.flush()
    said.seek(0)
    head, *lines = said.read().splitlines()
    start = lines.index("config")
    return ["$ asynctrack show resnet18", head, "", *lines[start:]]


def write_text(path: Path, lines: Sequence[str]) -> None:
    """Draw lines on a terminal as a picture."""
    width = max(map(len, lines)) * CHARACTER + 2 * MARGIN
    height = len(lines) * LINE + 2 * MARGIN
    texts = [
        f'<text x="{MARGIN}" y="{MARGIN + (at + 0.75) * LINE:.1f}" fill="{FAINT if line[:1] in "=$" else INK}">{escape(line).replace(" ", NO_BREAK)}</text>'
        for at, line in enumerate(lines)
        if line
    ]
    style = f'font-family="ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace" font-size="{LINE - 5}"'
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" viewBox="0 0 {width:.0f} {height}">\n'
        f'<rect width="100%" height="100%" rx="8" fill="{PAPER}"/>\n<g {style}>\n'
        + "\n".join(texts)
        + "\n</g>\n</svg>\n"
    )


def photograph(page: Path, picture: Path) -> None:
    """Take a picture of a page as Chromium shows it, where it is installed."""
    chromium = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        chromium = None
    if chromium is None:
        print("Chromium or Playwright is not installed: no picture of the page")
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        opened = browser.new_page(viewport={"width": 1100, "height": 720})
        opened.goto(page.as_uri())
        opened.wait_for_selector(".main-svg .scatterlayer .trace", state="attached")
        opened.wait_for_timeout(500)  # it fades in
        opened.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "gallery"))
