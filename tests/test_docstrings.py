"""Docstrings: public names have one, functions begin with a verb, arguments and errors are named."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path

import pytest

import asynctrack

PACKAGE = Path(asynctrack.__file__).parent
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef
PUBLIC_MODULES = ("backends", "errors", "events", "integrations", "testing", "wandb")

NOUN_CLAUSE = {"how", "what", "whether"}
# Words that are no verb. A list of verbs would need a line for each new one.
NO_VERB = NOUN_CLAUSE | frozenset(
    re.findall(
        r"\w+",
        """a about after all an and another any anybody anyone anything as at because before behind below both but by each either every everybody
        everything false few for from he her his if in into it its last less many maximum mean minimum more most much neither nested never no
        nobody none nor not nothing number of on once one only or other others our path perhaps same several she since so some somebody someone
        something such text than that the their them then there these they this those three to true two under until up we when where which
        while who whoever whom whose why with within without you your""",
    )
)
VERBS_IN_S = {"bias", "canvas", "focus"}
VERBS_IN_ED_ING = {
    "bring",
    "embed",
    "exceed",
    "feed",
    "need",
    "ping",
    "proceed",
    "seed",
    "shed",
    "speed",
    "spring",
    "string",
}


class Definition:
    """A class or function of the package, by its module and its dotted name there."""

    def __init__(self, path: Path, module: str, name: str, node: ast.ClassDef | FUNCTION) -> None:
        self.path = path.relative_to(PACKAGE.parent)
        self.module = module
        self.name = name
        self.node = node
        self.doc = ast.get_docstring(node) or ""

    def __repr__(self) -> str:
        return f"{self.path}:{self.node.lineno} {self.name}"

    @property
    def first_word(self) -> str:
        return (self.doc.split() or [""])[0].rstrip(".,:;")

    @property
    def arguments(self) -> list[str]:
        if isinstance(self.node, ast.ClassDef):
            return []
        given = self.node.args
        names = [argument.arg for argument in [*given.posonlyargs, *given.args, *given.kwonlyargs]]
        return [name for name in names if name not in ("self", "cls") and not name.startswith("_")]

    @property
    def raised(self) -> set[str]:
        """Return the names that the body raises itself: `raise Name(...)`."""
        calls = [
            node.exc for node in ast.walk(self.node) if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
        ]
        return {call.func.id for call in calls if isinstance(call.func, ast.Name)}


class Module:
    """A module of the package: its definitions, and where the names that it imports come from."""

    def __init__(self, path: Path) -> None:
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        self.path = path
        self.name = ".".join(parts).removesuffix(".__init__") or "__init__"

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text())

    @cached_property
    def definitions(self) -> dict[str, Definition]:
        return {name: Definition(self.path, self.name, name, node) for name, node in _defined(self.tree, "")}

    @cached_property
    def origins(self) -> dict[str, tuple[str, str]]:
        """Return the module of ours and the name there, for each name that is imported from one."""
        return {
            alias.asname or alias.name: (node.module.removeprefix("asynctrack").lstrip(".") or "__init__", alias.name)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "asynctrack"
            for alias in node.names
        }

    @cached_property
    def shown(self) -> list[str]:
        """Return the names that a public module shows: those in `__all__`, else what it defines without an underscore."""
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                return list(ast.literal_eval(node.value))
        return [name for name in self.definitions if "." not in name and not name.startswith("_")]


def _defined(parent: ast.AST, prefix: str) -> Iterator[tuple[str, ast.ClassDef | FUNCTION]]:
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.ClassDef | FUNCTION):
            yield prefix + node.name, node
            yield from _defined(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.If | ast.Try | ast.With | ast.ExceptHandler):
            yield from _defined(node, prefix)


MODULES = {module.name: module for module in map(Module, sorted(PACKAGE.rglob("*.py")))}


def _find(module: str, name: str) -> Definition | None:
    """Follow a name through our imports to where it is defined."""
    if module not in MODULES:
        return None
    if found := MODULES[module].definitions.get(name):
        return found
    origin = MODULES[module].origins.get(name, (module, name))
    return None if origin == (module, name) else _find(*origin)


@cache
def _public() -> dict[str, Definition]:
    """Return what users can import, with the public methods and properties of its classes."""
    rooms = [name for name in MODULES if name == "__init__" or name.split(".")[0] in PUBLIC_MODULES]
    shown = [_find(room, name) for room in rooms for name in MODULES[room].shown if not _is_internal(room)]
    found = {repr(each): each for each in shown if each}
    for each in list(found.values()):
        found |= {repr(member): member for member in _members(each)}
    return found


def _is_internal(module: str) -> bool:
    """Tell a module of the backends that only they need: it has nothing that users import."""
    return module.startswith("backends.") and module not in ("backends.base", "backends.sql")


def _members(of: Definition) -> list[Definition]:
    if not isinstance(of.node, ast.ClassDef):
        return []
    there = MODULES[of.module].definitions
    names = [f"{of.name}.{node.name}" for node in of.node.body if isinstance(node, FUNCTION)]
    return [
        there[name] for name in names if not name.rpartition(".")[2].startswith("_") and not _is_setter(there[name])
    ]


def _is_setter(of: Definition) -> bool:
    return any(ast.unparse(decorator).endswith((".setter", ".deleter")) for decorator in of.node.decorator_list)


def _inherits(of: Definition) -> bool:
    """Tell a method whose docstring a base of ours has: `help` shows that."""
    owner, _, method = of.name.rpartition(".")
    above = MODULES[of.module].definitions.get(owner)
    while above and isinstance(above.node, ast.ClassDef) and above.node.bases:
        above = _find(above.module, ast.unparse(above.node.bases[0]).split("[")[0])
        base = above and MODULES[above.module].definitions.get(f"{above.name}.{method}")
        if base and base.doc:
            return True
    return False


def _is_overload(of: Definition) -> bool:
    return any(ast.unparse(decorator).rpartition(".")[2] == "overload" for decorator in of.node.decorator_list)


def _public_functions() -> list[Definition]:
    return [each for each in _public().values() if isinstance(each.node, FUNCTION) and not _is_overload(each)]


def _documented() -> list[Definition]:
    return [each for module in MODULES.values() for each in module.definitions.values() if each.doc]


def _begins_with_verb(doc: str) -> bool:
    word = (doc.split() or [""])[0].rstrip(".,:;")
    low = word.lower()
    if not re.fullmatch(r"[A-Z][a-z]+(-[a-z]+)?", word) or low in NO_VERB:
        return False
    if low.endswith("s") and not low.endswith("ss"):
        return low in VERBS_IN_S
    return not low.endswith(("ed", "ing")) or low in VERBS_IN_ED_ING


def test_public_names_have_docstrings() -> None:
    assert not [each for each in _public().values() if not each.doc and not _inherits(each) and not _is_overload(each)]


def test_no_docstring_is_a_noun_clause() -> None:
    assert not [each for each in _documented() if each.first_word.lower() in NOUN_CLAUSE]


def test_docstrings_of_functions_begin_with_a_verb() -> None:
    assert not [each for each in _documented() if isinstance(each.node, FUNCTION) and not _begins_with_verb(each.doc)]


def test_docstrings_of_public_classes_begin_with_a_verb() -> None:
    """One in the third person: a class says of itself what it does, and of an error when it is raised."""
    classes = [each for each in _public().values() if isinstance(each.node, ast.ClassDef) and each.doc]
    assert not [each for each in classes if not re.match(r"(?!This\b|Its\b|Is\b)[A-Z]\w+s\b|Raised when\b", each.doc)]


def test_arguments_of_public_functions_are_told() -> None:
    """One argument is told by its name; those of a framework's or of W&B's interface by its documentation."""
    ours = [
        each
        for each in _public_functions()
        if each.module.split(".")[0] not in ("integrations", "wandb") and len(each.arguments) > 1
    ]
    untold = {each: [name for name in each.arguments if not _tells(each, name)] for each in ours if each.doc}
    assert not {each: names for each, names in untold.items() if names}


def _tells(of: Definition, argument: str) -> bool:
    """Tell whether a docstring names an argument, or the function that has the same ones: `log` of `Tracker` has those of `Run.log`."""
    words = rf"\b{re.escape(argument)}\b|\b{re.escape(argument.replace('_', ' '))}\b"
    same_elsewhere = rf"`(\w+\.)?a?{of.name.rpartition('.')[2].removeprefix('a')}`"
    return bool(re.search(f"{words}|{same_elsewhere}", of.doc, re.IGNORECASE))


def test_errors_that_public_functions_raise_are_told() -> None:
    errors = set(MODULES["errors"].shown)
    untold = {
        each: {name for name in each.raised & errors if not _tells_error(each.doc, name)}
        for each in _public_functions()
        if each.doc
    }
    assert not {each: names for each, names in untold.items() if names}


def _tells_error(doc: str, name: str) -> bool:
    """Tell whether a docstring names an error, or one of its bases."""
    error = MODULES["errors"].definitions.get(name)
    if error is None or not isinstance(error.node, ast.ClassDef):
        return False
    return name in doc or any(_tells_error(doc, ast.unparse(base)) for base in error.node.bases)


@pytest.mark.parametrize(
    "doc",
    [
        "What a run has.",
        "Whether it runs.",
        "The run's path.",
        "Returns a path.",
        "`Run.log` of it.",
        "Opened runs.",
        "",
    ],
)
def test_rule_finds_what_does_not_begin_with_a_verb(doc: str) -> None:
    assert not _begins_with_verb(doc)


@pytest.mark.parametrize("doc", ["Return the path.", "Pass it on.", "Embed it.", "Bring it back: now.", "Re-read it."])
def test_rule_lets_verbs_through(doc: str) -> None:
    assert _begins_with_verb(doc)


def test_rule_sees_the_names_that_users_import() -> None:
    seen = {each.name for each in _public().values()}
    assert {
        "Run.log",
        "init",
        "TensorBoard",
        "Image",
        "open_run",
        "RunReader.to_pandas",
        "Metrics",
        "BackendContract",
        "RunExists",
    } <= seen
