"""Configuration -> jobs of the verbs. Here, in `parts` and in `cli` alone are configurations known."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import torch
from omegaconf import OmegaConf
from torch import nn

from rl_runner import compute, rng
from rl_runner.actor import Actor
from rl_runner.build import checks, trust
from rl_runner.build.parts import Parts, make
from rl_runner.commands.eval import EvalJob
from rl_runner.commands.play import PlayJob
from rl_runner.commands.train import TrainJob
from rl_runner.envs.gym import GymBackend
from rl_runner.envs.vector import Backend, EpisodicVectorEnv
from rl_runner.evaluate import Evaluation, evaluate
from rl_runner.exact.measure import Exact
from rl_runner.exploration import EpsilonGreedy
from rl_runner.run.checkpoint import Checkpoints, Damaged, about
from rl_runner.run.directory import RunDirectory
from rl_runner.schedules import Every
from rl_runner.screen.video import ffmpeg, playback
from rl_runner.trainer import Plan
from rl_runner.types import Agent, State, UserError

RESUMABLE = ("total_steps", "stop", "log", "eval", "checkpoint", "device", "replay.frames", "agent.compiled")


def plain(cfg: Any) -> State:
    """Return a configuration as plain dicts and lists, interpolations resolved."""
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
    compute.keep_freed_memory()
    compute.make_convolutions_repeatable()
    seed = cfg["seed"]
    envs = environments(cfg["env"], cfg["env"]["num_envs"], seed, "train")
    cfg["precision"] = compute.precision(cfg.get("precision", "fp32"), device)
    cfg["num_threads"] = compute.set_threads(cfg["num_threads"], envs.observation_space)
    torch.manual_seed(rng.integer(seed, "torch"))
    parts = Parts(cfg, envs, device)
    loop, agent = parts.loop, parts.agent
    exact, no_exact = _exact(envs, parts)

    def evaluation(step: int, stopped: Callable[[], bool]) -> Evaluation | None:
        test_envs = environments(cfg["env"], cfg["eval"]["num_envs"], seed, f"evaluation {step}")
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
        stop_eval_return=cfg["stop"]["eval_return"],
    )
    facts = [
        ("environment", f"{envs.backend.name} × {envs.num_envs}  {_protocol(envs.backend)}"),
        *(("", note) for note in envs.backend.notes),
        ("observations", _observations(parts)),
        ("actions", f"{envs.action_space}{', some of them masked' if envs.action_mask is not None else ''}"),
        ("agent", f"{type(agent).__name__}, learning in {type(loop).__name__}"),
        *_tuned(cfg),
        *_network_and_replay(parts),
        *no_exact,
        ("device", f"{device}, {torch.get_num_threads()} CPU thread(s)"),
        *run.facts(),
    ]
    checkpoints = Checkpoints(run.checkpoints, cfg["checkpoint"]["keep"])
    return TrainJob(run, loop, evaluation, exact, plan, checkpoints, facts, cfg, trust.needed(cfg))


def eval_job(cfg: State) -> EvalJob:
    """Build what `rlrun eval` needs: the saved agent and fresh environments.

    Raises:
        UserError: no such agent, or a value out of range; for videos: no ffmpeg, or the environment cannot be drawn.
    """
    checks.evaluation(cfg)
    if cfg["video"]:
        ffmpeg()
        _draw_without_a_screen()
    run, _ = RunDirectory.find(cfg["checkpoint"], str(cfg["which"]))
    trained = load_run_config(run, cfg["trust"])
    if cfg["sticky"] is not None:
        trained["env"]["sticky"] = cfg["sticky"]
    epsilon = trained["eval"]["epsilon"] if cfg["epsilon"] is None else cfg["epsilon"]
    num_envs = min(cfg["num_envs"], cfg["episodes"])
    viewer = _viewer(trained["env"]) if cfg["video"] else None
    envs = environments(trained["env"], num_envs, cfg["seed"], "test")
    actor, checkpoint, step = _saved_actor(trained, envs, run, epsilon, cfg)
    return EvalJob(
        run=run,
        checkpoint=checkpoint,
        step=step,
        actor=actor,
        envs=envs,
        episodes=cfg["episodes"],
        seed=cfg["seed"],
        protocol={**envs.backend.protocol, "eval_epsilon": epsilon, "num_envs": num_envs},
        name="".join(f"_{k}_{cfg[k]:g}" for k in ("sticky", "epsilon") if cfg[k] is not None),
        viewer=viewer,
        videos=cfg["video_episodes"],
    )


def play_job(cfg: State) -> PlayJob:
    """Build what `rlrun play` needs: environments that draw, and a saved agent or a random one.

    Raises:
        UserError: no such agent, a value out of range, or the environment cannot be drawn; for a file: no ffmpeg.
    """
    checks.playing(cfg)
    video = Path(cfg["video"]) if cfg["video"] else None
    if video:
        ffmpeg()
        _draw_without_a_screen()
    random = cfg["checkpoint"] is None
    if random == (cfg.get("env") is None):
        wanted = "a run to watch (rlrun play outputs/...), or env=NAME for a random agent"
        raise UserError(f"checkpoint: name {wanted}" if random else f"env: name {wanted}, not both")
    if random:
        envs = EpisodicVectorEnv(_viewer(cfg["env"]), cfg["seed"], "play")
        cpu = torch.device("cpu")
        values = torch.zeros(1, Parts({}, envs, cpu).actions)  # they mean nothing: at epsilon 1 nobody asks them
        actor = Actor(lambda _: values, EpsilonGreedy(1.0, 1.0, 0), rng.generator(cfg["seed"], "play"), cpu)
        return PlayJob(envs, actor, cfg["episodes"], video, f"{envs.backend.name}, a random agent")
    run, _ = RunDirectory.find(cfg["checkpoint"], str(cfg["which"]))
    trained = load_run_config(run, cfg["trust"])
    epsilon = trained["eval"]["epsilon"] if cfg["epsilon"] is None else cfg["epsilon"]
    envs = EpisodicVectorEnv(_viewer(trained["env"]), cfg["seed"], "play")
    actor, checkpoint, _ = _saved_actor(trained, envs, run, epsilon, cfg)
    return PlayJob(envs, actor, cfg["episodes"], video, f"{envs.backend.name}, {checkpoint.name}")


def load_run_config(run: RunDirectory, trusted: list[str]) -> State:
    """Read a run's configuration. It may be a stranger's, so it may only name parts of rlrun and what is trusted.

    Raises:
        UserError: no whole configuration there, or one that names other code.
    """
    try:
        cfg = cast(State, OmegaConf.to_container(OmegaConf.load(run.config), resolve=False))
    except Exception as e:  # whatever a broken file makes the parser raise
        raise UserError(f"{run.config} cannot be read: {' '.join(str(e).split())}") from e
    if not isinstance(cfg, dict) or not cfg:
        raise UserError(f"{run.config} cannot be read: it holds no keys")
    trust.check(cfg, trusted)
    try:
        checks.training(cfg)
    except UserError as e:
        raise UserError(f"{run.config} is damaged, or no configuration of a run: {e}") from e
    return cfg


def resumed_config(run: RunDirectory, cfg: Any, overrides: list[str]) -> State:
    """Return a run's own configuration with what may change when it is resumed.

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
        if key not in RESUMABLE and key.split(".")[0] not in RESUMABLE:
            raise UserError(f"{key}: cannot change when a run is resumed; what can: {', '.join(RESUMABLE)}")
        OmegaConf.update(trained, key, OmegaConf.select(cfg, key))
    return plain(trained)


def save_run_config(run: RunDirectory, cfg: State) -> None:
    """Write a run's configuration, resolved, so that it needs no code to read.

    Raises:
        UserError: it cannot be written; one that stands there already stays.
    """
    temporary = run.config.with_suffix(".tmp")
    try:
        OmegaConf.save(OmegaConf.create(cfg), temporary)
        temporary.replace(run.config)
    except OSError as e:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise UserError(f"{run.config} cannot be written: {e.strerror}") from e


def _backend(node: State, num_envs: int, render: bool = False) -> Backend:
    node = {**{k: v for k, v in node.items() if k not in ("name", "returns")}, "num_envs": num_envs, "render": render}
    if "wrappers" in node:
        node["wrappers"] = [_wrapper(i, wrapper) for i, wrapper in enumerate(node["wrappers"])]
    backend: Backend = make("env", node)
    return backend


def _wrapper(i: int, node: Any) -> State:
    """Return the node of a wrapper, which the backend calls with the environment."""
    if not isinstance(node, dict) or "_target_" not in node:
        raise UserError(f"env.wrappers[{i}]: {{_target_: package.Wrapper, key: value}} is wanted, got {node!r}")
    return {**node, "_partial_": True}


def environments(node: State, num_envs: int, seed: int, stream: str) -> EpisodicVectorEnv:
    """Build environments from the `env` group: `num_envs` of them, seeded by the run's seed and the stream's name."""
    return EpisodicVectorEnv(_backend(node, num_envs), seed, stream)


def _exact(envs: EpisodicVectorEnv, parts: Parts) -> tuple[Exact | None, list[tuple[str, str]]]:
    """Return the exact measures of the agent where the dynamics are known, and where they are of no use the reason."""
    try:
        mdp = parts.built("mdp") or envs.backend.mdp()
        if mdp is None:
            return None, []
        return Exact(mdp, parts.agent, parts.gamma, parts.first_state, parts.device), []
    except UserError as e:  # also where gamma leaves no optimal values to compare with
        return None, [("exact measures", f"none, {e}")]


def _test_actor(agent: Agent, epsilon: float, stream: np.random.Generator, device: torch.device) -> Actor:
    return Actor(agent.greedy_policy, EpsilonGreedy(epsilon, epsilon, 0), stream, device)


def _saved_actor(
    trained: State, envs: EpisodicVectorEnv, run: RunDirectory, epsilon: float, cfg: State
) -> tuple[Actor, Path, int]:
    """Return the saved agent that was asked for, its checkpoint, and the step at which it was saved."""
    device = compute.device(cfg["device"])
    compute.set_threads(trained["num_threads"], envs.observation_space)
    if "compiled" in trained["agent"]:
        trained["agent"]["compiled"] = False  # that is for learning
    agent = Parts(trained, envs, device).agent
    name = str(run.path) if cfg["checkpoint"] == "latest" else cfg["checkpoint"]
    checkpoint, step = _load_agent(agent, name, str(cfg["which"]))
    return _test_actor(agent, epsilon, rng.generator(cfg["seed"], "test"), device), checkpoint, step


def _load_agent(agent: Agent, name: str, which: str) -> tuple[Path, int]:
    """Load a saved agent; look again where the run, which may still be training, has replaced it meanwhile.

    Returns:
        its checkpoint, and the step at which it was saved.
    """
    _, checkpoint = RunDirectory.find(name, which)
    while True:
        try:
            step = int(about(checkpoint)["steps"])
            RunDirectory.load_agent(agent, checkpoint)
            return checkpoint, step
        except Damaged:
            before = checkpoint
            _, checkpoint = RunDirectory.find(name, which)
            if checkpoint == before:
                raise


def _viewer(node: State) -> Backend:
    """Return one environment that draws.

    Raises:
        UserError: it cannot be drawn.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*render_mode")  # said below
            backend = _backend(node, 1, render=True)
    except UserError as e:
        if "unexpected keyword argument 'render_mode'" not in str(e):
            raise
        raise UserError(f"env: {node['id']} cannot be drawn: it takes no render_mode='rgb_array'") from e
    if isinstance(backend, GymBackend) and "rgb_array" not in backend.render_modes:
        modes = f"metadata['render_modes'] is {backend.render_modes}, without 'rgb_array'"
        raise UserError(f"env: {backend.name} cannot be drawn: its {modes}")
    try:
        frames = next(playback(backend, 0, [])).frames
    except (NotImplementedError, ImportError, gym.error.Error) as e:
        why = " ".join(str(e).split()) or "its render is not implemented"
        raise UserError(f"env: {backend.name} cannot be drawn: {why}") from e
    if not frames:
        raise UserError(f"env: {backend.name} cannot be drawn: it gives no frames")
    return backend


def _draw_without_a_screen() -> None:
    """Tell Gymnasium's drawing library that no screen is needed; otherwise it complains where there is none."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


def _tuned(cfg: State) -> list[tuple[str, str]]:
    """Return which tuned values the run has. Runs from before there were any do not say."""
    if "tuned" not in cfg:
        return []
    file, unused = cfg["tuned"]["file"], cfg["tuned"]["unused"]
    if file == "none":
        return [("tuned", "none, as asked (tuned=none)")]
    if file is None:
        return [("tuned", f"none for {cfg['agent']['name']} on {cfg['env']['name']}, the agent's defaults")]
    return [("tuned", f"{file}{', without ' if unused else ''}{', '.join(unused)}")]


def _gigabytes(n: int) -> str:
    return f"{n / 1e9:.2f} GB" if n >= 1e8 else f"{n / 1e6:.1f} MB"


def _protocol(backend: Backend) -> str:
    return "  ".join(f"{k}={v}" for k, v in backend.protocol.items())


def _network_and_replay(parts: Parts) -> list[tuple[str, str]]:
    """Describe them where the agent has them."""
    facts = []
    if network := parts.built("network"):
        facts.append(("network", f"{_describe(network)}, {sum(p.numel() for p in network.parameters()):,} parameters"))
    if replay := parts.built("replay"):
        facts.append(("replay", f"{parts.capacity:,} rows, {_gigabytes(replay.storage.nbytes)}"))
    return facts


def _observations(parts: Parts) -> str:
    """Return in words what the agent makes of observations."""
    network, space = parts.built("network"), parts.observation_space
    if network is None:
        return f"{space.n:,} states" if isinstance(space, gym.spaces.Discrete) else f"{space}"
    own = f"{type(space).__name__} of shape {space.shape}, as they are, for a torso of your own"
    reads = str(getattr(getattr(network, "torso", None), "reads", own))
    normalizer = getattr(network, "normalizer", None)
    return f"{reads}, normalised by running statistics saved with the agent" if normalizer else reads


def _describe(network: nn.Module) -> str:
    parts = [type(getattr(network, part, network)).__name__ for part in ("torso", "head")]
    return " + ".join(parts)
