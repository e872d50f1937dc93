"""`wandb.init(sync_tensorboard=True)`: what a writer of TensorBoard's is given is in the run that `init` opened, and in its own files as ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import records, run_child

pytestmark = pytest.mark.system

SCRIPT = """
import asynctrack.wandb as wandb
import json, sys
import numpy

writers, when = sys.argv[2:4]
if when == "before":
    __import__(writers)
run = wandb.init(project="ppo", dir=sys.argv[1] + "/runs", config={"lr": 0.1}, sync_tensorboard=True)
__import__(writers)
writer = sys.modules[writers].SummaryWriter(sys.argv[1] + "/board/first")
writer.add_text("hyperparameters", "|param|value|")
for step in (10, 20):
    writer.add_scalar("charts/return", step / 2, step)
    wandb.log({"own": step})
writer.add_histogram("weights", numpy.arange(10), 20)
writer.add_image("picture", numpy.zeros((3, 4, 5), "u1"), 20)
writer.close()
wandb.finish()
quiet = sys.modules[writers].SummaryWriter(sys.argv[1] + "/board/second")
quiet.add_scalar("charts/return", 7, 7)
quiet.close()
print(json.dumps(str(run.asynctrack.path)))
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("writers", ["asynctrack.integrations.tensorboard", "torch.utils.tensorboard", "tensorboardX"])
def test_what_a_writer_is_given_is_in_the_run(own_host: Path, tmp_path: Path, writers: str, when: str) -> None:
    pytest.importorskip("PIL")
    if not writers.startswith("asynctrack"):
        pytest.importorskip(writers.split(".")[0])
        pytest.importorskip("tensorboard" if "torch" in writers else writers)
    found = list(records(Path(run_child(SCRIPT, tmp_path, writers, when))))
    values: dict[str, list[Any]] = {}
    for record in found:
        for name, value in record.data.items():
            values.setdefault(name, []).append((record.step, value))
    assert values["charts/return"] == [(10, 5.0), (20, 10.0)]
    assert [value for _, value in values["own"]] == [10, 20]
    text, *_ = (value for name, value in values.items() if name.startswith("hyperparameters"))
    assert str(text[0][1]) == "|param|value|"
    assert {step for step, _ in values["global_step"]} == {0, 10, 20}
    assert (values["picture"][0][1].kind, values["picture"][0][1].meta["width"]) == ("image", 5)
    assert "weights" in values
    assert list((tmp_path / "board" / "first").glob("events*"))
