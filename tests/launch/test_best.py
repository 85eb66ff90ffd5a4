"""The best configuration of a search as a file."""

from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from rl_runner.launch import best

MINE = """\
# @package _global_
defaults:
  - override /env: cartpole
  - override /hydra/sweeper: optuna
total_steps: 300
agent:
  gamma: 0.9
hydra:
  sweeper:
    n_trials: 2
"""


class Groups:
    def get_group_options(self, key: str) -> list[str]:
        return ["some"] if key in ("env", "network", "experiment") else []


def written(tmp_path: Path, *words: str) -> tuple[dict[str, Any], list[str]]:
    groups: Any = Groups()
    text, left = best.experiment(OverridesParser.create().parse_overrides(list(words)), groups, [tmp_path])
    return yaml.load(text, yaml.BaseLoader), left


def test_groups_values_and_what_has_no_place_in_a_file(tmp_path: Path) -> None:
    words = ["network=mlp", "optimizer.lr=0.001", "+env.kwargs.name='a b'", "network.hidden=[64,'x']", "~sync"]
    found, left = written(tmp_path, *words)
    assert found == {
        "defaults": [{"override /network": "mlp"}],
        "optimizer": {"lr": "0.001"},
        "env": {"kwargs": {"name": "a b"}},
        "network": {"hidden": ["64", "x"]},
    }
    assert left == ["~sync"]


def test_an_experiment_that_it_was_built_on_without_what_made_it_a_search(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(MINE)
    found, _ = written(tmp_path, "agent.gamma=0.5", "env=acrobot", "experiment=mine")
    assert found == {"defaults": [{"override /env": "acrobot"}], "total_steps": "300", "agent": {"gamma": "0.5"}}
    assert written(tmp_path, "experiment=elsewhere")[0] == {"defaults": ["elsewhere"]}


def test_the_command_keeps_the_users_own_directory(tmp_path: Path) -> None:
    groups: Any = Groups()
    command = best.write(tmp_path, ["network=mlp", "~sync"], "About.", groups, [], None)
    assert command == f"rlrun train --config-dir {tmp_path}/best experiment=best '~sync'"
    assert (tmp_path / "best/experiment/best.yaml").read_text().startswith("# @package _global_\n# About.\n# rlrun ")
    own = best.write(tmp_path, ["network=mlp"], "About.", groups, [], Path("my"))
    assert own == f"rlrun train --config-dir my 'hydra.searchpath=[file://{tmp_path}/best]' experiment=best"
