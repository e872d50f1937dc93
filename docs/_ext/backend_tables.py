"""The directive `backend-settings`: the table of the settings of one backend, made while the documents are built."""

from __future__ import annotations

from typing import Any

from backend_settings import settings_table
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class BackendSettings(SphinxDirective):
    """Shows the settings of the backend that it names: a class of `asynctrack`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        lines = settings_table(self.arguments[0]).splitlines()
        if not lines:
            raise self.error(f"{self.arguments[0]} has no settings of its own")
        table = nodes.container()
        self.state.nested_parse(StringList(lines, self.arguments[0]), self.content_offset, table)
        return table.children


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("backend-settings", BackendSettings)
    return {"parallel_read_safe": True}
