"""The Python API, as a user's script uses it."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.version import getbase

import rl_runner as rlrun
from rl_runner.envs.vector import EpisodicVectorEnv
from rl_runner.loops.replay import ReplayLoop
from tests.commandline import SHORT, SHORT_ATARI, files
from tests.commandline import rlrun as command

TABLE = ["env=frozenlake", "agent=q_learning", "total_steps=300", "eval.episodes=2"]


def test_importing_it_costs_nothing_until_it_is_used() -> None:
    lines = [
        "import sys, rl_runner",
        "print(sorted({'torch', 'numpy', 'hydra', 'gymnasium'} & set(sys.modules)), rl_runner.__version__)",
        "print(set(dir(rl_runner)) == set(rl_runner.__all__), hasattr(rl_runner, 'nothing'))",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"[] {rlrun.__version__}", "True False"]


def test_train_returns_what_the_command_prints(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = rlrun.train([*SHORT, "eval.every_steps=20", "eval.episodes=3", "num_threads=1"])
    out = capsys.readouterr().out
    assert isinstance(result, rlrun.TrainResult)
    assert f"{result.steps} steps, {result.episodes} episodes, {result.updates} updates" in out
    assert f"best evaluation: {result.best:.2f} at step {result.best_step}" in out
    assert (result.run / "config.yaml").is_file()
    assert result.steps == 40
    assert result.seconds > 0
    assert result.last is not None
    rows = [json.loads(line) for line in (result.run / "evaluations.jsonl").read_text().splitlines()]
    assert result.last.returns == [row["return"] for row in rows if row["step"] == 40]
    assert result.last.mean == pytest.approx(np.mean(result.last.returns))
    assert result.last.std == pytest.approx(np.std(result.last.returns, ddof=1))


def test_training_is_that_of_the_command(workdir: Path) -> None:
    result = rlrun.train([*SHORT, "seed=3", "name=mine"], quiet=True)
    assert re.fullmatch(r"outputs/cartpole/dqn/[\d_-]+_s3_mine", str(result.run.relative_to(workdir)))
    assert command("train", *SHORT, "seed=3", "hydra.run.dir=outputs/command").code == 0
    for name in ("episodes.csv", "evaluations.jsonl"):
        assert (result.run / name).read_bytes() == Path("outputs/command", name).read_bytes()
    agent, other = rlrun.load(result.run, "last"), rlrun.load("outputs/command", "last")
    assert repr(agent) == f"LoadedAgent(DQN on cartpole, step {agent.step}, {agent.checkpoint})"
    for ours, theirs in zip(agent.network.parameters(), other.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_training_is_quiet_resumed_and_chosen_a_directory(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = rlrun.train([*SHORT, "name=x", "hydra.run.dir=outputs/here"], quiet=True)
    assert result.run == workdir / "outputs/here"
    result = rlrun.train([f"resume={result.run}", "total_steps=60"], quiet=True)
    assert (result.run, result.steps) == (workdir / "outputs/here", 60)
    assert capsys.readouterr().out == ""
    assert "60 steps" in (result.run / "train.log").read_text()
    starts = json.loads((result.run / "provenance.json").read_text())
    assert [len(start["overrides"]) for start in starts] == [len(SHORT) + 2, 2]


def test_a_finished_run_is_still_solved(workdir: Path) -> None:
    words = [*SHORT, "total_steps=400", "stop.return=5", "stop.window=3", "learning_starts=400"]
    first = rlrun.train(words, quiet=True)
    assert first.solved
    assert rlrun.train([f"resume={first.run}", f"total_steps={first.steps}"], quiet=True).solved


def test_the_program_keeps_its_own_torch_and_hydra(workdir: Path) -> None:
    torch.set_num_threads(2)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    GlobalHydra.instance().clear()
    mine = HydraConfig.instance().cfg
    run = rlrun.train([*SHORT, "num_threads=1"], quiet=True).run
    rlrun.evaluate(run, episodes=1)
    rlrun.load(run)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == 2
    assert not GlobalHydra.instance().is_initialized()
    assert HydraConfig.instance().cfg is mine


def test_a_program_that_hydra_runs(workdir: Path) -> None:
    with initialize_config_dir(str(workdir), version_base=None):
        theirs, version = GlobalHydra.instance().hydra, getbase()
        rlrun.train([*SHORT, "num_threads=1"], quiet=True)
        assert GlobalHydra.instance().hydra is theirs
        assert getbase() is version
        with pytest.raises(rlrun.UserError, match=r"^there is no key 'total_stpes'; did you mean total_steps"):
            rlrun.train(["total_stpes=3"])


def test_torchs_modes_are_the_programs(workdir: Path) -> None:
    plain = rlrun.train([*SHORT, "num_threads=1", "hydra.run.dir=outputs/plain"], quiet=True)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode(), torch.device("meta"):
            run = rlrun.train([*SHORT, "num_threads=1", "hydra.run.dir=outputs/modes"], quiet=True).run
            agent = rlrun.load(run)
            assert agent.act(np.zeros(4)) == agent.q_values(np.zeros(4)).argmax()
            rlrun.evaluate(run, episodes=1)
            assert torch.is_inference_mode_enabled()
            assert torch.get_default_device().type == "meta"
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert (run / "episodes.csv").read_bytes() == (plain.run / "episodes.csv").read_bytes()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_within_a_programs_autocast(precision: str, workdir: Path) -> None:
    words = [*SHORT, "network=mlp", "num_threads=1", f"precision={precision}"]
    plain = rlrun.train([*words, "hydra.run.dir=outputs/plain"], quiet=True)
    with torch.autocast("cpu", torch.bfloat16):
        run = rlrun.train([*words, "hydra.run.dir=outputs/within"], quiet=True).run
        assert torch.is_autocast_enabled("cpu")
        assert torch.is_autocast_cache_enabled()
    ours, theirs = (rlrun.load(path, "last").network.state_dict() for path in (run, plain.run))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_one_thread_at_a_time(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trains, refused = threading.Event(), threading.Event()
    step = ReplayLoop.step

    def waits(loop: ReplayLoop) -> None:
        trains.set()
        assert refused.wait(60)
        step(loop)

    monkeypatch.setattr(ReplayLoop, "step", waits)
    runs: list[Path] = []
    thread = threading.Thread(target=lambda: runs.append(rlrun.train([*SHORT, "num_threads=1"], quiet=True).run))
    thread.start()
    assert trains.wait(60)
    for call in (rlrun.train, lambda: rlrun.load("x"), lambda: rlrun.evaluate("x")):
        with pytest.raises(rlrun.UserError, match=r"^another thread of this program trains, evaluates or loads"):
            call()
    print("shown")
    refused.set()
    thread.join()
    assert capsys.readouterr().out == "shown\n"
    assert rlrun.load(runs[0]).step == 40


def test_a_directory_that_the_program_left(workdir: Path) -> None:
    run = rlrun.train([*SHORT, "num_threads=1"], quiet=True).run
    (workdir / "sub").mkdir()
    os.chdir("sub")
    assert rlrun.evaluate(run, episodes=1).checkpoint == rlrun.load(run).checkpoint
    assert rlrun.load(run).checkpoint.is_absolute()


def test_modules_of_the_current_directory_are_found(workdir: Path) -> None:
    (workdir / "here_net.py").write_text(
        "import torch\ndef net(space):\n    return torch.nn.Linear(space.shape[0], 8)\n"
    )
    paths = list(sys.path)
    rlrun.train([*SHORT, "num_threads=1", "network/torso._target_=here_net.net"], quiet=True)
    assert sys.path == paths


MINE = """
import multiprocessing
import sys
import torch
import rl_runner as rlrun

def net(space):
    return torch.nn.Linear(space.shape[0], 8)

def job(words):
    rlrun.train([*words, "network/torso._target_=__main__.net", "hydra.run.dir=run"], quiet=True)
    print(rlrun.load("run").step, flush=True)

if __name__ == "__main__":
    if sys.argv[1] == "spawn":
        process = multiprocessing.get_context("spawn").Process(target=job, args=(sys.argv[2:],))
        process.start()
        process.join()
    else:
        job(sys.argv[1:])
"""


@pytest.mark.parametrize("how", [[], ["spawn"]], ids=str)
def test_a_class_of_the_script_itself(how: list[str], workdir: Path) -> None:
    Path("script.py").write_text(MINE)
    words = [sys.executable, "script.py", *how, *SHORT, "num_threads=1"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "40\n"), done
    with pytest.raises(rlrun.UserError, match=r"^trust: .*__main__.net"):  # another script
        rlrun.load("run")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["env=xyz"], r"env: there is no 'xyz'; must be one of acrobot"),
        (["total_stpes=3"], r"there is no key 'total_stpes'; did you mean total_steps\?"),
        (["total_steps=0"], r"total_steps: must be a whole number, 1 or more, got 0"),
        (["hello"], r"'hello': must be key=value"),
        ([1], r"overrides: must be a list of words, got 1 in it"),
        (iter(["seed=-1"]), r"seed: must be a whole number, 0 or more, got -1"),
        ([b"seed=1"], r"overrides: must be a list of words, got b'seed=1' in it"),
        (b"seed=1", r"overrides: must be a list of words, got b'seed=1'"),
        ({"env": "cartpole"}, r"overrides: must be a list of words, got {'env': 'cartpole'}"),
        ("hello", r"'hello': must be key=value"),
        (["env=cartpole", "total_steps=${oops}"], r".*oops"),
        (["-m", "seed=1,2"], r"-m: options of the command line are not taken here"),
        (["seed=1,2"], r"seed: one run for each of 1,2 needs -m"),
        (["--help"], r"--help: options of the command line are not taken here"),
        (["resume=nowhere"], r"resume: nowhere: no such directory"),
    ],
)
def test_errors_are_one_line(workdir: Path, words: list[str], line: str) -> None:
    with pytest.raises(rlrun.UserError, match=f"^{line}") as e:
        rlrun.train(words)
    assert "\n" not in str(e.value)
    assert files() == set()


def test_a_resume_that_refers_to_a_key_that_the_run_lacks(workdir: Path) -> None:
    run = rlrun.train([*TABLE, "num_threads=1"], quiet=True).run
    line = r"^log\.every_steps: has no value in the run's own configuration: .*'replay\.capacity' not found$"
    with pytest.raises(rlrun.UserError, match=line):
        rlrun.train([f"resume={run}", "log.every_steps=${replay.capacity}"], quiet=True)


def test_ctrl_c_saves_and_is_a_keyboard_interrupt(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = ReplayLoop.step

    def interrupted(loop: ReplayLoop) -> None:
        if loop.clock.steps == 20:
            os.kill(os.getpid(), 2)
        step(loop)

    monkeypatch.setattr(ReplayLoop, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rlrun.train([*SHORT, "hydra.run.dir=outputs/run"], quiet=True)
    monkeypatch.undo()
    os.chdir(workdir)
    assert rlrun.load("outputs/run").step == 21


# Evaluation


def test_evaluate_returns_what_the_command_writes(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = rlrun.evaluate(trained, episodes=7, seed=2, num_envs=3, epsilon=0.5)
    assert capsys.readouterr().out == ""
    written = (trained / "eval/best_000000040_seed2_episodes_7_num_envs_3_epsilon_0.5.json").read_text()
    assert command("eval", str(trained), "episodes=7", "seed=2", "num_envs=3", "epsilon=0.5").code == 0
    held = json.loads((trained / "eval/best_000000040_seed2_episodes_7_num_envs_3_epsilon_0.5.json").read_text())
    assert json.loads(written) == held
    assert isinstance(result, rlrun.EvalResult)
    for name in ("mean", "std", "median", "min", "max"):
        assert getattr(result, name) == held["return"][name]
    assert list(result.ci95) == held["return"]["ci95"]
    assert result.returns == [row["return"] for row in held["per_episode"]]
    assert len(set(result.seeds)) == len(result.lengths) == 7
    assert (result.step, result.checkpoint) == (40, trained.absolute() / "checkpoints/best_000000040")


def test_what_cannot_be_evaluated(trained: Path) -> None:
    for arguments, line in (
        ({"episodes": 0}, "episodes: must be a whole number, 1 or more, got 0"),
        ({"which": 3}, "which: no checkpoint '3'"),
        ({"seed": -1}, r"seed: must be a whole number, 0 or more, got -1"),
        ({"epsilon": 2.0}, r"epsilon: must be a number in \[0, 1\]"),
    ):
        with pytest.raises(rlrun.UserError, match=f"^{line}"):
            rlrun.evaluate(trained, **arguments)  # type: ignore[arg-type]
    with pytest.raises(rlrun.UserError, match=r"^nowhere: no such directory"):
        rlrun.evaluate("nowhere")


def test_environments_are_closed_if_an_evaluation_fails(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(envs: EpisodicVectorEnv) -> None:
        raise KeyboardInterrupt

    closed: list[EpisodicVectorEnv] = []
    monkeypatch.setattr(EpisodicVectorEnv, "recv", fail)
    monkeypatch.setattr(EpisodicVectorEnv, "close", lambda envs: closed.append(envs))
    with pytest.raises(KeyboardInterrupt):
        rlrun.evaluate(trained, episodes=1)
    assert len(closed) == 1
    (trained / "checkpoints/best_000000040/agent.npz").unlink()
    with pytest.raises(rlrun.UserError, match=r"agent.npz"):
        rlrun.evaluate(trained, episodes=1)
    assert len(closed) == 2


def test_numbers_of_numpy_and_a_single_trusted_name(trained: Path) -> None:
    result = rlrun.evaluate(trained, episodes=np.int64(2), epsilon=np.float32(0.5), trust="my_pkg")  # type: ignore[arg-type]
    assert len(result.returns) == 2
    agent = rlrun.load(trained, device=torch.device("cpu"), seed=np.int64(1))  # type: ignore[arg-type]
    agent.act(np.zeros(4), epsilon=np.float32(0.5))  # type: ignore[arg-type]


def test_a_score_that_cannot_be_written_is_returned_all_the_same(trained: Path) -> None:
    (trained / "eval").write_text("in the way")
    with pytest.warns(RuntimeWarning, match=r"best_000000040_seed0_episodes_2.json: cannot be written: File exists"):
        result = rlrun.evaluate(trained, episodes=2)
    (trained / "eval").unlink()
    assert rlrun.evaluate(trained, episodes=2).returns == result.returns


def test_which_is_not_asked_of_a_checkpoint(trained: Path) -> None:
    checkpoint = trained / "checkpoints/best_000000040"
    assert rlrun.load(checkpoint).step == 40
    for call in (rlrun.load, rlrun.evaluate):
        with pytest.raises(rlrun.UserError, match=r"^which: must be left out, because .* is a checkpoint, got last"):
            call(checkpoint, which="last")


# A loaded agent


def play(agent: Any, env: Any, seed: int) -> float:
    obs, info = env.reset(seed=seed)
    total, ended = 0.0, False
    while not ended:
        obs, reward, terminated, truncated, info = env.step(agent.act(obs, action_mask=info.get("action_mask")))
        total, ended = total + float(reward), terminated or truncated
    return total


def test_an_agent_plays_as_it_was_evaluated(trained: Path) -> None:
    """The oracle is the evaluation's episode of the same seed."""
    agent, result = rlrun.load(trained), rlrun.evaluate(trained, episodes=3)
    env, raw = agent.make_env(), agent.make_env(raw=True)
    for seed, total in zip(result.seeds, result.returns, strict=True):
        assert play(agent, env, seed) == play(agent, raw, seed) == total
    assert raw.unwrapped.spec is not None
    assert raw.unwrapped.spec.id == "CartPole-v1"
    env.close()
    raw.close()


def test_one_observation_or_a_batch(trained: Path) -> None:
    agent = rlrun.load(trained, which="last")
    batch = np.random.default_rng(0).normal(size=(5, 4))
    actions = agent.act(batch)
    assert actions.shape == (5,)
    assert [agent.act(obs) for obs in batch] == actions.tolist()
    assert isinstance(agent.act(batch[0].tolist()), int)
    values = agent.q_values(batch)
    assert values.shape == (5, 2)
    assert values.argmax(axis=1).tolist() == actions.tolist()
    np.testing.assert_allclose(agent.q_values(batch[0]), values[0], rtol=1e-5)
    with torch.no_grad():
        direct = agent.network(torch.tensor(batch, dtype=torch.float32))  # (5, A, 1)
    np.testing.assert_allclose(direct[..., 0].numpy(), values, rtol=1e-5)
    assert not agent.network.training
    assert agent.act(batch, action_mask=np.tile([True, False], (5, 1))).tolist() == [0] * 5
    assert agent.act(batch[0], action_mask=[False, True]) == 1
    draws = agent.act(np.tile(batch[0], (400, 1)), epsilon=1.0)
    assert 150 < draws.sum() < 250
    assert (agent.act(np.tile(batch[0], (400, 1)), epsilon=None) == agent.act(batch[0])).all()  # eval.epsilon is 0
    assert (agent.config["env"]["id"], agent.step) == ("CartPole-v1", 40)
    assert type(agent.config) is dict


def test_words_that_are_none_are_told(trained: Path) -> None:
    with pytest.raises(rlrun.UserError, match=r"^overrides: must be a list of words, got None"):
        rlrun.train(None)  # type: ignore[arg-type]
    with pytest.raises(rlrun.UserError, match=r"^trust: must be a list of words, got 5"):
        rlrun.evaluate(trained, trust=5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("obs", "line"),
    [
        ([1.0, 2.0], r"obs: must have the shape \(4,\), or \(N, 4\) for a batch, got \(2,\)"),
        (np.zeros((2, 3, 4)), r"obs: must have the shape \(4,\), or \(N, 4\) for a batch, got \(2, 3, 4\)"),
        (["a", "b", "c", "d"], r"obs: must be float32, got <U1"),
        ([0.0, 0.0, float("nan"), 0.0], r"obs: must be finite"),
        ([0.0, 0.0, 1e300, 0.0], r"obs: must be finite"),
        ((np.zeros(4), {}), r"obs: must be an array: .*"),  # what reset() returns
        (torch.zeros(4, requires_grad=True), r"obs: must be an array: .*"),
    ],
)
def test_what_is_no_observation(trained: Path, obs: Any, line: str) -> None:
    with pytest.raises(rlrun.UserError, match=f"^{line}$"):
        rlrun.load(trained).act(obs)


@pytest.mark.parametrize(
    "mask",
    [[True], [[True, False]], [True, True, True], [False, False], ["no", "yes"], [2, 0], [[True], [True, False]]],
)
def test_what_is_no_mask(trained: Path, mask: Any) -> None:
    agent = rlrun.load(trained)
    with pytest.raises(rlrun.UserError, match=r"^action_mask: must "):
        agent.act(np.zeros(4), action_mask=mask)
    assert agent.act(np.zeros(4), action_mask=[False, True]) == 1
    assert agent.act(np.zeros(4), action_mask=np.array([0, 1], np.float32)) == 1
    assert agent.act(np.zeros((2, 4)), action_mask=[[False, True], [True, False]]).tolist() == [1, 0]
    with pytest.raises(rlrun.UserError, match=r"^epsilon: must be a number in \[0, 1\]"):
        agent.act(np.zeros(4), epsilon=2)


@pytest.mark.filterwarnings("ignore")  # Gymnasium's checker would like a spec, and closer bounds
def test_its_environment_is_one_of_gymnasiums(trained: Path) -> None:
    env = rlrun.load(trained).make_env(render_mode="rgb_array")
    check_env(env, skip_render_check=True)
    env.reset(seed=0)
    with pytest.raises(rlrun.UserError, match=r"^options: must be left out"):
        env.reset(seed=0, options={"low": -0.01})
    assert env.render().shape == (400, 600, 3)
    while not env.step(0)[2]:
        pass
    with pytest.raises(gym.error.ResetNeeded):
        env.step(0)
    with pytest.raises(rlrun.UserError, match=r"^render_mode: must be rgb_array, or None, got 'human'"):
        rlrun.load(trained).make_env(render_mode="human")


def test_a_table(workdir: Path) -> None:
    run = rlrun.train([*TABLE, "hydra.run.dir=outputs/table"], quiet=True).run
    agent = rlrun.load(run)
    assert isinstance(agent.act(3), int)
    assert agent.act([0, 5, 7]).shape == (3,)
    assert agent.q_values(3).shape == (4,)
    assert not hasattr(agent, "network")
    with pytest.raises(AttributeError, match="QLearning has no network"):
        agent.network  # noqa: B018
    env = agent.make_env()
    assert play(agent, env, 5) in (0.0, 1.0)
    env.reset(seed=1)
    infos, ended = [], False
    while not ended:
        *_, terminated, truncated, info = env.step(1)
        infos, ended = [*infos, info], terminated or truncated
    assert infos[-1] == {"prob": pytest.approx(1 / 3)}  # what FrozenLake reports at the end
    assert not any(infos[:-1])
    with pytest.raises(rlrun.UserError, match=r"obs: must have the shape \(\), or \(N,\) for a batch, got \(2, 2\)"):
        agent.act([[1, 2], [3, 4]])
    with pytest.raises(rlrun.UserError, match="obs: must be int64, got float64"):
        agent.act(1.5)
    for state in (-1, 16):  # the first would be the last row of the table
        with pytest.raises(rlrun.UserError, match=rf"obs: must be in Discrete\(16\), got {state}"):
            agent.q_values(state)
        with pytest.raises(rlrun.UserError, match=rf"obs: must be in Discrete\(16\), got {state}"):
            agent.act([3, state])


def test_an_atari_game(workdir: Path) -> None:
    words = ["env=pong", *SHORT_ATARI, "total_steps=16", "hydra.run.dir=outputs/pong"]
    agent = rlrun.load(rlrun.train(words, quiet=True).run)
    env = agent.make_env()
    obs, _ = env.reset(seed=1)
    assert obs in env.observation_space
    assert agent.act(obs) in env.action_space
    raw = agent.make_env(raw=True)
    assert raw.spec is not None
    assert raw.spec.id == "ALE/Pong-v5"
    assert raw.reset(seed=1)[0].shape == (210, 160, 3)
    with pytest.raises(rlrun.UserError, match="obs: must be uint8, got float64"):
        agent.act(obs / 255)


def test_actions_that_begin_at_another_number(workdir: Path) -> None:
    """The agent answers in the environment's own numbers, and its environment takes them."""
    (workdir / "starts.py").write_text(
        "import gymnasium as gym\n"
        "class Starts(gym.Env):\n"
        "    observation_space = gym.spaces.Box(-1, 1, (2,))\n"
        "    action_space = gym.spaces.Discrete(3, start=5)\n"
        "    def reset(self, *, seed=None, options=None):\n"
        "        super().reset(seed=seed)\n"
        "        self.t = 0\n"
        "        return self.observation_space.sample() * 0, {}\n"
        "    def step(self, action):\n"
        "        assert action in (5, 6, 7), action\n"
        "        self.t += 1\n"
        "        return self.observation_space.sample() * 0, float(action == 7), self.t == 4, False, {}\n"
        "gym.register('Starts-v0', Starts)\n"
    )
    sys.path.append(str(workdir))
    words = ["env=gym", "env.id=Starts-v0", "env.imports=[starts]", "hydra.run.dir=outputs/starts", *SHORT]
    run = rlrun.train(words, quiet=True).run
    strangers = shutil.copytree(run, "copied")
    with pytest.raises(rlrun.UserError, match=r"trust=\[starts\]"):
        rlrun.load(strangers)
    rlrun.load(strangers, trust=["starts"])
    agent = rlrun.load(run)
    assert agent.act([0.0, 0.0]) in (5, 6, 7)
    assert set(agent.act(np.zeros((200, 2)), epsilon=1.0).tolist()) == {5, 6, 7}
    assert play(agent, agent.make_env(), 0) == play(agent, agent.make_env(raw=True), 0)


def test_actions_of_a_gaussian_policy_are_within_the_bounds(workdir: Path) -> None:
    words = ["agent=ppo", "env=pendulum", "tuned=none", "total_steps=64", "rollout_steps=8", "env.num_envs=2"]
    agent = rlrun.load(rlrun.train([*words, "num_threads=1", "eval.episodes=1"], quiet=True).run)
    with torch.no_grad():
        agent.network.policy_out.bias[:] = 5.0
    action = agent.act(np.zeros((3, 3), np.float32))
    assert action.dtype == agent.action_space.dtype
    assert action.tolist() == [[2.0]] * 3


def test_a_planner_has_values_and_no_network(workdir: Path) -> None:
    words = ["env=gridworld", "agent=value_iteration", "eval.episodes=1", "hydra.run.dir=outputs/plan"]
    agent = rlrun.load(rlrun.train(words, quiet=True).run)
    assert agent.act(5) == agent.q_values(5).argmax()
    assert not hasattr(agent, "network")


def test_what_cannot_be_loaded(trained: Path) -> None:
    for arguments, line in (
        ({"run": "nowhere"}, "nowhere: no such directory"),
        ({"run": trained, "which": "7"}, "which: no checkpoint '7'"),
        ({"run": trained, "device": "cuda:77"}, "device: must be cpu.* or auto on this machine, got 'cuda:77'"),
    ):
        with pytest.raises(rlrun.UserError, match=f"^{line}"):
            rlrun.load(**arguments)  # type: ignore[arg-type]
    for call in (rlrun.load, rlrun.evaluate):
        with pytest.raises(rlrun.UserError, match=r"^run: must be a directory's name or path, or latest, got None"):
            call(None)  # type: ignore[operator]


WANDERS = """
import os
import gymnasium as gym
from gymnasium.envs.classic_control import CartPoleEnv

class Wanders(CartPoleEnv):
    def step(self, action):
        os.chdir(os.environ["ELSEWHERE"])
        if os.environ.get("FAIL"):
            raise OSError("no simulator")
        return super().step(action)

gym.register("Wanders-v0", Wanders, max_episode_steps=20)
"""


@pytest.mark.parametrize("fails", [False, True])
def test_an_environment_that_changes_the_working_directory_divides_no_run(
    fails: bool, workdir: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    Path("wanders.py").write_text(WANDERS)
    monkeypatch.setenv("ELSEWHERE", str(elsewhere))
    monkeypatch.setenv("FAIL", "yes" if fails else "")
    monkeypatch.chdir(workdir)
    words = ["env=gym", "env.id=Wanders-v0", "env.imports=[wanders]", *SHORT, "hydra.run.dir=outputs/mine"]
    run = workdir / "outputs/mine"
    if fails:
        with pytest.raises(Exception, match="no simulator"):
            rlrun.train(words, quiet=True)
        assert "failed: " in (run / "train.log").read_text()
    else:
        assert rlrun.train(words, quiet=True).run == run
        assert rlrun.load(run, trust="wanders").step == 40
        monkeypatch.chdir(workdir)
        score = rlrun.evaluate("outputs/mine", episodes=1, trust="wanders")
        assert (Path.cwd(), score.checkpoint) == (workdir, run / "checkpoints/best_000000040")
        assert command("eval", "outputs/mine", "episodes=2", "trust=[wanders]").code == 0
        assert len(list((run / "eval").iterdir())) == 2
        assert os.readlink(run / "checkpoints/latest") == "step_000000040"
    assert list(elsewhere.iterdir()) == []


def test_a_memory_is_forgotten_where_an_episode_begins(workdir: Path) -> None:
    words = ["agent=ppo", "env=cartpole", "network.memory=lstm", "tuned=none", "total_steps=32", "rollout_steps=16"]
    result = rlrun.train([*words, "batch_size=16", "eval.episodes=1", "num_threads=1"])
    agent, other = rlrun.load(result.run), rlrun.load(result.run)
    first, second = np.random.default_rng(0).normal(size=(2, 2, 4)).astype(np.float32)
    agent.act(first)
    agent.reset([True, False])
    agent.act(second)
    other.act(second)
    forgotten = other._carry.state["memory"].clone()
    other.reset()
    other.act(first)
    other.act(second)
    kept = other._carry.state["memory"]
    assert torch.equal(agent._carry.state["memory"][0], forgotten[0])
    assert torch.equal(agent._carry.state["memory"][1], kept[1])
    assert not torch.equal(forgotten[1], kept[1])
    with pytest.raises(rlrun.UserError, match=r"^rows: must be 2 flags, one for each observation, got "):
        agent.reset([True])
