"""Config sources: make a mapping of whatever holds a config: objects of many libraries, and files. Runs in the caller.

No library is imported for this: the caller who has an object of a library has imported it. A class is recognised by the attributes that name its fields.

| Given | Its names |
| --- | --- |
| a mapping, OmegaConf's too (references resolved where that can be) | its keys |
| an instance of a dataclass, of attrs, pydantic or msgspec; a named tuple | its fields, nested ones too |
| `argparse.Namespace`, `types.SimpleNamespace` | its attributes |
| `absl.flags.FLAGS` | the flags, without absl's own |
| the path of a file that ends with .yaml, .yml, .json or .toml | what its mapping has |
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from asynctrack._system.paths import expanded
from asynctrack.errors import InvalidConfig, InvalidSettings

# Deeper than any config; what is nested deeper stays what it is.
_DEEPEST: Final = 64
# Arbitrary: far more than a config has; what is nested beyond them stays what it is.
_MOST_NESTED: Final = 1 << 15
_SUFFIXES: Final = (".yaml", ".yml", ".toml", ".json")


def as_mapping(given: Any, what: str = "config", *, pairs: bool = False) -> Mapping[Any, Any]:
    """Make a mapping of something that holds a config.

    Args:
        given: One of the things in the table above.
        what: The name of what it is given to, for the message.
        pairs: True to accept pairs of names and values too, as `dict.update` does.

    Returns:
        A mapping of its own, which may be changed.

    Raises:
        InvalidConfig: It is none of these things.
        InvalidSettings: It is a file that cannot be read, or that does not hold a mapping.
    """
    try:
        if isinstance(given, os.PathLike) or (isinstance(given, str) and given.lower().endswith(_SUFFIXES)):
            return _read_mapping(expanded(given))
        if (found := _of_omegaconf(given)) is None and isinstance(given, Mapping):
            return dict(given)
        if found is None and (fields := _fields(given)) is not None:
            met: dict[int, tuple[Any, Any]] = {}
            found = {name: _deep(value, met) for name, value in fields.items()}
        if found is None and pairs and isinstance(given, Iterable):
            found = dict(given)
    except (InvalidConfig, InvalidSettings):
        raise
    except Exception as error:  # the object's own code failed
        raise InvalidConfig(given, what, f"{type(error).__name__}: {error}") from error
    if found is None:
        raise InvalidConfig(given, what)
    return found


def as_config(given: Any) -> dict[Any, Any]:
    """Make a dict of the argument `config` of `init`; None makes an empty one.

    Raises:
        InvalidConfig, InvalidSettings: See `as_mapping`.
    """
    return {} if given is None else dict(as_mapping(given))


def read_file(path: Path) -> Any:
    """Read a YAML, TOML or JSON file, told apart by the end of its name.

    Raises:
        InvalidSettings: The file cannot be read.
    """
    kind = path.suffix.lower()
    try:
        content = path.read_text(encoding="utf-8-sig")
        if kind == ".json":
            import json  # unlike msgspec it reads NaN, which `json.dump` writes

            return json.loads(content)
        if kind == ".toml":
            import tomllib

            return tomllib.loads(content)
        if kind in (".yaml", ".yml"):
            return _read_yaml(content)
    except OSError as error:
        raise InvalidSettings([f"it cannot be read: {error.strerror}"], str(path)) from error
    except ImportError as error:
        raise InvalidSettings(["YAML needs PyYAML: pip install 'asynctrack[yaml]'"], str(path)) from error
    except RecursionError as error:
        raise InvalidSettings(["it is nested too deeply"], str(path)) from error
    except ValueError as error:  # each format raises its own kind of it
        raise InvalidSettings([f"it cannot be read as {kind[1:].upper()}: {error}"], str(path)) from error
    raise InvalidSettings([f"its name must end with {', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]}"], str(path))


def without_omegaconf(tree: Any) -> Any | None:
    """Make plain containers of one of OmegaConf's; None if it is not one. References that cannot be resolved stay as they are written."""
    omegaconf = sys.modules.get("omegaconf")
    if omegaconf is None or not omegaconf.OmegaConf.is_config(tree):
        return None
    try:
        return omegaconf.OmegaConf.to_container(tree, resolve=True, enum_to_str=True)
    except Exception:  # a reference without a target, or a resolver's own code
        return omegaconf.OmegaConf.to_container(tree, resolve=False, enum_to_str=True)


def _of_omegaconf(given: Any) -> dict[Any, Any] | None:
    tree = without_omegaconf(given)
    if tree is not None and not isinstance(tree, dict):
        raise InvalidConfig(given, "config")
    return tree


def _fields(given: Any) -> Mapping[str, Any] | None:
    """List the names and values of an object's fields; None if it has no fields."""
    kind = type(given)
    if kind is type or isinstance(given, type):
        return None
    if isinstance(given, types.SimpleNamespace) or _is_namespace(given):
        return dict(vars(given))
    if (flags := _flags(given)) is not None:
        return flags
    if (names := _names(kind)) is not None:
        extra = getattr(given, "__pydantic_extra__", None)  # values that a model accepts beyond its fields
        return {name: getattr(given, name) for name in names if hasattr(given, name)} | dict(extra or {})
    if hasattr(kind, "keys") and hasattr(kind, "__getitem__"):
        return {name: given[name] for name in given.keys()}  # noqa: SIM118  # it need not be a mapping
    return None


def _names(kind: type) -> list[str] | None:
    """List the names of a class's fields, of whichever library; None if it has no fields."""
    # First: pydantic's dataclasses are dataclasses too.
    if isinstance(found := getattr(kind, "__pydantic_fields__", None), dict):
        return list(found)
    if isinstance(found := getattr(kind, "__dataclass_fields__", None), dict):
        dataclasses = sys.modules["dataclasses"]
        return [field.name for field in dataclasses.fields(kind)]
    if isinstance(found := getattr(kind, "__attrs_attrs__", None), tuple):
        return [attribute.name for attribute in found]
    if isinstance(found := getattr(kind, "__struct_fields__", None), tuple):
        return list(found)
    if issubclass(kind, tuple) and isinstance(found := getattr(kind, "_fields", None), tuple):
        return list(found)
    if hasattr(kind, "__validators__") and isinstance(found := getattr(kind, "__fields__", None), dict):  # pydantic 1
        return list(found)
    return None


def _is_namespace(given: Any) -> bool:
    argparse = sys.modules.get("argparse")  # it takes a millisecond to import
    return argparse is not None and isinstance(given, argparse.Namespace)


def _flags(given: Any) -> dict[str, Any] | None:
    """List the values of absl's flags, given the module or its `FLAGS`; None if it is neither. Before flags are parsed they have their defaults."""
    absl = sys.modules.get("absl.flags")
    given = absl.FLAGS if absl is not None and given is absl else given
    if absl is None or not isinstance(given, absl.FlagValues):
        return None
    own = {flag.name for module, flags in given.flags_by_module_dict().items() if _is_of_absl(module) for flag in flags}
    return {name: given[name].value for name in given if name not in own and given[name].name == name}


def _is_of_absl(module: str) -> bool:
    return module.split(".")[0] == "absl"


def _deep(value: Any, known: dict[int, tuple[Any, Any]], depth: int = 0) -> Any:
    """Make plain containers of a field's value, nested ones too. An object that it holds twice, or that holds itself, stays one object.

    Args:
        value: The value of a field, or something nested in one.
        known: By the id of each object that was met, the object and what was made of it.
        depth: The number of levels above it.
    """
    if depth > _DEEPEST or len(known) > _MOST_NESTED or value is None or isinstance(value, str | int | float):
        return value
    if id(value) in known:
        return known[id(value)][1]
    if (tree := without_omegaconf(value)) is not None:
        return tree
    if type(value) in (list, tuple):
        items: list[Any] = []
        known[id(value)] = value, items  # with the value, so that no other gets its id
        items.extend([_deep(item, known, depth + 1) for item in value])
        return items
    fields = value if type(value) is dict else _fields(value)
    if fields is None:
        return value
    made: dict[Any, Any] = {}
    known[id(value)] = value, made
    made.update({name: _deep(item, known, depth + 1) for name, item in fields.items()})
    return made


def _read_mapping(path: Path) -> dict[Any, Any]:
    content = read_file(path)
    if content is None:  # an empty file
        return {}
    if not isinstance(content, dict):
        raise InvalidSettings(
            [f"a mapping of names to values is expected at its top; got {type(content).__name__}"], str(path)
        )
    return content


def _read_yaml(content: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(content)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
