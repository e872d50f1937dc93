"""Snapshots: a record is one moment of what was logged, whatever other threads and the values' own code do meanwhile, and in bounded time."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import enum
import threading
import time
from collections.abc import Callable, Iterator, Mapping, MutableSequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import omegaconf
import pytest
from support import lines, records, run_child, values

import asynctrack
from asynctrack import Artifact, Run
from asynctrack.records.codec import decode_record, encode, encode_any, encode_quickly
from asynctrack.records.snapshot import MOST_NODES

pytestmark = pytest.mark.usefixtures("shared_host", "version")

# A container holds consecutive numbers at each moment, in the order of time; an array holds one. So a copy that was torn shows.
CHANGING = """
import json, sys, threading, time
import numpy as np
import asynctrack

runs, kind, lasts_s = sys.argv[1], sys.argv[2], float(sys.argv[3])
until = time.monotonic() + lasts_s
number = np.float32 if kind.startswith("numpy") else (lambda n: n)
shape = kind.rpartition(" ")[2]
window, by_name, array, bag = [], {}, np.zeros(100), set()
sys.setswitchinterval(1e-5)

def change():
    n = 0
    while time.monotonic() < until:
        for n in range(n, n + 1000):
            if shape == "list":
                window.append(number(n))
                if len(window) > 60:
                    del window[: 1 + n % 50]
            elif shape in ("dict", "nested"):
                by_name[f"k{n}"] = number(n)
                if n >= 20:
                    del by_name[f"k{n - 20}"]
            elif shape == "set":
                bag.add(n)
                bag.discard(n - 50)
            else:
                array[:] = n
        n += 1

what = {"list": {"window": window}, "dict": by_name, "nested": {"window": [1, by_name]}, "array": {"window": array}, "set": {"window": bag}}[shape]
with asynctrack.init("p", dir=runs, when_full="block", backends=[]) as run:  # what counts is in the journal
    threads = [threading.Thread(target=change)]
    for thread in threads:
        thread.start()
    logged = 0
    while time.monotonic() < until:
        logged += run.log(what)
    for thread in threads:
        thread.join()
torn = read = 0
for record in asynctrack.open_run(run.path).records():
    read += 1
    found = record.data if shape == "dict" else record.data["window"]
    if shape == "nested":
        found = found[1]
    found = np.asarray(found).tolist() if shape == "array" else list(found.values()) if isinstance(found, dict) else found
    step = 0 if shape == "array" else 1
    torn += any(after - before != step for before, after in zip(found, found[1:]))
print(json.dumps([logged, read, torn]))
"""
KINDS = ["list", "dict", "nested", "set", "numpy list", "numpy dict", "numpy nested", "numpy array"]


@pytest.mark.system
@pytest.mark.parametrize("kind", KINDS)
def test_record_is_one_moment_of_what_another_thread_changes(kind: str, runs: Path) -> None:
    logged, read, torn = run_child(CHANGING, runs, kind, 0.5)
    assert logged == read > 0
    assert torn == 0


@pytest.mark.slow
@pytest.mark.timeout(600)  # a minute of changes, and as long again or twice to read two and a half million records
@pytest.mark.parametrize("kind", KINDS)
def test_record_is_one_moment_of_what_another_thread_changes_for_a_minute(kind: str, runs: Path) -> None:
    for part in range(20):  # a child has 40 s in all, and reads longer than it logs
        logged, read, torn = run_child(CHANGING, runs / str(part), kind, 3)
        assert logged == read > 0
        assert torn == 0


# What a value's own code does in the middle: each takes items out of the list that holds it, and tries to let another thread in.
MEDDLING = """
import collections, dataclasses, datetime, enum, json, sys, time, uuid
import asynctrack

window, by_name = [], {}

def meddle():
    del window[1:]
    for name in list(by_name)[1:]:
        del by_name[name]
    time.sleep(0)

@dataclasses.dataclass
class Field:
    x: int = 1
    def __getattribute__(self, name):
        meddle()
        return object.__getattribute__(self, name)

class Colour(enum.Enum):
    RED = "red"
    def __getattribute__(self, name):
        meddle()
        return object.__getattribute__(self, name)

class Zone(datetime.tzinfo):
    def utcoffset(self, at):
        meddle()
        return datetime.timedelta(0)

class Proxy:
    def __getattr__(self, name):
        meddle()
        raise AttributeError(name)

class Bag(set):
    def __iter__(self):
        meddle()
        return iter([1])

class Number(int):
    def __index__(self):
        meddle()
        return 1
    __int__ = __index__

class Text(str):
    def __str__(self):
        meddle()
        return "text"

class Id(uuid.UUID):
    @property
    def int(self):
        meddle()
        return 1

makers = {
    "field": Field, "enum": lambda: Colour.RED, "moment": lambda: datetime.datetime(2024, 1, 1, tzinfo=Zone()), "proxy": Proxy, "set": lambda: Bag({1}),
    "int": lambda: Number(3), "text": lambda: Text("t"), "id": lambda: Id(bytes(16)) if False else Text("i"),
}
results = {}
with asynctrack.init("p", dir=sys.argv[1], when_full="block") as run:
    logged = 0
    for name, make in makers.items():
        for _ in range(5):
            window[:] = [make() for _ in range(50)]
            logged += run.log({"window": window, "nested": {"window": [window]}})
            by_name.update({f"k{i}": make() for i in range(20)})
            logged += run.log(by_name)
            window[:] = [{"x": make()} for _ in range(20)]
            logged += run.log({"window": window})
read = [len(record.data.get("window", record.data)) for record in asynctrack.open_run(run.path).records()]
print(json.dumps([logged, len(read), sorted(set(read))]))
"""


@pytest.mark.system
def test_value_whose_own_code_changes_its_container_does_no_harm(runs: Path) -> None:
    logged, read, lengths = run_child(MEDDLING, runs)
    assert logged == read == 120
    assert lengths == [20, 50]


def test_the_encoder_calls_nothing_for_a_value_it_does_not_know() -> None:
    class Foreign:
        pass

    with pytest.raises(TypeError, match="unsupported"):
        encode((0, None, {"x": np.float32(1)}))
    assert asynctrack.records.codec.HOLDS_OTHERS({"x": Foreign()})  # so that it never comes to the encoder


@pytest.mark.parametrize(
    "value", [[1], {"a": 1}, ([],), {1}, collections.deque(), Path()], ids=lambda value: type(value).__name__
)
def test_what_can_be_changed_or_has_code_is_never_walked_as_it_is(value: Any) -> None:
    assert asynctrack.records.codec.HOLDS_OTHERS({"x": value})


@pytest.mark.parametrize("value", [1, 0.5, "a", None, True, b"x", np.float32(1)], ids=repr)
def test_flat_record_is_encoded_without_a_copy(value: Any) -> None:
    assert not asynctrack.records.codec.HOLDS_OTHERS({"x": value})


# Bounds


def twins(levels: int, leaf: Any = 1) -> Any:
    """So many levels of a mapping that has the same below it twice."""
    for _ in range(levels):
        leaf = {"l": leaf, "r": leaf}
    return leaf


def circle() -> dict[str, Any]:
    """A mapping that is in itself twice."""
    found: dict[str, Any] = {"x": 1}
    found["a"] = found["b"] = found
    return found


def family() -> dict[str, Any]:
    """Children that know their parent."""
    parent: dict[str, Any] = {"children": []}
    parent["children"] += [{"parent": parent, "siblings": parent["children"]} for _ in range(20)]
    return parent


class Endless(Mapping[str, Any]):
    """A mapping that has itself anew below each name."""

    def __getitem__(self, key: str) -> Any:
        return Endless()

    def __iter__(self) -> Iterator[str]:
        return iter("ab")

    def __len__(self) -> int:
        return 2


class Counting(MutableSequence[int]):
    """A sequence that does not end."""

    def __iter__(self) -> Iterator[int]:
        while True:
            yield 1

    def __len__(self) -> int:
        return 1

    def __getitem__(self, at: Any) -> Any:
        return 1

    def __setitem__(self, at: Any, value: Any) -> None: ...

    def __delitem__(self, at: Any) -> None: ...

    def insert(self, index: int, value: int) -> None: ...


@dataclasses.dataclass(repr=False)
class Node:
    left: Any
    right: Any


def tree(levels: int) -> Any:
    """As `twins`, of objects."""
    leaf: Any = 1
    for _ in range(levels):
        leaf = Node(leaf, leaf)
    return leaf


ENDLESS: dict[str, Callable[[], Any]] = {
    "twenty levels of twins": lambda: twins(20),
    "sixty levels of twins": lambda: twins(60),
    "twins of texts": lambda: twins(20, "x" * 10_000),
    "twins of lists": lambda: twins(20, [0.5] * 10_000),
    "twins of arrays": lambda: twins(20, np.zeros(10_000)),
    "twins of objects": lambda: tree(30),
    "circle": circle,
    "family": family,
    "endless mapping": Endless,
    "endless sequence": Counting,
}


@pytest.mark.system
@pytest.mark.parametrize("name", ENDLESS)
def test_what_has_no_end_is_cut_in_bounded_time_and_size(name: str) -> None:
    value = ENDLESS[name]()
    began = time.process_time()
    payload, strange = encode_any({"value": value, "x": 1})
    assert time.process_time() - began < 5.0
    assert len(payload) < 100e6
    assert decode_record(payload, 0).data["x"] == 1
    assert strange == (["value"] if name != "endless sequence" else [])


@pytest.mark.system
def test_endless_values_are_taken_by_log_config_summary_checkpoint_and_scopes(runs: Path) -> None:
    with asynctrack.init("p", dir=runs, config={"circle": circle()}) as run:
        run.log(circle())
        run.summary["circle"] = circle()
        run.checkpoint(circle=circle())
        run.bind({"circle": circle()}).log({"x": 2})
        run.scope("all", arrays="exclude").log(circle())
        run.scope("all", arrays="exclude").log({"twins": twins(60, np.zeros(3))})
    assert values(run.path, "x") == [1, 2]
    assert asynctrack.open_run(run.path).config["circle"]["a"] == "{...}"
    assert records(run.path)[0].data["a"]["a"] == "{...}"


def test_shared_part_is_no_circle() -> None:
    part = {"y": [1, 2]}
    data = {"a": part, "b": part, "c": [part, part]}
    payload, strange = encode_any(data)
    assert decode_record(payload, 0).data == data
    assert strange == []


@pytest.mark.system
def test_large_record_of_numbers_is_not_cut() -> None:
    data = {"rows": [[i, 0.5] for i in range(MOST_NODES + 9)], "named": [{"i": i} for i in range(MOST_NODES + 9)]}
    payload, strange = encode_any(data)
    assert decode_record(payload, 0).data == data
    assert strange == []


# Values whose own code raises


class Raises(Exception):
    """What nobody expects."""


def _raise(*_: object, **__: object) -> Any:
    raise Raises


HOSTILE_METHODS = [
    "__str__",
    "__repr__",
    "__iter__",
    "__len__",
    "__getitem__",
    "__eq__",
    "__bool__",
    "__int__",
    "__index__",
    "__float__",
    "__fspath__",
    "__array__",
    "__contains__",
    "__reversed__",
    "keys",
    "values",
    "items",
    "copy",
    "tolist",
    "item",
    "detach",
    "cpu",
    "savefig",
    "getbands",
    "isoformat",
    "utcoffset",
    "total_seconds",
    "shape",
    "dtype",
    "columns",
    "index",
    "fields",
]


def hostile(base: type, *arguments: Any) -> Any:
    """An instance of a subclass whose every method raises."""
    methods = dict.fromkeys(HOSTILE_METHODS, _raise)
    return type(f"Hostile{base.__name__}", (base,), methods)(*arguments)


class Opaque:
    """An object of which nothing can be asked."""

    def __getattribute__(self, name: str) -> Any:
        raise Raises


class Vain(dict[str, Any]):
    """A mapping that has nothing it says it has."""

    def __getitem__(self, key: str) -> Any:
        raise Raises

    def keys(self) -> Any:
        raise Raises

    def __iter__(self) -> Iterator[str]:
        raise Raises


class Half(Mapping[str, Any]):
    """A mapping one of whose values cannot be had."""

    def __getitem__(self, key: str) -> Any:
        if key == "bad":
            raise Raises
        return 1

    def __iter__(self) -> Iterator[str]:
        return iter(["good", "bad"])

    def __len__(self) -> int:
        return 2


class Unhashable(enum.Enum):
    A = "a"

    def __str__(self) -> str:
        raise Raises


HOSTILE: list[tuple[Any, Any]] = [
    (hostile(dict, {"a": 1}), {"a": 1}), (hostile(list, [1, 2]), [1, 2]), (hostile(tuple, (1, 2)), [1, 2]), (hostile(set, {1}), [1]),
    (hostile(frozenset, {1}), [1]), (hostile(str, "text"), "text"), (hostile(int, 3), 3), (hostile(float, 0.5), 0.5), (hostile(bytes, b"x"), b"x"),
    (hostile(collections.OrderedDict, {"a": 1}), {"a": 1}), (hostile(collections.UserDict), ...), (hostile(object), ...), (hostile(Exception), ...),
    (hostile(datetime.datetime, 2024, 1, 1), ...), (hostile(datetime.timedelta, 1), ...), (hostile(collections.deque, [1]), [1]),
    (Opaque(), ...), (Vain(a=1), {"a": 1}), (Half(), {"good": 1, "bad": "<Raises>"}), (Unhashable.A, "a"),
    (omegaconf.OmegaConf.create({"a": 1, "m": "???"}), {"a": 1, "m": "???"}), (omegaconf.OmegaConf.create({"a": "${nowhere}"}), {"a": "${nowhere}"}),
    (omegaconf.OmegaConf.create([1, "???"]), [1, "???"]), (omegaconf.OmegaConf.create({"a": 2, "b": "${a}"}), {"a": 2, "b": 2}),
]  # fmt: skip


@pytest.fixture
def run(runs: Path) -> Iterator[Run]:
    with asynctrack.init("p", dir=runs) as run:
        yield run


def same(found: Any, expected: Any) -> bool:
    return isinstance(found, str) if expected is ... else found == expected


def test_value_whose_methods_raise_is_recorded_by_what_it_holds(run: Run) -> None:
    for value, _ in HOSTILE:
        assert run.log({"value": value, "x": 1})
        assert run.log({"nested": {"list": [value, {"deep": value}]}})
    run.finish()
    found = records(run.path)
    for (value, expected), alone, nested in zip(HOSTILE, found[::2], found[1::2], strict=True):
        assert same(alone.data["value"], expected), type(value)
        first, second = nested.data["nested"]["list"]
        assert same(first, expected), type(value)
        assert same(second["deep"], expected), type(value)
    assert len(lines(run.path)) == len(found)


def test_value_whose_methods_raise_is_taken_everywhere(runs: Path) -> None:
    awkward = {f"k{i}": value for i, (value, _) in enumerate(HOSTILE)}
    with asynctrack.init("p", dir=runs, config={**awkward, "nested": dict(awkward)}) as run:
        run.config["later"] = [Opaque(), Half()]
        run.summary["value"] = awkward
        run.summary.update(awkward)
        run.checkpoint(state=awkward, n=3)
        assert run.bind(awkward).log({"x": 1})
        assert run.scope("s", arrays="exclude").log(awkward)
        for data in (Half(), Vain(a=1), omegaconf.OmegaConf.create({"a": 1, "m": "???"}), hostile(dict, {"a": 1})):
            assert run.log(data)
            assert run.bind({"b": 1}).log(data)
            assert run.scope("s").log(data)
    reader = asynctrack.open_run(run.path)
    assert reader.config["k0"] == {"a": 1}
    assert reader.summary["k3"] == [1]
    assert values(run.path, "x") == [1]
    assert values(run.path, "s/m") == ["???"]


def test_mapping_that_says_nothing_is_recorded_as_such(run: Run) -> None:
    assert run.log(hostile(collections.UserDict))
    assert run.scope("s").log(hostile(collections.UserDict))
    run.finish()
    assert [record.data for record in records(run.path)] == [
        {"<HostileUserDict>": "<Raises>"},
        {"s/<HostileUserDict>": "<Raises>"},
    ]


def test_name_whose_code_raises_is_recorded(run: Run) -> None:
    class Name:
        def __str__(self) -> str:
            raise Raises

        __repr__ = __str__

    assert run.log({Name(): 1, "x": {Name(): 2}, Unhashable.A: 3})  # type: ignore[dict-item]  # users do
    run.finish()
    assert records(run.path)[0].data == {"<Name>": 1, "x": {"<Name>": 2}, "a": 3}


@dataclasses.dataclass(frozen=True)
class Execution:
    at: int = 1


@pytest.mark.system
@pytest.mark.parametrize(
    "name", [3, 0.5, True, None, (1, 2), b"k", Execution(), frozenset({1}), datetime.date(2024, 2, 29)]
)
def test_names_of_any_type_are_texts_that_can_be_read(run: Run, name: Any) -> None:
    for data in (
        {name: 1},
        {name: 1, "x": np.float32(1)},
        {"in": {name: 1}},
        {"in": [{name: 1}]},
        {"in": {"deep": {name: 1}}},
    ):
        assert run.log(data)
    run.finish()
    found = [record.data for record in records(run.path)]
    assert found[0] == {str(name): 1}
    assert found[1] == {str(name): 1, "x": 1.0}
    assert found[2:] == [{"in": {str(name): 1}}, {"in": [{str(name): 1}]}, {"in": {"deep": {str(name): 1}}}]


def test_arrays_without_a_plain_form_raise_nothing_and_cost_no_other_value(run: Run) -> None:
    itself = np.empty(2, object)
    itself[:] = [itself, 1]
    assert run.log({"known": np.zeros(2)})  # from here on its type is known, and its way a shorter one
    assert run.log({"itself": itself, "x": 1})
    assert run.log({"endless": np.broadcast_to(np.float32(1), (1 << 20, 1 << 21)), "x": 1})
    assert run.log({"years": np.array([1, 2], "m8[Y]"), "month": np.timedelta64(1, "M"), "x": 1})
    run.finish()
    _, *found = records(run.path)
    assert [record.data["x"] for record in found] == [1, 1, 1]
    assert found[0].data["itself"] == ["{...}", 1]
    assert found[1].data["endless"].startswith("array(")
    assert list(np.asarray(found[2].data["years"])) == pytest.approx([365.2425 * 86400, 2 * 365.2425 * 86400])
    assert found[2].data["month"] == pytest.approx(30.436875 * 86400)


def test_class_whose_own_code_raises_is_recorded(run: Run) -> None:
    class Meta(type):
        def __hash__(cls) -> int:
            raise Raises

        __instancecheck__ = __subclasscheck__ = __repr__ = lambda *_: Meta.__hash__(int)  # type: ignore[arg-type,assignment]

    class Awkward(metaclass=Meta):
        pass

    assert run.log({"value": Awkward(), "x": 1})
    assert run.log({"nested": [Awkward()], "x": 1})
    run.config["value"] = Awkward()
    run.config["nested"] = {"value": [Awkward()]}
    run.summary["value"] = Awkward()
    run.finish()
    assert values(run.path, "x") == [1, 1]


def test_text_of_a_users_class_is_one(run: Run) -> None:
    assert run.log({"text": collections.UserString("abc"), "x": 1})
    run.finish()
    assert records(run.path)[0].data == {"text": "abc", "x": 1}


@pytest.mark.system
def test_data_that_changes_while_it_is_copied_is_taken(run: Run) -> None:
    data: dict[str, Any] = {"x": 1}
    stop = threading.Event()

    def change() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            data[f"k{n % 500}"] = object() if n % 3 else np.float32(n)
            data.pop(f"k{(n * 7) % 500}", None)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(15):
            run.log(data)
            run.bind({"a": 1}).log(data)
            run.summary.update(data)
    finally:
        stop.set()
        thread.join()
    run.finish()
    assert values(run.path, "x") == [1] * run.stats().accepted


# Both ways to a payload


@pytest.mark.parametrize(
    "data",
    [
        {"a": 1, "b": 0.5, "c": "t", "d": None, "e": True},
        {"a": np.float32(0.5), "b": np.int64(3), "c": np.bool_(True)},
        {"a": np.arange(4.0), "b": [1, 2], "c": {"d": 0.5}},
        {"a": [np.float32(1), np.float32(2)], "b": []},
        {"a": np.array([0.5]), "b": {}, "c": np.arange(3, dtype=">f4")},
        {1: 2, None: 3, 0.5: np.float64(1)},
    ],
    ids=str,
)
def test_quick_way_gives_what_the_careful_one_does(data: dict[Any, Any]) -> None:
    careful = decode_record(encode_any(data, 7)[0], 0)
    quick = encode_quickly(data, 7)
    assert quick is not None
    found = decode_record(quick, 0)
    assert msgspec.structs.replace(found, time_ns=0) == msgspec.structs.replace(careful, time_ns=0)


def test_text_that_looks_like_a_time_span_stays_one(run: Run) -> None:
    data = {"a": "PT5S", "b": "P1D", "c": datetime.timedelta(seconds=5), "d": datetime.timedelta(days=-1)}
    assert run.log(data)
    assert run.log({"c": datetime.timedelta(0)})
    run.finish()
    found = records(run.path)
    assert found[0].data == {"a": "PT5S", "b": "P1D", "c": 5.0, "d": -86400.0}
    assert found[1].data == {"c": 0.0}


def test_bytes_of_numbers_are_taken_for_a_time_span_by_chance_only(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    careful: list[Any] = []
    monkeypatch.setattr(run, "_encode_carefully", lambda data, step: careful.append(data) or encode((0, step, data)))
    for _ in range(100):
        assert run.log({"lr": 0.001, "loss": 0.5, "phase": "DPS"})  # 0.001 has the byte of "P"
    assert len(careful) < 5  # the time of one record in a thousand has "P" and a digit


def test_what_a_mask_hides_is_never_shown(run: Run) -> None:
    hidden = np.ma.masked_greater([1.0, 2.0, 1e9], 10)
    assert run.log({
        "mean": np.ma.masked_invalid([np.nan, np.nan]).mean(), "array": hidden, "whole": np.ma.masked_greater([1, 2, 99], 10), "cells": [hidden[2], {"x": hidden[2]}],
        "bins": asynctrack.Histogram(hidden), "table": asynctrack.Table(["a"], [[hidden[2]]]),
    })  # fmt: skip
    run.summary["worst"] = hidden[2]
    run.finish()
    found = records(run.path)[0].data
    assert np.isnan(found["mean"])
    assert (
        np.isnan(found["array"].tolist()).tolist() == np.isnan(found["whole"].tolist()).tolist() == [False, False, True]
    )
    assert np.isnan(found["cells"][0]) and np.isnan(found["cells"][1]["x"])
    assert sum(found["bins"].bins()[0]) == 2
    assert np.isnan(found["table"].content[0][0])
    assert np.isnan(asynctrack.open_run(run.path).summary["worst"])


# Names that are not Unicode


def test_names_that_are_not_unicode_are_taken_everywhere(
    runs: Path, tmp_path: Path, own_state: Path, own_host: Path
) -> None:
    odd = "caf\udce9"
    folder = tmp_path / f"folder {odd}"
    folder.mkdir()
    (folder / f"{odd}.bin").write_bytes(b"content")
    with asynctrack.init("p", dir=runs, name=odd, group=odd, config={odd: odd}) as run:
        assert run.log({odd: odd, "file": Artifact("m", path=str(folder / f"{odd}.bin"))})
        assert run.log({"folder": Artifact(odd, type=odd, description=odd, metadata={odd: odd}, path=str(folder))})
        run.summary[odd] = odd
        run.checkpoint(**{odd: odd})
    reader = asynctrack.open_run(run.path)
    assert reader.config == {"caf\\udce9": "caf\\udce9"} == reader.summary
    first, second = records(run.path)
    assert first.data["caf\\udce9"] == "caf\\udce9"
    for artifact in (first.data["file"], second.data["folder"]):
        assert [path.read_bytes() for path in artifact.file.iterdir()] == [b"content"]
        assert [path.name for path in artifact.file.iterdir()] == ["caf\\udce9.bin"]
