"""DQN learns CartPole with Tianshou, tracked by asynctrack: python examples/tianshou_dqn.py [log directory]

pip install torch tianshou asynctrack
"""

import sys

import gymnasium
import numpy
import torch
from tianshou.algorithm import DQN
from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, CollectStats, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OffPolicyTrainerParams
from tianshou.utils.net.common import Net

from asynctrack.integrations.tianshou import AsyncLogger


def train(logger, epochs=2, **options):
    """Train from scratch, the same each time."""
    numpy.random.seed(0)
    torch.manual_seed(0)
    torch.set_num_threads(1)  # such a small net is faster on one
    env = gymnasium.make("CartPole-v1")
    envs = [DummyVectorEnv([lambda: gymnasium.make("CartPole-v1")] * 2) for _ in range(2)]
    for seed, vector in enumerate(envs):
        vector.seed(seed)
    policy = DiscreteQLearningPolicy(
        model=Net(state_shape=env.observation_space.shape, action_shape=env.action_space.n, hidden_sizes=[32]),
        action_space=env.action_space,
        observation_space=env.observation_space,
        eps_training=0.1,
    )
    algorithm = DQN(policy=policy, optim=AdamOptimizerFactory(lr=1e-3), gamma=0.9, target_update_freq=100)
    training = Collector[CollectStats](algorithm, envs[0], VectorReplayBuffer(2000, 2), exploration_noise=True)
    test = Collector[CollectStats](algorithm, envs[1])
    training.reset()
    test.reset()
    return algorithm.run_training(
        OffPolicyTrainerParams(
            training_collector=training,
            test_collector=test,
            max_epochs=epochs,
            epoch_num_steps=500,
            collection_step_num_env_steps=10,
            test_step_num_episodes=2,
            batch_size=32,
            logger=logger,
            show_progress=False,
            verbose=False,
            **options,
        )
    )


if __name__ == "__main__":
    log_dir = sys.argv[1] if len(sys.argv) > 1 else "log/dqn"
    logger = AsyncLogger(log_dir, training_interval=100, update_interval=10)  # the one line
    result = train(logger)
    logger.finalize()
    print(f"{result.best_reward:.0f} is the best reward; {logger.run.path} has the run")
