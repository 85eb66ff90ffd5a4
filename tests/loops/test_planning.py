"""Planning as a run: a step is a sweep, the run is done when the plan is, and no environment is touched."""

import copy

import pytest
import torch

from rl_runner.agents.planning import PolicyIteration, ValueIteration
from rl_runner.envs.gym import GymBackend
from rl_runner.envs.vector import EpisodicVectorEnv
from rl_runner.loops.planning import PlanningLoop
from rl_runner.run import checkpoint
from rl_runner.types import Clock


class Sweeper:
    """An agent that converges in its third sweep."""

    sweeps = 0

    @property
    def converged(self):
        return self.sweeps >= 3

    def learn(self):
        self.sweeps += 1
        return {"bellman_error": torch.tensor(10.0 * self.sweeps)}


class Untouchable:
    """Environments that nobody may step."""

    def __getattr__(self, name):
        raise AssertionError(f"{name} was asked for")


def test_a_step_is_a_sweep_until_the_plan_is_perfect():
    envs, agent = Untouchable(), Sweeper()
    loop = PlanningLoop(envs, agent)
    assert (loop.envs, loop.agent) == (envs, agent)
    done = []
    for _ in range(3):
        done.append(loop.done)
        loop.step()
    assert done == [False, False, False]
    assert loop.done
    assert agent.sweeps == 3
    assert loop.clock == Clock(steps=3, updates=3, episodes=0)


def test_scalars_are_means_since_the_last_call():
    loop = PlanningLoop(Untouchable(), Sweeper())
    loop.step()
    loop.step()
    assert loop.scalars() == {"learn/bellman_error": 15.0, "learn/updates": 2}
    loop.step()
    assert loop.scalars() == {"learn/bellman_error": 30.0, "learn/updates": 3}


@pytest.mark.parametrize("make", [ValueIteration, PolicyIteration])
def test_an_interrupted_plan_goes_on_bit_for_bit(make, tmp_path):
    envs = EpisodicVectorEnv(GymBackend("FrozenLake-v1", 2, kwargs={"map_name": "8x8"}), 0, "train")
    mdp = envs.backend.mdp()
    loop, other = (PlanningLoop(envs, make(mdp, 0.9)) for _ in range(2))
    loop.step()
    loop.step()
    saved = loop.state_dict()
    before = copy.deepcopy(saved)
    checkpoint.save(tmp_path / "saved", saved, {})
    other.load_state_dict(checkpoint.load(tmp_path / "saved"))
    for each in (loop, other):
        while not each.done:
            each.step()
    assert other.clock == loop.clock
    assert other.scalars() == loop.scalars()
    assert torch.equal(other.agent.table, loop.agent.table)
    assert loop.clock.steps > 2
    assert saved["clock"] == before["clock"]
    assert torch.equal(saved["agent"]["table"], before["agent"]["table"])
    assert not envs.finished
    assert not envs.lost.any()
