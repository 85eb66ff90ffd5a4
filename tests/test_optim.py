"""An optimizer's state by the parameters' names, and the state of one optimizer in another."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rl_runner.build.components import optimizer_factory
from rl_runner.optim import RMSpropTF, load_named_state, named_state, resume_named_state, step_part, transfer
from rl_runner.types import UserError

OPTIMIZERS: dict[str, Any] = {
    "Adam": lambda p: torch.optim.Adam(p, lr=0.1),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.1, amsgrad=True),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.1, centered=True),
    "RMSpropTF": lambda p: RMSpropTF(p, lr=0.1),
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "SGD without momentum": lambda p: torch.optim.SGD(p, lr=0.1),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=0.1),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def step(module: nn.Module, optimizer: torch.optim.Optimizer, i: int = 1) -> None:
    optimizer.zero_grad()
    module(torch.arange(6.0).reshape(2, 3) * i).pow(2).sum().backward()
    optimizer.step()


def trained(make: Any) -> tuple[nn.Sequential, torch.optim.Optimizer]:
    module = network()
    optimizer = make(module.parameters())
    for i in range(3):
        step(module, optimizer, i + 1)
    return module, optimizer


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return torch.equal(a, b) if isinstance(a, Tensor) else bool(a == b)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("old", [False, True], ids=["by name", "by number, as older checkpoints have it"])
def test_restored_it_goes_on_as_it_would_have(name: str, old: bool) -> None:
    module, optimizer = trained(OPTIMIZERS[name])
    state = copy.deepcopy(optimizer.state_dict() if old else named_state(optimizer, module))
    if not old:
        assert state["param_groups"][0]["params"] == [n for n, _ in module.named_parameters()]
    other = network()
    other.load_state_dict(module.state_dict())
    fresh = OPTIMIZERS[name](other.parameters())
    load_named_state(fresh, other, state)
    assert equal(fresh.state_dict(), optimizer.state_dict())
    for i in range(3):
        step(module, optimizer, i)
        step(other, fresh, i)
    assert equal(other.state_dict(), module.state_dict())


def test_groups_number_their_parameters_one_after_the_other() -> None:
    module = network()
    optimizer = torch.optim.Adam([{"params": module[2].parameters()}, {"params": module[0].parameters(), "lr": 1.0}])
    step(module, optimizer)
    state = named_state(optimizer, module)
    assert [group["params"] for group in state["param_groups"]] == [["2.weight", "2.bias"], ["0.weight", "0.bias"]]
    assert state["state"]["0.bias"]["exp_avg"].shape == (4,)
    assert state["state"]["2.weight"]["exp_avg"].shape == (2, 4)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_transfer_takes_the_moments_and_keeps_the_settings(name: str) -> None:
    module, optimizer = trained(OPTIMIZERS[name])
    other = network()
    other.load_state_dict(module.state_dict())
    fresh = OPTIMIZERS[name](other.parameters())
    for group in fresh.param_groups:
        group["lr"] = 0.5
    source = copy.deepcopy(named_state(optimizer, module))
    transfer(fresh, other, source, [n for n, _ in module.named_parameters()])
    assert equal(fresh.state_dict()["state"], optimizer.state_dict()["state"])
    assert [group["lr"] for group in fresh.param_groups] == [0.5]
    for group in optimizer.param_groups:  # the oracle: the old optimizer with the new rate
        group["lr"] = 0.5
    step(module, optimizer)
    step(other, fresh)
    assert equal(other.state_dict(), module.state_dict())


def test_a_transfer_of_some_leaves_the_others_fresh() -> None:
    module, optimizer = trained(OPTIMIZERS["Adam"])
    other = network()
    fresh = OPTIMIZERS["Adam"](other.parameters())
    assert transfer(fresh, other, named_state(optimizer, module), ["0.weight", "2.bias"]) == 2
    assert named_state(fresh, other)["state"].keys() == {"0.weight", "2.bias"}
    step(other, fresh)
    steps = {name: int(kept["step"]) for name, kept in named_state(fresh, other)["state"].items()}
    assert steps == {"0.weight": 4, "0.bias": 1, "1.weight": 1, "1.bias": 1, "2.weight": 1, "2.bias": 4}


def test_a_state_of_another_kind_is_refused() -> None:
    module, optimizer = trained(OPTIMIZERS["Adam"])
    other = network()
    fresh = OPTIMIZERS["RMSprop"](other.parameters())
    words = "RMSprop keeps grad_avg, square_avg, step, but the saved optimizer kept exp_avg, exp_avg_sq, step"
    with pytest.raises(UserError, match=f"^init_from_optimizer: {words}$"):
        transfer(fresh, other, named_state(optimizer, module), ["0.weight"])
    assert not fresh.state_dict()["state"]


def test_rmsprop_tf_adds_epsilon_inside_the_root() -> None:
    """Against a loop in double precision, number by number; a parameter without a gradient stays as it is."""
    rng = np.random.default_rng(0)
    start, grads = rng.normal(size=(2, 3)), rng.normal(size=(20, 2, 3)) * np.logspace(-4, 1, 20)[:, None, None]
    x, left_out = nn.Parameter(torch.tensor(start).float()), nn.Parameter(torch.ones(2))
    optimizer = RMSpropTF([{"params": [x], "lr": 0.02}, {"params": [left_out]}], alpha=0.9, eps=0.1)
    wanted, square = start.copy(), np.ones((2, 3))
    for grad in grads:
        x.grad = torch.tensor(grad).float()
        optimizer.step()
        for i in np.ndindex(2, 3):
            square[i] = 0.9 * square[i] + 0.1 * grad[i] ** 2
            wanted[i] -= 0.02 * grad[i] / math.sqrt(square[i] + 0.1)
    np.testing.assert_allclose(x.detach().numpy(), wanted, rtol=1e-5)
    assert left_out.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("eps=0", "optimizer: Invalid epsilon value: 0"),
        ("alpha=1.5", "optimizer: Invalid alpha value: 1.5"),
    ],
)
def test_rmsprop_tf_refuses_values_out_of_range(word: str, line: str) -> None:
    key, _, value = word.partition("=")
    node = {"_target_": "rl_runner.optim.RMSpropTF", "lr": 0.1, key: float(value) if "." in value else int(value)}
    with pytest.raises(UserError, match=f"^{line}$"):
        optimizer_factory({"optimizer": node})([nn.Parameter(torch.ones(1))])


def test_a_step_on_a_part_clips_the_norm_of_its_gradient() -> None:
    """The gradient (3, 4) has the norm 5; what is left out of the norm takes its whole step, others none."""
    x, apart, other = (nn.Parameter(torch.zeros(n)) for n in (2, 1, 1))
    optimizer = torch.optim.SGD([x, apart, other], lr=1.0)
    loss = (x * torch.tensor([3.0, 4.0])).sum() + 7 * apart.sum() + other.sum()
    step_part(optimizer, loss, [x, apart], 0.5, clipped=[x])
    torch.testing.assert_close(x.detach(), torch.tensor([-0.3, -0.4]))
    assert (apart.item(), other.item()) == (-7, 0)
    assert x.grad is None
    assert apart.grad is None


def test_a_resume_keeps_what_is_configured_now() -> None:
    module, optimizer = trained(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9))
    for scheduled, lr in ((False, 0.5), (True, 0.1)):
        other = network()
        fresh = torch.optim.SGD(other.parameters(), lr=0.5, momentum=0.8)
        resume_named_state(fresh, other, named_state(optimizer, module), scheduled)
        (group,) = fresh.param_groups
        assert (group["lr"], group["momentum"]) == (lr, 0.8)
        assert len(fresh.state) == len(list(other.parameters()))


class Counting(torch.optim.SGD):
    """Counts its steps in its groups, as schedule-free optimizers do."""

    def __init__(self, params: Any, **settings: Any) -> None:
        super().__init__(params, **settings)
        for group in self.param_groups:
            group["steps"] = 0

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            group["steps"] += 1
        super().step(closure)


def test_a_resume_restores_the_state_that_an_optimizer_keeps_in_its_groups() -> None:
    module, optimizer = trained(lambda p: Counting(p, lr=0.1))
    other = network()
    fresh = Counting(other.parameters(), lr=0.5)
    resume_named_state(fresh, other, named_state(optimizer, module), scheduled=False)
    assert [(group["steps"], group["lr"]) for group in fresh.param_groups] == [(3, 0.5)]
