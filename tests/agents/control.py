"""Small networks and batches for agents with continuous actions."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

from rl_runner.networks.actors import ActionRange, Deterministic
from rl_runner.networks.control import ControlNetwork, Encoder
from rl_runner.replay.replay import Replay
from rl_runner.replay.samplers import Uniform
from rl_runner.replay.storage import RowStorage
from rl_runner.types import Batch, Clock, Transition

ONE = ActionRange(Box(-2, 2, (1,), np.float32))  # one number, scaled by 2
SGD = partial(torch.optim.SGD, lr=0.1)


class Stub(nn.Module):
    """What an agent needs of its network, with an actor and critics of the test's own."""

    normalizer = None

    def __init__(self, actor: nn.Module, critic: nn.Module) -> None:
        super().__init__()
        self.actor, self.critic = actor, critic

    def normalized(self, obs: Tensor) -> Tensor:
        return obs


def network(actor: Any = Deterministic, critics: int = 2, seed: int = 0, outputs: int = 1) -> ControlNetwork:
    torch.manual_seed(seed)
    return ControlNetwork(Box(-1, 1, (3,), np.float32), 1, outputs, Encoder, actor, (8, 8), critics)


def batch(obs: Any, action: Any, reward: Any, discount: Any, next_obs: Any, weight: Any = None) -> Batch:
    ones = [1.0] * len(reward)
    tensors = [torch.tensor(x) for x in (obs, action, reward, discount, next_obs, weight or ones)]
    return Batch(*tensors, ids=np.arange(len(reward)))


def random_batch(seed: int, n: int = 6) -> Batch:
    rng = np.random.default_rng(seed)
    shapes = ((n, 3), (n, 1), n, (n, 3))
    obs, action, reward, following = (torch.from_numpy(rng.normal(size=s).astype(np.float32)) for s in shapes)
    return Batch(obs, action, reward, torch.full((n,), 0.9), following, torch.ones(n), np.arange(n))


def value_of_endless_reward(agent: Any, terminated: bool, updates: int = 120) -> float:
    """Train on episodes of one step with reward 1 and discount 0.5; return the mean value that the critics learned.

    The observation never changes, and episodes end after one step. If that is a termination, the value is 1; if it is
    a truncation, the true successor goes on to be worth 1 + 0.5 + 0.25 + ... = 2.
    """
    storage = RowStorage(64, 1, (3,), np.float32, action_shape=(1,), action_dtype=np.float32)
    replay = Replay(storage, Uniform(64), 0.5, 1, None, np.random.default_rng(0), torch.device("cpu"))
    rng, same, no = np.random.default_rng(1), np.full((1, 3), 0.5, np.float32), np.zeros(1, np.bool_)
    for _ in range(30):
        action, ended = rng.uniform(-2, 2, (1, 1)).astype(np.float32), np.ones(1, np.bool_)
        replay.add(Transition(same, action, np.ones(1), ended & terminated, ended & (not terminated), no, same))
    clock = agent_clock()
    for _ in range(updates):
        agent.learn(replay.sample(16))
        agent.sync(*next(clock))
    action = torch.linspace(-1, 1, 5)[:, None]
    return float(agent.network.critic(torch.full((5, 3), 0.5), action).detach().mean())


def agent_clock() -> Iterator[tuple[Clock, Clock]]:
    """Pairs of clocks before and after each update."""
    count = 0
    while True:
        yield Clock(updates=count), Clock(updates=count + 1)
        count += 1
