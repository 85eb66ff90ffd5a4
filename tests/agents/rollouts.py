"""Small policies whose every number is known, and rollouts for them."""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rl_runner.distributions import Categorical
from rl_runner.types import Rollout

TWO = Categorical([2])
SGD = partial(torch.optim.SGD, lr=0.1)


class Table(nn.Module):
    """Logits and a value for each discrete state, in double precision."""

    normalizer = None

    def __init__(self, logits: Any, values: Any = None) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits, dtype=torch.float64))
        values = [0.0] * len(logits) if values is None else values
        self.values = nn.Parameter(torch.tensor(values, dtype=torch.float64))

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        return self.logits[obs.long()], self.values[obs.long()]

    def policy(self, obs: Tensor) -> Tensor:
        return self.logits[obs.long()]

    def value(self, obs: Tensor) -> Tensor:
        return self.values[obs.long()]


def rollout(
    obs: Any,
    action: Any,
    reward: Any,
    terminal: Any,
    ended: Any = None,
    last_obs: Any = (0,),
    cut: Any = (),
    cut_obs: Any = (),
) -> Rollout:
    """Return a rollout of one environment, from lists over time."""
    column = [np.array(x)[:, None] for x in (obs, action)]
    flags = [np.array(x, dtype=bool)[:, None] for x in (terminal, terminal if ended is None else ended)]
    where = np.array([[t, 0] for t in cut], dtype=np.int64).reshape(-1, 2)
    return Rollout(
        *column,
        np.array(reward, dtype=np.float64)[:, None],
        *flags,
        last_obs=np.array(last_obs),
        cut_obs=np.array(cut_obs, dtype=np.int64),
        cut=where,
    )
