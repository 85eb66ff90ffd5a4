"""`EpisodicVectorEnv` over a backend made of arithmetic. Resume over real environments: test_gym.py, test_atari.py."""

from __future__ import annotations

import copy
import zlib
from itertools import pairwise

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from rl_runner.envs.vector import Died, EpisodicVectorEnv, Step
from rl_runner.types import UserError


class Toy:
    """Episodes that are plain functions of (seed, actions), and that complain where the contract is broken.

    `haunted`: environments whose observations depend on how often the process has stepped, too.
    """

    name, stack, fps, protocol = "toy", 1, 30.0, {}
    action_mask, normalized, notes = None, False, ()

    def __init__(self, num_envs, haunted=(), action_shape=()):
        self.num_envs, self.haunted = num_envs, haunted
        self.observation_space = Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = Box(-1, 1, action_shape, np.float32) if action_shape else Discrete(3)
        self.seeds = [None] * num_envs
        self.actions = [[] for _ in range(num_envs)]
        self.over = [True] * num_envs
        self.ghost = 0
        self.log = []

    def reset(self, mask, seeds):
        assert mask.dtype == np.bool_
        assert len(seeds) == self.num_envs
        self.log.append(("reset", tuple(np.flatnonzero(mask).tolist())))
        for i in np.flatnonzero(mask):
            assert isinstance(seeds[i], int)
            self.seeds[i], self.actions[i], self.over[i] = seeds[i], [], False
        return self._obs()

    def send(self, action):
        assert not any(self.over), "an ended environment was stepped"
        assert action.shape == (self.num_envs, *self.action_space.shape)
        self.log.append(("send",))
        for i in range(self.num_envs):
            self.actions[i].append(action[i].tolist())

    def recv(self):
        self.ghost += 1
        length = np.array([len(a) for a in self.actions])
        terminated = length == [3 + s % 9 for s in self.seeds]
        truncated = length == [5 + s % 7 for s in self.seeds]
        self.over = (terminated | truncated).tolist()
        reward = np.array([(s % 5) * 100 + n for s, n in zip(self.seeds, length, strict=True)], dtype=np.float64)
        return Step(self._obs(), reward, terminated, truncated, np.zeros(self.num_envs, np.bool_))

    def _obs(self):
        key = [zlib.crc32(repr((s, a)).encode()) % 10_000 for s, a in zip(self.seeds, self.actions, strict=True)]
        ghost = [self.ghost if i in self.haunted else 0 for i in range(self.num_envs)]
        return np.stack([key, ghost], axis=1).astype(np.float32)

    def frames(self):
        return []

    def close(self):
        self.log.append(("close",))


def actions_for(envs, rng):
    space = envs.action_space
    if isinstance(space, Discrete):
        return rng.integers(space.n, size=envs.num_envs)
    return rng.uniform(-1, 1, (envs.num_envs, *space.shape)).astype(np.float32)


def run(envs, rng, steps, obs):
    """Step with random actions; give all transitions, the episodes that finished, and the last observation."""
    transitions, episodes = [], []
    for _ in range(steps):
        envs.send(actions_for(envs, rng))
        tr = envs.recv()
        transitions.append(copy.deepcopy(tr))
        episodes += copy.deepcopy(envs.finished)
        obs = envs.reset(tr.ended) if tr.ended.any() else tr.next_obs
    return transitions, episodes, obs


def assert_same_transitions(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        for x, y in zip(a[:7], b[:7], strict=True):  # without masks of actions
            np.testing.assert_array_equal(x, y)


def test_every_episode_of_every_environment_and_stream_and_run_has_a_seed_of_its_own():
    seen = []
    for seed in (0, 1, 2):
        for stream in ("train", "eval"):
            envs = EpisodicVectorEnv(Toy(3), seed, stream)
            _, episodes, _ = run(envs, np.random.default_rng(0), 60, envs.reset())
            seen += [e.seed for e in episodes]
    assert len(seen) > 100
    assert len(set(seen)) == len(seen)


def test_seed_zero_is_a_seed_and_gives_the_same_run_again():
    runs = []
    for _ in range(2):
        envs = EpisodicVectorEnv(Toy(2), 0, "train")
        runs.append(run(envs, np.random.default_rng(0), 40, envs.reset()))
    assert_same_transitions(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]


def test_an_episodes_seed_depends_on_its_number_and_environment_and_not_on_how_many_environments_there_are():
    by_count = []
    for num_envs in (1, 2, 5):
        envs = EpisodicVectorEnv(Toy(num_envs), 3, "train")
        _, episodes, _ = run(envs, np.random.default_rng(num_envs), 60, envs.reset())
        by_count.append([e.seed for e in episodes if e.env == 0][:4])
    assert by_count[0] == by_count[1] == by_count[2]
    assert len(by_count[0]) == 4


def test_returns_lengths_seeds_and_actions_of_finished_episodes_are_right():
    toy = Toy(3)
    envs = EpisodicVectorEnv(toy, 1, "train")
    rng, envs_obs = np.random.default_rng(0), envs.reset()
    reward, taken, finished = [[], [], []], [[], [], []], 0
    for _ in range(80):
        envs.send(actions_for(envs, rng))
        seeds = list(toy.seeds)
        tr = envs.recv()
        np.testing.assert_array_equal(tr.obs, envs_obs)
        for i in range(3):
            reward[i].append(float(tr.reward[i]))
            taken[i].append(int(tr.action[i]))
        assert [e.env for e in envs.finished] == np.flatnonzero(tr.ended).tolist()
        for e in envs.finished:
            finished += 1
            assert (e.total_reward, e.length) == (sum(reward[e.env]), len(reward[e.env]))
            assert e.actions == taken[e.env]
            assert e.seed == seeds[e.env]
            reward[e.env], taken[e.env] = [], []
        envs_obs = envs.reset(tr.ended) if tr.ended.any() else tr.next_obs
    assert finished > 20


def test_a_finished_episodes_actions_stay_when_the_next_one_runs():
    envs = EpisodicVectorEnv(Toy(1), 1, "train")
    rng, episodes = np.random.default_rng(0), []
    envs.reset()
    for _ in range(40):
        envs.send(actions_for(envs, rng))
        tr = envs.recv()
        episodes += envs.finished
        if tr.ended.any():
            envs.reset(tr.ended)
    assert [len(e.actions) for e in episodes] == [e.length for e in episodes]


def test_next_obs_is_the_true_successor_and_the_next_obs_begins_where_reset_left():
    envs = EpisodicVectorEnv(Toy(3), 1, "train")
    first = envs.reset()
    transitions, _, _ = run(envs, np.random.default_rng(0), 40, first)
    for before, after in pairwise(transitions):
        np.testing.assert_array_equal(after.obs[~before.ended], before.next_obs[~before.ended])
        assert (after.obs[before.ended] != before.next_obs[before.ended]).any(axis=1).all()


@pytest.mark.parametrize("action_shape", [(), (2,)])
@pytest.mark.parametrize("steps", [0, 1, 7, 33, 58])
def test_a_restored_instance_goes_on_bit_for_bit_with_environments_at_different_ages(steps, action_shape):
    envs = EpisodicVectorEnv(Toy(4, action_shape=action_shape), 5, "train")
    _, _, obs = run(envs, np.random.default_rng(0), steps, envs.reset())
    state = copy.deepcopy(envs.state_dict())
    if steps > 5:
        assert len(set(state["length"].tolist())) > 1
    other = EpisodicVectorEnv(Toy(4, action_shape=action_shape), 5, "train")
    np.testing.assert_array_equal(other.load_state_dict(state), obs)
    assert not other.lost.any()
    ours = run(envs, np.random.default_rng(1), 60, obs)
    theirs = run(other, np.random.default_rng(1), 60, obs)
    assert_same_transitions(ours[0], theirs[0])
    assert ours[1] == theirs[1]


def test_a_restored_instance_can_be_saved_and_restored_again():
    envs = EpisodicVectorEnv(Toy(3), 5, "train")
    run(envs, np.random.default_rng(0), 33, envs.reset())
    state = envs.state_dict()
    other = EpisodicVectorEnv(Toy(3), 5, "train")
    other.load_state_dict(copy.deepcopy(state))
    for key, value in other.state_dict().items():
        np.testing.assert_array_equal(value, state[key])


def test_a_state_stays_put_while_the_environments_run_on():
    envs = EpisodicVectorEnv(Toy(3), 5, "train")
    _, _, obs = run(envs, np.random.default_rng(0), 20, envs.reset())
    state = envs.state_dict()
    kept = copy.deepcopy(state)
    run(envs, np.random.default_rng(1), 20, obs)
    for key, value in state.items():
        np.testing.assert_array_equal(value, kept[key])


def test_an_environment_that_is_not_deterministic_is_flagged_and_no_other():
    envs = EpisodicVectorEnv(Toy(3, haunted=(1,)), 5, "train")
    run(envs, np.random.default_rng(0), 20, envs.reset())
    other = EpisodicVectorEnv(Toy(3, haunted=(1,)), 5, "train")
    other.backend.ghost = 1000
    obs = other.load_state_dict(copy.deepcopy(envs.state_dict()))
    assert other.lost.tolist() == [False, True, False]
    obs = other.reset(other.lost)
    transitions, episodes, _ = run(other, np.random.default_rng(1), 60, obs)
    assert len(episodes) > 10
    first = next(e for e in episodes if e.env == 1)
    assert first.length == len(first.actions)
    assert first.total_reward == sum(float(t.reward[1]) for t in transitions[: first.length])


def test_an_episode_that_ends_early_when_played_again_is_flagged_and_does_no_harm():
    class Shorter(Toy):
        def recv(self):
            step = super().recv()
            early = np.array([i == 0 and len(a) >= 2 for i, a in enumerate(self.actions)])
            self.over = (np.array(self.over) | early).tolist()
            return step._replace(terminated=step.terminated | early)

    for steps in range(3, 30):
        envs = EpisodicVectorEnv(Toy(2), 5, "train")
        run(envs, np.random.default_rng(0), steps, envs.reset())
        state = copy.deepcopy(envs.state_dict())
        other = EpisodicVectorEnv(Shorter(2), 5, "train")
        other.load_state_dict(state)
        assert other.lost.tolist() == [bool(state["length"][0] >= 2), False]


class Masked(Toy):
    forbidden: int | None = None

    @property
    def action_mask(self):
        mask = np.ones((self.num_envs, 3), np.bool_)
        if self.forbidden is not None:
            mask[1, self.forbidden] = False
        return mask

    def send(self, action):
        assert self.action_mask[np.arange(self.num_envs), action].all(), "an action that is not allowed"
        super().send(action)


def test_an_action_that_is_not_allowed_when_played_again_is_not_taken() -> None:
    envs = EpisodicVectorEnv(Masked(2), 5, "train")
    run(envs, np.random.default_rng(0), 19, envs.reset())
    state = copy.deepcopy(envs.state_dict())
    assert (state["length"] > 0).all()
    other = EpisodicVectorEnv(Masked(2), 5, "train")
    other.backend.forbidden = int(state["actions"][state["length"][0]])  # the first one of the second environment
    other.load_state_dict(state)
    assert other.lost.tolist() == [False, True]
    other.reset(other.lost)
    assert other.state_dict()["length"].tolist() == [state["length"][0], 0]


def test_another_run_seed_is_noticed_when_a_state_is_loaded():
    envs = EpisodicVectorEnv(Toy(3), 5, "train")
    run(envs, np.random.default_rng(0), 20, envs.reset())
    other = EpisodicVectorEnv(Toy(3), 6, "train")
    other.load_state_dict(copy.deepcopy(envs.state_dict()))
    assert other.lost.all()


def test_a_state_of_another_number_of_environments_is_refused_in_one_line():
    envs = EpisodicVectorEnv(Toy(3), 5, "train")
    envs.reset()
    with pytest.raises(UserError, match=r"env\.num_envs.*3 environments.* 2"):
        EpisodicVectorEnv(Toy(2), 5, "train").load_state_dict(envs.state_dict())


def test_an_action_that_is_not_finite_is_the_networks_fault_and_is_not_sent():
    envs = EpisodicVectorEnv(Toy(2, action_shape=(3,)), seed=0, stream="train")
    envs.reset()
    envs.send(np.zeros((2, 3), np.float32))
    envs.recv()
    action = np.zeros((2, 3), np.float32)
    action[1, 2] = np.nan
    sent = len(envs.backend.log)
    with pytest.raises(UserError) as error:
        envs.send(action)
    said = "its action is nan at step 1 of episode 0 of environment 1"
    assert str(error.value) == f"optimizer.lr: the network has diverged ({said}); use a smaller one"
    assert len(envs.backend.log) == sent


def test_a_truncation_after_which_no_action_is_allowed_has_no_value():
    """The maximum over all actions would be one over actions that are never allowed."""
    backend = Toy(40)
    backend.action_mask = np.ones((40, 3), np.bool_)
    envs = EpisodicVectorEnv(backend, seed=0, stream="train")
    envs.reset()
    seen = set()
    for _ in range(12):
        envs.send(np.zeros(40, np.int64))
        length = np.array([len(a) for a in backend.actions])
        ends = (length == [3 + s % 9 for s in backend.seeds]) | (length == [5 + s % 7 for s in backend.seeds])
        empty = ends & (np.arange(40) < 20)  # half of them report an empty mask at the end
        backend.action_mask = ~empty[:, None] & np.array([True, False, True])
        tr = envs.recv()
        np.testing.assert_array_equal(tr.terminal, tr.terminated | (tr.truncated & empty))
        np.testing.assert_array_equal(tr.next_action_mask, empty[:, None] | np.array([True, False, True]))
        seen |= set(zip(tr.truncated.tolist(), empty.tolist(), strict=True))
        backend.action_mask = np.ones((40, 3), np.bool_)
        if tr.ended.any():
            envs.reset(tr.ended)
    assert {(True, True), (True, False)} <= seen


def test_an_episode_is_not_repeated_where_its_action_is_not_allowed() -> None:
    envs = EpisodicVectorEnv(Masked(2), 0, "train")
    _, episodes, _ = run(envs, np.random.default_rng(0), 40, envs.reset())
    episode = next(episode for episode in episodes if episode.env == 1)
    assert envs.repeats(episode)
    envs.backend.forbidden = int(episode.actions[0])
    assert not envs.repeats(episode)


@pytest.mark.parametrize("dies_in", ["reset", "send", "recv"])
def test_a_process_that_dies_while_an_episode_is_repeated_is_one_line(dies_in: str) -> None:
    envs = EpisodicVectorEnv(Toy(1), 0, "train")
    _, (episode, *_), _ = run(envs, np.random.default_rng(0), 20, envs.reset())

    def dies(*_: object) -> None:
        raise Died(0, -9)

    setattr(envs.backend, dies_in, dies)
    with pytest.raises(UserError, match="died with exit code -9"):
        envs.repeats(episode)


def test_close_reaches_the_backend():
    envs = EpisodicVectorEnv(Toy(1), 0, "train")
    envs.close()
    assert envs.backend.log == [("close",)]


def test_an_environment_that_cannot_be_closed_is_named_and_takes_no_result_away(capsys):
    class Stuck(Toy):
        def close(self):
            raise OSError("the simulator\nis gone")

    EpisodicVectorEnv(Stuck(2), 0, "train").close()
    assert capsys.readouterr().out == "env: toy cannot be closed: OSError: the simulator is gone\n"


def test_an_episode_that_pays_otherwise_when_played_again_is_flagged() -> None:
    class Richer(Toy):
        def recv(self):
            step = super().recv()
            return step._replace(reward=step.reward + np.array([0.0, 1.0, 0.0]))

    envs, other = EpisodicVectorEnv(Toy(3), 5, "train"), EpisodicVectorEnv(Richer(3), 5, "train")
    envs.reset()
    envs.send(np.zeros(3, np.int64))
    envs.recv()
    other.load_state_dict(copy.deepcopy(envs.state_dict()))
    assert other.lost.tolist() == [False, True, False]
