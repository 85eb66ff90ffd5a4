"""Build the jobs of the verbs from a configuration."""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from rl_runner import compute, rng
from rl_runner.agents.random import Random
from rl_runner.build import checks, components, facts, preflight, saved, trust
from rl_runner.build.environments import draw_without_a_screen, environments, viewer
from rl_runner.build.init_from import init_from
from rl_runner.build.recipes import Learner
from rl_runner.build.signatures import check, make, named, require
from rl_runner.commands.eval import EvalJob
from rl_runner.commands.export import ExportJob
from rl_runner.commands.play import PlayJob
from rl_runner.commands.train import TrainJob
from rl_runner.doctor import planned
from rl_runner.envs.vector import EpisodicVectorEnv
from rl_runner.evaluation import Evaluation, evaluate
from rl_runner.exact.gradient import PolicyGradient
from rl_runner.exact.measure import Exact
from rl_runner.extras import package
from rl_runner.loops.rollout import RolloutLoop
from rl_runner.networks.inputs import looks_like_image
from rl_runner.policies import PolicyLearner
from rl_runner.run.checkpoint import Checkpoints
from rl_runner.run.directory import RunDirectory
from rl_runner.run.loggers import Logger, Sender
from rl_runner.run.plan import Plan
from rl_runner.schedules import Every
from rl_runner.screen.video import ffmpeg
from rl_runner.types import Agent, Evaluate, HasOutputs, Loop, State, UserError, ValueAgent

IN_NAMES = {"episodes": 100, "num_envs": 10, "sticky": None, "epsilon": None}  # unlike these they are in files' names


def train_job(cfg: State, run: RunDirectory, resumed: bool = False) -> TrainJob:
    """Build everything that training needs, and check whether it can work; the arguments are those of `planned_job`.

    Raises:
        UserError: a value out of range, parts that do not fit each other, or a run that would learn nothing.
    """
    job = planned_job(cfg, run, resumed)
    with _closed_at_errors(job.loop.envs):
        for finding in planned.findings(preflight.plan(cfg, job.loop, run.path, resumed)):
            if finding.refused:
                raise UserError(str(finding))
            job.facts.append(("warning", str(finding)))
    return job


def planned_job(cfg: State, run: RunDirectory, resumed: bool = False) -> TrainJob:
    """Build everything that training needs. Nothing is written.

    Args:
        cfg: a whole training configuration, plain. "auto" for precision and num_threads, and init_from, are replaced
            in it by what they stand for.
        run: the run's directory.
        resumed: the run goes on; only a new one begins with the weights that `init_from` names.

    Raises:
        UserError: a value out of range, or parts that do not fit each other.
    """
    if not resumed:
        checks.keys(cfg)
    checks.require(cfg, checks.TRAINING)
    device = compute.device(cfg["device"])
    compute.keep_freed_memory()
    compute.make_convolutions_repeatable()
    seed = cfg["seed"]
    envs = environments(cfg["env"], cfg["env"]["num_envs"], seed, "train")
    with _closed_at_errors(envs):
        cfg["precision"] = compute.precision(cfg["precision"], device)
        cfg["num_threads"] = compute.set_threads(cfg["num_threads"], looks_like_image(envs.observation_space))
        torch.manual_seed(rng.integer(seed, "torch"))
        learner = learner_of(cfg, envs, device)
        begins = [] if resumed else init_from(learner.agent, cfg)
        agent, loop = learner.agent, learner.loop()
        exact, no_exact = _exact(cfg, loop, device)
        sender = _sender(cfg, run)

    def evaluation(step: int, stopped: Callable[[], bool]) -> Evaluation | None:
        num_envs = min(cfg["eval"]["num_envs"], cfg["eval"]["episodes"])
        test_envs = environments(cfg["env"], num_envs, seed, f"evaluation {step}")
        mode = Evaluate(rng.generator(seed, f"evaluation {step}"), cfg["eval"]["epsilon"])
        with contextlib.closing(test_envs):
            result = evaluate(agent, test_envs, cfg["eval"]["episodes"], mode, stopped)
        return result if len(result.episodes) == cfg["eval"]["episodes"] else None

    plan = Plan(
        total_steps=cfg["total_steps"],
        log=Every(cfg["log"]["every_steps"]),
        evaluate=Every(cfg["eval"]["every_steps"]),
        checkpoint=Every(cfg["checkpoint"]["every_steps"]),
        snapshot=Every(cfg["checkpoint"].get("snapshots_every_steps", 0)),  # older runs have none
        keep_replay=cfg["checkpoint"]["replay"],
        stop_return=cfg["stop"]["return"],
        stop_window=cfg["stop"]["window"],
        stop_eval_return=cfg["stop"]["eval_return"],
    )
    block = [*facts.built(cfg, loop), *begins, *no_exact, *facts.machine(agent, device), *run.facts()]
    # Absolute, as an environment may change the working directory.
    checkpoints = Checkpoints(run.checkpoints.absolute(), cfg["checkpoint"]["keep"])
    return TrainJob(run, loop, evaluation, exact, plan, checkpoints, block, cfg, trust.needed(cfg), sender)


def eval_job(cfg: State) -> EvalJob:
    """Build what `rlrun eval` needs: the saved agent and fresh environments.

    Raises:
        UserError: no such agent, or a value out of range; for videos: no ffmpeg, or the environment cannot be drawn.
    """
    _require_a_run(cfg, "eval")
    checks.require(cfg, checks.EVALUATION)
    run, trained = _saved_run(cfg)
    if cfg["sticky"] is not None:
        trained["env"]["sticky"] = cfg["sticky"]
    epsilon = trained["eval"]["epsilon"] if cfg["epsilon"] is None else cfg["epsilon"]
    num_envs = min(cfg["num_envs"], cfg["episodes"])
    envs = environments(trained["env"], num_envs, cfg["seed"], "test")
    with _closed_at_errors(envs):
        agent, checkpoint, step = saved_agent(trained, envs, *_named(cfg, run))
        drawing = viewer(trained["env"]) if cfg["video"] else None
    return EvalJob(
        run=run,
        checkpoint=checkpoint,
        step=step,
        total_steps=trained["total_steps"],
        agent=agent,
        mode=Evaluate(rng.generator(cfg["seed"], "test"), epsilon),
        envs=envs,
        episodes=cfg["episodes"],
        seed=cfg["seed"],
        protocol={**envs.backend.protocol, "eval_epsilon": epsilon, "num_envs": num_envs},
        name="".join(f"_{k}_{cfg[k]}" for k, usual in IN_NAMES.items() if cfg[k] != usual),
        viewer=drawing,
        videos=cfg["video_episodes"],
    )


def play_job(cfg: State) -> PlayJob:
    """Build what `rlrun play` needs: environments that draw, and a saved agent or a random one.

    Raises:
        UserError: no such agent, a value out of range, or the environment cannot be drawn; for a file: no ffmpeg.
    """
    checks.require(cfg, checks.PLAYING)
    length = cfg["episodes"], cfg["max_steps"]
    video = Path(cfg["video"]) if cfg["video"] else None
    if video:
        ffmpeg()
        draw_without_a_screen()
    random = cfg["checkpoint"] is None
    if random == (cfg.get("env") is None):
        wanted = "a run to watch (rlrun play outputs/...), or env=NAME for a random agent"
        raise UserError(f"checkpoint: name {wanted}" if random else f"env: name {wanted}, not both")
    if random:
        envs = EpisodicVectorEnv(viewer(cfg["env"]), cfg["seed"], "play")
        policy = Random(envs.action_space, rng.integer(cfg["seed"], "play"))
        mode = Evaluate(rng.generator(cfg["seed"], "play"))
        return PlayJob(envs, policy, mode, *length, video, f"{envs.backend.name}, a random agent")
    run, _ = RunDirectory.find(cfg["checkpoint"], str(cfg["which"]))
    trained = saved.load_run_config(run, cfg["trust"])
    epsilon = trained["eval"]["epsilon"] if cfg["epsilon"] is None else cfg["epsilon"]
    envs = EpisodicVectorEnv(viewer(trained["env"]), cfg["seed"], "play")
    with _closed_at_errors(envs):
        agent, checkpoint, _ = saved_agent(trained, envs, *_named(cfg, run))
    mode = Evaluate(rng.generator(cfg["seed"], "test"), epsilon)
    return PlayJob(envs, agent, mode, *length, video, f"{envs.backend.name}, {checkpoint.name}")


def export_job(cfg: State) -> ExportJob:
    """Build what `rlrun export` needs: the saved agent on the CPU, and fresh environments.

    Raises:
        UserError: no such agent, a missing package, a value out of range, or an agent without a network.
    """
    _require_a_run(cfg, "export")
    checks.require(cfg, checks.EXPORT)
    run, trained = _saved_run(cfg)
    for name in ("onnx", "onnxscript", "safetensors"):
        package(name, "export", "export")
    envs = environments(trained["env"], 4, cfg["seed"], "export")
    fp32 = {**copy.deepcopy(trained), "precision": "fp32"}  # bf16 is for fast learning; few programs run it
    with _closed_at_errors(envs):
        agent, checkpoint, step = saved_agent(fp32, envs, *_named({**cfg, "device": "cpu"}, run))
        if not isinstance(agent, HasOutputs):
            kind, network = type(agent).__name__, hasattr(agent, "network") or hasattr(agent, "acting")
            has = "method `outputs`, or no attribute `acting`" if network else "network"
            raise UserError(f"export: {kind} has no {has}; what it learned is in {checkpoint}/agent.npz")
        if getattr(agent, "memory_size", 0):
            raise UserError("export: networks with a memory (network.memory) are not supported")
        drawing = viewer(trained["env"]) if cfg["video"] else None
    return ExportJob(
        run=run,
        checkpoint=checkpoint,
        step=step,
        agent=agent,
        config=trained,
        envs=envs,
        observations=cfg["observations"],
        rng=rng.generator(cfg["seed"], "export"),
        viewer=drawing,
        out=Path(cfg["out"]) if cfg["out"] else run.path / "export",
    )


@contextlib.contextmanager
def _closed_at_errors(envs: EpisodicVectorEnv) -> Iterator[None]:
    """Close environments if an exception is raised: a program may keep it, and their processes would stay with it."""
    try:
        yield
    except BaseException:
        envs.close()
        raise


def _require_a_run(cfg: State, verb: str) -> None:
    if cfg["checkpoint"] is None:
        raise UserError(f"{verb}: name a run, such as rlrun {verb} latest")


def _saved_run(cfg: State) -> tuple[RunDirectory, State]:
    """Return the run that a command names, which will be written to, and its configuration; videos can be made."""
    if cfg["video"]:
        ffmpeg()
        draw_without_a_screen()
    run, _ = RunDirectory.find(cfg["checkpoint"], str(cfg["which"]))
    trained = saved.load_run_config(run, cfg["trust"])
    run.refuse_links()
    return run, trained


def learner_of(cfg: State, envs: EpisodicVectorEnv, device: torch.device) -> Learner:
    """Return the agent of a training configuration with what trains it, built by the recipe that it names."""
    node = components.group(cfg, "recipe")
    check("recipe", node)
    recipe = named("recipe", node["_target_"])
    try:
        inspect.signature(recipe).bind(cfg, envs, device)
    except (TypeError, ValueError):
        raise UserError(f"recipe: {node['_target_']} must take (cfg, envs, device)") from None
    learner = recipe(cfg, envs, device)
    if not isinstance(learner, Learner):
        raise UserError(f"recipe: {node['_target_']} must return a Learner (rl_runner/build/recipes.py)")
    return learner


def _sender(cfg: State, run: RunDirectory) -> Sender | None:
    """Build what sends the numbers to a service; it is not contacted yet."""
    node = cfg.get("logger") or {}  # older runs have none
    if not node.get("_target_"):
        return None
    logger = make("logger", node)
    require("logger", logger, Logger)
    return Sender(logger, run.path)


def _exact(cfg: State, loop: Loop, device: torch.device) -> tuple[Exact | None, list[tuple[str, str]]]:
    """Return the exact measures of an agent with action values, and where they are of no use the reason.

    A loop that trains a policy by its gradient is given the exact gradient to compare with.
    """
    agent, envs = loop.agent, loop.envs
    if not isinstance(agent, ValueAgent | PolicyLearner):
        return None, []
    try:
        mdp = envs.backend.mdp()
        if mdp is None:
            return None, []
        first_state = int(components.states(envs).start)
        if isinstance(agent, ValueAgent):
            return Exact(mdp, agent, cfg["agent"]["gamma"], first_state, device), []
        if agent.memory_size:
            return None, [("exact measures", "none, the policy depends on earlier states too (network.memory)")]
        if isinstance(loop, RolloutLoop):
            loop.gradient = PolicyGradient(mdp, agent.network, agent.distribution, agent.discount, first_state)
            loop.measure_every = Every(cfg["log"]["every_steps"])
        return None, []
    except UserError as e:  # also where gamma leaves no optimal values to compare with
        return None, [("exact measures", f"none, {e}")]


def saved_agent(trained: State, envs: EpisodicVectorEnv, name: str, which: str, device: str) -> tuple[Agent, Path, int]:
    """Return a saved agent, its checkpoint, and the step at which it was saved.

    Args:
        trained: the configuration of its run; agent.compiled is set to false in it.
        envs: environments of the kind that it was trained in.
        name: the run's directory, or the checkpoint's.
        which: which agent of the run.
        device: where it computes.
    """
    place = compute.device(device)
    compute.set_threads(trained["num_threads"], looks_like_image(envs.observation_space))
    if "compiled" in trained["agent"]:
        trained["agent"]["compiled"] = False  # that is for learning
    agent = learner_of(trained, envs, place).agent
    checkpoint, facts, state = RunDirectory.read_agent(name, which)
    RunDirectory.load_agent(agent, checkpoint, facts, state)
    return agent, checkpoint, facts["steps"]


def _named(cfg: State, run: RunDirectory) -> tuple[str, str, str]:
    """Return where the agent is that a command names, which of the run it is, and the device."""
    name = str(run.path) if cfg["checkpoint"] == "latest" else cfg["checkpoint"]
    return name, str(cfg["which"]), cfg["device"]
