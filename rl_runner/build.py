"""Configuration -> objects. Here and in `cli` alone are configurations known; everything else takes plain arguments."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import hydra
import numpy as np
import torch
from hydra.errors import InstantiationException
from omegaconf import OmegaConf
from torch import nn

from rl_runner import checks, compute, rng, trust
from rl_runner.actor import Actor
from rl_runner.checkpoint import Checkpoints
from rl_runner.commands.eval import EvalJob
from rl_runner.commands.play import PlayJob
from rl_runner.commands.train import TrainJob
from rl_runner.envs.vector import Backend, EpisodicVectorEnv
from rl_runner.evaluate import Evaluation, evaluate
from rl_runner.exploration import EpsilonGreedy
from rl_runner.loops.replay import ReplayLoop
from rl_runner.replay.replay import Replay
from rl_runner.replay.storage import RowStorage
from rl_runner.runs import RunDirectory
from rl_runner.schedules import Every
from rl_runner.trainer import Plan
from rl_runner.types import Agent, State, UserError

REPLAY_KEYS = ("name", "gamma", "n_step")  # of the agent group, but not arguments of the agent

RESUMABLE = ("total_steps", "stop", "log", "eval", "checkpoint", "device")


def plain(cfg: Any) -> State:
    """Give a configuration as plain dicts and lists, interpolations resolved."""
    return cast(State, OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))


def train_job(cfg: State, run: RunDirectory) -> TrainJob:
    """Build everything that training needs.

    Args:
        cfg: a whole training configuration, plain.
        run: the run's directory.

    Raises:
        UserError: a value out of range, or parts that do not fit each other.
    """
    checks.training(cfg)
    device = compute.device(cfg["device"])
    seed = cfg["seed"]
    envs = _environments(cfg["env"], cfg["env"]["num_envs"], seed, "train")
    cfg["num_threads"] = compute.set_threads(cfg["num_threads"], envs.observation_space)
    torch.manual_seed(rng.integer(seed, "torch"))
    agent, network = _agent(cfg, envs, device)
    replay = _replay(cfg, envs, rng.generator(seed, "replay"), device)
    exploration = _make("exploration", cfg["exploration"])
    actor = Actor(agent.policy, exploration, rng.generator(seed, "actor"), device)
    loop = ReplayLoop(
        envs,
        actor,
        agent,
        replay,
        cfg["batch_size"],
        cfg["learning_starts"],
        Every(cfg["learn_every_steps"]),
        cfg["updates_per_learn"],
    )

    def evaluation(step: int, stopped: Callable[[], bool]) -> Evaluation | None:
        test_envs = _environments(cfg["env"], cfg["eval"]["num_envs"], seed, f"evaluation {step}")
        test_actor = _test_actor(agent, cfg["eval"]["epsilon"], rng.generator(seed, f"evaluation {step}"), device)
        try:
            result = evaluate(test_actor, test_envs, cfg["eval"]["episodes"], stopped)
            return result if len(result.episodes) == cfg["eval"]["episodes"] else None
        finally:
            test_envs.close()

    plan = Plan(
        total_steps=cfg["total_steps"],
        log=Every(cfg["log"]["every_steps"]),
        evaluate=Every(cfg["eval"]["every_steps"]),
        checkpoint=Every(cfg["checkpoint"]["every_steps"]),
        keep_replay=cfg["checkpoint"]["replay"],
        stop_return=cfg["stop"]["return"],
        stop_window=cfg["stop"]["window"],
    )
    facts = [
        ("environment", f"{envs.backend.name} × {envs.num_envs}  {_protocol(envs.backend)}"),
        ("observations", f"{envs.observation_space}"),
        ("actions", f"{envs.action_space}"),
        ("network", f"{_describe(network)}, {sum(p.numel() for p in network.parameters()):,} parameters"),
        ("replay", f"{cfg['replay']['capacity']:,} rows, {_gigabytes(replay.storage.nbytes)}"),
        ("device", f"{device}, {torch.get_num_threads()} CPU thread(s)"),
        ("run", str(run.path)),
    ]
    checkpoints = Checkpoints(run.checkpoints, cfg["checkpoint"]["keep"])
    return TrainJob(run, loop, evaluation, plan, checkpoints, facts, cfg, trust.needed(cfg))


def eval_job(cfg: State) -> EvalJob:
    """Build what `rlrun eval` needs: the saved agent and fresh environments."""
    checks.evaluation(cfg)
    if cfg["video"]:
        _draw_without_a_screen()
    run, checkpoint = RunDirectory.find(cfg["checkpoint"], str(cfg["which"]))
    trained = load_run_config(run, cfg["trust"])
    if cfg["sticky"] is not None:
        trained["env"]["sticky"] = cfg["sticky"]
    epsilon = trained["eval"]["epsilon"] if cfg["epsilon"] is None else cfg["epsilon"]
    num_envs = min(cfg["num_envs"], cfg["episodes"])
    envs = _environments(trained["env"], num_envs, cfg["seed"], "test")
    actor = _saved_actor(trained, envs, checkpoint, epsilon, cfg)
    return EvalJob(
        run=run,
        checkpoint=checkpoint,
        actor=actor,
        envs=envs,
        episodes=cfg["episodes"],
        seed=cfg["seed"],
        protocol={**envs.backend.protocol, "eval_epsilon": epsilon, "num_envs": num_envs},
        name="".join(f"_{k}_{cfg[k]:g}" for k in ("sticky", "epsilon") if cfg[k] is not None),
        viewer=(lambda: _backend(trained["env"], 1, render=True)) if cfg["video"] else None,
        videos=cfg["video_episodes"],
    )


def play_job(cfg: State) -> PlayJob:
    """Build what `rlrun play` needs: environments that draw, and a saved agent or a random one."""
    checks.playing(cfg)
    video = Path(cfg["video"]) if cfg["video"] else None
    if video:
        _draw_without_a_screen()
    random = cfg["checkpoint"] is None
    if random == (cfg.get("env") is None):
        wanted = "a run to watch (rlrun play outputs/...), or env=NAME for a random agent"
        raise UserError(f"checkpoint: name {wanted}" if random else f"env: name {wanted}, not both")
    if random:
        envs = EpisodicVectorEnv(_backend(cfg["env"], 1, render=True), cfg["seed"], "play")
        values = torch.zeros(1, _count_actions(envs))  # they mean nothing: at epsilon 1 nobody asks them
        cpu = torch.device("cpu")
        actor = Actor(lambda _: values, EpsilonGreedy(1.0, 1.0, 0), rng.generator(cfg["seed"], "play"), cpu)
        return PlayJob(envs, actor, cfg["episodes"], video, f"{envs.backend.name}, a random agent")
    run, checkpoint = RunDirectory.find(cfg["checkpoint"], str(cfg["which"]))
    trained = load_run_config(run, cfg["trust"])
    epsilon = trained["eval"]["epsilon"] if cfg["epsilon"] is None else cfg["epsilon"]
    envs = EpisodicVectorEnv(_backend(trained["env"], 1, render=True), cfg["seed"], "play")
    actor = _saved_actor(trained, envs, checkpoint, epsilon, cfg)
    return PlayJob(envs, actor, cfg["episodes"], video, f"{envs.backend.name}, {checkpoint.name}")


def load_run_config(run: RunDirectory, trusted: list[str]) -> State:
    """Read a run's configuration. It may be a stranger's, so it may only name parts of rlrun and what is trusted.

    Raises:
        UserError: no configuration there, or one that names other code.
    """
    try:
        cfg = cast(State, OmegaConf.to_container(OmegaConf.load(run.config), resolve=False))
    except Exception as e:  # whatever a broken file makes the parser raise
        raise UserError(f"{run.config} cannot be read: {' '.join(str(e).split())}") from e
    if not isinstance(cfg, dict):
        raise UserError(f"{run.config} cannot be read: it holds no keys")
    trust.check(cfg, trusted)
    checks.training(cfg)
    return cfg


def resumed_config(run: RunDirectory, cfg: Any, overrides: list[str]) -> State:
    """Give a run's own configuration with what may change when it is resumed.

    Args:
        run: the run that goes on.
        cfg: the configuration as composed from the command line.
        overrides: the words of the command line, such as "total_steps=200000".

    Raises:
        UserError: something that may not change.
    """
    trained = OmegaConf.create(load_run_config(run, list(cfg.trust)))
    for override in overrides:
        key = override.partition("=")[0].lstrip("+")
        if key in ("resume", "trust"):
            continue
        if key.split(".")[0] not in RESUMABLE:
            raise UserError(f"{key}: cannot change when a run is resumed; what can: {', '.join(RESUMABLE)}")
        OmegaConf.update(trained, key, OmegaConf.select(cfg, key))
    return plain(trained)


def save_run_config(run: RunDirectory, cfg: State) -> None:
    """Write a run's configuration, resolved, so that it needs no code to read."""
    temporary = run.config.with_suffix(".tmp")
    OmegaConf.save(OmegaConf.create(cfg), temporary)
    temporary.replace(run.config)


def _make(key: str, node: State, *args: Any, drop: tuple[str, ...] = ()) -> Any:
    """Instantiate a config node; a partial one is called with the run-time facts `args`."""
    node = {k: v for k, v in node.items() if k not in drop}
    _check_arguments(key, node)
    try:
        made = hydra.utils.instantiate(node, _convert_="all")
        return made(*args) if node.get("_partial_") else made
    except InstantiationException as e:
        if isinstance(e.__cause__, UserError):
            raise e.__cause__ from e
        raise UserError(f"{key}: {' '.join(str(e).split())}") from e
    except TypeError as e:
        if "argument" in str(e):  # a key that the class does not take, or one that it misses
            raise UserError(f"{key}: {e}") from e
        raise


def _offered(node: State) -> State:
    """Leave out what Adam's defaults say and another class, named by `optimizer._target_` alone, does not offer."""
    _check_arguments("optimizer", node)
    offers = inspect.signature(hydra.utils.get_object(node["_target_"])).parameters
    return {k: v for k, v in node.items() if k not in ("eps", "fused") or k in offers}


def _check_arguments(key: str, node: State) -> None:
    """Check a node against the signature of what it names, and so the nodes in it."""
    if "_target_" in node:
        try:
            target = hydra.utils.get_object(node["_target_"])
        except Exception as e:  # whatever importing it raises
            raise UserError(f"{key}._target_: {' '.join(str(e).split())}") from e
        checks.arguments(key, target, node)
    for name, child in node.items():
        if isinstance(child, dict):
            _check_arguments(f"{key}.{name}", child)


def _backend(node: State, num_envs: int, render: bool = False) -> Backend:
    backend: Backend = _make("env", {**node, "num_envs": num_envs, "render": render}, drop=("name",))
    return backend


def _environments(node: State, num_envs: int, seed: int, stream: str) -> EpisodicVectorEnv:
    return EpisodicVectorEnv(_backend(node, num_envs), seed, stream)


def _count_actions(envs: EpisodicVectorEnv) -> int:
    space = envs.action_space
    if not isinstance(space, gym.spaces.Discrete):
        raise UserError(
            f"env: {envs.backend.name} has actions {space}; deep Q-learning needs a finite number of them (Discrete)"
        )
    return int(space.n)


def _agent(cfg: State, envs: EpisodicVectorEnv, device: torch.device) -> tuple[Agent, nn.Module]:
    value = _make("value", cfg["value"])
    network = _make("network", cfg["network"], envs.observation_space, _count_actions(envs), value.size).to(device)
    optimizer = _make_optimizer(cfg["optimizer"])
    sync = _make("sync", cfg["sync"])
    return _make("agent", cfg["agent"], network, value, optimizer, sync, drop=REPLAY_KEYS), network


def _make_optimizer(node: State) -> Callable[..., torch.optim.Optimizer]:
    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        try:
            return cast(torch.optim.Optimizer, _make("optimizer", _offered(node), list(parameters)))
        except ValueError as e:  # torch's own range checks
            raise UserError(f"optimizer: {e}") from e

    return optimizer


def _replay(cfg: State, envs: EpisodicVectorEnv, stream: np.random.Generator, device: torch.device) -> Replay:
    node, n_step = cfg["replay"], cfg["agent"]["n_step"]
    least = envs.num_envs * (envs.stack + n_step + 1)
    if node["capacity"] < least:
        raise UserError(
            f"replay.capacity: {node['capacity']} rows are too few for {envs.num_envs} environment(s), frame stack "
            f"{envs.stack} and n_step {n_step}; at least {least}"
        )
    space = envs.observation_space
    checks.memory_for_replay(node["capacity"], space.shape, space.dtype, envs.stack)
    storage = RowStorage(node["capacity"], envs.num_envs, space.shape, space.dtype, stack=envs.stack)
    sampler = _make("replay.sampler", node["sampler"])
    return Replay(storage, sampler, cfg["agent"]["gamma"], n_step, cfg["reward_clip"], stream, device)


def _test_actor(agent: Agent, epsilon: float, stream: np.random.Generator, device: torch.device) -> Actor:
    return Actor(agent.greedy_policy, EpsilonGreedy(epsilon, epsilon, 0), stream, device)


def _saved_actor(trained: State, envs: EpisodicVectorEnv, checkpoint: Path, epsilon: float, cfg: State) -> Actor:
    device = compute.device(cfg["device"])
    compute.set_threads(trained["num_threads"], envs.observation_space)
    agent, _ = _agent(trained, envs, device)
    RunDirectory.load_agent(agent, checkpoint)
    return _test_actor(agent, epsilon, rng.generator(cfg["seed"], "test"), device)


def _draw_without_a_screen() -> None:
    """Let Gymnasium's drawing library know, which otherwise complains where there is no screen."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


def _gigabytes(n: int) -> str:
    return f"{n / 1e9:.2f} GB" if n >= 1e8 else f"{n / 1e6:.1f} MB"


def _protocol(backend: Backend) -> str:
    return "  ".join(f"{k}={v}" for k, v in backend.protocol.items())


def _describe(network: nn.Module) -> str:
    parts = [type(getattr(network, part, network)).__name__ for part in ("torso", "head")]
    return " + ".join(parts)
