"""The house: imports point down, nothing goes in a circle, and the quick start stays quick."""

from __future__ import annotations

import ast
import collections
import functools
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import asynctrack
from asynctrack._system import native

PACKAGE = Path(asynctrack.__file__).parent
ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()

# From the top down; DESIGN.md has the table with their duties. Each entry imports only what stands below it.
ORDER = [
    "__main__",
    "cli",
    "wandb",
    "testing",
    "integrations",
    "__init__",
    "ui",
    "collection",
    "client",
    "merging",
    "worker",
    "delivery",
    "carriers",
    "reading",
    "backends",
    "curves",
    "journal",
    "provenance",
    "queue",
    "records",
    "settings",
    "events",
    "errors",
    "_system",
    "_native",
]
# What a worker needs before it drains: of Python's own, what it has imported within 10 ms.
SLOW_TO_IMPORT = {"anyio", "asyncio", "json", "logging", "msgspec", "re", "subprocess", "tempfile", "typing"}


class Module:
    """A module of the package: its dotted name below `asynctrack`, its room, and what it imports, also for type checkers and in functions."""

    def __init__(self, path: Path) -> None:
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        self.path = path
        self.name = ".".join(parts).removesuffix(".__init__")
        self.room = parts[0]

    @functools.cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text())

    @functools.cached_property
    def imports(self) -> set[str]:
        found = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found |= {_known(alias.name) for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found |= {_known(f"{node.module}.{alias.name}") for alias in node.names}
        return found - {"", self.name}


def _known(dotted: str) -> str:
    """The module of the package that an import leads to; empty where it leads out of it."""
    if dotted.split(".")[0] != "asynctrack":
        return ""
    while (name := dotted.removeprefix("asynctrack").lstrip(".")) and name not in MODULES:
        dotted = dotted.rpartition(".")[0]
    return name or "__init__"


MODULES = {module.name: module for module in map(Module, sorted([*PACKAGE.rglob("*.py"), PACKAGE / "_native.pyi"]))}


def room_of(name: str) -> str:
    return MODULES[name].room


def level(room: str) -> int:
    assert room in ORDER, f"{room} has no place in the house; give it one here and in DESIGN.md"
    return len(ORDER) - ORDER.index(room)


def test_imports_point_down() -> None:
    up = [
        f"{module.name} imports {name}"
        for module in MODULES.values()
        for name in sorted(module.imports)
        if room_of(name) != module.room and level(room_of(name)) > level(module.room)
    ]
    assert up == []


def test_no_files_import_each_other_in_a_circle() -> None:
    assert [
        circle for circle in circles({name: module.imports for name, module in MODULES.items()}) if len(circle) > 1
    ] == []


def circles(arrows: dict[str, set[str]]) -> Iterator[set[str]]:
    """The strongly connected components of a graph, by Tarjan."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []

    def visit(node: str) -> Iterator[set[str]]:
        index[node] = low[node] = len(index)
        path.append(node)
        for to in arrows[node]:
            if to not in index:
                yield from visit(to)
                low[node] = min(low[node], low[to])
            elif to in path:
                low[node] = min(low[node], index[to])
        if low[node] == index[node]:
            at = path.index(node)
            circle = set(path[at:])
            del path[at:]
            yield circle

    for node in arrows:
        if node not in index:
            yield from visit(node)


def test_a_circle_would_be_found() -> None:
    assert sorted(map(sorted, circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}))) == [["a"], ["b", "c"]]


def test_the_package_has_few_rooms() -> None:
    entries = {path.name for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert len(entries - {"__init__.py", "__main__.py"}) <= 22


def test_rooms_within_begin_with_an_empty_page() -> None:
    public = {"", "backends", "integrations", "testing", "wandb", "records.values", "records.expressions", "cli"}
    inits = {str(path.parent.relative_to(PACKAGE)).replace("/", "."): path for path in PACKAGE.rglob("__init__.py")}
    inner = {name: path for name, path in inits.items() if name.split(".")[0] in ("client", "records", "_system")}
    assert [name for name, path in inner.items() if name not in public and path.read_text()] == []


def test_every_module_says_first_what_it_is() -> None:
    silent = [name for name, module in MODULES.items() if module.tree.body and not ast.get_docstring(module.tree)]
    assert silent == []


def test_no_two_classes_have_one_name() -> None:
    """But for the drop-ins, each of which has the name that its framework's users write, and the core, which has that of its Python version."""
    names = collections.Counter(
        node.name
        for module in MODULES.values()
        if module.room not in ("integrations", "wandb", "_native")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, times in names.items() if times > 1] == []


@pytest.mark.parametrize("module", ["worker.main", "worker.drain", "worker.fsync"])
def test_the_worker_drains_before_it_has_imported_what_is_slow_to_import(module: str) -> None:
    script = f"""
import importlib, sys
package = type(sys)("asynctrack")
package.__path__ = [{str(PACKAGE)!r}]
sys.modules["asynctrack"] = package
importlib.import_module("asynctrack.{module}")
print(*sys.modules, sep="\\n")
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert SLOW_TO_IMPORT & set(done.stdout.split()) == set()


def test_importing_the_package_imports_no_backend_and_no_event_loop() -> None:
    script = "import sys, asynctrack; print([m for m in ('asyncio', 'anyio', 'aiofiles', 'numpy', 'wandb') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert found.stdout.strip() == "[]"


def test_ci_runs_the_readmes_test_line() -> None:
    (line,) = re.findall(r"^\$ (.*pytest)$", README, re.M)
    assert line in (ROOT / ".ci" / "test").read_text().splitlines()


def test_native_core_bears_the_checksum_of_what_it_offers() -> None:
    checksum = zlib.crc32((PACKAGE / "_native.pyi").read_bytes())
    assert checksum == native.API, (
        f"asynctrack/_native.pyi has changed: set `API: Final = 0x{checksum:08X}` in asynctrack/_system/native.py, and build the core anew"
    )


def test_table_and_chart_of_peers_are_those_of_the_result() -> None:
    subprocess.run([sys.executable, "-m", "bench.peers.show", "--check"], cwd=ROOT, check=True, timeout=50)


def test_tables_and_chart_of_growth_are_those_of_the_result() -> None:
    subprocess.run([sys.executable, "-m", "bench.growth_page", "--check"], cwd=ROOT, check=True, timeout=50)


def test_every_bar_is_that_of_the_results() -> None:
    subprocess.run([sys.executable, "-m", "bench.bars", "--check"], cwd=ROOT, check=True, timeout=50)
