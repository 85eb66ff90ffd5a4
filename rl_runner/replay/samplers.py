"""Which rows of the replay are learned from."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
from torch import Tensor

from rl_runner.schedules import LinearSchedule
from rl_runner.types import FloatArray, IntArray, State, UserError


class Uniform:
    """Every row with the same probability.

    Args:
        capacity: rows of the replay memory, which every sampler is told; this one counts those that it was shown.
    """

    def __init__(self, capacity: int = 0) -> None:
        self._id_bound = 0

    def add(self, ids: IntArray) -> None:
        """Take rows in; ids (N,) grow from 0, so the rows known are [0, id_bound)."""
        self._id_bound = max(self._id_bound, int(ids.max()) + 1)

    def sample(self, n: int, step: int, rng: np.random.Generator) -> IntArray:
        """Draw n ids with replacement."""
        return rng.integers(self._id_bound, size=n)

    def weight(self, ids: IntArray, step: int) -> FloatArray:
        """Return the importance weights (B,), all of them 1."""
        return np.ones(len(ids), dtype=np.float32)

    def update(self, ids: IntArray, priority: Tensor | None) -> None:
        """Do nothing: there are no priorities."""

    def metrics(self, step: int) -> dict[str, float]:
        """Return nothing: there is nothing to report."""
        return {}

    def state_dict(self) -> State:
        """Return the number of rows known."""
        return {"high": self._id_bound}

    def load_state_dict(self, state: State) -> None:
        """Restore the number of rows known."""
        self._id_bound = state["high"]


class Prioritized:
    """Rows in proportion to priority^alpha, corrected by importance weights (Schaul et al. 2016, proportional variant).

    A new row has the highest priority seen so far, so that it is soon learned from.

    Args:
        capacity: rows of the replay.
        alpha: 0 is uniform, 1 is in full proportion.
        beta: how much of the bias is corrected at the start of the run; it goes to 1, all of it, in a straight line.
        beta_steps: over so many environment steps.
        epsilon: added to each priority, so that none is 0.
    """

    def __init__(
        self, capacity: int, alpha: float = 0.5, beta: float = 0.4, beta_steps: int = 0, epsilon: float = 1e-6
    ) -> None:
        for key, value in [("alpha", alpha), ("beta", beta)]:
            if not 0.0 <= value <= 1.0:
                raise UserError(f"replay.sampler.{key}: a number in [0, 1] is wanted, got {value}")
        if not epsilon > 0.0:
            raise UserError(f"replay.sampler.epsilon: must be above 0, got {epsilon}")
        self.alpha, self.epsilon = alpha, epsilon
        self.beta = LinearSchedule(beta, 1.0, beta_steps)
        self._tree = SumTree(capacity)
        self._highest = 1.0  # priority^alpha

    @property
    def nbytes(self) -> int:
        """Bytes that the priorities take."""
        return self._tree.nbytes

    def add(self, ids: IntArray) -> None:
        """Take rows (N,) in."""
        self._tree.set(ids, np.full(len(ids), self._highest))

    def sample(self, n: int, step: int, rng: np.random.Generator) -> IntArray:
        """Draw n ids with replacement, one from each of n parts of equal mass, which lowers the variance."""
        mass = (np.arange(n) + rng.random(n)) / n * self._tree.total
        return self._tree.find(mass)

    def weight(self, ids: IntArray, step: int) -> FloatArray:
        """Return the importance weights (B,), proportional to probability^-beta, the largest of them 1."""
        priority = self._tree.get(ids)
        weight: FloatArray = ((priority / priority.min()) ** -self.beta(step)).astype(np.float32)
        return weight

    def update(self, ids: IntArray, priority: Tensor | None) -> None:
        """Write priorities (B,) back, 0 or more.

        Raises:
            UserError: a priority that is not finite, which is what the loss of a diverged network gives.
        """
        assert priority is not None, "this agent gives no priorities"
        raw = priority.double().cpu().numpy()
        if not (np.isfinite(raw) & (raw >= 0)).all():
            raise UserError("optimizer.lr: the network has diverged (a loss is not finite); a smaller one is wanted")
        scaled = (raw + self.epsilon) ** self.alpha
        self._highest = max(self._highest, float(scaled.max()))
        self._tree.set(ids, scaled)

    def metrics(self, step: int) -> dict[str, float]:
        """Return beta."""
        return {"beta": self.beta(step)}

    def state_dict(self) -> State:
        """Return all priorities."""
        return {"priority": self._tree.leaves, "highest": self._highest}

    def load_state_dict(self, state: State) -> None:
        """Restore all priorities. Raises ValueError if there are more than fit."""
        self._tree.load(state["priority"])
        self._highest = state["highest"]


class SumTree:
    """Numbers, and the sums over groups of them, groups of groups, and so on: O(log n) to change and to find.

    Each sum is made from its parts anew, so that rounding errors do not grow with the number of changes.

    Args:
        size: how many numbers; all start at 0.
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
        """Bytes that the tree takes."""
        return sum(level.nbytes for level in self._levels)

    def get(self, ids: IntArray) -> npt.NDArray[np.float64]:
        """Return the numbers at `ids` (B,)."""
        return self._levels[0][ids]

    def set(self, ids: IntArray, values: npt.NDArray[np.float64]) -> None:
        """Change the numbers at `ids` (B,) to `values` (B,); of two for one id the last counts."""
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
            # Rounding may leave a mass at or above the group's sum: the last number that is not 0 is meant then.
            mass = np.minimum(mass, np.nextafter(running[:, -1], 0.0))
            child = (running <= mass[:, None]).sum(axis=1)
            mass = mass - np.where(child > 0, running[rows, child - 1], 0.0)
            ids = ids * self.FAN + child
        return ids

    def load(self, leaves: npt.NDArray[np.float64]) -> None:
        """Restore saved numbers; the rest become 0. Raises ValueError where they are too many."""
        if len(leaves) > self.size:
            raise ValueError(f"replay priorities: saved {len(leaves)}, configured {self.size}")
        self._levels[0][: len(leaves)] = leaves
        self._levels[0][len(leaves) :] = 0.0
        for parts, sums in pairwise(self._levels):
            groups = parts.reshape(-1, self.FAN).sum(axis=1)
            sums[: len(groups)] = groups
