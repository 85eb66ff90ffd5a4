"""Checks of a run, while it runs or later. Add a check by writing a function and adding it to CHECKS."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rl_runner.doctor.finding import Finding
from rl_runner.doctor.planned import MORE_NOISE, Plan
from rl_runner.doctor.played import Played
from rl_runner.report.curves import Table
from rl_runner.types import State

VALUES = ("learn/q_max", "learn/q_mean", "learn/target_mean", "learn/actor_value")
EXPLORING = ("explore/epsilon", "explore/temperature", "explore/noise_std")
DEAD = 0.95  # share of a layer; agents that solve their task often have 70 to 90 % in a wide one
OVER = 0.5  # of the returns' size
STATES = 100  # with known returns, for a comparison
SLACK = 3.0  # for what is known of possible returns only roughly
MEMORY = 10  # batches that a replay memory should hold
LOWER = "use a smaller optimizer.lr"


@dataclass(frozen=True)
class Trained:
    """What is known of a run.

    Attributes:
        cfg: its configuration, plain.
        table: its metrics.csv.
        steps: where it stands.
        finite: whether all weights of its last checkpoint are finite; None: there is no checkpoint.
        saved: the step of that checkpoint.
        played: what its agent did in some steps.
        noisy: the network explores by itself.
        damaged: what is wrong with the checkpoints that cannot be loaded.
    """

    cfg: State
    table: Table
    steps: int
    finite: bool | None = None
    saved: int = 0
    played: Played | None = None
    noisy: bool = False
    damaged: Sequence[str] = ()

    @property
    def finished(self) -> bool:
        """All steps are done."""
        return self.steps >= int(self.cfg["total_steps"])

    def last(self, name: str) -> tuple[int, float] | None:
        """Return the last (step, value) of a curve; None: it has none."""
        return self.table[name][-1] if self.table.get(name) else None

    def number(self, key: str) -> Any:
        """Return the number of a dotted key of the configuration; None if there is none."""
        return Plan(self.cfg).number(key)

    def group(self, name: str) -> Mapping[str, Any]:
        """Return a group of the configuration, empty if there is none."""
        node = self.cfg.get(name)
        return node if isinstance(node, dict) else {}


def not_finite(run: Trained) -> Iterator[Finding]:
    """A loss or another number of learning is NaN or infinite."""
    for name, points in run.table.items():
        bad = next(((step, value) for step, value in points if not math.isfinite(value)), None)
        if name.startswith(("learn/", "eval/return")) and bad:
            yield Finding(name, str(bad[1]), "is not finite: learning has diverged", LOWER, step=bad[0])
            return
    if run.finite is False:
        yield Finding("checkpoint", "a weight", "is not finite: learning has diverged", LOWER, step=run.saved)


def damaged_checkpoints(run: Trained) -> Iterator[Finding]:
    """A checkpoint cannot be loaded."""
    for wrong in run.damaged:
        remedy = "restore it from a copy; a resume begins from the newest whole checkpoint"
        yield Finding("checkpoint", wrong.removeprefix("checkpoint "), "", remedy)


def no_updates(run: Trained) -> Iterator[Finding]:
    """Nothing was learned."""
    last = run.last("learn/updates")
    starts = int(run.number("learning_starts") or 0)
    if last and last[1] == 0 and (last[0] > 2 * starts or run.finished):
        key = "rollout_steps" if "rollout_steps" in run.cfg else "learning_starts"
        why = f"and {key}={run.cfg.get(key)}: nothing was learned"
        yield Finding("learn/updates", 0, why, f"use a smaller {key}, or more total_steps", step=last[0])


def exploding_values(run: Trained) -> Iterator[Finding]:
    """Action values are beyond any return that there can be."""
    bound, words = _possible(run)
    found = [(abs(v), v, step, name) for name in VALUES for step, v in run.table.get(name, []) if math.isfinite(v)]
    if not found or bound is None or max(found)[0] <= bound:
        return
    _, value, step, name = max(found)
    remedy = "use a smaller optimizer.lr, a slower sync, or agent.double=true"
    yield Finding(name, value, f"is beyond {words}: values explode", remedy, step=step)


def _possible(run: Trained) -> tuple[float | None, str]:
    """Return the largest absolute action value that is plausible, and in words how large returns can be."""
    agent, gamma, clip = run.group("agent"), run.number("agent.gamma"), run.number("reward_clip")
    bonus = SLACK if agent.get("munchausen") or "initial_alpha" in agent else 1.0  # entropies count as rewards there
    declared = [abs(r) for r in run.group("env").get("returns") or [] if r is not None]
    if gamma is None or gamma >= 1:
        return None, ""
    if clip is not None:
        most = clip / (1 - gamma)
        return 1.05 * bonus * most, f"the largest return {most:.4g} = reward_clip / (1 - agent.gamma)"
    if declared and gamma <= 0.99:
        return SLACK * bonus * max(declared), f"{SLACK:g} × {max(declared):g}, the largest return of env.returns"
    if run.played and run.played.largest_reward:
        most = run.played.largest_reward / (1 - gamma)
        return SLACK * bonus * most, f"{SLACK:g} × {most:.4g} = the largest reward seen / (1 - agent.gamma)"
    return None, ""


def exploration_never_fell(run: Trained) -> Iterator[Finding]:
    """Exploration is far above its end when the run ends."""
    total = int(run.cfg["total_steps"])
    start, end, steps = (run.number(f"exploration.{key}") for key in ("start", "end", "steps"))
    curve = next((name for name in EXPLORING if run.last(name)), None)
    if curve is None or start is None or end is None or steps is None or start <= end or steps <= total:
        return
    step, value = run.table[curve][-1]
    why = f"does not fall to {end:g} in this run: the schedule gets there at step {steps:,}, the run ends at {total:,}"
    yield Finding(curve, value, why, f"use exploration.steps of at most {total:,}", step=step)


def no_exploration(run: Trained) -> Iterator[Finding]:
    """Only the best action was ever taken."""
    if run.noisy or "learning_starts" not in run.cfg:
        return
    other = "use exploration=epsilon_greedy, or network=noisy"
    if str(run.group("exploration").get("_target_")).endswith(".exploration.Greedy"):
        why = "with a network without noisy layers: nothing was explored"
        yield Finding("exploration", "Greedy", why, other, step=run.steps)
    for name in EXPLORING:
        points = run.table.get(name, [])
        if points and max(value for _, value in points) == 0:
            right = MORE_NOISE if name == "explore/noise_std" else other
            yield Finding(name, 0.0, "and never above: nothing was explored", right, step=points[-1][0])


def starved_replay(run: Trained) -> Iterator[Finding]:
    """The replay memory holds hardly more than a batch."""
    batch, capacity = run.number("batch_size"), run.number("replay.capacity")
    updates = run.last("learn/updates")
    if not batch or not capacity or not updates or not updates[1]:
        return
    rows = min(updates[0], capacity)
    if rows < MEMORY * batch:
        many = f"after {updates[1]:,.0f} updates each was learned from many times"
        why = f"is the number of its transitions, few for batches of {batch:,}: {many}"
        larger = f"replay.capacity={MEMORY * batch:,}"
        right = larger if capacity < MEMORY * batch else f"more total_steps, or learning_starts={MEMORY * batch:,}"
        yield Finding("replay", rows, why, f"use {right} or more", step=updates[0])


def dead_units(run: Trained) -> Iterator[Finding]:
    """Much of a layer is 0 whatever is seen, and gets no gradient."""
    if run.played is None:
        return
    for layer, (dead, units) in run.played.dead.items():
        if units > 1 and dead > DEAD * units:
            why = f"of its {units:,} units are 0 for all of {run.played.observations:,} observations"
            right = "use a smaller optimizer.lr, network.init=xavier, or layer_norm"
            yield Finding(f"dead units in {layer}", dead / units, why, right, step=run.saved)


def overestimation(run: Trained) -> Iterator[Finding]:
    """Action values are larger than the returns that follow."""
    if run.played is None or len(run.played.values) < STATES or run.group("agent").get("munchausen"):
        return
    updates = run.last("learn/updates")
    if updates and updates[1] == 0:  # its values are those of random weights
        return
    value, back = float(run.played.values.mean()), run.played.returns
    size = max(float(np.abs(back).mean()), float(back.std()))
    if value - back.mean() > OVER * size and size > 0:
        why = f"is the mean over {len(back):,} states, and the return from there on {back.mean():.4g}"
        yield Finding(
            "max Q", value, why, "use agent.double=true, a slower sync, or a smaller optimizer.lr", step=run.saved
        )


CHECKS: tuple[Callable[[Trained], Iterator[Finding]], ...] = (
    not_finite,
    damaged_checkpoints,
    no_updates,
    exploding_values,
    exploration_never_fell,
    no_exploration,
    starved_replay,
    dead_units,
    overestimation,
)


def findings(run: Trained) -> list[Finding]:
    """Return what the checks find."""
    return [finding for check in CHECKS for finding in check(run)]
