"""W&B's rows: turn records, configs and summaries into W&B's form. Runs where the sink does."""

from __future__ import annotations

import importlib
import math
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from asynctrack.backends.base import Batch, Update
from asynctrack.backends.wandb.media import can_show
from asynctrack.journal.manifest import METRICS
from asynctrack.records.codec import Array, Media, Record, flatten, to_json
from asynctrack.records.plain import as_float, items_in

# Our step is a metric: W&B drops rows whose own step is below the last one.
STEP: Final = "asynctrack/step"
# W&B leaves out a longer line, but counts it.
MOST_ROW_BYTES: Final = (10 << 20) - (100 << 10)

_OWN: Final = frozenset({"step", "runtime", "timestamp", "wandb"})
_LARGEST: Final = (1 << 63) - 1
_BINS: Final = 64
_MOST_DEEP: Final = 64
# A row with fewer characters than this in texts and lists cannot be too large.
_SURELY_FITS: Final = 1 << 20

# A config's key that W&B keeps for itself. Earlier versions kept the arguments of `define_metric` there.
_ASIDE: Final = "_wandb"

UNSHOWN: Final = object()


def to_wandb(value: Any) -> Any:
    """Return a value as `run.log` takes it; `UNSHOWN` where a row cannot hold it."""
    if isinstance(value, bool | float | str):
        return value
    if isinstance(value, int):
        return value if -_LARGEST <= value <= _LARGEST else as_float(value, UNSHOWN)
    if isinstance(value, Array):
        return _histogram(value)
    if isinstance(value, list):
        return _list(value)
    if isinstance(value, Media) and can_show(value):
        return value.light()
    return UNSHOWN


class Rows:
    """Turns records into rows. It remembers the names that it has made."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def of(self, record: Record) -> dict[str, Any] | None:
        """Return the row of a record, None where nothing of it can be shown."""
        row: dict[str, Any] = {}
        for key, value in flatten(record.data):
            if (shown := to_wandb(value)) is not UNSHOWN:
                name = self._names.get(key)
                row[name if name is not None else self._name(key)] = shown
        if not row:
            return None
        row[STEP] = record.step if -_LARGEST <= record.step <= _LARGEST else float(record.step)
        row["_timestamp"] = record.time_ns / 1e9
        return row

    def _name(self, key: str) -> str:
        name = self._names[key] = clean_name(key)
        return name


def clean_name(key: str) -> str:
    """Return the name of a metric at W&B.

    Names that W&B or we use ourselves get an underscore in front, and so does an empty one.
    """
    bare = key.lstrip("_")
    taken = (key.startswith("_") and bare in _OWN) or bare == STEP or not key
    return f"_{key}" if taken else key


def is_too_large(row: Mapping[str, Any]) -> bool:
    """Return whether W&B would leave a row out."""
    loose = [value for value in row.values() if isinstance(value, str | list)]
    if sum(map(_length, loose)) < _SURELY_FITS:
        return False
    return len(msgspec.json.encode(to_json({**row, "loose": None}), enc_hook=str)) > MOST_ROW_BYTES


def as_config(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config or summary as W&B takes it: nested as it is, without values that JSON cannot hold."""
    return {str(key): _as_json(value) for key, value in data.items() if key not in (_ASIDE, METRICS)}


def changes_in(update: Update) -> dict[str, Any]:
    """Return the changes of an update as W&B takes them.

    W&B's config cannot lose a name, so a removed one becomes None.
    """
    return as_config({**dict.fromkeys(update.removed), **update.data})


def in_order(rows: list[dict[str, Any] | None], batch: Batch) -> Iterator[dict[str, Any] | Update]:
    """Yield rows and updates in the order of their times."""
    updates = deque(batch.updates)
    for row, record in zip(rows, batch.records, strict=True):
        while updates and updates[0].time_ns < record.time_ns:
            yield updates.popleft()
        if row is not None:
            yield row
    yield from updates


def merged(batch: Batch, kind: str) -> dict[str, Any]:
    """Merge the updates of a kind."""
    last: dict[str, Any] = {}
    for update in batch.updates:
        if update.kind == kind:
            last.update(changes_in(update))
    return last


def metrics_in(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the arguments of `define_metric`, by metric, that a run keeps in its config."""
    told = config.get(_ASIDE)
    metrics = config.get(METRICS, told.get("metrics") if isinstance(told, Mapping) else None)
    if not isinstance(metrics, Mapping):
        return {}
    return {str(name): dict(facts) for name, facts in metrics.items() if isinstance(facts, Mapping)}


def _histogram(value: Array) -> Any:
    """Return a histogram of an array's finite numbers, `UNSHOWN` where it has none."""
    items = items_in(value.tolist())
    finite = [float(item) for item in items if math.isfinite(item)]
    if not finite:
        return UNSHOWN
    counts, edges = _bins(finite)
    return importlib.import_module("wandb").Histogram(np_histogram=(counts, edges))


def _bins(values: list[float]) -> tuple[list[int], list[float]]:
    """Count the values in each of 64 bins of equal width; there is one bin where the values are nearly the same.

    Returns:
        The counts, and the edges of the bins.
    """
    low, high = min(values), max(values)
    width = high / _BINS - low / _BINS  # their difference may be too large for a float
    if not width:
        return [len(values)], [low - 0.5, high + 0.5]
    counts = [0] * _BINS
    for value in values:
        counts[min(int(value / width - low / width), _BINS - 1)] += 1
    return counts, [low + width * at for at in range(_BINS)] + [high]


def _list(value: list[Any], depth: int = 0) -> Any:
    items = [_list(item, depth + 1) if isinstance(item, list) else to_wandb(item) for item in value]
    return UNSHOWN if depth > _MOST_DEEP or any(item is UNSHOWN for item in items) else items


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return as_config(value)
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return value if -_LARGEST <= value <= _LARGEST else str(value)
    return to_json(value)


def _length(value: str | list[Any]) -> int:
    return len(value) if isinstance(value, str) else sum(map(_item_length, value))


def _item_length(value: Any) -> int:
    return _length(value) if isinstance(value, str | list) else 20
