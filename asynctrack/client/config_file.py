"""Config file: from a mapping or a file to what a `Tracker` takes. Runs in the caller.

A file is YAML, TOML or JSON, by the end of its name. It has what `Tracker` takes, with a mapping for each backend:

    project: sweep
    dir: ${env:SCRATCH}/runs
    config: {lr: 0.001}
    backends:
      - jsonl
      - {kind: tensorboard, flush_s: 2.0}
      - {_target_: my_package.MyBackend, url: "${env:DATABASE_URL}"}
      - null

`backends` may also be a mapping, whose keys are the kinds where its values do not say another. `null` and `disabled` leave a backend
out, and in place of the whole they give a tracker that does nothing. Nothing can be constructed so but backends: the module that a dotted path
begins with is imported, and what is no backend class there is refused before anything is called.

References to the environment (see `asynctrack.backends.env_refs`) are looked up where a text stands that the process uses; for a backend the
reference is what `run.json` keeps. The run's `config` is recorded as it is written, references too. OmegaConf's other interpolations are OmegaConf's.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from asynctrack._system.paths import expanded
from asynctrack._system.suggestions import hint
from asynctrack._system.wrong_types import explain, shown
from asynctrack.backends import env_refs
from asynctrack.backends.base import Backend
from asynctrack.backends.registry import KINDS, class_of, plug_ins
from asynctrack.client.config_sources import read_file
from asynctrack.client.init_arguments import check_settings
from asynctrack.client.opening import init
from asynctrack.errors import AsynctrackError, BackendUnavailable, InvalidSettings
from asynctrack.settings import Settings

Source = Mapping[str, Any] | str | os.PathLike[str] | None

DISABLED: Final = "disabled"

# A few lines of YAML with anchors can have billions of values, or contain themselves. Arbitrary: far more than anybody writes.
_MOST_VALUES: Final = 1_000_000
_DEEPEST: Final = 100
# Digits of a number: Python refuses to write more than 4300, so an error could not show it.
_MOST_BITS: Final = 14_000
# The keys of a configuration that are meant for Hydra.
_HYDRAS: Final = frozenset({"_target_", "_convert_", "_recursive_"})
_WRONG: Final = object()
_TRACKERS: Final = frozenset(
    {"asynctrack.Tracker", "asynctrack.Tracker.from_config", "asynctrack.client.tracker.Tracker"}
)


def tracker_arguments(source: Source) -> dict[str, Any]:
    """Translate a configuration to the arguments of `Tracker`.

    Args:
        source: See `Tracker.from_config`.

    Returns:
        The arguments by name.

    Raises:
        InvalidSettings: The configuration cannot be used. The message names every problem with its place, and the name that was perhaps meant.
    """
    where, tree = ("", source)
    if isinstance(source, str | os.PathLike) and source != DISABLED:
        path = expanded(source)
        where, tree = str(path), read_file(path)
    tree = _without_omegaconf(tree)
    if not _is_small(tree):
        most = f"at most {_MOST_VALUES} values, nested at most {_DEEPEST} levels deep, with numbers of at most {_MOST_BITS} bits"
        raise InvalidSettings([f"expected {most}"], where)
    if _is_off(tree):
        return {"project": DISABLED, "mode": DISABLED}
    reading = _Reading()
    arguments = reading.tracker(tree)
    if reading.problems:
        raise InvalidSettings(reading.problems, where)
    return arguments


class _Reading:
    """Reads a configuration, and collects all that is wrong with it.

    Attributes:
        problems: The problems in words, each with its place, such as `backends[0].flush_s`.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []

    def tracker(self, tree: object) -> dict[str, Any]:
        """Read the arguments of `Tracker`."""
        if not isinstance(tree, Mapping):
            self._note(f"expected a mapping of names to settings, got {shown(tree)}", "")
            return {}
        if str(tree.get("_target_", "asynctrack.Tracker")) not in _TRACKERS:
            self._note(f"`_target_` must be `asynctrack.Tracker`; got {tree['_target_']!r:.80}", "")
        known = _tracker_fields()
        arguments: dict[str, Any] = {}
        for key, value in tree.items():
            if key in _HYDRAS:
                continue
            if key not in known:
                self._unknown(key, known, "")
            elif key == "backends":
                arguments[key] = self.backends(value, "backends")
            elif key == "config":
                arguments[key] = value
            elif (found := self._value(value, known[key], key)) is not _WRONG:
                arguments[key] = found
        self._check(arguments)
        return arguments

    def backends(self, tree: object, at: str) -> list[Backend]:
        """Build the backends of a list or mapping, without those that are switched off."""
        if _is_off(tree):
            return []
        if isinstance(tree, Mapping) and not tree.keys() & {"kind", "_target_"}:
            entries = [(f"{at}.{key}", key, value) for key, value in tree.items()]
        elif isinstance(tree, Sequence) and not isinstance(tree, str):
            entries = [(f"{at}[{number}]", None, value) for number, value in enumerate(tree)]
        else:
            entries = [(at, None, tree)]
        found = (self.backend(value, key, place) for place, key, value in entries if not _is_off(value))
        return [backend for backend in found if backend is not None]

    def backend(self, tree: object, name: str | None, at: str) -> Backend | None:
        """Build a backend from its kind, or from a mapping of its kind and settings; None if it cannot be built."""
        if isinstance(tree, Backend):
            return tree
        if isinstance(tree, str):
            tree = {"kind": tree}
        if not isinstance(tree, Mapping):
            self._note(f"expected the kind of a backend, or a mapping, got {shown(tree)}", at)
            return None
        kinds = [str(tree[key]) for key in ("kind", "_target_") if key in tree] or ([] if name is None else [str(name)])
        if len(kinds) != 1:
            self._note("say which backend it is, by either `kind` or `_target_`", at)
            return None
        defined = self._class_of(kinds[0], at)
        settings = {key: tree[key] for key in tree if key not in {*_HYDRAS, "kind"}}
        return None if defined is None else self._construct(defined, settings, at)

    def _class_of(self, kind: str, at: str) -> type[Backend] | None:
        if "." not in kind and kind not in KINDS and kind not in (theirs := plug_ins()):
            known = [*KINDS, *theirs]
            self._note(f"unknown kind `{kind}`", at, hint(kind, known) or _there_are(known))
            return None
        try:
            return class_of(kind)
        except BackendUnavailable as error:
            self._note(str(error), at)
            return None

    def _construct(self, defined: type[Backend], given: Mapping[str, Any], at: str) -> Backend | None:
        fields = {field.name: field for field in msgspec.structs.fields(defined) if field.name != "references"}
        before = len(self.problems)
        values: dict[str, Any] = {}
        written: dict[str, Any] = {}
        for key, value in given.items():
            if key not in fields:
                self._unknown(key, fields, at)
            elif _is_secret(fields[key]) and (name := env_refs.name_of(value)):
                values[key] = f"env:{name}"
            else:
                values[key] = self._value(value, fields[key].type, f"{at}.{key}")
                written |= {key: value} if env_refs.refers(value) else {}
        for key, field in fields.items():
            if field.required and key not in given:
                self._note(f"`{key}` is missing", at)
        if len(self.problems) > before:
            return None
        try:
            return defined(**values, references=written)
        except InvalidSettings as error:
            for problem in error.problems:
                self._note(env_refs.hide(problem, written), at)
        except Exception as error:  # a user's backend checks its settings by code of its own
            self._note(env_refs.hide(f"{type(error).__name__}: {error}", written), at)
        return None

    def _value(self, value: Any, wanted: Any, at: str) -> Any:
        """Look up the references in a value and convert it to the type that is wanted; `_WRONG` if it has another."""
        refers = env_refs.refers(value)
        if unset := env_refs.missing(value):
            self._note(f"{at} refers to {', '.join(unset)}, which is not set in the environment", "")
            return _WRONG
        try:
            resolved = env_refs.resolve(value)
            return msgspec.convert(resolved, wanted, strict=not refers, dec_hook=_made_of_text)
        except msgspec.ValidationError as error:
            self._note(env_refs.hide(explain(error, value, at), value), "")
            return _WRONG
        except TypeError:  # msgspec does not know the type: its own code checks the value
            return resolved

    def _check(self, arguments: Mapping[str, Any]) -> None:
        """Collect what `Tracker` itself would refuse."""
        if "project" not in arguments:
            return self._note("`project` is missing", "")
        rest = {key: value for key, value in arguments.items() if key not in ("project", "config")}
        try:
            check_settings(arguments["project"], rest, arguments.get("config"))
        except InvalidSettings as error:
            for problem in error.problems:
                self._note(problem, "")
        except AsynctrackError as error:
            self._note(str(error), "")
        return None

    def _unknown(self, key: object, known: Mapping[str, Any], at: str) -> None:
        self._note(f"unknown field `{key}`", at, hint(str(key), known) or _there_are(known))

    def _note(self, problem: str, at: str, remedy: str = "") -> None:
        """Note a problem with its place, which is empty for the whole configuration, and perhaps with what to do."""
        self.problems.append(f"{problem}{at and f' at `{at}`'}{remedy}")


def _tracker_fields() -> dict[str, Any]:
    """List the arguments of `Tracker`, with their types as far as they are checked here."""
    limits = {field.name: field.type for field in msgspec.structs.fields(Settings)}
    known = {name: Any for name in inspect.signature(init).parameters if name not in ("id", "resume")}
    return {**known, **{name: kind for name, kind in limits.items() if kind in (int | None, float)}}


def _is_secret(field: msgspec.structs.FieldInfo) -> bool:
    """Tell whether a field takes only the name of an environment variable, which is read when the sink opens."""
    return isinstance(field.default, str) and field.default.startswith("env:")


def _there_are(known: Iterable[str]) -> str:
    return f"; there are {', '.join(known)}"


def _is_off(tree: object) -> bool:
    return tree is None or (isinstance(tree, str) and tree == DISABLED)


def _made_of_text(wanted: type, value: Any) -> Any:
    if issubclass(wanted, os.PathLike) and isinstance(value, str):
        return wanted(value)  # type: ignore[call-arg]  # paths take text
    raise TypeError(f"Expected `{wanted.__name__}`, got `{type(value).__name__}`")


def _is_small(tree: object) -> bool:
    """Tell whether a configuration has an end, and not too many values before it."""
    left, level = _MOST_VALUES, [tree]
    for _ in range(_DEEPEST):
        below: list[object] = []
        for value in level:
            if isinstance(value, int) and value.bit_length() > _MOST_BITS:
                return False
            items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
            below += items
            left -= len(items)
            if left < 0:
                return False
        if not below:
            return True
        level = below
    return False


def _without_omegaconf(tree: Any) -> Any:
    """Replace OmegaConf's containers by plain ones. If it was not imported, there are none."""
    omegaconf = sys.modules.get("omegaconf")
    if omegaconf is None or not omegaconf.OmegaConf.is_config(tree):
        return tree
    raw = omegaconf.OmegaConf.to_container(tree, resolve=False)
    if isinstance(raw, dict):
        return {key: _item(tree, key, item) for key, item in raw.items()}
    if isinstance(raw, list):
        return [_item(tree, at, item) for at, item in enumerate(raw)]
    return raw


def _item(tree: Any, key: Any, raw: Any) -> Any:
    """Return an item of one of OmegaConf's containers, with references to the environment as they are written."""
    if isinstance(raw, dict | list) or (isinstance(raw, str) and "${" in raw and not env_refs.refers(raw)):
        return _without_omegaconf(tree[key])
    return raw
