"""Expressions: what they mean, what is said of a wrong one, and that `wait` understands what it always did."""

from __future__ import annotations

import functools
import gc
import math
import re
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynctrack.client.run_state import State
from asynctrack.collection.record_subject import RunAtRecord
from asynctrack.errors import InvalidExpression, UnknownGoal
from asynctrack.records.codec import Record
from asynctrack.records.expressions import MISSING, STATUSES, Condition, Goal, How, Order, Term, spelled, terms


class Thing:
    """A subject that has what it was given."""

    def __init__(
        self,
        fields: dict[str, Any] | None = None,
        config: dict[str, Any] | None = None,
        metrics: dict[str, dict[str, Any]] | None = None,
        summary: dict[str, Any] | None = None,
        goals: dict[str, Goal] | None = None,
    ) -> None:
        self.fields, self.configs, self.metrics = fields or {}, config or {}, metrics or {}
        self.summaries, self.goals = summary or {}, goals or {}

    def field(self, name: str) -> Any:
        return self.fields.get(name, MISSING)

    def config(self, key: str) -> Any:
        return self.configs.get(key, MISSING)

    def summary_value(self, key: str) -> Any:
        return self.summaries.get(key, MISSING)

    def metric(self, key: str, how: How) -> Any:
        return self.metrics.get(key, {}).get(how, MISSING)

    def goal(self, key: str) -> Goal | None:
        return self.goals.get(key)

    def known(self) -> Collection[str]:
        return [*self.configs, *self.metrics, *self.summaries]


RUN = Thing(
    fields={
        "status": "failed", "step": 99, "tag": ["base", "small"], "name": "resnet-1", "age": 40 * 86400.0, "size": 3 * 10**9,
        "created_at": "2026-11-30T09:15:00.000+00:00",
    },
    config={"lr": 0.1, "optimizer/lr": 3, "amp": True, "schedule": None, "layers": [64, 128], "opt": "adam", "seed": 2**53 + 1, "a.b": 1, "both": 1,
            "max": 5, "step": 7, "my key": 2},
    metrics={
        "val/acc": {"first": 0.1, "last": 0.8, "min": 0.1, "max": 0.9, "mean": 0.5},
        "loss": {"first": 2.0, "last": math.nan, "min": 0.25, "max": 2.0, "mean": 1.0},
        "loss-1": {"last": 4.0}, "both": {"last": 2}, "my loss (new)": {"last": 0.5, "min": 0.5}, "status": {"last": 1}, "empty": {"last": math.nan, "min": None},
    },
    summary={"note": "done", "both": 3, "best/acc": 0.95},
    goals={"val/acc": "maximize", "loss": "minimize"},
)  # fmt: skip
NAMELESS = Thing()


@pytest.mark.parametrize(
    ("text", "true"),
    [
        # comparisons
        ("lr < 0.2", True), ("lr < 1e-3", False), ("lr <= .1", True), ("lr == 1e-1", True), ("lr != 0.1", False), ("lr >= -inf", True),
        ("0.05 < lr", True), ("amp == true", True), ("amp == 1", True), ("amp != false", True), ("opt == 'adam'", True), ('opt == "adam"', True),
        ("opt != 'sgd'", True), ("opt > 'aa'", True), ("opt == 3", False), ("opt != 3", False), ("lr == '0.1'", False), ("lr != '0.1'", False),
        ("seed == 9007199254740993", True), ("seed == 9007199254740992", False),
        ("schedule == null", True), ("schedule != null", False), ("opt != null", True), ("nothing == null", True), ("nothing != null", False), ("tag != null", True), ("tag == null", False), ("nothing in (null, 1)", True),
        ("min(nothing) == null", True), ("min(empty) == null", True), ("metric.nothing == config.nothing", False), ("isnan(schedule)", False),
        ("schedule == 'x'", False), ("schedule != 'x'", True), ("schedule < 1", False),
        # what is missing
        ("nothing < 1", False), ("nothing != 1", False), ("not nothing == 1", True), ("nothing not in (1, 2)", False), ("group == 'x'", False),
        ("group != 'x'", False), ("max(nothing) > 0", False), ("min(empty) < 1", False), ("1 in nothing", False), ("1 not in nothing", False),
        # and, or, not, parentheses
        ("lr < 1 and amp == true or lr > 1", True), ("lr > 1 and amp == true or lr > 1", False), ("lr > 1 or amp == true and lr < 1", True),
        ("not lr > 1 and lr < 1", True), ("not (lr > 1 or lr < 1)", False), ("not not lr < 1", True), ("((lr) < 1)", None), ("((lr < 1))", True),
        # in
        ("lr in (0.1, 0.01)", True), ("lr in (0.2,)", False), ("lr not in (0.2, 0.3)", True), ("opt in ('adam', 'sgd')", True),
        ("status in (failed, crashed)", True), ("status in ('failed')", True), ("status not in (failed, crashed)", False),
        ("'base' in tag", True), ("'bas' in tag", False), ("'new' not in tag", True), ("tag in ('x', 'base')", True), ("tag not in ('x', 'y')", True),
        ("tag not in ('x', 'base')", False), ("'resnet' in name", True), ("'vgg' in name", False), ("'vgg' not in name", True), ("64 in layers", True),
        ("opt not in (1, 2)", False),
        # lists
        ("tag == 'base'", True), ("tag != 'base'", False), ("tag != 'new'", True), ("not tag == 'new'", True), ("tags == 'small'", True), ("layers > 100", True),
        # names
        ("optimizer/lr == 3", True), ("optimizer.lr == 3", True), ("config.optimizer.lr == 3", True), ("config.optimizer/lr == 3", True), ("a.b == 1", True),
        ("both == 1", True), ("metric.both == 2", True), ("summary.both == 3", True), ("config.both == 1", True), ("note == 'done'", True),
        ("summary.best.acc > .9", True), ("step == 99", True), ("`step` == 7", True), ("config.step == 7", True), ("`status` == 1", True), ("max == 5", True),
        ("loss-1 == 4", True), ("`my loss (new)` < 1", True), ("metric.`my loss (new)` < 1", True), ("config.`my key` == 2", True), ("'done' == note", True),
        # aggregates
        ("val/acc > 0.75", True), ("max(val/acc) > 0.85", True), ("min(val/acc) == 0.1", True), ("mean(loss) == 1", True), ("first(loss) == 2", True),
        ("last(val/acc) < max(val/acc)", True), ("best(val/acc) == 0.9", True), ("best(loss) == 0.25", True), ("min(`my loss (new)`) < 1", True),
        ("min('my loss (new)') < 1", True), ("max(metric.loss) == 2", True), ("isnan(loss)", True), ("isnan(last(loss))", True), ("isnan(val/acc)", False),
        ("not isnan(nothing)", True), ("loss == nan", False), ("loss != nan", True), ("loss < 1", False), ("lr < metric.val/acc", True), ("step > lr", None),
        ("step > config.lr", True), ("config.lr < step", True),
        # units
        ("age > 30d", True), ("age > 6w", False), ("age < 1000h", True), ("age > 57600m", False), ("age >= 3456000s", True), ("size > 2GB", True),
        ("size > 2.5gb", True), ("size < 1TB", True), ("created_at > '2026-11-01'", True), ("created_at > '2026-12'", False),
        # status
        ("status == failed", True), ("status == 'failed'", True), ("status != failed", False), ("'failed' == status", True),
    ],
)  # fmt: skip
def test_a_condition_means_what_its_reader_expects(text: str, true: bool | None) -> None:
    if true is None:
        with pytest.raises(InvalidExpression):
            Condition(text)
        return
    condition = Condition(text)
    assert condition.holds(RUN) is true
    again = Condition(condition.text)
    assert (again.text, again.holds(RUN)) == (condition.text, true)


@pytest.mark.parametrize(
    ("text", "at", "expected"),
    [
        ("", 1, "expected a name, an aggregate"), ("loss", 5, "one of < <= > >= == !=, or 'in'"), ("loss = 3", 6, "one of < <= > >= == !="),
        ("loss < ", 7, "a number"), ("loss < x", 8, "text stands in quotes: 'x'"), ("opt == adam", 8, "metric.adam, config.adam"), ("(loss < 1", 10, "expected ')'"),
        ("loss < 1)", 9, "'and', 'or' or the end"), ("loss < 1 and", 13, "a name"), ("and < 1", 1, "a name"), ("a < 1 'b' > 2", 7, "'and', 'or' or the end"),
        ("status < 3", 8, "one of == !="), ("status == done", 11, "expected a status (running, finished"), ("status == finishd", 11, "did you mean `finished`?"),
        ("status in (failed, gone)", 20, "a status"), ("'gone' == status", 1, "a status"), ("3 < status", 5, "status =="), ("'open < 1", 1, "a closing '"),
        ("`open < 1", 1, "a closing `"), ("a < 1 or `", 10, "a closing `"), ("(" * 60 + "a < 1" + ")" * 60, 51, "at most 50 nested"),
        ("not " * 60 + "a < 1", 201, "at most 50 nested"), ("__import__('os')", 1, "one of best, first"), ("maxx(loss) > 1", 1, "did you mean `max`?"),
        ("0 < x < 1", 7, "a < b and b < c"), ("a < 1 && b < 2", 7, "did you mean `and`?"), ("a < 1 OR b < 2", 7, "did you mean `or`?"), ("!a < 1", 1, "did you mean `not`?"),
        ("f1+f2 < 3", 1, "`f1+f2`"), ("lr * 2 < 3", 4, "one of <"), ("'val loss' < 3", 1, "a name on one side"), ("1 < 2", 1, "a name on one side"),
        ("x in ()", 7, "a number"), ("x in (1 2)", 9, "',' or ')'"), ("x in (a)", 7, "text stands in quotes"), ("a in 'abc'", 6, "a list such as"),
        ("max(loss", 9, "')'"), ("max()", 5, "the name of a metric"), ("max(max(loss)) > 1", 8, "')'"), ("isnan()", 7, "the name of a metric"), ("isnan(3)", 7, "stands in backquotes"),
        ("config. < 1", 9, "a key behind 'config.'"), ("x not 3", 3, "one of <"),
        ("\0 < 1", 1, "a name"),
    ],
)  # fmt: skip
def test_an_expression_that_cannot_be_read_says_where(text: str, at: int, expected: str) -> None:
    with pytest.raises(InvalidExpression, match=re.escape(expected)) as raised:
        Condition(text)
    assert (raised.value.text, raised.value.position) == (text, at)
    assert f"at character {at} " in str(raised.value)


def test_an_error_in_a_long_text_is_short() -> None:
    for text in (
        "x" * 10_000,
        "a < " + "x" * 10_000,
        "status == " + "x" * 10_000,
        "+" * 10_000,
        "x" * 10_000 + "(",
        "'" + "x" * 10_000,
    ):
        with pytest.raises(InvalidExpression) as raised:
            Condition(text)
        assert len(str(raised.value)) < 700


def test_the_best_of_a_metric_without_a_goal_is_an_error_that_offers_min_and_max() -> None:
    run = Thing(metrics={"my loss": {"last": 1.0}})
    with pytest.raises(UnknownGoal, match=r"write min\(`my loss`\) or max\(`my loss`\)") as raised:
        Condition("lr > 1 or best(`my loss`) < 1").holds(run)
    assert raised.value.position == 11
    assert not Condition("best(other) < 1").holds(run)


def test_the_statuses_are_those_that_runs_have() -> None:
    assert {*STATUSES} == {*get_args(State), "damaged", "unreadable"}


# Columns and orders


def test_columns_are_names_and_aggregates() -> None:
    found = terms("lr, max(val/acc),`a,b`, optimizer.lr , best(loss),tags")
    assert [term.text for term in found] == ["lr", "max(val/acc)", "`a,b`", "optimizer.lr", "best(loss)", "tag"]
    assert [term.of(RUN) for term in found] == [0.1, 0.9, MISSING, 3, 0.25, ["base", "small"]]
    assert [(term.how, term.key) for term in found[1:3]] == [("max", "val/acc"), (None, "a,b")]
    assert [Term(term.text).text for term in found] == [term.text for term in found]
    for text in ("lr,", "", "lr max(x)", "3", "lr < 1", "- lr"):
        with pytest.raises(InvalidExpression):
            terms(text)


@pytest.mark.parametrize(
    "key", ["", "loss", "val/acc", "my loss", "a`b", "``", "config.lr", "metric.x", "and", "step", "3", "é", "a,b"]
)
def test_any_key_can_be_spelled(key: str) -> None:
    run = Thing(config={key: 1}, metrics={key: {"max": 2}})
    assert [term.of(run) for term in terms(f"config.{spelled(key)},max({spelled(key)})")] == [1, 2]


def test_an_order_has_what_is_missing_last_and_keeps_what_is_alike() -> None:
    runs = [Thing(config={"id": at, **config}) for at, config in enumerate([
        {"lr": 1, "g": "b"}, {"lr": 3, "g": "a"}, {}, {"lr": math.nan}, {"lr": 2, "g": "b"}, {"lr": 1, "g": "a"}, {"lr": "x"}, {"lr": [1]}])]  # fmt: skip

    def ids(text: str) -> list[int]:
        return [run.configs["id"] for run in Order(text).sorted(runs, lambda run: run)]

    assert ids("lr") == [0, 5, 4, 1, 6, 7, 2, 3]
    assert ids("-lr") == [7, 6, 1, 4, 0, 5, 2, 3]
    assert ids("- lr") == ids("-config.lr") == ids("-`lr`") == ids("-lr")
    assert ids("g,-lr") == [1, 5, 4, 0, 7, 6, 2, 3]
    assert Order("-max(val/acc),  g").text == "-max(val/acc), g"


def test_a_name_that_no_run_has_is_named_with_one_that_was_meant() -> None:
    condition = Condition("lss < 1 and lr < 1 or nothing > 1")
    assert not condition.holds(RUN)
    assert condition.what_is_missing() == "no run has `lss` or `nothing`; did you mean `loss`?"
    found = Condition("lr < 1 or lss < 1")
    assert found.holds(RUN)
    assert found.what_is_missing() == ""


# Any text

WORDS = st.sampled_from(
    ["loss", "step", "status", "and", "or", "not", "in", "(", ")", ",", "<", "<=", "==", "!=", "1", "nan", "-1e999", "30d", "'a b'", '"', "'", "`", "`a b`",
     "finished", "=", "!", "\0", "é", "max(", "best", "isnan(", "config.", "config.lr", "metric.`x`", "true", "null", "max(loss)", "tag", "-", "\n"]
)  # fmt: skip
TEXTS = st.lists(WORDS, max_size=12).map(" ".join) | st.lists(WORDS, max_size=8).map("".join) | st.text(max_size=40)


# What is asked of a run's directory, and there is none.
WITHOUT_A_RUN = {"size", "age", "duration", "tag"}


def wrong_at(parse: Callable[[str], object], text: str) -> int | None:
    """The position of the error in a text; None where it has none."""
    try:
        parse(text)
    except InvalidExpression as error:
        return error.position
    return None


@given(TEXTS, st.booleans())
def test_any_text_is_a_condition_or_an_error_within_it(text: str, of_records: bool) -> None:
    if at := wrong_at(lambda text: Condition(text, of_records=of_records), text):
        assert 1 <= at <= len(text) + 1
        return
    condition = Condition(text, of_records=of_records)
    again = Condition(condition.text, of_records=of_records)
    assert again.text == condition.text
    subjects = [RunAtRecord(Path("nowhere"), condition.folded)] if of_records else [NAMELESS, RUN]
    for subject in subjects:
        if condition.fields.isdisjoint(WITHOUT_A_RUN) or not of_records:
            assert again.holds(subject) is condition.holds(subject)


@given(TEXTS)
def test_any_text_is_columns_or_an_error_within_it(text: str) -> None:
    assert 1 <= (wrong_at(terms, text) or 1) <= len(text) + 1
    assert 1 <= (wrong_at(Order, text) or 1) <= len(text) + 1


operands = st.sampled_from(
    [
        "lr",
        "optimizer.lr",
        "`my loss (new)`",
        "max(loss)",
        "config.lr",
        "metric.`both`",
        "step",
        "age",
        "best(val/acc)",
        "tag",
        "nothing",
    ]
)
literals = st.sampled_from(
    [
        "1",
        "-0.5",
        "1e-3",
        "nan",
        "inf",
        "true",
        "null",
        "30d",
        "'base'",
        '"it\'s"',
        "metric.both",
        "min(loss)",
        "`step`",
    ]
)
atoms = (
    st.tuples(operands, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), literals).map(" ".join)
    | st.tuples(
        operands,
        st.sampled_from(["in", "not in"]),
        st.sampled_from(["(1)", "(1, 0.1)", "('base', 'x')", "tag", "name"]),
    ).map(" ".join)
    | st.sampled_from(["isnan(loss)", "status == failed", "status in (failed, lost)", "'base' in tag"])
)
trees = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([" and ", " or "]), inner).map("".join),
        inner.map("not {}".format),
        inner.map("({})".format),
    ),
    max_leaves=8,
)


@given(trees)
def test_the_canonical_form_means_the_same(text: str) -> None:
    condition = Condition(text)
    again = Condition(condition.text)
    assert again.text == condition.text
    assert [again.holds(run) for run in (RUN, NAMELESS)] == [condition.holds(run) for run in (RUN, NAMELESS)]


@pytest.mark.parametrize(
    "make",
    [lambda n: "a<1 or " * n + "a<1", lambda n: "(" * n, lambda n: "9" * n, lambda n: "a < " + "9" * n + "x", lambda n: "'" * (2 * n + 1), lambda n: "`" * n,
     lambda n: "a in (" + "1," * n + ")", lambda n: "x" * n + "(", lambda n: "status == " + "x" * n, lambda n: "1e" + "9" * n, lambda n: "1_" * n + " < a"],
)  # fmt: skip
def test_a_long_text_takes_no_longer_than_its_length_demands(make: Callable[[int], str]) -> None:
    def took_s(n: int) -> float:
        began = time.process_time()
        for of_records in (False, True):
            wrong_at(functools.partial(Condition, of_records=of_records), make(n))
        return time.process_time() - began

    gc.disable()  # it would look at all that earlier tests have left
    try:
        short_s = min(took_s(1_000) for _ in range(3))
        assert took_s(16_000) < 16 * 8 * max(short_s, 0.001)
    finally:
        gc.enable()


# What `wait` has always understood


def at_record(text: str, data: dict[str, Any], *, step: int = 0, status: str = "running") -> bool:
    condition = Condition(text, of_records=True)
    subject = RunAtRecord(Path("nowhere"), condition.folded)
    subject.take(Record(0, step, 0, data))
    subject.status = status
    held = condition.holds(subject)
    again = Condition(condition.text, of_records=True)
    assert (again.text, again.holds(subject)) == (condition.text, held)
    return held


def test_any_key_of_a_record_can_be_named() -> None:
    assert at_record("val/top-5.acc>=.5", {"val": {"top-5.acc": 0.5}})
    assert at_record("'my loss (new)' < 1 and \"step\" == 3", {"my loss (new)": 0, "step": 3}, step=9)
    assert at_record("é_1@x:y == -1e-3", {"é_1@x:y": -0.001})
    assert at_record("done == 1 and status == running", {"done": True})
    assert not at_record("a < 1", {"a": "0"})
    assert not at_record("a != 1", {"b": 0})
    assert at_record("status == finished", {"status": 3}, status="finished")


@pytest.mark.parametrize(
    "name",
    [
        "age",
        "name",
        "tag",
        "size",
        "config.lr",
        "metric.x",
        "max",
        "in",
        "not",
        "nan",
        "true",
        "5",
        "30d",
        "f1+f2",
        "loss[0]",
        "a,b",
        "*",
        "isnan",
        "-x",
    ],
)
def test_a_name_before_an_operator_is_a_metric_first(name: str) -> None:
    assert at_record(f"{name} < 1", {name: 0})
    assert not at_record(f"{name} < 1", {name: 2})
    assert at_record(f"x > 0 and ({name} >= 2 or {name} == 1)", {"x": 1, name: 2})


def test_a_key_of_the_config_is_not_meant_by_a_bare_name_of_wait(own_host: Path, runs: Path) -> None:
    import asynctrack

    with asynctrack.init(
        "p", id="r", dir=runs, config={"epochs": 10, "optimizer": {"lr": 0.1}}, tags=["base"], backends=[]
    ) as run:
        run.define_metric("loss", goal="minimize")
        for step, loss in enumerate([3.0, 1.0, 2.0]):
            run.log({"loss": loss}, step=step)
    subject = RunAtRecord(runs / "p/r", ["loss"])
    assert not Condition("best(loss) < 9", of_records=True).holds(subject)
    for step, loss in enumerate([3.0, 1.0, 2.0]):
        subject.take(Record(0, step, 0, {"loss": loss}))
    for text, true in {
        "epochs >= 10": False, "config.epochs >= 10": True, "config.optimizer.lr < 1": True, "min(loss) == 1 and loss == 2 and max(loss) == 3": True,
        "best(loss) == 1": True, "mean(loss) == 2": True, "first(loss) > last(loss)": True, "isnan(loss)": False, "'base' in tag": True, "records == 3": True,
        "age < 1h and size > 1": True, "project == 'p'": True, "name == 'r'": True, "status in (running, failed)": True,
    }.items():  # fmt: skip
        assert Condition(text, of_records=True).holds(subject) is true, text


def test_a_built_in_name_is_meant_as_long_as_no_record_has_a_metric_of_that_name() -> None:
    condition = Condition("records > 1", of_records=True)
    subject = RunAtRecord(Path("nowhere"))
    held = []
    for data in ({}, {}, {"records": 0}, {}):
        subject.take(Record(0, 0, 0, data))
        held.append(condition.holds(subject))
    assert held == [False, True, False, False]


def test_only_metrics_are_missed_in_a_record() -> None:
    condition = Condition("loss < 0 and config.lr > 1 and (age > 3d or hlaf > 1)", of_records=True)
    subject = RunAtRecord(Path("nowhere"))
    subject.take(Record(0, 0, 0, {"loss": 1, "half": 1}))
    assert not condition.holds(subject)
    assert condition.what_is_missing("no record") == "no record has `hlaf`; did you mean `half`?"


OPERATORS = ("<", "<=", ">", ">=", "==", "!=")
numbers = st.sampled_from([0, 1, -1, 0.5, 2**70, math.inf, -math.inf, math.nan])
comparisons = st.tuples(st.sampled_from("abc"), st.sampled_from(OPERATORS), numbers).map(
    lambda parts: f"{parts[0]} {parts[1]} {parts[2]}"
)
conditions = st.recursive(
    comparisons,
    lambda inner: st.tuples(inner, st.sampled_from(["and", "or"]), inner, st.booleans()).map(
        lambda parts: f"({parts[0]} {parts[1]} {parts[2]})" if parts[3] else f"{parts[0]} {parts[1]} {parts[2]}"
    ),
    max_leaves=8,
)


@given(conditions, st.fixed_dictionaries(dict.fromkeys("abc", numbers)))
def test_conditions_mean_what_they_mean_in_python(text: str, data: dict[str, float]) -> None:
    assert at_record(text, data) == eval(text, {"inf": math.inf, "nan": math.nan}, dict(data))
