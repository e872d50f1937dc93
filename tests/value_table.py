"""The table of `docs/reference/values.md`: what each type of value becomes, asked of the project itself. `python tests/value_table.py` prints it."""

# ruff: noqa: F401  # rows are Python text that needs these
from __future__ import annotations

import array
import collections
import csv
import dataclasses
import datetime
import decimal
import enum
import fractions
import importlib
import io
import pathlib
import sys
import tempfile
import types
import uuid
import warnings
from pathlib import Path
from typing import Any

import msgspec

import asynctrack
from asynctrack import CSV, Array, JSONLines, Media, Parquet, TensorBoard
from asynctrack.backends.mlflow.items import as_number
from asynctrack.backends.sql.tables import cell
from asynctrack.backends.wandb.rows import UNSHOWN, to_wandb
from asynctrack.records.codec import decode_record, encode_any
from asynctrack.testing import JournaledRun, deliver


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: float = 1.5
    y: int = 2


class Struct(msgspec.Struct):
    x: float = 1.5


Named = collections.namedtuple("Named", "x y")

# The library that a row needs, and what is logged, as Python.
LOGGED: list[tuple[str, str]] = [
    ("", "None"), ("", "True"), ("", "3"), ("", "2**70"), ("", "0.5"), ("", "float('nan')"), ("", "1 + 2j"), ("", "'text'"), ("", "'\\ud800'"), ("", "b'bytes'"),
    ("", "bytearray(b'bytes')"), ("", "[1, 'a']"), ("", "(1, 2)"), ("", "Named(1, 2)"), ("", "{'a': {'b': 1}}"), ("", "{1: 'one'}"), ("", "{3, 1, 2}"),
    ("", "frozenset('ba')"), ("", "range(3)"), ("", "(i for i in range(3))"), ("", "collections.deque([1, 2])"), ("", "array.array('d', [0.5, 1.5])"),
    ("", "types.MappingProxyType({'a': 1})"), ("", "{'a': 1}.keys()"), ("", "Colour.RED"), ("", "decimal.Decimal('0.1')"), ("", "fractions.Fraction(1, 4)"),
    ("", "datetime.datetime(2024, 2, 29, 12)"), ("", "datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC)"), ("", "datetime.date(2024, 2, 29)"),
    ("", "datetime.time(12, 30)"), ("", "datetime.timedelta(seconds=90)"), ("", "uuid.UUID(int=1)"), ("", "pathlib.Path('a/b')"), ("", "Point()"),
    ("", "types.SimpleNamespace(x=1)"), ("", "Struct()"), ("", "int"), ("", "ValueError('why')"),
    ("numpy", "numpy.float32(0.5)"), ("numpy", "numpy.int64(3)"), ("numpy", "numpy.bool_(True)"), ("numpy", "numpy.str_('text')"), ("numpy", "numpy.longdouble(0.5)"),
    ("numpy", "numpy.complex64(1j)"), ("numpy", "numpy.datetime64('2024-02-29')"), ("numpy", "numpy.datetime64('NaT')"), ("numpy", "numpy.timedelta64(90, 's')"),
    ("numpy", "numpy.array([0.5, 1.5])"), ("numpy", "numpy.zeros((2, 3), 'f4')"), ("numpy", "numpy.array([0.5])"), ("numpy", "numpy.array(0.5)"), ("numpy", "numpy.array([])"),
    ("numpy", "numpy.array(['a', 'b'])"), ("numpy", "numpy.array([1, None])"), ("numpy", "numpy.array([1j, 2])"), ("numpy", "numpy.array(['2024-02-29', 'NaT'], 'M8[D]')"),
    ("numpy", "numpy.array([1, 2], 'm8[m]')"), ("numpy", "numpy.array([(1, 2), (3, 4)], [('a', 'f4'), ('b', 'i4')])"), ("numpy", "numpy.ma.masked"),
    ("numpy", "numpy.ma.array([1, 2], mask=[False, True])"), ("numpy", "numpy.ma.array([1, 2])"),
    ("torch", "torch.tensor(0.5)"), ("torch", "torch.tensor([0.5])"), ("torch", "torch.tensor([0.5, 1.5], requires_grad=True)"),
    ("torch", "torch.ones(2, dtype=torch.bfloat16)"), ("torch", "torch.ones(2, dtype=torch.float8_e4m3fn)"), ("torch", "torch.nn.Linear(1, 1)"),
    ("jax", "jax.numpy.float32(0.5)"), ("jax", "jax.numpy.ones(2)"), ("jax", "jax.numpy.ones(1)"), ("jax", "jax.numpy.ones(2, 'bfloat16')"), ("jax", "jax.numpy.ones(2, 'float8_e5m2')"),
    ("pandas", "pandas.DataFrame({'a': [1, 2]})"), ("pandas", "pandas.DataFrame({'a': [1, 2]}, index=['x', 'y'])"), ("pandas", "pandas.Series([1, 2], name='a')"),
    ("pandas", "pandas.Index([1, 2])"), ("pandas", "pandas.Timestamp('2024-02-29')"), ("pandas", "pandas.Timestamp('2024-02-29', tz='UTC')"), ("pandas", "pandas.NaT"),
    ("pandas", "pandas.NA"), ("pandas", "pandas.Timedelta('90s')"), ("pandas", "pandas.Period('2024-02')"),
    ("polars", "polars.DataFrame({'a': [1, 2]})"), ("polars", "polars.Series('a', [1, 2])"), ("polars", "polars.LazyFrame({'a': [1]})"),
    ("pyarrow", "pyarrow.table({'a': [1, 2]})"), ("pyarrow", "pyarrow.array([1, 2])"), ("pyarrow", "pyarrow.scalar(3)"),
    ("omegaconf", "omegaconf.OmegaConf.create({'a': 1, 'b': '${a}', 'c': '???'})"), ("omegaconf", "omegaconf.OmegaConf.create([1, 2])"),
    ("pydantic", "pydantic.create_model('Model', x=(float, 1.5))()"), ("attrs", "attrs.make_class('Attrs', {'x': attrs.field(default=1.5), '_y': attrs.field(default=2)})()"),
]  # fmt: skip

# What a record has, by kind, as Python that gives one.
KINDS: list[tuple[str, str]] = [
    ("nothing", "None"), ("true or false", "True"), ("integer", "3"), ("integer beyond 64 bits", "2**70"), ("number", "0.5"), ("not a number", "float('nan')"),
    ("text", "'text'"), ("bytes", "b'bytes'"), ("moment", "datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC)"), ("list", "[1, 2]"), ("mapping", "{'a': 1}"),
    ("array", "numpy.array([0.5, 1.5])"), ("table", "asynctrack.Table(['a'], [[1]])"), ("image", "asynctrack.Image(numpy.zeros((2, 3), 'u1'))"),
    ("histogram", "asynctrack.Histogram([1, 2])"),
]  # fmt: skip

READERS = [
    "Kind",
    "`records()`, `columns()`",
    "Arrow",
    "pandas",
    "polars",
    "JSON Lines",
    "CSV",
    "Parquet",
    "SQL",
    "TensorBoard",
    "W&B",
    "MLflow",
]


def made(library: str, expression: str) -> Any:
    """What a row logs; `ImportError` where its library is not installed."""
    names = {**globals(), **({library: importlib.import_module(library)} if library else {})}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if library == "jax":
            importlib.import_module("jax.numpy")
        return eval(expression, names)


def shown(value: Any) -> str:
    """A value in a cell of the table."""
    if isinstance(value, Array):
        return f"`Array` {value.dtype} {'x'.join(map(str, value.shape))}"
    if isinstance(value, Media):
        return f"`Media`: {value}"
    if isinstance(value, dict) and any(isinstance(item, Array) for item in value.values()):
        return ", ".join(f"`{key}`: {shown(item)}" for key, item in value.items())
    text = repr(value).replace("datetime.timezone.utc", "UTC").replace("|", "\\|")
    return "its `repr`" if " object " in text or text[:2] in ('"<', "'<") or "(in_features" in text else f"`{text}`"


def logged_row(library: str, expression: str) -> list[str]:
    """A row of what is logged, in the record."""
    value = made(library, expression)
    payload, strange = encode_any({"v": value})
    found = decode_record(payload, 0).data["v"]
    is_repr = strange and found == repr(value)
    return [f"`{expression.replace('|', chr(92) + '|')}`", "its `repr`, with a warning" if is_repr else shown(found)]


def kind_rows() -> list[list[str]]:
    """What each kind becomes in each reader and backend."""
    with tempfile.TemporaryDirectory() as folder:
        return [[name, *_seen(Path(folder) / "p" / name.replace(" ", "-"), expression)] for name, expression in KINDS]


def _seen(path: Path, expression: str) -> list[str]:
    importlib.import_module("numpy")
    value = made("numpy", expression)
    with JournaledRun(path) as run:
        run.log({"v": value, "x": 1})
        run.end()
    for name, backend in {
        "jsonl": JSONLines(),
        "csv": CSV(),
        "parquet": Parquet(),
        "tensorboard": TensorBoard(),
    }.items():
        deliver(path, backend, name=name)
    reader = asynctrack.open_run(path)
    (record,) = reader.records()
    key = "v/a" if isinstance(value, dict) else "v"
    kept = record.data["v"]["a"] if isinstance(value, dict) else record.data["v"]
    told = msgspec.json.decode((path / "metrics.jsonl").read_bytes())
    return [
        shown(record.data["v"]),
        _brief(reader.to_arrow().schema.field(key).type),
        str(reader.to_pandas()[key].dtype),
        _brief(reader.to_polars()[key].dtype),
        _json({name: item for name, item in told.items() if name[0] == "v"}),
        _csv(path, key),
        _parquet(path, key),
        f"{cell(kept).type}",
        _tensorboard(path),
        "left out" if (there := to_wandb(kept)) is UNSHOWN else "histogram" if "istogram" in str(there) else "a medium" if isinstance(there, Media) else f"`{there!r}`",
        "left out" if (metric := as_number(kept)) is None else f"metric `{metric}`",
    ]  # fmt: skip


def _brief(kind: Any) -> str:
    """The name of a type, without what is in it."""
    text = str(kind)
    return text if text.startswith(("timestamp", "Datetime")) else text.partition("<")[0].partition("(")[0].lower()


def _json(told: dict[str, Any]) -> str:
    found = told.get("v", told)
    if isinstance(found, dict) and "_type" in found:
        return "its counts and edges" if found["_type"] == "histogram" else "a reference with its `path`"
    return f"`{msgspec.json.encode(found).decode()}`"


def _csv(path: Path, key: str) -> str:
    (file,) = path.glob("csv/*.csv") if "/" not in key else path.glob(f"csv/{key.partition('/')[0]}.csv")
    (row,) = csv.DictReader(io.StringIO(file.read_text()))
    text = row.get(key.rpartition("/")[2], "")
    return (
        "empty"
        if not text
        else "a reference"
        if "_type" in text and "path" in text
        else "counts and edges"
        if "_type" in text
        else f"`{text}`"
    )


def _parquet(path: Path, key: str) -> str:
    import pyarrow.parquet

    for file in sorted(path.glob("**/*.parquet")):
        schema = pyarrow.parquet.read_schema(file)
        for name in (key, key.rpartition("/")[2]):
            if name in schema.names:
                return str(schema.field(name).type)
    return "left out"


def _tensorboard(path: Path) -> str:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = set()
    for file in path.glob("tensorboard/**/*tfevents*"):
        events = EventAccumulator(str(file)).Reload()
        for kind, names in events.Tags().items():
            if isinstance(names, list) and any(name.startswith("v") for name in names):
                found.add("text" if kind == "tensors" else kind.removesuffix("s"))
    return ", ".join(sorted(found)) or "left out"


def table(rows: list[list[str]], head: list[str]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


if __name__ == "__main__":
    print(table([logged_row(*row) for row in LOGGED], ["Logged", "In the record"]))
    print()
    print(table(kind_rows(), READERS))
    sys.exit()
