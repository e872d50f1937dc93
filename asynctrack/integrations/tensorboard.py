"""TensorBoard scripts: a `SummaryWriter` for which the loop does not wait, for torch, skrl, CleanRL and others.

Runs in the caller.

    from asynctrack.integrations.tensorboard import SummaryWriter

It has the signature of `torch.utils.tensorboard.SummaryWriter`, and needs neither torch nor TensorBoard.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Unpack

import msgspec

from asynctrack._system import messages
from asynctrack.backends.base import Backend
from asynctrack.client.opening import init
from asynctrack.client.run import Run
from asynctrack.client.run_arguments import RunArguments
from asynctrack.errors import InvalidValueType
from asynctrack.integrations.log_dir import HPARAMS, LogDir
from asynctrack.integrations.naming import project_name
from asynctrack.integrations.pixels import as_array, grid, rows_of_pixels
from asynctrack.records.arrays import is_array, plain_array
from asynctrack.records.codec import coerce_step, encode, make_plain
from asynctrack.records.values import Histogram, Image

# A file is written at least this often, whatever `flush_secs` says: writing takes nothing from the loop.
_FLUSH_S: Final = 1.0
# More values are counted in the caller: uncounted they would take a quarter of a megabyte of the queue.
_MOST_RAW_VALUES: Final = 65_536
_MOST_BINS: Final = 512
# Further methods of torch's writer, which record nothing here.
_OTHERS: Final = frozenset({
    "add_audio", "add_custom_scalars", "add_custom_scalars_marginchart", "add_custom_scalars_multilinechart", "add_embedding",
    "add_graph", "add_histogram_raw", "add_image_with_boxes", "add_mesh", "add_onnx_graph", "add_pr_curve", "add_pr_curve_raw", "add_tensor", "add_video",
})  # fmt: skip


# Functions that are called with values and step of each call of each writer.
listeners: list[Callable[[Mapping[str, Any], int], object]] = []


class SummaryWriter:
    """Writes event files for TensorBoard. An `add_` call takes microseconds, and its value survives SIGKILL.

    Event files are in `log_dir`, as with torch's writer; the values are also a run. A value is recorded as it is at the
    call; figures are drawn during the call. A call without a step is of step 0. Numbers are 32-bit floats in the files,
    also with `double_precision`, and exact in the run. Other methods of torch's writer record nothing, and warn once.

    Args:
        log_dir: of the event files. Default: `runs/` and the date and host.
        comment: the end of that default.
        purge_step: TensorBoard no longer shows this step and later ones of files that are in `log_dir` already.
        max_queue: ignored.
        flush_secs: seconds after which a value is in the file; at most 1.
        filename_suffix: the end of the files' names.
        queue_size: skrl's name of `max_queue`.
        flush_seconds: skrl's name of `flush_secs`.
        backends: further backends of the run.
        settings: the other arguments of `asynctrack.init`.

    Attributes:
        log_dir: of the event files.
        run: the open run; None after `close()`, until the next call opens another.

    Raises:
        InvalidSettings: a setting is out of range.
        DirectoryNotWritable: the run's directory cannot be made.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        comment: str = "",
        purge_step: int | None = None,
        max_queue: int = 10,
        flush_secs: float = 120,
        filename_suffix: str = "",
        *,
        queue_size: int | None = None,
        flush_seconds: float | None = None,
        backends: Iterable[Backend | str] = (),
        **settings: Unpack[RunArguments],
    ) -> None:
        self.log_dir: str = os.path.expanduser(log_dir) if log_dir else _default_log_dir(comment)
        flush_s = flush_secs if flush_seconds is None else flush_seconds
        board = LogDir(
            dir=self.log_dir, flush_s=_at_most(flush_s, _FLUSH_S), suffix=filename_suffix, purge_step=purge_step
        )
        path = Path(os.path.abspath(self.log_dir))
        self._project = project_name(path.parent.name or "tensorboard")
        self._backends = [*backends]
        self._settings: dict[str, Any] = {"name": path.name or "run", **settings}
        self._left_out: set[str] = set()
        self.run: Run | None = self._open(board)
        self._board = msgspec.structs.replace(board, purge_step=None)  # for a run that is opened after `close()`

    def __repr__(self) -> str:
        return f"<SummaryWriter to {self.log_dir}, {self.run!r}>"

    def add_scalar(
        self,
        tag: str,
        scalar_value: Any = None,
        global_step: Any = None,
        walltime: float | None = None,
        new_style: bool = False,
        double_precision: bool = False,
        *,
        value: Any = None,
        timestep: Any = None,
    ) -> None:
        """Record a number.

        Args:
            tag: its name.
            scalar_value: Python's number, or an array or tensor with one item.
            global_step: of the record; None for 0.
            walltime: seconds since the epoch. Default: now.
            new_style: ignored.
            double_precision: ignored.
            value: skrl's name of `scalar_value`.
            timestep: skrl's name of `global_step`.

        Raises:
            InvalidValueType: it is no number.
        """
        number = _number("add_scalar", scalar_value if value is None else value)
        self._add(tag, number, global_step if timestep is None else timestep, walltime)

    def add_scalars(
        self, main_tag: str, tag_scalar_dict: Mapping[str, Any], global_step: Any = None, walltime: float | None = None
    ) -> None:
        """Record several numbers for one chart; each is a TensorBoard run of its own, `main_tag_NAME`.

        Args:
            main_tag: of the chart.
            tag_scalar_dict: names to numbers, or to arrays with one item.
            global_step: of the record; None for 0.
            walltime: seconds since the epoch. Default: now.

        Raises:
            InvalidValueType: a value is no number.
        """
        numbers = {str(name): _number("add_scalars", value) for name, value in tag_scalar_dict.items()}
        self._add(main_tag, numbers, global_step, walltime)

    def add_text(self, tag: str, text_string: str, global_step: Any = None, walltime: float | None = None) -> None:
        """Record a text, which TensorBoard shows as Markdown.

        Args:
            tag: its name.
            text_string: the text.
            global_step: of the record; None for 0.
            walltime: seconds since the epoch. Default: now.
        """
        self._add(tag, str(text_string), global_step, walltime)

    def add_histogram(
        self,
        tag: str,
        values: Any,
        global_step: Any = None,
        bins: Any = "tensorflow",
        walltime: float | None = None,
        max_bins: int | None = None,
    ) -> None:
        """Record the distribution of values.

        More than 65,536 values, or values with other `bins`, are counted during the call. Their sum and the sum of
        their squares are then estimates.

        Args:
            tag: its name.
            values: an array, a tensor or a sequence of numbers, of any shape.
            global_step: of the record; None for 0.
            bins: "tensorflow", or a value that `numpy.histogram` takes.
            walltime: seconds since the epoch. Default: now.
            max_bins: limit for the number of bins, where values are counted during the call.

        Raises:
            InvalidValueType: the values are no numbers.
        """
        import numpy

        array = as_array("add_histogram", values).ravel()
        if bins == "tensorflow" and array.size <= _MOST_RAW_VALUES:
            # An array of one item would be recorded as a number.
            return self._add(tag, Histogram(array) if array.size == 1 else array, global_step, walltime)
        finite = array[numpy.isfinite(array)]
        counts, edges = numpy.histogram(finite, _MOST_BINS if bins == "tensorflow" else bins)
        if max_bins is not None and len(counts) > max_bins:
            counts, edges = numpy.histogram(finite, max_bins)
        return self._add(tag, Histogram(np_histogram=(counts, edges)), global_step, walltime)

    def add_image(
        self,
        tag: str,
        img_tensor: Any,
        global_step: Any = None,
        walltime: float | None = None,
        dataformats: str = "CHW",
    ) -> None:
        """Record an image.

        Args:
            tag: its name.
            img_tensor: an array or tensor of bytes, or of floats from 0 to 1.
            global_step: of the record; None for 0.
            walltime: seconds since the epoch. Default: now.
            dataformats: order of the dimensions: "CHW", "HWC" or "HW".

        Raises:
            InvalidValueType: it is no array of numbers.
            InvalidValue: it has other dimensions than `dataformats`.
        """
        self._add(tag, Image(rows_of_pixels(img_tensor, dataformats)), global_step, walltime)

    def add_images(
        self,
        tag: str,
        img_tensor: Any,
        global_step: Any = None,
        walltime: float | None = None,
        dataformats: str = "NCHW",
    ) -> None:
        """Record several images as a grid, eight in a row.

        Args:
            tag: its name.
            img_tensor: an array or tensor of bytes, or of floats from 0 to 1.
            global_step: of the record; None for 0.
            walltime: seconds since the epoch. Default: now.
            dataformats: order of the dimensions, such as "NCHW" or "NHWC".

        Raises:
            InvalidValueType: it is no array of numbers.
            InvalidValue: it has other dimensions than `dataformats`.
        """
        self._add(tag, Image(grid(img_tensor, dataformats)), global_step, walltime)

    def add_figure(
        self, tag: str, figure: Any, global_step: Any = None, close: bool = True, walltime: float | None = None
    ) -> None:
        """Record a figure of matplotlib, or a list of them. The call draws each, in some 100 ms.

        Args:
            tag: its name.
            figure: one, or a list of them.
            global_step: of the record; None for 0.
            close: whether the figures are closed afterwards.
            walltime: seconds since the epoch. Default: now.
        """
        several = isinstance(figure, Sequence)
        figures = list(figure) if several else [figure]
        drawn = [Image(each) for each in figures]
        self._add(tag, drawn if several else drawn[0], global_step, walltime)
        if close:
            from matplotlib import pyplot

            for each in figures:
                pyplot.close(each)

    def add_hparams(
        self,
        hparam_dict: Mapping[str, Any],
        metric_dict: Mapping[str, Any],
        hparam_domain_discrete: Mapping[str, Any] | None = None,
        run_name: str | None = None,
        global_step: Any = None,
    ) -> None:
        """Record a row of the HParams table.

        Args:
            hparam_dict: hyperparameters by name.
            metric_dict: metrics by name.
            hparam_domain_discrete: ignored.
            run_name: of the row, which is a TensorBoard run of its own. Default: the time.
            global_step: of the record; None for 0.

        Raises:
            InvalidValueType: an argument is no dict, or a metric is no number.
        """
        for given, name in ((hparam_dict, "hparam_dict"), (metric_dict, "metric_dict")):
            if not isinstance(given, Mapping):
                raise InvalidValueType("add_hparams", f"a dict as {name}", f"{type(given).__name__}: {given!r:.80}")
        metrics = {str(name): _number("add_hparams", value) for name, value in metric_dict.items()}
        row = {"hparam": dict(hparam_dict), "metric": metrics}
        self._add(HPARAMS, {run_name or str(time.time()): row}, global_step, None)

    def flush(self) -> None:
        """Wait until everything is in the files, at most `finish_timeout_s`."""
        if self.run is not None:
            self.run.flush("delivered", self._settings.get("finish_timeout_s", 30.0))

    def close(self) -> None:
        """Finish the run. A second call does nothing."""
        run, self.run = self.run, None
        if run is not None:
            run.finish()

    def get_logdir(self) -> str:
        """Return the directory of the event files."""
        return self.log_dir

    def __enter__(self) -> SummaryWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        run, self.run = self.run, None
        if run is not None:
            run.__exit__(kind, error, traceback)

    def __getattr__(self, name: str) -> Any:
        if name not in _OTHERS:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if name not in self._left_out:
            self._left_out.add(name)
            messages.warn_now(f"asynctrack: SummaryWriter.{name}() is not supported: its data is not recorded")
        return lambda *_, **__: None

    def _open(self, board: LogDir) -> Run:
        return init(self._project, **self._settings, backends=[board, *self._backends])

    def _add(self, tag: str, value: Any, step: Any, walltime: float | None) -> None:
        if self.run is None:
            self.run = self._open(self._board)
        run, data = self.run, {str(tag): value}
        step = 0 if step is None else coerce_step(int(step))
        for listen in listeners:
            listen(data, step)
        if walltime is None:
            run.log(data, step)
        else:
            payload = encode((int(walltime * 1e9), step, make_plain(data)))
            run._put(payload) or run._publisher.on_put_failed(payload)


def _number(call: str, value: Any) -> float:
    """Return Python's number for a value, so that it stays a number: an array of one item would be a histogram.

    Raises:
        InvalidValueType: it is no number.
    """
    if type(value) in (float, int, bool):
        return value  # type: ignore[no-any-return]  # one of these
    try:
        if not isinstance(value, str | bytes):
            number = plain_array(value) if is_array(value) else float(value)  # NaN for a masked item
            if isinstance(number, float | int):
                return number
    except (TypeError, ValueError, RuntimeError):  # a longer array, perhaps torch's
        pass
    raise InvalidValueType(call, "a number, or an array of one", f"{type(value).__name__}: {value!r:.80}")


def _at_most(value: Any, limit: float) -> Any:
    return limit if isinstance(value, int | float) and value > limit else value


def _default_log_dir(comment: str) -> str:
    return os.path.join("runs", f"{time.strftime('%b%d_%H-%M-%S')}_{socket.gethostname()}{comment}")
