"""Config and summary: what they are given as, and that the record has what the process has, whatever is done to them."""

from __future__ import annotations

import argparse
import collections
import copy
import dataclasses
import enum
import json
import pickle
import subprocess
import sys
import textwrap
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
import yaml
from support import run_child, values

import asynctrack
from asynctrack import Memory, Run, Tracker
from asynctrack.cli.journal_check import JournalCheck
from asynctrack.errors import InvalidConfig, InvalidSettings, QueueFull, RunFinished

pytestmark = pytest.mark.usefixtures("shared_host")

GIVEN = {"opt": {"lr": 1, "sched": {"steps": [1, {"at": 2}]}}, "layers": [{"n": 1}, {"n": 2}], "seed": 7, "tags": {"a"}}


def recorded(run: Run) -> Any:
    """What a reader finds while the run is open."""
    run.flush("journaled")
    return asynctrack.open_run(run.path).config


# What is changed


CHANGES: dict[str, tuple[Callable[[Any], object], dict[str, Any]]] = {
    "an item": (lambda c: c["opt"].__setitem__("lr", 2), {"opt": {"lr": 2, "sched": {"steps": [1, {"at": 2}]}}}),
    "an attribute": (lambda c: setattr(c.opt, "lr", 2), {"opt": {"lr": 2, "sched": {"steps": [1, {"at": 2}]}}}),
    "far below": (
        lambda c: c["opt"]["sched"]["steps"][1].update(at=5),
        {"opt": {"lr": 1, "sched": {"steps": [1, {"at": 5}]}}},
    ),
    "in a loop over a list": (
        lambda c: [layer.__setitem__("n", 9) for layer in c["layers"]],
        {"layers": [{"n": 9}, {"n": 9}]},
    ),
    "in a loop over items": (
        lambda c: [value.update(lr=3) for key, value in c.items() if key == "opt"],
        {"opt": {"lr": 3, "sched": {"steps": [1, {"at": 2}]}}},
    ),
    "in a slice": (lambda c: c["layers"][1:][0].pop("n"), {"layers": [{"n": 1}, {}]}),
    "append": (lambda c: c["layers"].append({"n": 3}), {"layers": [{"n": 1}, {"n": 2}, {"n": 3}]}),
    "extend": (lambda c: c["layers"].extend([3, 4]), {"layers": [{"n": 1}, {"n": 2}, 3, 4]}),
    "insert": (lambda c: c["layers"].insert(0, 3), {"layers": [3, {"n": 1}, {"n": 2}]}),
    "remove": (lambda c: c["layers"].remove({"n": 1}), {"layers": [{"n": 2}]}),
    "pop of a list": (lambda c: c["layers"].pop(), {"layers": [{"n": 1}]}),
    "reverse": (lambda c: c["layers"].reverse(), {"layers": [{"n": 2}, {"n": 1}]}),
    "sort": (lambda c: c["layers"].sort(key=lambda one: -one["n"]), {"layers": [{"n": 2}, {"n": 1}]}),
    "clear of a list": (lambda c: c["layers"].clear(), {"layers": []}),
    "del of a list": (lambda c: c["layers"].__delitem__(0), {"layers": [{"n": 2}]}),
    "+= of a list": (lambda c: c["layers"].__iadd__([3]), {"layers": [{"n": 1}, {"n": 2}, 3]}),
    "*= of a list": (lambda c: c["layers"].__imul__(2), {"layers": [{"n": 1}, {"n": 2}, {"n": 1}, {"n": 2}]}),
    "pop": (lambda c: c.pop("opt"), {"opt": None}),
    "del": (lambda c: c.__delitem__("opt"), {"opt": None}),
    "delattr": (lambda c: delattr(c, "opt"), {"opt": None}),
    "nested pop": (lambda c: c["opt"].pop("sched"), {"opt": {"lr": 1}}),
    "nested popitem": (lambda c: c["opt"].popitem(), {"opt": {"lr": 1}}),
    "nested clear": (lambda c: c["opt"].clear(), {"opt": {}}),
    "nested |=": (lambda c: c["opt"].__ior__({"sched": 0}), {"opt": {"lr": 1, "sched": 0}}),
    "setdefault and on": (lambda c: c.setdefault("new", {}).update(a=1), {"new": {"a": 1}}),
    "popitem": (lambda c: c.popitem(), {"tags": None}),
    "clear": (lambda c: c.clear(), dict.fromkeys(GIVEN)),
    "a set": (lambda c: c["tags"].add("b"), {"tags": ["a", "b"]}),
    "an array": (lambda c: c.update(a=np.zeros(2)) or c["a"].fill(1), {"a": [1.0, 1.0]}),
    "an ordered dict": (
        lambda c: c.update(o=collections.OrderedDict(a={})) or c["o"]["a"].update(b=1),
        {"o": {"a": {"b": 1}}},
    ),
    "a shallow copy of it": (lambda c: dict(c)["layers"].pop(), {"layers": [{"n": 1}]}),
}


@pytest.mark.system
@pytest.mark.parametrize("how", CHANGES)
def test_what_is_changed_in_the_config_is_changed_in_the_record(runs: Path, how: str) -> None:
    change, expected = CHANGES[how]
    memory = Memory()
    with asynctrack.init("p", dir=runs, config=copy.deepcopy(GIVEN), backends=[memory]) as run:
        change(run.config)
        wanted = {key: value for key, value in {**GIVEN, "tags": ["a"], **expected}.items() if value is not None}
        found = {
            key: sorted(np.asarray(value)) if key in ("tags", "a") else value for key, value in recorded(run).items()
        }
        assert found == wanted, "while it runs"
        assert {key: sorted(value) if key in ("tags", "a") else value for key, value in run.config.items()} == wanted
    assert json.loads((run.path / "run.json").read_text())["config"].keys() == wanted.keys()
    assert memory.config.keys() == wanted.keys()


def test_what_is_taken_from_a_summary_is_not_in_the_record(runs: Path) -> None:
    with asynctrack.init("p", dir=runs) as run:
        run.summary.update(z=1, best={"a": 1, "b": 2}, kept=0)
        del run.summary["z"], run.summary["best"]["a"]
        assert run.summary.pop("never there", 3) == 3
        with pytest.raises(KeyError):
            run.summary.pop("never there")
        with pytest.raises(KeyError):
            del run.summary["never there"]
        with pytest.raises(AttributeError):
            del run.summary.never_there
    assert asynctrack.open_run(run.path).summary == {"best": {"b": 2}, "kept": 0} == run.summary


@pytest.mark.system
def test_a_change_is_in_the_journal_when_the_call_returns(runs: Path) -> None:
    script = """
import asynctrack, os, sys
run = asynctrack.init("p", id="run", dir=sys.argv[1], config={"opt": {"lr": 1}, "gone": 1})
run.config["opt"]["lr"] = 2
run.config.pop("gone")
os._exit(1)
"""
    subprocess.run([sys.executable, "-c", script, str(runs)], timeout=30, check=False)
    with asynctrack.init("p", id="run", dir=runs, resume="must") as run:
        assert run.config == {"opt": {"lr": 2}}
        run.config.opt.lr = 3
    assert asynctrack.open_run(run.path).config == {"opt": {"lr": 3}}


def test_copies_of_a_config_are_plain_and_write_nothing(runs: Path) -> None:
    with asynctrack.init("p", dir=runs, config=GIVEN) as run:
        for copied in (
            copy.deepcopy(run.config),
            copy.copy(run.config),
            run.config.copy(),
            run.config.as_dict(),
            pickle.loads(pickle.dumps(run.config)),
        ):
            assert copied == GIVEN
            assert (type(copied), type(copied["opt"]), type(copied["layers"])) == (dict, dict, list)
            copied["opt"]["sched"]["steps"][1]["at"] = 0
            copied["new"] = 1
        layers = copy.deepcopy(run.config["layers"])
        layers[0]["n"] = 0
        assert copy.deepcopy(run.config["opt"]) == GIVEN["opt"]
        assert run.config == GIVEN
    assert asynctrack.open_run(run.path).config == {**GIVEN, "tags": ["a"]}


def test_who_wants_plain_dicts_of_a_config_gets_them(runs: Path) -> None:
    with asynctrack.init("p", dir=runs, config={"opt": {"betas": [0.9, {"x": 1}]}}) as run:
        assert yaml.safe_load(yaml.safe_dump(dict(run.config))) == run.config
        assert json.loads(json.dumps(run.config)) == run.config
        assert json.loads(json.dumps(run.config["opt"])) == run.config["opt"]
        assert msgspec.to_builtins({**run.config}) == run.config
        assert (lambda **given: given)(**run.config["opt"]) == run.config.opt
        assert isinstance(run.config["opt"], dict)
        assert run.config["opt"] is run.config["opt"]


def test_who_gave_a_config_keeps_his_own(runs: Path) -> None:
    mine = {"opt": {"lr": 1}, "layers": [1]}
    with asynctrack.init("p", dir=runs, config=mine) as run:
        mine["opt"]["lr"] = 2  # type: ignore[index]
        run.config["layers"].append(2)
        late = {"x": 1}
        run.config["late"] = late
        late["x"] = 2
        first = run.config["opt"]
        run.config["opt"] = {"lr": 5}
        first["lr"] = 6  # it is no part of the config any more
    assert mine == {"opt": {"lr": 2}, "layers": [1]}
    assert asynctrack.open_run(run.path).config == {"opt": {"lr": 5}, "layers": [1, 2], "late": {"x": 1}} == run.config


def test_what_cannot_be_recorded_is_not_in_the_config_either(runs: Path) -> None:
    run = asynctrack.init("p", dir=runs, config={"opt": {"lr": 1}, "layers": [1]}, queue_bytes=8192)
    for change in (
        lambda: run.config["opt"].update(text="x" * 5000),
        lambda: run.config["layers"].append("x" * 5000),
        lambda: run.config.update(text="x" * 5000),
    ):
        with pytest.raises(asynctrack.errors.FrameTooLarge):
            change()
    with pytest.raises(ValueError, match="not in list"):
        run.config["layers"].remove(5)
    run.finish()
    with pytest.raises(RunFinished):
        run.config["opt"]["lr"] = 2
    with pytest.raises(RunFinished):
        del run.config["opt"]
    assert run.config == {"opt": {"lr": 1}, "layers": [1]} == asynctrack.open_run(run.path).config


def test_threads_that_change_one_config_leave_a_whole_one(runs: Path) -> None:
    run = asynctrack.init("p", dir=runs, config={"layers": [], "opt": {}})

    def work(thread: int) -> None:
        for i in range(100):
            try:
                run.config["layers"].append(thread)
                run.config["opt"][f"{thread}"] = i
            except QueueFull:
                pass

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.finish()
    assert asynctrack.open_run(run.path).config == run.config
    assert len(run.config["layers"]) == 400


class Odd:
    """Waits, the first time that it is recorded, for another thread to make a change, as far as that does not wait for this one."""

    def __init__(self) -> None:
        self.recorded, self.other_done = threading.Event(), threading.Event()

    def __repr__(self) -> str:
        if not self.recorded.is_set():
            self.recorded.set()
            self.other_done.wait(0.3)
        return "odd"


@pytest.mark.parametrize(
    ("change", "becomes"),
    [
        (lambda config: config["layers"].append(1), {"layers": ["odd", 1]}),
        (lambda config: config["layers"].extend([1, 2]), {"layers": ["odd", 1, 2]}),
        (lambda config: config.update(layers=[3]), {"layers": [3]}),
        (lambda config: config.pop("layers"), {}),
    ],
    ids=["append", "extend", "set", "pop"],
)
def test_change_that_comes_while_another_threads_is_recorded_is_recorded_after_it(
    runs: Path, change: Callable[[Any], object], becomes: dict[str, Any]
) -> None:
    run = asynctrack.init("p", dir=runs, config={"layers": []})
    odd = Odd()

    def other() -> None:
        odd.recorded.wait(10)
        change(run.config)
        odd.other_done.set()

    thread = threading.Thread(target=other)
    thread.start()
    run.config["layers"].append(odd)
    thread.join(10)
    run.finish()
    assert asynctrack.open_run(run.path).config == becomes


def test_child_that_is_forked_while_a_thread_changes_the_config_can_change_its_own(own_host: Path, runs: Path) -> None:
    script = textwrap.dedent("""
    import os, sys, threading
    import asynctrack
    run = asynctrack.init("p", dir=sys.argv[1], config={"a": {}})
    recorded, go_on = threading.Event(), threading.Event()
    class Odd:
        def __repr__(self):
            recorded.set()
            go_on.wait(20)
            return "odd"
    thread = threading.Thread(target=run.config["a"].update, args=({"odd": Odd()},))
    thread.start()
    recorded.wait(20)
    if not os.fork():
        run.config["b"] = 1
        run.config.setdefault("c", 2)
        os._exit(run.config["b"] + run.config["c"])
    go_on.set()
    print(os.waitstatus_to_exitcode(os.wait()[1]))
    thread.join()
    run.finish()
    """)
    assert run_child(script, runs) == 3


# What it is given as


class Color(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Inner:
    size: int = 2


@dataclasses.dataclass
class Given:
    lr: float = 0.1
    net: Inner = dataclasses.field(default_factory=Inner)
    layers: tuple[Inner, ...] = (Inner(3),)


class Struct(msgspec.Struct):
    lr: float = 0.1
    net: Inner = msgspec.field(default_factory=Inner)


class Tuple(NamedTuple):
    lr: float = 0.1


def of_omegaconf() -> Any:
    omegaconf = pytest.importorskip("omegaconf")
    return omegaconf.OmegaConf.create({"lr": 0.1, "net": {"size": 2, "same": "${lr}"}})


def of_omegaconf_with_holes() -> Any:
    omegaconf = pytest.importorskip("omegaconf")
    return omegaconf.OmegaConf.create({"lr": 0.1, "m": "???", "n": "${nowhere}"})


def of_pydantic() -> Any:
    pydantic = pytest.importorskip("pydantic")
    inner = pydantic.create_model("Inner", size=(int, 2))
    return pydantic.create_model("Model", lr=(float, 0.1), net=(inner, inner()))()


def of_attrs() -> Any:
    attrs = pytest.importorskip("attrs")
    return attrs.make_class("Given", {"lr": attrs.field(default=0.1), "net": attrs.field(factory=Inner)})()


def of_absl() -> Any:
    flags = pytest.importorskip("absl.flags")
    values = flags.FlagValues()
    flags.DEFINE_float("lr", 0.1, "", flag_values=values)
    flags.DEFINE_integer("n", 3, "", short_name="k", flag_values=values)
    values(["program", "--n=4"])
    return values


GIVEN_AS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "a mapping": (lambda: types.MappingProxyType({"lr": 0.1}), {"lr": 0.1}),
    "a dataclass": (Given, {"lr": 0.1, "net": {"size": 2}, "layers": [{"size": 3}]}),
    "argparse": (lambda: argparse.Namespace(lr=0.1, net=Inner()), {"lr": 0.1, "net": {"size": 2}}),
    "a namespace": (
        lambda: types.SimpleNamespace(lr=0.1, net=types.SimpleNamespace(size=2)),
        {"lr": 0.1, "net": {"size": 2}},
    ),
    "msgspec": (Struct, {"lr": 0.1, "net": {"size": 2}}),
    "a named tuple": (Tuple, {"lr": 0.1}),
    "OmegaConf": (of_omegaconf, {"lr": 0.1, "net": {"size": 2, "same": 0.1}}),
    "OmegaConf with holes": (of_omegaconf_with_holes, {"lr": 0.1, "m": "???", "n": "${nowhere}"}),
    "pydantic": (of_pydantic, {"lr": 0.1, "net": {"size": 2}}),
    "attrs": (of_attrs, {"lr": 0.1, "net": {"size": 2}}),
    "absl": (of_absl, {"lr": 0.1, "n": 4}),
}


@pytest.mark.parametrize("what", GIVEN_AS)
def test_what_has_names_and_values_is_taken_for_a_config(runs: Path, what: str) -> None:
    make, expected = GIVEN_AS[what]
    with asynctrack.init("p", dir=runs, config=make()) as run:
        assert run.config == expected or run.config == {**expected, "layers": ({"size": 3},)}
        run.config.update(make())
    assert asynctrack.open_run(run.path).config == expected
    assert Tracker("p", config=make()).config.keys() == expected.keys()


FILES = {
    "c.yaml": "lr: 0.1\nnet:\n  size: 2\n",
    "c.yml": "{lr: 0.1, net: {size: 2}}\n",
    "C.JSON": '{"lr": 0.1, "net": {"size": 2}}',
    "c.toml": "lr = 0.1\n[net]\nsize = 2\n",
}


@pytest.mark.parametrize("name", FILES)
def test_a_config_is_read_from_a_file(runs: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(FILES[name])
    for given in (path, str(path)):
        with asynctrack.init("p", dir=runs, config=given) as run:
            assert run.config == {"lr": 0.1, "net": {"size": 2}}
            run.config.update(given)
    assert Tracker("p", config=path, dir=runs).config["lr"] == 0.1


WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "a number": (3, InvalidConfig, "config takes a mapping of names to values.*got int: 3"),
    "a list": ([("a", 1)], InvalidConfig, "got list"),
    "a class": (Given, InvalidConfig, "got the class: .*; make an instance of it"),
    "an object": (object(), InvalidConfig, "or the path of a YAML, JSON or TOML file; got object"),
    "no such file": ("missing.yaml", InvalidSettings, "missing.yaml cannot be used:\n.*No such file or directory"),
    "no path": ("lr=1", InvalidConfig, "got str: 'lr=1'"),
    "another kind of file": (Path("a.ini"), InvalidSettings, "a.ini cannot be used:.*No such file"),
    "a list in a file": ("[1].yaml", InvalidSettings, "a mapping of names to values is expected at its top; got list"),
    "a broken file": ("{.json", InvalidSettings, "it cannot be read as JSON"),
    "a broken YAML": ("a: [.yaml", InvalidSettings, "it cannot be read as YAML"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_config_is_refused_with_what_would_be(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    given, kind, message = WRONG[what]
    monkeypatch.chdir(tmp_path)
    for content in ("[1]", "{", "a: ["):
        for end in (".yaml", ".json"):
            (tmp_path / f"{content}{end}").write_text(content)
    for use in (
        lambda: asynctrack.init("p", dir=runs, config=given),
        lambda: Tracker("p", config=given),
        lambda: Tracker("p", dir=runs).init(given),
    ):
        with pytest.raises(kind, match=f"(?s){message}"):
            use()
    assert not runs.exists() or not list(runs.glob("p/*"))


@pytest.mark.parametrize(
    "content", [json.dumps({"a": float("nan")}), '\ufeff{"a": NaN}', json.dumps({"a": float("nan")}, indent=1)]
)
def test_a_json_file_may_have_what_python_and_windows_write(runs: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content, "utf-8")
    run = asynctrack.init("p", dir=runs, config=tmp_path / "config.json")
    run.finish()
    assert str(asynctrack.open_run(run.path).config) == "{'a': nan}"


def test_objects_that_hold_each_other_are_taken_at_once(runs: Path) -> None:
    tree = types.SimpleNamespace(tree=types.SimpleNamespace(a=1))
    tree.tree.left = tree.tree.right = tree.tree  # 2**64 ways lead to the 64th level
    run = asynctrack.init("p", dir=runs, config=tree)
    run.finish()
    assert asynctrack.open_run(run.path).config == {"tree": {"a": 1, "left": "{...}", "right": "{...}"}}


def test_what_is_deeply_nested_in_a_config_is_no_damage(runs: Path) -> None:
    deep: Any = 1
    for _ in range(80):
        deep = {"a": [deep]}
    run = asynctrack.init("p", dir=runs, config={"deep": deep})
    run.finish()
    assert JournalCheck(run.path).take().problems == []


def test_a_mapping_that_fails_is_refused_in_words(runs: Path) -> None:
    class Broken(dict[str, Any]):
        def keys(self) -> Any:
            raise OSError("the disk is gone")

        __iter__ = __getitem__ = keys

    with pytest.raises(InvalidConfig, match="OSError: the disk is gone"):
        asynctrack.init("p", dir=runs, config=Broken(a=1))


def test_a_missing_pyyaml_is_said_with_what_brings_it(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    (tmp_path / "c.yaml").write_text("a: 1")
    with pytest.raises(InvalidSettings, match=r"pip install 'asynctrack\[yaml\]'"):
        asynctrack.init("p", dir=runs, config=tmp_path / "c.yaml")


def test_a_config_in_a_file_is_found_at_home(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "c.json").write_text('{"a": 1}')
    with asynctrack.init("p", dir=runs, config="~/c.json") as run:
        run.log({"x": 1})
    assert asynctrack.open_run(run.path).config == {"a": 1}
    assert values(run.path, "x") == [1]
