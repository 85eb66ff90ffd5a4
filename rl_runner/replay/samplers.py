"""Samplers: rules that choose the rows of the replay to learn from."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
from torch import Tensor

from rl_runner.schedules import LinearSchedule
from rl_runner.types import FloatArray, IntArray, State, UserError


class Uniform:
    """Draw every row with equal probability.

    Args:
        capacity: rows of the replay memory, not used here; every sampler takes it.
    """

    def __init__(self, capacity: int = 0) -> None:
        self._id_bound = 0

    def add(self, ids: IntArray) -> None:
        """Add rows. Ids (N,) grow from 0, so the known rows are [0, id_bound)."""
        self._id_bound = max(self._id_bound, int(ids.max()) + 1)

    def sample(self, n: int, step: int, rng: np.random.Generator) -> IntArray:
        """Draw n ids with replacement."""
        return rng.integers(self._id_bound, size=n)

    def weight(self, ids: IntArray, step: int) -> FloatArray:
        """Return the importance weights (B,), which are 1."""
        return np.ones(len(ids), dtype=np.float32)

    def update(self, ids: IntArray, priority: Tensor | None) -> None:
        """Do nothing: there are no priorities."""

    def metrics(self, step: int) -> dict[str, float]:
        """Return nothing."""
        return {}

    def state_dict(self) -> State:
        """Return the number of known rows."""
        return {"high": self._id_bound}

    def load_state_dict(self, state: State) -> None:
        """Restore the number of known rows."""
        self._id_bound = state["high"]


class Prioritized:
    """Draw rows in proportion to priority^alpha, with importance weights (Schaul et al. 2016, proportional variant).

    A new row has the highest priority so far, so that it is drawn soon.

    Args:
        capacity: rows of the replay.
        alpha: 0 is uniform, 1 is proportional.
        beta: exponent of the importance weights at the start of the run; it increases linearly to 1.
        beta_steps: number of environment steps until it is 1.
        epsilon: added to each priority, so that it is not 0.

    Raises:
        UserError: a value out of range.
    """

    def __init__(
        self, capacity: int, alpha: float = 0.5, beta: float = 0.4, beta_steps: int = 0, epsilon: float = 1e-6
    ) -> None:
        for key, value in [("alpha", alpha), ("beta", beta)]:
            if not 0.0 <= value <= 1.0:
                raise UserError(f"replay.sampler.{key}: must be in [0, 1], got {value}")
        if beta_steps < 0:
            raise UserError(f"replay.sampler.beta_steps: must be 0 or more, got {beta_steps}")
        if not epsilon > 0.0:
            raise UserError(f"replay.sampler.epsilon: must be above 0, got {epsilon}")
        self.alpha, self.epsilon = alpha, epsilon
        self.beta = LinearSchedule(beta, 1.0, beta_steps)
        self._tree = SumTree(capacity)
        self._highest = 1.0  # priority^alpha

    @property
    def nbytes(self) -> int:
        """Memory of the priorities in bytes."""
        return self._tree.nbytes

    def add(self, ids: IntArray) -> None:
        """Add rows (N,)."""
        self._tree.set(ids, np.full(len(ids), self._highest))

    def remove(self, ids: IntArray) -> None:
        """Draw rows (N,) no more until they are added again."""
        self._tree.set(ids, np.zeros(len(ids)))

    def sample(self, n: int, step: int, rng: np.random.Generator) -> IntArray:
        """Draw n ids with replacement, one from each of n parts of equal mass, to reduce variance."""
        mass = (np.arange(n) + rng.random(n)) / n * self._tree.total
        return self._tree.find(mass)

    def weight(self, ids: IntArray, step: int) -> FloatArray:
        """Return the importance weights (B,), proportional to probability^-beta; the largest is 1."""
        priority = self._tree.get(ids)
        weight: FloatArray = ((priority / priority.min()) ** -self.beta(step)).astype(np.float32)
        return weight

    def update(self, ids: IntArray, priority: Tensor | None) -> None:
        """Update priorities (B,), 0 or more.

        Raises:
            UserError: the agent returns no priorities; or one is not finite, because the network has diverged.
        """
        if priority is None:
            raise UserError("replay: the agent returns no priorities, which replay=prioritized needs; use uniform")
        raw = priority.cpu().double().numpy()
        if not (np.isfinite(raw) & (raw >= 0)).all():
            raise UserError("optimizer.lr: the network has diverged (a loss is not finite); choose a smaller one")
        scaled = (raw + self.epsilon) ** self.alpha
        self._highest = max(self._highest, float(scaled.max()))
        self._tree.set(ids, scaled)

    def metrics(self, step: int) -> dict[str, float]:
        """Return beta, the mean priority^alpha in memory, and the highest priority^alpha so far."""
        rows = int(np.count_nonzero(self._tree.leaves))
        mean = self._tree.total / rows if rows else 0.0
        return {"beta": self.beta(step), "priority_mean": mean, "priority_max": self._highest}

    def state_dict(self) -> State:
        """Return all priorities."""
        return {"priority": self._tree.leaves, "highest": self._highest}

    def load_state_dict(self, state: State) -> None:
        """Restore all priorities. Raise ValueError if they exceed the capacity."""
        self._tree.load(state["priority"])
        self._highest = state["highest"]


class SumTree:
    """Numbers with sums over groups, groups of groups, and so on; changes and searches take O(log n).

    Sums are computed from their parts at each change, so that rounding errors do not accumulate.

    Args:
        size: number of numbers; all start at 0.
    """

    FAN = 32  # numbers in a group: 1,000,000 numbers make 4 levels, each a few array operations for a whole batch

    def __init__(self, size: int) -> None:
        self.size = size
        self._levels: list[npt.NDArray[np.float64]] = []  # the numbers, their sums, the sums' sums, ..., <= FAN of them
        while not self._levels or len(self._levels[-1]) > self.FAN:
            size = -(-size // self.FAN)  # groups, the last one filled up with zeros
            self._levels.append(np.zeros(size * self.FAN))

    @property
    def leaves(self) -> npt.NDArray[np.float64]:
        """The numbers (size,), a view."""
        return self._levels[0][: self.size]

    @property
    def total(self) -> float:
        """The sum of all."""
        return float(self._levels[-1].sum())

    @property
    def nbytes(self) -> int:
        """Memory of the tree in bytes."""
        return sum(level.nbytes for level in self._levels)

    def get(self, ids: IntArray) -> npt.NDArray[np.float64]:
        """Return the numbers at `ids` (B,)."""
        return self._levels[0][ids]

    def set(self, ids: IntArray, values: npt.NDArray[np.float64]) -> None:
        """Set the numbers at `ids` (B,) to `values` (B,); if an id occurs twice, the last value is used."""
        self._levels[0][ids] = values
        for parts, sums in pairwise(self._levels):
            ids = ids // self.FAN
            sums[ids] = parts.reshape(-1, self.FAN)[ids].sum(axis=1)

    def find(self, mass: npt.NDArray[np.float64]) -> IntArray:
        """Return for each mass (B,) in [0, total) the first id at which the running sum of the numbers exceeds it."""
        ids = np.zeros(len(mass), dtype=np.int64)
        rows = np.arange(len(mass))
        for level in reversed(self._levels):
            running = level.reshape(-1, self.FAN)[ids].cumsum(axis=1)  # (B, FAN)
            # By rounding, a mass may reach the group's sum: then the last number that is not 0 is chosen.
            mass = np.minimum(mass, np.nextafter(running[:, -1], 0.0))
            child = (running <= mass[:, None]).sum(axis=1)
            mass = mass - np.where(child > 0, running[rows, child - 1], 0.0)
            ids = ids * self.FAN + child
        return ids

    def load(self, leaves: npt.NDArray[np.float64]) -> None:
        """Restore saved numbers and set the rest to 0. Raise ValueError if there are too many."""
        if len(leaves) > self.size:
            raise ValueError(f"replay priorities: saved {len(leaves)}, configured {self.size}")
        self._levels[0][: len(leaves)] = leaves
        self._levels[0][len(leaves) :] = 0.0
        for parts, sums in pairwise(self._levels):
            groups = parts.reshape(-1, self.FAN).sum(axis=1)
            sums[: len(groups)] = groups
