"""The example package does what its README says: it is trained, evaluated, watched and resumed."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import rl_runner
from tests.commandline import refused, rlrun

EXAMPLE = Path(rl_runner.__file__).parent / "docs" / "example"
CONF = ["--config-dir", str(EXAMPLE / "conf")]
SUPPORT = ["value.low=-20", "value.high=20"]
QUICK = ["num_threads=1", "device=cpu", "eval.every_steps=0", "eval.episodes=2"]


@pytest.fixture(autouse=True)
def package(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package as if installed; another test may have registered an environment with the same id."""
    gym.registry.pop("RoboParking-v0", None)
    monkeypatch.syspath_prepend(str(EXAMPLE))
    yield
    gym.registry.pop("RoboParking-v0", None)
    for name in [name for name in sys.modules if name.partition(".")[0] == "robo_parking"]:
        del sys.modules[name]


def random_score(episodes: int) -> float:
    """Return the mean return of random actions, played by Gymnasium alone."""
    import robo_parking  # type: ignore[import-not-found]  # noqa: F401 - registers the environment

    env, total = gym.make("RoboParking-v0"), 0.0
    env.action_space.seed(0)
    for seed in range(episodes):
        env.reset(seed=seed)
        ended = False
        while not ended:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            total, ended = total + float(reward), terminated or truncated
    return total / episodes


def test_an_agent_learns_and_is_evaluated_watched_and_resumed() -> None:
    words = [*CONF, "experiment=robo_parking", "total_steps=3_000", *QUICK, "hydra.run.dir=outputs/parking"]
    done = rlrun("train", *words)
    assert done.code == 0, done.err
    assert "6 numbers, as Fourier features" in done.out
    assert "Fourier + SingleStream" in done.out

    done = rlrun("eval", "outputs/parking", "which=last", "episodes=50")
    assert done.code == 0, done.err
    (score,) = Path("outputs/parking/eval").glob("*.json")
    mean, chance = json.loads(score.read_text())["return"]["mean"], random_score(50)
    assert chance < -5
    assert mean > chance + 6

    done = rlrun("play", "outputs/parking", "episodes=1", "video=parked.gif")
    assert done.code == 0, done.err
    assert Path("parked.gif").read_bytes()[:6] == b"GIF89a"
    done = rlrun("train", "resume=outputs/parking", "total_steps=3_020")
    assert done.code == 0, done.err

    Path("outputs/parking").rename("outputs/theirs")  # no longer known as a run that this user started
    assert "trust=[robo_parking]" in refused("eval", "outputs/theirs")
    assert rlrun("eval", "outputs/theirs", "which=last", "episodes=2", "trust=[robo_parking]").code == 0


def curves(run: str) -> list[str]:
    return [row for row in Path(run, "metrics.csv").read_text().splitlines() if ",time/" not in row]


def test_a_resumed_run_is_the_uninterrupted_one() -> None:
    words = [*CONF, "experiment=robo_parking", *QUICK, "log.every_steps=100", "eval.every_steps=200"]
    for run, steps in [("outputs/whole", 600), ("outputs/resumed", 400)]:
        assert rlrun("train", *words, f"total_steps={steps}", f"hydra.run.dir={run}").code == 0
    assert rlrun("train", "resume=outputs/resumed", "total_steps=600").code == 0
    assert curves("outputs/resumed") == curves("outputs/whole")


@pytest.mark.parametrize(
    "words",
    [
        ["env=robo_parking"],
        ["env=cartpole", "network/torso=fourier", "exploration=max_boltzmann", "learn_every_steps=10"],
        ["env=gym", "env.id=RoboParking-v0", "env.imports=[robo_parking]", "agent=rainbow", *SUPPORT],
    ],
)
def test_each_part_works_alone(words: list[str]) -> None:
    done = rlrun("train", *CONF, *words, *QUICK, "total_steps=60", "learning_starts=40")
    assert done.code == 0, done.err


def test_the_environment_keeps_gymnasiums_rules_and_its_bounds() -> None:
    from robo_parking.environment import RoboParking  # type: ignore[import-not-found]

    env = RoboParking(render_mode="rgb_array")
    check_env(env)
    env.action_space.seed(0)
    seen = [env.reset(seed=0)[0]]
    for _ in range(2_000):
        obs, _, terminated, _, _ = env.step(env.action_space.sample())
        seen.append(env.reset()[0] if terminated else obs)
    picture = env.render()
    assert picture.shape == (200, 200, 3)
    observations = np.array(seen)
    assert (abs(observations) <= 1).all()
    assert (abs(observations).max(axis=0) > 0.8).all()  # bounds that are nearly reached


def test_exploration_draws_from_the_softmax_with_probability_epsilon_and_never_what_is_forbidden() -> None:
    from robo_parking.exploration import MaxBoltzmann  # type: ignore[import-not-found]

    q, n = np.array([[2.0, 1.0, -np.inf, 0.0]]), 20_000
    actions = MaxBoltzmann(0.5, 0.5, 0, temperature=2.0)(np.repeat(q, n, axis=0), 0, np.random.default_rng(0))
    softmax = torch.from_numpy(q / 2.0).softmax(dim=1)[0].numpy()
    wanted = 0.5 * softmax + 0.5 * np.array([1, 0, 0, 0])
    np.testing.assert_allclose(np.bincount(actions, minlength=4) / n, wanted, atol=0.015)
