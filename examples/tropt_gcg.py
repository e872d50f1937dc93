"""GCG looks for a trigger that makes a language model say something, with TROPT, tracked by asynctrack: python examples/tropt_gcg.py MODEL [steps]

pip install torch tropt asynctrack; Python 3.12 or newer
"""

import sys

from tropt.common import Targets
from tropt.loss import PrefillCELoss
from tropt.model.huggingface import LMHFModel
from tropt.optimizer import GCGOptimizer

from asynctrack.integrations.tropt import AsyncTracker


def optimize(model_name, tracker, steps=100):
    """Look for a trigger, the same each time."""
    model = LMHFModel(model_name, device="cpu", dtype="float32", use_prefix_cache=False)
    optimizer = GCGOptimizer(
        model, loss=PrefillCELoss(), tracker=tracker, seed=0, num_steps=steps, n_candidates=8, sample_topk=8
    )
    return optimizer.optimize_trigger(
        templates=["say {{OPTIMIZED_TRIGGER}} please"],
        initial_trigger="a b c",
        targets=Targets(target_response_strs=["yes"]),
    )


if __name__ == "__main__":
    tracker = AsyncTracker("gcg", backends=["jsonl", "tensorboard"])  # the one line
    result = optimize(sys.argv[1], tracker, steps=int(sys.argv[2]) if len(sys.argv) > 2 else 100)
    print(f"{result.best_loss:.4f} is the best loss; {tracker.run.path} has the run")
