"""How agents explore while training: rules that choose by action values, and noise on continuous actions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from rl_runner.schedules import LinearSchedule
from rl_runner.types import (
    ActionNoise,
    Array,
    BoolArray,
    Carry,
    Exploration,
    FloatArray,
    IntArray,
    Mode,
    Train,
    UserError,
)

if TYPE_CHECKING:
    from torch import Tensor

Explore = Callable[[Array, Carry | None, int, np.random.Generator], tuple[IntArray, Carry | None]]

LONGEST = 10_000  # steps; at most so many times `EzGreedy` repeats an action


def choose(
    q: Tensor, exploration: Exploration, mode: Mode, action_mask: BoolArray | None, carry: Carry | None
) -> tuple[IntArray, Carry | None]:
    """Return actions (N,) chosen by action values (N, A), and the next carry.

    Args:
        q: (N, A).
        exploration: the rule of training; evaluation is greedy, but for the epsilon of its mode.
        mode: what the actions are for.
        action_mask: (N, A) the actions that are allowed; None: all. The others count as worth -inf.
        carry: what a rule with a memory has kept; other rules leave it as it is.
    """
    values = q.float().cpu().numpy()
    if action_mask is not None:
        values = np.where(action_mask, values, -np.inf)
    if not isinstance(mode, Train):
        return epsilon_greedy(values, mode.epsilon, mode.rng), carry
    explore: Explore | None = getattr(exploration, "explore", None)  # isinstance of a protocol takes 7 µs a step
    if explore is not None:
        result = explore(values, carry, mode.step, mode.rng)
        action, carry = _with_carry(result, f"{type(exploration).__name__}.explore must return actions", len(values))
    else:
        action = exploration(values, mode.step, mode.rng)
    if not isinstance(action, np.ndarray) or action.shape != values.shape[:1] or action.dtype.kind not in "iu":
        raise UserError(  # from a rule of the user's own
            f"exploration: {type(exploration).__name__} must return actions (N,) as an array of whole numbers, here "
            f"({len(values)},), got {_described(action)}"
        )
    chosen, number = action.tolist(), values.shape[1]
    inside = min(chosen) >= 0 and max(chosen) < number
    if not inside or (action_mask is not None and not action_mask[np.arange(len(action)), action].all()):
        raise UserError(
            f"exploration: {type(exploration).__name__} must return actions from 0 to {number - 1}, and none of value "
            f"-inf, got {chosen}"
        )
    return action, carry


def draw(
    noise: ActionNoise, shape: tuple[int, int], mode: Train, carry: Carry | None
) -> tuple[FloatArray, Carry | None]:
    """Return noise (N, D) of a rule, which may be the user's own, and the next carry.

    Raises:
        UserError: the rule returned something else.
    """
    result = noise(shape, carry, mode.step, mode.rng)
    name = type(noise).__name__
    drawn, carry = _with_carry(result, f"{name} must return noise", shape[0])
    if not (isinstance(drawn, np.ndarray) and drawn.shape == shape and drawn.dtype.kind in "fiu"):
        raise UserError(
            f"exploration: {name} must return an array of noise (N, D), here {shape}, got {_described(drawn)}"
        )
    if not np.isfinite(drawn).all():
        raise UserError(f"exploration: {name} must return finite noise, got {drawn.tolist()}")
    return drawn, carry


def _with_carry(result: object, wanted: str, n: int) -> tuple[Any, Carry | None]:
    """Return both parts of what a rule with a memory has returned. `wanted` begins the message of an error."""
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Carry | None)):
        raise UserError(f"exploration: {wanted} and a Carry (rl_runner/types.py) or None, got {_described(result)}")
    chosen, carry = result
    if carry is not None and not (
        isinstance(carry.state, dict) and isinstance(carry.reset, np.ndarray) and carry.reset.shape == (n,)
    ):
        raise UserError(
            f"exploration: {wanted} and a Carry with a dict of arrays (N, ...) and an array of flags (N,), here "
            f"({n},), got {_described(carry.state)} and {_described(carry.reset)}"
        )
    return chosen, carry


def _described(value: object) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"


def epsilon_greedy(q: Array, epsilon: float, rng: np.random.Generator) -> IntArray:
    """Return actions (N,): the best by values (N, A), or with probability epsilon a random one."""
    random = rng.random(len(q)) < epsilon
    return np.where(random, _any_allowed(q, rng), q.argmax(axis=1))


class EpsilonGreedy:
    """A random action with probability epsilon, else the greedy one.

    Epsilon changes linearly from `start` to `end` over `steps` environment steps.

    Args:
        start: epsilon at step 0, in [0, 1].
        end: epsilon from step `steps` on, in [0, 1].
        steps: environment steps from start to end, 0 or more.

    Raises:
        UserError: a value out of range.
    """

    def __init__(self, start: float, end: float, steps: int) -> None:
        self.epsilon = _schedule(start, end, steps, lambda x: 0.0 <= x <= 1.0, "a probability in [0, 1]")

    def __call__(self, q: Array, step: int, rng: np.random.Generator) -> IntArray:
        """Choose actions (N,) by values (N, A) at environment step `step`."""
        return epsilon_greedy(q, self.epsilon(step), rng)

    def metrics(self, step: int) -> dict[str, float]:
        """Return epsilon."""
        return {"epsilon": self.epsilon(step)}


def _any_allowed(q: Array, rng: np.random.Generator) -> IntArray:
    """Draw actions (N,) with equal probability among those whose value in (N, A) is not -inf."""
    allowed = q > -np.inf
    if allowed.all():
        return rng.integers(q.shape[1], size=len(q))
    return np.asarray(np.where(allowed, rng.random(q.shape), -1.0).argmax(axis=1))


class EzGreedy(EpsilonGreedy):
    """Temporally extended epsilon-greedy (Dabney et al. 2021, algorithm 1): random actions are repeated.

    In a step that repeats no action, a random one is begun with probability epsilon. It is taken n times, where n has
    the zeta distribution P(n) ~ n^-mu, at most 10,000; an episode's end, and a step that does not allow the action, end
    it. (In the paper's listing the step that draws n does not count.) Long repetitions reach what single random actions
    do not, such as the speed to overtake a car.

    Args:
        start: epsilon at the first step.
        end: epsilon after `steps` steps.
        steps: environment steps from start to end, linearly.
        mu: exponent of the zeta distribution; larger: shorter. 2 as in the paper has a mean of 6.6.

    Raises:
        UserError: a value out of range.
    """

    def __init__(self, start: float, end: float, steps: int, mu: float = 2.0) -> None:
        super().__init__(start, end, steps)
        if not mu > 1.0:
            raise UserError(f"exploration.mu: must be above 1, got {mu}")
        self.mu = mu

    def __call__(self, q: Array, step: int, rng: np.random.Generator) -> IntArray:
        """Choose actions (N,) by values (N, A) at environment step `step`, without a memory."""
        return self.explore(q, None, step, rng)[0]

    def explore(
        self, q: Array, carry: Carry | None, step: int, rng: np.random.Generator
    ) -> tuple[IntArray, Carry | None]:
        """Return actions (N,) by values (N, A), and as the next carry the actions that are repeated and how often."""
        n = len(q)
        repeated, left = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        if carry is not None:
            repeated = carry.state["action"]
            left = np.where(carry.reset | np.isneginf(q[np.arange(n), repeated]), 0, carry.state["left"])
        begin = (left == 0) & (rng.random(n) < self.epsilon(step))
        repeated = np.where(begin, _any_allowed(q, rng), repeated)
        left = np.where(begin, np.minimum(rng.zipf(self.mu, size=n), LONGEST), left)
        action = np.where(left > 0, repeated, q.argmax(axis=1))
        state = {"action": repeated, "left": np.maximum(left - 1, 0)}
        return action, Carry(state, np.zeros(n, dtype=np.bool_))


class Boltzmann:
    """Draw actions from softmax(Q / temperature).

    The temperature goes linearly from `start` to `end` over `steps` environment steps.

    Raises:
        UserError: a value out of range.
    """

    def __init__(self, start: float, end: float, steps: int) -> None:
        self.temperature = _schedule(start, end, steps, lambda x: x > 0.0, "a temperature above 0")

    def __call__(self, q: Array, step: int, rng: np.random.Generator) -> IntArray:
        """Choose actions (N,) by values (N, A): argmax(Q/T + Gumbel noise) is a draw from the softmax."""
        noisy: Array = q / self.temperature(step) + rng.gumbel(size=q.shape)
        return np.asarray(noisy.argmax(axis=1))

    def metrics(self, step: int) -> dict[str, float]:
        """Return the temperature."""
        return {"temperature": self.temperature(step)}


class Greedy:
    """Always the best action: for networks that explore by themselves, noisy ones for example."""

    def __call__(self, q: Array, step: int, rng: np.random.Generator) -> IntArray:
        """Choose actions (N,) by values (N, A)."""
        return np.asarray(q.argmax(axis=1))

    def metrics(self, step: int) -> dict[str, float]:
        """Nothing to report."""
        return {}


class Gaussian:
    """Independent Gaussian noise on continuous actions, for each environment, dimension and step.

    Its standard deviation goes linearly from `start` to `end` over `steps` environment steps; it is in units
    of half the range of each dimension.

    Raises:
        UserError: a value out of range.
    """

    def __init__(self, start: float, end: float, steps: int) -> None:
        self.std = _deviation(start, end, steps)

    def __call__(
        self, shape: tuple[int, int], carry: Carry | None, step: int, rng: np.random.Generator
    ) -> tuple[FloatArray, Carry | None]:
        """Draw noise (N, D) at environment step `step`."""
        return (self.std(step) * rng.standard_normal(shape)).astype(np.float32), carry

    def metrics(self, step: int) -> dict[str, float]:
        """Return the standard deviation."""
        return {"noise_std": self.std(step)}


class OrnsteinUhlenbeck:
    """Noise with a memory: x <- (1 - theta) x + sqrt(theta (2 - theta)) Gaussian noise, times a standard deviation.

    x begins at 0 in each episode; its standard deviation tends to 1. The standard deviation of the noise goes from
    `start` to `end` linearly over `steps` environment steps; it is in units of half the range of each
    dimension. The process of Lillicrap et al. (2016), with theta 0.15 and sigma 0.2, is theta 0.15 and a standard
    deviation of 0.2 / sqrt(0.15 (2 - 0.15)) = 0.38 here.

    Args:
        start: standard deviation at the first step.
        end: standard deviation after `steps` steps.
        steps: environment steps from start to end.
        theta: share of x that is lost per step.

    Raises:
        UserError: a value out of range.
    """

    def __init__(self, start: float, end: float, steps: int, theta: float = 0.15) -> None:
        if not 0.0 < theta <= 1.0:
            raise UserError(f"exploration.theta: must be in (0, 1], got {theta}")
        self.std, self.keep = _deviation(start, end, steps), 1.0 - theta

    def __call__(
        self, shape: tuple[int, int], carry: Carry | None, step: int, rng: np.random.Generator
    ) -> tuple[FloatArray, Carry | None]:
        """Return noise (N, D) at environment step `step`, and the process's state as the next carry."""
        x = np.zeros(shape)
        if carry is not None:
            x[~carry.reset] = carry.state["noise"][~carry.reset]
        x = self.keep * x + math.sqrt(1.0 - self.keep**2) * rng.standard_normal(shape)  # its deviation tends to 1
        return (self.std(step) * x).astype(np.float32), Carry({"noise": x}, np.zeros(shape[0], dtype=np.bool_))

    def metrics(self, step: int) -> dict[str, float]:
        """Return the standard deviation."""
        return {"noise_std": self.std(step)}


def _deviation(start: float, end: float, steps: int) -> LinearSchedule:
    return _schedule(start, end, steps, lambda x: x >= 0.0, "a standard deviation, 0 or more")


def _schedule(start: float, end: float, steps: int, holds: Callable[[float], bool], what: str) -> LinearSchedule:
    """Return the schedule of a rule. Raise UserError if its ends are not what they must be."""
    for key, value in [("start", start), ("end", end)]:
        if not holds(value):
            raise UserError(f"exploration.{key}: must be {what}, got {value}")
    if steps < 0:
        raise UserError(f"exploration.steps: must be 0 or more, got {steps}")
    return LinearSchedule(start, end, steps)
