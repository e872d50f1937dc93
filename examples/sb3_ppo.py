"""PPO learns CartPole with Stable-Baselines3, tracked by asynctrack: python examples/sb3_ppo.py [steps]

pip install torch stable-baselines3 asynctrack
"""

import sys

import torch
from stable_baselines3 import PPO

from asynctrack.integrations.stable_baselines3 import AsyncCallback


def make_model(**options):
    """Make a small agent, the same each time."""
    torch.set_num_threads(1)  # such a small net is faster on one
    return PPO("MlpPolicy", "CartPole-v1", n_steps=128, batch_size=64, n_epochs=2, seed=0, device="cpu", **options)


if __name__ == "__main__":
    track = AsyncCallback("ppo")  # the one line
    make_model().learn(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000, callback=track)
    print(f"{track.run.path} has the run")
