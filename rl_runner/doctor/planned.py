"""Checks of a configuration, before anything is trained.

A check takes a `Plan` and yields findings. To add one, write the function and add it to CHECKS. A check must be silent
where it is not sure: a warning that is often wrong is read by nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rl_runner import memory
from rl_runner.doctor.finding import Finding, shown
from rl_runner.run.terminal import size_in_words
from rl_runner.types import State

UNIT_REWARDS = ("freeway", "ice_hockey", "pong", "tennis")  # Atari games whose rewards lie within [-1, 1] as they are
FRAME_SKIPS = {"AtariPreprocessing": "frame_skip", "MaxAndSkipObservation": "skip"}  # wrappers, with their keys
KWARGS = "env.kwargs.repeat_action_probability=0 env.kwargs.frameskip=4"
NOISE = ("Gaussian", "OrnsteinUhlenbeck")  # on continuous actions
MORE_NOISE = "use exploration.start=0.1 exploration.end=0.1"
CONSTANT = 0.5  # probability of a random action from which on it is suspicious if it never falls


@dataclass(frozen=True)
class Plan:
    """What a run would be.

    Attributes:
        cfg: its configuration, plain.
        resumed: the run goes on. It may have learned before, so that nothing is refused that only a new run cannot do.
        registered: arguments that the environment's id is registered with, of `env=gym`.
        noisy: the network explores by itself.
        memory: bytes that training will still take on the host, by what they are for.
        free_memory: bytes; None: unknown.
        checkpoint: bytes of the last one.
        free_disk: bytes where the run goes; None: unknown.
    """

    cfg: State
    resumed: bool = False
    registered: Mapping[str, Any] = field(default_factory=dict)
    noisy: bool = False
    memory: Mapping[str, int] = field(default_factory=dict)
    free_memory: int | None = None
    checkpoint: int = 0
    free_disk: int | None = None

    def get(self, key: str) -> Any:
        """Return the value of a dotted key; None if the configuration has no such key."""
        node: Any = self.cfg
        for name in key.split("."):
            node = node.get(name) if isinstance(node, dict) else None
        return node

    def number(self, key: str) -> Any:
        """Return the number of a dotted key; None if there is none, as a part of somebody's own may use the key."""
        value = self.get(key)
        return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None

    @property
    def vector_steps(self) -> int:
        """How often all environments are stepped together."""
        return -(-int(self.number("total_steps")) // int(self.number("env.num_envs")))

    @property
    def updates(self) -> int | None:
        """Gradient updates of the whole run from a replay memory; None: there is none, or nobody can know."""
        starts, every = self.number("learning_starts"), self.number("learn_every_steps")
        num_envs = self.number("env.num_envs")
        if starts is None:
            return None
        if not every or self.number("learn_every_episodes"):
            return 0 if starts >= self.number("total_steps") else None
        last = self.vector_steps * num_envs
        first = max(-(-starts // num_envs), 1) + bool(self.get("overlap"))  # overlapped learning lags a step behind
        crossings = last // every - (first - 1) * num_envs // every
        return int(max(crossings, 0) * (self.number("updates_per_learn") or 1))


Check = Callable[[Plan], Iterator[Finding]]


def findings(plan: Plan, checks: tuple[Check, ...] | None = None) -> list[Finding]:
    """Return what the checks find; what is refused comes first."""
    found = [finding for check in (CHECKS if checks is None else checks) for finding in check(plan)]
    return sorted(found, key=lambda finding: not finding.refused)


# What training cannot do.


def no_updates(plan: Plan) -> Iterator[Finding]:
    """Nothing is learned from the replay memory, because the run ends before."""
    if plan.updates != 0:
        return
    total = int(plan.number("total_steps"))
    key = "learn_every_steps" if (plan.number("learn_every_steps") or 0) > total else "learning_starts"
    why = f"leaves no update within total_steps={total:,}: nothing would be learned"
    yield Finding(key, plan.get(key), why, f"{key} must be smaller, or total_steps larger", refused=not plan.resumed)


def rollout_beyond_the_run(plan: Plan) -> Iterator[Finding]:
    """No rollout is ever complete."""
    steps = plan.number("rollout_steps")
    if steps is not None and steps > plan.vector_steps:
        total, num_envs = plan.number("total_steps"), plan.number("env.num_envs")
        why = f"× env.num_envs={num_envs} is longer than total_steps={total:,}: nothing would be learned"
        right = f"use at most {total // num_envs:,}, or raise total_steps"
        yield Finding("rollout_steps", steps, why, right, refused=not plan.resumed)


def memory_of_all_parts(plan: Plan) -> Iterator[Finding]:
    """Replay memory and network do not fit together; that one of them alone does not is refused when it is built."""
    wanted, free = sum(plan.memory.values()), plan.free_memory
    if free is None or wanted <= 0.8 * free:
        return
    parts = " + ".join(f"{name} {size_in_words(size)}" for name, size in plan.memory.items() if size)
    why = f"needs {parts}, and {size_in_words(free)} of memory are free"
    key, right = ("replay.capacity", "use fewer rows") if plan.get("replay") else ("network", "use a smaller one")
    value = plan.number("replay.capacity") or size_in_words(wanted)
    yield Finding(key, value, why, right, refused=wanted > memory.USABLE * free)


# What is probably a mistake.


def disk_too_small(plan: Plan) -> Iterator[Finding]:
    """The checkpoints do not fit on the disk. A new one is written before the oldest is deleted."""
    keep, free = int(plan.number("checkpoint.keep") or 1), plan.free_disk
    at_once = 1 if plan.resumed else keep + 1
    if free is None or at_once * plan.checkpoint <= free:
        return
    size = size_in_words(plan.checkpoint)
    why = f"of {size} each, with the next one, do not fit into {size_in_words(free)} of free disk"
    right = "use checkpoint.keep=1" if keep > 1 and 2 * plan.checkpoint <= free else "use checkpoint.replay=false"
    yield Finding("checkpoint.keep", keep, why, right)


def exploration_beyond_the_run(plan: Plan) -> Iterator[Finding]:
    """The run ends before exploration has fallen to its end."""
    start, end, steps = (plan.number(f"exploration.{key}") for key in ("start", "end", "steps"))
    total = plan.number("total_steps")
    if None in (start, end, steps) or start == end or steps <= total:
        return
    last = start + (end - start) * total / steps
    why = f"is beyond total_steps={total:,}: exploration is still at {last:.3g} when the run ends, not at {end:g}"
    yield Finding("exploration.steps", steps, why, f"use {total // 10:,} (a tenth of total_steps) to {total:,}")


def constant_exploration(plan: Plan) -> Iterator[Finding]:
    """An agent with a replay memory acts at random to its end, or never does."""
    if plan.number("learning_starts") is None or plan.get("exploration") is None:
        return
    kind = str(plan.get("exploration._target_")).rpartition(".")[2]
    start, end = plan.number("exploration.start"), plan.number("exploration.end")
    if kind in ("EpsilonGreedy", "EzGreedy") and start is not None and start == end and start >= CONSTANT:
        why = f"= exploration.start: {start:.0%} of the actions are random to the end of the run"
        yield Finding("exploration.end", end, why, "use exploration.end=0.05")
    if kind in NOISE and start == end == 0:
        yield Finding("exploration.start", start, "and exploration.end: the actions have no noise", MORE_NOISE)
    elif not plan.noisy and (kind == "Greedy" or (start == end == 0)):
        why = "never tries another action than the best one, and the network has no noisy layers"
        yield Finding("exploration", kind, why, "use exploration=epsilon_greedy, or network=noisy")


def no_learning_rate(plan: Plan) -> Iterator[Finding]:
    """The learning rate is 0 before the run ends, as in one that was to end there and is resumed with more steps."""
    steps, total = plan.number("optimizer.lr_steps"), int(plan.number("total_steps"))
    if steps is None or plan.number("optimizer.lr_end") != 0 or steps >= total:
        return
    why = f"steps with optimizer.lr_end=0: the learning rate is 0 from there to total_steps={total:,}"
    keys = ["optimizer.lr_steps"]
    if plan.number("agent.clip_end") is not None and plan.number("agent.clip_steps") == steps:
        keys.append("agent.clip_steps")
    yield Finding(keys[0], steps, why, "use " + " ".join(f"{key}={total}" for key in keys))


def goal_never_tested(plan: Plan) -> Iterator[Finding]:
    """The run is to stop at an evaluation, and there is none before its end."""
    goal, every, total = (plan.number(key) for key in ("stop.eval_return", "eval.every_steps", "total_steps"))
    if goal is not None and every is not None and not 0 < every < total:
        why = (
            f"with eval.every_steps={every:,}: no evaluation before total_steps={total:,}, so the run cannot stop early"
        )
        yield Finding("stop.eval_return", goal, why, "use a smaller eval.every_steps, or stop.eval_return=null")


def replay_below_learning_starts(plan: Plan) -> Iterator[Finding]:
    """What is collected first is overwritten before learning begins."""
    capacity, starts = plan.number("replay.capacity"), plan.number("learning_starts")
    if capacity is not None and starts is not None and capacity < starts:
        why = f"rows are fewer than learning_starts={starts:,}: the first steps are overwritten before learning begins"
        yield Finding("replay.capacity", capacity, why, f"use at least {starts:,}, or a smaller learning_starts")


def sync_beyond_the_run(plan: Plan) -> Iterator[Finding]:
    """The target network stays as it was made."""
    updates = plan.updates
    made = None if updates is None else updates // int(plan.number("agent.policy_delay") or 1)  # as targets count them
    every = {unit: plan.number(f"sync.every_{unit}") for unit in ("updates", "steps", "episodes")}
    if every["steps"]:
        reached, unit = plan.vector_steps * plan.number("env.num_envs"), "steps"
    elif every["episodes"] or not made:
        return
    else:
        reached, unit = made, "updates"
    if every[unit] and every[unit] > reached:
        why = f"is more than the {reached:,} {unit} of the run: the target network never follows"
        yield Finding(f"sync.every_{unit}", every[unit], why, f"use at most a tenth of them, {max(reached // 10, 1):,}")
    tau = plan.number("sync.tau")
    if tau and made and tau * made < 1:
        why = f"× {made:,} updates moves the target network less than once towards the online network in the whole run"
        yield Finding("sync.tau", tau, why, f"use at least {min(1.0, 10 / made):.2g}")


def batch_beyond_the_data(plan: Plan) -> Iterator[Finding]:
    """A batch is larger than what it is drawn from."""
    batch, capacity = plan.number("batch_size"), plan.number("replay.capacity")
    if batch and capacity and batch > capacity:
        why = f"is more than replay.capacity={capacity:,}: each batch holds transitions several times"
        yield Finding("batch_size", batch, why, f"use at most {capacity:,}", refused=True)
    steps, batch = plan.number("rollout_steps"), plan.number("agent.batch_size")
    rollout = (steps or 0) * plan.number("env.num_envs")
    if rollout and batch and batch > rollout:
        why = f"is more than rollout_steps={steps:,} × env.num_envs={plan.get('env.num_envs')}"
        yield Finding("batch_size", batch, why, f"a rollout has {rollout:,} steps, so use at most that")


def categorical_bounds(plan: Plan) -> Iterator[Finding]:
    """The fixed returns of C51 do not fit rewards and discount."""
    low, high, gamma = plan.number("value.low"), plan.number("value.high"), plan.number("agent.gamma")
    if low is None or high is None or gamma is None:
        return
    clip, bounds = plan.number("reward_clip"), f"value.low={low:g}, value.high={high:g}"
    if clip is not None and gamma < 1:
        most = clip / (1 - gamma)
        if high > 1.01 * most or low < -1.01 * most:
            why = f"are beyond the largest return ±{most:.3g}, reward_clip={clip:g} / (1 - agent.gamma={gamma:g})"
            yield Finding("value", bounds, why, "returns that cannot occur waste atoms: narrow the bounds")
        if high < clip:
            why = f"cannot represent a single reward of reward_clip={clip:g}"
            yield Finding("value", bounds, why, f"use value.high={most:.3g} or less, but above {clip:g}")
    if [low, high] != plan.get("env.returns"):
        return
    if plan.get("env.game") and clip is None and plan.get("env.game") not in UNIT_REWARDS:
        why = "are the environment's bounds for rewards clipped to [-1, 1], and reward_clip is null"
        yield Finding("value", bounds, why, "use reward_clip=1, or other bounds")
    elif clip is None and gamma > 0.99:
        why = f"are the environment's bounds for agent.gamma=0.99, and it is {gamma:g}: returns can be larger"
        yield Finding("value", bounds, why, "choose value.low and value.high for it")


def frame_skip_twice(plan: Plan) -> Iterator[Finding]:
    """An Atari environment skips frames, and a wrapper skips frames again."""
    wrappers = [(str(node.get("_target_")).rpartition(".")[2], node) for node in plan.get("env.wrappers") or []]
    skips = {name: int(node.get(FRAME_SKIPS[name], 4)) for name, node in wrappers if name in FRAME_SKIPS}
    own = _of_environment(plan, "frameskip")
    if own is not None and own != 1:
        skips = {"the environment": own, **skips}
    several = {name: skip for name, skip in skips.items() if skip != 1}
    if len(several) > 1:
        why = "skip frames, one after the other"
        said = " and ".join(f"{name} ({shown(skip)})" for name, skip in several.items())
        yield Finding("env.wrappers", said, why, "use env.kwargs.frameskip=1, and one wrapper that skips")


def own_stickiness(plan: Plan) -> Iterator[Finding]:
    """An id of ale-py repeats actions and skips frames by itself, unlike `env=atari`."""
    sticky, skip = _of_environment(plan, "repeat_action_probability"), _of_environment(plan, "frameskip")
    typed = plan.get("env.kwargs") or {}
    by_itself = [
        *([f"repeats the last action with probability {sticky:g}"] if sticky else []),
        *([f"skips {skip} frames"] if skip not in (None, 1) else []),
    ]
    if by_itself and not {"repeat_action_probability", "frameskip"} & set(typed):
        why = f"{' and '.join(by_itself)} by itself, so that its scores do not compare with env=atari"
        game = plan.registered["game"]
        right = f"use env=atari env.game={game}, or choose both: {KWARGS}"
        yield Finding("env.id", plan.get("env.id"), why, right)


def _of_environment(plan: Plan, argument: str) -> Any:
    """Return an argument of an Atari environment of `env=gym`; None: it has none."""
    if "game" not in plan.registered:
        return None
    return (plan.get("env.kwargs") or {}).get(argument, plan.registered.get(argument))


def untuned(plan: Plan) -> Iterator[Finding]:
    """Nobody has tried this agent in this environment."""
    learns = plan.get("optimizer") or plan.get("exploration")
    if learns and isinstance(plan.get("tuned"), dict) and plan.get("tuned.file") is None:
        agent, env = plan.get("agent.name"), plan.get("env.name")
        why = f"in conf/tuned is for {agent} on {env}: the agent's defaults were not tried there"
        yield Finding("tuned", "no file", why, "expect to tune optimizer.lr, total_steps and exploration")


CHECKS: tuple[Check, ...] = (
    no_updates,
    rollout_beyond_the_run,
    memory_of_all_parts,
    disk_too_small,
    exploration_beyond_the_run,
    constant_exploration,
    no_learning_rate,
    goal_never_tested,
    replay_below_learning_starts,
    sync_beyond_the_run,
    batch_beyond_the_data,
    categorical_bounds,
    frame_skip_twice,
    own_stickiness,
)
