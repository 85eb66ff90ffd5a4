"""Recipes build an agent and, for training only, its loop; they ask for what they use and for nothing else."""

from typing import Any

import pytest
import torch

from rl_runner.agents.dqn import DQN
from rl_runner.agents.planning import PolicyIteration
from rl_runner.agents.tabular import Sarsa
from rl_runner.build import jobs
from rl_runner.build.recipes import Learner
from rl_runner.exploration import Greedy
from rl_runner.loops.online import OnlineLoop
from rl_runner.loops.planning import PlanningLoop
from rl_runner.loops.replay import ReplayLoop
from rl_runner.schedules import Every
from rl_runner.types import UserError
from tests.build.test_components import CPU, configuration, environments, learner


def test_each_recipe_joins_an_agent_with_its_loop() -> None:
    wanted = {
        ("env=cartpole", "agent=rainbow"): (DQN, ReplayLoop),
        ("env=frozenlake", "agent=sarsa"): (Sarsa, OnlineLoop),
        ("env=frozenlake", "agent=policy_iteration"): (PolicyIteration, PlanningLoop),
    }
    for words, (agent, loop) in wanted.items():
        made = learner(*words, *(["replay.capacity=500"] if agent is DQN else []))
        assert isinstance(made.agent, agent)
        joined = made.loop()
        assert isinstance(joined, loop)
        assert joined.agent is made.agent


class Talks(Greedy):
    """Reports a word."""

    def metrics(self, step: int) -> Any:
        return {"phase": "warmup"}


def test_a_rule_that_reports_no_numbers_is_refused() -> None:
    with pytest.raises(UserError, match=r"^exploration: Talks.metrics must return a dict of numbers, got {'phase'"):
        learner("env=cartpole", "~exploration", "+exploration._target_=tests.build.test_recipes.Talks")


@pytest.mark.parametrize("agent", ["q_learning", "sarsa", "model_based"])
def test_tables_refuse_a_rule_with_a_memory(agent: str) -> None:
    with pytest.raises(UserError, match=r"^exploration: EzGreedy has a memory, which this agent does not keep"):
        learner("env=frozenlake", f"agent={agent}", "exploration=ez_greedy")


def test_values_of_the_configuration_reach_their_places() -> None:
    words = ["batch_size=7", "learning_starts=21", "learn_every_steps=3", "updates_per_learn=2", "overlap=true"]
    more = ["replay.capacity=90", "agent.n_step=4", "agent.gamma=0.5", "reward_clip=2", "agent.double=true"]
    loop: Any = learner("env=cartpole", *words, *more).loop()
    assert (loop.batch_size, loop.learning_starts, loop.learn_every.period) == (7, 21, 3)
    assert (loop.updates_per_learn, loop.overlap, loop.agent.double) == (2, True, True)
    assert loop.replay.storage.rows == 90
    assert (loop.replay.n_step, loop.replay.reward_clip) == (4, 2)
    assert loop.replay._powers.tolist() == [1, 0.5, 0.25, 0.125, 0.0625]


def test_updates_are_due_by_steps_or_by_episodes() -> None:
    for words, wanted in {
        ("learn_every_steps=5",): Every(5, "steps"),
        ("learn_every_steps=5", "learn_every_episodes=3"): Every(3, "episodes"),
    }.items():
        loop: Any = learner("env=cartpole", *words).loop()
        assert loop.learn_every == wanted
    cfg = configuration("env=cartpole", "learn_every_steps=5")
    del cfg["learn_every_episodes"]  # a run from before that key
    older: Any = jobs.learner_of(cfg, environments(cfg), CPU).loop()
    assert older.learn_every == Every(5, "steps")
    with pytest.raises(UserError, match=r"^learn_every_episodes: must be a whole number, 1 or more, or null, got 0$"):
        learner("env=cartpole", "learn_every_episodes=0")


def test_evaluation_builds_no_replay_memory() -> None:
    made = learner("env=cartpole", "replay.capacity=2")  # too few rows for training
    with pytest.raises(UserError, match=r"replay\.capacity"):
        made.loop()


def test_an_agent_is_asked_only_for_what_its_recipe_uses() -> None:
    cfg = configuration("env=frozenlake", "agent=q_learning")
    assert not {"batch_size", "learning_starts", "reward_clip", "replay", "optimizer"} & cfg.keys()
    jobs.learner_of(cfg, environments(cfg), CPU)
    cfg = configuration("env=cartpole")
    del cfg["batch_size"]
    with pytest.raises(UserError, match=r"^replay.sampler: must be a class or function \(_target_\).*, it is missing$"):
        jobs.learner_of(cfg | {"batch_size": 8, "replay": {"capacity": 500}}, environments(cfg), CPU)
    with pytest.raises(UserError, match=r"^batch_size: must be a whole number from 1 to 1,000,000,000, it is missing$"):
        jobs.learner_of(cfg, environments(cfg), CPU)


class OldDQN:
    """An agent whose class does not take what the recipe hands over."""

    def __init__(self, network: Any, value: Any, optimizer: Any, sync: Any, exploration: Any) -> None: ...


class Actless:
    def __init__(self, **everything: Any) -> None: ...


def test_an_argument_that_a_class_does_not_take_is_an_error() -> None:
    cfg = configuration("env=cartpole")
    for name, says in {
        "OldDQN": r"^agent: .*unexpected keyword argument 'lr_schedule'",
        "Actless": r"^agent: Actless is no ReplayAgent \(rl_runner/types.py\): it has no ",
    }.items():
        cfg["agent"] = {"_target_": f"{__name__}.{name}", "gamma": 0.5, "n_step": 2}
        with pytest.raises(UserError, match=says):
            jobs.learner_of(cfg, environments(cfg), CPU)


def own(cfg: Any, envs: Any, device: torch.device) -> Any:
    return cfg["returns"]


def test_a_recipe_of_ones_own() -> None:
    cfg = configuration("env=cartpole")
    theirs = Learner(learner("env=cartpole").agent, lambda: None)  # type: ignore[arg-type, return-value]
    cfg |= {"recipe": {"_target_": f"{__name__}.own"}, "returns": theirs}
    assert jobs.learner_of(cfg, environments(cfg), CPU) is theirs
    with pytest.raises(UserError, match=r"^recipe: .*\.own must return a Learner"):
        jobs.learner_of({**cfg, "returns": 3}, environments(cfg), CPU)
    del cfg["recipe"]
    with pytest.raises(UserError, match=r"^recipe: nothing is chosen"):
        jobs.learner_of(cfg, environments(cfg), CPU)
