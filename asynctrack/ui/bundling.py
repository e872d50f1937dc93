"""Bundling: the modules of the page as one classic script, which runs where there is no server. Runs where runs are exported.

A browser imports no module from `file://`, nor into a frame without an origin. So each module becomes a function of one script, and its imports and exports
become variables. What is understood is how the page's modules are written: imports and exports stand at the beginning of a line, or as the modules of others
have them, behind a semicolon or a brace; a name that is exported keeps its value; and modules do not import each other in a circle.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from pathlib import Path, PurePosixPath
from typing import Final

_NAMES: Final = r"[\w$]+"
_BRACES: Final = r"\{[\w$\s,]*\}"
_IMPORT: Final = re.compile(
    rf'(?:^|(?<=;))import\s*(?P<what>{_NAMES}\s*,\s*{_BRACES}|{_BRACES}|\*\s*as\s+{_NAMES}|{_NAMES})?(?:(?<=[}}\s])from\s*|\s+from\s*)?"(?P<place>[^"]+)";?',
    re.M,
)
_DYNAMIC: Final = re.compile(r'\bimport\("(?P<place>[^"]+)"\)')
_EXPORT_LIST: Final = re.compile(
    rf'(?:^|(?<=[;}}]))export\s*(?P<what>{_BRACES})(?:\s*from\s*"(?P<place>[^"]+)")?;?', re.M
)
_EXPORT_DEFAULT: Final = re.compile(r"(?:^|(?<=[;}]))export\s+default\s+", re.M)
_EXPORT_NAMED: Final = re.compile(
    rf"(?:^|(?<=[;}}]))export\s+(?P<kind>(?:async\s+)?function\s*\*?|class|const)\s+(?P<name>{_NAMES})", re.M
)
_LEFT: Final = re.compile(r"^(?:import|export)\b(?!\s*[(.]).*$", re.M)
# Comments on lines of their own, and the blanks before a line. A template keeps neither: those of the page are markup, where they mean nothing.
_COMMENTS: Final = re.compile(r"^[ \t]*/\*\*.*?\*/[ \t]*\n|^[ \t]*//[^\n]*\n", re.M | re.S)
_INDENTATION: Final = re.compile(r"^[ \t]+", re.M)

# Names that no module has.
_LOADER: Final = """\
"use strict";
const modules = {};
const loaded = {};
const $load = (place) => loaded[place] ??= modules[place]();
const $later = (place) => Promise.resolve().then(() => $load(place));
"""


class BundlingError(ValueError):
    """A module is written in a way that the bundle does not understand."""


def bundle(page: Path, entry: str = "main.js", replaced: Mapping[str, str] | None = None) -> str:
    """Return one script of a module and of all that it imports.

    Args:
        page: the directory that has the modules.
        entry: the module that is run.
        replaced: the texts of modules that are taken in place of those of the directory.

    Raises:
        BundlingError: a module is not there, or is written in a way that is not understood.
    """
    texts = {} if replaced is None else replaced
    modules: dict[str, _Module] = {}
    waiting = [entry]
    while waiting:
        name = waiting.pop()
        if name not in modules:
            modules[name] = _Module(name, texts[name] if name in texts else _text_of(page, name))
            waiting += {*modules[name].imports, *modules[name].later}
    _refuse_missing_names(modules)
    _refuse_circles({name: module.imports.keys() for name, module in modules.items()})
    bodies = "\n".join(modules[name].function for name in sorted(modules))
    return f'(() => {{\n{_LOADER}{bodies}\n$load("{entry}");\n}})();\n'


class _Module:
    """A module on its way to a function of the bundle.

    Attributes:
        imports: the modules that it needs when it begins, each with the names that it takes of them.
        later: the modules that it imports while it runs.
        exports: what others may take of it.
        function: what it is in the bundle.
    """

    def __init__(self, name: str, text: str) -> None:
        self.imports: dict[str, set[str]] = {}
        self.later: set[str] = set()
        self._name = name
        self._exports: dict[str, str] = {}
        self.function = self._as_function(text)
        self.exports = {*self._exports}

    def _as_function(self, text: str) -> str:
        text = _INDENTATION.sub("", _COMMENTS.sub("", text))
        text = _IMPORT.sub(self._import, text)
        text = _DYNAMIC.sub(self._import_later, text)
        text = _EXPORT_LIST.sub(self._export_list, text)
        text = _EXPORT_DEFAULT.sub(self._export_default, text)
        text = _EXPORT_NAMED.sub(self._export_named, text)
        if (left := _LEFT.search(text)) is not None:
            raise BundlingError(f"{self._name}: this is not understood: {left[0]:.120}")
        exported = ", ".join(f"{name}: {local}" for name, local in self._exports.items())
        return f'modules["{self._name}"] = () => {{\n{text.strip()}\nreturn {{{exported}}};\n}};'

    def _place(self, said: str) -> str:
        if not said.startswith(("./", "../")):
            raise BundlingError(f"{self._name}: imports must begin with ./ or ../; got {said!r}")
        parts: list[str] = []
        for part in (PurePosixPath(self._name).parent / said).parts:
            if part != "..":
                parts.append(part)
            elif parts:
                parts.pop()
            else:
                raise BundlingError(f"{self._name}: {said!r} is outside of the page")
        return "/".join(parts)

    def _import(self, match: re.Match[str]) -> str:
        place = self._place(match["place"])
        what = " ".join((match["what"] or "").split())
        taken = self.imports.setdefault(place, set())
        if not what:
            return f'$load("{place}");'
        if what.startswith("*"):
            return f'const {what.split()[-1]} = $load("{place}");'
        default, _, braces = what.partition("{")
        pairs = [("default", default.strip(" ,"))] if default.strip(" ,") else []
        pairs += _pairs_in(braces)
        taken |= {outer for outer, _ in pairs}
        return f'const {{{", ".join(f"{outer}: {local}" for outer, local in pairs)}}} = $load("{place}");'

    def _import_later(self, match: re.Match[str]) -> str:
        place = self._place(match["place"])
        self.later.add(place)
        return f'$later("{place}")'

    def _export_list(self, match: re.Match[str]) -> str:
        pairs = _pairs_in(match["what"])
        if match["place"] is None:
            self._exports |= {outer: local for local, outer in pairs}
            return ""
        place = self._place(match["place"])
        self.imports.setdefault(place, set()).update(theirs for theirs, _ in pairs)
        self._exports |= {outer: f'$load("{place}").{theirs}' for theirs, outer in pairs}
        return ""

    def _export_default(self, match: re.Match[str]) -> str:
        self._exports["default"] = "$default"
        return "const $default = "

    def _export_named(self, match: re.Match[str]) -> str:
        self._exports[match["name"]] = match["name"]
        return f"{match['kind']} {match['name']}"


def _pairs_in(braces: str) -> list[tuple[str, str]]:
    """Return the names in braces, each with the name behind its `as`, or with itself."""
    found = [" ".join(name.split()).partition(" as ") for name in braces.strip("{} \n").split(",") if name.strip()]
    return [(name, other or name) for name, _, other in found]


def _text_of(page: Path, name: str) -> str:
    try:
        return (page / name).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BundlingError(f"the page has no module {name}") from None


def _refuse_missing_names(modules: Mapping[str, _Module]) -> None:
    for name, module in modules.items():
        for place, taken in module.imports.items():
            if missing := taken - modules[place].exports:
                raise BundlingError(f"{name}: {place} exports no {', '.join(sorted(missing))}")


def _refuse_circles(arrows: Mapping[str, Set[str]]) -> None:
    """Refuse modules that import each other in a circle."""
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        if name in way:
            raise BundlingError(
                f"modules import each other in a circle: {' -> '.join([*way[way.index(name) :], name])}"
            )
        if name not in done:
            for other in sorted(arrows[name]):
                visit(other, (*way, name))
            done.add(name)

    for name in sorted(arrows):
        visit(name, ())
