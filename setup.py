"""Setup: builds the native core where there is a C compiler, and a package without it where there is none.

`pyproject.toml` has all that does not depend on the machine. Here are the flags of the compiler, and the tag of the wheel: that of this Python
and system with the core, since it is built against this version's own interface, and `py3-none-any` without it.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import sys
import tempfile
from glob import glob
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

# Where a failed build has to be an error: in CI, for benches and for wheels that are published.
REQUIRED = os.environ.get("ASYNCTRACK_REQUIRE_NATIVE", "") not in ("", "0")
FLAGS = ["-std=c17", "-O3", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-missing-field-initializers"]

# Has the number by which a core of other sources is found out.
NATIVE = "asynctrack/_system/native.py"


def api() -> str:
    """Read the number that the core has to bear."""
    found = re.search(r"^API: Final = (0x[0-9A-F]{8})$", Path(NATIVE).read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise SystemExit(f"{NATIVE}: expected a line `API: Final = 0x`, with eight hexadecimal digits")
    return found[1]


def core() -> Extension:
    """Describe the native core: each C file below its folder is a part of it."""
    return Extension(
        "asynctrack._native",
        sources=sorted(glob("asynctrack/_native/*.c")),
        depends=[*sorted(glob("asynctrack/_native/*.h")), NATIVE],
        define_macros=[("NATIVE_API", api())],
        extra_compile_args=[] if sys.platform == "win32" else FLAGS,
        optional=not REQUIRED,
    )


class FreshBuild(build):
    """Builds in a directory of its own: what lies in `build/` from an earlier version would get into the wheel."""

    def initialize_options(self) -> None:
        super().initialize_options()
        self.build_base = tempfile.mkdtemp(prefix="asynctrack-build-")
        atexit.register(shutil.rmtree, self.build_base, ignore_errors=True)


class Wheel(bdist_wheel):
    """Makes a wheel for any Python where the core could not be built."""

    def run(self) -> None:
        self.run_command("build_ext")
        built: build_ext = self.get_finalized_command("build_ext")
        if not all(map(os.path.exists, built.get_outputs())):
            self.distribution.ext_modules = []
            self.root_is_pure = True
        super().run()


setup(ext_modules=[core()], cmdclass={"build": FreshBuild, "bdist_wheel": Wheel})
