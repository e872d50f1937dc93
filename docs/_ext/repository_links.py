"""Links between the documents and the other files of the repository: they work in the built pages as they do where the Markdown is read.

A page links to a file outside of `docs/`, or includes a file of the root that links into `docs/`, by relative paths. Both are rewritten as the text is read:
the first to the page of the file on the web, the second to a path from the root of the documents.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Final

from sphinx.application import Sphinx

_PICTURES: Final = {".png", ".svg"}
_FENCED: Final = re.compile(r"(^ *(`{3,}|:{3,}).*?^ *\2`*$)", re.M | re.S)
_LINK: Final = re.compile(r"(?<=\]\()(?![a-z]+:|[#/])([^)#\s]+)(#[^)\s]*)?(?=[)\s])")


def rewritten(text: str, folder: Path, docs: Path, url: str) -> str:
    """Return a document with the links that leave its tree rewritten, but not within its blocks of code."""
    prose = _FENCED.split(text)
    for at in range(0, len(prose), 3):  # between two of them: the block, and its fence
        prose[at] = _LINK.sub(lambda link: _target(link, folder, docs, url), prose[at])
    return "".join(part for at, part in enumerate(prose) if at % 3 != 2)


def _target(link: re.Match[str], folder: Path, docs: Path, url: str) -> str:
    file = Path(os.path.normpath(folder / link[1]))
    heading = link[2] or ""
    if not file.exists() or (folder.is_relative_to(docs) and file.is_relative_to(docs)):
        return link[0]  # a link between two documents, or one that the build will report
    if file.suffix in _PICTURES and folder.is_relative_to(docs):
        return link[0]  # the build copies it: the page of a file on the web is no picture
    if file.is_relative_to(docs):
        return f"/{file.relative_to(docs)}{heading}"
    return f"{url}/{'tree' if file.is_dir() else 'blob'}/main/{file.relative_to(docs.parent)}{heading}"


def setup(app: Sphinx) -> dict[str, Any]:
    """Rewrite what is read; `repository_url` says where the repository is."""
    docs = Path(app.srcdir)

    def read(app: Sphinx, page: str, source: list[str]) -> None:
        source[0] = rewritten(source[0], Path(app.env.doc2path(page)).parent, docs, app.config.repository_url)

    def included(app: Sphinx, path: Path, page: str, source: list[str]) -> None:
        folder = Path(os.path.normpath(docs / path)).parent
        source[0] = rewritten(source[0], folder, docs, app.config.repository_url)

    app.add_config_value("repository_url", "", "env", str)
    app.connect("source-read", read)
    app.connect("include-read", included)
    return {"parallel_read_safe": True}
