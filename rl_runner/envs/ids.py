"""Hints for environment ids that are not registered."""

from __future__ import annotations

import difflib
import re
import sys

import gymnasium as gym

from rl_runner.catalogue import atari_option, without_version

PACKAGES = {  # well-known packages, by how their ids begin; importing the module or calling its function registers them
    r"(MiniGrid|BabyAI)-": "minigrid",
    r"MiniWorld-": "miniworld",
    r"(highway|merge|roundabout|parking|intersection|racetrack|exit|two-way|u-turn|lane-keeping)-": "highway_env",
    r"(Fetch|Hand|AdroitHand|FrankaKitchen|PointMaze_|AntMaze_)": "gymnasium_robotics",
    r"Vizdoom": "vizdoom.gymnasium_wrapper",
    r"FlappyBird-": "flappy_bird_gymnasium",
    r"mo-": "mo_gymnasium",
    r"MinAtar/": "minatar.gym:register_envs",
    r"bsuite/": "shimmy",
}


def hint(id: str) -> str:
    """Return a hint for an id that is not registered: another version of it, an Atari game, a package, a near name."""
    registered = _newest_versions()
    name = without_version(id)
    if name in registered:
        return f"the newest version is {registered[name]}"
    if option := atari_option(id):
        return f"for this Atari game: {option}"
    module = next((module for prefix, module in PACKAGES.items() if re.match(prefix, id)), None)
    if module and module.partition(":")[0] not in sys.modules:
        return f"import the package that registers it: env.imports=[{module}]"
    near = difflib.get_close_matches(name, registered, n=1, cutoff=0.7)
    if near:
        return f"did you mean {registered[near[0]]}?"
    return "import the module that registers it: env.imports=[my_module]"


def _newest_versions() -> dict[str, str]:
    """Return the registered ids by their names, the highest version of each."""
    specs = sorted(gym.registry.values(), key=lambda spec: spec.version or 0)
    return {without_version(spec.id): spec.id for spec in specs}
