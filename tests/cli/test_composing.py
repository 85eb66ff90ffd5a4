"""Keys that a named class takes need no "+", whoever the class is by."""

from pathlib import Path

import pytest
import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl

from tests.commandline import SHORT, refused, rlrun

TORSO = """
import torch
class Torso(torch.nn.Linear):
    def __init__(self, space, width=7):
        super().__init__(space.shape[0], width)
class Open(Torso):
    def __init__(self, space, **more):
        super().__init__(space, more["wide"])
"""


@pytest.fixture
def torso(workdir: Path) -> str:
    (workdir / "own_torso.py").write_text(TORSO)
    return "network/torso._target_=own_torso.Torso"


@pytest.mark.parametrize("key", ["network/torso.width", "network.torso.width", "+network.torso.width"])
def test_an_argument_of_ones_own_torso(key: str, torso: str) -> None:
    shown = yaml.safe_load(rlrun("train", f"{key}=32", torso, "--cfg", "job").out)
    assert shown["network"]["torso"]["width"] == 32


def test_an_argument_that_only_its_kwargs_take(torso: str) -> None:
    words = [torso.replace("Torso", "Open"), "network.torso.wide=3"]
    assert yaml.safe_load(rlrun("train", *words, "--cfg", "job").out)["network"]["torso"]["wide"] == 3


def test_an_argument_of_an_optimizer_in_torch(workdir: Path) -> None:
    words = ["optimizer.momentum=0.9", "optimizer.nesterov=true", "optimizer._target_=torch.optim.SGD"]
    shown = yaml.safe_load(rlrun("train", *words, "--cfg", "job").out)["optimizer"]
    assert (shown["momentum"], shown["nesterov"]) == (0.9, True)
    assert "there is no key 'optimizer.nestrov'" in refused("train", "optimizer.nestrov=1", words[2])


def test_a_sweep_over_an_argument(torso: str, workdir: Path) -> None:
    done = rlrun("train", "-m", torso, "network/torso.width=3,4", *SHORT)
    assert (done.code, done.err) == (0, ""), done
    runs = sorted(workdir.glob("outputs/sweeps/*/*/config.yaml"))
    assert [yaml.safe_load(run.read_text())["network"]["torso"]["width"] for run in runs] == [3, 4]
    assert [run.parent.name for run in runs] == ["0_+network.torso.width=3", "1_+network.torso.width=4"]


def test_an_environments_own_arguments_as_a_mapping() -> None:
    for words in (["env.kwargs={continuous: true}"], ["env.kwargs.continuous=true"]):
        shown = yaml.safe_load(rlrun("train", "env=lunarlander", *words, "--cfg", "job").out)
        assert shown["env"]["kwargs"] == {"continuous": True}


def test_a_misspelt_argument_of_a_class_of_the_users(workdir: Path) -> None:
    (workdir / "wide_pkg.py").write_text(
        "import torch\ndef net(space, width=8):\n    return torch.nn.Linear(space.shape[0], width)\n"
    )
    line = refused("train", "network/torso._target_=wide_pkg.net", "network.torso.widht=32")
    assert line == "rlrun: there is no key 'network.torso.widht'; did you mean network.torso.width?"


def test_whole_numbers_in_scientific_notation(workdir: Path) -> None:
    done = rlrun("train", "--cfg", "job", "total_steps=2.5e3", "optimizer.lr=1e-3", "eval.every_steps=1E+3")
    assert "\ntotal_steps: 2500\n" in done.out
    assert "\n  every_steps: 1000\n" in done.out
    assert "\n  lr: 0.001\n" in done.out
    assert "must be a whole number" in refused("train", "total_steps=1.55e1")


def test_a_key_of_the_resumed_runs_own_agent_is_refused_for_the_resume(workdir: Path) -> None:
    """The words are composed with the default agent, which has no such keys."""
    words = ["agent=ppo", "env=cartpole", "total_steps=64", "rollout_steps=8", "eval.episodes=1"]
    assert rlrun("train", *words, "hydra.run.dir=outputs/mine").code == 0
    for key in ("agent.clip", "agent.entropy_coef", "rollout_steps"):
        line = refused("train", "resume=outputs/mine", "total_steps=128", f"{key}=1")
        assert line.startswith(f"rlrun: {key}: cannot change when a run is resumed; leave it out, or ")
    line = refused("train", "resume=outputs/mine", "stop.retrun=3")
    assert line == "rlrun: there is no key 'stop.retrun'; did you mean stop.return?"
    assert rlrun("train", "resume=outputs/mine", "total_steps=128", "batch_size=32").code == 0


def test_a_single_run_is_composed_once(monkeypatch: pytest.MonkeyPatch, workdir: Path) -> None:
    composed = []
    hydras = ConfigLoaderImpl.load_configuration

    def counted(loader: ConfigLoaderImpl, name: str | None, words: list[str], *more: object, **named: object) -> object:
        composed.append(words)
        return hydras(loader, name, words, *more, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", counted)
    done = rlrun("train", "seed=7121", *SHORT, "hydra.run.dir=outputs/${hydra.job.name}")
    assert done.code == 0, done
    assert len(composed) == 1, composed
    assert (workdir / "outputs" / "task" / "config.yaml").is_file()


def test_a_single_run_of_what_describes_a_sweep(workdir: Path) -> None:
    done = rlrun("train", "experiment=ablation", "ablation=dqn", *SHORT, "hydra.mode=RUN", "hydra.run.dir=outputs/one")
    assert done.code == 0, done
    assert (workdir / "outputs" / "one" / "config.yaml").is_file()
