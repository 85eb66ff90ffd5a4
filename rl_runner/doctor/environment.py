"""Checks of an environment, by some random steps. Add a check by writing a function and adding it to CHECKS."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from rl_runner.doctor.finding import Finding
from rl_runner.doctor.probe import STEPS, Probe

LARGE_OBSERVATION = 100.0  # networks that are not told otherwise expect numbers of about 1
LARGE_REWARD = 1_000.0


def stops_training(probe: Probe) -> Iterator[Finding]:
    """A check that training makes at every step has found something."""
    if probe.stopped:
        yield stopping(probe.stopped)


def stopping(error: str) -> Finding:
    """Return the finding of an error that ends training soon after its start; its message begins with a key."""
    key, _, said = error.partition(": ")
    return Finding(key, said, "", "training stops with this", refused=True)


def told_by_gymnasium(probe: Probe) -> Iterator[Finding]:
    """Gymnasium's checker has found something."""
    for text in probe.wrong:
        told = probe.stopped or (probe.differs and "eterministic" in text)  # by another check, with the step
        if not told:
            yield Finding("env", f"Gymnasium's checker: {text.rstrip('.')}", "", "correct the environment")


def infinite(probe: Probe) -> Iterator[Finding]:
    """A number is not finite."""
    if probe.infinite:
        why = f"returned {probe.infinite}: training stops there"
        yield Finding("env", probe.name, why, "return finite numbers")


def not_repeatable(probe: Probe) -> Iterator[Finding]:
    """An episode is not a function of its seed and actions."""
    if probe.differs:
        why = f"goes another way at {probe.differs}, with the same seed and actions: a resumed run is not exact"
        yield Finding(
            "env", probe.name, why, "draw all random numbers from self.np_random, and keep no state over resets"
        )


def outside_its_space(probe: Probe) -> Iterator[Finding]:
    """An observation is not in the space that the environment declares."""
    if probe.outside:
        yield Finding("env", probe.name, f"observed {probe.outside}", "correct the space or the observation")


def observations_of_large_scale(probe: Probe) -> Iterator[Finding]:
    """Numbers are large, and the network does not normalise them."""
    network = probe.cfg.get("network") or {}
    if probe.scaled or not probe.low.size or network.get("normalize", True) or not probe.stored.startswith("float"):
        return
    size = np.maximum(np.abs(probe.low), np.abs(probe.high))
    if size.max() > LARGE_OBSERVATION:
        where = ",".join(map(str, np.unravel_index(int(size.argmax()), size.shape)))
        why = f"and observations reach {size.max():.4g} (component {where}): layers learn badly from such numbers"
        yield Finding("network.normalize", False, why, "use network.normalize=true, or scale them in the environment")


def constant_observations(probe: Probe) -> Iterator[Finding]:
    """There is nothing to see."""
    if probe.low.size and len(probe.rewards) == STEPS and (probe.low == probe.high).all():
        yield Finding("env", probe.name, f"gives the same observation in all {STEPS:,} steps", "return what changes")


def rewards_of_large_scale(probe: Probe) -> Iterator[Finding]:
    """Errors of values are of the rewards' size, and gradients grow with them."""
    agent = probe.cfg.get("agent") or {}
    largest = max(map(abs, probe.rewards), default=0.0)
    if "reward_clip" not in probe.cfg or probe.cfg["reward_clip"] is not None or agent.get("normalize_rewards"):
        return
    if largest > LARGE_REWARD:
        scaled = "agent.normalize_rewards=true" if "normalize_rewards" in agent else "reward_clip=1"
        why = f"and rewards reach {largest:.4g}: values and gradients become as large"
        yield Finding("reward_clip", None, why, f"use {scaled}, or scale them in the environment")


def no_rewards(probe: Probe) -> Iterator[Finding]:
    """Random play finds no reward."""
    if len(probe.rewards) == STEPS and not any(probe.rewards):
        why = f"gave no reward but 0 in {STEPS:,} random steps: nothing is learned before exploration finds one"
        yield Finding("env", probe.name, why, "reward progress too, or explore longer")


def endless(probe: Probe) -> Iterator[Finding]:
    """Episodes have no end of their own."""
    if not probe.limited and not probe.lengths and len(probe.rewards) == STEPS:
        why = f"and no episode ended in {STEPS:,} random steps: each one takes rlrun's limit of 10,000"
        yield Finding("env.max_steps", None, why, "set a time limit")


CHECKS: tuple[Callable[[Probe], Iterator[Finding]], ...] = (
    stops_training,
    told_by_gymnasium,
    infinite,
    not_repeatable,
    outside_its_space,
    observations_of_large_scale,
    constant_observations,
    rewards_of_large_scale,
    no_rewards,
    endless,
)


def findings(probe: Probe) -> list[Finding]:
    """Return what the checks find."""
    return [finding for check in CHECKS for finding in check(probe)]
