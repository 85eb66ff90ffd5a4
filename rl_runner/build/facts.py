"""What was built, in words: the block that a run prints at its start."""

from __future__ import annotations

import gymnasium as gym
import torch
from torch import nn

from rl_runner.build import checks
from rl_runner.envs.vector import Backend, EpisodicVectorEnv
from rl_runner.loops.replay import ReplayLoop
from rl_runner.loops.rollout import RolloutLoop
from rl_runner.run.terminal import counted, size_in_words
from rl_runner.types import Agent, Loop, State

Facts = list[tuple[str, str]]  # names and what is said of them; without a name: of the one above


def built(cfg: State, loop: Loop) -> Facts:
    """Return what a run is made of.

    Args:
        cfg: its configuration.
        loop: built from it, with the agent and the training environments.
    """
    agent, envs = loop.agent, loop.envs
    return [
        *_labels(cfg),
        ("environment", f"{envs.backend.name} × {envs.num_envs}  {_protocol(envs.backend)}"),
        *(("", note) for note in envs.backend.notes),
        ("observations", _observations(agent, envs)),
        ("actions", f"{envs.action_space}{', some of them masked' if envs.action_mask is not None else ''}"),
        ("agent", f"{_agent(cfg, agent)}, learning in {type(loop).__name__}"),
        *_exploration(cfg, agent),
        *_tuned(cfg, envs),
        *_network_and_replay(agent, loop, cfg),
        *_optimizer(agent),
    ]


def machine(agent: Agent, device: torch.device) -> Facts:
    """Return where a run computes, and in which precision."""
    precision = getattr(_network(agent), "precision", None)
    computing = f", computing in {precision}" if precision else ""
    return [("device", f"{device}, {counted(torch.get_num_threads(), 'CPU thread')}{computing}")]


def _labels(cfg: State) -> Facts:
    """Return the run's name and tags, which older runs do not have."""
    named = [("name", str(cfg["name"]))] if cfg.get("name") is not None else []
    return [*named, ("tags", ", ".join(map(str, cfg["tags"])))] if cfg.get("tags") else named


def _agent(cfg: State, agent: Agent) -> str:
    """Return the agent's class, after the chosen agent's name if that is another, as td3 is a DDPG."""
    name, kind = str(cfg["agent"]["name"]), type(agent).__name__
    return kind if name.replace("_", "").lower() == kind.lower() else f"{name} (class {kind})"


def _exploration(cfg: State, agent: Agent) -> Facts:
    """Return why the training returns do not rise, of an agent that acts at random throughout; else nothing."""
    if any(agent.metrics(step).get("epsilon") != 1.0 for step in (0, cfg["total_steps"])):
        return []
    return [("exploration", "epsilon 1 throughout: training acts at random, evaluations show the greedy policy")]


def _tuned(cfg: State, envs: EpisodicVectorEnv) -> Facts:
    """Return which tuned values the run has. Runs from before there were any do not say."""
    if "tuned" not in cfg:
        return []
    file, unused = cfg["tuned"]["file"], cfg["tuned"]["unused"]
    if file == "none":
        return [("tuned", "none, as asked (tuned=none)")]
    if file is None:
        name = cfg["env"].get("name") or envs.backend.name  # a file of the user's own may have no name
        return [("tuned", f"none for {cfg['agent']['name']} on {name}, the agent's defaults")]
    return [("tuned", f"{file}{', without ' if unused else ''}{', '.join(unused)}")]


def _protocol(backend: Backend) -> str:
    return "  ".join(f"{k}={v}" for k, v in backend.protocol.items())


def _network_and_replay(agent: Agent, loop: Loop, cfg: State) -> Facts:
    """Describe them where the agent has them."""
    facts = []
    if network := _network(agent):
        facts.append(("network", f"{_describe(network)}, {sum(p.numel() for p in network.parameters()):,} parameters"))
    if isinstance(loop, ReplayLoop):
        nbytes = loop.replay.nbytes
        capacity, written = cfg["replay"]["capacity"], checks.rows_written(cfg)
        used = f", of which this run writes {size_in_words(nbytes * written // capacity)}"
        size = f"{capacity:,} rows, {size_in_words(nbytes)}{used if written < capacity else ''}"
        if loop.replay.hindsight is not None:
            size += f"; goals that were reached later in {loop.replay.hindsight.share:.0%} of a batch"
        facts.append(("replay", size))
    if isinstance(loop, RolloutLoop):
        whole = counted(loop.episodes, "whole episode")
        steps = f"{counted(loop.steps, 'step')} of each environment" if loop.steps else whole
        facts.append(("rollout", steps))
    return facts


def _optimizer(agent: Agent) -> Facts:
    optimizer = getattr(agent, "optimizer", None)
    if not isinstance(optimizer, torch.optim.Optimizer):
        return []
    rates = " and ".join(dict.fromkeys(f"{group['lr']:g}" for group in optimizer.param_groups))
    return [("optimizer", f"{type(optimizer).__name__}, learning rate {rates}")]


def _network(agent: Agent) -> nn.Module | None:
    return getattr(agent, "network", None)


def _observations(agent: Agent, envs: EpisodicVectorEnv) -> str:
    """Return in words what the agent makes of observations."""
    network, space = _network(agent), envs.observation_space
    if network is None:
        return f"{space.n:,} states" if isinstance(space, gym.spaces.Discrete) else " ".join(str(space).split())
    own = f"{type(space).__name__} of shape {space.shape}, as they are, for a torso of your own"
    reads = str(getattr(getattr(network, "torso", None), "reads", own))
    normalizer = getattr(network, "normalizer", None)
    return f"{reads}, normalised by running statistics saved with the agent" if normalizer else reads


def _describe(network: nn.Module) -> str:
    if callable(in_words := getattr(network, "in_words", None)):
        return str(in_words())
    parts = [type(getattr(network, part, network)).__name__ for part in ("torso", "head")]
    return " + ".join(parts)
