"""Advantages against sums written out, and the reward scale against the plain standard deviation."""

import numpy as np
import pytest

from rl_runner.returns import RewardScale, gae


def naive_lambda_return(reward, next_value, terminal, ended, gamma, lam, t):
    """G_t = r + gamma ((1 - lambda) V(s') + lambda G_{t+1}); it ends with the episode or the rollout."""
    if terminal[t]:
        return reward[t]
    if ended[t] or t == len(reward) - 1:
        return reward[t] + gamma * next_value[t]
    rest = naive_lambda_return(reward, next_value, terminal, ended, gamma, lam, t + 1)
    return reward[t] + gamma * ((1 - lam) * next_value[t] + lam * rest)


@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
def test_gae_against_recursive_lambda_returns(lam):
    rng = np.random.default_rng(0)
    T, N, gamma = 40, 3, 0.9
    reward, value, successor = rng.normal(size=(3, T, N))
    terminal = rng.random((T, N)) < 0.1
    life_lost = terminal & (rng.random((T, N)) < 0.3)  # nothing to bootstrap from, but the episode goes on
    ended = (terminal & ~life_lost) | (rng.random((T, N)) < 0.1)
    next_value = np.where(ended, successor, np.concatenate([value[1:], successor[-1:]]))
    given = gae(reward, value, next_value, np.where(terminal, 0, gamma), np.where(ended, 0, lam))
    for i in range(N):
        columns = [x[:, i] for x in (reward, next_value, terminal, ended)]
        wanted = [naive_lambda_return(*columns, gamma, lam, t) - value[t, i] for t in range(T)]
        np.testing.assert_allclose(given[:, i], wanted, rtol=1e-12, atol=1e-12)


def test_a_trace_of_one_sums_the_rewards_and_one_value_behind_them():
    """1 + 0.5 * 2 + 0.25 * 4 + 0.125 * 8 = 4, minus the first value 3; the values in between cancel."""
    reward, value = np.array([[1.0], [2.0], [4.0]]), np.array([[3.0], [70.0], [-50.0]])
    given = gae(reward, value, np.array([[70.0], [-50.0], [8.0]]), np.full((3, 1), 0.5), np.ones((3, 1)))
    assert given[0, 0] == pytest.approx(4.0 - 3.0)


def test_reward_scale_is_the_deviation_of_all_returns_so_far():
    rng = np.random.default_rng(1)
    scale, gamma = RewardScale(0.9), 0.9
    rewards, ended = rng.normal(3.0, 2.0, size=(3, 20, 2)), rng.random((3, 20, 2)) < 0.2
    returns, running = [], [0.0, 0.0]
    for k in range(3):
        for t in range(20):
            for i in range(2):
                running[i] = running[i] * gamma + rewards[k, t, i]
                returns.append(running[i])
                running[i] = 0.0 if ended[k, t, i] else running[i]
        np.testing.assert_allclose(scale(rewards[k], ended[k]), rewards[k] / np.std(returns), rtol=1e-7)


def test_reward_scale_goes_on_from_its_state():
    rng = np.random.default_rng(2)
    first, second = RewardScale(0.9), RewardScale(0.9)
    rewards, ended = rng.normal(size=(2, 5, 2)), np.zeros((5, 2), dtype=bool)
    first(rewards[0], ended)
    second.load_state_dict(first.state_dict())
    np.testing.assert_array_equal(first(rewards[1], ended), second(rewards[1], ended))


def test_scaled_rewards_are_clipped_at_ten() -> None:
    """The deviation of the returns is sqrt(2 / 1000), about 0.045, so that they would be about 22."""
    reward = np.zeros((1000, 1))
    reward[-2:, 0] = -1.0, 1.0
    scaled = RewardScale(0.0)(reward, np.zeros((1000, 1), dtype=bool))
    assert scaled[-2:, 0].tolist() == [-10.0, 10.0]
