from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch

from rl_runner import rng


def test_the_same_arguments_give_the_same_stream():
    assert rng.integer(3, "train", 1, 2) == rng.integer(3, "train", 1, 2)
    np.testing.assert_array_equal(rng.generator(3, "replay").random(5), rng.generator(3, "replay").random(5))


def test_seed_name_and_each_index_matter_and_so_does_their_order():
    grid = itertools.product([0, 1, 2, 2**31, 2**40], ["train", "eval", "a", "b"], range(4), range(4))
    seeds = [rng.integer(seed, name, i, k) for seed, name, i, k in grid]
    assert len(set(seeds)) == len(seeds)


def test_an_index_of_zero_is_not_the_same_as_no_index():
    assert len({rng.integer(1, "train"), rng.integer(1, "train", 0), rng.integer(1, "train", 0, 0)}) == 3


def test_integers_suit_an_environments_reset():
    drawn = [rng.integer(7, "train", 0, k) for k in range(2000)]
    assert all(type(i) is int and 0 <= i < 2**31 for i in drawn)
    assert len(set(drawn)) == 2000
    assert max(drawn) > 2**30  # all bits are used


def test_streams_of_different_names_are_not_correlated():
    a, b = (rng.generator(0, name).standard_normal(10_000) for name in ("actor", "replay"))
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.05


def test_a_generators_state_survives_json_and_gives_the_same_numbers():
    generator = rng.generator(0, "actor")
    generator.integers(10, size=7, dtype=np.int32)  # leaves half of a 64-bit draw behind
    state = json.loads(json.dumps(rng.generator_state(generator)))
    other = rng.generator(1, "else")
    rng.load_generator_state(other, state)
    np.testing.assert_array_equal(
        generator.integers(10, size=50, dtype=np.int32), other.integers(10, size=50, dtype=np.int32)
    )
    np.testing.assert_array_equal(generator.random(50), other.random(50))


def test_a_generators_state_stays_put_while_the_generator_runs():
    generator = rng.generator(0, "actor")
    state = rng.generator_state(generator)
    first = generator.random(5)
    rng.load_generator_state(generator, state)
    np.testing.assert_array_equal(generator.random(5), first)


def test_torchs_state_comes_back():
    with torch.random.fork_rng():
        torch.manual_seed(4)
        state = rng.torch_state()
        first = torch.randn(5)
        rng.load_torch_state(state)
        assert torch.equal(torch.randn(5), first)


def test_states_of_more_cuda_devices_than_there_are_do_no_harm():
    state = rng.torch_state()
    state["cuda"] = [*state["cuda"], torch.zeros(16, dtype=torch.uint8)]
    if torch.cuda.device_count() > 0:
        pytest.skip("for machines without CUDA")
    rng.load_torch_state(state)
    assert torch.equal(torch.get_rng_state(), state["cpu"])


def test_streams_are_those_of_every_process_and_version() -> None:
    assert rng.integer(0, "train", 0, 0) == 1547072430
    assert rng.generator(3, "replay").integers(0, 1000, 4).tolist() == [211, 353, 545, 537]
