"""How the target follows: at the right moments, by the right amount."""

from typing import Any

import pytest
import torch
from torch import nn

from rl_runner.sync import Hard, NoTarget, Soft, WeightAverage, target_of
from rl_runner.types import Clock, UserError


def value(net: Any) -> float:
    return net.weight[0, 0].item()


def put(net: Any, number: float) -> None:
    with torch.no_grad():
        net.weight.fill_(number)


def copies(rule: Hard, ticks: list[dict[str, int]]) -> list[int]:
    """Advance the clock tick by tick, the online weight counting up; give the ticks (from 1) at which it was copied."""
    online = nn.Linear(1, 1)
    put(online, 0.0)
    target, clock, at = rule.make_target(online), Clock(), []
    for i, tick in enumerate(ticks, start=1):
        put(online, i)
        before, clock = clock, clock.plus(**tick)
        old = value(target)
        rule(online, target, before, clock)
        if value(target) != old:
            assert value(target) == i
            at.append(i)
    return at


def test_hard_counts_updates() -> None:
    assert copies(Hard(every_updates=3), [{"updates": 1}] * 10) == [3, 6, 9]


@pytest.mark.parametrize("num_envs", [1, 3, 4, 7])
def test_hard_counts_environment_steps_whatever_their_number(num_envs: int) -> None:
    """A copy in every tick that reaches a multiple of 10: none too many, none lost, none late."""
    ticks = 210
    wanted = []
    for i in range(1, ticks + 1):
        if any(step % 10 == 0 for step in range((i - 1) * num_envs + 1, i * num_envs + 1)):
            wanted.append(i)
    assert copies(Hard(every_steps=10), [{"steps": num_envs}] * ticks) == wanted
    assert len(wanted) == ticks * num_envs // 10


def test_hard_copies_once_where_a_tick_is_longer_than_the_period() -> None:
    assert copies(Hard(every_steps=2), [{"steps": 8}] * 3) == [1, 2, 3]


def test_hard_counts_episodes() -> None:
    ticks = [{"steps": 4, "episodes": n} for n in (0, 1, 0, 2, 3, 0, 1)]  # totals 0 1 1 3 6 6 7
    assert copies(Hard(every_episodes=2), ticks) == [4, 5]


def test_hard_heeds_its_own_unit_alone() -> None:
    assert copies(Hard(every_updates=1), [{"steps": 9, "episodes": 9}] * 5) == []
    assert copies(Hard(every_updates=None, every_steps=1), [{"updates": 9, "episodes": 9}] * 5) == []
    assert copies(Hard(every_updates=None, every_episodes=1), [{"steps": 9, "updates": 9}] * 5) == []


@pytest.mark.parametrize("rule", [Hard(every_updates=1), Soft(0.5)])
def test_the_target_is_a_frozen_copy(rule: Any) -> None:
    online = nn.Linear(2, 2)
    target = rule.make_target(online)
    assert torch.equal(target.weight, online.weight)
    assert target.weight.data_ptr() != online.weight.data_ptr()
    assert not any(p.requires_grad for p in target.parameters())
    assert all(p.requires_grad for p in online.parameters())


def test_hard_copies_buffers() -> None:
    online = nn.BatchNorm1d(2)
    target = Hard(every_updates=1).make_target(online)
    online(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
    Hard(every_updates=1)(online, target, Clock(), Clock(updates=1))
    assert torch.equal(target.running_mean, online.running_mean)
    assert target.running_mean[0] != 0


@pytest.mark.parametrize("ticks", [[1] * 7, [3, 0, 4], [7]])
def test_soft_closed_form(ticks: list[int]) -> None:
    """After k updates towards a standing online weight w: w + (w0 - w)(1 - tau)^k."""
    rule, online = Soft(0.1), nn.Linear(1, 1)
    put(online, 5.0)
    target, clock = rule.make_target(online), Clock()
    put(online, -3.0)
    for n in ticks:
        before, clock = clock, clock.plus(steps=11, updates=n, episodes=1)
        rule(online, target, before, clock)
    assert value(target) == pytest.approx(-3.0 + 8.0 * 0.9**7, rel=1e-5)
    assert value(online) == -3.0


def test_soft_with_tau_one_copies_and_stands_still_without_updates() -> None:
    online = nn.Linear(1, 1)
    put(online, 1.0)
    target = Soft(1.0).make_target(online)
    put(online, 2.0)
    Soft(1.0)(online, target, Clock(), Clock(steps=100, episodes=3))
    assert value(target) == 1.0
    Soft(1.0)(online, target, Clock(), Clock(updates=1))
    assert value(target) == 2.0


def test_soft_copies_buffers() -> None:
    online = nn.BatchNorm1d(2)
    target = Soft(0.1).make_target(online)
    online(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
    Soft(0.1)(online, target, Clock(), Clock(updates=1))
    assert torch.equal(target.running_mean, online.running_mean)
    assert target.num_batches_tracked == 1


def test_no_target_is_the_online_network() -> None:
    online = nn.Linear(1, 1)
    assert NoTarget().make_target(online) is online
    assert online.weight.requires_grad
    put(online, 4.0)
    NoTarget()(online, online, Clock(), Clock(1000, 1000, 1000))
    assert value(online) == 4.0


def test_an_average_of_the_weights_by_hand() -> None:
    online = nn.Linear(1, 1)
    put(online, 8.0)
    average, clock, wanted = WeightAverage(online, 0.75), Clock(), 8.0
    for number, updates in ((4.0, 1), (-2.0, 0), (-6.0, 2)):
        put(online, number)
        before, clock = clock, clock.plus(steps=5, updates=updates)
        average.sync(before, clock)
        for _ in range(updates):
            wanted = 0.75 * wanted + 0.25 * number
        assert value(average.network) == pytest.approx(wanted, rel=1e-6)
    assert value(online) == -6.0
    other = WeightAverage(nn.Linear(1, 1), 0.75)
    other.load_state_dict(average.state_dict())
    assert value(other.network) == value(average.network)
    average.restart()
    assert value(average.network) == -6.0


def test_before_the_first_update_the_average_has_the_statistics_of_each_step() -> None:
    online = nn.BatchNorm1d(1)
    average = WeightAverage(online, 0.5)
    online.running_mean.fill_(3.0)
    average.sync(Clock(steps=4), Clock(steps=5))
    assert average.network.running_mean.item() == 3.0
    online.running_mean.fill_(4.0)
    average.sync(Clock(steps=5, updates=1), Clock(steps=6, updates=1))
    assert average.network.running_mean.item() == 3.0  # later they follow with the weights
    average.sync(Clock(steps=6, updates=1), Clock(steps=6, updates=2))
    assert average.network.running_mean.item() == 4.0


@pytest.mark.parametrize("rule", [Hard(5), Soft(0.5)])
def test_before_the_first_update_a_target_has_the_statistics_of_each_step(rule: Hard | Soft) -> None:
    online = nn.BatchNorm1d(1)
    target = rule.make_target(online)
    online.running_mean.fill_(3.0)
    with torch.no_grad():
        online.weight.fill_(7.0)
    rule(online, target, Clock(steps=4), Clock(steps=5))
    assert target.running_mean.item() == 3.0
    assert target.weight.item() == 1.0


def test_without_a_decay_the_average_is_the_online_network() -> None:
    online = nn.Linear(1, 1)
    average = WeightAverage(online, None)
    average.sync(Clock(), Clock(updates=1))
    average.restart()
    average.load_state_dict({})
    assert average.network is online
    assert average.state_dict() == {}


def test_wrong_numbers_are_told() -> None:
    for decay in (-0.1, 1.0, float("nan")):
        with pytest.raises(UserError, match=rf"agent\.ema_decay: must be in \[0, 1\), or null .*got {decay}"):
            WeightAverage(nn.Linear(1, 1), decay)
    for tau in (0.0, -0.1, 1.1):
        with pytest.raises(UserError, match=rf"sync\.tau: must be in \(0, 1\], got {tau}"):
            Soft(tau)
    with pytest.raises(UserError, match=r"sync\.every_updates: must be at least 1, got 0"):
        Hard(every_updates=0)
    with pytest.raises(UserError, match=r"sync\.every_steps: must be at least 1, got -5"):
        Hard(every_steps=-5)
    with pytest.raises(UserError, match=r"every_steps and every_episodes"):
        Hard(every_steps=5, every_episodes=5)
    with pytest.raises(UserError, match=r"sync\.every_updates"):
        Hard(every_updates=None)


def test_a_sync_that_returns_no_network_is_named() -> None:
    class Mine(Hard):
        def make_target(self, online):
            return None

    online = nn.Linear(1, 1)
    assert target_of(Hard(), online) is not online
    with pytest.raises(UserError, match=r"^sync: Mine\.make_target must return a module .*, got a NoneType$"):
        target_of(Mine(), online)

    class Other(Hard):
        def make_target(self, online):
            return nn.Linear(1, 2)

    with pytest.raises(UserError, match=r"^sync: Other\.make_target must return a network with the parameters of the "):
        target_of(Other(), online)
