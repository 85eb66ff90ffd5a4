"""Configuration nodes -> objects. What an algorithm is made of is said by the signatures of its classes.

A constructor asks for parts by the names of its arguments: an agent that takes `network` and `sync` is given both, one
that takes `states` is given their number. So a new algorithm, with its own loop and needs, changes nothing here. A
class of somebody's own keeps the defaults that it has: only what it cannot do without is given.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import cached_property
from typing import Any, cast

import gymnasium as gym
import hydra
import torch
from hydra.errors import InstantiationException
from torch import nn

from rl_runner import compute, rng
from rl_runner.actor import Actor
from rl_runner.build import checks
from rl_runner.envs.vector import EpisodicVectorEnv
from rl_runner.exact.mdp import MDP
from rl_runner.replay.replay import Replay
from rl_runner.replay.storage import RowStorage
from rl_runner.schedules import Every, LinearSchedule
from rl_runner.types import Agent, Exploration, Loop, State, Sync, UserError, ValueRepresentation

SETTINGS = ("name", "gamma", "n_step")  # keys of the agent group that are parts, given to whoever asks for them


def make(key: str, node: State, *args: Any, **parts: Any) -> Any:
    """Instantiate a configuration node: its values, and run-time facts as further arguments.

    Raises:
        UserError: a name or a value that is wrong.
    """
    _check_arguments(key, node)
    try:
        # Partial, because Hydra would take some of our arguments for configurations.
        return hydra.utils.instantiate({**node, "_partial_": True}, _convert_="all")(*args, **parts)
    except InstantiationException as e:
        if isinstance(e.__cause__, UserError):
            raise e.__cause__ from e
        raise UserError(f"{key}: {' '.join(str(e).split())}") from e
    except TypeError as e:
        if "argument" in str(e):  # a key that the class does not take, or one that it misses
            raise UserError(f"{key}: {e}") from e
        raise


class Parts:
    """The parts of one run. Each is built when it is first asked for; the properties are the names to ask by.

    Args:
        cfg: a training configuration, plain.
        envs: the environments that the agent is for.
        device: where networks and batches go.
    """

    def __init__(self, cfg: State, envs: EpisodicVectorEnv, device: torch.device) -> None:
        self._cfg, self._envs, self._device = cfg, envs, device

    def built(self, name: str) -> Any:
        """Return a part if something has asked for it, else None."""
        return vars(self).get(name)

    def _make(self, key: str, node: State) -> Any:
        """Instantiate a node, giving it those parts that its signature names and its values leave open."""
        if "_target_" not in node:
            raise UserError(f"{key}: nothing is chosen; {key}=NAME is wanted")
        wanted = inspect.signature(_named(key, node["_target_"])).parameters
        ours = node["_target_"].startswith("rl_runner.")
        given = [
            name
            for name, parameter in wanted.items()
            if isinstance(_PARTS.get(name), cached_property)
            and name not in node
            and (ours or parameter.default is parameter.empty)
        ]
        return make(key, node, **{name: getattr(self, name) for name in given})

    def _node(self, group: str) -> State:
        return cast(State, self._cfg.get(group) or {})

    # Where the run is.

    @cached_property
    def envs(self) -> EpisodicVectorEnv:
        """The environments."""
        return self._envs

    @cached_property
    def device(self) -> torch.device:
        """Where networks and batches go."""
        return self._device

    @cached_property
    def observation_space(self) -> gym.Space[Any]:
        """Of one observation."""
        return cast(gym.Space[Any], self._envs.observation_space)

    @cached_property
    def actions(self) -> int:
        """A, the number of actions."""
        space = self._envs.action_space
        if not isinstance(space, gym.spaces.Discrete):
            raise UserError(
                f"env: {self._envs.backend.name} has actions {space}; "
                f"this agent needs a finite number of them (Discrete)"
            )
        return int(space.n)

    @cached_property
    def states(self) -> int:
        """S, the number of states, where the environment shows their numbers."""
        return int(self._numbered_states().n)

    @cached_property
    def first_state(self) -> int:
        """The number of the first state."""
        return int(self._numbered_states().start)

    def _numbered_states(self) -> gym.spaces.Discrete:
        space = self._envs.observation_space
        if not isinstance(space, gym.spaces.Discrete):
            raise UserError(
                f"env: {self._envs.backend.name} has observations {space}; a table needs numbered states (Discrete)"
            )
        return space

    @cached_property
    def mdp(self) -> MDP:
        """The environment's dynamics, where they are known."""
        try:
            mdp = self._envs.backend.mdp()
        except UserError as e:
            raise UserError(f"env: planning needs the dynamics, but {e}") from e
        if mdp is None:
            raise UserError(
                f"env: planning needs the dynamics, and {self._envs.backend.name} does not tell them; "
                f"frozenlake, frozenlake8x8 and gridworld do"
            )
        return mdp

    # What is learned with.

    @cached_property
    def gamma(self) -> float:
        """Discount per step."""
        return float(self._cfg["agent"]["gamma"])

    @cached_property
    def n_step(self) -> int:
        """Steps summed before bootstrapping."""
        return int(self._cfg["agent"]["n_step"])

    @cached_property
    def value(self) -> ValueRepresentation:
        """What the numbers per action mean."""
        return cast(ValueRepresentation, self._make("value", self._node("value")))

    @cached_property
    def outputs_per_action(self) -> int:
        """Numbers per action that the network's head gives."""
        return self.value.outputs_per_action

    @cached_property
    def quantile_levels(self) -> int:
        """Quantile levels that the network draws in each pass."""
        return self.value.quantile_levels

    @cached_property
    def precision(self) -> str:
        """What the network's torso computes in."""
        return str(self._cfg.get("precision", "fp32"))  # runs from before there was a choice

    @cached_property
    def network(self) -> nn.Module:
        """The online network, on the device."""
        node = self._node("network")
        if self._envs.normalized:
            node = {**node, "normalize": True}
        if node.get("normalize") and self._device.type == "mps":
            raise UserError("network.normalize: its statistics are float64, which device mps lacks; device=cpu has it")
        return cast(nn.Module, self._make("network", node).to(self._device))

    @cached_property
    def optimizer(self) -> Callable[..., torch.optim.Optimizer]:
        """Makes an optimizer from parameters."""
        node = self._node("optimizer")

        def optimizer(parameters: Any) -> torch.optim.Optimizer:
            try:
                return cast(torch.optim.Optimizer, make("optimizer", _offered(node), list(parameters)))
            except ValueError as e:  # torch's own range checks
                raise UserError(f"optimizer: {e}") from e

        return optimizer

    @cached_property
    def lr_schedule(self) -> LinearSchedule | None:
        """The learning rate by environment step; None: it stays as it is."""
        node = self._node("optimizer")
        if node.get("lr_end") is None:
            return None
        return LinearSchedule(node["lr"], node["lr_end"], node["lr_steps"])

    @cached_property
    def sync(self) -> Sync:
        """How the target network follows."""
        return cast(Sync, self._make("sync", self._node("sync")))

    @cached_property
    def agent(self) -> Agent:
        """The policy and how it learns."""
        node = {k: v for k, v in self._cfg["agent"].items() if k not in SETTINGS}
        return cast(Agent, self._make("agent", node))

    # How it is trained.

    @cached_property
    def exploration(self) -> Exploration:
        """How values become actions while training."""
        return cast(Exploration, self._make("exploration", self._node("exploration")))

    @cached_property
    def actor(self) -> Actor:
        """Chooses the actions of training."""
        return Actor(self.agent.policy, self.exploration, rng.generator(self._cfg["seed"], "actor"), self._device)

    @cached_property
    def capacity(self) -> int:
        """Rows of the replay memory."""
        return int(self._node("replay")["capacity"])

    @cached_property
    def replay(self) -> Replay:
        """The replay memory."""
        node, n_step, envs = self._node("replay"), self.n_step, self._envs
        least = envs.num_envs * (envs.stack + n_step + 1)
        if self.capacity < least:
            raise UserError(
                f"replay.capacity: {self.capacity} rows are too few for {envs.num_envs} environment(s), frame stack "
                f"{envs.stack} and n_step {n_step}; at least {least}"
            )
        space = envs.observation_space
        frame = math.prod(space.shape[1:] if envs.stack > 1 else space.shape) * space.dtype.itemsize
        place = compute.frames_device(node.get("frames", "auto"), self._device, self.capacity, frame)
        on_host = (
            frame if place.type == "cpu" or self._cfg["checkpoint"]["replay"] else 0
        )  # to be saved they are copied
        checks.memory_for_replay(self.capacity, on_host + 18)  # action, reward, flags, age
        storage = RowStorage(self.capacity, envs.num_envs, space.shape, space.dtype, stack=envs.stack, device=place)
        sampler = self._make("replay.sampler", node["sampler"])
        stream = rng.generator(self._cfg["seed"], "replay")
        return Replay(storage, sampler, self.gamma, n_step, self._cfg["reward_clip"], stream, self._device)

    @cached_property
    def batch_size(self) -> int:
        """Transitions per update."""
        return int(self._cfg["batch_size"])

    @cached_property
    def learning_starts(self) -> int:
        """Steps to collect before the first update."""
        return int(self._cfg["learning_starts"])

    @cached_property
    def learn_every(self) -> Every:
        """How often to learn."""
        return Every(self._cfg["learn_every_steps"])

    @cached_property
    def updates_per_learn(self) -> int:
        """Gradient updates each time."""
        return int(self._cfg["updates_per_learn"])

    @cached_property
    def loop(self) -> Loop:
        """Takes the steps."""
        loop = cast(Loop, self._make("loop", self._node("loop")))
        if network := self.built("network"):
            checks.memory_for_learning(network, self.batch_size)
        return loop


_PARTS = vars(Parts)


def _offered(node: State) -> State:
    """Leave out our schedule, and what Adam's defaults say and another class, named by its `_target_`, lacks."""
    node = {k: v for k, v in node.items() if k not in ("lr_end", "lr_steps")}
    offers = inspect.signature(_named("optimizer", node["_target_"])).parameters
    return {k: v for k, v in node.items() if k not in ("eps", "fused") or k in offers}


def _named(key: str, target: str) -> Any:
    """Return the class or function that a dotted name means."""
    try:
        return hydra.utils.get_object(target)
    except Exception as e:  # whatever importing it raises
        raise UserError(f"{key}._target_: {' '.join(str(e).split())}") from e


def _check_arguments(key: str, node: State) -> None:
    """Check a node against the signature of what it names, and so the nodes in it."""
    if "_target_" in node:
        checks.arguments(key, _named(key, node["_target_"]), node)
    for name, child in node.items():
        if isinstance(child, dict):
            _check_arguments(f"{key}.{name}", child)
        for i, item in enumerate(child if isinstance(child, list) else []):
            if isinstance(item, dict):
                _check_arguments(f"{key}.{name}[{i}]", item)
