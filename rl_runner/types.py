"""The types that all parts share: what a step returns, what a batch holds, and the protocols of the parts.

Dimensions, here and in every docstring: B batch, N environments, T time, A actions, M numbers per action value,
O observation shape, D action shape. A *step* is one decision of the agent; a *frame* is one frame of the emulator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # what only shows tables should not wait for torch
    from torch import Tensor

Array = npt.NDArray[Any]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
State = dict[str, Any]  # a tree of dicts and lists over tensors, arrays, numbers, strings, None


def one_line(e: BaseException) -> str:
    """Return an exception's own words in one line."""
    return " ".join(str(e).split())


def described(e: BaseException) -> str:
    """Return an exception's class and the first 300 characters of its message, in one line."""
    return f"{type(e).__name__}: {one_line(e)[:300]}".removesuffix(": ")


class UserError(Exception):
    """Something the user can put right. Shown as one line, without a traceback."""

    exit_code = 2


@dataclass(frozen=True)
class Clock:
    """What a run has done so far. Immutable, so that "before" and "now" can be compared.

    Attributes:
        steps: decisions of the agent, summed over the environments.
        updates: gradient updates.
        episodes: finished training episodes.
    """

    steps: int = 0
    updates: int = 0
    episodes: int = 0

    def plus(self, steps: int = 0, updates: int = 0, episodes: int = 0) -> Clock:
        """Return the clock after this much more."""
        return replace(
            self, steps=self.steps + steps, updates=self.updates + updates, episodes=self.episodes + episodes
        )


class Transition(NamedTuple):
    """What one step of N environments gives. `next_obs` is always the true successor, also at an episode's end."""

    obs: Array  # (N, *O)
    action: Array  # (N, *D)
    reward: DoubleArray  # (N,) as the environment gives it, never clipped
    terminated: BoolArray  # (N,) the episode ended in a terminal state
    truncated: BoolArray  # (N,) the episode was cut short, by a time limit for example
    no_bootstrap: BoolArray  # (N,) nothing to bootstrap from, as at a termination, but the episode goes on
    next_obs: Array  # (N, *O)
    action_mask: BoolArray | None = None  # (N, A) the actions that were allowed in `obs`; None: all
    next_action_mask: BoolArray | None = None  # (N, A) those that are allowed in `next_obs`

    @property
    def ended(self) -> BoolArray:
        """(N,) environments that must be reset before they can be stepped again."""
        return self.terminated | self.truncated

    @property
    def terminal(self) -> BoolArray:
        """(N,) where the value of `next_obs` must not be counted."""
        return self.terminated | self.no_bootstrap


class Batch(NamedTuple):
    """Transitions for learning. Losses use `discount` and never ask whether an episode was over."""

    obs: Tensor  # (B, *O)
    action: Tensor  # (B, *D)
    reward: Tensor  # (B,) sum of gamma^k r_k over the m <= n steps that the window holds
    discount: Tensor  # (B,) gamma^m; 0 where the last step is terminal (see `Transition.terminal`): no bootstrapping
    next_obs: Tensor  # (B, *O)
    weight: Tensor  # (B,) importance weight, 1 when sampling is uniform
    ids: IntArray  # (B,) where to write priorities back; stays on the host, where the replay is
    action_mask: Tensor | None = None  # (B, A) the actions that were allowed in `obs`; None: all
    next_action_mask: Tensor | None = None  # (B, A) those that are allowed in `next_obs`


class Rollout(NamedTuple):
    """What an agent did in T steps of N environments, in order."""

    obs: Array  # (T, N, *O)
    action: Array  # (T, N, *D)
    reward: DoubleArray  # (T, N) to learn from
    terminal: BoolArray  # (T, N) the value of the successor must not be counted
    ended: BoolArray  # (T, N) the next row belongs to another episode
    last_obs: Array  # (N, *O) the true successors of the last row
    cut_obs: Array  # (K, *O) the true successors at episodes that were cut short in an earlier row
    cut: IntArray  # (K, 2) where: row and environment
    action_mask: BoolArray | None = None  # (T, N, A) the actions that were allowed; None: all
    end_mask: BoolArray | None = None  # (N + K, A) those that are allowed in last_obs, then in cut_obs; None: all
    carries: Sequence[Carry | None] = ()  # (T + 1) what the agent remembered before each row, and after the last one


@dataclass(frozen=True)
class Goals:
    """Where observations (O,) hold goals, and the rewards and terminations that another goal gives.

    Attributes:
        achieved: positions of the achieved goal.
        desired: positions of the desired goal.
        reward: achieved (B, G), desired (B, G) -> (B,).
        terminated: the same -> (B,) whether an episode ends there; None: the environment does not tell.
    """

    achieved: slice
    desired: slice
    reward: Callable[[Array, Array], Array]
    terminated: Callable[[Array, Array], BoolArray] | None


class LearnOutput(NamedTuple):
    """What one update reports. All tensors stay on the device until they are written."""

    metrics: Mapping[str, Tensor]  # scalars
    priority: Tensor | None  # (B,) the new priorities of the batch's rows


class Episode(NamedTuple):
    """One finished episode. Its seed and actions are all that it takes to play it again."""

    env: int  # index of the environment
    seed: int
    total_reward: float  # the return: undiscounted, unclipped, summed in double precision
    length: int  # steps
    actions: list[Any]  # one per step
    digest: str = ""  # of its last observation
    info: Mapping[str, float] = MappingProxyType({})  # numbers that the environment reported at its end


class Checkpointable(Protocol):
    """Everything that changes while a run runs can be saved and put back, exactly."""

    def state_dict(self) -> State: ...
    def load_state_dict(self, state: State) -> None: ...


@dataclass(frozen=True)
class Train:
    """Actions are chosen for training: the agent explores.

    Attributes:
        step: environment step of the run, for schedules.
        rng: the random stream of exploration, saved with the run.
    """

    step: int
    rng: np.random.Generator


@dataclass(frozen=True)
class Evaluate:
    """Actions are chosen for evaluation: the best ones that the agent knows.

    Attributes:
        rng: the random stream of this evaluation.
        epsilon: probability of a random action instead, part of some protocols; it is uniform for all agents but those
            of policy gradients, which draw from their policy.
    """

    rng: np.random.Generator
    epsilon: float = 0.0


Mode = Train | Evaluate


@dataclass(frozen=True)
class Carry:
    """What a recurrent agent remembers from one step to the next.

    Attributes:
        state: tensors or arrays (N, ...), by name.
        reset: (N,) environments that began an episode since: their rows of `state` must be forgotten first.
    """

    state: State
    reset: BoolArray

    @staticmethod
    def begin(carry: Carry | None, reset: BoolArray) -> Carry | None:
        """Return a carry that knows of the episodes which began in `reset` (N,). Without memory it stays None."""
        return None if carry is None else replace(carry, reset=carry.reset | reset)


class Policy(Protocol):
    """Whatever chooses actions.

    `act` returns actions (N, *D) for observations (N, *O), in the type of the action space, and the next carry. The
    first carry is None. `action_mask` (N, A) holds the actions that are allowed, None: all.
    """

    def act(
        self, obs: Array, carry: Carry | None, mode: Mode, action_mask: BoolArray | None = None
    ) -> tuple[Array, Carry | None]: ...


class Agent(Policy, Checkpointable, Protocol):
    """A policy that is trained. How it learns is between it and its loop."""

    def metrics(self, step: int) -> dict[str, float]: ...  # of how it explores at this step: epsilon, for example


@runtime_checkable
class ValueAgent(Protocol):
    """An agent that knows action values, which can be shown and compared with exact ones."""

    def q_values(self, obs: Tensor) -> Tensor: ...  # (N, *O) -> (N, A), as in evaluation: no noise, nothing changes


@runtime_checkable
class HasWeights(Protocol):
    """An agent that tells what acting needs from what only learning needs, such as an optimizer or a target network.

    Its snapshots are small, and a run can begin with its weights (`init_from`).
    """

    def weights(self) -> State: ...  # a tree of tensors, each under the name that it has in `state_dict`
    def load_weights(self, state: State) -> None: ...  # what only learning needs begins anew


@runtime_checkable
class HasOutputs(Policy, Protocol):
    """An agent that acts by a network which other programs can run (`rlrun export`).

    `outputs` computes with tensors alone, so that it can be traced. It is called with `acting` in evaluation mode.
    """

    @property
    def acting(self) -> Any: ...  # nn.Module, the network of `outputs`
    def outputs(self, obs: Tensor) -> dict[str, Tensor]: ...  # (B, *O) -> (B, ...) by name; "action": of evaluation


@runtime_checkable
class HasReturns(Protocol):
    """A value representation that knows the distribution of returns, not their mean alone."""

    def distribution(self, values: Tensor) -> dict[str, Tensor]: ...  # (B, A, M) -> (B, A, ...) by name


@runtime_checkable
class HasOptimizer(Protocol):
    """An agent that learns by gradients."""

    optimizer: Any  # torch.optim.Optimizer
    network: Any  # nn.Module, whose parameters it optimizes


class ReplayAgent(Agent, Protocol):
    """An agent that learns from a replay memory."""

    def learn(self, batch: Batch) -> LearnOutput: ...
    def sync(self, before: Clock, now: Clock) -> None: ...


class RolloutAgent(Agent, Protocol):
    """An agent that learns from what it did since it learned last, and then forgets it."""

    def learn(self, rollout: Rollout, step: int) -> Iterable[Mapping[str, Tensor]]: ...  # scalars of each update


class OnlineAgent(Agent, Protocol):
    """An agent without memory that learns from each step as it happens, knowing what it will do next."""

    def learn(self, tr: Transition, next_action: IntArray) -> Mapping[str, Tensor]: ...  # (N,) -> scalars


class PlanningAgent(Agent, Protocol):
    """An agent that knows the dynamics and learns from them alone."""

    @property
    def converged(self) -> bool: ...  # another sweep would change nothing
    def learn(self) -> Mapping[str, Tensor]: ...  # one sweep -> scalars


class Loop(Checkpointable, Protocol):
    """What the trainer runs: it takes steps and learns from them."""

    @property
    def envs(self) -> Any: ...  # EpisodicVectorEnv: the training environments
    @property
    def agent(self) -> Agent: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def done(self) -> bool: ...  # nothing is left to learn, however many steps the run may still take
    def step(self) -> None: ...
    def scalars(self) -> dict[str, float]: ...  # what happened since the last call, by the names of its curves


class Exploration(Protocol):
    """How a policy's values become actions while training. An action whose value is -inf is not allowed."""

    def __call__(self, q: Array, step: int, rng: np.random.Generator) -> IntArray: ...  # (N, A) -> (N,)
    def metrics(self, step: int) -> dict[str, float]: ...


@runtime_checkable
class RemembersActions(Protocol):
    """An exploration rule with a memory, which it keeps in the carry; it is forgotten where an episode began."""

    def explore(
        self, q: Array, carry: Carry | None, step: int, rng: np.random.Generator
    ) -> tuple[IntArray, Carry | None]: ...  # (N, A) -> (N,), and the next carry


class Distribution(Protocol):
    """What the P parameters that a policy's network returns mean: a distribution over actions."""

    size: int  # P
    state_independent: int  # how many of the last parameters are the network's own, the same for all states

    def noise(self, n: int, rng: np.random.Generator) -> Array: ...  # what `sample` needs for n actions
    def sample(self, parameters: Tensor, noise: Tensor) -> Tensor: ...  # (B, P) -> (B, *D)
    def mode(self, parameters: Tensor) -> Tensor: ...  # (B, P) -> (B, *D)
    def named(self, parameters: Tensor) -> dict[str, Tensor]: ...  # (B, P) -> (B, ...) by the names of statistics
    def masked(self, parameters: Tensor, allowed: Tensor | None) -> Tensor: ...  # (B, P), (B, P) -> (B, P)
    def log_prob(self, parameters: Tensor, action: Tensor) -> Tensor: ...  # (B, P), (B, *D) -> (B,)
    def entropy(self, parameters: Tensor) -> Tensor: ...  # (B, P) -> (B,)
    def kl(self, old: Tensor, new: Tensor) -> Tensor: ...  # (B, P), (B, P) -> (B,)


class ActionNoise(Protocol):
    """Noise on continuous actions while training, in units of half the range of each dimension.

    Noise with a memory keeps it in the carry; it is forgotten where an episode began.
    """

    def __call__(
        self, shape: tuple[int, int], carry: Carry | None, step: int, rng: np.random.Generator
    ) -> tuple[FloatArray, Carry | None]: ...  # (N, D), and the next carry
    def metrics(self, step: int) -> dict[str, float]: ...


class Sync(Protocol):
    """How the target network follows the online network. Told of each advance of the clock."""

    def make_target(self, online: Any) -> Any: ...
    def __call__(self, online: Any, target: Any, before: Clock, now: Clock) -> None: ...


class ValueRepresentation(Protocol):
    """What the M numbers per action mean. `scalar` has M = 1: the expected return itself."""

    outputs_per_action: int  # numbers that the network's head gives per action
    quantile_levels: int  # quantile levels that the network draws in each pass; 0: none

    def mean(self, values: Tensor) -> Tensor: ...  # (..., M) -> (...)
    def expectation(self, values: Tensor, policy: Tensor) -> Tensor: ...  # (B, A, M), probabilities (B, A) -> (B, M)
    def loss(
        self, values: Tensor, next_values: Tensor, reward: Tensor, discount: Tensor
    ) -> tuple[Tensor, Tensor]: ...  # (B, M), (B, M), (B,), (B,) -> loss (B,), priority (B,)


class Sampler(Checkpointable, Protocol):
    """Which rows of the replay are learned from.

    Schedules follow `step`, the run's step. A count of the rows added would begin again at 0 when a run is resumed
    without its replay. A sampler may also have `remove(ids)`: no window starts at these rows until they are
    added again.
    """

    def add(self, ids: IntArray) -> None: ...
    def sample(self, n: int, step: int, rng: np.random.Generator) -> IntArray: ...  # ids (n,)
    def weight(self, ids: IntArray, step: int) -> FloatArray: ...  # importance weights (B,) of one batch
    def update(self, ids: IntArray, priority: Tensor | None) -> None: ...
    def metrics(self, step: int) -> dict[str, float]: ...
