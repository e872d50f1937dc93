"""Summary of a run: values that are set; for other names the last logged value, or the aggregates of `define_metric`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

from asynctrack import Run as OwnRun
from asynctrack import open_run
from asynctrack.client.metrics import summary_of
from asynctrack.reading.last_values import copied, merge


class SummaryDict(MutableMapping[str, Any]):
    """Maps names to values; the names are attributes, too. Changes of nested mappings change it, too."""

    def _view(self) -> dict[str, Any]:
        raise NotImplementedError

    def _change(self, path: tuple[str, ...], change: Callable[[dict[str, Any]], object]) -> None:
        """Change the values that are set, in the mapping at a path below this one."""
        raise NotImplementedError

    def _forget(self, path: tuple[str, ...]) -> None:
        """Remove the value at a path below this one, until it is logged again."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return repr(self._view())

    def __getitem__(self, key: str) -> Any:
        value = self._view()[key]
        return SubSummary(self, key) if isinstance(value, dict) else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._view())

    def __len__(self) -> int:
        return len(self._view())

    def __contains__(self, key: object) -> bool:
        return key in self._view()

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self._forget((key,))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # libraries probe for special methods
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the summary has no {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        del self[name]

    def update(self, d: Any = None, /, **more: Any) -> None:
        """Set several values at once.

        Args:
            d: names to values.
            more: values by name.
        """
        self._change((), lambda own: own.update({**dict(d or {}), **more}))


class Summary(SummaryDict):
    """Holds the summary of a run.

    Args:
        run: of asynctrack.
    """

    def __init__(self, run: OwnRun) -> None:
        self.__dict__.update(_run=run, _forgotten=set())

    def logged(self, names: Mapping[str, Any]) -> None:
        """Forget values that were set under these names, which have just been logged: the latest value counts.

        Args:
            names: the logged names to values.
        """
        if self._forgotten:
            self._forgotten.difference_update([path for path in self._forgotten if path[0] in names])
        own = self._run.summary
        if own and not own.keys().isdisjoint(names):
            for name in own.keys() & names.keys():
                del own[name]

    def _view(self) -> dict[str, Any]:
        run: OwnRun = self._run
        logged = _aggregated(run.last_values(), run, ())
        for path in self._forgotten:
            _pop(logged, path)
        merge(logged, run.summary.as_dict())
        return logged

    def _change(self, path: tuple[str, ...], change: Callable[[dict[str, Any]], object]) -> None:
        before = self._run.summary.as_dict()
        after = copied(before)
        copies = dict(after)
        inner = after
        for name in path:
            inner = inner.setdefault(name, {}) if isinstance(inner.get(name, {}), dict) else {}
        change(inner)
        for gone in before.keys() - after.keys():
            del self._run.summary[gone]
        changed = {name for name, value in after.items() if name not in copies or value is not copies[name]}
        self._run.summary.update({name: after[name] for name in changed.union(path[:1])})

    def _forget(self, path: tuple[str, ...]) -> None:
        self._forgotten.add(path)
        self._change(path[:-1], lambda own: own.pop(path[-1], None))


class SubSummary(SummaryDict):
    """Holds a nested mapping of a summary."""

    def __init__(self, parent: SummaryDict, key: str) -> None:
        self.__dict__.update(_parent=parent, _key=key)

    def _view(self) -> dict[str, Any]:
        found = self._parent._view().get(self._key)
        return found if isinstance(found, dict) else {}

    def _change(self, path: tuple[str, ...], change: Callable[[dict[str, Any]], object]) -> None:
        self._parent._change((self._key, *path), change)

    def _forget(self, path: tuple[str, ...]) -> None:
        self._parent._forget((self._key, *path))


class LocalSummary(SummaryDict):
    """Holds the summary of a run that records nothing; it exists only in this process."""

    def __init__(self) -> None:
        self.__dict__.update(_own={})

    def logged(self, names: Mapping[str, Any]) -> None:
        """Keep the logged values.

        Args:
            names: the logged names to values.
        """
        self._own.update(names)

    def _view(self) -> dict[str, Any]:
        own: dict[str, Any] = self._own
        return own

    def _change(self, path: tuple[str, ...], change: Callable[[dict[str, Any]], object]) -> None:
        inner = self._own
        for name in path:
            inner = inner.setdefault(name, {})
        change(inner)

    def _forget(self, path: tuple[str, ...]) -> None:
        _pop(self._own, path)


def _pop(nested: dict[str, Any], path: tuple[str, ...]) -> None:
    """Remove the value at a path."""
    *outer, last = path
    for name in outer:
        nested = nested.get(name, {})
    nested.pop(last, None)


def _aggregated(values: Mapping[str, Any], run: OwnRun, path: tuple[str, ...]) -> dict[str, Any]:
    """Return the last values, with the aggregates of `define_metric` in place of the metrics that it names.

    `define_metric` joins nested names by dots.
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        inner = (*path, name)
        if isinstance(value, Mapping):
            found[name] = _aggregated(value, run, inner)
        elif not (kinds := summary_of(run.metrics, ".".join(inner))):
            found[name] = value
        elif "none" not in kinds:
            reader, known = open_run(run.path), {}
            for kind in kinds:
                with contextlib.suppress(KeyError):  # the metric has only texts or NaN, so there is no aggregate
                    known[kind] = reader.summarise("/".join(inner), kind)
            if known:
                found[name] = known
    return found
