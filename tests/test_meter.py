"""Means of what updates report, and the scalars made of them."""

from types import SimpleNamespace

import pytest
import torch

from rl_runner.meter import Meter, grouped, learning
from rl_runner.types import UserError


def test_means_since_the_last_call_each_over_its_own_updates() -> None:
    meter = Meter()
    for update in ({"loss": 1.0, "kl": 4.0}, {"loss": 2.0}, {"loss": 6.0}):
        meter.add({name: torch.tensor(x) for name, x in update.items()})
    saved = meter.state_dict()
    assert meter.drain() == {"loss": 3.0, "kl": 4.0}
    assert meter.drain() == {}
    meter.load_state_dict(saved)
    meter.add({"kl": torch.tensor(0.0)})
    assert meter.drain() == {"loss": 3.0, "kl": 2.0}
    meter.load_state_dict({"sums": {"loss": torch.tensor(8.0)}, "count": 4})  # of an older version
    assert meter.drain() == {"loss": 2.0}


def test_what_was_learned_with_and_without_an_optimizer() -> None:
    meter = Meter()
    meter.add({"loss": torch.tensor(0.5)})
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.25)
    assert learning(meter, SimpleNamespace(optimizer=optimizer), 7) == {"loss": 0.5, "updates": 7, "lr": 0.25}
    assert learning(meter, object(), 7) == {"updates": 7}
    assert grouped(learn={"loss": 0.5}, explore={"epsilon": 1.0}) == {"learn/loss": 0.5, "explore/epsilon": 1.0}


def test_the_learning_rate_is_not_blamed_for_the_first_loss() -> None:
    nan = {"loss": torch.tensor(float("nan"))}
    with pytest.raises(UserError, match=r"^agent: the loss of the first update is nan, before any weight has changed"):
        Meter().add(nan)
    resumed = Meter()
    resumed.load_state_dict(Meter().state_dict())
    resumed.add(nan)  # it is not the first one of the run


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_the_run(loss: float) -> None:
    meter = Meter()
    meter.add({"loss": torch.tensor(1.0)})
    meter.add({"loss": torch.tensor(loss)})
    with pytest.raises(UserError, match=r"^optimizer.lr: the network has diverged"):
        learning(meter, object(), 1)
