"""Native: says whether the native core is used, and if not, why. Any process.

The core is an extension in C, `asynctrack._native`. Where it could not be built, the Python version of each part does the same; `ASYNCTRACK_PURE=1` in the
environment asks for that. A module that has a part in the core chooses by `is_native`, and imports `asynctrack._native` only then.

A core that is there and cannot be used, as in a checkout whose sources have changed since it was built, is not used either. This is said once in each process;
with `ASYNCTRACK_REQUIRE_NATIVE=1` it is an error.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from typing import Final

PURE_VARIABLE: Final = "ASYNCTRACK_PURE"
REQUIRE_VARIABLE: Final = "ASYNCTRACK_REQUIRE_NATIVE"
# The checksum of `_native.pyi`, which a test compares. `setup.py` reads it here and compiles it into the core: one that has another is not of these sources.
API: Final = 0xCC771C7E
_UNSET: Final = ("", "0")


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "") not in _UNSET


def _look() -> tuple[str | None, bool]:
    """Say why the core is not used, None where it is; and whether there is one that cannot be used."""
    if is_pure:
        return f"{PURE_VARIABLE} asks for the Python version", False
    try:
        # Without the core there is no such module, or the folder of its source is a package without a name in it: neither has a path.
        import asynctrack._native as core  # `from asynctrack import` has the path of `asynctrack`
        from asynctrack._native import load
    except ImportError as error:
        if error.path is None:
            return f"the native core was not built, which takes a C compiler ({error}); install again", False
        return f"{error.path} cannot be loaded ({error}); {_REMEDY}", True
    del load
    if (found := getattr(core, "API", None)) != API:
        made_for = "no number" if found is None else f"{found:#010x}"
        return (
            f"{core.__file__} was built from other sources (expected {API:#010x}, got {made_for}); {_REMEDY}",
            True,
        )
    return None, False


_REMEDY: Final = "install again, or in a checkout run `python setup.py build_ext --inplace`"


def _tell(why: str) -> None:
    """Say that a core cannot be used: to who has asked for it by an error, else by a warning."""
    if _is_set(REQUIRE_VARIABLE):
        raise ImportError(f"{REQUIRE_VARIABLE} is set, but {why}")
    import logging

    logging.getLogger("asynctrack").warning("the native core is not used, log() takes several times as long: %s", why)


is_pure: Final = _is_set(PURE_VARIABLE)
_found: Final = _look()
why_not: Final = _found[0]
is_broken: Final = _found[1]
is_native: Final = why_not is None
if why_not and is_broken:
    _tell(why_not)
