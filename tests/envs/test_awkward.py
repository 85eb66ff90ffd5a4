"""Environments as users bring them, each through whole commands to its stated outcome."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.commandline import SHORT, Done, only_run, rlrun
from tests.envs import awkward_envs

MODULE = "tests.envs.awkward_envs"
TRUST = f"trust=[{MODULE}]"
Q = ["agent=q_learning", *(word for word in SHORT if word.split(".")[0] in ("total_steps=40", "eval"))]
DQN = [*SHORT, "learn_every_steps=8", "num_threads=1"]


def train(name: str, *words: str) -> Done:
    return rlrun("train", "env=gym", f"env.id={name}-v0", f"env.imports=[{MODULE}]", *words)


def line(done: Done) -> str:
    """Return the one line of a command that was refused, or ended by what the environment gave."""
    assert done.code == 2, done
    assert done.err.count("\n") == 1, done.err
    assert done.err.startswith("rlrun: "), done.err
    return done.err.strip().removeprefix("rlrun: ")


REFUSED = [
    ("NaNReward", DQN, "env: NaNReward-v0 returned the reward nan at step 1 of episode 0"),
    ("InfiniteObs", DQN, "env: InfiniteObs-v0 returned an observation that holds inf at step 0 of episode 0"),
    ("NoReward", DQN, "env: NoReward-v0: its step returns the reward None; is a `return reward` missing?"),
    (
        "WrongShape",
        DQN,
        "env: WrongShape-v0: its reset returns an observation of shape (4,); its observation_space has shape (3,)",
    ),
    (
        "OutOfRange",
        DQN,
        "env: OutOfRange-v0 returned the state -1, which is not in its observation_space Discrete(5)",
    ),
    (
        "OutOfRange",
        Q,
        "env: OutOfRange-v0 returned the state -1, which is not in its observation_space Discrete(5)",
    ),
    (
        "Mission",
        DQN,
        "env: Mission-v0: the part 'mission' of its observations (Words) cannot be read as numbers; remove it: "
        "'env.wrappers=[{_target_: gymnasium.wrappers.FilterObservation, filter_keys: [image]}]'",
    ),
    (
        "OldStep",
        DQN,
        "env: OldStep-v0: its step returns 4 values; it must be "
        "step(self, action) -> (observation, reward, terminated, truncated, info)",
    ),
    (
        "Knobs",
        DQN,
        "env: Knobs-v0 has actions MultiDiscrete([2 3], start=[1 1]); this agent needs a finite number of them "
        "(Discrete); agent=ppo, agent=a2c and others take these",
    ),
    (
        "Buttons",
        DQN,
        "env: Buttons-v0 has actions MultiBinary(4); this agent needs a finite number of them (Discrete); agent=ppo, "
        "agent=a2c and others take these",
    ),
    (
        "Orders",
        DQN,
        "env: Orders-v0 has actions of type Dict; rlrun sends Discrete, Box, MultiDiscrete and MultiBinary ones; "
        "a wrapper can convert them: env.wrappers=[{_target_: my_pkg.MyWrapper}]",
    ),
    (
        "OldReset",
        DQN,
        "env: OldReset-v0: its reset takes no seed= or options= (OldReset.reset() got an unexpected keyword argument "
        "'seed'); it must be reset(self, *, seed=None, options=None) -> (observation, info)",
    ),
]


@pytest.mark.parametrize(("name", "words", "wanted"), REFUSED, ids=[f"{n} {w[0]}" for n, w, _ in REFUSED])
@pytest.mark.parametrize("processes", [False, True])
def test_what_cannot_be_learned_from_is_one_line(
    workdir: Path, name: str, words: list[str], wanted: str, processes: bool
) -> None:
    if processes and name not in ("NoReward", "OldStep"):  # one error of a step, one of the interface
        pytest.skip("the same code runs in the process")
    assert line(train(name, *words, f"env.processes={processes}")) == wanted


@pytest.mark.parametrize("name", ["Knobs", "Buttons", "Levers"])
def test_a_random_agent_plays_whatever_the_actions_are(workdir: Path, name: str) -> None:
    words = [f"env.id={name}-v0", f"env.imports=[{MODULE}]", "env.processes=true"]  # it draws in this process
    done = rlrun("play", "env=gym", *words, "video=a.gif")
    assert (done.code, done.err) == (0, ""), done
    assert "episode 1: return 10, 10 steps" in done.out


@pytest.mark.parametrize("agent", ["q_learning", "sarsa"])
def test_tables_refuse_rewards_that_are_no_numbers(workdir: Path, agent: str) -> None:
    words = ["env.wrappers=[{_target_: gymnasium.wrappers.DiscretizeObservation, bins: 3}]", f"agent={agent}"]
    wanted = "env: NaNReward-v0 returned the reward nan at step 1 of episode 0"
    assert line(train("NaNReward", "total_steps=40", "eval.episodes=1", *words)) == wanted


@pytest.mark.parametrize("agent", ["dqn", "q_learning"])
def test_a_thousand_million_states_are_refused_with_the_memory_that_they_take(workdir: Path, agent: str) -> None:
    words = DQN if agent == "dqn" else ["total_steps=40"]
    said = line(train("ManyStates", f"agent={agent}", *words))
    assert re.search(r"1,000,000,000 .* takes? [\d,.]+ GB, but [\d.]+ GB of memory are free", said), said


def test_flags_are_learned_as_they_are(workdir: Path) -> None:
    """Divided by 255 they end at chance, 10 of 20."""
    words = ["total_steps=3000", "learning_starts=200", "learn_every_steps=4", "batch_size=32", "num_threads=1"]
    words += ["eval.every_steps=0", "eval.episodes=10", "exploration.steps=1500", "agent.gamma=0", "optimizer.lr=1e-3"]
    done = train("Flags", *words)
    assert done.code == 0, done
    assert re.search(r"(?m)^observations +16 flags, as they are *$", done.out)
    assert "best evaluation: 20.00" in done.out


def test_one_nan_in_an_evaluation_is_one_line_and_no_best_agent(workdir: Path) -> None:
    awkward_envs.NaNOnce.count = 0
    words = [*DQN, "total_steps=200", "eval.every_steps=100", "eval.num_envs=1"]
    assert line(train("NaNOnce", *words)) == "env: NaNOnce-v0 returned the reward nan at step 5 of episode 0"
    assert not list(only_run().glob("checkpoints/best*"))


def test_a_reward_of_one_element_is_a_number(workdir: Path) -> None:
    done = train("ArrayReward", *DQN)
    assert done.code == 0, done
    assert "best evaluation: 10.00" in done.out


def test_a_process_that_dies_is_one_line_and_the_last_checkpoint_stays(workdir: Path) -> None:
    words = ["total_steps=5000", "checkpoint.every_steps=10", "env.processes=true", "learn_every_steps=1000"]
    said = line(train("Dies", *DQN, *words))
    assert re.fullmatch(r"env: the process of Dies-v0 died with exit code 7 at step \d+ of episode \d+", said), said
    assert list(only_run().glob("checkpoints/step_*/manifest.json"))


@pytest.mark.parametrize("name", ["MirrorLake", "ScaledLake"])
def test_a_table_that_is_not_what_is_played_plans_nothing_and_measures_nothing(workdir: Path, name: str) -> None:
    said = line(train(name, "agent=value_iteration"))
    why = f"the table P of {name}-v0 does not match the environment"
    assert said.startswith(f"env: planning needs the dynamics, but {why}")
    done = train(name, *Q)
    assert done.code == 0, done
    assert re.search(f"(?m)^exact measures +none, {why}", (only_run() / "train.log").read_text())
    assert "exact/" not in (only_run() / "metrics.csv").read_text()


def test_an_environment_that_cannot_be_played_again_is_named(workdir: Path) -> None:
    assert train("OwnRandomness", *DQN).code == 0
    done = rlrun("eval", "latest", "episodes=4", "num_envs=2", "video=true", "video_episodes=1", TRUST)
    assert done.code == 0, done
    assert "OwnRandomness-v0 is not deterministic" in done.out
    assert "another episode than the one that was counted" in done.out
    assert not json.loads(next(Path().glob("outputs/**/eval/*.json")).read_text())["deterministic"]
    assert train("OwnRandomLength", *DQN).code == 0
    done = rlrun("eval", "latest", "episodes=4", "num_envs=1", "video=true", "video_episodes=2", TRUST)
    assert (done.code, done.err) == (0, ""), done


def test_a_state_of_its_own_is_named_in_evaluation_and_in_resume(workdir: Path) -> None:
    assert train("Drifting", *DQN, "total_steps=45").code == 0
    done = rlrun("eval", "latest", "episodes=4", "num_envs=2", TRUST)
    assert "Drifting-v0 is not deterministic, or has a state of its own that is not saved" in done.out
    done = rlrun("train", "resume=latest", "total_steps=60", TRUST)
    assert "environment 0 is not deterministic: its running episode was ended as truncated" in done.out


def test_statistics_belong_to_the_agent_and_scores_do_not_depend_on_num_envs(workdir: Path) -> None:
    """The agent normalises in place of the wrapper, with the statistics of its training, frozen in evaluation."""
    words = ["total_steps=1500", "learning_starts=100", "learn_every_steps=4", "batch_size=32", "num_threads=1"]
    words += ["eval.every_steps=0", "eval.episodes=5", "exploration.steps=700"]
    done = train("NormalizedWalk", *words)
    assert done.code == 0, done
    words = "1 number in [-inf, inf], as they are, normalised by running statistics saved with the agent"
    assert words in (only_run() / "train.log").read_text()
    assert "best evaluation: 10.00" in done.out  # to the right from the start: 1 in each of 10 steps
    for num_envs in (1, 5, 20):
        evaluated = rlrun("eval", "latest", "episodes=20", f"num_envs={num_envs}", TRUST)
        assert re.search(r"mean +│ +10.00 │", evaluated.out), evaluated
        assert re.search(r"95 % CI │ 10.00 to 10.00 │", evaluated.out), evaluated
        assert "not deterministic" not in evaluated.out
    done = rlrun("train", "resume=latest", "total_steps=1510", TRUST)
    assert "not deterministic" not in done.out


def test_pictures_of_floats_are_converted_and_none_are_refused_before_playing(workdir: Path) -> None:
    assert train("FloatFrames", *DQN).code == 0
    done = rlrun("eval", "latest", "episodes=1", "num_envs=1", "video=true", TRUST)
    assert (done.code, done.err) == (0, ""), done
    assert len(list(Path().glob("outputs/**/videos/*.mp4"))) == 1
    assert train("NoPicture", *DQN).code == 0
    assert rlrun("eval", "latest", "episodes=1", "num_envs=1", TRUST).code == 0
    done = rlrun("eval", "latest", "episodes=1", "num_envs=1", "video=true", TRUST)
    assert line(done).startswith("env: NoPicture-v0 cannot be drawn")
    assert done.out == ""


WRAPPED = [
    "env.wrappers=[{_target_: gymnasium.wrappers.GrayscaleObservation}]",
    "env.frame_stack=4",
    "env.max_steps=7",
    "env.kwargs.size=12",
]


def test_wrappers_stacks_limits_and_arguments_hold_in_training_evaluation_and_resume(workdir: Path) -> None:
    done = train("Colours", *DQN, *WRAPPED, "total_steps=45", "checkpoint.every_steps=30")
    assert done.code == 0, done
    assert re.search(r"(?m)^observations +images of 12x12, 4 planes, numbers in \[0, 255\], divided by 255", done.out)
    assert re.search(r"(?m)^network +SmallCNN", done.out)
    assert "return 7.00 (last 6 episodes)" in done.out
    whole = [row for row in (only_run() / "metrics.csv").read_text().splitlines() if "time/" not in row]
    evaluated = rlrun("eval", "latest", "episodes=2", "num_envs=2", TRUST)
    assert re.search(r"mean +│ +[\d.-]+ │ +7.00 │", evaluated.out), evaluated
    (result,) = Path().glob("outputs/**/eval/*.json")
    protocol = json.loads(result.read_text())["protocol"]
    assert (protocol["wrappers"], protocol["max_steps"]) == ("GrayscaleObservation", 7)

    again = ["hydra.run.dir=outputs/again", *DQN, *WRAPPED, "checkpoint.every_steps=30"]
    assert train("Colours", *again, "total_steps=30").code == 0
    assert rlrun("train", "resume=outputs/again", "total_steps=45", TRUST).code == 0
    rows = [row for row in Path("outputs/again/metrics.csv").read_text().splitlines() if "time/" not in row]
    assert [row for row in rows if row.startswith("45,")] == [row for row in whole if row.startswith("45,")]
