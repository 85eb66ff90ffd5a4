"""The checks that need no measuring, of a training run that is built: every `rlrun train` does them at its start."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from rl_runner import memory
from rl_runner.build import checks
from rl_runner.doctor.planned import Plan
from rl_runner.envs.making import ENDLESS
from rl_runner.loops.replay import ReplayLoop
from rl_runner.replay.frames import DeviceFrames
from rl_runner.types import Agent, Loop, State

MOMENTS = 2  # Adam's, of each weight


def plan(cfg: State, loop: Loop, run: Path, resumed: bool) -> Plan:
    """Return what the checks need to know of a run.

    Args:
        cfg: its configuration, plain.
        loop: trains the agent.
        run: its directory, which need not exist.
        resumed: the run goes on.
    """
    saved = bool(cfg["checkpoint"]["replay"])
    whole, on_host = _replay_bytes(loop, cfg)
    return Plan(
        cfg=cfg,
        resumed=resumed,
        registered=_registered(cfg["env"]),
        noisy=explores(getattr(loop.agent, "network", None)),
        memory={"the replay memory": whole if saved else on_host, "the network": _learning_bytes(loop.agent)},
        free_memory=memory.free_memory(),
        checkpoint=agent_bytes(loop.agent) + (whole if saved else 0),
        free_disk=shutil.disk_usage(_existing(run)).free,
    )


def time_limit(env: State) -> int | None:
    """Return the time limit of an episode of an environment in steps; None: it has none, or it is not known."""
    if env.get("wrappers"):
        return None
    if "max_frames" in env:
        return -(-int(env["max_frames"]) // int(env["frame_skip"]))
    spec = gym.registry.get(str(env.get("id")).rpartition(":")[2])
    limit: int | None = {"max_episode_steps": env.get("max_steps"), **(env.get("kwargs") or {})}["max_episode_steps"]
    return limit or (None if spec is None else spec.max_episode_steps or ENDLESS)


def agent_bytes(agent: Agent) -> int:
    """Return the bytes of an agent in a checkpoint, with the moments that an optimizer has after its first step."""
    optimizer = getattr(agent, "optimizer", None)
    new = isinstance(optimizer, torch.optim.Optimizer) and not optimizer.state
    return _size(agent.state_dict()) + (MOMENTS * _weights(agent) if new else 0)


def _learning_bytes(agent: Agent) -> int:
    """Return the bytes on the host that learning adds to a network: gradients, and the optimizer's moments."""
    network = getattr(agent, "network", None)
    on_host = isinstance(network, nn.Module) and all(p.device.type == "cpu" for p in network.parameters())
    return (1 + MOMENTS) * _weights(agent) if on_host else 0


def _weights(agent: Agent) -> int:
    network = getattr(agent, "network", None)
    return sum(p.nbytes for p in network.parameters()) if isinstance(network, nn.Module) else 0


def _replay_bytes(loop: Loop, cfg: State) -> tuple[int, int]:
    """Return the bytes of the rows that a run writes: all of them, and what is on the host if it is not saved."""
    if not isinstance(loop, ReplayLoop):
        return 0, 0
    frames, nbytes = loop.replay.storage.frames, loop.replay.nbytes
    elsewhere = frames.nbytes if isinstance(frames, DeviceFrames) else 0
    share = checks.rows_written(cfg) / cfg["replay"]["capacity"]
    return int(share * nbytes), int(share * (nbytes - elsewhere))


def _size(node: Any) -> int:
    """Return the bytes of all tensors and arrays of a state."""
    if isinstance(node, dict):
        return sum(map(_size, node.values()))
    if isinstance(node, (list, tuple)):
        return sum(map(_size, node))
    return int(getattr(node, "nbytes", 0))


def _registered(env: State) -> dict[str, Any]:
    """Return the arguments that an environment's id is registered with."""
    spec = gym.registry.get(str(env.get("id")).rpartition(":")[2])
    return dict(spec.kwargs) if spec else {}


def explores(network: Any) -> bool:
    """Return whether a network explores by itself. One with layers that are not rlrun's may."""
    modules = network.modules() if isinstance(network, nn.Module) else ()
    return any(
        "noisy" in type(module).__name__.lower() or not type(module).__module__.startswith(("rl_runner.", "torch."))
        for module in modules
    )


def finite(state: Any) -> bool:
    """Return whether all numbers of a state's tensors and arrays are finite."""
    if isinstance(state, dict):
        return all(map(finite, state.values()))
    if isinstance(state, (list, tuple)):
        return all(map(finite, state))
    return not isinstance(state, (torch.Tensor, np.ndarray)) or bool(torch.as_tensor(state).isfinite().all())


def _existing(path: Path) -> Path:
    """Return the directory itself, or the nearest one above it that exists."""
    return next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.is_dir())
