"""The parts of an agent and of its loop, each built from its group of the configuration."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from rl_runner import catalogue, compute, rng
from rl_runner.build import checks, contracts
from rl_runner.build.signatures import factory, make, named, part, require
from rl_runner.envs.vector import EpisodicVectorEnv
from rl_runner.exact.mdp import MDP
from rl_runner.networks.actor_critic import ActorCritic
from rl_runner.networks.actors import Deterministic
from rl_runner.networks.control import ControlNetwork, Encoder
from rl_runner.networks.heads import SingleStream
from rl_runner.networks.qnetwork import QNetwork
from rl_runner.networks.torsos import MLP
from rl_runner.replay.frames import HostFrames
from rl_runner.replay.hindsight import Hindsight
from rl_runner.replay.replay import Replay
from rl_runner.replay.samplers import Prioritized, Uniform
from rl_runner.replay.storage import RowStorage
from rl_runner.schedules import LinearSchedule
from rl_runner.types import (
    ActionNoise,
    Distribution,
    Exploration,
    Goals,
    RemembersActions,
    Sampler,
    State,
    UserError,
    ValueRepresentation,
)

Explores = TypeVar("Explores", Exploration, ActionNoise)
LEFT_OVER = {"eps": 1e-8, "fused": True}  # in conf/optimizer/adam.yaml


class MakesNetwork(Protocol):
    """A network's class, or a function that returns one."""

    def __call__(
        self,
        *,
        observation_space: gym.Space[Any],
        actions: int,
        outputs_per_action: int,
        quantile_levels: int,
        precision: str,
    ) -> nn.Module: ...


class MakesControlNetwork(Protocol):
    """The class of the networks of an agent with actor and critics, or a function that returns them."""

    def __call__(
        self,
        *,
        observation_space: gym.Space[Any],
        actions: int,
        outputs_per_action: int,
        precision: str,
        discrete: bool = False,
    ) -> ControlNetwork: ...


class MakesActorCritic(Protocol):
    """The class of a network of policy gradients, or a function that returns one."""

    def __call__(
        self, *, observation_space: gym.Space[Any], distribution: Distribution, precision: str
    ) -> nn.Module: ...


class MakesSampler(Protocol):
    """A sampler's class."""

    def __call__(self, *, capacity: int) -> Sampler: ...


if TYPE_CHECKING:
    _networks: tuple[MakesNetwork] = (partial(QNetwork, torso=MLP, head=SingleStream),)
    _control_networks: tuple[MakesControlNetwork] = (partial(ControlNetwork, torso=Encoder, actor=Deterministic),)
    _actor_critics: tuple[MakesActorCritic] = (partial(ActorCritic, torso=MLP),)
    _samplers: tuple[MakesSampler, MakesSampler] = (Uniform, Prioritized)


def group(cfg: State, key: str) -> State:
    """Return the configuration of a group.

    Raises:
        UserError: no option of the group is chosen.
    """
    node: State = cfg.get(key) or {}
    if "_target_" not in node:
        raise UserError(f"{key}: nothing is chosen; choose with {key}=NAME")
    return node


def agent_node(cfg: State) -> State:
    """Return the `agent` group without the keys that its class does not take."""
    return {k: v for k, v in group(cfg, "agent").items() if k not in catalogue.AGENT_SETTINGS}


def number_of_actions(envs: EpisodicVectorEnv) -> int:
    """Return A.

    Raises:
        UserError: the actions are not discrete.
    """
    space = envs.action_space
    if not isinstance(space, gym.spaces.Discrete):
        others = "agent=ppo, agent=sac" if isinstance(space, gym.spaces.Box) else "agent=ppo, agent=a2c"
        needed = "this agent needs a finite number of them (Discrete)"
        raise UserError(f"env: {envs.backend.name} has actions {space}; {needed}; {others} and others take these")
    return int(space.n)


def states(envs: EpisodicVectorEnv) -> gym.spaces.Discrete:
    """Return the space of discrete states.

    Raises:
        UserError: the observations are not discrete states.
    """
    space = envs.observation_space
    if not isinstance(space, gym.spaces.Discrete):
        raise UserError(
            f"env: {envs.backend.name} has observations of shape {space.shape}; a table needs discrete states "
            f"(Discrete), such as those of env=frozenlake; agent=dqn and others take these"
        )
    return space


def dynamics(envs: EpisodicVectorEnv) -> MDP:
    """Return the environment's dynamics.

    Raises:
        UserError: they are not known.
    """
    try:
        mdp = envs.backend.mdp()
    except UserError as e:
        raise UserError(f"env: planning needs the dynamics, but {e}") from e
    if mdp is None:
        raise UserError(
            f"env: planning needs the dynamics, and {envs.backend.name} does not tell them; "
            f"frozenlake, frozenlake8x8 and gridworld do"
        )
    return mdp


def q_network(cfg: State, envs: EpisodicVectorEnv, value: ValueRepresentation, device: torch.device) -> nn.Module:
    """Return the online network, on the device.

    Raises:
        UserError: another kind of network is chosen.
    """
    node = _network_node(cfg, envs, device)
    if "actor" in node or "shared" in node:
        raise _misfit(node, "action values", "plain")
    actions = number_of_actions(envs)
    network = factory("network", node, MakesNetwork)(
        observation_space=envs.observation_space,
        actions=actions,
        outputs_per_action=value.outputs_per_action,
        quantile_levels=value.quantile_levels,
        precision=cfg["precision"],
    )
    contracts.check_q_network(network, envs.observation_space, actions, value)
    return network.to(device)


def control_network(
    cfg: State,
    envs: EpisodicVectorEnv,
    actions: int,
    value: ValueRepresentation,
    device: torch.device,
    discrete: bool = False,
) -> ControlNetwork:
    """Return actor and critics, on the device.

    Args:
        cfg: the configuration.
        envs: have the observations.
        actions: numbers of one action; with `discrete`: the number of actions.
        value: what the critics' numbers mean.
        device: where the networks are.
        discrete: actions are discrete.

    Raises:
        UserError: another kind of network or of value is chosen.
    """
    node = _network_node(cfg, envs, device)
    if "actor" not in node or "head" in node or "shared" in node:  # SAC sets network.actor, whatever the option
        raise _misfit(node, "actor", "control")
    if value.quantile_levels:
        kind = type(value).__name__
        raise UserError(f"value: must be mse, scalar, c51 or qr_dqn for an agent with an actor, got {kind}")
    network = factory("network", node, MakesControlNetwork)(
        observation_space=envs.observation_space,
        actions=actions,
        outputs_per_action=value.outputs_per_action,
        precision=cfg["precision"],
        **({"discrete": True} if discrete else {}),  # a user's network for continuous actions need not take it
    )
    return network.to(device)


def actor_critic(cfg: State, envs: EpisodicVectorEnv, distribution: Distribution, device: torch.device) -> nn.Module:
    """Return the network of a policy and its state value, on the device.

    Raises:
        UserError: another kind of network is chosen.
    """
    node = _network_node(cfg, envs, device)
    if "head" in node or "actor" in node:
        raise _misfit(node, "state value", "actor_critic")
    network = factory("network", node, MakesActorCritic)(
        observation_space=envs.observation_space, distribution=distribution, precision=cfg["precision"]
    )
    contracts.check_actor_critic(network, envs.observation_space, distribution)
    return network.to(device)


def _network_node(cfg: State, envs: EpisodicVectorEnv, device: torch.device) -> State:
    """Return the `network` group; observations are normalised if the environment's wrapper of that kind was removed."""
    node = group(cfg, "network")
    if envs.normalized:
        node = {**node, "normalize": True}
    if node.get("normalize") and device.type == "mps":
        raise UserError("network.normalize: its statistics are float64, which device mps lacks; device=cpu has it")
    return node


def _misfit(node: State, lacks: str, option: str) -> UserError:
    """Return the error of a network that lacks what the agent needs."""
    kind = node["_target_"].rpartition(".")[2]
    return UserError(f"network: {kind} has no {lacks}; this agent needs network={option}, or one like it")


def optimizer_factory(cfg: State) -> Callable[[Iterable[Any]], torch.optim.Optimizer]:
    """Return what makes the optimizer from parameters, or from groups of them.

    Raises:
        UserError: no optimizer, or one that needs a closure, as LBFGS does, or sparse gradients; when it is called: a
            value out of range.
    """
    node = group(cfg, "optimizer")
    node = {k: v for k, v in node.items() if k not in ("lr_end", "lr_steps")}  # these are the schedule's
    # A class that was chosen by its _target_ alone still has the other keys of Adam's file, not all of which it takes;
    # only values that were set are for it.
    target = named("optimizer", node["_target_"])
    step = getattr(target, "step", None)  # a function that makes one has none
    closure = inspect.signature(step).parameters.get("closure") if step else None
    wanted = None
    if isinstance(target, type) and not issubclass(target, torch.optim.Optimizer):
        wanted = "a torch.optim.Optimizer"
    elif target is torch.optim.SparseAdam:
        wanted = "an optimizer for dense gradients"
    elif closure and closure.default is closure.empty:
        wanted = "an optimizer that evaluates the loss once per step"
    if wanted:
        raise UserError(f"optimizer._target_: must be {wanted}, such as torch.optim.Adam, got {node['_target_']}")
    taken = inspect.signature(target).parameters
    node = {k: v for k, v in node.items() if k in taken or LEFT_OVER.get(k) != v}

    def optimizer(parameters: Iterable[Any]) -> torch.optim.Optimizer:
        try:
            made: torch.optim.Optimizer = make("optimizer", node, list(parameters))
        except ValueError as e:  # torch's own range checks
            raise UserError(f"optimizer: {e}") from e
        except IndexError as e:  # betas=[0.9]
            raise UserError(f"optimizer: a list is too short for {node['_target_']}") from e
        if not isinstance(made, torch.optim.Optimizer):
            wanted = "a function that returns a torch.optim.Optimizer"
            raise UserError(f"optimizer._target_: must be {wanted}, {node['_target_']} returned {made!r}")
        return made

    return optimizer


def lr_schedule(cfg: State) -> LinearSchedule | None:
    """Return the learning rate by environment step; None: it is constant.

    Raises:
        UserError: it has an end and no beginning.
    """
    node = group(cfg, "optimizer")
    if node.get("lr_end") is None:
        return None
    if "lr" not in node:
        raise UserError("optimizer.lr: must be a number where optimizer.lr_end is one, it is missing")
    return LinearSchedule(node["lr"], node["lr_end"], node["lr_steps"] if "lr_steps" in node else cfg["total_steps"])


def replay_memory(cfg: State, envs: EpisodicVectorEnv, device: torch.device) -> Replay:
    """Return the replay memory, empty.

    Raises:
        UserError: its capacity is too small for the environments, or larger than the free memory.
    """
    node: State = cfg["replay"]
    capacity, n_step, space = int(node["capacity"]), int(cfg["agent"]["n_step"]), envs.observation_space
    least = envs.num_envs * (envs.stack + n_step + 1)
    if capacity < least:
        raise UserError(
            f"replay.capacity: {capacity} rows are too few for {envs.num_envs} environment(s), frame stack "
            f"{envs.stack} and n_step {n_step}; at least {least}"
        )
    frame = math.prod(space.shape[1:] if envs.stack > 1 else space.shape) * space.dtype.itemsize
    place = compute.frames_device(node.get("frames", "auto"), device, capacity, frame)
    on_host = frame if place.type == "cpu" or cfg["checkpoint"]["replay"] else 0  # to be saved they are copied
    action = math.prod(envs.action_space.shape) * 8  # bytes at most
    checks.memory_for_replay(cfg, on_host + action + 10)  # reward, flags, age
    actions = envs.action_space
    storage = RowStorage(
        capacity,
        envs.num_envs,
        space.shape,
        space.dtype,
        action_shape=actions.shape,
        action_dtype=np.int64 if isinstance(actions, gym.spaces.Discrete) else actions.dtype,
        stack=envs.stack,
        device=place,
    )
    sampler = factory("replay.sampler", node["sampler"], MakesSampler)(capacity=capacity)
    contracts.check_sampler(sampler)
    stream = rng.generator(cfg["seed"], "replay")
    hindsight = _hindsight(node.get("hindsight", 0.0), envs, storage)
    return Replay(storage, sampler, cfg["agent"]["gamma"], n_step, cfg["reward_clip"], stream, device, hindsight)


def _hindsight(share: float, envs: EpisodicVectorEnv, storage: RowStorage) -> Hindsight | None:
    """Return what replaces goals in a share of each batch; None: the share is 0.

    Raises:
        UserError: the environment has no goals, they are wrong, or observations are stacked or on a GPU.
    """
    if not share:
        return None
    find = getattr(envs.backend, "goals", None)  # a user's own backend may be older than this method
    try:
        goals: Goals | None = find() if find else None
    except UserError as e:
        raise UserError(f"replay.hindsight: must be 0 here: {e}") from e
    if goals is None:
        raise UserError(
            f"replay.hindsight: must be 0 here: {envs.backend.name} has no goals; they need a Dict with achieved_goal "
            "and desired_goal, Boxes of one shape with one axis, and a method compute_reward"
        )
    if envs.stack > 1:
        raise UserError(f"replay.hindsight: must be 0 with env.frame_stack={envs.stack}; set env.frame_stack=1")
    if not isinstance(storage.frames, HostFrames):
        raise UserError("replay.hindsight: must be 0 with replay.frames=device; set replay.frames=host")
    return Hindsight(share, goals, storage)


def value(cfg: State) -> ValueRepresentation:
    """Return the value representation.

    Raises:
        UserError: it does not keep its protocol, or returns something of another shape for a batch of zeros.
    """
    made = part("value", group(cfg, "value"), ValueRepresentation)
    contracts.check_value(made)
    return made


def exploration(cfg: State, contract: type[Explores], wanted: str) -> Explores:
    """Return the rule of exploration.

    Args:
        cfg: the configuration.
        contract: the protocol of the rules that the agent can use.
        wanted: an option that keeps it, for messages.

    Raises:
        UserError: it does not keep the protocol, or reports something else than numbers.
    """
    rule = part("exploration", group(cfg, "exploration"), contract, wanted)
    if hasattr(rule, "explore") and contract is Exploration:
        require("exploration", rule, RemembersActions)
    if hasattr(rule, "state_dict"):
        raise UserError(
            f"exploration: {type(rule).__name__} has a state_dict, which is not saved; a rule keeps what it remembers "
            "in the carry that its explore takes and returns"
        )
    contracts.check_metrics("exploration", rule)
    return rule


def exploration_stream(cfg: State) -> np.random.Generator:
    """Return the random stream of exploration."""
    return rng.generator(cfg["seed"], "actor")
