"""A search for the best angle of a throw, shown by TensorBoard: python examples/summary_writer.py [log directory]

pip install asynctrack numpy tensorboard; then tensorboard --logdir runs
"""

import math
import random
import sys

import numpy

from asynctrack.integrations.tensorboard import SummaryWriter  # the one line; was torch.utils.tensorboard


def distance(angle):
    """Return the metres that a throw of 20 m/s goes, from 2 m above the ground."""
    up, along = 20 * math.sin(angle), 20 * math.cos(angle)
    return along * (up + math.sqrt(up * up + 2 * 9.81 * 2)) / 9.81


def search(writer, steps=2_000):
    """Climb: try angles near the best so far."""
    random.seed(0)
    best = angle = 0.1
    tried = []
    for step in range(steps):
        angle = best + random.gauss(0, 0.05)
        tried.append(angle)
        if distance(angle) > distance(best):
            best = angle
        writer.add_scalar("throw/distance", distance(angle), step)
        writer.add_scalars("angle", {"tried": angle, "best": best}, step)
        if step % 500 == 499:
            writer.add_histogram("angles", numpy.array(tried), step)
    writer.add_hparams({"speed": 20, "height": 2}, {"throw/best": distance(best)}, run_name="result")
    return best


if __name__ == "__main__":
    with SummaryWriter(sys.argv[1] if len(sys.argv) > 1 else "runs/throw") as writer:
        best = search(writer)
    print(f"{math.degrees(best):.1f} degrees, {distance(best):.2f} m; {writer.log_dir} has the curves")
