"""Random steps of environments, and what they leave in a probe."""

from typing import Any

import gymnasium as gym

from rl_runner.doctor.probe import Probe, probe
from rl_runner.envs.gym import GymBackend
from tests.envs import awkward_envs  # noqa: F401 - registers them

CFG: dict[str, Any] = {"env": {"max_steps": None}, "network": {"normalize": False}, "reward_clip": None, "agent": {}}


def probed(name: str) -> Probe:
    return probe(lambda: GymBackend(name), lambda: gym.make(name, disable_env_checker=True), CFG)


def test_the_numbers_of_a_probe() -> None:
    seen = probed("CartPole-v1")
    assert len(seen.rewards) == 1_000
    assert set(seen.rewards) == {1.0}
    assert 1_000 - sum(seen.lengths) < 500
    assert seen.low.shape == (4,)
    assert (seen.low < 0).all()
    assert (seen.high > 0).all()


def test_a_probe_can_be_made_again() -> None:
    one, two = probed("Acrobot-v1"), probed("Acrobot-v1")
    assert one.rewards == two.rewards
    assert one.low.tolist() == two.low.tolist()
    assert one.differs == ""


def test_facts_by_hand() -> None:
    seen = Probe("X", CFG, dtype="float64", stored="float32", rewards=[0.0, 0.0, 2.5, -1.0], lengths=[3])
    assert seen.facts()[:2] == [
        ("probed", "4 random steps: 1 episode ended, after 3 steps on average"),
        ("", "observations float64, stored as float32,"),
    ]
    assert seen.facts()[2] == ("", "rewards in [-1, 2.5], 50% of them 0")
    empty = Probe("X", CFG, dtype="uint8", stored="uint8", rewards=[float("nan")])
    assert empty.facts() == [
        ("probed", "1 random step: no episode ended"),
        ("", "observations uint8"),
        ("", "rewards in [0, 0], 100% of them 0"),
    ]
