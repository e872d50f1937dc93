"""Weights & Biases: every record as a row of a run, by the real SDK in a process of its own.

| Here | At W&B |
| --- | --- |
| a record | one row of the history, in order; its step is the metric `asynctrack/step`, by which W&B draws all others: steps may repeat and come in any order |
| when it was logged | `_timestamp` |
| nested names | joined by `/`; `_step`, `_runtime`, `_timestamp`, `_wandb` and `asynctrack/step` get an underscore in front, and so does an empty name |
| NaN, the infinities | as they are; integers beyond 63 bits as floats |
| an array | a histogram of its finite values |
| an image, a table, a page or a long text | the SDK's own, from the files under `media/`; a long text as a page; an artifact is not sent |
| config, summary | config and summary; a later row of the same name goes over what the summary says, as it does with W&B |
| how the run ended | finished, failed, crashed, or preempted |

What a row cannot hold (None, empty dicts, integers beyond a float) is left out; a record of which nothing is left is skipped. A row of more than 10 MB is refused, since
W&B leaves it out without a word.

Each row arrives at least once, and in order. The SDK's `log` only hands a row to `wandb-core`, which may die with it; so a record counts as delivered when W&B says
that it has its row. When `wandb-core` or the process is killed, the run is opened again under its id, W&B says where it is, and only what it lacks is sent: a row is not repeated,
as far as W&B's server keeps to its own protocol, in which a row has a number and what comes a second time for a number takes its place. Whether it always does cannot be
seen from here; nor can what happens to a run that another process logs to at the same time, or what a person deletes there (then the whole run is sent again).
"""

from __future__ import annotations

from asynctrack.backends.base import Batch, Context, Sink
from asynctrack.backends.wandb.settings import WandBSettings


class WandB(WandBSettings, frozen=True, kw_only=True, tag="wandb"):
    """Every record as a row of a W&B run; its settings are those of `WandBSettings`.

    The key is wandb's own affair: `WANDB_API_KEY` in the environment, or what `wandb login` has stored. Without one, or with a wrong one, the backend pauses and says so.
    """

    def open(self, context: Context) -> Sink:
        from asynctrack.backends.wandb.sink import WandBSink

        if self.mode == "disabled":
            return _NullSink()
        sink = WandBSink(self, context)
        sink.begin()
        return sink


class _NullSink(Sink):
    """Takes everything and shows nothing: `mode="disabled"`."""

    def write(self, batch: Batch) -> dict[str, int]:
        return {"W&B is disabled": len(batch.records)} if batch.records else {}
