"""How docstrings become pages: what stands between backticks is code, and a link if it is a name that has an entry; structs show their fields.

Types that only type checkers import are imported, so that signatures show them.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from types import ModuleType
from typing import Any, Final

import msgspec
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.autodoc.mock import mock
from sphinx.util.docutils import SphinxRole
from sphinx.util.inspect import stringify_signature

PACKAGE: Final = "asynctrack"
# Types of arguments that a page describes under another name.
_SHOWN_AS: Final = {
    f"{PACKAGE}.client.run_arguments.RunArguments": f"{PACKAGE}.init",
    f"{PACKAGE}.client.run_arguments.RunOptions": f"{PACKAGE}.init",
    f"{PACKAGE}.client.run_arguments.TrackerArguments": f"{PACKAGE}.Tracker",
}
_NAME: Final = re.compile(r"([A-Za-z_][\w.]*)(?:\(\))?")


class Code(SphinxRole):
    """Shows code, and links it if it is the name of something that has an entry."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        code = nodes.literal(self.rawtext, self.text, classes=["code"])
        name = _NAME.fullmatch(self.text)
        if name is None:
            return [code], []
        link = addnodes.pending_xref(
            self.rawtext, code, refdomain="py", reftype="obj", reftarget=name[1], refdoc=self.env.docname, may_fail=True
        )
        link["py:module"] = self.env.ref_context.get("py:module")
        link["py:class"] = self.env.ref_context.get("py:class")
        return [link], []


def _without_target(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, shown: nodes.TextElement
) -> nodes.TextElement | None:
    """Find a name that was written without its package; a name in backticks that has no entry stays code."""
    wanted = node["reftarget"]
    found = env.domains.python_domain.objects.get(_SHOWN_AS.get(wanted, f"{PACKAGE}.{wanted}"))
    if found is None or node.get("refdomain") != "py":
        return shown if node.get("may_fail") else None
    assert app.builder is not None
    address = app.builder.get_relative_uri(env.docname, found.docname)
    return nodes.reference("", "", shown, refuri=f"{address}#{found.node_id}", internal=True)


def _fields_as_arguments(
    app: Sphinx, what: str, name: str, thing: object, options: object, arguments: str | None, returns: str | None
) -> tuple[str, str] | None:
    """Show the fields of a struct, not the `*args` of its metaclass."""
    if not (inspect.isclass(thing) and issubclass(thing, msgspec.Struct)):
        return None
    made = {field.name: field.default_factory for field in msgspec.structs.fields(thing)}
    signature = inspect.signature(thing)
    shown = [
        one if made.get(at, msgspec.NODEFAULT) is msgspec.NODEFAULT else one.replace(default=made[at]())
        for at, one in signature.parameters.items()
    ]
    signature = signature.replace(parameters=shown)
    return stringify_signature(signature, show_return_annotation=False, unqualified_typehints=True), ""


def _import_guarded(app: Sphinx, thing: object, bound: bool) -> None:
    """Import what the module of a function or class imports for type checkers only; the libraries are stood in for."""
    module = sys.modules.get(getattr(thing, "__module__", None) or "")
    if module is not None and module.__name__.startswith(f"{PACKAGE}.") and module not in _imported:
        _imported.append(module)
        with mock(app.config.autodoc_mock_imports):
            for statement in _guarded_imports(inspect.getsource(module)):
                exec(compile(ast.Module([statement], []), module.__name__, "exec"), vars(module))


_imported: list[ModuleType] = []


def _guarded_imports(source: str) -> list[ast.stmt]:
    guards = [
        one for one in ast.parse(source).body if isinstance(one, ast.If) and ast.unparse(one.test) == "TYPE_CHECKING"
    ]
    found = [one for guard in guards for one in guard.body if isinstance(one, ast.Import | ast.ImportFrom)]
    # The native core is not built everywhere, and nothing public has a type of its.
    return [one for one in found if not (isinstance(one, ast.ImportFrom) and one.module == f"{PACKAGE}._native")]


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the role, which `default_role` names, and the signatures of structs."""
    app.add_role("name", Code())
    app.connect("autodoc-before-process-signature", _import_guarded)
    app.connect("missing-reference", _without_target)
    app.connect("autodoc-process-signature", _fields_as_arguments)
    return {"parallel_read_safe": True}
