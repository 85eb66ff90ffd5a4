"""The exact policy gradient of an agent in known dynamics, and how well the agent's own gradient points along it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from rl_runner.exact.mdp import MDP, action_values, occupancy, policy_values, reachable, require_memory
from rl_runner.networks.layers import evaluating
from rl_runner.types import Distribution


class PolicyGradient:
    """The gradient of J = sum_s d0(s) V(s) by the parameters of a policy's network, computed from known dynamics.

    d0 is the distribution of the first state and V the policy's values, discounted, without a time limit. By the policy
    gradient theorem (Sutton & Barto 2018, section 13.2; with discount) the gradient is

        sum_s d(s) sum_a Q(s, a) grad pi(a|s)

    where d(s) is the sum over t of gamma^t P(s_t = s). Values and visits are solved for in double precision. No random
    stream is used, and no parameter and no `grad` changes.

    Args:
        mdp: the dynamics.
        network: has the policy: `policy` returns logits (S, A) of observations (S,).
        distribution: over actions; applies the masks of forbidden actions.
        gamma: the discount of J.
        first_state: the observation of state 0.

    Raises:
        UserError: not enough memory for the states.
    """

    def __init__(self, mdp: MDP, network: Any, distribution: Distribution, gamma: float, first_state: int = 0) -> None:
        require_memory(mdp)
        self.mdp, self.network, self.distribution, self.gamma = mdp, network, distribution, gamma
        self._parameters = list(network.parameters())
        device = self._parameters[0].device
        self._states = torch.arange(len(mdp.start), device=device) + first_state  # (S,) as observations
        self._seen = reachable(mdp)  # (S,)
        self._allowed = None  # (S, A)
        if mdp.acts_as is not None:
            self._allowed = torch.from_numpy(mdp.acts_as == np.arange(mdp.acts_as.shape[1])).to(device)

    def __call__(self) -> Tensor:
        """Return the gradient (P,) by all P numbers of the network; those that only a value depends on have 0."""
        with evaluating(self.network):  # for torsos of the user's own, with dropout for example
            logits = self.distribution.masked(self.network.policy(self._states), self._allowed)
        policy = logits.cpu().double().softmax(dim=1)  # (S, A)
        fixed = policy.detach().numpy()
        values = np.where(self._seen, policy_values(self.mdp, fixed, self.gamma), 0.0)
        with np.errstate(invalid="ignore"):  # an infinite value times a probability of 0
            weight = occupancy(self.mdp, fixed, self.gamma)[:, None] * action_values(self.mdp, values, self.gamma)
        return self._by_parameters((torch.from_numpy(weight) * policy).sum())

    def cosine(self, policy_loss: Tensor) -> Tensor | None:
        """Return the cosine between this gradient and the direction in which a loss is made smaller.

        Args:
            policy_loss: of the policy as it is now, a scalar; a gradient step on it can still be done afterwards.

        Returns:
            a scalar in double precision; None where it is not defined, because one of the two gradients is 0 or J is
            infinite.
        """
        exact, sampled = self(), -self._by_parameters(policy_loss)
        cosine = exact @ sampled / (exact.norm() * sampled.norm())
        return cosine.clamp(-1.0, 1.0) if bool(cosine.isfinite()) else None

    def _by_parameters(self, scalar: Tensor) -> Tensor:
        """Return the gradient (P,) of a scalar, in double precision, and keep its graph."""
        grads = torch.autograd.grad(
            scalar, self._parameters, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return torch.cat([grad.cpu().double().ravel() for grad in grads])
