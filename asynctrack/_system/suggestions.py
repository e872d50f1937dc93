"""Suggestions: what a wrong name was perhaps meant to be, said in the error of it. Any process.

Python 3.13 says it of the keyword arguments of functions itself, and of attributes where a traceback is shown. The rest is here, in Python's words.
Nothing runs for a name that is right, and `difflib` is loaded for one that is wrong.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, TypeVar

    F = TypeVar("F", bound=Callable[..., Any])

# How Python and msgspec say it.
_UNEXPECTED = "nexpected keyword argument '"
_POSITIONAL = "Extra positional arguments provided"
# Characters of a wrong word: to look for one that is like it takes the square of them. Arbitrary.
_LONGEST = 100
# Not asked of `sys.version_info`: type checkers would take one half of the code for unreachable.
_PYTHON_SUGGESTS = sys.hexversion >= 0x030D0000


def closest(word: str, known: Iterable[str]) -> str | None:
    """Find the known word that is most like a wrong one, upper and lower case alike, the first of several; None where none is like it."""
    import difflib

    names: dict[str, str] = {}
    for name in known:
        names.setdefault(name.lower(), name)
    found = difflib.get_close_matches(word[:_LONGEST].lower(), names, n=1)
    return names[found[0]] if found else None


def hint(word: str, known: Iterable[str]) -> str:
    """Ask whether the closest of the known words was meant; empty where none is like it."""
    found = closest(word, known)
    return "" if found is None else f"; did you mean `{found}`?"


def unknown_attribute(
    namespace: Mapping[str, Any], name: str, elsewhere: str = "", more: Iterable[str] = ()
) -> AttributeError:
    """Make the error for a name that a module does not have.

    Args:
        namespace: The module's `globals()`.
        name: The wrong name.
        elsewhere: The name of another module that users may have meant.
        more: Names that the module has beside those of `__all__`.

    Returns:
        The error, to be raised.
    """
    module = namespace["__name__"]
    text = f"module {module!r} has no attribute {name!r}"
    if name.startswith("_"):  # a name that tools look up
        return AttributeError(text)
    if _is_submodule(namespace, name):  # the import system asks for one before it imports it
        return AttributeError(f"{text}: import it first, by `import {module}.{name}`")
    public = namespace.get("__all__") or [one for one in namespace if not one.startswith("_")]
    others = getattr(sys.modules.get(elsewhere), "__all__", ())
    written = {one: one for one in (*more, *public)}
    for one in others:
        written.setdefault(one, f"{elsewhere}.{one}")
    for one in _submodules(namespace):
        written.setdefault(one, one)
    found = closest(name, written)
    return AttributeError(text if found is None else f"{text}; did you mean `{written[found]}`?")


def clearer(error: TypeError, called: str, known: Iterable[str]) -> TypeError:
    """Make a call's `TypeError` about its arguments say which keyword arguments there are, or which was perhaps meant; any other is returned as it is.

    Args:
        error: what was raised.
        called: the name of what was called.
        known: the keyword arguments that it takes.
    """
    known = list(known)
    if str(error) == _POSITIONAL:
        return TypeError(f"{called}() takes its arguments by name: {', '.join(known)}")
    name = str(error).partition(_UNEXPECTED)[2].partition("'")[0]
    if not name:
        return error
    found = closest(name, known)
    told = f"Did you mean '{found}'?" if found else f"It takes {', '.join(known)}"
    return TypeError(f"{called}() got an unexpected keyword argument {name!r}. {told}")


def was_never_entered(error: BaseException) -> bool:
    """Tell whether a call failed before the first line of what was called, for one that is caught where the call is made."""
    return error.__traceback__ is None or error.__traceback__.tb_next is None


def suggests(function: F) -> F:
    """Let a function say which keyword argument was perhaps meant, where Python does not: before 3.13.

    A call takes 0.4 us longer there (Python 3.11), and a traceback through it has one more frame. So it is not for what a loop calls (`log`), nor for coroutine
    functions, which would no longer be known as such. Signature, help and types stay.
    """
    if _PYTHON_SUGGESTS:
        return function
    code = function.__code__
    known = [
        name for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount] if name not in ("self", "cls")
    ]

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True  # pytest and IPython leave it out
        try:
            return function(*args, **kwargs)
        except TypeError as error:
            if not was_never_entered(error):
                raise
            raise clearer(error, function.__qualname__, known) from None

    return call  # type: ignore[return-value]  # it is called as the function is


def _is_submodule(namespace: Mapping[str, Any], name: str) -> bool:
    folders = namespace.get("__path__", ())
    return any(
        os.path.exists(os.path.join(folder, name + end)) for folder in folders for end in (".py", "/__init__.py")
    )


def _submodules(namespace: Mapping[str, Any]) -> list[str]:
    """List the public modules in a package's folders; none where it lies in an archive."""
    found: list[str] = []
    for folder in namespace.get("__path__", ()):
        with contextlib.suppress(OSError):
            found += (name.removesuffix(".py") for name in os.listdir(folder))
    return [name for name in found if name.isidentifier() and not name.startswith("_")]
