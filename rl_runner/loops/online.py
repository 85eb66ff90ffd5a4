"""The online loop: act, learn from that step at once, go on."""

from __future__ import annotations

import numpy as np

from rl_runner.envs.vector import EpisodicVectorEnv
from rl_runner.meter import Meter, grouped
from rl_runner.rng import generator_state, load_generator_state, load_torch_state, torch_state
from rl_runner.types import Array, BoolArray, Clock, IntArray, OnlineAgent, State, Train


class OnlineLoop:
    """Trains an agent on every step, once.

    The next action is chosen before the agent learns, so that methods which need it, such as SARSA, learn about what is
    then really done.

    Args:
        envs: the training environments.
        agent: acts and learns. It has no memory: its carry stays None.
        rng: the random stream of exploration.
    """

    done = False  # there is always more to learn

    def __init__(self, envs: EpisodicVectorEnv, agent: OnlineAgent, rng: np.random.Generator) -> None:
        self.envs, self.agent, self.rng = envs, agent, rng
        self.clock, self.meter = Clock(), Meter()
        self.action: IntArray = self._act(envs.reset(), envs.action_mask)  # (N,) to be done in the next step

    def step(self) -> None:
        """Take one step in every environment and learn from it."""
        self.envs.send(self.action)
        tr = self.envs.recv()
        self.clock = self.clock.plus(steps=self.envs.num_envs, updates=1, episodes=len(self.envs.finished))
        self.action = self._act(tr.next_obs, tr.next_action_mask)
        self.meter.add(self.agent.learn(tr, self.action))
        if tr.ended.any():
            self._begin_episodes(tr.ended)

    def _begin_episodes(self, mask: BoolArray) -> None:
        """Reset the environments in `mask` (N,) and choose their first action."""
        obs = self.envs.reset(mask)
        self.action = self.action.copy()  # the old one may have been kept, by the agent or a state
        allowed = None if self.envs.action_mask is None else self.envs.action_mask[mask]
        self.action[mask] = self._act(obs[mask], allowed)

    def _act(self, obs: Array, action_mask: BoolArray | None) -> IntArray:
        action, _ = self.agent.act(obs, None, Train(self.clock.steps, self.rng), action_mask)
        return action

    def scalars(self) -> dict[str, float]:
        """Return what happened since the last call: means over the updates, and where exploration stands."""
        learned = {**self.meter.drain(), "updates": self.clock.updates}
        return grouped(learn=learned, explore=self.agent.metrics(self.clock.steps))

    def state_dict(self) -> State:
        """Return everything that a step changes."""
        parts = {name: getattr(self, name).state_dict() for name in ("envs", "agent", "meter")}
        actor = {"rng": generator_state(self.rng)}
        return {**parts, "actor": actor, "action": self.action, "clock": vars(self.clock), "torch": torch_state()}

    def load_state_dict(self, state: State) -> None:
        """Restore it. Environments that are not deterministic begin a new episode."""
        for name in ("envs", "agent", "meter"):
            getattr(self, name).load_state_dict(state[name])
        load_generator_state(self.rng, state["actor"]["rng"])
        self.clock, self.action = Clock(**state["clock"]), state["action"]
        load_torch_state(state["torch"])
        if self.envs.lost.any():
            self._begin_episodes(self.envs.lost)
