"""Weights & Biases: send every record as a row of a run, by the real SDK in a process of its own.

| Here | At W&B |
| --- | --- |
| a record | one row of the history, in order; its step is the metric `asynctrack/step`, by which W&B draws all others: steps may repeat and come in any order |
| its time | `_timestamp` |
| nested names | joined by `/`; `_step`, `_runtime`, `_timestamp`, `_wandb` and `asynctrack/step` get an underscore in front, and so does an empty name |
| NaN, the infinities | as they are; integers beyond 63 bits as floats |
| an array | a histogram of its finite values |
| an image, a table, a page or a long text | the SDK's own, from the files under `media/`; a long text as a page; an artifact is not sent |
| config, summary | config and summary; a later row of the same name replaces the summary's value, as it does with W&B |
| how the run ended | finished, failed, crashed, or preempted |

Of a run of several writers W&B gets the rows of rank 0, or of the process that opened it: `writers="owner"`. With
`writers="split"` each writer has a W&B run, `ID-rank3`, and all of them are in one group: `group`, or the owner's id.

Values that no row can hold (None, empty dicts, integers beyond a float) are left out; a record without any other value
is skipped. A row of more than 10 MB is refused, since W&B would leave it out silently.

Each row arrives at least once, and in order. The SDK's `log` only hands a row to `wandb-core`, and the row may be lost
if that dies. So a record counts as delivered only when W&B reports its row. When `wandb-core` or the process is killed,
the run is opened again under its id. W&B then reports how many rows it has, and only the others are sent.

No row is repeated as long as W&B's server keeps to its own protocol: rows are numbered, and a second row with the same
number replaces the first. This package cannot check that the server always does so. It cannot protect a run that
another process logs to at the same time. After a person has deleted rows there, the whole run is sent again.
"""

from __future__ import annotations

from asynctrack.backends.base import Batch, Context, Sink
from asynctrack.backends.wandb.settings import WandBSettings


class WandB(WandBSettings, frozen=True, kw_only=True, tag="wandb"):
    """Sends every record as a row of a W&B run; its settings are those of `WandBSettings`.

    wandb itself finds the key: in `WANDB_API_KEY` in the environment, or where `wandb login` has stored it. Without a
    key, or with a wrong one, the backend pauses and says so.
    """

    def open(self, context: Context) -> Sink:
        """Open the run at W&B.

        Raises:
            Retry: W&B cannot be reached now.
            ActionRequired: wandb or a key is missing, or W&B refuses the run.
            Resend: W&B has fewer rows than it had.
        """
        from asynctrack.backends.wandb.sink import WandBSink

        if self.mode == "disabled":
            return _NullSink()
        sink = WandBSink(self.of_writer(context), context)
        sink.begin()
        return sink


class _NullSink(Sink):
    """Takes everything and shows nothing: `mode="disabled"`."""

    def write(self, batch: Batch) -> dict[str, int]:
        return {"W&B is disabled": len(batch.records)} if batch.records else {}
