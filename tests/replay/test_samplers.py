from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_runner.replay.samplers import Prioritized, SumTree, Uniform
from rl_runner.types import UserError

# Uniform.


def test_ids_are_uniform_over_all_rows_known():
    sampler, rng = Uniform(), np.random.default_rng(0)
    sampler.add(np.array([0, 1, 2]))
    sampler.add(np.array([27, 28, 29]))
    ids = sampler.sample(60_000, 0, rng)
    counts = np.bincount(ids, minlength=30)
    assert len(counts) == 30
    chi2 = ((counts - 2000.0) ** 2 / 2000.0).sum()
    assert chi2 < 29 + 4 * np.sqrt(2 * 29)


def test_adding_an_old_row_again_forgets_none():
    sampler = Uniform()
    sampler.add(np.array([8, 9]))
    sampler.add(np.array([0, 1]))  # the ring has wrapped
    assert sampler.state_dict() == {"high": 10}


def test_weights_are_one_and_updates_change_nothing():
    sampler = Uniform()
    sampler.add(np.arange(50))
    before = sampler.sample(20, 0, np.random.default_rng(3))
    weight = sampler.weight(before, 0)
    assert weight.dtype == np.float32
    assert weight.tolist() == [1.0] * 20
    sampler.update(before, torch.full((20,), 9.0))
    sampler.update(before, None)
    np.testing.assert_array_equal(sampler.sample(20, 0, np.random.default_rng(3)), before)
    assert sampler.metrics(0) == {}


def test_sampling_draws_from_the_stream_given_alone():
    sampler = Uniform()
    sampler.add(np.arange(50))
    one, two = (sampler.sample(20, 0, np.random.default_rng(seed)) for seed in (1, 2))
    assert (one != two).any()


def test_a_loaded_sampler_draws_as_the_saved_one():
    sampler, other = Uniform(), Uniform()
    sampler.add(np.arange(50))
    other.load_state_dict(sampler.state_dict())
    for seed in range(3):
        a, b = (s.sample(20, 0, np.random.default_rng(seed)) for s in (sampler, other))
        np.testing.assert_array_equal(a, b)


# The tree of sums, against a list and its running sum.

SIZES = (1, 2, 31, 32, 33, 1000, 1024, 1025, 40_000)


@st.composite
def changes(draw):
    """A size and changes (ids, values): whole numbers, so that all sums are exact, many of them 0, ids repeated."""
    size = draw(st.sampled_from(SIZES))
    ids = st.one_of(st.integers(0, size - 1), st.sampled_from([0, size - 1, size // 2]))
    change = st.lists(st.tuples(ids, st.sampled_from([0, 0, 1, 2, 5, 1000])), min_size=1, max_size=20)
    return size, draw(st.lists(change, min_size=1, max_size=8))


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(changes(), st.integers(0, 10**6))
def test_the_tree_finds_what_a_running_sum_finds(case, seed):
    size, todo = case
    tree, naive, rng = SumTree(size), [0.0] * size, np.random.default_rng(seed)
    for change in todo:
        for i, value in change:
            naive[i] = float(value)
        tree.set(*(np.array(x) for x in zip(*change, strict=True)))
        assert tree.total == sum(naive)
        assert tree.leaves.tolist() == naive
        if tree.total == 0:
            continue
        running = np.cumsum(naive)
        steps = running[running < tree.total]  # a mass that is exactly where one number ends and the next begins
        mass = np.concatenate([[0.0, np.nextafter(tree.total, 0)], rng.uniform(0, tree.total, 20), steps[-50:]])
        ids = tree.find(mass)
        assert ids.tolist() == [int(np.argmax(running > m)) for m in mass]
        assert (tree.get(ids) > 0).all()


@pytest.mark.parametrize("size", SIZES)
def test_numbers_that_round_are_found_within_rounding_and_zeros_never(size):
    """Numbers over many orders of magnitude, every third 0."""
    rng = np.random.default_rng(size)
    numbers = np.exp(rng.uniform(-20, 10, size))
    numbers[1::3] = 0.0
    tree = SumTree(size)
    tree.set(np.arange(size), numbers)
    total = math.fsum(numbers)
    assert tree.total == pytest.approx(total, rel=1e-14)
    edges = np.cumsum(numbers)[:1000]
    mass = np.concatenate([[0.0], rng.uniform(0, tree.total, 1000), edges, np.nextafter(edges, 0)])
    mass = np.concatenate([mass[mass < tree.total], [np.nextafter(tree.total, 0), tree.total, tree.total * 1.01]])
    ids = tree.find(mass)
    assert (numbers[ids] > 0).all()
    above = np.cumsum(numbers)[ids]
    below = above - numbers[ids]
    inside = np.minimum(mass, total)
    assert (below <= inside + 1e-12 * total).all()
    assert (inside <= above + 1e-12 * total).all()


@pytest.mark.parametrize("size", [33, 1025, 40_000])
def test_after_100_000_changes_the_sums_are_those_of_a_fresh_tree(size):
    rng = np.random.default_rng(0)
    tree, fresh, loaded = SumTree(size), SumTree(size), SumTree(size)
    for _ in range(1000):
        tree.set(rng.integers(size, size=100), np.exp(rng.uniform(-10, 10, 100)))
    leaves = tree.leaves.copy()
    fresh.set(np.arange(size), leaves)
    loaded.load(leaves)
    assert tree.total == fresh.total == loaded.total
    assert tree.total == pytest.approx(math.fsum(leaves), rel=1e-13)
    mass = rng.uniform(0, tree.total, 2000)
    np.testing.assert_array_equal(tree.find(mass), fresh.find(mass))
    np.testing.assert_array_equal(tree.find(mass), loaded.find(mass))


def test_of_two_numbers_for_one_id_the_last_counts():
    tree = SumTree(100)
    tree.set(np.array([40, 7, 40, 40]), np.array([5.0, 1.0, 9.0, 2.0]))
    assert (tree.get(np.array([40])).item(), tree.total) == (2.0, 3.0)


def test_loading_forgets_what_was_there():
    tree = SumTree(2000)
    tree.set(np.arange(2000), np.full(2000, 7.0))
    tree.load(np.array([1.0, 2.0]))
    assert tree.total == 3.0
    assert tree.leaves.sum() == 3.0
    assert tree.find(np.array([0.5, 1.5, 2.9])).tolist() == [0, 1, 1]
    with pytest.raises(ValueError, match="saved 2001, configured 2000"):
        tree.load(np.zeros(2001))


# Prioritized.

ALPHAS = (0.0, 0.5, 0.6, 1.0)
PRIORITY = np.array([0.1, 3.0, 0.0, 1.0, 8.0, 0.5, 2.0, 2.0, 20.0, 0.01])
EPSILON = 0.05


def ten_rows(alpha: float, **more: float) -> Prioritized:
    """Rows 30 to 39 of 50 with the priorities above."""
    sampler = Prioritized(50, alpha, epsilon=EPSILON, **more)
    ids = np.arange(30, 40)
    sampler.add(ids)
    sampler.update(ids, torch.from_numpy(PRIORITY).float())
    return sampler


def chances(alpha: float) -> np.ndarray:
    powers = [(p + EPSILON) ** alpha for p in PRIORITY]
    return np.array(powers) / sum(powers)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_rows_are_drawn_in_proportion_to_priority_to_the_alpha(alpha):
    sampler, rng, draws = ten_rows(alpha), np.random.default_rng(1), 8000
    ids = np.concatenate([sampler.sample(1, 0, rng) for _ in range(draws)])
    counts, expected = np.bincount(ids, minlength=50), draws * chances(alpha)
    assert counts[30:40].sum() == draws
    chi2 = ((counts[30:40] - expected) ** 2 / expected).sum()
    assert chi2 < 9 + 4 * np.sqrt(2 * 9)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("n", [7, 1000])
def test_a_batch_holds_each_row_as_often_as_is_expected_give_or_take_two(alpha, n):
    """One id from each of n parts of equal mass: a row whose mass spans x parts comes x - 2 to x + 2 times."""
    rng = np.random.default_rng(2)
    for _ in range(20):
        counts = np.bincount(ten_rows(alpha).sample(n, 0, rng), minlength=50)[30:40]
        assert (np.abs(counts - n * chances(alpha)) < 2).all()


@pytest.mark.parametrize(("step", "beta"), [(0, 0.4), (20, 0.52), (50, 0.7), (100, 1.0), (170, 1.0)])
def test_importance_weights(step, beta):
    """(rows * chance)^-beta over the largest of the batch; beta goes from 0.4 to 1 over 100 steps."""
    ids = [30, 34, 38, 34, 31]
    alone = Prioritized(50, 0.5, beta=0.4, beta_steps=100, epsilon=EPSILON)
    alone.load_state_dict(ten_rows(0.5).state_dict())
    weights = [(10 * chances(0.5)[i - 30]) ** -beta for i in ids]
    found = alone.weight(np.array(ids), step)
    assert found.dtype == np.float32
    assert found.tolist() == pytest.approx([w / max(weights) for w in weights], rel=1e-6)
    assert found.max() == 1
    assert alone.metrics(step)["beta"] == pytest.approx(beta, abs=1e-12)


def test_weights_by_hand():
    """Priorities 1, 4, 16 with alpha 1/2: chances as 1, 2, 4; with beta 1 weights as 1, 1/2, 1/4, as beta 0 all 1."""
    for beta, wanted in [(1.0, [1.0, 0.5, 0.25]), (0.5, [1.0, 0.5**0.5, 0.5]), (0.0, [1.0, 1.0, 1.0])]:
        sampler = Prioritized(3, alpha=0.5, beta=beta, beta_steps=10**12, epsilon=1e-12)
        sampler.add(np.arange(3))
        sampler.update(np.arange(3), torch.tensor([1.0, 4.0, 16.0]))
        assert sampler.weight(np.arange(3), 0).tolist() == pytest.approx(wanted)
        # The largest weight of the batch is 1, whatever other rows there are.
        assert sampler.weight(np.array([2, 1]), 0).tolist() == pytest.approx([wanted[2] / wanted[1], 1.0])


def test_metrics_of_priorities():
    """Priorities 1, 4, 16 with alpha 1/2 are 1, 2, 4; of the capacity two rows are not there yet."""
    sampler = Prioritized(5, alpha=0.5, epsilon=1e-12)
    assert sampler.metrics(0)["priority_mean"] == 0.0
    sampler.add(np.arange(3))
    sampler.update(np.arange(3), torch.tensor([1.0, 4.0, 16.0]))
    assert sampler.metrics(0)["priority_mean"] == pytest.approx(7 / 3)
    assert sampler.metrics(0)["priority_max"] == pytest.approx(4)


def test_beta_follows_the_step_alone_and_reaches_exactly_one():
    sampler = Prioritized(40, beta=0.4, beta_steps=100)
    for step in [*range(121), 7]:
        sampler.add(np.arange(4))  # neither adding, nor drawing, nor updating moves it
        sampler.sample(3, step, np.random.default_rng(0))
        sampler.update(np.arange(4), torch.ones(4))
        assert sampler.metrics(step)["beta"] == pytest.approx(min(1.0, 0.4 + 0.6 * step / 100), abs=1e-12)
    assert sampler.metrics(100)["beta"] == 1.0


def priorities(sampler: Prioritized) -> list[float]:
    return sampler.state_dict()["priority"].tolist()


def test_new_rows_have_the_highest_priority_so_far():
    sampler = Prioritized(6, alpha=0.5, epsilon=1e-12)
    sampler.add(np.array([0, 1]))
    assert priorities(sampler) == [1, 1, 0, 0, 0, 0]
    sampler.update(np.array([0]), torch.tensor([0.25]))
    sampler.add(np.array([2]))
    assert priorities(sampler) == pytest.approx([0.5, 1, 1, 0, 0, 0])  # not the highest of now, which may be below 1
    sampler.update(np.array([1, 2]), torch.tensor([9.0, 4.0]))
    sampler.add(np.array([3]))
    sampler.update(np.array([1, 3]), torch.tensor([0.01, 0.01]))
    sampler.add(np.array([4]))
    assert priorities(sampler) == pytest.approx([0.5, 0.1, 2, 0.1, 3, 0])
    sampler.add(np.array([0]))  # the ring has wrapped: it is a new row
    assert priorities(sampler) == pytest.approx([3, 0.1, 2, 0.1, 3, 0])


@pytest.mark.parametrize("alpha", ALPHAS)
def test_rows_without_an_error_are_still_drawn(alpha):
    sampler = Prioritized(4, alpha, epsilon=0.01)
    sampler.add(np.arange(4))
    sampler.update(np.arange(4), torch.zeros(4))
    assert priorities(sampler) == pytest.approx([0.01**alpha] * 4)
    assert sorted(sampler.sample(4, 0, np.random.default_rng(0)).tolist()) == [0, 1, 2, 3]
    assert sampler.weight(np.arange(4), 0).tolist() == [1.0] * 4


def test_of_a_row_drawn_twice_the_last_priority_counts():
    sampler = Prioritized(4, alpha=1.0, epsilon=1e-12)
    sampler.add(np.arange(4))
    sampler.update(np.array([2, 1, 2]), torch.tensor([5.0, 3.0, 0.5]))
    assert priorities(sampler) == pytest.approx([1, 3, 0.5, 1])


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -0.5])
def test_a_priority_that_is_none_is_told_and_changes_nothing(alpha, bad):
    sampler = ten_rows(alpha)
    before = copy.deepcopy(sampler.state_dict())
    with pytest.raises(UserError, match=r"^optimizer\.lr: the network has diverged"):
        sampler.update(np.array([30, 31]), torch.tensor([1.0, bad]))
    after = sampler.state_dict()
    np.testing.assert_array_equal(after.pop("priority"), before.pop("priority"))
    assert after == before


def test_an_agent_without_priorities_is_told():
    with pytest.raises(UserError, match=r"^replay: the agent returns no priorities, which replay=prioritized needs"):
        ten_rows(0.5).update(np.array([30]), None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_priorities_of_every_precision_are_taken(dtype):
    sampler = Prioritized(4, alpha=0.5, epsilon=1e-12)
    sampler.add(np.arange(4))
    sampler.update(np.arange(4), torch.tensor([4.0, 1.0, 0.25, 16.0], dtype=dtype))
    assert priorities(sampler) == pytest.approx([2, 1, 0.5, 4])


@pytest.mark.parametrize(("saved", "configured"), [(33, 33), (33, 40_000), (1000, 1000), (1000, 1025)])
def test_a_loaded_sampler_goes_on_bit_for_bit_also_with_more_rows(saved, configured):
    more = {"alpha": 0.7, "beta": 0.4, "beta_steps": 5000}
    sampler, other = Prioritized(saved, **more), Prioritized(configured, **more)
    other.add(np.arange(configured))  # whatever it was before
    other.update(np.arange(configured), torch.full((configured,), 99.0))
    rng = np.random.default_rng(0)

    def step(now: int, *samplers: Prioritized) -> None:
        ids, n = rng.integers(saved, size=2), rng.integers(1, 40)
        priority, seed = torch.from_numpy(rng.exponential(size=n) ** 4), int(rng.integers(10**6))
        drawn, weights = [], []
        for s in samplers:
            s.add(ids)
            drawn.append(s.sample(n, 0, np.random.default_rng(seed)))
            weights.append(s.weight(drawn[-1], now))
            s.update(drawn[-1], priority)
        np.testing.assert_array_equal(drawn[-1], drawn[0])
        np.testing.assert_array_equal(weights[-1], weights[0])

    for now in range(100):
        step(now, sampler)
    state = copy.deepcopy(sampler.state_dict())
    assert all(isinstance(x, (int, float, np.ndarray)) for x in state.values())
    other.load_state_dict(state)
    for now in range(100, 300):
        step(now, sampler, other)


def test_a_sampler_may_be_put_back_to_its_own_state():
    """Of which the priorities are a view."""
    sampler = ten_rows(0.5)
    before = sampler.sample(20, 0, np.random.default_rng(0))
    sampler.load_state_dict(sampler.state_dict())
    np.testing.assert_array_equal(sampler.sample(20, 0, np.random.default_rng(0)), before)


def test_fewer_rows_than_were_saved_are_refused():
    with pytest.raises(ValueError, match="saved 50, configured 49"):
        Prioritized(49).load_state_dict(ten_rows(0.5).state_dict())


def test_a_million_rows_take_at_most_32_megabytes():
    sampler = Prioritized(1_000_000)
    assert 8_000_000 <= sampler.nbytes <= 32_000_000
    sampler.add(np.array([0, 999_999]))
    assert set(sampler.sample(100, 0, np.random.default_rng(0)).tolist()) == {0, 999_999}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": -0.1}, r"replay\.sampler\.alpha: must be in \[0, 1\]"),
        ({"beta": 1.5}, r"replay\.sampler\.beta: must be in \[0, 1\]"),
        ({"epsilon": 0.0}, r"replay\.sampler\.epsilon: must be above 0"),
        ({"beta_steps": -1}, r"replay.sampler.beta_steps: must be 0 or more"),
    ],
)
def test_values_out_of_range_are_told(arguments, message):
    with pytest.raises(UserError, match=message):
        Prioritized(10, **arguments)
