"""A native core that is there and cannot be used, as in a checkout that has changed since it was built: all works in Python, and says why."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import INSTALLED, ROOT, run_child, start

from asynctrack._system.native import API

SOURCES = ROOT / "asynctrack" / "_native"
NAME = f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"
# A core of which most has not been written yet.
PARTIAL = """
#include <Python.h>
static PyModuleDef_Slot slots[] = {{0, NULL}};
static struct PyModuleDef definition = {.m_base = PyModuleDef_HEAD_INIT, .m_name = "asynctrack._native", .m_slots = slots};
PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&definition); }
"""
USE = """
import json, sys, asynctrack
with asynctrack.init("p", id="run", dir=sys.argv[1]) as run:
    accepted = [run.log({"a": n}, step=n) for n in range(100)]
steps, values = asynctrack.open_run(run.path).arrays()["a"]
print(json.dumps([asynctrack.__native__, all(accepted), values.tolist() == list(range(100))]))
"""

Package = Callable[[Callable[[Path], None]], dict[str, str]]


@pytest.fixture
def package(tmp_path: Path) -> Package:
    """Copies the package beside a core, and returns the environment in which a child imports that copy."""

    def copy(make: Callable[[Path], None]) -> dict[str, str]:
        leave_out = shutil.ignore_patterns("*.so", "*.pyd")  # what was compiled of Python is as good there
        shutil.copytree(INSTALLED / "asynctrack", tmp_path / "copy" / "asynctrack", ignore=leave_out)
        make(tmp_path / "copy" / "asynctrack" / NAME)
        return {"PYTHONPATH": str(tmp_path / "copy"), "ASYNCTRACK_REQUIRE_NATIVE": "", "ASYNCTRACK_PURE": ""}

    return copy


def compiled(target: Path, sources: list[Path], *flags: str) -> None:
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None or not Path(sysconfig.get_path("include"), "Python.h").exists():
        pytest.skip("there is no C compiler, or no header of Python's")
    include = f"-I{sysconfig.get_path('include')}"
    subprocess.run(
        [compiler, "-std=c17", "-O0", "-shared", "-fPIC", include, *flags, *map(str, sources), "-o", str(target)],
        check=True,
        timeout=50,
    )


def stale(target: Path) -> None:
    """Build the whole core as it was built from the sources before these."""
    if not SOURCES.is_dir():
        pytest.skip("the sources of the core are not here")
    compiled(target, sorted(SOURCES.glob("*.c")), f"-DNATIVE_API={API ^ 1:#x}")


def partial(target: Path) -> None:
    source = target.with_name("partial.c")
    source.write_text(PARTIAL)
    compiled(target, [source])


def cut(target: Path) -> None:
    """Write the beginning of a core, as a build leaves it that was ended."""
    target.write_bytes(b"\x7fELF" + bytes(60))


CORES = {stale: f"was built from other sources (expected {API:#010x}, got {API ^ 1:#010x})", partial: "cannot be loaded", cut: "cannot be loaded"}  # fmt: skip


@pytest.mark.system
@pytest.mark.skipif(sys.platform == "win32", reason="compiles as on Unix")
@pytest.mark.parametrize(("make", "why"), CORES.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_core_that_cannot_be_used_is_told_and_python_takes_its_place(
    make: Callable[[Path], None], why: str, package: Package, own_host: Path, tmp_path: Path
) -> None:
    environment = package(make)

    assert run_child(USE, tmp_path / "runs", **environment) == [False, True, True]

    _, said = ended("import asynctrack", **environment)
    assert said.count("\n") == 1 and "the native core is not used" in said and why in said
    out, _ = ended(
        "from asynctrack.cli import main; sys.exit(main(['doctor', '--dir', sys.argv[1]]))", tmp_path, **environment
    )
    assert why in " ".join(out.split())
    status, said = failed("import asynctrack", **{**environment, "ASYNCTRACK_REQUIRE_NATIVE": "1"})
    assert (
        status == 1
        and said.splitlines()[-1].startswith("ImportError: ASYNCTRACK_REQUIRE_NATIVE is set, but ")
        and why in said
    )


def test_python_version_that_is_asked_for_says_nothing_of_the_core(package: Package) -> None:
    environment = package(cut)
    for required in ("", "1"):
        given = {**environment, "ASYNCTRACK_PURE": "1", "ASYNCTRACK_REQUIRE_NATIVE": required}
        assert ended("import asynctrack; print(asynctrack.__native__)", **given) == ("False\n", "")


def ended(script: str, *arguments: object, **environment: str) -> tuple[str, str]:
    """Return what a child has written, to both streams."""
    child: Any = start(script, *arguments, **environment)
    out, err = child.communicate(timeout=45)
    return out, err


def failed(script: str, **environment: str) -> tuple[int, str]:
    child: Any = start(script, **environment)
    _, err = child.communicate(timeout=45)
    return child.returncode, err
