"""The first module of the page comes as one script with all that it imports, and is made anew when one of them has changed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

pytest.importorskip("starlette")

from starlette.requests import Request
from starlette.responses import Response

from asynctrack.ui import page_files
from asynctrack.ui.bundling import bundle
from asynctrack.ui.page_files import PageFiles


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return Path(shutil.copytree(page_files._PLACE, tmp_path / "page"))


def asked(files: PageFiles, path: str, tag: str | None = None) -> Response:
    headers = [] if tag is None else [(b"if-none-match", tag.encode())]
    return files.answer(Request({"type": "http", "method": "GET", "path": path, "headers": headers}))


def test_first_module_has_all_that_it_imports(place: Path) -> None:
    found = asked(PageFiles(place), "/main.js")
    assert bytes(found.body).decode() == bundle(place)
    assert found.headers["content-type"].startswith("text/javascript")
    for name in ("run_page.js", "compare_page.js", "vendor/uplot.js"):
        assert f'modules["{name}"]'.encode() in found.body


def test_other_modules_are_there_as_they_are(place: Path) -> None:
    assert asked(PageFiles(place), "/run_page.js").body == (place / "run_page.js").read_bytes()


def test_script_is_fetched_again_only_when_a_module_has_changed(place: Path) -> None:
    files = PageFiles(place)
    before = asked(files, "/main.js")
    tag = before.headers["etag"]
    assert asked(files, "/main.js", tag).status_code == 304
    changed = place / "format.js"
    changed.write_text(changed.read_text() + '\nexport const CHANGED = "yes, it has";\n')
    os.utime(changed, ns=(0, 0))  # older than the others
    after = asked(files, "/main.js", tag)
    assert after.status_code == 200 and after.headers["etag"] != tag
    assert b"yes, it has" in after.body


def test_script_that_cannot_be_made_says_why(place: Path) -> None:
    (place / "format.js").write_text("export default something very odd from nowhere\nimport 7;\n")
    found = asked(PageFiles(place), "/main.js")
    assert found.status_code == 500 and b"format.js" in found.body
