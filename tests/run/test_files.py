"""What a command made for nothing is removed, and nothing else."""

from pathlib import Path

from rl_runner.run.files import remove_unused


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
