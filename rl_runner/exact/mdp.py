"""Finite Markov decision processes with known dynamics, and their exact values, to compare learned values with.

S states, A actions, K outcomes of an action. A *policy* is an array of probabilities (S, A). A state's number is its
index, from 0. All numbers are in double precision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from rl_runner import memory
from rl_runner.types import BoolArray, IntArray, UserError

Floats = npt.NDArray[np.float64]
Table = Mapping[int, Mapping[int, Sequence[tuple[float, int, float, bool]]]]

SWEEPS = 500_000  # limit of value iteration


@dataclass(frozen=True, eq=False)
class MDP:
    """The dynamics: the outcomes of each action in each state.

    The time limit is separate: it truncates an episode and does not change the value of a state.

    Attributes:
        reward: (S, A) expected reward.
        state: (S, A, K) next state of each outcome; padding has probability 0.
        probability: (S, A, K) of each outcome; sums to 1 over K.
        continuing: (S, A, K) probability of the outcome, or 0 if it ends the episode.
        start: (S,) distribution of the first state.
        horizon: time limit of an episode in steps, or None.
        grid: rows and columns, if the states are cells numbered row by row, else None.
        acts_as: (S, A) the action that replaces each action: a forbidden action has the outcomes of the first allowed
            one, so that it changes no maximum. None: all actions are allowed.
    """

    reward: Floats
    state: IntArray
    probability: Floats
    continuing: Floats
    start: Floats
    horizon: int | None
    grid: tuple[int, int] | None
    acts_as: IntArray | None = None

    @classmethod
    def from_table(cls, table: Table, start: Any, horizon: int | None, grid: tuple[int, int] | None) -> MDP:
        """Read the table `P` of Gymnasium's toy_text environments.

        Args:
            table: `P[s][a]`, a list of (probability, next state, reward, terminated).
            start: (S,) distribution of the first state.
            horizon: see `MDP`.
            grid: see `MDP`.

        Raises:
            UserError: an outcome is malformed, or probabilities do not sum to 1.
        """
        outcomes = [[table[s][a] for a in range(len(table[s]))] for s in range(len(table))]
        shape = (len(outcomes), len(outcomes[0]), max(len(o) for row in outcomes for o in row))
        state, reward = np.zeros(shape, dtype=np.int64), np.zeros(shape)
        probability, ends = np.zeros(shape), np.zeros(shape, dtype=np.bool_)
        for s, row in enumerate(outcomes):
            for a, o in enumerate(row):
                for k, outcome in enumerate(o):
                    probability[s, a, k], state[s, a, k], reward[s, a, k], ends[s, a, k] = outcome
        sound = (state >= 0) & (state < len(state)) & (probability >= 0) & np.isfinite(reward)
        if not sound.all():
            s, a, k = np.argwhere(~sound)[0]
            raise UserError(f"P[{s}][{a}] has {outcomes[s][a][k]}, not (probability, state, reward, terminated)")
        if not np.allclose(probability.sum(axis=2), 1.0):
            s, a = np.argwhere(~np.isclose(probability.sum(axis=2), 1.0))[0]
            raise UserError(f"the probabilities of P[{s}][{a}] sum to {probability[s, a].sum():g}, not to 1")
        expected = (probability * reward).sum(axis=2)
        continuing = np.where(ends, 0.0, probability)
        first = np.array(start, dtype=np.float64)
        if first.shape != shape[:1] or (first < 0).any() or not np.isclose(first.sum(), 1.0):
            raise UserError(f"initial_state_distrib is not a probability distribution over {len(outcomes)} states")
        return cls(expected, state, probability, continuing, first, horizon, grid)


def masked(mdp: MDP, allowed: BoolArray) -> MDP:
    """Return the MDP restricted to the actions in `allowed` (S, A), at least one in each state."""
    acts_as = np.where(allowed, np.arange(allowed.shape[1]), allowed.argmax(axis=1)[:, None])
    by_outcome = acts_as[:, :, None]
    return replace(
        mdp,
        reward=np.take_along_axis(mdp.reward, acts_as, axis=1),
        state=np.take_along_axis(mdp.state, by_outcome, axis=1),
        probability=np.take_along_axis(mdp.probability, by_outcome, axis=1),
        continuing=np.take_along_axis(mdp.continuing, by_outcome, axis=1),
        acts_as=acts_as,
    )


def action_values(mdp: MDP, values: Floats, gamma: float) -> Floats:
    """Return the values (S, A) of one action followed by states of values `values` (S,)."""
    following: Floats = (mdp.continuing * values[mdp.state]).sum(axis=2)
    return mdp.reward + gamma * following


def optimal_values(mdp: MDP, gamma: float) -> Floats:
    """Return Q* (S, A), to within 1e-10, by value iteration (Sutton & Barto 2018, section 4.4).

    Raises:
        UserError: the values do not converge, because gamma is 1 and episodes need not end.
    """
    q = np.zeros_like(mdp.reward)
    for _ in range(SWEEPS):
        before, q = q, action_values(mdp, q.max(axis=1), gamma)
        if has_converged(before, q, gamma, tolerance=1e-10):
            return q
    raise UserError(f"agent.gamma: with {gamma} the optimal values did not converge in {SWEEPS:,} sweeps; lower it")


def has_converged(before: Floats, now: Floats, gamma: float, tolerance: float) -> bool:
    """Return whether value iteration has converged after the sweep from `before` to `now`, both (S, A).

    A sweep multiplies the distance to Q* by at most gamma, so what remains is at most gamma / (1 - gamma) times the
    change. With gamma = 1 there is no bound, and the change must be below a hundredth of the tolerance. If it is only a
    few units in the last place, which are rounding errors, the values have converged too.
    """
    change = float(np.abs(now - before).max())
    if change <= 4 * np.finfo(np.float64).eps * np.abs(now).max():
        return True
    return gamma * change < (1 - gamma) * tolerance if gamma < 1 else change < tolerance / 100


def require_memory(mdp: MDP) -> None:
    """Raise UserError if there is no memory for the five matrices (S, S) of `policy_values`."""
    states = len(mdp.start)
    what = f"env: the exact value of a policy in {states:,} states"
    memory.require(what, 5 * 8 * states**2, "choose fewer states")


def policy_values(mdp: MDP, policy: Floats, gamma: float) -> Floats:
    """Return V (S,) of a policy (S, A), by solving V = r + gamma P V.

    With gamma = 1 the sum of rewards may be infinite. If an episode continues forever without reward, V is finite; with
    rewards, V is inf or -inf, and nan where both can happen.
    """
    reward = (policy * mdp.reward).sum(axis=1)  # (S,)
    chain = _chain(mdp, policy)  # (S, S)
    identity = np.eye(len(reward))
    if gamma < 1:
        return np.linalg.solve(identity - gamma * chain, reward)
    visits = _closure(chain > 0)  # (S, S)
    may_end = visits @ (chain.sum(axis=1) < 1 - 1e-9)
    forever = ~may_end & (visits <= visits.T).all(axis=1)  # recurrent: every state visited from here leads back
    values = np.linalg.solve(identity - np.where(forever[:, None], 0.0, chain), np.where(forever, 0.0, reward))
    gains, losses = visits @ (forever & (reward > 0)), visits @ (forever & (reward < 0))
    return np.select([gains & losses, gains, losses], [np.nan, np.inf, -np.inf], default=values)


def occupancy(mdp: MDP, policy: Floats, gamma: float) -> Floats:
    """Return how often a policy (S, A) visits each state (S,) in an episode without a time limit, on average.

    A visit after t steps counts gamma^t. With gamma = 1 and a policy whose episodes need not end, all are nan.
    """
    seen = reachable(mdp)
    chain = _chain(mdp, policy)[np.ix_(seen, seen)]
    visits = np.zeros(len(mdp.start))
    if gamma == 1 and not (_closure(chain > 0) @ (chain.sum(axis=1) < 1 - 1e-9)).all():  # some states never end
        return np.full_like(visits, np.nan)
    visits[seen] = np.linalg.solve(np.eye(len(chain)) - gamma * chain.T, mdp.start[seen])
    return visits


def _chain(mdp: MDP, policy: Floats) -> Floats:
    """Return the transition probabilities (S, S) of a policy; a row sums to 1 minus the probability of the end."""
    chain = np.zeros((len(policy), len(policy)))
    origin = np.arange(len(policy))[:, None, None]
    np.add.at(chain, (origin, mdp.state), policy[:, :, None] * mdp.continuing)
    return chain


def _closure(steps: BoolArray) -> BoolArray:
    """Return which states (S, S) are reachable from which in zero or more `steps` (S, S)."""
    visits: BoolArray = steps | np.eye(len(steps), dtype=np.bool_)
    while True:
        # Doubles the number of steps. Matrices of floats are multiplied faster than those of bools.
        more = visits.astype(np.float32) @ visits.astype(np.float32) > 0
        if (more == visits).all():
            return visits
        visits = more


def expected_return(mdp: MDP, policy: Floats) -> float:
    """Return the mean undiscounted return of an episode within the time limit, which an evaluation estimates."""
    if mdp.horizon is None:
        return at_start(mdp, policy_values(mdp, policy, gamma=1.0))
    values = np.zeros(len(policy))  # (S,) of the remaining steps, from the last step backwards
    for _ in range(mdp.horizon):
        values = (policy * action_values(mdp, values, gamma=1.0)).sum(axis=1)
    return at_start(mdp, values)


def at_start(mdp: MDP, values: Floats) -> float:
    """Return the mean of `values` (S,) over the first states."""
    begins = mdp.start > 0  # the others may be infinite
    return float(mdp.start[begins] @ values[begins])


def greedy(q: Floats) -> Floats:
    """Return the greedy policy (S, A), compared in single precision as an agent does; of equal actions the first."""
    policy: Floats = np.eye(q.shape[1])[q.astype(np.float32).argmax(axis=1)]
    return policy


def uniform(mdp: MDP) -> Floats:
    """Return the policy (S, A) that takes each allowed action with the same probability."""
    actions = mdp.reward.shape[1]
    allowed = np.ones(mdp.reward.shape) if mdp.acts_as is None else (mdp.acts_as == np.arange(actions)) * 1.0
    policy: Floats = allowed / allowed.sum(axis=1, keepdims=True)
    return policy


def reachable(mdp: MDP) -> BoolArray:
    """Return in which states (S,) an action can be chosen; terminal states are excluded."""
    seen: BoolArray = mdp.start > 0
    while True:
        more = seen.copy()
        more[mdp.state[seen][mdp.continuing[seen] > 0]] = True
        if (more == seen).all():
            return seen
        seen = more
