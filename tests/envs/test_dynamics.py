"""Tables that say what is played are taken; those of changed environments are refused, whatever the seeds."""

import itertools
import math
from collections import Counter

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import TimeLimit, TransformAction, TransformObservation, TransformReward

from rl_runner import rng
from rl_runner.envs.dynamics import Comparison, Contradiction, _evidence, _time_limit, known
from rl_runner.envs.gridworld import GridWorld
from rl_runner.envs.gym import GymBackend
from rl_runner.envs.vector import EpisodicVectorEnv
from rl_runner.exact.mdp import MDP, optimal_values
from rl_runner.exact.measure import Exact
from rl_runner.types import UserError

STOCK = {
    "lake": ("FrozenLake-v1", {}),
    "dry lake": ("FrozenLake-v1", {"is_slippery": False}),
    "large lake": ("FrozenLake-v1", {"map_name": "8x8"}),
    "large dry lake": ("FrozenLake-v1", {"map_name": "8x8", "is_slippery": False}),
    "cliff": ("CliffWalking-v1", {}),
    "slippery cliff": ("CliffWalking-v1", {"is_slippery": True}),
    "taxi": ("Taxi-v4", {}),
    "taxi in the rain": ("Taxi-v4", {"is_rainy": True}),
    "grid": ("rlrun/GridWorld-v0", {"slip": 0.3, "columns": 5}),
}


def compare(env: gym.Env, seed: int = 0) -> MDP:
    inner = env.unwrapped
    mdp = MDP.from_table(inner.P, inner.initial_state_distrib, _time_limit(env), None)
    return Comparison(env, inner.P, mdp).run(seed)


def ask(make) -> MDP | None:
    env = make()
    return known(make, "Mine-v0", env.observation_space, env.action_space)


class PlaysAnother(gym.Wrapper):
    """Shows the table of one environment and plays another."""

    def __init__(self, env, other):
        super().__init__(env)
        self.other = other

    def reset(self, **kwargs):
        return self.other.reset(**kwargs)

    def step(self, action):
        return self.other.step(action)


def another(shown, played):
    return PlaysAnother(gym.make(shown[0], **shown[1]), gym.make(played[0], **played[1]))


# Tables that are right.


@pytest.mark.parametrize("name", STOCK)
def test_tables_that_say_what_is_played_pass_with_any_seeds(name):
    id, kwargs = STOCK[name]
    env = gym.make(id, **kwargs)
    for seed in range(4):
        compare(env, seed)


def test_a_table_is_read_with_its_time_limit_and_grid():
    mdp = ask(lambda: gym.make("CliffWalking-v1", max_episode_steps=30))
    assert (mdp.reward.shape, mdp.horizon, mdp.grid) == ((48, 4), 30, (4, 12))
    assert ask(lambda: gym.make("CliffWalking-v1")).horizon is None
    assert ask(lambda: gym.make("Taxi-v4")).grid is None


@pytest.mark.parametrize(("limits", "horizon"), [((40, 20), 20), ((20, 40), 20), ((500,), 100)])
def test_of_several_time_limits_the_shortest_counts(limits, horizon):
    def make():
        env = gym.make("FrozenLake-v1")  # 100
        for limit in limits:
            env = TimeLimit(env, limit)
        return env

    assert ask(make).horizon == horizon


def test_states_and_actions_may_begin_with_another_number():
    def make():
        env = TransformObservation(gym.make("FrozenLake-v1"), lambda s: s + 10, gym.spaces.Discrete(16, start=10))
        return TransformAction(env, lambda a: a - 3, gym.spaces.Discrete(4, start=3))

    assert ask(make).reward.shape == (16, 4)


# Tables that are not.

CHANGED = {
    "mirrored": (lambda env: TransformAction(env, lambda a: 3 - a, env.action_space), "in state .* action .* led to"),
    "reward": (lambda env: TransformReward(env, lambda r: 10 * r), r"\(reward 10, terminated\), where P has"),
    "states": (
        lambda env: TransformObservation(env, lambda s: 15 - s, env.observation_space),
        "began in state 15, whose probability in initial_state_distrib is 0",
    ),
    "fewer actions": (
        lambda env: TransformAction(env, lambda a: a + 1, gym.spaces.Discrete(3)),
        "P has 16 states and 4 actions, the environment's spaces have 16 states and 3 actions",
    ),
    "more states": (
        lambda env: TransformObservation(env, lambda s: s, gym.spaces.Discrete(17)),
        "P has 16 states and 4 actions, the environment's spaces have 17 states and 4 actions",
    ),
}


@pytest.mark.parametrize("change", CHANGED)
def test_a_wrapper_that_changes_what_is_played_is_found(change):
    wrap, said = CHANGED[change]
    with pytest.raises(UserError, match=f"the table P of Mine-v0 does not match the environment: .*{said}"):
        ask(lambda: wrap(gym.make("FrozenLake-v1", is_slippery=False)))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("chance", [0.3, 0.1])
def test_the_fickle_passenger_is_found_though_only_a_passenger_shows_it(seed, chance):
    env = gym.make("Taxi-v4", fickle_passenger=True, fickle_probability=chance)
    with pytest.raises(Contradiction, match="led to state"):
        compare(env, seed)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("shown", "played"),
    [
        ("lake", "dry lake"),
        ("dry lake", "lake"),
        ("large lake", "large dry lake"),
        ("slippery cliff", "cliff"),
        ("taxi in the rain", "taxi"),
    ],
)
def test_other_probabilities_are_found(shown, played, seed):
    with pytest.raises(Contradiction):
        compare(another(STOCK[shown], STOCK[played]), seed)


@pytest.mark.parametrize("seed", range(3))
def test_a_slightly_larger_chance_is_found_in_all_states_together(seed):
    with pytest.raises(Contradiction, match=r"^outcomes of probability 0\.8, 0\.1, 0\.1 came \d+, \d+, \d+ times"):
        compare(another(("rlrun/GridWorld-v0", {"slip": 0.2}), ("rlrun/GridWorld-v0", {"slip": 0.35})), seed)


def test_one_state_alone_is_found():
    dry = gym.make("FrozenLake-v1", is_slippery=False).unwrapped.P
    env = gym.make("FrozenLake-v1", max_episode_steps=8)
    table = {s: dict(actions) for s, actions in env.unwrapped.P.items()}
    env.unwrapped.P[0] = dry[0]  # what is played
    mdp = MDP.from_table(table, env.unwrapped.initial_state_distrib, 8, None)
    with pytest.raises(Contradiction, match=r"in state 0 action \d: outcomes of probability"):
        Comparison(env, table, mdp).run()


def test_episodes_that_all_begin_in_one_place_are_found():
    with pytest.raises(Contradiction, match=r"the first states of \d+ episodes contradict initial_state_distrib"):
        compare(another(("rlrun/GridWorld-v0", {}), ("rlrun/GridWorld-v0", {"start": (1, 1)})))


# Truncation.


class Truncates(gym.Wrapper):
    def __init__(self, env, at):
        super().__init__(env)
        self.at = at

    def reset(self, **kwargs):
        self.t = 0
        return super().reset(**kwargs)

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        self.t += 1
        return obs, reward, terminated, truncated or self.at(self.t, obs), info


def test_an_environments_own_time_limit_is_found():
    assert ask(lambda: Truncates(gym.make("CliffWalking-v1"), lambda t, obs: t >= 50)).horizon == 50


def test_a_truncation_that_is_no_time_limit_is_a_contradiction():
    with pytest.raises(UserError, match=r"an episode was truncated after \d+ steps, another one was not"):
        ask(lambda: Truncates(gym.make("CliffWalking-v1"), lambda t, obs: obs < 12))


# No table, and tables that are none.


class Own(GridWorld):
    """Whose table is changed by `change`."""

    def __init__(self, change):
        super().__init__()
        change(self)


def test_without_a_table_there_is_none():
    assert ask(lambda: gym.make("Blackjack-v1")) is None
    assert ask(lambda: gym.make("CartPole-v1")) is None
    assert ask(lambda: Own(lambda env: setattr(env, "P", {0: "another kind"}))) is None
    assert ask(lambda: Own(lambda env: setattr(env, "P", np.zeros((16, 4, 16))))) is None
    assert ask(lambda: Own(lambda env: delattr(env, "initial_state_distrib"))) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda env: env.P[1].update({0: [(0.5, 0, -1.0, True)]}), r"the probabilities of P\[1\]\[0\] sum to 0.5"),
        (lambda env: env.P[1].update({2: [(1.0, 16, -1.0, False)]}), r"P\[1\]\[2\] has \(1.0, 16, -1.0, False\), not"),
        (lambda env: env.P[1].update({2: [(1.0, 1, math.nan, False)]}), r"P\[1\]\[2\] has \(1.0, 1, nan, False\), not"),
        (
            lambda env: setattr(env, "initial_state_distrib", np.ones(16)),
            "initial_state_distrib is not a probability distribution",
        ),
    ],
)
def test_tables_that_are_none_are_refused(change, said):
    with pytest.raises(UserError, match=f"the table P of Mine-v0 cannot be used: {said}"):
        ask(lambda: Own(change))


class Breaks(GridWorld):
    def step(self, action):
        raise ValueError("no\nmore")


def test_an_exception_of_the_environments_own_is_one_line():
    with pytest.raises(UserError, match=r"^Mine-v0 cannot be compared with its table P: it raised ValueError: no more"):
        ask(Breaks)


def test_an_environment_that_can_be_made_once_only_has_no_table():
    made = []

    def make():
        if made:
            raise RuntimeError("in use")
        made.append(GridWorld())
        return made[0]

    assert ask(make) is None


# What a run holds.


def play(look: bool) -> list[np.ndarray]:
    envs = EpisodicVectorEnv(GymBackend("FrozenLake-v1", 3), 5, "train")
    seen = [envs.reset()]
    for t in range(60):
        if look and t == 20:
            envs.backend.mdp()
        envs.send(np.array([t % 4, 1, 2]))
        tr = envs.recv()
        seen += [tr.next_obs, tr.reward, envs.reset(tr.ended) if tr.ended.any() else tr.next_obs]
    return seen


def test_the_comparison_moves_nothing_that_a_run_holds():
    streams = (rng.torch_state()["cpu"], np.random.get_state()[1].copy())  # noqa: NPY002 - the global one
    for a, b in zip(play(look=True), play(look=False), strict=True):
        np.testing.assert_array_equal(a, b)
    assert torch.equal(rng.torch_state()["cpu"], streams[0])
    assert (np.random.get_state()[1] == streams[1]).all()  # noqa: NPY002


def test_environments_in_processes_have_the_same_table():
    backend = GymBackend("FrozenLake-v1", 1, processes=True)
    try:
        np.testing.assert_array_equal(backend.mdp().reward, GymBackend("FrozenLake-v1", 1).mdp().reward)
    finally:
        backend.close()


# The test of frequencies.


@pytest.mark.parametrize("probabilities", [(0.5, 0.5), (0.9, 0.07, 0.03), (0.25,) * 4])
def test_the_evidence_against_probabilities_that_are_right_is_1_on_average(probabilities):
    """Summed over all sequences of five outcomes."""
    mean = 0.0
    for sequence in itertools.product(range(len(probabilities)), repeat=5):
        counts = Counter(sequence)
        chance = math.prod(probabilities[k] for k in sequence)
        mean += chance * math.exp(_evidence([counts[k] for k in range(len(probabilities))], probabilities))
    assert mean == pytest.approx(1.0, abs=1e-12)


def test_the_evidence_by_hand():
    # Jeffreys' prior: 1/2, then 3/4, then 5/6 for the same side of a coin again
    assert _evidence([3, 0], (0.5, 0.5)) == pytest.approx(math.log(1 / 2 * 3 / 4 * 5 / 6 / 0.5**3))
    assert _evidence([7], (1.0,)) == pytest.approx(0.0)


# Masks of actions.


class Fenced(gym.Wrapper):
    """FrozenLake whose actions left and right are forbidden in some states; forbidden ones end in an error."""

    shows, lies = True, False

    def action_mask(self, state: int) -> np.ndarray:
        return np.array([state % 3 != 0, True, state % 2 == 0, True])

    def _info(self, state: int) -> dict:
        mask = np.ones(4, np.bool_) if self.lies else self.action_mask(state)
        return {"action_mask": mask} if self.shows else {}

    def reset(self, **kwargs):
        self.state, _ = self.env.reset(**kwargs)
        return self.state, self._info(self.state)

    def step(self, action):
        assert self.lies or not self.shows or self.action_mask(self.state)[action]
        self.state, *rest, _ = self.env.step(action)
        return self.state, *rest, self._info(self.state)


def fenced(told: bool = True, **how) -> gym.Env:
    env = Fenced(gym.make("FrozenLake-v1"))
    vars(env).update(how)
    if told:
        env.unwrapped.action_mask = env.action_mask
    return env


def test_forbidden_actions_are_never_played_and_count_in_no_maximum() -> None:
    mdp = ask(fenced)
    assert mdp is not None
    table, env, value = gym.make("FrozenLake-v1").unwrapped.P, fenced(), [0.0] * 16
    for _ in range(2_000):
        q = [[sum(p * (r + 0.9 * value[s2] * (not e)) for p, s2, r, e in table[s][a]) for a in range(4)] for s in table]
        value = [max(q[s][a] for a in range(4) if env.action_mask(s)[a]) for s in table]
    np.testing.assert_allclose(optimal_values(mdp, 0.9).max(axis=1), value, atol=1e-9)
    assert max(value) < max(optimal_values(ask(lambda: gym.make("FrozenLake-v1")), 0.9).max(axis=1)) + 1e-12


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"told": False}, "has no action_mask"),
        ({"shows": False}, "shows no action_mask"),
        ({"lies": True}, "not the one"),
    ],
    ids=str,
)
def test_masks_that_the_table_does_not_know_leave_no_table(how: dict, why: str) -> None:
    with pytest.raises(UserError, match=why):
        ask(lambda: fenced(**how))


def test_an_agents_values_of_forbidden_actions_do_not_count() -> None:
    mdp = ask(fenced)
    assert mdp is not None
    best, mask = optimal_values(mdp, 0.9), np.array([fenced().action_mask(s) for s in range(16)])

    class Agent:
        def q_values(self, obs):
            return torch.from_numpy(np.where(mask, best, 100.0))[obs]

    now = Exact(mdp, Agent(), 0.9)()
    assert now["exact/q_error"] == pytest.approx(0, abs=1e-12)
    assert now["exact/value"] == pytest.approx(now["exact/value_optimal"])
