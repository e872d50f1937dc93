"""Configures the documents' build: `.ci/docs` runs it, and nothing is fetched while it runs."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What is documented is this checkout, whatever is installed.
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_ext")]

import asynctrack  # noqa: E402

project = "asynctrack"
author = "The asynctrack developers"
project_copyright = author
version = release = asynctrack.__version__

extensions = [
    *["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"],
    *["backend_tables", "docstrings", "made_tables", "repository_links"],
]
exclude_patterns = ["_build", "_ext"]
smartquotes = False  # `--flag` in a text stays as it is
nitpicky = True

myst_heading_anchors = 6
repository_url = "https://github.com/asynctrack/asynctrack"

default_role = "name"  # of docs/_ext/docstrings.py
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
# None of them is needed for the build.
autodoc_mock_imports = [
    *["drytorch", "lightning", "noether", "optuna", "stable_baselines3", "tianshou", "torch", "transformers", "tropt"],
    *["numpy", "pandas", "polars", "pyarrow"],
]
autodoc_preserve_defaults = True
nitpick_ignore_regex = [
    # Types of Python and of libraries: their documents are elsewhere, and no inventory is fetched.
    (r"py:.*", r"(argparse|builtins|collections|contextlib|datetime|enum|logging|os|pathlib|types|typing)(\..*)?"),
    # What keywords a drop-in takes beside those that its page has.
    (r"py:class", r"asynctrack\.integrations\.\w+\._Settings"),
    # A type variable.
    (r"py:class", r"asynctrack\.client\.current\.B"),
    (r"py:.*", r"(drytorch|msgspec|numpy|pandas|polars|pyarrow)(\..*)?"),
]
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"asynctrack {version}"
html_copy_source = False
html_theme_options = {"source_repository": f"{repository_url}/", "source_branch": "main", "source_directory": "docs/"}
