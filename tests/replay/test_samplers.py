from __future__ import annotations

import numpy as np
import torch

from rl_runner.replay.samplers import Uniform


def test_ids_are_uniform_over_all_rows_known():
    sampler, rng = Uniform(), np.random.default_rng(0)
    sampler.add(np.array([0, 1, 2]))
    sampler.add(np.array([27, 28, 29]))
    ids, _ = sampler.sample(60_000, rng)
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
    before, weight = sampler.sample(20, np.random.default_rng(3))
    assert weight.dtype == np.float32
    assert (weight == 1).all()
    sampler.update(before, torch.full((20,), 9.0))
    sampler.update(before, None)
    after, _ = sampler.sample(20, np.random.default_rng(3))
    np.testing.assert_array_equal(before, after)


def test_sampling_draws_from_the_stream_given_alone():
    sampler = Uniform()
    sampler.add(np.arange(50))
    one, two = sampler.sample(20, np.random.default_rng(1))[0], sampler.sample(20, np.random.default_rng(2))[0]
    assert (one != two).any()


def test_a_loaded_sampler_draws_as_the_saved_one():
    sampler, other = Uniform(), Uniform()
    sampler.add(np.arange(50))
    other.load_state_dict(sampler.state_dict())
    for seed in range(3):
        a, b = (s.sample(20, np.random.default_rng(seed))[0] for s in (sampler, other))
        np.testing.assert_array_equal(a, b)
