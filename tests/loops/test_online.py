"""The online loop acts and learns in the textbook's order, and an interruption leaves no trace."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch

from rl_runner import rng
from rl_runner.agents.tabular import QLearning, Sarsa
from rl_runner.envs.gym import GymBackend
from rl_runner.envs.vector import EpisodicVectorEnv
from rl_runner.exploration import EpsilonGreedy
from rl_runner.loops.online import OnlineLoop
from rl_runner.run import checkpoint
from rl_runner.types import Clock, Transition


class Recorder:
    """Stands in for environments and agent, and writes down what is asked of it.

    Observations are the time, -1 at the very start, -100 after later resets; the action is always the observation.
    """

    action_mask = None

    def __init__(self, num_envs, episode_length):
        self.num_envs, self.episode_length = num_envs, episode_length
        self.calls, self.learned, self.finished = [], [], []
        self.obs = np.full(num_envs, -1)
        self.t = 0

    # environments
    def reset(self, mask=None):
        self.calls.append("reset" if mask is None else f"reset{mask.astype(int).tolist()}")
        return self.obs if mask is None else np.where(mask, -100, self.obs)

    def send(self, action):
        self.calls.append(f"send{action.tolist()}")
        self.action = action

    def recv(self):
        self.t += 1
        before, self.obs = self.obs, np.full(self.num_envs, self.t)
        over, no = np.zeros(self.num_envs, dtype=bool), np.zeros(self.num_envs, dtype=bool)
        over[-1] = self.t % self.episode_length == 0  # only the last environment's episodes end
        self.finished = [0] if over[-1] else []
        return Transition(before, self.action, np.ones(self.num_envs, np.float32), over, no, no, self.obs)

    # agent
    def act(self, obs, carry, mode, action_mask=None):
        self.calls.append(f"act@{mode.step}")
        return obs.copy(), None

    def metrics(self, step):
        return {"epsilon": 0.5 * step}

    def learn(self, tr, next_action):
        self.calls.append("learn")
        self.learned.append((tr, next_action))
        return {"td_error": torch.tensor(float(self.t))}


def recorded(num_envs=1, episode_length=1000):
    parts = Recorder(num_envs, episode_length)
    return OnlineLoop(parts, parts, np.random.default_rng(0)), parts


def test_the_textbooks_order():
    loop, parts = recorded()
    loop.step()
    loop.step()
    assert parts.calls == [
        *["reset", "act@0"],
        *["send[-1]", "act@1", "learn"],
        *["send[1]", "act@2", "learn"],  # what the agent learned about is what is then done
    ]
    assert [next_action.tolist() for _, next_action in parts.learned] == [[1], [2]]
    assert loop.clock == Clock(steps=2, updates=2, episodes=0)
    assert not loop.done


def test_an_ended_environment_alone_begins_anew_with_an_action_of_its_own():
    loop, parts = recorded(num_envs=3, episode_length=2)
    for _ in range(3):
        loop.step()
    assert parts.calls == [
        *["reset", "act@0"],
        *["send[-1, -1, -1]", "act@3", "learn"],
        *["send[1, 1, 1]", "act@6", "learn", "reset[0, 0, 1]", "act@6"],
        *["send[2, 2, -100]", "act@9", "learn"],
    ]
    tr, next_action = parts.learned[1]
    assert tr.terminated.tolist() == [False, False, True]
    assert next_action.tolist() == [2, 2, 2]  # what the agent was told stays as it was
    assert loop.clock == Clock(steps=9, updates=3, episodes=1)


def test_scalars_are_means_since_the_last_call():
    loop, _ = recorded(num_envs=2)
    for _ in range(3):
        loop.step()
    assert loop.scalars() == {"learn/td_error": 2.0, "learn/updates": 3, "explore/epsilon": 3.0}
    loop.step()
    assert loop.scalars() == {"learn/td_error": 4.0, "learn/updates": 4, "explore/epsilon": 4.0}


def frozenlake(make, num_envs=3, epsilon=0.3):
    envs = EpisodicVectorEnv(GymBackend("FrozenLake-v1", num_envs, kwargs={"max_episode_steps": 9}), 5, "train")
    agent = make(16, 4, 0.9, EpsilonGreedy(epsilon, epsilon, 0), initial=0.5)
    return OnlineLoop(envs, agent, rng.generator(5, "actor"))


def everything(loop):
    state = loop.state_dict()
    del state["torch"]  # nothing here draws from it
    return state


def assert_same(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif isinstance(a, (np.ndarray, torch.Tensor)):
        np.testing.assert_array_equal(a, b)
    else:
        assert a == b


@pytest.mark.parametrize("make", [QLearning, Sarsa])
@pytest.mark.parametrize("steps", [0, 7, 40])
def test_an_interrupted_run_goes_on_bit_for_bit(make, steps, tmp_path):
    loop, other = frozenlake(make), frozenlake(make)
    for _ in range(steps):
        loop.step()
    checkpoint.save(tmp_path / "saved", loop.state_dict(), {})
    other.load_state_dict(checkpoint.load(tmp_path / "saved"))
    assert_same(everything(other), everything(loop))
    before = loop.clock
    for _ in range(60):
        for each in (loop, other):
            each.step()
        assert other.envs.finished == loop.envs.finished
    assert_same(everything(other), everything(loop))
    assert other.scalars() == loop.scalars()
    assert loop.clock.episodes > before.episodes + 10


def test_random_numbers_of_torch_are_put_back_for_agents_that_draw_them():
    loop = frozenlake(QLearning)
    saved = copy.deepcopy(loop.state_dict())
    first = torch.rand(3)
    loop.load_state_dict(saved)
    assert torch.equal(torch.rand(3), first)


def test_what_was_saved_does_not_change_with_the_run():
    loop = frozenlake(QLearning)
    loop.step()
    saved = loop.state_dict()
    before = copy.deepcopy(saved)
    for _ in range(20):
        loop.step()
    assert_same(saved, before)


def test_an_environment_that_was_lost_begins_anew_and_the_others_go_on():
    loop, other = frozenlake(QLearning, epsilon=0.0), frozenlake(QLearning, epsilon=0.0)
    for _ in range(5):
        loop.step()
    state = copy.deepcopy(loop.state_dict())
    state["envs"]["digest"][1] = "what it never showed"
    state["action"] = np.array([3, 1, 2])
    state["agent"]["table"][0] = torch.tensor([0.0, 0.0, 9.0, 0.0])  # the best at the start is action 2
    other.load_state_dict(state)
    assert other.action.tolist() == [3, 2, 2]
    assert state["action"].tolist() == [3, 1, 2]
    lengths = other.envs.state_dict()["length"].tolist()
    assert lengths[1] == 0
    assert [lengths[0], lengths[2]] == [state["envs"]["length"][0], state["envs"]["length"][2]]
    other.step()
    assert [log[-1] for log in other.envs._log] == [3, 2, 2]


def test_what_sarsa_learns_about_is_what_it_then_does():
    loop, seen = frozenlake(Sarsa), []

    class Spy(Sarsa):
        def learn(self, tr, next_action):
            seen.append((tr, next_action.copy()))
            return super().learn(tr, next_action)

    loop.agent = Spy(16, 4, 0.9, EpsilonGreedy(0.3, 0.3, 0))
    for _ in range(100):
        loop.step()
    others = 0
    for (tr, next_action), (after, _) in pairwise(seen):
        on = ~tr.ended
        np.testing.assert_array_equal(after.obs[on], tr.next_obs[on])
        np.testing.assert_array_equal(after.action[on], next_action[on])
        assert (after.obs[~on] == 0).all()
        others += int((after.action[~on] != next_action[~on]).sum())
    assert others  # a new episode's first action is its own
