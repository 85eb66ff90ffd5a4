"""The online loop: act, learn from that step at once, go on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from rl_runner.actor import Actor
from rl_runner.envs.vector import EpisodicVectorEnv
from rl_runner.meter import Meter, grouped
from rl_runner.rng import load_torch_state, torch_state
from rl_runner.types import Agent, BoolArray, Clock, IntArray, State, Transition


class OnlineAgent(Agent, Protocol):
    """An agent that learns from each step as it happens, knowing what it will do next."""

    def learn(self, tr: Transition, next_action: IntArray) -> Mapping[str, Tensor]: ...  # (N,) -> scalars


class OnlineLoop:
    """Trains an agent on every step, once.

    The next action is chosen before the agent learns, so that methods which need it, such as SARSA, learn about what is
    then really done.

    Args:
        envs: the training environments.
        actor: chooses actions.
        agent: learns.
    """

    done = False  # there is always more to learn

    def __init__(self, envs: EpisodicVectorEnv, actor: Actor, agent: OnlineAgent) -> None:
        self.envs, self.actor, self.agent = envs, actor, agent
        self.clock, self.meter = Clock(), Meter()
        self.action: IntArray = actor(envs.reset(), 0, envs.action_mask)  # (N,) to be done in the next step

    def step(self) -> None:
        """Take one step in every environment and learn from it."""
        self.envs.send(self.action)
        tr = self.envs.recv()
        self.clock = self.clock.plus(steps=self.envs.num_envs, updates=1, episodes=len(self.envs.finished))
        self.action = self.actor(tr.next_obs, self.clock.steps, tr.next_action_mask)
        self.meter.add(self.agent.learn(tr, self.action))
        if tr.ended.any():
            self._begin_episodes(tr.ended)

    def _begin_episodes(self, mask: BoolArray) -> None:
        """Reset the environments in `mask` (N,) and choose their first action."""
        obs = self.envs.reset(mask)
        self.action = self.action.copy()  # the old one may have been kept, by the agent or a state
        allowed = None if self.envs.action_mask is None else self.envs.action_mask[mask]
        self.action[mask] = self.actor(obs[mask], self.clock.steps, allowed)

    def scalars(self) -> dict[str, float]:
        """Return what happened since the last call: means over the updates, and where exploration stands."""
        learned = {**self.meter.drain(), "updates": self.clock.updates}
        return grouped(learn=learned, explore=self.actor.metrics(self.clock.steps))

    def state_dict(self) -> State:
        """Return everything that a step changes."""
        parts = {name: getattr(self, name).state_dict() for name in ("envs", "actor", "agent", "meter")}
        return {**parts, "action": self.action, "clock": vars(self.clock), "torch": torch_state()}

    def load_state_dict(self, state: State) -> None:
        """Restore it. Environments that are not deterministic begin a new episode."""
        for name in ("envs", "actor", "agent", "meter"):
            getattr(self, name).load_state_dict(state[name])
        self.clock, self.action = Clock(**state["clock"]), state["action"]
        load_torch_state(state["torch"])
        if self.envs.lost.any():
            self._begin_episodes(self.envs.lost)
