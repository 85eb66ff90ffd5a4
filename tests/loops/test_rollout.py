"""The on-policy loop: what a rollout holds, when the agent learns, and an interruption that leaves no trace."""

from typing import Any

import numpy as np
import pytest
import torch

from rl_runner import rng
from rl_runner.agents.a2c import A2C
from rl_runner.loops.rollout import RolloutLoop, joined
from rl_runner.schedules import Every
from rl_runner.types import Transition, UserError
from tests.agents.rollouts import SGD, TWO, Table


class Recorder:
    """Stands in for environments and agent. Observation and action are the time since the start.

    Environment 0's episodes are cut short after three steps, those of the last one end after four.
    """

    action_mask = None

    def __init__(self, num_envs: int) -> None:
        self.num_envs, self.t, self.finished = num_envs, 0, []
        self.ages, self.learned = np.zeros(num_envs, dtype=int), []

    def reset(self, mask: Any = None) -> Any:
        self.ages[slice(None) if mask is None else mask] = 0
        self.obs = np.full(self.num_envs, self.t) if mask is None else np.where(mask, -self.t, self.obs)
        return self.obs

    def send(self, action: Any) -> None:
        self.action = action

    def recv(self) -> Transition:
        self.t += 1
        self.ages += 1
        before, self.obs = self.obs, np.full(self.num_envs, self.t)
        truncated, terminated = np.zeros((2, self.num_envs), dtype=bool)
        truncated[0] = self.ages[0] == 3
        terminated[-1] |= self.ages[-1] == 4
        self.finished = [None] * int((truncated | terminated).sum())
        reward = np.full(self.num_envs, 10.0 * self.t)
        return Transition(before, self.action, reward, terminated, truncated, terminated & False, self.obs)

    def act(self, obs: Any, carry: Any, mode: Any, action_mask: Any = None) -> Any:
        return np.full(self.num_envs, mode.step // self.num_envs), None

    def learn(self, rollout: Any, step: int) -> Any:
        self.learned.append((step, rollout))
        yield from [{}, {}]  # two updates


def run(num_envs: int, calls: int, **settings: Any) -> tuple[Recorder, RolloutLoop]:
    both = Recorder(num_envs)
    loop = RolloutLoop(both, both, rng.generator(0, "actor"), **settings)
    for _ in range(calls):
        loop.step()
    return both, loop


def test_rollouts_follow_each_other_without_gap():
    both, loop = run(2, 11, steps=5)
    assert [step for step, _ in both.learned] == [10, 20]
    assert loop.clock.steps == 22
    assert loop.clock.updates == 4
    assert loop.clock.episodes == 3 + 2
    first, second = (rollout for _, rollout in both.learned)
    assert first.action.tolist() == [[t, t] for t in range(5)]
    assert second.action.tolist() == [[t, t] for t in range(5, 10)]
    assert first.reward.tolist() == [[10.0 * t] * 2 for t in range(1, 6)]


def test_successors_are_the_true_ones_and_not_the_next_episodes_first():
    both, _ = run(2, 10, steps=5)
    first, second = (rollout for _, rollout in both.learned)
    # Environment 0 is cut short at times 3, 6 and 9, environment 1 terminates at 4 and 8.
    assert first.obs.tolist() == [[0, 0], [1, 1], [2, 2], [-3, 3], [4, -4]]
    assert first.ended.tolist() == [[0, 0], [0, 0], [1, 0], [0, 1], [0, 0]]
    assert first.terminal.tolist() == [[0, 0], [0, 0], [0, 0], [0, 1], [0, 0]]
    assert first.cut.tolist() == [[2, 0]]
    assert first.cut_obs.tolist() == [3]
    assert first.last_obs.tolist() == [5, 5]
    assert second.cut.tolist() == [[0, 0], [3, 0]]
    assert second.cut_obs.tolist() == [6, 9]


def test_at_the_last_row_the_true_successor_is_the_last_observation():
    both, _ = run(1, 3, steps=3)
    (_, rollout), *_ = both.learned
    assert rollout.ended.tolist() == [[False], [False], [True]]
    assert rollout.cut.tolist() == []
    assert rollout.last_obs.tolist() == [3]


def test_whole_episodes():
    both, _ = run(1, 13, steps=None, episodes=2)
    assert [step for step, _ in both.learned] == [6, 12]
    assert both.learned[0][1].ended[:, 0].tolist() == [False, False, True] * 2


def test_whole_episodes_need_one_environment():
    with pytest.raises(UserError, match=r"^env.num_envs: must be 1, because rollouts are whole episodes, got 2"):
        run(2, 0, steps=None)


def test_clipped_rewards():
    both, _ = run(1, 2, steps=2, reward_clip=15.0)
    assert both.learned[0][1].reward.tolist() == [[10.0], [15.0]]


def test_masks_are_those_of_the_observations():
    one = np.zeros(1)
    steps = [
        Transition(one, one, one, one > 0, one > 0, one > 0, one, np.array([[True, False]]), np.array([[False, True]])),
        Transition(one, one, one, one > 0, one > 0, one > 0, one, np.array([[False, True]]), np.array([[True, True]])),
    ]
    assert joined(steps).action_mask.tolist() == [[[True, False]], [[False, True]]]


def test_before_an_environment_reports_its_first_mask_all_actions_are_allowed():
    one = np.zeros(1)
    first = Transition(one, one, one, one > 0, one > 0, one > 0, one, None, np.array([[False, True]]))
    second = first._replace(action_mask=np.array([[False, True]]))
    assert joined([first, second]).action_mask.tolist() == [[[True, True]], [[False, True]]]
    assert joined([first]).action_mask.tolist() == [[[True, True]]]
    assert joined([first]).end_mask.tolist() == [[False, True]]
    none = first._replace(next_action_mask=None)
    assert joined([none]).action_mask is None
    assert joined([none]).end_mask is None


def test_masks_of_the_other_successors_are_those_of_the_last_step_and_of_episodes_that_were_cut_short():
    """Two environments, one step in which the second one is cut short, and one in which neither is."""
    zero, no, yes = np.zeros(2), [True, False], [True, True]
    first = Transition(zero, zero, zero, zero > 0, np.array([False, True]), zero > 0, zero, None, np.array([yes, no]))
    last = first._replace(truncated=zero > 0, action_mask=np.array([yes, yes]), next_action_mask=np.array([no, yes]))
    assert joined([first, last]).cut.tolist() == [[0, 1]]
    assert joined([first, last]).end_mask.tolist() == [no, yes, no]


def test_an_environment_that_is_lost_between_two_rollouts_begins_a_new_scaled_return():
    """Rewards of 10 and gamma 0.5: the return of environment 0 goes on to 15, that of environment 1 begins again."""
    agent = A2C(Table([[0.0, 0.0]]), TWO, SGD, gamma=0.5, normalize_rewards=True)
    scale = agent.reward_scale
    assert scale is not None
    scale(np.full((1, 2), 10.0), np.zeros((1, 2), dtype=bool))
    both, loop = run(2, 0, steps=5)
    envs: Any = both
    envs.lost, envs.state_dict, envs.load_state_dict = np.array([False, True]), dict, lambda state: both.obs
    loop.agent = agent
    loop.load_state_dict(loop.state_dict())
    scale(np.full((1, 2), 10.0), np.zeros((1, 2), dtype=bool))
    assert scale.running.tolist() == [15.0, 10.0]


class Cosines:
    """Stands in for the exact gradient: the cosines that it returns, one for each update that is measured."""

    def __init__(self, *cosines: float | None) -> None:
        self.cosines, self.asked = list(cosines), []

    def cosine(self, policy_loss: Any) -> Any:
        self.asked.append(policy_loss)
        cosine = self.cosines.pop(0)
        return None if cosine is None else torch.tensor(cosine)


class Watched(Recorder):
    """Shows the number of steps as the loss of its policy."""

    watch: Any = None

    def learn(self, rollout: Any, step: int) -> Any:
        watch, self.watch = self.watch, None
        if watch is not None:
            watch(step)
        yield {}

    def metrics(self, step: int) -> Any:
        return {}


@pytest.mark.parametrize(("period", "asked"), [(0, []), (10, [12, 20]), (7, [8, 16, 24]), (1, [4, 8, 12, 16, 20, 24])])
def test_one_gradient_after_each_multiple_of_the_period_is_compared(period: int, asked: list[int]):
    """Two environments, rollouts of two steps."""
    both = Watched(2)
    loop = RolloutLoop(both, both, rng.generator(0, "actor"), steps=2)
    loop.gradient, loop.measure_every = Cosines(*[0.5] * 6), Every(period)
    for _ in range(12):
        loop.step()
    assert loop.gradient.asked == asked


def test_cosines_are_averaged_between_rows_and_left_out_where_there_is_none():
    both = Watched(1)
    loop = RolloutLoop(both, both, rng.generator(0, "actor"), steps=1)
    loop.gradient, loop.measure_every = Cosines(0.5, None, 0.25, None), Every(1)
    for _ in range(3):
        loop.step()
    name = "exact/policy_gradient_cosine"
    assert loop.scalars() == {"learn/updates": 3, name: 0.375}
    loop.step()
    assert name not in loop.scalars()
