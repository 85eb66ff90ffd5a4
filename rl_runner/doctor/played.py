"""Some steps of a saved agent: what its units and its action values are worth."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rl_runner.compute import on_device
from rl_runner.envs.vector import EpisodicVectorEnv
from rl_runner.types import Agent, Array, Carry, Evaluate, Transition, ValueAgent

STEPS = 2_000  # over all environments
SHOWN = 500  # observations that the units are shown, at least
ASTRAY = 0.3  # probability of random actions in a second walk, for observations off the agent's own path
FORGOTTEN = 0.05  # share of the return that the end of a cut episode may hide


class Played(NamedTuple):
    """What was seen.

    Attributes:
        observations: that the units were shown.
        dead: for each layer of rectified units the number of those that were 0 for all observations, and of all.
        values: (S,) largest action value of each state whose return is known; none: the agent has no action values.
        returns: (S,) discounted returns from these states on, of rewards as they are learned from.
        largest_reward: of absolute values, as they are learned from.
    """

    observations: int
    dead: dict[str, tuple[int, int]]
    values: Array
    returns: Array
    largest_reward: float


def play(agent: Agent, envs: EpisodicVectorEnv, mode: Evaluate, gamma: float, reward_clip: float | None) -> Played:
    """Play with an agent for some steps.

    Args:
        agent: trained.
        envs: fresh.
        mode: how it acts.
        gamma: discount per step.
        reward_clip: rewards are clipped to [-x, x] in learning; None: they are not.
    """
    clip = math.inf if reward_clip is None else reward_clip
    walk = list(_walk(agent, envs, mode, STEPS))
    astray = _walk(agent, envs, Evaluate(mode.rng, ASTRAY), STEPS)
    every = np.concatenate([tr.obs for tr, _ in walk] + [tr.obs for tr, _ in astray])
    shown = every[:: max(1, len(every) // SHOWN)]
    reward = np.stack([tr.reward.clip(-clip, clip) for tr, _ in walk])
    ends = (np.stack([tr.terminal for tr, _ in walk]), np.stack([tr.ended for tr, _ in walk]))
    returns, known = realised(reward, *ends, gamma)
    valued = isinstance(agent, ValueAgent)
    return Played(
        observations=len(shown),
        dead=dead_units(agent, shown, mode),
        values=np.stack([value for _, value in walk])[known] if valued else np.empty(0),
        returns=returns[known] if valued else np.empty(0),
        largest_reward=float(np.abs(reward).max()),
    )


def _walk(agent: Agent, envs: EpisodicVectorEnv, mode: Evaluate, steps: int) -> Iterator[tuple[Transition, Array]]:
    """Yield each step, and the largest action value (N,) before it; NaN if the agent has none."""
    obs, carry = envs.reset(), None
    value = np.full(envs.num_envs, math.nan)
    for _ in range(-(-steps // envs.num_envs)):
        if isinstance(agent, ValueAgent):
            value = _largest(agent, obs, envs.action_mask)
        action, carry = agent.act(obs, carry, mode, envs.action_mask)
        envs.send(action)
        tr = envs.recv()
        yield tr, value
        obs = tr.next_obs
        if tr.ended.any():
            obs, carry = envs.reset(tr.ended), Carry.begin(carry, tr.ended)


def _largest(agent: ValueAgent, obs: Array, action_mask: Any) -> Array:
    """Return the largest action value (N,) among the actions that are allowed."""
    device = next((p.device for p in _network(agent).parameters()), torch.device("cpu"))
    q = agent.q_values(on_device(obs, device)).float().cpu().numpy()
    return np.asarray((q if action_mask is None else np.where(action_mask, q, -np.inf)).max(axis=1))


def realised(reward: Array, terminal: Array, ended: Array, gamma: float) -> tuple[Array, Array]:
    """Return the discounted returns (T, N) from each step on, and where they are known.

    A return is known up to a terminal step. Where an episode was cut, the states shortly before are left out.

    Args:
        reward: (T, N).
        terminal: (T, N) nothing comes after the step.
        ended: (T, N) the next row belongs to another episode.
        gamma: discount per step.
    """
    hidden = math.ceil(math.log(FORGOTTEN) / math.log(gamma)) if 0 < gamma < 1 else 0 if gamma == 0 else math.inf
    returns, known = np.zeros(reward.shape), np.zeros(reward.shape, dtype=np.bool_)
    later = np.zeros(reward.shape[1])
    left = np.zeros(reward.shape[1])  # steps until the return is cut; infinite: it is not
    for t in reversed(range(len(reward))):
        left = np.where(terminal[t], math.inf, np.where(ended[t], 0, left) + 1)
        later = reward[t] + gamma * np.where(terminal[t] | ended[t], 0.0, later)
        returns[t], known[t] = later, left >= hidden
    return returns, known


def dead_units(agent: Agent, obs: Array, mode: Evaluate) -> dict[str, tuple[int, int]]:
    """Return for each layer of rectified units how many were 0 for all observations (B, *O), and how many there are."""
    found: dict[str, tuple[int, int]] = {}
    with _watching(_network(agent), found):
        agent.act(obs, None, mode, None)
    return found


@contextlib.contextmanager
def _watching(network: nn.Module, found: dict[str, tuple[int, int]]) -> Iterator[None]:
    """Count dead units in the next pass through a network."""
    calls: Counter[str] = Counter()

    def watch(name: str) -> Any:
        def hook(module: nn.Module, given: Any, out: Tensor) -> None:
            if out.dim() not in (2, 4):  # (B, F) or (B, C, H, W)
                return
            alive = (out > 0).flatten(2).any(dim=2).any(dim=0) if out.dim() == 4 else (out > 0).any(dim=0)
            calls[name] += 1
            label = name if calls[name] == 1 else f"{name} ({calls[name]})"
            found[label] = int((~alive).sum()), len(alive)

        return hook

    layers = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.ReLU)]
    hooks = [module.register_forward_hook(watch(name)) for name, module in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _network(agent: Any) -> nn.Module:
    """Return the network by which an agent acts in evaluation, or an empty one."""
    network = getattr(agent, "acting", getattr(agent, "network", None))
    return network if isinstance(network, nn.Module) else nn.Module()
