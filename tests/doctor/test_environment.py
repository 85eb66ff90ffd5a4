"""What random steps show of environments."""

from typing import Any

import gymnasium as gym
import pytest

from rl_runner.doctor import environment, probe
from rl_runner.doctor.probe import Probe
from rl_runner.envs.gym import GymBackend
from tests.doctor.test_probe import CFG, probed

FOUND = [
    ("CartPole-v1", []),
    ("MountainCarContinuous-v0", []),
    ("Drifting-v0", ["Drifting-v0 goes another way at step 1 of episode 100, with the same seed and actions"]),
    ("OwnRandomness-v0", ["OwnRandomness-v0 goes another way at step 1 of episode 100", "gives the same observation"]),
    ("NaNOnce-v0", ["returned the reward nan at step 100", "goes another way", "gives the same observation"]),
    ("ArrayReward-v0", ["Gymnasium's checker: The reward returned", "gives the same observation in all 1,000 steps"]),
    ("Walk-v0", ["network.normalize: False and observations reach 1450 (component 0)"]),
    ("NormalizedWalk-v0", []),
    ("Knobs-v0", ["gives the same observation"]),
    ("OldStep-v0", ["its step returns 4 values"]),
]


@pytest.mark.parametrize(("name", "wanted"), FOUND)
def test_what_is_found(name: str, wanted: list[str]) -> None:
    found = environment.findings(probed(name))
    assert len(found) == len(wanted), list(map(str, found))
    for finding, text in zip(found, wanted, strict=True):
        assert text in str(finding)
        assert finding.refused == ("its step returns" in text)


def rewarded(*rewards: float, **values: Any) -> list[str]:
    """Return the keys that are found in a probe with these rewards, over and over."""
    steps = probe.STEPS // len(rewards)
    return [finding.key for finding in environment.findings(Probe("X", {**CFG, **values}, rewards=[*rewards] * steps))]


def test_rewards() -> None:
    assert rewarded(0.0, 1.0) == []
    assert rewarded(0.0) == ["env"]
    assert rewarded(-2_000.0, 1.0) == ["reward_clip"]
    assert rewarded(-2_000.0, 1.0, reward_clip=1.0) == []
    assert rewarded(-2_000.0, 1.0, agent={"normalize_rewards": True}) == []


def test_observations_outside_their_space() -> None:
    class Leaves(gym.Env[Any, Any]):
        observation_space = gym.spaces.Box(-1, 1, (2,))
        action_space = gym.spaces.Discrete(2)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            self.steps = 0
            return self.observation_space.sample() * 0, {}

        def step(self, action: int) -> Any:
            self.steps += 1
            obs = self.observation_space.sample() * 0 + (1.5 if self.steps == 7 else 0.5)
            return obs, 1.0, False, False, {}

    gym.register("Leaves-v0", Leaves)
    found = environment.findings(probe.probe(lambda: GymBackend("Leaves-v0"), None, CFG))
    assert [finding.key for finding in found] == ["env", "env.max_steps"]
    assert str(found[0]).startswith("env: Leaves-v0 observed 1.5 at step 7, where its observation_space has [-1, 1]")
