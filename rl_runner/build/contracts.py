"""What parts return, which may be the user's own: tried once before training, so that a mistake is one line."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from rl_runner.networks.layers import blank, evaluating
from rl_runner.types import ActionNoise, Distribution, Exploration, Sampler, UserError, ValueRepresentation


def check_q_network(network: object, space: gym.Space[Any], actions: int, value: ValueRepresentation) -> None:
    """Check that a network returns values (B, A, M).

    Raises:
        UserError: it is no module, or returns something else.
    """
    [values] = _outputs(network, space, 1)
    numbers = value.outputs_per_action
    if value.quantile_levels and values.dim() == 3:  # in evaluation a network may take other levels than in training
        numbers = values.shape[2]
    if values.shape != (2, actions, numbers):
        wanted = f"action values (B, A, M), here (2, {actions}, {numbers})"
        raise _wrong_output(network, wanted, tuple(values.shape))


def check_actor_critic(network: object, space: gym.Space[Any], distribution: Distribution) -> None:
    """Check that a network returns parameters of the distribution (B, P) and state values (B,).

    Raises:
        UserError: it is no module, or returns something else.
    """
    shapes = [tuple(output.shape) for output in _outputs(network, space, 2)]
    if shapes != [(2, distribution.size), (2,)]:
        wanted = f"parameters (B, P) and state values (B,), here (2, {distribution.size}) and (2,)"
        raise _wrong_output(network, wanted, " and ".join(map(str, shapes)))


def _outputs(network: object, space: gym.Space[Any], number: int) -> tuple[Tensor, ...]:
    """Return the tensors that a network returns for two observations."""
    if not isinstance(network, nn.Module):
        raise UserError(f"network: must be an nn.Module, got a {type(network).__name__}")
    with torch.no_grad(), evaluating(network):
        returned = network(blank(space))
    outputs = returned if isinstance(returned, tuple) else (returned,)
    if len(outputs) != number or not all(isinstance(output, Tensor) for output in outputs):
        kinds = ", ".join(f"a {type(output).__name__}" for output in outputs) or "nothing"
        raise _wrong_output(network, f"{number} tensors" if number > 1 else "a tensor", kinds)
    return outputs


def _wrong_output(network: object, wanted: str, got: object) -> UserError:
    return UserError(f"network: {type(network).__name__} must return {wanted} for two observations, got {got}")


def check_value(value: ValueRepresentation) -> None:
    """Check what a value representation returns for zeros.

    Raises:
        UserError: something of another shape, no finite floats, a loss without a gradient, or negative priorities.
    """
    name, numbers, levels = type(value).__name__, value.outputs_per_action, value.quantile_levels
    if not isinstance(numbers, int) or numbers < 1:
        raise UserError(f"value: {name}.outputs_per_action must be a whole number, 1 or more, got {numbers!r}")
    m = 2 * levels if levels else numbers
    mean = value.mean(torch.zeros(2, 3, m))
    if not (isinstance(mean, Tensor) and mean.shape == (2, 3)):
        got = tuple(mean.shape) if isinstance(mean, Tensor) else f"a {type(mean).__name__}"
        raise UserError(f"value: {name}.mean must return (2, 3) for values (2, 3, {m}), got {got}")
    if not (mean.is_floating_point() and mean.isfinite().all()):
        raise UserError(f"value: {name}.mean must return finite floats, got {mean.flatten().tolist()} for zeros")
    learned = value.loss(torch.zeros(2, m, requires_grad=True), torch.zeros(2, m), torch.zeros(2), torch.zeros(2))
    tensors = isinstance(learned, tuple) and all(isinstance(x, Tensor) for x in learned)
    if not (tensors and [x.shape for x in learned] == [(2,), (2,)]):
        raise UserError(f"value: {name}.loss must return the loss (B,) and the priority (B,) of a batch of B rows")
    loss, priority = learned
    if not loss.requires_grad:
        raise UserError(f"value: the loss of {name}.loss has no gradient; only the priority is detached")
    if not (priority >= 0).all():
        raise UserError(f"value: the priority of {name}.loss must be 0 or more, got {priority.tolist()} for zeros")


def check_sampler(sampler: Sampler) -> None:
    """Check what a sampler reports and saves before it has rows.

    Raises:
        UserError: something else than numbers by name, or a state that is no dict.
    """
    check_metrics("replay.sampler", sampler)
    if not isinstance(state := sampler.state_dict(), dict):
        raise UserError(f"replay.sampler: {type(sampler).__name__}.state_dict must return a dict, got {state!r}")


def check_metrics(key: str, part: Exploration | ActionNoise | Sampler) -> None:
    """Check what a part reports at step 0.

    Raises:
        UserError: something else than numbers by name.
    """
    reported = part.metrics(0)
    if not (isinstance(reported, dict) and all(isinstance(x, (int, float)) for x in reported.values())):
        raise UserError(f"{key}: {type(part).__name__}.metrics must return a dict of numbers, got {reported!r}")
