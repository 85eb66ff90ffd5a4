"""The planning loop: sweep over the states until nothing changes."""

from __future__ import annotations

from rl_runner.envs.vector import EpisodicVectorEnv
from rl_runner.meter import Meter, grouped
from rl_runner.types import Clock, PlanningAgent, State


class PlanningLoop:
    """Lets an agent plan. No decision is taken in an environment, so here a step is a sweep over all states.

    Args:
        envs: the environments that the plan is for; they are never stepped.
        agent: plans.
    """

    def __init__(self, envs: EpisodicVectorEnv, agent: PlanningAgent) -> None:
        self.envs, self.agent = envs, agent
        self.clock, self.meter = Clock(), Meter()

    @property
    def done(self) -> bool:
        """The plan is perfect."""
        return self.agent.converged

    def step(self) -> None:
        """Do one sweep."""
        self.meter.add(self.agent.learn())
        self.clock = self.clock.plus(steps=1, updates=1)

    def scalars(self) -> dict[str, float]:
        """Return what happened since the last call: means over the sweeps."""
        return grouped(learn={**self.meter.drain(), "updates": self.clock.updates})

    def state_dict(self) -> State:
        """Return everything that a step changes."""
        return {"agent": self.agent.state_dict(), "meter": self.meter.state_dict(), "clock": vars(self.clock)}

    def load_state_dict(self, state: State) -> None:
        """Restore it."""
        self.agent.load_state_dict(state["agent"])
        self.meter.load_state_dict(state["meter"])
        self.clock = Clock(**state["clock"])
