"""Files of runs: what was made for nothing is removed and nothing else, runs and best agents are found."""

import math
from pathlib import Path

from rl_runner.run.checkpoint import Checkpoints, save
from rl_runner.run.files import best_checkpoint, best_saved, remove_unused, runs_under


def test_what_was_made_below_outputs_is_removed(workdir: Path) -> None:
    for run in ("outputs/cartpole/dqn/one", "outputs/cartpole/dqn/two"):
        Path(run).mkdir(parents=True)
    remove_unused(Path("outputs/cartpole/dqn/one"))
    assert [path.name for path in Path("outputs/cartpole/dqn").iterdir()] == ["two"]
    remove_unused(Path("outputs/cartpole/dqn/two"))
    assert not Path("outputs").exists()


def test_directories_above_a_chosen_one_stay(workdir: Path) -> None:
    run = workdir / "disk" / "mine" / "run"
    run.mkdir(parents=True)
    remove_unused(run)
    assert list((workdir / "disk").rglob("*")) == [workdir / "disk" / "mine"]


def test_what_is_not_empty_stays(workdir: Path) -> None:
    Path("outputs/run").mkdir(parents=True)
    Path("outputs/run/train.log").write_text("a line\n")
    remove_unused(Path("outputs/run"))
    assert Path("outputs/run/train.log").read_text() == "a line\n"


def test_runs_are_found_in_the_order_of_the_numbers_in_their_names(tmp_path: Path) -> None:
    """And what lies in a run is no run, as the files of Weights & Biases."""
    for name in ("s/10", "s/9", "s/9/wandb/run-1/files", "s/.bin/8", "s/conf"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").touch()
        if name != "s/conf":
            (tmp_path / name / "train.log").touch()
    assert list(runs_under(tmp_path)) == [tmp_path / "s/9", tmp_path / "s/10"]
    assert list(runs_under(tmp_path / "s/9")) == [tmp_path / "s/9"]
    assert list(runs_under(tmp_path / "nowhere")) == []


def test_of_two_best_checkpoints_that_a_kill_left_the_higher_score_counts(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert best_checkpoint(checkpoints.directory) is None
    assert best_saved(tmp_path) == -math.inf
    checkpoints.save_best(900, {"agent": {}}, {"return": {"mean": 3.0}})
    assert best_checkpoint(checkpoints.directory) == checkpoints.directory / "best_000000900"
    save(checkpoints.directory / "best_000001000", {"agent": {}}, {"return": {"mean": 4.0}})  # killed before the link
    assert (
        best_checkpoint(checkpoints.directory) == checkpoints.directory / "best_000001000" == checkpoints.find("best")
    )
    save(checkpoints.directory / "best_000001100", {"agent": {}}, {"return": {"mean": math.nan}})
    assert (
        best_checkpoint(checkpoints.directory) == checkpoints.directory / "best_000001000" == checkpoints.find("best")
    )
    assert best_saved(tmp_path) == 4.0
    for text in ("[" * 100_000, '{"about": {"return": {"mean": 1%s}}}' % ("0" * 400)):
        (checkpoints.directory / "best_000001000/manifest.json").write_text(text)
        assert best_saved(tmp_path) == 3.0
