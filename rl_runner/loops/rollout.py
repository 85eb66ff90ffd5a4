"""The on-policy loop: collect a rollout, learn from it, forget it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor

from rl_runner.envs.vector import EpisodicVectorEnv
from rl_runner.exact.gradient import PolicyGradient
from rl_runner.meter import Meter, grouped, learning
from rl_runner.rng import generator_state, load_generator_state, load_torch_state, torch_state
from rl_runner.schedules import Every
from rl_runner.types import (
    Array,
    BoolArray,
    Carry,
    Clock,
    IntArray,
    Rollout,
    RolloutAgent,
    State,
    Train,
    Transition,
    UserError,
)

COSINE = "policy_gradient_cosine"


class RolloutLoop:
    """Trains an agent on what it just did.

    Args:
        envs: the training environments.
        agent: acts and learns.
        rng: the random stream of acting.
        steps: of each environment in a rollout; None: rollouts are whole episodes.
        episodes: in a rollout, if `steps` is None; then there is one environment.
        reward_clip: learn from rewards clipped to [-x, x]; None: as they are.

    Raises:
        UserError: rollouts of whole episodes and several environments, or of steps and an agent that needs episodes.

    Attributes:
        gradient: the exact gradient to compare the agent's with, where the dynamics are known.
        measure_every: how often this is done: in the first gradient step after each multiple of the period.
    """

    done = False  # there is always more to learn

    def __init__(
        self,
        envs: EpisodicVectorEnv,
        agent: RolloutAgent,
        rng: np.random.Generator,
        steps: int | None,
        episodes: int = 1,
        reward_clip: float | None = None,
    ) -> None:
        if steps is None and envs.num_envs > 1:
            raise UserError(f"env.num_envs: must be 1, because rollouts are whole episodes, got {envs.num_envs}")
        if steps is not None and getattr(agent, "whole_episodes", False):
            raise UserError(f"rollout_steps: must be null, because this agent learns from whole episodes, got {steps}")
        if getattr(agent, "episodes_in_pairs", False) and episodes % 2:
            raise UserError(
                f"rollout_episodes: must be even, because this agent plays pairs of episodes, got {episodes}"
            )
        self.envs, self.agent, self.rng = envs, agent, rng
        self.steps, self.episodes, self.reward_clip = steps, episodes, reward_clip
        self.clock, self.meter = Clock(), Meter()
        self.rollout: list[Transition] = []  # since the agent learned last
        self.carries: list[Carry | None] = []  # what the agent remembered before each of them
        self.gradient: PolicyGradient | None = None
        self.measure_every = Every(0)
        self.obs: Array = envs.reset()  # (N, *O)
        self.carry: Carry | None = None

    def step(self) -> None:
        """Take one step in every environment; learn if it completes a rollout."""
        mode = Train(self.clock.steps, self.rng)
        self.carries.append(self.carry)
        action, self.carry = self.agent.act(self.obs, self.carry, mode, self.envs.action_mask)  # collect
        self.envs.send(action)
        tr = self.envs.recv()
        self.rollout.append(tr)
        self.clock = self.clock.plus(steps=self.envs.num_envs, episodes=len(self.envs.finished))
        if self._complete():
            self._learn()
        self.obs = tr.next_obs
        if tr.ended.any():
            self.obs, self.carry = self.envs.reset(tr.ended), Carry.begin(self.carry, tr.ended)

    def _complete(self) -> bool:
        if self.steps is not None:
            return len(self.rollout) >= self.steps
        return bool(self.envs.finished) and sum(tr.ended[0] for tr in self.rollout) >= self.episodes

    def _learn(self) -> None:
        before = replace(self.clock, steps=self.clock.steps - len(self.rollout) * self.envs.num_envs)
        if self.gradient is not None and self.measure_every.crossings(before, self.clock):
            self.agent.watch = self._compare  # type: ignore[attr-defined]
        rollout = joined(self.rollout, self.reward_clip)._replace(carries=[*self.carries, self.carry])
        self.rollout, self.carries = [], []
        # Schedules take the step at the end of the rollout, as in Stable-Baselines3. CleanRL takes that at its start.
        for metrics in self.agent.learn(rollout, self.clock.steps):  # learn
            self.meter.add(metrics)
            self.clock = self.clock.plus(updates=1)

    def _compare(self, policy_loss: Tensor) -> None:
        """Add the cosine between the agent's gradient and the exact one to the means."""
        assert self.gradient is not None
        cosine = self.gradient.cosine(policy_loss)
        if cosine is not None:
            self.meter.add({COSINE: cosine})

    def scalars(self) -> dict[str, float]:
        """Return what happened since the last call: means over the updates, and how the agent explores.

        Raises:
            UserError: a loss that is not finite; nothing that is learned after it is worth having.
        """
        learned = learning(self.meter, self.agent, self.clock.updates)
        exact = {COSINE: learned.pop(COSINE)} if COSINE in learned else {}
        return grouped(learn=learned, explore=self.agent.metrics(self.clock.steps), exact=exact)

    def state_dict(self) -> State:
        """Return everything that a step changes, the unfinished rollout included."""
        parts = {name: getattr(self, name).state_dict() for name in ("envs", "agent", "meter")}
        carry, *carries = (None if carry is None else vars(carry) for carry in (self.carry, *self.carries))
        actor = {"rng": generator_state(self.rng), "carry": carry, "carries": carries}
        rollout = [tr._asdict() for tr in self.rollout]
        return {**parts, "actor": actor, "rollout": rollout, "clock": vars(self.clock), "torch": torch_state()}

    def load_state_dict(self, state: State) -> None:
        """Restore it. Environments that are not deterministic begin a new episode, and their steps end there."""
        for name in ("agent", "meter"):
            getattr(self, name).load_state_dict(state[name])
        load_generator_state(self.rng, state["actor"]["rng"])
        carries = state["actor"].get("carries", [None] * len(state["rollout"]))  # older checkpoints do not have it
        self.carry, *self.carries = (
            None if carry is None else Carry(**carry) for carry in (state["actor"]["carry"], *carries)
        )
        self.clock = Clock(**state["clock"])
        load_torch_state(state["torch"])
        self.rollout = [Transition(**tr) for tr in state["rollout"]]
        self.obs = self.envs.load_state_dict(state["envs"])
        lost = self.envs.lost
        if lost.any():  # not deterministic: what was begun there cannot be continued
            if self.rollout:
                last = self.rollout[-1]
                self.rollout[-1] = last._replace(truncated=last.truncated | (lost & ~last.terminated))
            elif cut := getattr(self.agent, "cut", None):  # an agent of the user's own may have none
                cut(lost)
            self.obs, self.carry = self.envs.reset(lost), Carry.begin(self.carry, lost)


def joined(steps: list[Transition], reward_clip: float | None = None) -> Rollout:
    """Return T steps as a rollout.

    Args:
        steps: in order.
        reward_clip: clip rewards to [-x, x]; None: leave them.
    """
    reward = np.stack([tr.reward for tr in steps])
    ended = np.stack([tr.ended for tr in steps])
    terminal = np.stack([tr.terminal for tr in steps])
    inside = ended & ~terminal
    inside[-1] = False  # the successors of the last row are there anyway
    cut = np.argwhere(inside)
    cut_obs = [steps[t].next_obs[i] for t, i in cut]
    last_obs = steps[-1].next_obs
    action_mask, end_mask = _masks(steps, cut)
    return Rollout(
        obs=np.stack([tr.obs for tr in steps]),
        action=np.stack([tr.action for tr in steps]),
        reward=reward if reward_clip is None else reward.clip(-reward_clip, reward_clip),
        terminal=terminal,
        ended=ended,
        last_obs=last_obs,
        cut_obs=np.stack(cut_obs) if cut_obs else last_obs[:0],
        cut=cut,
        action_mask=action_mask,
        end_mask=end_mask,
    )


def _masks(steps: list[Transition], cut: IntArray) -> tuple[BoolArray | None, BoolArray | None]:
    """Return the masks of allowed actions of the rows (T, N, A), and of the other successors (N + K, A).

    Before an environment reports its first mask, all actions are allowed.

    Args:
        steps: in order.
        cut: (K, 2) step and environment of the successors other than the last ones.
    """
    masks = [mask for tr in steps for mask in (tr.action_mask, tr.next_action_mask)]
    known = next((mask for mask in masks if mask is not None), None)
    if known is None:
        return None, None
    now, after = (
        np.stack([np.ones_like(known) if mask is None else mask for mask in half]) for half in (masks[::2], masks[1::2])
    )
    return now, np.concatenate([after[-1], after[tuple(cut.T)]])
