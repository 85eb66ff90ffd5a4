"""`init_from=RUN`: begin a new run with the weights of another run's agent.

These are the weights that its evaluation acts by: the averaged ones if `agent.ema_decay` was set. With its optimizer's
state they are the trained ones, which that state belongs to.
"""

from __future__ import annotations

from rl_runner import optim
from rl_runner.build import checks
from rl_runner.build.saved import load_run_config
from rl_runner.distributions import Gaussian
from rl_runner.run.directory import RunDirectory
from rl_runner.run.weights import Taken, take_weights
from rl_runner.types import Agent, HasOptimizer, HasWeights, State, UserError


def init_from(agent: Agent, cfg: State) -> list[tuple[str, str]]:
    """Load into a new agent what `init_from` names, if it names something; note in `cfg` which checkpoint that is.

    Args:
        agent: newly built.
        cfg: the configuration of the new run.

    Returns:
        what was taken, for the start block.

    Raises:
        UserError: no such run, one whose configuration names code that is not trusted, or nothing of it fits.
    """
    name, with_optimizer = cfg.get("init_from"), cfg.get("init_from_optimizer", False)
    if name is None:
        if with_optimizer:
            raise UserError("init_from_optimizer: must be false without init_from=RUN, got true")
        return []
    if not isinstance(agent, HasWeights):
        raise UserError(f"init_from: {type(agent).__name__} cannot begin with the weights of another agent")
    run = _found(name)
    _same_units(agent, cfg, load_run_config(run, cfg["trust"]))
    checkpoint, about, source = RunDirectory.read_agent(name, "best")
    if "average" in source and not with_optimizer:  # its score is that of the averaged weights, as in a snapshot
        source = {**source, "online": source["average"]}
    taken = take_weights(agent, source)
    if not taken.names:
        raise UserError(f"init_from: nothing of {checkpoint} fits this agent: {taken.reasons()}")
    cfg["init_from"] = str(checkpoint)
    facts = [("begins with", f"{checkpoint} (step {int(about['steps']):,}): {taken}")]
    return [*facts, ("", _take_optimizer(agent, source, taken))] if with_optimizer else facts


def _found(name: str) -> RunDirectory:
    try:
        return RunDirectory.find(name, "best")[0]
    except UserError as e:
        raise UserError(f"init_from: {e}") from e


def _same_units(agent: Agent, cfg: State, theirs: State) -> None:
    """Check that a Gaussian policy has the units of the one whose weights it begins with."""
    distribution = getattr(agent, "distribution", None)
    if "rollout_steps" not in theirs or not isinstance(distribution, Gaussian):
        return
    now, there = (bool(c.get("scale_actions", False)) for c in (cfg, theirs))  # older runs do not have it
    if now == there or (now and distribution.plain):
        return
    wanted = checks.written(there)
    raise UserError(
        f"scale_actions: must be {wanted} with this init_from: that run's actions are in these units, and its weights "
        f"would mean other actions; add scale_actions={wanted}"
    )


def _take_optimizer(agent: Agent, source: State, taken: Taken) -> str:
    """Load the optimizer's state of the weights that were taken; return a line about it."""
    if not isinstance(agent, HasOptimizer):
        raise UserError(f"init_from_optimizer: {type(agent).__name__} has no optimizer")
    if "optimizer" not in source:
        raise UserError("init_from_optimizer: init_from names weights alone; a run or a whole checkpoint has the state")
    if not all(isinstance(key, str) for key in source["optimizer"]["state"]):
        raise UserError("init_from_optimizer: that run is of an older version, which did not name what it saved")
    names = {path.partition("/")[2] for path in taken.names}
    count = optim.transfer(agent.optimizer, agent.network, source["optimizer"], names)
    return f"with the optimizer's state of {count} of them"
