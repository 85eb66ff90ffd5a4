"""Values that are tuned for an agent in an environment: which file is found, what wins over it, what is dropped."""

from pathlib import Path
from typing import Any

import hydra
import pytest
import yaml
from omegaconf import OmegaConf

from rl_runner import catalogue, compute
from rl_runner.launch import tuned
from tests.commandline import SHORT, SHORT_ATARI, only_run, refused, rlrun

CONF = catalogue.conf_dir()


def config(*words: str) -> dict[str, Any]:
    node = OmegaConf.to_container(tuned.compose(list(words)), resolve=True)
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()}


def files(root: Path, **contents: str) -> list[str]:
    """Write files of a user's own configuration directory; return the option that names it."""
    for name, text in contents.items():
        path = root / "mine" / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# @package _global_\n{text}")
    return ["--config-dir", str(root / "mine")]


def shown(*words: str) -> dict[str, Any]:
    """Return what --cfg job shows."""
    done = rlrun("train", *words, "--cfg", "job")
    assert done.code == 0, done
    node: dict[str, Any] = yaml.safe_load(done.out)
    return node


@pytest.mark.parametrize(
    ("words", "file"),
    [
        ([], "dqn/cartpole"),
        (["env=lunarlander"], "dqn/lunarlander"),
        (["env=cartpole", "agent=rainbow"], "rainbow/cartpole"),
        (["env=acrobot", "agent=rainbow"], None),  # never what was found for DQN
        (["env=breakout"], "dqn/atari"),  # a game without a file of its own
        (["env=atari", "env.game=tennis"], "dqn/atari"),
        (["env=pong"], "dqn/pong"),
        (["env=pong", "agent=rainbow"], "rainbow/atari"),
        (["env=gym", "env.id=Taxi-v4"], None),
        (["agent=sarsa", "env=frozenlake"], "sarsa/frozenlake"),
        (["env=lunarlander", "tuned=none"], "none"),
        (["env=lunarlander", "tuned=dqn/cartpole"], "dqn/cartpole"),
        (["env=lunarlander", "~tuned"], None),
        (["experiment=cartpole_dqn"], "none"),
        (["experiment=ablation", "ablation=rainbow"], "dqn/lunarlander_plain"),
    ],
)
def test_the_file_for_the_agent_and_the_environment_is_found(words: list[str], file: str | None) -> None:
    assert config(*words)["tuned"] == {"file": file, "unused": config(*words)["tuned"]["unused"]}
    if "ablation=rainbow" not in words:
        assert config(*words)["tuned"]["unused"] == []


def test_the_order_is_agent_tuned_experiment_command_line(tmp_path: Path) -> None:
    own = files(
        tmp_path,
        env__mine="defaults: [acrobot, _self_]\n",
        tuned__dqn__mine="defaults:\n- override /replay: prioritized\n- override /network/torso: mlp\n"
        "batch_size: 11\nlearning_starts: 11\ntotal_steps: 11\nreplay: {capacity: 11, sampler: {alpha: 0.25}}\n",
        experiment__plain="defaults:\n- override /replay: uniform\nlearning_starts: 22\ntotal_steps: 22\n",
    )
    cfg = shown(*own, "env=mine")
    assert cfg["batch_size"] == cfg["replay"]["capacity"] == 11
    assert cfg["replay"]["sampler"]["alpha"] == 0.25
    assert cfg["network"]["torso"]["_target_"].endswith("MLP")
    assert cfg["optimizer"]["lr"] == 1e-4  # the agent's: the file for acrobot is not used as well
    for words in (["experiment=plain"], ["replay=uniform"]):
        cfg = shown(*own, "env=mine", *words)
        assert cfg["replay"]["sampler"] == {"_target_": "rl_runner.replay.samplers.Uniform"}
        assert cfg["replay"]["capacity"] == 11
        assert cfg["tuned"] == {"file": "dqn/mine", "unused": ["replay.sampler.alpha"]}
    cfg = shown(*own, "env=mine", "experiment=plain", "total_steps=33")
    assert (cfg["batch_size"], cfg["learning_starts"], cfg["total_steps"]) == (11, 22, 33)
    cfg = shown(*own, "env=mine", "experiment=plain", "replay=prioritized", "replay.sampler.beta=0.5")
    assert cfg["replay"]["sampler"]["alpha"] == 0.25
    assert cfg["tuned"]["unused"] == []


def test_a_group_on_a_search_path_of_the_users_chooses_the_file_too(tmp_path: Path) -> None:
    own = files(
        tmp_path, mine__both="# @package _global_\ndefaults: [override /agent: rainbow, override /env: acrobot]\n"
    )
    words = [f"hydra.searchpath=[file://{own[own.index('--config-dir') + 1]}]", "+mine=both"]
    assert config(*words)["tuned"] == config("agent=rainbow", "env=acrobot")["tuned"]
    assert config(*words)["agent"] == config("agent=rainbow", "env=acrobot")["agent"]


def test_a_composition_is_of_the_current_directory_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        monkeypatch.chdir(tmp_path / str(number))
        monkeypatch.setenv("MINE", str(number))
        with tuned.found(), hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            words = ["env=acrobot", "seed=7"]
            plain = hydra.compose("train", words, return_hydra_config=True)
            copied = hydra.compose("train", [*words, "hydra.job.env_copy=[MINE]"], return_hydra_config=True)
        assert plain.hydra.runtime.cwd == str(tmp_path / str(number))
        assert copied.hydra.job.env_set == {"MINE": str(number)}


@pytest.mark.parametrize("word", ["network=nature_cnn", "network/torso=nature_cnn"])
def test_a_network_that_the_user_names_is_taken_with_its_torso(word: str) -> None:
    """Pong's file chooses network/torso=cnn, which would win over the torso that network=nature_cnn implies."""
    assert config("env=pong")["network"]["torso"]["_target_"].endswith(".CNN")
    torso = config("env=pong", word)["network"]["torso"]
    assert torso["_target_"] == "rl_runner.networks.torsos.NatureCNN"
    assert (torso["fc"], torso["centre"], torso["layer_norm"]) == ([512], False, False)


@pytest.mark.parametrize(
    ("words", "unused"),
    [
        (["exploration=greedy"], ["exploration.end", "exploration.steps"]),  # which has no such keys
        (["sync=soft"], ["sync.every_updates"]),
        (["exploration=boltzmann"], ["exploration.end"]),  # which means a temperature by that
        (["optimizer=rmsprop"], ["optimizer.lr"]),  # which starts from another
        (["optimizer._target_=torch.optim.SGD"], ["optimizer.lr"]),  # which Adam's rate does not suit
        (["optimizer=adamw", "replay=prioritized", "network=dueling"], []),
    ],
)
def test_values_for_options_that_were_not_chosen_are_dropped(words: list[str], unused: list[str]) -> None:
    with_file, without = config("env=lunarlander", *words), config("env=lunarlander", *words, "tuned=none")
    assert with_file["tuned"]["unused"] == unused
    for group in ("exploration", "sync", "optimizer", "replay", "network"):
        assert with_file[group].keys() == without[group].keys()
    for key in unused:
        group, name = key.split(".")
        assert with_file[group].get(name) == without[group].get(name)
    assert with_file["optimizer"]["lr"] == (without["optimizer"]["lr"] if "optimizer.lr" in unused else 6.3e-4)


@pytest.mark.parametrize(
    ("words", "unused"),
    [
        ("agent=ppo env=cartpole optimizer=rmsprop", ["optimizer.lr"]),
        ("agent=sac env=pendulum optimizer=rmsprop", ["optimizer.lr"]),
        ("agent=sac env=pendulum optimizer=adamw", []),
    ],
)
def test_they_are_dropped_as_well_where_the_agent_sets_the_key_for_every_option(words: str, unused: list[str]) -> None:
    cfg, bare = config(*words.split()), config(*words.split(), "tuned=none")
    assert cfg["tuned"]["unused"] == unused
    assert (cfg["optimizer"]["lr"] == bare["optimizer"]["lr"]) == bool(unused)


def test_a_file_for_another_agent_adds_no_groups() -> None:
    words = ["agent=sarsa", "env=frozenlake"]
    taken, none = config(*words, "tuned=dqn/frozenlake"), config(*words, "tuned=none")
    keys = ["sync.every_updates", "replay.capacity", "optimizer.lr", "learning_starts", "batch_size"]
    assert sorted(taken["tuned"]["unused"]) == sorted(keys)
    assert {key for key in taken if taken[key] != none[key]} == {"tuned", "total_steps", "exploration"}
    assert taken.keys() == none.keys()


def test_a_file_for_another_environment_brings_the_options_that_it_chooses() -> None:
    for words in (["env=breakout", "tuned=dqn/pong"], ["env=cartpole", "tuned=dqn/pong"]):
        cfg, pong = config(*words), config("env=pong")
        assert cfg["tuned"] == {"file": "dqn/pong", "unused": []}
        assert cfg["replay"] == pong["replay"]
        assert cfg["network"]["torso"] == pong["network"]["torso"]
    cfg = config("env=breakout", "tuned=dqn/pong", "replay=uniform")  # what was chosen holds
    assert cfg["replay"]["sampler"] == {"_target_": "rl_runner.replay.samplers.Uniform"}
    assert any(key.startswith("replay.sampler.") for key in cfg["tuned"]["unused"])


def test_what_the_user_typed_is_never_dropped(workdir: Path) -> None:
    """Also where it is what the file says, and 0.05 is what tuned/dqn/lunarlander says."""
    cfg = config("env=lunarlander", "exploration=boltzmann", "exploration.end=0.05", "exploration.steps=7")
    assert (cfg["exploration"]["end"], cfg["exploration"]["steps"]) == (0.05, 7)
    assert "exploration.end" not in cfg["tuned"]["unused"]
    assert "no key 'exploration.end'" in refused(
        "train", "env=lunarlander", "exploration=greedy", "exploration.end=0.05"
    )


def test_keys_of_options_that_a_tuned_file_chooses_can_be_set(workdir: Path) -> None:
    words = ["env=pong", "network.torso.fc=[32]", "replay.sampler.beta=0.75"]
    assert shown(*words)["network"]["torso"]["fc"] == [32]
    for several in (["-m", "seed=1,2"], ["-m", "agent.gamma=0.9,0.99"]):
        done = rlrun("train", *several, *words, "eval.episodes=0")  # each job composes, and is then refused for this
        assert done.err.count("eval.episodes: must be a whole number, 1 or more") == 2, done


def test_an_environment_of_the_users_takes_the_values_of_the_one_it_is_built_on(tmp_path: Path) -> None:
    own = files(
        tmp_path,
        env__pole="defaults: [cartpole, _self_]\ntotal_steps: 77\nenv: {name: pole}\n",
        env__other="defaults: [gym, _self_]\nenv: {name: other, id: Acrobot-v1}\n"
        "total_steps: 77\noptimizer: {lr: 0.5}\n",
    )
    cfg = shown(*own, "env=pole")
    assert cfg["tuned"] == {"file": "dqn/cartpole", "unused": ["total_steps"]}
    assert (cfg["total_steps"], cfg["learn_every_steps"]) == (77, 256)
    cfg = shown(*own, "env=other")
    assert cfg["tuned"] == {"file": None, "unused": []}
    assert (cfg["total_steps"], cfg["optimizer"]["lr"]) == (77, 0.5)
    search = f"hydra.searchpath=[file://{tmp_path}/mine]"
    assert shown(search, "env=pole")["tuned"]["file"] == "dqn/cartpole"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["env=cartpole", "env.id=Acrobot-v1"],
            "env.id: env=cartpole is CartPole-v1; for another environment use env=gym env.id=Acrobot-v1",
        ),
        (
            ["env=pong", "env.game=breakout"],
            "env.game: env=pong is pong; for another environment use env=atari env.game=breakout",
        ),
        (
            ["env=cartpole", "env.id=CartPole-vision-v0"],
            "env.id: env=cartpole is CartPole-v1; for another environment use env=gym env.id=CartPole-vision-v0",
        ),
        (["env=cartpole", "env.id=CartPole-v0"], None),
        (["env=gym", "env.id=Acrobot-v1"], None),
        (["env=atari", "env.game=breakout"], None),
    ],
)
def test_another_environment_under_the_name_of_one_is_refused(
    words: list[str], line: str | None, workdir: Path
) -> None:
    if line is None:
        key, _, value = words[1].partition("=")
        assert config(*words)["env"][key.removeprefix("env.")] == value
    else:
        assert refused("train", *words) == f"rlrun: {line}"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["env=lunarlander"], "dqn/lunarlander"),
        (["env=lunarlander", "exploration=greedy"], "dqn/lunarlander, without exploration.end, exploration.steps"),
        (["env=acrobot", "agent=rainbow"], "none for rainbow on acrobot, the agent's defaults"),
        (["tuned=none"], "none, as asked (tuned=none)"),
    ],
)
def test_the_start_block_names_what_is_tuned_and_so_does_a_resumed_run(
    words: list[str], line: str, workdir: Path
) -> None:
    expected = f"tuned         {line}"
    done = rlrun("train", *SHORT, *words)
    assert [text.rstrip() for text in done.out.splitlines() if text.startswith("tuned")] == [expected], done
    saved = yaml.safe_load((only_run() / "config.yaml").read_text())["tuned"]
    assert saved["unused"] == (line.split(", without ")[1].split(", ") if "without" in line else [])
    done = rlrun("train", f"resume={only_run()}", "total_steps=60")
    assert [text.rstrip() for text in done.out.splitlines() if text.startswith("tuned")] == [expected], done


def test_a_sweep_takes_each_jobs_own_values_and_names_jobs_by_what_was_typed(workdir: Path) -> None:
    short = ["total_steps=501", "eval.episodes=1", "num_threads=1"]  # what every agent has; DQN learns from 500 on
    done = rlrun("train", "-m", "env=frozenlake", "agent=dqn,sarsa", *short)
    assert (done.code, done.err) == (0, ""), done
    runs = sorted(workdir.glob("outputs/sweeps/*/*_*"))
    assert [run.name for run in runs] == ["0_agent=dqn", "1_agent=sarsa"]
    names = [yaml.safe_load((run / "config.yaml").read_text())["tuned"]["file"] for run in runs]
    assert names == ["dqn/frozenlake", "sarsa/frozenlake"]
    assert "2 of 2 runs finished" in done.out


def test_every_tuned_file_is_for_an_agent_and_an_environment_and_leaves_nothing_unused() -> None:
    keys = {agent.name: config(f"agent={agent.name}", "tuned=none").keys() for agent in (CONF / "tuned").glob("*/")}
    for path in (CONF / "tuned").glob("*/*.yaml"):
        agent, env = path.parent.name, path.stem.removesuffix("_plain")
        assert (CONF / "agent" / f"{agent}.yaml").exists()
        cfg = config(
            f"agent={agent}", f"env={env}", f"tuned={agent}/{path.stem}", *["env.game=tennis"] * (env == "atari")
        )
        assert cfg["tuned"] == {"file": f"{agent}/{path.stem}", "unused": []}
        assert cfg.keys() == keys[agent]


def test_environments_say_nothing_about_learning() -> None:
    """What suits an agent is in conf/tuned; an environment says what it is and how it is evaluated."""
    for path in (CONF / "env").glob("*.yaml"):
        node = yaml.safe_load(path.read_text())
        assert set(node) <= {"defaults", "env", "eval", "log"}, path
        assert set(node.get("eval", {})) <= {"episodes", "num_envs", "epsilon"}, path


def test_the_range_of_c51_is_the_environments() -> None:
    for env, low, high in [("cartpole", 0, 100), ("lunarlander", -300, 300), ("breakout", -10, 10)]:
        value = config(f"env={env}", "value=c51")["value"]
        assert (value["low"], value["high"]) == (low, high)
    assert config("env=gym", "env.id=Taxi-v4", "value=c51", "value.low=-5")["value"]["low"] == -5
    assert config("env=gym", "env.id=Taxi-v4", "value=c51")["value"]["high"] is None


@pytest.mark.parametrize(("flags", "precision"), [("avx512_bf16", "bf16"), ("avx2", "fp32")])
def test_pongs_precision_is_resolved_once_and_stays(
    flags: str, precision: str, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = workdir / "cpuinfo"
    cpu.write_text(f"flags : {flags}\n")
    monkeypatch.setattr(compute, "CPU_INFO", cpu)
    assert rlrun("train", "env=pong", "device=cpu", *SHORT_ATARI).code == 0
    cpu.write_text(f"flags : {'avx2' if precision == 'bf16' else 'avx512_bf16'}\n")  # goes on on another machine
    assert rlrun("train", f"resume={only_run()}", "total_steps=48").code == 0
    saved = yaml.safe_load((only_run() / "config.yaml").read_text())
    assert (saved["precision"], saved["total_steps"]) == (precision, 48)
