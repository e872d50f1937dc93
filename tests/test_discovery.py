"""Discovery: help, completion and hover show each public name with one line, and a wrong name says which was perhaps meant."""

from __future__ import annotations

import inspect
import pickle
import pydoc
import re
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import pytest
from support import run_child

import asynctrack
import asynctrack.events
import asynctrack.integrations
import asynctrack.testing
import asynctrack.wandb
from asynctrack import cli, errors
from asynctrack._system.suggestions import suggests
from asynctrack.client.run_arguments import RunArguments

# Imported when they are asked for.
LATER = ["Image", "TensorBoard", "WandB", "Tracker", "RunReader", "open_run"]
CALLS = [name for name in asynctrack.__all__ if callable(getattr(asynctrack, name))]


def line_of(name: str) -> str:
    return (inspect.getdoc(getattr(asynctrack, name)) or "").split("\n")[0]


def is_exception(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseException)


def test_dir_shows_what_is_public_and_nothing_else() -> None:
    shown = dir(asynctrack)
    assert {name for name in shown if not name.startswith("__")} == {*asynctrack.__all__}
    assert [
        name for name in shown if name.startswith("_") and not (name.startswith("__") and name.endswith("__"))
    ] == []
    assert shown == sorted(set(shown))


@pytest.mark.parametrize("name", asynctrack.__all__)
def test_each_public_name_has_one_line_of_its_own(name: str) -> None:
    found = getattr(asynctrack, name)
    assert not isinstance(found, type) or vars(found).get("__doc__"), "the line must not be that of a base"
    first, _, rest = (inspect.getdoc(found) or "").partition("\n")
    assert 8 < len(first) <= 150, first
    assert first[-1] in ".`:" and not rest.split("\n")[0], "the first line is followed by an empty one"


@pytest.mark.parametrize("name", [name for name in CALLS if not is_exception(getattr(asynctrack, name))])
def test_hover_shows_the_arguments_of_each_public_name(name: str) -> None:
    parameters = inspect.signature(getattr(asynctrack, name)).parameters.values()
    assert all(one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD) for one in parameters)


def test_help_of_the_package_shows_each_public_name() -> None:
    shown = pydoc.render_doc(asynctrack, renderer=pydoc.plaintext)
    assert [name for name in asynctrack.__all__ if not re.search(rf"\b{name}\b", shown)] == []


@pytest.mark.parametrize("name", LATER)
def test_help_of_a_name_that_is_imported_later_shows_its_line(name: str) -> None:
    assert line_of(name) in pydoc.render_doc(f"asynctrack.{name}", renderer=pydoc.plaintext)


def test_completion_and_hover_in_ipython_show_names_that_are_imported_later() -> None:
    script = """
import json, sys
import asynctrack
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
shell.user_ns["asynctrack"] = asynctrack
shell.Completer.use_jedi = False
completed = [name.rpartition(".")[2] for name in shell.complete("asynctrack.")[1]]
print(json.dumps([completed, {name: shell.object_inspect(f"asynctrack.{name}")["docstring"] for name in sys.argv[1:]}]))
"""
    completed, hovers = run_child(script, *LATER)
    assert {*completed} >= {*asynctrack.__all__}
    assert {name: hovers[name].split("\n")[0] for name in LATER} == {name: line_of(name) for name in LATER}


WRONG: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: asynctrack.Tensorboard, AttributeError, r"'asynctrack' has no attribute 'Tensorboard'; did you mean `TensorBoard`\?"),  # type: ignore[attr-defined]
    (lambda: asynctrack.inti, AttributeError, "did you mean `init`"),  # type: ignore[attr-defined]
    (lambda: asynctrack.jsonlines, AttributeError, "did you mean `JSONLines`"),  # type: ignore[attr-defined]
    (lambda: asynctrack.nothing_like_it, AttributeError, "has no attribute 'nothing_like_it'$"),  # type: ignore[attr-defined]
    (lambda: asynctrack.wandb.inti, AttributeError, r"'asynctrack\.wandb' has no attribute 'inti'; did you mean `init`"),  # type: ignore[attr-defined]
    (lambda: asynctrack.wandb.confg, AttributeError, "did you mean `config`"),  # type: ignore[attr-defined]
    (lambda: asynctrack.backends.X, AttributeError, r"'asynctrack\.backends' has no attribute 'X'$"),  # type: ignore[attr-defined]
    (lambda: asynctrack.backends.JSONLines, AttributeError, r"did you mean `asynctrack\.JSONLines`"),  # type: ignore[attr-defined]
    (lambda: asynctrack.errors.InvalidSetings, AttributeError, "did you mean `InvalidSettings`"),  # type: ignore[attr-defined]
    (lambda: asynctrack.events.RunBegan, AttributeError, r"'asynctrack\.events' has no attribute 'RunBegan'"),  # type: ignore[attr-defined]
    (lambda: asynctrack.events.Metrix, AttributeError, "did you mean `Metrics`"),  # type: ignore[attr-defined]
    (lambda: asynctrack.testing.Scriptd, AttributeError, "did you mean `Scripted`"),  # type: ignore[attr-defined]
    (lambda: asynctrack.integrations.lightening, AttributeError, "did you mean `lightning`"),  # type: ignore[attr-defined]
    (lambda: asynctrack.integrations.lightning, AttributeError, r"by `import asynctrack\.integrations\.lightning`"),
    (lambda: asynctrack.init("p", confg={}), TypeError, r"init\(\) got an unexpected keyword argument 'confg'\. Did you mean 'config'\?"),  # type: ignore[call-arg]
    (lambda: asynctrack.init("p", lingr_s=1), TypeError, "Did you mean 'linger_s'"),  # type: ignore[call-arg]
    (lambda: asynctrack.wandb.init(projct="p"), TypeError, "Did you mean 'project'"),  # type: ignore[call-arg]
    (lambda: asynctrack.Tracker("p", confg={}), TypeError, r"Tracker\.__init__\(\) got .*'confg'\. Did you mean 'config'"),  # type: ignore[call-arg]
    (lambda: asynctrack.JSONLines(flie="a"), TypeError, r"JSONLines\(\) got an unexpected keyword argument 'flie'\. Did you mean 'file'\?"),  # type: ignore[call-arg]
    (lambda: asynctrack.JSONLines(nothing_like_it=1), TypeError, "It takes .*file, not_finite"),  # type: ignore[call-arg]
    (lambda: asynctrack.TensorBoard(flsh_s=1), TypeError, "Did you mean 'flush_s'"),  # type: ignore[call-arg]
    (lambda: asynctrack.Settings(lingr_s=1), TypeError, r"Settings\(\) got .*'lingr_s'\. Did you mean 'linger_s'"),  # type: ignore[call-arg]
    (lambda: asynctrack.init("p", settings={"lingr_s": 1}), errors.InvalidSettings, "lingr_s is not a setting; .*; did you mean `linger_s`"),
    (lambda: asynctrack.init("p", backends=[asynctrack.JSONLines]), errors.InvalidSettings, r"backends\[0\] must be a backend, .*: write `JSONLines\(\)`"),  # type: ignore[list-item]
    (lambda: asynctrack.init("p", backends=["os.path"]), errors.InvalidSettings, r"backends\[0\] is 'os\.path': it is a module, and not the class of a backend; expected one of console, csv, .*yaml, or the path of a class"),
    (lambda: asynctrack.init("p", backends=["asynctrack.Settings"]), errors.InvalidSettings, "it is the class Settings, which is not derived from asynctrack.Backend"),
    (lambda: asynctrack.init("p", backends=["os.sep"]), errors.InvalidSettings, "it is of type str, and not the class of a backend"),
    (lambda: asynctrack.set_default_backends([asynctrack.CSV]), errors.InvalidSettings, r"write `CSV\(\)` in place of `CSV`"),  # type: ignore[list-item]
    (lambda: asynctrack.init("p", backends=["tensorbord"]), errors.InvalidSettings, "got 'tensorbord'; did you mean `tensorboard`"),
    (lambda: asynctrack.Tracker.from_config({"projct": "p"}), errors.InvalidSettings, "unknown field `projct`; did you mean `project`"),
    (lambda: asynctrack.Tracker.from_config({"project": "p", "backends": [{"kind": "jsonl", "flie": "a"}]}), errors.InvalidSettings, "did you mean `file`"),
    (lambda: asynctrack.JSONLines("a"), TypeError, r"JSONLines\(\) takes its arguments by name: .*file, not_finite"),  # type: ignore[misc]
    (lambda: asynctrack.JSONLines(file=3), errors.InvalidSettings, "file must be the name of a file"),  # type: ignore[arg-type]
    (lambda: asynctrack.init("p", backends="jsonl"), errors.InvalidSettings, r"got 'jsonl'; write `\['jsonl'\]`"),  # type: ignore[arg-type]
    (lambda: asynctrack.init("p", resume="must"), errors.InvalidSettings, r"resume='must' needs id=, the id of the run to resume"),
    (lambda: asynctrack.wandb.init(project="p", resume="must"), errors.InvalidSettings, r"resume='must' needs id="),
    (lambda: asynctrack.current_backend("memory"), errors.InvalidSettings, "kind must be the class of a backend, .*; got 'memory'"),  # type: ignore[arg-type]
    (lambda: asynctrack.open_run(asynctrack.Tracker("p")), errors.InvalidValueType, r"open_run\(\) takes the directory, id or name of a run; got Tracker"),  # type: ignore[arg-type]
    (lambda: asynctrack.open_run(__file__), errors.NotARun, r"is not a run: it has neither a journal/ nor a run\.json; see docs"),
    (lambda: asynctrack.open_run("latest"), errors.NotARun, "and in asynctrack_runs there is no run;"),
]  # fmt: skip


@pytest.mark.parametrize(("use", "kind", "said"), WRONG, ids=[said for _, _, said in WRONG])
def test_wrong_name_says_which_was_perhaps_meant(
    use: Callable[[], object], kind: type[Exception], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a checkout has runs where somebody has run the demo in it
    with pytest.raises(kind, match=said):
        use()


@pytest.mark.parametrize("of", ["config", "summary", "nested"])
def test_wrong_name_in_a_config_says_which_was_perhaps_meant(of: str, tmp_path: Path) -> None:
    with asynctrack.init(
        "p", dir=tmp_path, mode="disabled", config={"learning_rate": 1, "nested": {"learning_rate": 2}}
    ) as run:
        run.summary["learning_rate"] = 3
        found = run.config.nested if of == "nested" else getattr(run, of)
        with pytest.raises(AttributeError, match=r"^'lerning_rate' is not set; did you mean `learning_rate`\?$"):
            found.lerning_rate  # noqa: B018
        with pytest.raises(AttributeError, match=r"^'updat' is not set; did you mean `update`\?$"):
            found.updat({"a": 1})
        with pytest.raises(AttributeError, match=r"^'zzz' is not set$"):
            del found.zzz
        assert not hasattr(found, "_repr_html_")


def test_wrong_name_of_a_user_s_own_backend_says_which_was_perhaps_meant() -> None:
    class Shout(asynctrack.Backend, frozen=True, kw_only=True, tag="shout"):
        word: str = "hey"

    with pytest.raises(TypeError, match=r"Shout\(\) got .*'wrod'\. Did you mean 'word'"):
        Shout(wrod="ho")  # type: ignore[call-arg]


# What a loop calls, and coroutine functions, which would no longer be known as such. Python 3.13 says it of these as well.
NOT_WRAPPED = {"log", "alog", "aflush", "afinish", "acheckpoint"}


def calls_by_name() -> dict[str, Callable[..., Any]]:
    """Every public function and method that takes an argument of at least four letters by its name."""
    found: dict[str, Callable[..., Any]] = {}
    for name in CALLS:
        thing = getattr(asynctrack, name)
        if not isinstance(thing, type):
            found[name] = thing
        elif not issubclass(thing, msgspec.Struct | BaseException):
            found |= {f"{name}.{method}": getattr(thing, method) for method in ["__init__", *vars(thing)]}
    return {name: call for name, call in found.items() if is_public(name) and long_names(call)}


def is_public(name: str) -> bool:
    method = name.rpartition(".")[2]
    return (method == "__init__" or not method.startswith("_")) and method not in NOT_WRAPPED


def long_names(call: Any) -> list[str]:
    """The arguments that one may get wrong."""
    if not (inspect.isfunction(call) or inspect.ismethod(call)):
        return []
    taken = inspect.signature(call).parameters.values()
    return [
        one.name
        for one in taken
        if one.kind in (one.KEYWORD_ONLY, one.POSITIONAL_OR_KEYWORD) and len(one.name) > 3 and one.name != "self"
    ]


# Made and called by asynctrack itself, many times a second, and not by users.
NOT_CALLED = {"Media.__init__", "Run.__init__", "Sink.write", "Sink.close", "Sink.open", "Update.change"}


@pytest.mark.parametrize("name", sorted({*calls_by_name()} - NOT_CALLED))
def test_wrong_keyword_of_each_public_call_says_which_was_perhaps_meant(name: str) -> None:
    call = calls_by_name()[name]
    right = long_names(call)[-1]
    with pytest.raises(TypeError, match=rf"got an unexpected keyword argument '\w+'\. Did you mean '{right}'\?"):
        call(**{right[0] + right[2:]: 1})


def test_calls_that_suggest_are_what_they_were() -> None:
    parameters = inspect.signature(asynctrack.Run.scope).parameters
    assert [*parameters] == ["self", "prefix", "every", "last", "arrays"]
    assert (asynctrack.Run.scope.__qualname__, asynctrack.Run.scope.__module__) == (
        "Run.scope",
        "asynctrack.client.run",
    )
    assert "Return a light child" in pydoc.render_doc(asynctrack.Run.scope, renderer=pydoc.plaintext)
    assert inspect.iscoroutinefunction(asynctrack.Run.aflush)
    in_python = getattr(
        asynctrack.Run.log, "__wrapped__", asynctrack.Run.log
    )  # the native core wraps it, and nothing else may
    assert in_python.__code__.co_filename == inspect.getsourcefile(asynctrack.Run)
    assert pickle.loads(pickle.dumps(asynctrack.open_run)) is asynctrack.open_run

    class Mine(asynctrack.Table):
        def __init__(self, more: int, **given: Any) -> None:
            super().__init__(**given)
            self.more = more

    assert Mine(3, columns=["a"]).more == 3
    with pytest.raises(TypeError, match=r"Table\.__init__\(\) got .*Did you mean 'columns'"):
        Mine(3, colums=["a"])


def test_wrong_keyword_is_said_where_init_is_called_and_not_within() -> None:
    with pytest.raises(TypeError) as caught:
        asynctrack.init("p", confg={})  # type: ignore[call-arg]
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert "opening.py" not in {Path(frame.filename).name for frame in traceback.extract_tb(caught.value.__traceback__)}


def test_type_error_from_within_a_function_stays_as_it_is() -> None:
    @suggests
    def outer(inner: Callable[..., object], confg: int = 0) -> object:
        return inner(config=confg)

    def raising() -> None: ...

    with pytest.raises(TypeError) as caught:
        outer(raising)
    assert str(caught.value).startswith(f"{raising.__qualname__}() got an unexpected keyword argument 'config'")
    assert "confg" not in str(caught.value)


def test_attribute_that_a_tool_looks_for_gets_no_suggestion() -> None:
    with pytest.raises(AttributeError, match=r"has no attribute '_ini'$"):
        asynctrack._ini  # type: ignore[attr-defined]  # noqa: B018


def test_nothing_for_wrong_names_is_loaded_for_right_ones() -> None:
    script = """
import json, sys
import asynctrack
from asynctrack.backends import env_refs, visdom
from asynctrack.integrations import logging

asynctrack.JSONLines(file="a"), asynctrack.Tracker("p", backends=["csv"], settings=asynctrack.Settings(linger_s=0.1))
hasattr(asynctrack, "__path_hooks__")
asynctrack.init("p", quiet=True, mode="disabled").finish()
print(json.dumps("difflib" in sys.modules))
"""
    assert run_child(script) is False


def keywords(function: Callable[..., Any]) -> dict[str, object]:
    found = inspect.signature(function).parameters.values()
    return {one.name: one.default for one in found if one.kind is one.KEYWORD_ONLY}


def test_init_names_every_setting_with_its_default() -> None:
    named = keywords(asynctrack.init)
    settings: Mapping[str, Any] = msgspec.structs.asdict(asynctrack.Settings())
    assert {name: value for name, value in named.items() if name in settings} == {
        **settings,
        **dict.fromkeys(("dir", "mode", "environment", "diff")),  # the environment may say them
    }
    assert not [one for one in inspect.signature(asynctrack.init).parameters.values() if one.kind is one.VAR_KEYWORD]


def test_tracker_takes_what_init_takes_but_for_one_run_s_own() -> None:
    assert keywords(asynctrack.Tracker) == {
        name: value
        for name, value in keywords(asynctrack.init).items()
        if name not in ("id", "resume", "join", "writer", "expected", "collect")
    }


def test_integrations_take_what_init_takes() -> None:
    hints = get_type_hints(RunArguments)
    assert {*hints} == {*keywords(asynctrack.init)} - {"backends"}
    init = get_type_hints(asynctrack.init)
    assert {name: hint for name, hint in hints.items() if hint != init[name]} == {}


def test_wandb_init_takes_every_setting() -> None:
    taken = inspect.signature(asynctrack.wandb.init).parameters
    assert {"backends", *asynctrack.Settings.__struct_fields__} <= {*taken}


def test_argument_of_init_comes_before_settings_and_settings_before_the_default(tmp_path: Path) -> None:
    settings = asynctrack.Settings(mode="disabled", dir=tmp_path / "a")
    with asynctrack.init("p", dir=tmp_path / "b", settings=settings, linger_s=0.2) as run:
        assert run.mode == "disabled"
        assert run.path.is_relative_to(tmp_path / "b")
    with pytest.raises(errors.InvalidSettings, match="linger_s must be"):
        asynctrack.init("p", settings={"linger_s": 9.0})
    with pytest.raises(errors.InvalidSettings, match="linger_s must be"):
        asynctrack.Tracker("p", settings={"linger_s": 9.0})


def test_wrong_argument_of_a_scope_is_told(tmp_path: Path) -> None:
    with asynctrack.init("p", dir=tmp_path, mode="disabled") as run:
        with pytest.raises(errors.InvalidData, match=r"bind\(\) takes a mapping of names to values, .*; got int: 3"):
            run.bind(3)  # type: ignore[arg-type]  # the mistake
        with pytest.raises(errors.InvalidSettings, match="prefix must be text; got 3"):
            run.scope(3)  # type: ignore[arg-type]  # the mistake


COMMAND_LINES = {
    "--verson": "unrecognized arguments: --verson; did you mean `--version`?",
    "--verson ls": "unrecognized arguments: --verson; did you mean `--version`?",
    "wait latest --timeout-s -1": "--timeout-s: expected a number of seconds from 0 on, got '-1'",
    f"doctor --dir {__file__}": f"--dir: expected a directory, but {__file__} is a file",
    f"sync --dir {__file__}/runs": f"--dir: expected a directory, but {__file__} is a file",
    f"ls {__file__}": f"expected a directory, but {__file__} is a file",
    "ls --dir nowhere": "there is no directory nowhere",
    "sync latest --to jsonll": "--to expects the kind of a backend; got 'jsonll': .*; did you mean `jsonl`?",
    "sync latest --to nothing-like-it": "'nothing-like-it': there is none of this name; expected one of console, csv, .*yaml, or the path of a class",
    "sync latest --to os.path": "'os.path': it is a module, and not the class of a backend; expected one of console,",
    "lss": "invalid choice: 'lss' .*; did you mean `ls`?",
    "ls --statsu finished": "usage: asynctrack ls .*unrecognized arguments: --statsu; did you mean `--status`?",
    "workers --force": "--force needs --end",
    "sync latest --follow": "--follow needs --to",
    "sync latest --as x": "--as needs --to",
}


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_wrong_word_on_the_command_line_says_what_was_perhaps_meant(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = cli.main(line.split())
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert re.search(COMMAND_LINES[line].replace("?", r"\?"), capsys.readouterr().err, re.DOTALL)
