"""RMSProp with epsilon inside the root; gradient steps; an optimizer's state by the names of the parameters."""

from __future__ import annotations

import collections
import copy
import inspect
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rl_runner.types import State, UserError


class RMSpropTF(torch.optim.Optimizer):
    """RMSProp with epsilon inside the root, as TensorFlow computes it.

    v <- alpha v + (1 - alpha) g^2, x <- x - lr g / sqrt(v + eps), with v = 1 at the start. `torch.optim.RMSprop` adds
    eps to the root and starts with v = 0. A2C's published settings are meant for this one.

    Args:
        params: parameters, or groups of them.
        lr: learning rate.
        alpha: decay of the running average.
        eps: added to the mean square.

    Raises:
        ValueError: a value out of range.
    """

    def __init__(self, params: Iterable[Any], lr: float = 7e-4, alpha: float = 0.99, eps: float = 1e-5) -> None:
        if not lr >= 0.0:
            raise ValueError(f"Invalid learning rate: {lr}")
        if not 0.0 <= alpha <= 1.0:
            raise ValueError(f"Invalid alpha value: {alpha}")
        if not eps > 0.0:
            raise ValueError(f"Invalid epsilon value: {eps}")
        super().__init__(params, {"lr": lr, "alpha": alpha, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Do one step on the parameters that have a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            for p in parameters:
                if not self.state[p]:
                    self.state[p]["square_avg"] = torch.ones_like(p, memory_format=torch.preserve_format)
            grads, squares = [p.grad for p in parameters], [self.state[p]["square_avg"] for p in parameters]
            torch._foreach_mul_(squares, group["alpha"])
            torch._foreach_addcmul_(squares, grads, grads, value=1 - group["alpha"])
            root = torch._foreach_add(squares, group["eps"])
            torch._foreach_sqrt_(root)
            torch._foreach_addcdiv_(parameters, grads, root, value=-group["lr"])


def named_state(optimizer: torch.optim.Optimizer, module: nn.Module) -> State:
    """Return an optimizer's state with the parameters' names in the module instead of their numbers."""
    state, names = optimizer.state_dict(), _names(optimizer, module)
    return {
        "state": {names[i]: of_parameter for i, of_parameter in state["state"].items()},
        "param_groups": [{**group, "params": [names[i] for i in group["params"]]} for group in state["param_groups"]],
    }


def load_named_state(optimizer: torch.optim.Optimizer, module: nn.Module, state: State) -> None:
    """Restore what `named_state` returned. Older checkpoints have numbers, which are taken as they are.

    Raises:
        ValueError: it is of other parameters. They may be in other groups: each takes the settings of its first one.
    """
    numbers = {name: i for i, name in enumerate(_names(optimizer, module))}

    def number(key: str | int) -> int:
        return numbers[key] if isinstance(key, str) else key

    saved = {number(key): group for group in state["param_groups"] for key in group["params"]}
    if saved.keys() != set(range(len(numbers))):
        raise ValueError("the optimizer's state is of other parameters")
    groups, first = [], 0
    for group in optimizer.param_groups:
        following = first + len(group["params"])
        groups.append({**saved[first], "params": list(range(first, following))})
        first = following
    optimizer.load_state_dict(
        {
            "state": {number(key): of_parameter for key, of_parameter in state["state"].items()},
            "param_groups": groups,
        }
    )


def clip_norm(parameters: Iterable[nn.Parameter], largest: float | None) -> Tensor:
    """Scale gradients so that the norm of all of them is at most `largest`; return the norm before.

    Without the checks of `nn.utils.clip_grad_norm_`, which take as long as the operations.

    Args:
        parameters: those without a gradient are left out.
        largest: None: only return the norm.
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
    if largest is not None:
        torch._foreach_mul_(grads, (largest / (norm + 1e-6)).clamp(max=1.0))
    return norm


def require_clip(clip_grad_norm: float | None) -> None:
    """Raise UserError if the norm of gradients cannot be clipped to this value."""
    if clip_grad_norm is not None and not clip_grad_norm > 0:
        raise UserError(f"agent.clip_grad_norm: must be above 0, or null for no clipping, got {clip_grad_norm}")


def step_part(
    optimizer: torch.optim.Optimizer,
    loss: Tensor,
    parameters: list[nn.Parameter],
    clip_grad_norm: float | None = None,
    clipped: list[nn.Parameter] | None = None,
) -> None:
    """Do a gradient step on some of an optimizer's parameters. The others have no gradients, and stay as they are.

    Args:
        optimizer: has them.
        loss: of the step.
        parameters: those that change.
        clip_grad_norm: clip the norm of the gradient; None: no clipping.
        clipped: the norm is that of these of them; None: of all.
    """
    loss.backward(inputs=parameters)
    if clip_grad_norm is not None:
        clip_norm(parameters if clipped is None else clipped, clip_grad_norm)
    optimizer.step()
    for parameter in parameters:
        parameter.grad = None


def set_lr(optimizer: torch.optim.Optimizer, lr: float, ratios: Sequence[float] | None = None) -> None:
    """Set the learning rate of each group of parameters to `lr` times its ratio; None: all ratios are 1."""
    for group, ratio in zip(optimizer.param_groups, ratios or [1.0] * len(optimizer.param_groups), strict=True):
        group["lr"] = lr * ratio


def resume_named_state(optimizer: torch.optim.Optimizer, module: nn.Module, state: State, scheduled: bool) -> None:
    """Restore what `named_state` returned, but keep the settings that are configured now: a resume may change them.

    Settings are what the optimizer's constructor takes. Its groups may also hold state of its own, such as a count.

    Args:
        optimizer: as it was built.
        module: has its parameters.
        state: as `named_state` returned it.
        scheduled: a schedule sets the learning rates; the saved ones hold until its next step.
    """
    constructors = (kind.__init__ for kind in type(optimizer).__mro__ if issubclass(kind, torch.optim.Optimizer))
    names = {name for constructor in constructors for name in inspect.signature(constructor).parameters}
    names -= {"params", "lr"} if scheduled else {"params"}
    settings = [{k: v for k, v in group.items() if k in names} for group in optimizer.param_groups]
    load_named_state(optimizer, module, state)
    for group, configured in zip(optimizer.param_groups, settings, strict=True):
        group.update(configured)


def ratios(optimizer: torch.optim.Optimizer) -> list[float]:
    """Return the learning rates of an optimizer's groups of parameters, divided by that of the first."""
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    return [rate / rates[0] if rate != rates[0] else 1.0 for rate in rates]


def transfer(optimizer: torch.optim.Optimizer, module: nn.Module, source: State, names: Collection[str]) -> int:
    """Begin with another optimizer's state (moments, numbers of steps), but keep the own learning rate and settings.

    Args:
        optimizer: has done no step yet.
        module: has its parameters.
        source: as `named_state` returned it.
        names: of the parameters whose state is taken.

    Returns:
        for how many parameters there was a state.

    Raises:
        UserError: the state is that of an optimizer of another kind.
    """
    taken = {name: of_parameter for name, of_parameter in source["state"].items() if name in names}
    parameters = dict(module.named_parameters())
    for name, of_parameter in taken.items():
        wanted = _entries(optimizer, parameters[name])
        if of_parameter.keys() != wanted:
            kind, here, there = type(optimizer).__name__, _words(wanted), _words(of_parameter)
            raise UserError(f"init_from_optimizer: {kind} keeps {here}, but the saved optimizer kept {there}")
    own = named_state(optimizer, module)
    load_named_state(optimizer, module, {**own, "state": {**own["state"], **taken}})
    return len(taken)


def _words(entries: Iterable[str]) -> str:
    return ", ".join(sorted(entries)) or "nothing"


def _names(optimizer: torch.optim.Optimizer, module: nn.Module) -> list[str]:
    """Return the names of an optimizer's parameters, in the order in which its state numbers them."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def _entries(optimizer: torch.optim.Optimizer, like: nn.Parameter) -> set[str]:
    """Return what an optimizer keeps for such a parameter, seen on a copy that does a step."""
    if there := optimizer.state.get(like):  # some begin with it
        return {str(key) for key in there}
    parameter = nn.Parameter(like.new_zeros([2] * like.dim()))
    parameter.grad = torch.zeros_like(parameter)
    twin = copy.copy(optimizer)
    twin.state = collections.defaultdict(dict)
    twin.param_groups = [{**optimizer.param_groups[0], "params": [parameter]}]
    twin.step()
    return {str(key) for key in twin.state[parameter]}
