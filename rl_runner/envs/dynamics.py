"""The dynamics of environments that have a table of them, such as Gymnasium's toy_text environments.

A table describes the innermost environment. A wrapper may change actions, rewards or states, and the table may be
wrong. So each table is compared with sampled steps of the wrapped environment before values computed from it are called
exact.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Discrete

from rl_runner import rng
from rl_runner.envs.spaces import MASK
from rl_runner.exact.mdp import MDP, Table, action_values, has_converged, masked
from rl_runner.types import BoolArray, IntArray, UserError, described

STEPS = 1_500  # sampled for the comparison
EPISODE = 200  # largest number of steps of one of its episodes
RANDOM = (0.0, 0.3, 1.0)  # share of random actions in its episodes; the others are greedy by the table
FALSE_ALARM = 1e-7  # probability of rejecting a correct table by its frequencies

Make = Callable[[], gym.Env[Any, Any]]
Outcome = tuple[int, float, bool]  # next state, reward, terminated


def known(make: Make, name: str, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> MDP | None:
    """Return the dynamics of an environment, or None if it has no table `P` of them.

    The comparison plays a separate copy with separate seeds: the run's environments are not touched, and the result for
    an environment is the same in every run.

    Args:
        make: makes the environment, including its wrappers.
        name: of the environment, for messages.
        observation_space: of one environment.
        action_space: of one environment.

    Raises:
        UserError: the table does not match the environment, or the environment raises an exception.
    """
    if not isinstance(observation_space, Discrete) or not isinstance(action_space, Discrete):
        return None
    try:
        env = make()
    except Exception:  # someone else's code: it may allow only one such environment at a time
        return None
    try:
        return _read_and_compare(env, name, (int(observation_space.start), int(action_space.start)))
    except UserError:
        raise
    except Exception as e:
        raise UserError(f"{name} cannot be compared with its table P: it raised {described(e)}") from e
    finally:
        env.close()


def _read_and_compare(env: gym.Env[Any, Any], name: str, first: tuple[int, int]) -> MDP | None:
    inner = env.unwrapped
    table, start = getattr(inner, "P", None), getattr(inner, "initial_state_distrib", None)
    if not isinstance(table, dict) or start is None:
        return None
    shape = getattr(inner, "shape", None) or getattr(getattr(inner, "desc", None), "shape", None)
    grid = shape if isinstance(shape, tuple) and len(shape) == 2 and math.prod(shape) == len(table) else None
    try:
        mdp = MDP.from_table(table, start, _time_limit(env), grid)
    except UserError as e:
        raise UserError(f"the table P of {name} cannot be used: {e}") from e
    except (LookupError, TypeError, ValueError):  # another kind of table
        return None
    try:
        return Comparison(env, table, mdp, *first).run()
    except Contradiction as e:
        raise UserError(f"the table P of {name} does not match the environment: {e}") from e


class Contradiction(Exception):
    """Raised if a sampled step or a frequency contradicts the table."""


class Comparison:
    """Samples steps of an environment and compares them with its table.

    Args:
        env: the environment, including its wrappers.
        table: `P[s][a]`, a list of (probability, next state, reward, terminated).
        mdp: made from the same table.
        first_state: the observation that shows state 0.
        first_action: the number of the first action.
    """

    def __init__(
        self, env: gym.Env[Any, Any], table: Table, mdp: MDP, first_state: int = 0, first_action: int = 0
    ) -> None:
        mask = getattr(env.unwrapped, MASK, None)  # a method, as Taxi has it
        if callable(mask):
            mdp = masked(mdp, np.array([mask(s) for s in range(len(table))], dtype=np.bool_))
        self.env, self.table, self.mdp = env, table, mdp
        self.first_state, self.first_action = first_state, first_action
        self.starts: Counter[int] = Counter()  # first states
        self.steps: dict[tuple[int, int], Counter[int]] = {}  # (s, a) -> outcomes, by their index
        self.truncated: set[int] = set()  # lengths of truncated episodes
        self.longest = 0

    def run(self, seed: int = 0) -> MDP:
        """Return the MDP, with the time limit of the environment if that is shorter.

        Args:
            seed: of actions and episodes.

        Raises:
            Contradiction: the first difference.
        """
        self._check_sizes()
        policy, stream = _best_actions(self.mdp), rng.generator(seed, "dynamics")
        used = [0] * len(RANDOM)  # steps for each share of random actions; the next episode goes to the smallest
        episode = 0
        while sum(used) < STEPS:
            kind = used.index(min(used))
            used[kind] += self._play(rng.integer(seed, "dynamics", episode), policy, RANDOM[kind], stream)
            episode += 1
        self._check_frequencies()
        return self._with_time_limit()

    def _check_sizes(self) -> None:
        spaces = (self.env.observation_space, self.env.action_space)
        played = tuple(int(space.n) for space in spaces if isinstance(space, Discrete))
        if self.mdp.reward.shape != played:
            tabled, shown = ("{} states and {} actions".format(*sizes) for sizes in (self.mdp.reward.shape, played))
            raise Contradiction(f"P has {tabled}, the environment's spaces have {shown}")

    def _play(self, seed: int, policy: IntArray, random: float, stream: np.random.Generator) -> int:
        """Play one episode and return its length."""
        obs, info = self.env.reset(seed=seed)
        state = int(obs) - self.first_state
        if not (0 <= state < len(policy) and self.mdp.start[state] > 0):
            raise Contradiction(f"an episode began in state {state}, whose probability in initial_state_distrib is 0")
        self.starts[state] += 1
        for t in range(1, EPISODE + 1):
            action = int(stream.integers(self.mdp.reward.shape[1]) if stream.random() < random else policy[state])
            action = self._allowed(state, action, info.get(MASK))
            obs, reward, terminated, truncated, info = self.env.step(action + self.first_action)
            after = int(obs) - self.first_state
            self._note(state, action, (after, float(reward), bool(terminated)))
            state = after
            if truncated and not terminated:
                self.truncated.add(t)
            if terminated or truncated:
                break
        self.longest = max(self.longest, t)
        return t

    def _allowed(self, state: int, action: int, mask: BoolArray | None) -> int:
        """Return the action, or the allowed one that it counts as. Raise Contradiction if the mask differs."""
        acts_as = self.mdp.acts_as
        if (acts_as is None) != (mask is None):
            raise Contradiction(f"it {'shows no' if mask is None else 'has no'} action_mask for state {state}")
        if acts_as is None or mask is None:
            return action
        if (mask != (acts_as[state] == np.arange(len(mask)))).any():
            raise Contradiction(f"the action_mask of state {state} is not the one that its method returns")
        return int(acts_as[state, action])

    def _note(self, state: int, action: int, played: Outcome) -> None:
        """Count an outcome. Raise Contradiction if it is not in the table."""
        outcomes = _distinct(self.table[state][action])
        for k, outcome in enumerate(outcomes):
            if _same(outcome, played):
                self.steps.setdefault((state, action), Counter())[k] += 1
                return
        listed = " or ".join(_in_words(outcome) for outcome in list(outcomes)[:4])
        raise Contradiction(f"in state {state} action {action} led to {_in_words(played)}, where P has {listed}")

    def _check_frequencies(self) -> None:
        """Compare frequencies with probabilities, for each state and action and for all with equal probabilities."""
        enough = math.log((2 * self.mdp.reward.size + 1) / FALSE_ALARM)  # for the largest number of comparisons
        begins = np.flatnonzero(self.mdp.start > 0)
        if _evidence([self.starts[int(s)] for s in begins], self.mdp.start[begins].tolist()) > enough:
            raise Contradiction(f"the first states of {self.starts.total()} episodes contradict initial_state_distrib")
        alike: dict[tuple[float, ...], Counter[int]] = {}
        for (state, action), counts in self.steps.items():
            probabilities = tuple(_distinct(self.table[state][action]).values())
            _compare(f"in state {state} action {action}: ", counts, probabilities, enough)
            alike.setdefault(probabilities, Counter()).update(counts)
        for probabilities, counts in alike.items():
            _compare("", counts, probabilities, enough)

    def _with_time_limit(self) -> MDP:
        if not self.truncated:
            return self.mdp
        if self.truncated != {self.longest}:  # the limit depends on more than the number of steps
            raise Contradiction(f"an episode was truncated after {min(self.truncated)} steps, another one was not")
        return dataclasses.replace(self.mdp, horizon=self.longest)


def _compare(where: str, counts: Counter[int], probabilities: Sequence[float], enough: float) -> None:
    numbers = [counts[k] for k in range(len(probabilities))]
    if _evidence(numbers, probabilities) > enough:
        shares = ", ".join(f"{p:.3g}" for p in probabilities)
        times = ", ".join(str(n) for n in numbers)
        raise Contradiction(f"{where}outcomes of probability {shares} came {times} times")


def _evidence(counts: Sequence[int], probabilities: Sequence[float]) -> float:
    """Return the logarithm of the Bayes factor of "other probabilities" (Jeffreys' prior) against these.

    If these probabilities are correct, the expected factor is 1, for any stopping rule. So it exceeds x with a
    probability of at most 1 / x (Markov's inequality).
    """
    half = len(counts) / 2
    others = math.lgamma(half) - math.lgamma(half + sum(counts))
    others += sum(math.lgamma(n + 0.5) - math.lgamma(0.5) for n in counts)
    return others - sum(n * math.log(p) for n, p in zip(counts, probabilities, strict=True))


def _distinct(outcomes: Sequence[tuple[float, int, float, bool]]) -> dict[Outcome, float]:
    """Return the probability of each possible outcome; the table may list one more than once."""
    distinct: dict[Outcome, float] = {}
    for probability, state, reward, ends in outcomes:
        if probability > 0:
            outcome = (int(state), float(reward), bool(ends))
            distinct[outcome] = distinct.get(outcome, 0.0) + float(probability)
    return distinct


def _same(a: Outcome, b: Outcome) -> bool:
    return a[0] == b[0] and a[2] == b[2] and math.isclose(a[1], b[1], rel_tol=1e-6, abs_tol=1e-9)


def _in_words(outcome: Outcome) -> str:
    state, reward, ends = outcome
    return f"state {state} (reward {reward:g}{', terminated' if ends else ''})"


def _best_actions(mdp: MDP) -> IntArray:
    """Return the approximately best action of each state (S,), to sample with."""
    q, gamma = np.zeros_like(mdp.reward), 0.99
    for _ in range(1_000):
        before, q = q, action_values(mdp, q.max(axis=1), gamma)
        if has_converged(before, q, gamma, tolerance=1e-3):
            break
    best: IntArray = q.argmax(axis=1)
    return best


def _time_limit(env: gym.Env[Any, Any]) -> int | None:
    """Return the shortest time limit of the wrappers in steps, or None."""
    limits = []
    while isinstance(env, gym.Wrapper):
        if isinstance(env, gym.wrappers.TimeLimit):
            limits.append(env._max_episode_steps)
        env = env.env
    return min(limits, default=None)
