from __future__ import annotations

import copy
import multiprocessing
import os
import subprocess
import sys
from functools import partial
from typing import ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple
from gymnasium.wrappers import NormalizeObservation

from rl_runner.agents.random import Random
from rl_runner.agents.tabular import QLearning
from rl_runner.envs.gym import GymBackend
from rl_runner.envs.vector import EpisodicVectorEnv
from rl_runner.exploration import Greedy
from rl_runner.replay.storage import RowStorage
from rl_runner.types import UserError


class Scripted(gym.Env):
    """Observations drawn from the environment's own stream; ends when it draws so; counts what happens to it."""

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 12}
    render_mode = None

    def __init__(self, observation_space=None, action_space=None, render_mode=None):
        self.observation_space = Box(-1e9, 1e9, (3,), np.float64) if observation_space is None else observation_space
        self.action_space = Discrete(3) if action_space is None else action_space
        self.render_mode = render_mode

    def _obs(self):
        if type(self.observation_space) is Box and self.observation_space.dtype == np.float64:
            return self.np_random.uniform(-1e3, 1e3, self.observation_space.shape)
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        return self.observation_space.sample()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._obs(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.t += 1
        reward = 10.5 if isinstance(action, np.ndarray) else 100.0 * float(action)
        return self._obs(), reward, bool(self.np_random.random() < 0.1), self.t >= 15, {}

    def render(self):
        return np.full((4, 5, 3), self.t, dtype=np.uint8)


class Haunted(Scripted):
    """Draws from a stream that no seed reaches."""

    def _obs(self):
        return np.random.default_rng().uniform(size=3)


gym.register("RlrunScripted-v0", entry_point=Scripted)
gym.register("RlrunHaunted-v0", entry_point=Haunted)


def make(id, num_envs=3, seed=0, **kwargs):
    return EpisodicVectorEnv(GymBackend(id, num_envs, **kwargs), seed, "train")


def actions_for(envs, rng):
    """Return actions as agents do: from 0 on for discrete ones."""
    space = envs.action_space
    if isinstance(space, Discrete):
        return rng.integers(space.n, size=envs.num_envs)
    return rng.uniform(space.low, space.high, (envs.num_envs, *space.shape)).astype(space.dtype)


def run(envs, rng, steps, obs):
    transitions, episodes = [], []
    for _ in range(steps):
        envs.send(actions_for(envs, rng))
        tr = envs.recv()
        transitions.append(tr)
        episodes += envs.finished
        obs = envs.reset(tr.ended) if tr.ended.any() else tr.next_obs
    return transitions, episodes, obs


def assert_same_transitions(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        for x, y in zip(a[:7], b[:7], strict=True):  # without masks of actions
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)


def play_alone(id, seed, actions, **kwargs):
    """Play an episode in a bare environment: its observations, its rewards, how it ended."""
    env = gym.make(id, **kwargs)
    obs, rewards, ends = [env.reset(seed=seed)[0]], [], (False, False)
    for a in actions:
        assert ends == (False, False)
        if isinstance(env.action_space, Discrete):
            a = int(a) + int(env.action_space.start)
        else:
            a = np.array(a, dtype=env.action_space.dtype)
        o, r, *ends, _ = env.step(a)
        ends = tuple(map(bool, ends))
        obs.append(o)
        rewards.append(r)
    env.close()
    return obs, rewards, ends


REAL = {
    "CartPole-v1": {},
    "FrozenLake-v1": {},
    "LunarLander-v3": {},
    "LunarLanderContinuous-v3": {},
    "Acrobot-v1": {"max_episode_steps": 40},
    "MountainCar-v0": {"max_episode_steps": 25},
}


@pytest.mark.parametrize("id", REAL)
def test_every_episode_is_what_a_bare_environment_gives_for_its_seed_and_actions_to_the_last_observation(id):
    envs = make(id, kwargs=REAL[id])
    running = [[] for _ in range(3)]
    checked, obs = [], envs.reset()
    rng = np.random.default_rng(0)
    for _ in range(150):
        envs.send(actions_for(envs, rng))
        tr = envs.recv()
        np.testing.assert_array_equal(tr.obs, obs)
        for i in range(3):
            running[i].append(
                (tr.obs[i], tr.reward[i], tr.next_obs[i], (bool(tr.terminated[i]), bool(tr.truncated[i])))
            )
        for e in envs.finished:
            theirs, rewards, ends = play_alone(id, e.seed, e.actions, **REAL[id])
            ours = [running[e.env][0][0], *(step[2] for step in running[e.env])]
            np.testing.assert_array_equal(ours, np.asarray(theirs).astype(envs.observation_space.dtype))
            np.testing.assert_array_equal([step[1] for step in running[e.env]], rewards)
            assert running[e.env][-1][3] == ends
            assert e.length == len(rewards)
            assert e.total_reward == sum(rewards)
            running[e.env] = []
            checked.append(e.seed)
        obs = envs.reset(tr.ended) if tr.ended.any() else tr.next_obs
    assert len(checked) >= 3
    assert len(set(checked)) == len(checked)
    envs.close()


@pytest.mark.parametrize("id", ["CartPole-v1", "LunarLander-v3"])
def test_an_episode_does_not_depend_on_the_number_of_environments_the_index_or_the_history(id):
    envs = make(id, num_envs=3)
    transitions, episodes, _ = run(envs, np.random.default_rng(0), 400, envs.reset())
    episode = [e for e in episodes if e.env == 1][1]  # not the first one there
    for num_envs, index in [(1, 0), (4, 3)]:
        backend, rng = GymBackend(id, num_envs), np.random.default_rng(9)
        everywhere = np.ones(num_envs, dtype=np.bool_)
        backend.reset(everywhere, [77 + i for i in range(num_envs)])
        backend.send(rng.integers(2, size=num_envs))
        backend.recv()
        obs = backend.reset(everywhere, [episode.seed] * num_envs)[index]
        start = next(t for t, tr in enumerate(transitions) if (tr.obs[1] == obs).all())
        for t, action in enumerate(episode.actions):
            others = rng.integers(2, size=num_envs)
            others[index] = action
            backend.send(others)
            step = backend.recv()
            np.testing.assert_array_equal(step.obs[index], transitions[start + t].next_obs[1])
            ended = step.terminated | step.truncated
            if ended.any() and not ended[index]:
                backend.reset(ended, [5] * num_envs)
        assert ended[index]


@pytest.mark.parametrize("id", REAL)
@pytest.mark.parametrize("steps", [0, 37])
def test_a_restored_instance_goes_on_bit_for_bit_in_the_middle_of_episodes(id, steps):
    envs, other = (make(id, seed=4, kwargs=REAL[id]) for _ in range(2))
    _, _, obs = run(envs, np.random.default_rng(0), steps, envs.reset())
    while steps and len(set(envs.state_dict()["length"].tolist())) == 1 and "max_episode_steps" not in REAL[id]:
        _, _, obs = run(envs, np.random.default_rng(0), 17, obs)
    np.testing.assert_array_equal(other.load_state_dict(copy.deepcopy(envs.state_dict())), obs)
    assert not other.lost.any()
    ours, theirs = (run(e, np.random.default_rng(1), 120, obs) for e in (envs, other))
    assert_same_transitions(ours[0], theirs[0])
    assert ours[1] == theirs[1]
    assert ours[1]
    envs.close()
    other.close()


def test_an_environment_that_ignores_its_seed_is_flagged_when_it_is_restored():
    envs, other = make("RlrunHaunted-v0", 2), make("RlrunHaunted-v0", 2)
    run(envs, np.random.default_rng(0), 5, envs.reset())
    other.load_state_dict(copy.deepcopy(envs.state_dict()))
    assert other.lost.all()
    run(other, np.random.default_rng(0), 20, other.reset(other.lost))


def test_environments_and_episodes_and_run_seeds_all_start_differently_and_seed_zero_counts():
    first = {seed: make("CartPole-v1", 4, seed).reset() for seed in (0, 1)}
    np.testing.assert_array_equal(make("CartPole-v1", 4, 0).reset(), first[0])
    again = make("CartPole-v1", 4, 0)
    again.reset()
    starts = np.concatenate([first[0], first[1], again.reset()])
    assert len(np.unique(starts, axis=0)) == 12


def test_an_episode_seed_of_zero_is_not_taken_for_no_seed():
    backend, mask = GymBackend("CartPole-v1", 2), np.ones(2, dtype=np.bool_)
    one, two = backend.reset(mask, [0, 0]), backend.reset(mask, [0, 0])
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(one[0], gym.make("CartPole-v1").reset(seed=0)[0])


def test_a_reset_leaves_the_environments_outside_the_mask_alone():
    backend, alone = GymBackend("CartPole-v1", 2), GymBackend("CartPole-v1", 2)
    for b in (backend, alone):
        b.reset(np.array([True, True]), [1, 2])
    for t in range(8):
        for b in (backend, alone):
            b.send(np.array([t % 2, t % 2]))
        ours, theirs = backend.recv(), alone.recv()
        np.testing.assert_array_equal(ours.obs[1], theirs.obs[1])
        mask = np.array([True, False])
        obs = backend.reset(mask, [50 + t, 60 + t])
        np.testing.assert_array_equal(obs[1], ours.obs[1])
        assert mask.tolist() == [True, False]


def test_observations_given_once_are_never_written_to_again():
    envs = make("CartPole-v1", 2)
    rng, obs = np.random.default_rng(0), envs.reset()
    given = [(obs, obs.copy())]
    for _ in range(60):
        envs.send(actions_for(envs, rng))
        tr = envs.recv()
        given += [(array, array.copy()) for array in tr[:7]]
        if tr.ended.any():
            obs = envs.reset(tr.ended)
            given.append((obs, obs.copy()))
    for now, then in given:
        np.testing.assert_array_equal(now, then)


def test_processes_give_what_one_process_gives():
    inside, outside = make("CartPole-v1", 2, 3), make("CartPole-v1", 2, 3, processes=True)
    try:
        obs = inside.reset()
        np.testing.assert_array_equal(outside.reset(), obs)
        ours, theirs = (run(e, np.random.default_rng(0), 80, obs) for e in (inside, outside))
        assert_same_transitions(ours[0], theirs[0])
        assert ours[1] == theirs[1]
        assert len(ours[1]) > 2
        restored = make("CartPole-v1", 2, 3)
        np.testing.assert_array_equal(restored.load_state_dict(outside.state_dict()), theirs[2])
        assert not restored.lost.any()
    finally:
        outside.close()


def test_float64_observations_become_float32():
    envs = make("RlrunScripted-v0")
    obs = envs.reset()
    transitions, _, _ = run(envs, np.random.default_rng(0), 5, obs)
    assert envs.observation_space.dtype == obs.dtype == transitions[0].next_obs.dtype == np.float32
    assert make("RlrunScripted-v0").load_state_dict(envs.state_dict()).dtype == np.float32


def test_rewards_are_raw_float64():
    envs = make("RlrunScripted-v0")
    transitions, episodes, _ = run(envs, np.random.default_rng(0), 60, envs.reset())
    rewards = np.array([tr.reward for tr in transitions])
    assert rewards.dtype == np.float64
    assert set(rewards.ravel().tolist()) == {0.0, 100.0, 200.0}
    assert max(e.total_reward for e in episodes) > 200


def test_a_time_limit_truncates_and_does_not_terminate():
    envs = make("CartPole-v1", 2, kwargs={"max_episode_steps": 4})
    transitions, episodes, _ = run(envs, np.random.default_rng(0), 12, envs.reset())
    assert [t for t, tr in enumerate(transitions) if tr.truncated.all()] == [3, 7, 11]
    assert not any(tr.terminated.any() or tr.no_bootstrap.any() for tr in transitions)
    assert [e.length for e in episodes] == [4] * 6


@pytest.mark.parametrize("start", [1, -2, 5])
def test_actions_that_start_elsewhere_are_counted_from_zero_by_agents(start):
    space = Discrete(3, start=start)
    envs = make("RlrunScripted-v0", kwargs={"action_space": space})
    transitions, _, obs = run(envs, np.random.default_rng(0), 30, envs.reset())  # the environment checks them
    for tr in transitions:
        np.testing.assert_array_equal(tr.reward, 100.0 * (tr.action + start))
        assert tr.action.min() >= 0
        assert tr.action.max() < 3
    other = make("RlrunScripted-v0", kwargs={"action_space": space})
    np.testing.assert_array_equal(other.load_state_dict(envs.state_dict()), obs)
    assert not other.lost.any()


@pytest.mark.parametrize(
    "space",
    [
        Discrete(3, start=2),
        MultiDiscrete([2, 3]),
        MultiDiscrete([2, 3], start=[1, -4]),
        MultiBinary(4),
        Box(-2, 2, (1,), np.float32),
        Box(1, 3, (2,), np.float32),  # without 0
        Box(np.array([-1, 0], np.float32), np.array([1, np.inf], np.float32)),
        Box(-np.inf, np.inf, (2,), np.float64),
    ],
    ids=repr,
)
@pytest.mark.parametrize("processes", [False, True])
def test_every_kind_of_action_is_sent_and_restored(space, processes):
    if processes and type(space) is not MultiDiscrete:
        pytest.skip("the same code sends the others")
    made = {"num_envs": 2, "kwargs": {"action_space": space}}
    envs, other = make("RlrunScripted-v0", **made, processes=processes), make("RlrunScripted-v0", **made)
    agent, obs = Random(space, seed=0), envs.reset()
    for _ in range(33):  # the environment checks the actions, those before a restored episode too
        envs.send(agent.act(obs, None, None)[0])
        tr = envs.recv()
        obs = envs.reset(tr.ended) if tr.ended.any() else tr.next_obs
    assert len(set(envs.state_dict()["length"].tolist())) == 2
    np.testing.assert_array_equal(other.load_state_dict(copy.deepcopy(envs.state_dict())), obs)
    assert not other.lost.any()
    envs.close()


def test_actions_that_are_not_one_array_are_refused():
    with pytest.raises(UserError, match=r"^env: RlrunScripted-v0 has actions of type Dict; rlrun sends Discrete, Box"):
        make("RlrunScripted-v0", kwargs={"action_space": Dict({"a": Discrete(2)})})


@pytest.mark.parametrize(
    "space",
    [
        Discrete(4),
        Discrete(4, start=1),
        MultiDiscrete([2, 3]),
        MultiBinary(5),
        Box(0, 255, (6, 6, 3), np.uint8),
        Box(-5, 5, (2,), np.int64),
        Box(0, 1, (), np.float32),
    ],
    ids=repr,
)
def test_observations_keep_their_space_shape_and_type(space):
    envs = make("RlrunScripted-v0", kwargs={"observation_space": space})
    transitions, _, obs = run(envs, np.random.default_rng(0), 25, envs.reset())
    assert envs.observation_space.shape == space.shape
    assert envs.observation_space.dtype == space.dtype == obs.dtype
    assert obs.shape == (3, *space.shape)
    seen, discrete = [o for tr in transitions for o in tr.next_obs], isinstance(space, Discrete)
    assert all(space.contains(space.dtype.type(o) if discrete else np.asarray(o)) for o in seen)
    if discrete:
        assert {int(o) for o in seen} == set(range(space.start, space.start + 4))
        assert (envs.observation_space.n, envs.observation_space.start) == (space.n, space.start)


@pytest.mark.parametrize(
    ("space", "size"),
    [
        (Dict({"a": Box(-1, 1, (2,), np.float64), "b": Discrete(3)}), 5),
        (Tuple([Box(-1, 1, (2, 2), np.float32), MultiBinary(2)]), 6),
    ],
    ids=["Dict", "Tuple"],
)
def test_dict_and_tuple_observations_are_flattened(space, size):
    envs = make("RlrunScripted-v0", 2, kwargs={"observation_space": space})
    _, _, obs = run(envs, np.random.default_rng(0), 20, envs.reset())
    assert isinstance(envs.observation_space, Box)
    assert obs.shape == (2, size)
    assert obs.dtype == envs.observation_space.dtype == np.float32
    other = make("RlrunScripted-v0", 2, kwargs={"observation_space": space})
    np.testing.assert_array_equal(other.load_state_dict(envs.state_dict()), obs)


def test_frames_are_environment_zeros_one_a_step_whatever_the_others_do():
    envs = make("RlrunScripted-v0", 3, render=True)
    assert envs.backend.fps == 12
    rng = np.random.default_rng(0)
    obs = envs.reset()
    assert [int(f[0, 0, 0]) for f in envs.backend.frames()] == [0]
    want, others = [], 0
    for _ in range(60):
        envs.send(actions_for(envs, rng))
        tr = envs.recv()
        want.append((want[-1] if want else 0) + 1)
        if tr.ended.any():
            others += not tr.ended[0]
            obs = envs.reset(tr.ended)
        if tr.ended[0]:
            want.append(0)
    frames = envs.backend.frames()
    assert others
    assert obs.shape == (3, 3)
    assert frames[0].shape == (4, 5, 3)
    assert [int(f[0, 0, 0]) for f in frames] == want
    assert envs.backend.frames() == []


def test_without_render_no_frames_are_kept():
    envs = make("CartPole-v1", 1)
    run(envs, np.random.default_rng(0), 5, envs.reset())
    assert envs.backend.frames() == []


def one_line(e: pytest.ExceptionInfo) -> str:
    text = str(e.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("Cartpole-v1", "CartPole-v1"), ("CartPole-v9", "CartPole-v1"), ("LunarLander-v4", "LunarLander-v3")],
)
def test_an_unknown_id_is_answered_with_the_nearest(wrong, right):
    with pytest.raises(UserError, match=r"env\.id") as e:
        GymBackend(wrong)
    assert wrong in one_line(e)
    assert right in one_line(e)


@pytest.mark.parametrize("wrong", ["Zyxwvut-v0", "not an id at all", "", "no_such_module:Foo-v0"])
def test_an_id_like_no_other_is_still_one_line(wrong):
    with pytest.raises(UserError, match=r"env\.id") as e:
        GymBackend(wrong)
    one_line(e)


def test_sticky_actions_are_refused():
    with pytest.raises(UserError, match=r"env\.sticky") as e:
        GymBackend("CartPole-v1", sticky=0.25)
    one_line(e)


def test_an_observation_space_that_no_network_reads_is_refused():
    with pytest.raises(UserError, match="Text") as e:
        GymBackend("RlrunScripted-v0", kwargs={"observation_space": Text(5)})
    one_line(e)
    with pytest.raises(UserError, match="which hold no number") as e:
        GymBackend("RlrunScripted-v0", kwargs={"observation_space": Box(-1, 1, (2, 0))})
    one_line(e)


def test_a_state_of_one_byte_finds_its_row_of_a_table():
    backend = GymBackend("RlrunScripted-v0", 2, kwargs={"observation_space": Discrete(5, dtype=np.uint8)})
    obs = backend.reset(np.ones(2, np.bool_), [0, 1])
    agent = QLearning(5, 3, 0.9, Greedy(), lr=0.1)
    agent.table.copy_(torch.arange(15).reshape(5, 3))
    assert agent.q_values(torch.from_numpy(obs)).tolist() == [[3.0 * s, 3.0 * s + 1, 3.0 * s + 2] for s in obs]


@pytest.mark.parametrize("module", ["no_such_module_here", "json.no_such_part"])
def test_an_import_that_fails_is_named(module):
    with pytest.raises(UserError, match=r"env\.imports") as e:
        GymBackend("CartPole-v1", imports=[module])
    assert module in one_line(e)


def test_a_module_with_a_syntax_error_is_named(tmp_path, monkeypatch):
    (tmp_path / "half_written.py").write_text("def make(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"^env\.imports: cannot import 'half_written': .*line 1") as e:
        GymBackend("CartPole-v1", imports=["half_written"])
    one_line(e)


def test_a_function_that_registers_is_called_once(tmp_path, monkeypatch):
    (tmp_path / "late_envs.py").write_text(
        "import gymnasium\n"
        "calls = []\n"
        "def register():\n"
        "    calls.append(1)\n"
        "    gymnasium.register('Late-v0', 'gymnasium.envs.classic_control:CartPoleEnv')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        for _ in range(2):
            GymBackend("Late-v0", 2, imports=["late_envs:register"])
        assert sys.modules["late_envs"].calls == [1]
    finally:
        gym.registry.pop("Late-v0", None)
        sys.modules.pop("late_envs", None)


def test_arguments_that_the_environment_does_not_take_are_one_line():
    with pytest.raises(UserError, match=r"^env\.kwargs\.wheels: CartPole-v1 takes no such argument$"):
        GymBackend("CartPole-v1", kwargs={"wheels": 3})
    with pytest.raises(UserError, match=r"^env\.kwargs\.render_mode: must not be human"):
        GymBackend("CartPole-v1", kwargs={"render_mode": "human"})


@pytest.mark.parametrize("start", ["fork", "spawn"])  # spawn: as on macOS
def test_a_package_of_the_users_own_is_imported_first_in_processes_too(tmp_path, start):
    (tmp_path / "their_envs.py").write_text(
        "import gymnasium as gym\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "gym.register('Theirs-v0', entry_point=CartPoleEnv, max_episode_steps=9)\n"
    )
    code = (
        "import numpy as np\n"
        "from rl_runner.envs import processes\n"
        "from rl_runner.envs.gym import GymBackend\n"
        f"processes.CONTEXT = {start!r}\n"
        "b = GymBackend('Theirs-v0', 1, imports=['their_envs'], processes=True)\n"
        "print(b.reset(np.array([True]), [1]).shape)\n"
        "b.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": f"{tmp_path}:."}, check=False
    )
    assert done.stdout == "(1, 4)\n", done.stderr


def test_an_action_out_of_range_raises():
    for wrong in (2, -1):
        backend = GymBackend("CartPole-v1", 1)
        backend.reset(np.array([True]), [1])
        with pytest.raises((AssertionError, ValueError, UserError)):  # noqa: PT012 - wherever the backend notices
            backend.send(np.array([wrong]))
            backend.recv()


@pytest.mark.parametrize(("id", "limit", "steps"), [("CliffWalking-v1", None, 10_000), ("CliffWalking-v1", 9, 9)])
def test_no_episode_is_endless(id: str, limit: int | None, steps: int) -> None:
    backend = GymBackend(id, max_steps=limit)
    backend.reset(np.array([True]), [0])
    for step in range(1, steps + 1):
        backend.send(np.array([0]))  # up, into the wall, for ever
        assert backend.recv().truncated[0] == (step == steps)
    assert backend.protocol == {"max_steps": steps}
    assert GymBackend(f"gymnasium.envs:{id}", max_steps=limit).protocol == {"max_steps": steps}
    assert GymBackend("CartPole-v1").protocol == GymBackend("gymnasium.envs:CartPole-v1").protocol == {}
    lake = GymBackend("FrozenLake-v1", kwargs={"map_name": "4x4", "desc": None, "is_slippery": False})
    assert lake.protocol == {"map_name": "4x4", "is_slippery": False}  # arguments that scores depend on
    with pytest.raises(UserError, match=r"env.max_steps: must be at least 1"):
        GymBackend(id, max_steps=0)


# What people's own environments bring along.


class Big(Scripted):
    """Gives rewards that single precision rounds, and observations in another byte order."""

    def __init__(self, render_mode=None):
        super().__init__(Box(-1e9, 1e9, (3,), np.dtype(">f8")), render_mode=render_mode)

    def _obs(self):
        return self.np_random.uniform(size=3).astype(">f8")

    def step(self, action):
        obs, _, terminated, truncated, info = super().step(action)
        return obs, 16777217, terminated, truncated, info


class Seen(Scripted):
    """Counts how often it was reset, whatever the seed, and shows that: a state of its own."""

    resets = 0

    def reset(self, *, seed=None, options=None):
        _, info = super().reset(seed=seed)
        self.resets += 1
        return self._obs(), info

    def _obs(self):
        return np.full(3, self.resets, np.float64)


class Dies(Scripted):
    """Its process ends in the fourth step."""

    def step(self, action):
        if self.t == 3:
            os._exit(7)
        return super().step(action)


class Bad(Scripted):
    """Shows what it is told to, from the second step on."""

    def __init__(self, obs=0.0, reward=0.0, render_mode=None):
        super().__init__(Box(-1, 1, (1,), np.float32), render_mode=render_mode)
        self.bad, self.reward, self.t = obs, reward, 0

    def _obs(self):
        return np.full(1, self.bad if self.t > 1 else 0, np.float32)

    def step(self, action):
        self.t += 1
        return self._obs(), self.reward if self.t > 1 else 0.0, False, False, {}


for kind in (Big, Seen, Dies, Bad):
    gym.register(f"Rlrun{kind.__name__}-v0", entry_point=kind)
gym.register("RlrunBroken-v0", entry_point=lambda: fails(None))
gym.register("RlrunNormalized-v0", entry_point=lambda render_mode=None: NormalizeObservation(Scripted()))


def test_returns_are_summed_in_double_precision():
    envs = make("RlrunBig-v0")
    _, episodes, _ = run(envs, np.random.default_rng(0), 60, envs.reset())
    assert episodes
    assert all(e.total_reward == e.length * 16777217 for e in episodes)


def test_another_byte_order_becomes_the_machines_own():
    obs = make("RlrunBig-v0").reset()
    assert obs.dtype == np.float32
    assert obs.dtype.isnative
    assert ((obs > 0) & (obs < 1)).all()


def test_the_bounds_of_a_box_are_kept():
    space = make("CartPole-v1").observation_space
    np.testing.assert_array_equal(space.high, gym.make("CartPole-v1").observation_space.high)


@pytest.mark.parametrize(
    ("kwargs", "line"),
    [
        (
            {"obs": np.inf},
            "an observation that holds inf",
        ),
        (
            {"obs": np.nan},
            "an observation that holds nan",
        ),
        ({"reward": np.nan}, "the reward nan"),
        ({"reward": -np.inf}, "the reward -inf"),
        ({"reward": 1e39}, "the reward 1e+39"),  # infinite in single precision, which networks learn in
    ],
    ids=str,
)
def test_what_is_not_finite_is_refused_with_where_it_was(kwargs, line):
    envs = make("RlrunBad-v0", 2, kwargs=kwargs)
    with pytest.raises(UserError) as e:
        run(envs, np.random.default_rng(0), 5, envs.reset())
    assert str(e.value) == f"env: RlrunBad-v0 returned {line} at step 2 of episode 0 of environment 0"


def test_a_process_that_died_is_named_and_no_other_is_left():
    envs = make("RlrunDies-v0", 2, processes=True)
    processes = envs.backend._envs.processes
    with pytest.raises(
        UserError, match=r"^env: the process of RlrunDies-v0 died with exit code 7 at step 4 of episode 0"
    ):
        run(envs, np.random.default_rng(0), 20, envs.reset())
    assert not any(p.is_alive() for p in processes)
    envs.close()


@pytest.mark.parametrize("processes", [False, True])
def test_normalisation_is_left_to_the_agent_and_observations_are_raw(processes):
    envs, plain = make("RlrunNormalized-v0", 2, processes=processes), make("RlrunScripted-v0", 2)
    assert envs.normalized
    assert not plain.normalized
    np.testing.assert_array_equal(envs.reset(), plain.reset())
    envs.close()


def test_an_episode_that_can_be_played_again_is_told_from_one_that_cannot():
    for id, wanted in [
        ("CartPole-v1", True),
        ("RlrunScripted-v0", True),
        ("RlrunHaunted-v0", False),
        ("RlrunSeen-v0", False),
    ]:
        envs = make(id, 2)
        _, episodes, _ = run(envs, np.random.default_rng(0), 60, envs.reset())
        assert [envs.repeats(e) for e in episodes[:3]] == [wanted] * 3, id


def fails(env):
    raise RuntimeError("no such thing")


def test_a_wrapper_or_an_environment_that_cannot_be_made_is_one_line():
    with pytest.raises(
        UserError, match=r"^env.wrappers\[1\]: fails cannot wrap CartPole-v1: RuntimeError: no such thing$"
    ):
        make("CartPole-v1", wrappers=[lambda env: env, fails])
    with pytest.raises(UserError, match=r"^env.id: RlrunBroken-v0 cannot be made: no such thing$"):
        make("RlrunBroken-v0")


def test_wrappers_stand_round_each_environment_in_their_order():
    wrappers = [
        partial(gym.wrappers.TransformReward, func=lambda r: r + 1),
        partial(gym.wrappers.TransformReward, func=lambda r: 10 * r),
        partial(gym.wrappers.ReshapeObservation, shape=[3, 1]),  # a list, as configurations have it
    ]
    envs, plain = make("RlrunScripted-v0", wrappers=wrappers), make("RlrunScripted-v0")
    np.testing.assert_array_equal(envs.reset()[..., 0], plain.reset())
    for e in (envs, plain):
        e.send(np.array([0, 1, 2]))
    np.testing.assert_array_equal(envs.recv().reward, 10 * (plain.recv().reward + 1))
    assert envs.backend.protocol["wrappers"] == "TransformReward, TransformReward, ReshapeObservation"


def test_stacked_frames_are_the_last_ones_of_the_episode_and_zeros_before_it():
    envs, plain = make("RlrunScripted-v0", frame_stack=3), make("RlrunScripted-v0")
    obs, frame = envs.reset(), plain.reset()
    history = [[f] for f in frame]
    for t in range(50):
        for i in range(3):
            wanted = ([np.zeros(3)] * 2 + history[i])[-3:]
            np.testing.assert_array_equal(obs[i], wanted)
        for e in (envs, plain):
            e.send(np.full(3, t % 3))
        tr, single = envs.recv(), plain.recv()
        np.testing.assert_array_equal(tr.next_obs[:, -1], single.next_obs)
        obs, frame = tr.next_obs, single.next_obs
        if tr.ended.any():
            obs, frame = envs.reset(tr.ended), plain.reset(tr.ended)
        for i in range(3):
            history[i] = [frame[i]] if tr.ended[i] else [*history[i], frame[i]]
    assert envs.observation_space.shape == obs.shape[1:] == (3, 3)
    other = make("RlrunScripted-v0", frame_stack=3)
    np.testing.assert_array_equal(other.load_state_dict(envs.state_dict()), obs)


def test_the_replay_holds_each_stacked_frame_once_and_gives_the_stacks_back():
    envs = make("RlrunScripted-v0", frame_stack=4)
    storage = RowStorage(600, 3, envs.observation_space.shape, envs.observation_space.dtype, stack=envs.stack)
    transitions, _, _ = run(envs, np.random.default_rng(0), 80, envs.reset())
    ids = np.array([storage.add(tr) for tr in transitions])
    assert storage.frames.shape == (200, 3, 3)
    for tr, rows in zip(transitions, ids, strict=True):
        np.testing.assert_array_equal(storage.obs(rows), tr.obs)


@pytest.mark.parametrize(("stack", "id", "why"), [(0, "CartPole-v1", "at least 1"), (4, "FrozenLake-v1", "only Box")])
def test_stacks_that_cannot_be_are_refused(stack, id, why):
    with pytest.raises(UserError, match=rf"env\.frame_stack: .*{why}"):
        make(id, frame_stack=stack)


class Recorded(Scripted):
    """Takes actions in bounds of a dimension's own; the last action is part of the observation."""

    action_space = Box(np.array([-1, 0], np.float32), np.array([1, 0.3], np.float32))

    def __init__(self, render_mode=None):
        super().__init__(Box(-1e9, 1e9, (3,), np.float64), Recorded.action_space, render_mode)

    def _obs(self):
        return np.array([*getattr(self, "action", (0, 0)), self.np_random.uniform()])

    def step(self, action):
        assert action.dtype == np.float32
        self.action = action
        obs, _, *rest = super().step(action)  # asserts that the action is within the bounds
        return obs, float(action.sum()), *rest


gym.register("RlrunRecorded-v0", entry_point=Recorded)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_actions_outside_the_bounds_are_clipped_and_the_log_keeps_them(dtype):
    rng = np.random.default_rng(0)
    envs, episodes, sent = make("RlrunRecorded-v0", 2), [], [[], []]
    obs = envs.reset()
    for _ in range(40):
        action = rng.normal(0, 2, (2, 2)).astype(dtype)
        envs.send(action)
        tr = envs.recv()
        assert np.array_equal(tr.action, action)
        np.testing.assert_array_equal(
            tr.next_obs[:, :2], np.clip(action.astype(np.float32), [-1, 0], np.float32([1, 0.3]))
        )
        for i in range(2):
            sent[i].append(action[i].tolist())
        for episode in envs.finished:
            assert episode.actions == sent[episode.env]
            episodes.append(episode)
            sent[episode.env] = []
        obs = envs.reset(tr.ended) if tr.ended.any() else tr.next_obs
    again = make("RlrunRecorded-v0", 2)
    state = envs.state_dict()
    np.testing.assert_array_equal(again.load_state_dict(state), obs)
    assert not again.lost.any()
    assert len(episodes) > 2
    assert all(again.repeats(episode) for episode in episodes[:3])


class Typed(Scripted):
    """Its return depends on the type of the actions, which must be the declared one."""

    def step(self, action):
        obs, _, *rest = super().step(action)
        return obs, float(np.sum(np.asarray(action) * np.asarray(100, np.asarray(action).dtype) * 2)), *rest


gym.register("RlrunTyped-v0", entry_point=Typed)


@pytest.mark.parametrize("space", [MultiBinary(3), MultiDiscrete([2, 3], dtype=np.int8)], ids=repr)
def test_actions_have_the_declared_type_in_training_and_when_they_are_replayed(space):
    envs = make("RlrunTyped-v0", 2, kwargs={"action_space": space})
    envs.reset()
    envs.send(np.ones((2, *space.shape), np.int64))
    assert envs.recv().reward.tolist() == [-56.0 * space.shape[0]] * 2  # 200 in eight bits, for each number
    again = make("RlrunTyped-v0", 2, kwargs={"action_space": space})
    again.load_state_dict(envs.state_dict())
    assert not again.lost.any()


def test_actions_without_bounds_are_left_alone():
    gym.register("RlrunUnboundedActions-v0", entry_point=lambda **kw: Scripted(action_space=Box(-np.inf, np.inf, (2,))))
    envs = make("RlrunUnboundedActions-v0", 1)
    envs.reset()
    envs.send(np.array([[1e6, -1e6]], np.float32))
    assert envs.recv().action.tolist() == [[1e6, -1e6]]


def test_a_worker_of_a_pool_cannot_start_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"^env.processes: a daemonic process, .* cannot start processes"):
        GymBackend("CartPole-v1", num_envs=2, processes=True)
