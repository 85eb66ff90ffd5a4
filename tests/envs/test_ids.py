"""Ids that Gymnasium does not know: the hint is what was meant."""

import subprocess
import sys
from types import ModuleType

import gymnasium as gym
import pytest
from ale_py import roms

from rl_runner.envs import ids

ATARI = [id for id, spec in gym.registry.items() if str(spec.entry_point).startswith("ale_py")]


@pytest.fixture(autouse=True)
def _atari_is_not_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a run of `env=gym`, where nobody imports ale_py."""
    for id in ATARI:
        monkeypatch.delitem(gym.registry, id, raising=False)


@pytest.mark.parametrize(
    ("id", "says"),
    [
        # another version
        ("CartPole-v2", "the newest version is CartPole-v1"),
        ("CartPole", "the newest version is CartPole-v1"),
        ("LunarLander-v2", "the newest version is LunarLander-v3"),
        ("Taxi-v3", "the newest version is Taxi-v4"),
        ("HalfCheetah-v99", "the newest version is HalfCheetah-v5"),
        ("phys2d/CartPole-v9", "the newest version is phys2d/CartPole-v1"),
        ("Blackjack-v0", "the newest version is Blackjack-v1"),  # a game of Atari too
        # Atari
        ("ALE/Pong-v5", "env=pong"),
        ("PongNoFrameskip-v4", "env=pong"),
        ("PongDeterministic-v4", "env=pong"),
        ("Pong-ramNoFrameskip-v4", "env=pong"),
        ("Pong-v0", "env=pong"),
        ("Breakout-v4", "env=breakout"),
        ("MsPacmanNoFrameskip-v4", "env=ms_pacman"),
        ("ALE/Tetris-v5", "env=atari env.game=tetris"),
        ("ALE/UpNDown-v5", "env=atari env.game=up_n_down"),
        ("ALE/TicTacToe3D-v5", "env=atari env.game=tic_tac_toe_3d"),
        # packages
        ("MiniGrid-Empty-5x5-v0", "env.imports=[minigrid]"),
        ("BabyAI-GoToRedBall-v0", "env.imports=[minigrid]"),
        ("MinAtar/Breakout-v1", "env.imports=[minatar.gym:register_envs]"),
        ("bsuite/catch-v0", "env.imports=[shimmy]"),
        ("highway-v0", "env.imports=[highway_env]"),
        ("parking-v0", "env.imports=[highway_env]"),
        ("FetchReach-v4", "env.imports=[gymnasium_robotics]"),
        ("RoboParking-v0", "env.imports=[my_module]"),
        ("", "env.imports=[my_module]"),
        # near names
        ("CartPol-v1", "did you mean CartPole-v1?"),
        ("cartpole-v1", "did you mean CartPole-v1?"),
        ("LunarLandr-v2", "did you mean LunarLander-v3?"),
    ],
)
def test_what_was_meant(id: str, says: str) -> None:
    assert ids.hint(id).endswith(says)


def test_every_game_is_found_by_its_id() -> None:
    meant = {id: ids.hint(id).split(": ")[1].split("=")[-1] for id in ATARI if id.startswith("ALE/")}
    assert len(meant) > 100
    assert set(meant.values()) <= set(roms.get_all_rom_ids())
    assert {id.lower() for id in meant} == {f"ale/{game.replace('_', '')}-v5" for game in meant.values()}


def test_a_package_that_is_imported_already_is_not_hinted_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "minigrid", ModuleType("minigrid"))
    monkeypatch.setitem(gym.registry, "MiniGrid-Empty-5x5-v0", gym.envs.registration.EnvSpec("MiniGrid-Empty-5x5-v0"))
    assert ids.hint("MiniGrid-Emty-5x5-v0") == "did you mean MiniGrid-Empty-5x5-v0?"
    assert ids.hint("MiniGrid-Empty-5x5-v1") == "the newest version is MiniGrid-Empty-5x5-v0"


def test_a_hint_registers_nothing() -> None:
    """Or the next job of a sweep would find what this one did not."""
    code = (
        "import gymnasium, sys; before = set(gymnasium.registry)\n"
        "from rl_runner.envs import ids; ids.hint('ALE/Pong-v5')\n"
        "print(set(gymnasium.registry) - before, 'ale_py' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set() False\n"
