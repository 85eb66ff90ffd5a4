"""The off-policy loop: collect, store, sample, learn, sync."""

from __future__ import annotations

import numpy as np

from rl_runner.envs.vector import EpisodicVectorEnv
from rl_runner.meter import Meter, grouped, learning
from rl_runner.replay.replay import Replay
from rl_runner.rng import generator_state, load_generator_state, load_torch_state, torch_state
from rl_runner.schedules import Every
from rl_runner.types import Array, Carry, Clock, ReplayAgent, State, Train, UserError


class ReplayLoop:
    """Trains an agent from a replay memory.

    Args:
        envs: the training environments.
        agent: acts and learns.
        replay: remembers.
        rng: the random stream of exploration.
        batch_size: transitions per update.
        learning_starts: steps to collect before the first update.
        learn_every: learn once per period, of steps or of episodes.
        updates_per_learn: gradient updates each time.
        overlap: learn while the environments take the step rather than after it, so that emulator threads and network
            work side by side; what the step gives can be replayed one step later.

    Raises:
        UserError: overlap, and a period of episodes: whether one ends is not known before the step is done.
    """

    done = False  # there is always more to learn

    def __init__(
        self,
        envs: EpisodicVectorEnv,
        agent: ReplayAgent,
        replay: Replay,
        rng: np.random.Generator,
        batch_size: int,
        learning_starts: int,
        learn_every: Every,
        updates_per_learn: int = 1,
        overlap: bool = False,
    ) -> None:
        if overlap and learn_every.unit == "episodes":
            raise UserError("overlap: must be false with learn_every_episodes: learning waits for the episode's end")
        self.envs, self.agent, self.replay, self.rng = envs, agent, replay, rng
        self.batch_size, self.learning_starts, self.learn_every = batch_size, learning_starts, learn_every
        self.updates_per_learn, self.overlap = updates_per_learn, overlap
        self.clock, self.meter = Clock(), Meter()
        self.obs: Array = envs.reset()  # (N, *O)
        self.carry: Carry | None = None

    def step(self) -> None:
        """Take one step in every environment and learn as much as is due."""
        mode = Train(self.clock.steps, self.rng)
        action, self.carry = self.agent.act(self.obs, self.carry, mode, self.envs.action_mask)  # collect
        self.envs.send(action)
        before, self.clock = self.clock, self.clock.plus(steps=self.envs.num_envs)
        self.agent.sync(before, self.clock)  # sync, if its period counts steps
        if self.overlap:
            self._learn(before)
        tr = self.envs.recv()
        self.replay.add(tr)  # store
        self._count_episodes()
        if not self.overlap:
            self._learn(before)
        self.obs = tr.next_obs
        if tr.ended.any():
            self.obs, self.carry = self.envs.reset(tr.ended), Carry.begin(self.carry, tr.ended)

    def _learn(self, before: Clock) -> None:
        """Do the updates that are due since the clock stood at `before`."""
        if self.replay.added < max(self.learning_starts, 1):
            return
        for _ in range(self.learn_every.crossings(before, self.clock) * self.updates_per_learn):
            batch = self.replay.sample(self.batch_size)  # sample
            out = self.agent.learn(batch)  # learn
            self.meter.add(out.metrics)
            self.replay.update(batch.ids, out.priority)
            last, self.clock = self.clock, self.clock.plus(updates=1)
            self.agent.sync(last, self.clock)  # sync

    def _count_episodes(self) -> None:
        if self.envs.finished:
            last, self.clock = self.clock, self.clock.plus(episodes=len(self.envs.finished))
            self.agent.sync(last, self.clock)  # sync, if its period counts episodes

    def scalars(self) -> dict[str, float]:
        """Return what happened since the last call: means over the updates, and where exploration and replay stand.

        Raises:
            UserError: a loss that is not finite; nothing that is learned after it is worth having.
        """
        learned = {**learning(self.meter, self.agent, self.clock.updates), **self.replay.metrics()}
        return grouped(learn=learned, explore=self.agent.metrics(self.clock.steps))

    def state_dict(self) -> State:
        """Return everything that a step changes."""
        parts = {name: getattr(self, name).state_dict() for name in ("envs", "agent", "replay", "meter")}
        actor = {"rng": generator_state(self.rng), "carry": None if self.carry is None else vars(self.carry)}
        return {**parts, "actor": actor, "clock": vars(self.clock), "torch": torch_state()}

    def load_state_dict(self, state: State) -> None:
        """Restore it. Without a saved replay the memory stays empty and is filled again before learning resumes."""
        for name in ("agent", "meter"):
            getattr(self, name).load_state_dict(state[name])
        load_generator_state(self.rng, state["actor"]["rng"])
        carry = state["actor"].get("carry")  # older checkpoints do not have it
        self.carry = None if carry is None else Carry(**carry)
        self.clock = Clock(**state["clock"])
        load_torch_state(state["torch"])
        self.obs = self.envs.load_state_dict(state["envs"])
        if state["replay"] is None:  # frame stacks of episodes that had begun could not be rebuilt
            self.replay.step_offset = self.clock.steps
            self.obs, self.carry = self.envs.reset(), None
            return
        self.replay.load_state_dict(state["replay"])
        if self.envs.lost.any():  # not deterministic: what was begun there cannot be continued
            self.replay.cut(self.envs.lost)
            self.obs, self.carry = self.envs.reset(self.envs.lost), Carry.begin(self.carry, self.envs.lost)
