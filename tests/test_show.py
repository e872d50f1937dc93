"""`show` tells what names a run, what files it has logged, and all of it by `--json`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_support import on_terminal, plain, said_here

import asynctrack
from asynctrack.testing import JournaledRun


@pytest.fixture
def labelled(own_host: Path, tmp_path: Path) -> Path:
    """A run with labels and media."""
    with asynctrack.init(
        "p", id="one", name="the first", dir=tmp_path, tags=["base", "two words"], group="sweep 7", job_type="train",
        notes="short\n\nand a second line that is much too long for a terminal of eighty columns, and goes on\n", backends=[],
    ) as run:  # fmt: skip
        for step in range(7):
            run.log(
                {"loss": step, "page": asynctrack.Html(f"<p>{step}</p>"), "told": {"text": asynctrack.Text(f"{step}")}}
            )
        run.log({"weights": asynctrack.Histogram([1, 2, 3])})
    return run.path


def test_labels_are_shown(labelled: Path) -> None:
    said = said_here("show", labelled).stdout
    facts = [tuple(line.split(maxsplit=1)) for line in said.splitlines()[2:6]]
    assert facts == [("tags", "base, two words"), ("group", "sweep 7"), ("job", "type  train"), ("notes", "short")]
    assert said.splitlines()[6].split() == [
        "and",
        "a",
        "second",
        "line",
        "that",
        "is",
        "much",
        "too",
        "long",
        "for",
        "a",
        "terminal",
        "of",
        "eighty",
        "columns,",
        "and",
        "goes",
        "on",
    ]
    assert said.splitlines()[0] == "p/one  the first  finished"
    _, shown = on_terminal(80, "show", labelled)
    assert max(map(len, plain(shown).splitlines())) <= 80


def test_media_are_counted_and_the_newest_named(labelled: Path, reading: str) -> None:
    said = said_here("show", labelled).stdout
    media = said[said.index("\nmedia\n") :].splitlines()
    assert media[2] == "  7 html pages, 7 texts, 1 histogram"
    assert len(media) == 3 + 5 and all("media/" in line for line in media[3:])
    document = json.loads(said_here("show", labelled, "--json").stdout)
    assert document["media"]["counts"] == {"html": 7, "text": 7, "histogram": 1}
    newest = document["media"]["newest"]
    last = [record.data for record in asynctrack.open_run(labelled).records()][6]
    assert {(one["key"], one["path"]) for one in newest[:2]} == {
        ("page", last["page"].path),
        ("told/text", last["told"]["text"].path),
    }


def test_json_has_all_labels(labelled: Path) -> None:
    document = json.loads(said_here("show", labelled, "--json").stdout)
    assert (
        document["tags"] == ["base", "two words"] and document["group"] == "sweep 7" and document["job_type"] == "train"
    )
    assert document["notes"].startswith("short\n") and document["entity"] is None and document["name"] == "the first"


def test_run_without_labels_and_media_shows_none(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "run") as run:
        run.log({"loss": 1})
        run.end()
    said = said_here("show", run.path).stdout
    assert not any(word in said for word in ("tags", "group", "notes", "media"))
    document = json.loads(said_here("show", run.path, "--json").stdout)
    assert (document["tags"], document["notes"], document["media"]) == ([], None, {"counts": {}, "newest": []})
