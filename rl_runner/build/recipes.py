"""Recipes: one function for each kind of training loop. It builds an agent and joins it with what trains it.

An agent's YAML file names its recipe. A recipe of your own takes the same three arguments and returns a `Learner`.
The protocols say what a recipe hands to the class that the configuration names; mypy checks rlrun's classes by them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from rl_runner.agents.a2c import A2C
from rl_runner.agents.ars import ARS
from rl_runner.agents.ddpg import DDPG
from rl_runner.agents.dqn import DQN
from rl_runner.agents.model_based import ModelBased
from rl_runner.agents.planning import PolicyIteration, ValueIteration
from rl_runner.agents.ppo import PPO
from rl_runner.agents.pqn import PQN
from rl_runner.agents.reinforce import REINFORCE
from rl_runner.agents.sac import SAC
from rl_runner.agents.sac_discrete import SACDiscrete
from rl_runner.agents.tabular import QLearning, Sarsa
from rl_runner.agents.trpo import TRPO
from rl_runner.build import checks, components
from rl_runner.build.signatures import factory, part
from rl_runner.distributions import of_actions
from rl_runner.envs.vector import EpisodicVectorEnv
from rl_runner.exact.mdp import MDP
from rl_runner.loops.online import OnlineLoop
from rl_runner.loops.planning import PlanningLoop
from rl_runner.loops.replay import ReplayLoop
from rl_runner.loops.rollout import RolloutLoop
from rl_runner.networks.actors import ActionRange
from rl_runner.networks.control import ControlNetwork
from rl_runner.schedules import Every, LinearSchedule
from rl_runner.types import (
    ActionNoise,
    Agent,
    Distribution,
    Exploration,
    Loop,
    OnlineAgent,
    PlanningAgent,
    RemembersActions,
    ReplayAgent,
    RolloutAgent,
    State,
    Sync,
    UserError,
    ValueRepresentation,
)


@dataclass(frozen=True)
class Learner:
    """An agent, and what trains it.

    Attributes:
        agent: built, not trained.
        loop: builds the training loop; evaluation does not call it.
    """

    agent: Agent
    loop: Callable[[], Loop]


class MakesReplayAgent(Protocol):
    """The class of an agent that learns from a replay memory."""

    def __call__(
        self,
        *,
        network: nn.Module,
        value: ValueRepresentation,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        sync: Sync,
        exploration: Exploration,
        lr_schedule: LinearSchedule | None,
    ) -> ReplayAgent: ...


class MakesNoisyControl(Protocol):
    """The class of an agent with continuous actions that explores by noise."""

    def __call__(
        self,
        *,
        network: ControlNetwork,
        actions: ActionRange,
        value: ValueRepresentation,
        optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
        sync: Sync,
        exploration: ActionNoise,
        lr_schedule: LinearSchedule | None,
    ) -> ReplayAgent: ...


class MakesStochasticControl(Protocol):
    """The class of an agent with continuous actions whose policy explores by itself."""

    def __call__(
        self,
        *,
        network: ControlNetwork,
        actions: ActionRange,
        value: ValueRepresentation,
        optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
        sync: Sync,
        lr_schedule: LinearSchedule | None,
    ) -> ReplayAgent: ...


class MakesDiscreteControl(Protocol):
    """The class of an agent with an actor and critics of discrete actions."""

    def __call__(
        self,
        *,
        network: ControlNetwork,
        actions: int,
        value: ValueRepresentation,
        optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
        sync: Sync,
        lr_schedule: LinearSchedule | None,
    ) -> ReplayAgent: ...


class MakesRolloutAgent(Protocol):
    """The class of an agent that learns from rollouts."""

    def __call__(
        self,
        *,
        network: nn.Module,
        distribution: Distribution,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        gamma: float,
        lr_schedule: LinearSchedule | None,
    ) -> RolloutAgent: ...


class MakesRolloutValues(Protocol):
    """The class of an agent that learns action values from rollouts."""

    def __call__(
        self,
        *,
        network: nn.Module,
        value: ValueRepresentation,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        exploration: Exploration,
        gamma: float,
        lr_schedule: LinearSchedule | None,
    ) -> RolloutAgent: ...


class MakesTable(Protocol):
    """The class of an agent that keeps a table of action values."""

    def __call__(
        self, *, states: int, actions: int, gamma: float, exploration: Exploration, first_state: int
    ) -> OnlineAgent: ...


class MakesPlanner(Protocol):
    """The class of an agent that plans with known dynamics."""

    def __call__(self, *, mdp: MDP, gamma: float, first_state: int) -> PlanningAgent: ...


if TYPE_CHECKING:
    _replay_agents: tuple[MakesReplayAgent] = (DQN,)
    _noisy_control: tuple[MakesNoisyControl] = (DDPG,)
    _stochastic_control: tuple[MakesStochasticControl] = (SAC,)
    _discrete_control: tuple[MakesDiscreteControl] = (SACDiscrete,)
    _rollout_agents: tuple[MakesRolloutAgent, ...] = (ARS, A2C, PPO, REINFORCE, TRPO)
    _rollout_values: tuple[MakesRolloutValues] = (PQN,)
    _tables: tuple[MakesTable, MakesTable, MakesTable] = (QLearning, Sarsa, ModelBased)
    _planners: tuple[MakesPlanner, MakesPlanner] = (ValueIteration, PolicyIteration)


def replay_learning(cfg: State, envs: EpisodicVectorEnv, device: torch.device) -> Learner:
    """Deep Q-learning and its relatives: act, store, sample, learn, sync."""
    checks.require(cfg, checks.REPLAY_LEARNING)
    value = components.value(cfg)
    network = components.q_network(cfg, envs, value, device)
    agent = factory("agent", components.agent_node(cfg), MakesReplayAgent)(
        network=network,
        value=value,
        optimizer=components.optimizer_factory(cfg),
        sync=part("sync", components.group(cfg, "sync"), Sync),
        exploration=components.exploration(cfg, Exploration, "exploration=epsilon_greedy"),
        lr_schedule=components.lr_schedule(cfg),
    )

    return Learner(agent, lambda: _replay_loop(cfg, envs, device, agent, network))


def noisy_control(cfg: State, envs: EpisodicVectorEnv, device: torch.device) -> Learner:
    """Actor and critics from a replay memory, with noise on the actions: DDPG, TD3, D4PG."""
    actions = ActionRange(envs.action_space)
    parts = _control(cfg, envs, device, actions.size)
    agent = factory("agent", components.agent_node(cfg), MakesNoisyControl)(
        actions=actions,
        exploration=components.exploration(cfg, ActionNoise, "exploration=gaussian"),
        **parts,
    )
    return Learner(agent, lambda: _replay_loop(cfg, envs, device, agent, parts["network"]))


def stochastic_control(cfg: State, envs: EpisodicVectorEnv, device: torch.device) -> Learner:
    """Actor and critics from a replay memory, with a policy that explores by itself: SAC."""
    actions = ActionRange(envs.action_space)
    parts = _control(cfg, envs, device, actions.size)
    agent = factory("agent", components.agent_node(cfg), MakesStochasticControl)(actions=actions, **parts)

    def loop() -> ReplayLoop:
        checks.soft_values(cfg)
        return _replay_loop(cfg, envs, device, agent, parts["network"])

    return Learner(agent, loop)


def discrete_control(cfg: State, envs: EpisodicVectorEnv, device: torch.device) -> Learner:
    """The same for discrete actions: discrete SAC."""
    actions = components.number_of_actions(envs)
    parts = _control(cfg, envs, device, actions, discrete=True)
    agent = factory("agent", components.agent_node(cfg), MakesDiscreteControl)(actions=actions, **parts)

    def loop() -> ReplayLoop:
        checks.soft_values(cfg)
        checks.no_images(envs.observation_space, envs.backend.name)
        return _replay_loop(cfg, envs, device, agent, parts["network"])

    return Learner(agent, loop)


numbered_control = discrete_control  # its name in the configuration of older runs


def _control(
    cfg: State, envs: EpisodicVectorEnv, device: torch.device, actions: int, discrete: bool = False
) -> dict[str, Any]:
    """Return the parts that agents with actor and critics have in common."""
    checks.require(cfg, {**checks.REPLAY_LEARNING, **checks.CONTROL})
    value = components.value(cfg)
    return {
        "network": components.control_network(cfg, envs, actions, value, device, discrete),
        "value": value,
        "optimizer": components.optimizer_factory(cfg),
        "sync": part("sync", components.group(cfg, "sync"), Sync),
        "lr_schedule": components.lr_schedule(cfg),
    }


def _replay_loop(
    cfg: State, envs: EpisodicVectorEnv, device: torch.device, agent: ReplayAgent, network: nn.Module
) -> ReplayLoop:
    """Return the loop that trains an agent from a replay memory."""
    checks.memory_for_learning(network, cfg["batch_size"])
    episodes = cfg.get("learn_every_episodes")  # older runs do not have it
    return ReplayLoop(
        envs,
        agent,
        replay=components.replay_memory(cfg, envs, device),
        rng=components.exploration_stream(cfg),
        batch_size=cfg["batch_size"],
        learning_starts=cfg["learning_starts"],
        learn_every=Every(episodes, "episodes") if episodes else Every(cfg["learn_every_steps"]),
        updates_per_learn=cfg["updates_per_learn"],
        overlap=cfg["overlap"],
    )


def on_policy(cfg: State, envs: EpisodicVectorEnv, device: torch.device) -> Learner:
    """Policy gradients: collect a rollout, learn from it, forget it."""
    checks.require(cfg, checks.ROLLOUT_LEARNING)
    scaled = cfg.get("scale_actions", False)  # older runs do not have it
    distribution = of_actions(envs.action_space, envs.backend.name, scaled)
    network = components.actor_critic(cfg, envs, distribution, device)
    agent = factory("agent", components.agent_node(cfg), MakesRolloutAgent)(
        network=network,
        distribution=distribution,
        optimizer=components.optimizer_factory(cfg),
        gamma=cfg["agent"]["gamma"],
        lr_schedule=components.lr_schedule(cfg),
    )

    def loop() -> RolloutLoop:
        checks.rows_to_compare(cfg, envs.num_envs)
        checks.one_length(cfg)
        if getattr(network, "memory_size", 0):  # a network of the user's own may not have it
            checks.whole_sequences(cfg, agent)
        return _rollout_loop(cfg, envs, agent)

    return Learner(agent, loop)


def on_policy_values(cfg: State, envs: EpisodicVectorEnv, device: torch.device) -> Learner:
    """Q-learning without replay memory: collect a rollout, learn action values from it, forget it."""
    checks.require(cfg, checks.ROLLOUT_LEARNING)
    value = components.value(cfg)
    agent = factory("agent", components.agent_node(cfg), MakesRolloutValues)(
        network=components.q_network(cfg, envs, value, device),
        value=value,
        optimizer=components.optimizer_factory(cfg),
        exploration=components.exploration(cfg, Exploration, "exploration=epsilon_greedy"),
        gamma=cfg["agent"]["gamma"],
        lr_schedule=components.lr_schedule(cfg),
    )
    return Learner(agent, lambda: _rollout_loop(cfg, envs, agent))


def _rollout_loop(cfg: State, envs: EpisodicVectorEnv, agent: RolloutAgent) -> RolloutLoop:
    """Return the loop that trains an agent from rollouts."""
    return RolloutLoop(
        envs,
        agent,
        rng=components.exploration_stream(cfg),
        steps=cfg["rollout_steps"],
        episodes=cfg["rollout_episodes"],
        reward_clip=cfg["reward_clip"],
    )


def online(cfg: State, envs: EpisodicVectorEnv, device: torch.device) -> Learner:
    """Learning with a table, from each step as it happens: temporal differences, or a model of the dynamics."""
    checks.require(cfg, checks.DISCOUNT)
    states = components.states(envs)
    exploration = components.exploration(cfg, Exploration, "exploration=epsilon_greedy")
    if isinstance(exploration, RemembersActions):
        raise UserError(
            f"exploration: {type(exploration).__name__} has a memory, which this agent does not keep; "
            "use exploration=epsilon_greedy"
        )
    agent = factory("agent", components.agent_node(cfg), MakesTable)(
        states=int(states.n),
        actions=components.number_of_actions(envs),
        gamma=cfg["agent"]["gamma"],
        exploration=exploration,
        first_state=int(states.start),
    )
    return Learner(agent, lambda: OnlineLoop(envs, agent, components.exploration_stream(cfg)))


def planning(cfg: State, envs: EpisodicVectorEnv, device: torch.device) -> Learner:
    """Dynamic programming: sweep over the states of known dynamics until nothing changes."""
    checks.require(cfg, checks.DISCOUNT)
    mdp = components.dynamics(envs)
    first_state = int(components.states(envs).start)
    agent = factory("agent", components.agent_node(cfg), MakesPlanner)(
        mdp=mdp, gamma=cfg["agent"]["gamma"], first_state=first_state
    )
    return Learner(agent, lambda: PlanningLoop(envs, agent))
